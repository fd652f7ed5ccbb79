"""One of five exchanges goes down under a steady load for any of them, and returns: ``--only outages``.

The load is as much as the four others carry within their limits: 100 requests a second, 10 s deadlines, each exchange
50 ms away. Four exchanges carry that only with calls that weigh little: Binance has a weight of 100 a second, all that
Coinbase has is 10 calls a second, Kraken 1, HTX 10 for its clock and its candles together and 10 for tickers. So 8 of
10 requests ask for the clock, one for a ticker, one for candles, and the lanes' weights follow what each may be asked.

What is measured, from the dispatchers' metrics ten times a second and from the client:

- left: from the fault to the first second in which the lane gets less than 1 % of new attempts. Trials, which find out
  whether it is back, are counted apart.
- after: the part of new attempts that it got from then to the fault's end.
- good: from the fault's end to the answer of the first trial, which must come as fast as before.
- full: from there to the middle of the first two seconds in which it gets 90 % of what it had before.
- missed: requests, of all sent in the outage, that had no answer by their deadline or ended in an error.
"""

import asyncio
import bisect
import contextlib
import itertools
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, Self

import aiohttp
from msgspec import Struct
from msgspec.structs import replace

from deploy.local import Service
from schemas.messages import Request, Result

from .measure import Options, Table, met, percentile
from .stage import Servers, Stage

FAULTS: Final[Mapping[str, tuple[Mapping[str, object], float]]] = {
    # The fault set at the simulator, and how soon the lane should be left.
    "refused": ({"down": "refused"}, 1.0),
    "hangs": ({"hang": True}, 1.0),
    "500s": ({"error_rate": 1.0}, 1.0),
    "html": ({"garbage": "html"}, 1.0),
    "errors": ({"error_rate": 0.3}, 3.0),
    "slow": ({"latency_ms": 500}, 3.0),
}
WORDS: Final[Mapping[str, str]] = {
    "refused": "refuses connections",
    "hangs": "never answers",
    "500s": "answers 500",
    "html": "answers HTML at 200",
    "errors": "fails 30 % of calls",
    "slow": "10 times the latency",
}
LATENCY_MS: Final = 50
DEADLINE_S: Final = 10.0
WEIGHTS: Final[Mapping[str, float]] = {"binance": 70, "okx": 9, "htx": 11, "coinbase": 8.5, "kraken": 0.5}
SYMBOL: Final[dict[str, Any]] = {"symbol": "BTC/USDT"}
CLOCK: Final = Request("fetch_time")
TICKER: Final = Request("fetch_ticker", SYMBOL)
CANDLES: Final = Request("fetch_ohlcv", {**SYMBOL, "timeframe": "1m", "limit": 10})
CALLS: Final = (*[CLOCK] * 4, TICKER, *[CLOCK] * 4, CANDLES)
BEFORE_S: Final = 8.0
OUTAGE_S: Final = 12.0
RETURN_S: Final = 15.0
BASE_S: Final = 5.0
RATE_PER_S: Final = 100.0
POLL_S: Final = 0.1
LEFT_PART: Final = 0.01
LEFT_OVER_S: Final = 1.0
FULL_PART: Final = 0.9
FULL_OVER_S: Final = 2.0
AIM_FULL_S: Final = 5.0
# A good answer that took longer belongs to the outage.
FAST_LATENCIES: Final = 5
COLUMNS: Final = (
    "fault",
    "share",
    "p50, ms",
    "p99, ms",
    "left",
    "aim",
    "after",
    "trials",
    "missed",
    "p50, ms",
    "p99, ms",
    "good",
    "full",
    "aims",
)
_COUNTED: Final = re.compile(r'^fleet_(attempts_sent|trials)_total\{lane="([^"]+)"\} (\S+)$', re.MULTILINE)


class Asked(Struct):
    """One request of the load, and how it ended."""

    sent_s: float
    done_s: float | None = None
    result: Result | None = None

    @property
    def missed(self) -> bool:
        """Whether it had no good answer by its deadline."""
        return self.done_s is None or self.done_s > self.sent_s + DEADLINE_S or not (self.result and self.result.ok)

    @property
    def took_ms(self) -> float:
        """Milliseconds from sending to the answer; to the deadline where none came."""
        return ((self.done_s or self.sent_s + DEADLINE_S) - self.sent_s) * 1000

    def story(self) -> str:
        """What became of it, attempt by attempt."""
        if not self.result:
            return "no result"
        tries = [f"{item.lane} {item.code or item.outcome} {item.exchange_ms:.0f} ms" for item in self.result.attempts]
        return f"{self.took_ms:.0f} ms: {', '.join(tries)}"


