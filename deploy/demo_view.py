"""What the demo shows: the lanes and the latest events, live in a terminal or as plain lines in a pipe.

The numbers come from the same places as an operator's: the workers' reports and the dispatcher's metrics.
"""

import time
from collections import deque
from typing import Final, Self

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from msgspec import Struct, field
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.local import Service
from schemas import topology
from schemas.messages import EXCHANGE_FAILURES
from schemas.reports import BucketReport, LaneReport, decode_report

LINE_EVERY_S: Final = 2.0
EVENTS_SHOWN: Final = 6
BAR_CELLS: Final = 8
# Buckets of a second fill and empty faster than people read: the fullest of so long is shown.
USED_OVER_S: Final = 1.0
# From so many columns on there is room for the buckets too; the end shows them in any case.
WIDE: Final = 120


class Bucket(Struct):
    """What is known of one bucket of a lane, from all workers."""

    peak: float = 0.0
    granted: float = 0.0
    waited_ms: float = 0.0
    refused: int = 0
    used: deque[tuple[float, float]] = field(default_factory=deque[tuple[float, float]])

    def observe(self, report: BucketReport, now_s: float) -> None:
        """Takes in a worker's report."""
        self.peak = max(self.peak, report.used)
        self.granted += report.granted
        self.waited_ms += report.waited_ms
        self.refused += report.refused
        self.used.append((now_s, report.used))
        while self.used[0][0] < now_s - USED_OVER_S:
            self.used.popleft()

    def fullest(self, now_s: float) -> float:
        """The most of it in use in the last second."""
        return max((part for at_s, part in self.used if at_s >= now_s - USED_OVER_S), default=0.0)


class Lane(Struct):
    """What is known of a lane now."""

    healthy: bool = True
    paused: bool = False
    failures_in_a_row: int = 0
    sent: int = 0
    ok: int = 0
    returned: int = 0
    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])

    def observe(self, report: LaneReport, now_s: float) -> None:
        """Takes in a worker's report."""
        self.ok += report.ok
        if report.ok or report.rejected:
            self.failures_in_a_row = report.failures_in_a_row
        else:
            self.failures_in_a_row += sum(count for code, count in report.failed.items() if code in EXCHANGE_FAILURES)
        for name, bucket in report.buckets.items():
            self.buckets.setdefault(name, Bucket()).observe(bucket, now_s)

    def fullest(self, now_s: float) -> tuple[float, str, Bucket]:
        """The fullest bucket of the last second: the used part, its name, and what is known of it."""
        parts = [(bucket.fullest(now_s), name) for name, bucket in self.buckets.items()]
        used, name = max(parts, default=(0.0, ""))
        return used, name, self.buckets.get(name, Bucket())

    def health(self) -> Text:
        """Its health in words, in the colour of what it means."""
        if not self.healthy:
            why = f"{self.failures_in_a_row} failures in a row" if self.failures_in_a_row else "no worker"
            return Text(f"offline ({why})", style="red")
        return Text("paused", style="yellow") if self.paused else Text("healthy", style="green")


