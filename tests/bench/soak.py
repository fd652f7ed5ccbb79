"""Half an hour at half of what the machine can carry: ``python -m tests.bench.soak`` (``make soak``).

First the fleet is asked for all it can do, then for half of that, at fixed times, on five exchanges. Every minute a row
shows what its processes hold: memory, file handles, connections to exchanges, channels, keys, unsettled deliveries. At
the end the load stops, everything is answered, connections that nobody uses are closed, and a table says which of it
was flat. It leaves with 1 where something was not.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Final

import uvloop

from schemas.messages import Request
from schemas.runtime.tasks import end_tasks
from tests.faults.verdict import least, spare_by_limit
from workers.exchange.egress import IDLE_S

from .held import Judged, Sample, exchange_ports, handles, judge, look
from .load import METHODS, PAIRS
from .measure import Options, met, percentile
from .stage import EXCHANGES, Servers, Stage

MINUTES: Final = 30.0
SAMPLES: Final = 30
# One look takes seconds: rabbitmqctl boots a machine of its own.
LOOK_EVERY_S: Final = 10.0
WORKERS: Final = 2
DISPATCHERS: Final = 2
CAPACITY_S: Final = 30.0
WARM_UP_S: Final = 10.0
AT_ONCE: Final = 200
SETTLE_S: Final = 60.0
STOP_GRACE_S: Final = 20.0
# aiohttp looks for idle connections that often, so one may have been idle for twice as long.
CLOSED_AFTER_S: Final = 2 * IDLE_S + 10
# The exchanges close none meanwhile: one that the fleet forgot would be closed by them, and not be seen.
KEEP_ALIVE: Final = ("--keep-alive-s", "7200")


class Load:
    """Requests of all methods for any exchange."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._calls = itertools.cycle([(method, args, pair) for pair in PAIRS for method, args in METHODS.items()])
        self.sent = self.answered = self.errors = 0
        self.took_ms: list[float] = []

    async def ask(self) -> None:
        """Sends the next and waits for its result."""
        method, args, pair = next(self._calls)
        self.sent += 1
        begun_s = time.monotonic()
        result = await self._stage.client.ask(Request(method, {"symbol": pair, **args}))
        self.took_ms.append((time.monotonic() - begun_s) * 1000)
        self.answered += 1
        self.errors += not result.ok

    async def capacity_per_s(self) -> float:
        """What the fleet answers in a second when it is asked for all it can do."""

        async def go_on() -> None:
            while True:
                await self.ask()

        tasks = [asyncio.create_task(go_on()) for _ in range(AT_ONCE)]
        await asyncio.sleep(WARM_UP_S)
        before = self.answered
        await asyncio.sleep(CAPACITY_S)
        found = (self.answered - before) / CAPACITY_S
        await end_tasks(tasks)
        return found

    async def steady(self, per_s: float, seconds: float) -> None:
        """Sends at fixed times for so long, and waits for the results."""
        begun_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_s * seconds)):
                await asyncio.sleep(max(0.0, begun_s + number / per_s - time.monotonic()))
                group.create_task(self.ask())


async def main(minutes: float, options: Options) -> bool:
    """Runs and prints; whether all was flat."""
    async with (
        Servers.started() as servers,
        servers.stage(workers=WORKERS, dispatchers=DISPATCHERS, simulator_words=KEEP_ALIVE) as stage,
    ):
        load = Load(stage)
        capacity = await load.capacity_per_s()
        print(f"The fleet answers {capacity:.0f} requests a second at most; half of that for {minutes:g} minutes.")
        table = options.table(
            "Every row a moment",
            *("minute", "answered", "open", "errors", "p99, ms", "memory, MiB", "handles", "to exchanges"),
            *("channels", "unsettled", "messages", "keys", "lasting keys"),
        )
        load = Load(stage)
        running = asyncio.create_task(load.steady(capacity / 2, minutes * 60))
        samples: list[Sample] = []
        begun_s = time.monotonic()
        every_s = max(minutes * 60 / SAMPLES, LOOK_EVERY_S)
        for number in itertools.count(1):
            await asyncio.wait([running], timeout=max(0.1, begun_s + number * every_s - time.monotonic()))
            if running.done():
                break
            samples.append(await look(servers, stage))
            cells = _cells(samples[-1])
            recent_ms, load.took_ms = load.took_ms or [0.0], []
            counts = [f"{load.answered:,}", str(load.sent - load.answered), str(load.errors)]
            table.row(f"{(time.monotonic() - begun_s) / 60:.1f}", *counts, percentile(recent_ms, 0.99), *cells)
        await running
        # The last acknowledgements are on their way.
        give_up_s = time.monotonic() + SETTLE_S
        while (last := await look(servers, stage)).unsettled and time.monotonic() < give_up_s:
            await asyncio.sleep(0.5)
        table.row("the end", f"{load.answered:,}", "0", str(load.errors), "", *_cells(last))
        counters = await stage.simulator.counters()
        for name, counts in counters["exchanges"].items():
            for broken in counts["broken"]:
                print(f"{name} broken: {broken}", flush=True)
        spare_ms = least(spare_by_limit(counters["exchanges"]))
        rows = judge(samples, last, await _idle(stage), len(EXCHANGES))
        return _verdict(options, rows, load, counters["violations"], spare_ms)


async def _idle(stage: Stage) -> dict[str, int]:
    """Each worker's connections to exchanges when those that nobody uses should all be closed.

    The dispatchers are stopped first: their probes of idle lanes would use two of them in turn, and keep both.
    """
    await asyncio.gather(*(dispatcher.stop(grace_s=STOP_GRACE_S) for dispatcher in stage.fleet.dispatchers))
    give_up_s = time.monotonic() + CLOSED_AFTER_S
    ports = exchange_ports(stage)
    while True:
        found = {worker.name: handles(worker.pid, ports).exchanges for worker in stage.fleet.workers}
        if max(found.values()) <= len(EXCHANGES) or time.monotonic() > give_up_s:
            return found
        await asyncio.sleep(1)


def _cells(sample: Sample) -> list[str]:
    memory = ", ".join(f"{name} {mib:.0f}" for name, mib in sample.memory_mib.items())
    others = ", ".join(str(held.others) for held in sample.handles.values())
    exchanges = ", ".join(str(held.exchanges) for held in sample.handles.values() if held.exchanges)
    counts = (sample.channels, sample.unsettled, sample.messages, sample.keys, sample.lasting)
    return [memory, others, exchanges, *map(str, counts)]


def _verdict(options: Options, rows: Sequence[Judged], load: Load, violations: int, spare_ms: str) -> bool:
    counts = {
        "requests without an answer": load.sent - load.answered,
        "requests that ended in an error": load.errors,
        "limits broken": violations,
    }
    everything = [*rows, *(Judged(what, "", str(count), "0", count == 0) for what, count in counts.items())]
    table = options.table("Flat at the end?", "", "second quarter", "last quarter", "aim", "")
    for row in everything:
        table.row(row.what, row.before, row.after, row.aim, met(row.flat))
    table.row("  room to spare", "", spare_ms, "", "")
    return all(row.flat for row in everything)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"how long (default: {MINUTES:g})")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    words = parser.parse_args()
    sys.exit(0 if uvloop.run(main(words.minutes, Options(markdown=words.markdown))) else 1)