class Counts(Struct, frozen=True):
    """What the dispatchers had sent at a time, trials taken out, by lane."""

    at_s: float
    sent: Mapping[str, float]
    trials: Mapping[str, float]


class Watch:
    """Reads what the dispatchers sent, ten times a second.

    Args:
        dispatchers: all; what one sent that is gone stays counted.
    """

    def __init__(self, dispatchers: Sequence[Service]) -> None:
        self._dispatchers = dispatchers
        self._last: dict[tuple[str, str, str], float] = {}
        self._before: dict[tuple[str, str, str], float] = {}
        self.seen: list[Counts] = []

    async def run(self) -> None:
        """Reads until it is cancelled."""
        async with aiohttp.ClientSession() as session:
            while True:
                began_s = time.monotonic()
                await asyncio.gather(*(self._read(session, each) for each in self._dispatchers if each.running))
                sent: dict[str, float] = {}
                trials: dict[str, float] = {}
                for key, latest in self._last.items():
                    _, kind, lane = key
                    count = latest + self._before.get(key, 0)
                    if kind == "trials":
                        trials[lane] = trials.get(lane, 0) + count
                    sent[lane] = sent.get(lane, 0) + (-count if kind == "trials" else count)
                self.seen.append(Counts(time.monotonic(), sent, trials))
                await asyncio.sleep(began_s + POLL_S - time.monotonic())

    async def _read(self, session: aiohttp.ClientSession, dispatcher: Service) -> None:
        with contextlib.suppress(aiohttp.ClientError):  # it was killed just now
            async with session.get(dispatcher.metrics_url) as answer:
                for kind, lane, count in _COUNTED.findall(await answer.text()):
                    key = dispatcher.name, kind, lane
                    if float(count) < self._last.get(key, 0):  # it was started anew
                        self._before[key] = self._before.get(key, 0) + self._last[key]
                    self._last[key] = float(count)

    def between(self, lane: str, since_s: float, until_s: float) -> tuple[float, float]:
        """Attempts for the lane, and all, between two times, as near as was read."""
        first, last = self.at(since_s), self.at(until_s)
        each = {name: last.sent[name] - first.sent.get(name, 0) for name in last.sent}
        return each.get(lane, 0.0), sum(each.values())

    def part(self, lane: str, since_s: float, until_s: float) -> float:
        """The lane's part of all new attempts in that time."""
        ours, all_of_them = self.between(lane, since_s, until_s)
        return ours / max(1.0, all_of_them)

    def at(self, at_s: float) -> Counts:
        """The last reading at that time."""
        return self.seen[max(0, bisect.bisect_right(self.seen, at_s, key=lambda counts: counts.at_s) - 1)]

    def times(self, since_s: float, until_s: float) -> list[float]:
        """When it was read in that time."""
        return [counts.at_s for counts in self.seen if since_s <= counts.at_s <= until_s]


class Load:
    """Sends requests for any exchange at fixed times, whatever becomes of them."""

    def __init__(self, stage: Stage, rate_per_s: float) -> None:
        self._stage = stage
        self._rate_per_s = rate_per_s
        self._asking: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []

    async def run(self) -> None:
        """Sends until it is cancelled."""
        began_s = time.monotonic()
        for number, request in enumerate(itertools.cycle(CALLS)):
            await asyncio.sleep(began_s + number / self._rate_per_s - time.monotonic())
            task = asyncio.create_task(self._ask(request))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, request: Request) -> None:
        asked = Asked(time.monotonic())
        self.asked.append(asked)
        deadline_ms = int((time.time() + DEADLINE_S) * 1000)
        with contextlib.suppress(RuntimeError):  # no result at all: missed
            asked.result = await self._stage.client.ask(replace(request, deadline_ms=deadline_ms))
            asked.done_s = time.monotonic()

    def sent(self, since_s: float, until_s: float) -> list[Asked]:
        """What was sent in that time."""
        return [asked for asked in self.asked if since_s <= asked.sent_s < until_s]

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, stage: Stage, rate_per_s: float) -> AsyncGenerator[tuple[Self, Watch]]:
        """Sends and watches until the end."""
        load, watch = cls(stage, rate_per_s), Watch(stage.fleet.dispatchers)
        tasks = [asyncio.create_task(load.run()), asyncio.create_task(watch.run())]
        try:
            yield load, watch
        finally:
            for task in (*tasks, *load._asking):
                task.cancel()
            await asyncio.gather(*tasks, *load._asking, return_exceptions=True)