class View:
    """The screen, or the lines, of one run. `start` begins its clock.

    Args:
        console: where to.
        lanes: the lanes' names in the order of the table.
        seconds: how long requests are published.
    """

    def __init__(self, console: Console, lanes: list[str], seconds: float) -> None:
        self.lanes = {name: Lane() for name in lanes}
        self.requests = 0
        self.results = 0
        self._console = console
        self._seconds = seconds
        self._events: deque[Text] = deque(maxlen=EVENTS_SHOWN)
        self._started_s = time.monotonic()
        self._next_line_s = 0.0
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        """The clock starts; in a terminal the table appears."""
        self._started_s = time.monotonic()
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The last state stays on the screen."""
        self.refresh()
        if self._live:
            self._live.stop()

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_s

    def say(self, what: str, style: str = "") -> None:
        """Shows an event."""
        line = Text(f"{self.now_s:5.1f} s  ", style="dim").append(what, style=style or "not dim")
        self._events.append(line)
        if not self._live:
            self._console.print(line, soft_wrap=True)

    def refresh(self) -> None:
        """Draws anew; in a pipe it prints a line every two seconds."""
        if self._live:
            self._live.update(Group(self._title(), "", self._table(), "", *self._event_lines()), refresh=True)
        elif self.now_s >= self._next_line_s:
            self._next_line_s += LINE_EVERY_S
            self.say(self._line())

    def _title(self) -> RenderableType:
        open_requests = self.requests - self.results
        title = Text(" ccxt-fleet", style="bold").append(f"  {min(self.now_s, 999):5.1f} s", style="not bold")
        for number, word in ((self.requests, "requests"), (self.results, "results"), (open_requests, "open")):
            title.append(f"   {number:4d} ", style="bold").append(word, style="not bold dim")
        return title

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
        table.add_column("lane", width=8)
        table.add_column("health", width=30, no_wrap=True)
        table.add_column("budget used", width=BAR_CELLS + 5, no_wrap=True)
        for word in ("sent", "ok"):
            table.add_column(word, justify="right", width=4)
        table.add_column("returned", justify="right", width=8)
        wide = self._console.width >= WIDE
        if wide:
            table.add_column("fullest bucket", width=16, no_wrap=True)
            table.add_column("waited", justify="right", width=8)
            table.add_column("refused", justify="right", width=7)
        for name, lane in self.lanes.items():
            used, fullest, bucket = lane.fullest(self.now_s)
            cells = [str(count) for count in (lane.sent, lane.ok, lane.returned)]
            if wide:
                cells += [fullest, f"{bucket.waited_ms / 1000:.1f} s", str(bucket.refused)]
            table.add_row(name, lane.health(), _bar(used), *cells)
        return table

    def buckets(self) -> Table:
        """All buckets over the whole run, as the workers counted them."""
        table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
        for word in ("lane", "bucket", "granted", "fullest", "waited", "refused"):
            table.add_column(word, justify="left" if word in {"lane", "bucket"} else "right")
        for name, lane in self.lanes.items():
            for bucket, seen in sorted(lane.buckets.items()):
                if not seen.granted and not seen.refused:
                    continue  # used only to load markets, before the clock started
                waited = f"{seen.waited_ms / 1000:.1f} s"
                table.add_row(name, bucket, f"{seen.granted:.6g}", f"{seen.peak:.0%}", waited, str(seen.refused))
        return table

    def _event_lines(self) -> list[Text]:
        return [*self._events, *(Text() for _ in range(EVENTS_SHOWN - len(self._events)))]

    def _line(self) -> str:
        lanes = self.lanes.values()
        return (
            f"{self.requests} requests, {self.results} results, {self.requests - self.results} open; "
            f"{sum(lane.healthy for lane in lanes)} of {len(lanes)} lanes healthy; "
            f"attempts handed back: {sum(lane.returned for lane in lanes)}"
        )


class Watch:
    """Keeps a view's lanes up to date: reports through a queue of its own, metrics from the dispatcher."""

    def __init__(self, view: View, dispatcher: Service) -> None:
        self._view = view
        self._dispatcher = dispatcher

    async def listen(self, connection: aio_pika.abc.AbstractConnection) -> None:
        """Takes a copy of every report from now on."""
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(topology.REPORTS)
        await queue.consume(self._on_report, no_ack=True)

    async def _on_report(self, message: AbstractIncomingMessage) -> None:
        for report in decode_report(message.body).lanes:
            if lane := self._view.lanes.get(report.lane):
                lane.observe(report, self._view.now_s)

    async def look(self) -> None:
        """Reads the dispatcher's metrics and says which lanes went and came."""
        seen = await self._dispatcher.metrics()
        if not seen:
            return
        for name, lane in self._view.lanes.items():
            lane.sent = int(seen.get(("fleet_attempts_sent_total", name), 0))
            lane.returned = int(
                sum(value for key, value in seen.items() if key[0] == "fleet_attempts_returned_total" and name in key)
            )
            lane.paused = bool(seen.get(("fleet_lane_paused", name)))
            healthy = bool(seen.get(("fleet_lane_healthy", name)))
            if healthy is not lane.healthy:
                lane.healthy = healthy
                story = (
                    f"{name} is healthy again" if healthy else f"{name} is offline: its requests go elsewhere or wait"
                )
                self._view.say(story, "green" if healthy else "red")


def _bar(part: float) -> Text:
    filled = min(BAR_CELLS, round(part * BAR_CELLS))
    return Text("━" * filled).append("─" * (BAR_CELLS - filled), style="dim").append(f" {part:4.0%}")