async def run(options: Options) -> None:
    """Measures and prints."""
    lanes, kinds = options.exchanges or ("okx",), options.faults or tuple(FAULTS)
    rate_per_s, workers = options.rate or RATE_PER_S, (options.workers or (2,))[0]
    async with Servers.started() as servers:
        fleet = servers.stage(weights=WEIGHTS, dispatchers=options.dispatchers, workers=workers)
        async with fleet as stage:
            for exchange in stage.fleet.lanes:
                await stage.simulator.fault(exchange, latency_ms=LATENCY_MS)
            async with Load.on(stage, rate_per_s) as (load, watch):
                await asyncio.sleep(BEFORE_S)
                for lane in lanes:
                    title = f"{lane} goes down under {rate_per_s:.0f} requests a second for any of five exchanges"
                    killed = ", one killed meanwhile" * options.kill
                    title += f"; dispatchers: {options.dispatchers}{killed}; workers: {workers}"
                    table = options.table(title, *COLUMNS)
                    for _, kind in itertools.product(range(options.rounds), kinds):
                        await _outage(stage, load, watch, lane, kind, table, kill=options.kill)
            print(f"Limits broken at the simulator in all of this: {(await stage.simulator.counters())['violations']}")


async def _outage(stage: Stage, load: Load, watch: Watch, lane: str, kind: str, table: Table, *, kill: bool) -> None:
    faults, aim_s = FAULTS[kind]
    began_s = time.monotonic()
    await stage.simulator.fault(lane, **{"latency_ms": LATENCY_MS, **faults})
    await asyncio.sleep(OUTAGE_S / 2)
    if kill:
        stage.fleet.dispatchers[0].kill()
    await asyncio.sleep(began_s + OUTAGE_S - time.monotonic())
    ended_s = time.monotonic()
    await stage.simulator.fault(lane, latency_ms=LATENCY_MS)
    await asyncio.sleep(RETURN_S)
    if kill:
        stage.fleet.dispatchers[0].start()
        await stage.fleet.ready(stage.fleet.lanes)
        await asyncio.sleep(BASE_S)
    before, during = load.sent(began_s - BASE_S, began_s), load.sent(began_s, ended_s)
    base = watch.part(lane, began_s - BASE_S, began_s)
    left_s = _left(watch, lane, began_s, ended_s)
    good_s = _good(load, lane, ended_s)
    full_s = None if good_s is None else _full(watch, lane, good_s, ended_s + RETURN_S, base)
    missed = sum(asked.missed for asked in during)
    reached = [left_s is not None and left_s - began_s <= aim_s, not missed]
    reached += [good_s is not None and full_s is not None and full_s - good_s <= AIM_FULL_S]
    trials = watch.at(ended_s).trials.get(lane, 0) - watch.at(began_s).trials.get(lane, 0)
    table.row(
        WORDS[kind],
        f"{base:.1%}",
        *(percentile([asked.took_ms for asked in before], part) for part in (0.5, 0.99)),
        _seconds(began_s, left_s),
        f"{aim_s:.0f} s",
        "" if left_s is None else f"{watch.part(lane, left_s, ended_s):.1%}",
        f"{trials:.0f}",
        f"{missed} of {len(during)}",
        *(percentile([asked.took_ms for asked in during], part) for part in (0.5, 0.99)),
        _seconds(ended_s, good_s),
        _seconds(good_s, full_s),
        met(all(reached)),
    )
    for asked in during:
        if asked.missed:
            print(f"missed its deadline: {asked.story()}")


def _left(watch: Watch, lane: str, began_s: float, ended_s: float) -> float | None:
    """When the first second began in which it got less than 1 % of new attempts."""
    for at_s in watch.times(began_s, ended_s - LEFT_OVER_S):
        if watch.part(lane, at_s, at_s + LEFT_OVER_S) < LEFT_PART:
            return at_s
    return None


def _good(load: Load, lane: str, ended_s: float) -> float | None:
    """When its first answer came that was as fast as before."""
    good = [
        asked.done_s
        for asked in load.asked
        if asked.done_s is not None
        and asked.done_s >= ended_s
        and (result := asked.result)
        and result.ok
        and result.lane == lane
        and result.attempts[-1].exchange_ms < FAST_LATENCIES * LATENCY_MS
    ]
    return min(good, default=None)


def _full(watch: Watch, lane: str, good_s: float, until_s: float, base: float) -> float | None:
    """The middle of the first two seconds in which it had 90 % of its share."""
    for at_s in watch.times(good_s - FULL_OVER_S / 2, until_s - FULL_OVER_S):
        if watch.part(lane, at_s, at_s + FULL_OVER_S) >= FULL_PART * base:
            return max(good_s, at_s + FULL_OVER_S / 2)
    return None


def _seconds(since_s: float | None, until_s: float | None) -> str:
    return "never" if since_s is None or until_s is None else f"{until_s - since_s:.1f} s"
