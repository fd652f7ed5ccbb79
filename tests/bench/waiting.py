"""Whether requests are refused rightly where more is asked than an exchange allows at once: ``--only waiting``.

Each case sends crowds and single requests with deadlines of all lengths to one exchange. Its limits are the lane's own
(`[limits.binance]`), tighter than what the simulator enforces. A *false* refusal: one that came after it was answered
before the deadline of the refused one, `TOLERANCE_S` and `CROWD_S` apart. *Late*: not refused, and not answered in time
either. What leaves in each second is counted from `CROWD_S` after each crowd on: `busiest` is the most, `even` what the
limit allows on average. One case runs beside a crowd of another caller, whose requests have five minutes.
"""

import asyncio
import bisect
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from schemas.messages import Request, Result

from .client import Client
from .measure import Options, met
from .stage import Servers, Stage

SECONDS: Final = 90.0
# Calls are asked for a little before their turn, so the line is kept to within so much.
TOLERANCE_S: Final = 1.5
# Requests of one crowd come in any order, and the first of it leave at once.
CROWD_S: Final = 4.0
EXAMPLES: Final = 5
SLOW_MS: Final = 3_000.0
PATIENT: Final = (300.0, 300.0)


class Case(Struct, frozen=True):
    """One kind of load.

    Args:
        name: what it is like.
        method: what is asked for; each has a limit of its own.
        amount: what that limit allows, in calls.
        window_s: in which time.
        crowd: how many come at once.
        every_s: how often they do.
        per_s: how many more come each second, evenly.
        deadlines_s: the shortest and the longest deadline.
        latency_ms: how late the exchange answers.
        beside: how many another caller asks for at once, before the first of these.
    """

    name: str
    method: str
    amount: int
    window_s: float
    crowd: int
    every_s: float
    per_s: float
    deadlines_s: tuple[float, float]
    latency_ms: float = 0.0
    beside: int = 0


CASES: Final = (
    Case("10 s windows, 15/s of 20/s", "fetch_ticker", 200, 10, 280, 20, 1, (16, 30)),
    Case("30 s windows, 3/s of 4.4/s", "fetch_ohlcv", 133, 30, 180, 60, 0.5, (45, 70)),
    Case("10 s windows, twice too much", "fetch_trades", 50, 10, 150, 30, 5, (1, 40)),
    Case("2/s of 5/s beside 300 at once", "fetch_order_book", 50, 10, 0, 0, 2, (12, 20), beside=300),
)
SLOW: Final = Case("answers after 3 s, no limit", "fetch_time", 4_000, 10, 0, 0, 80, (4.5, 8), latency_ms=SLOW_MS)
ENDPOINTS: Final = {
    "fetch_ticker": "ticker/24hr",
    "fetch_ohlcv": "klines",
    "fetch_trades": "aggTrades",
    "fetch_order_book": "depth",
    "fetch_time": "time",
}
ARGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "fetch_ticker": {"symbol": "BTC/USDT"},
    "fetch_ohlcv": {"symbol": "BTC/USDT", "timeframe": "1m", "limit": 10},
    "fetch_trades": {"symbol": "BTC/USDT", "limit": 10},
    "fetch_order_book": {"symbol": "BTC/USDT", "limit": 10},
    "fetch_time": {},
}


class Asked(Struct):
    """One request: when it was sent, until when it had time, when it ended (seconds of one clock), and how."""

    sent_s: float
    deadline_s: float
    ended_s: float
    result: Result

    @property
    def refused(self) -> bool:
        """Whether it was refused at once."""
        return self.result.error is not None and "overloaded" in self.result.error.message


async def run(options: Options) -> None:
    """Measures and prints."""
    seconds = options.seconds or SECONDS
    table = options.table(
        f"Crowds with deadlines, {seconds:.0f} s",
        *("load", "asked", "answered", "refused", "false", "late", "aim", ""),
        *("longest wait, s", "busiest s", "even"),
    )
    async with Servers.started() as servers:
        for workers in options.workers or (1, 2):
            config = {"limits": {"binance": limits()}}
            async with servers.stage(
                ["binance"], workers=workers, dispatchers=options.dispatchers, config=config
            ) as stage:
                ran = await asyncio.gather(*(_run(stage, case, seconds) for case in CASES))
                for case, asked in zip(CASES, ran, strict=True):
                    _row(table, case, workers, asked)
                print(f"Limits broken at the simulator: {(await stage.simulator.counters())['violations']}", flush=True)
            async with servers.stage(
                ["binance"], workers=workers, dispatchers=options.dispatchers, config=config
            ) as stage:
                await stage.simulator.fault("binance", latency_ms=SLOW.latency_ms)
                first = Request(SLOW.method, exchanges=["binance"])  # else it looks as if none were ever answered
                await asyncio.gather(*(stage.client.ask(first) for _ in range(2)))
                _row(table, SLOW, workers, await _run(stage, SLOW, min(seconds, 25)))


def limits() -> dict[str, Any]:
    """The lane's own limits: a bucket of its own for each of the methods."""
    own = {case.method: case for case in (*CASES, SLOW)}
    buckets = {
        name.removeprefix("fetch_"): {"amount": case.amount, "window_s": case.window_s, "kind": "rolling"}
        for name, case in own.items()
    }
    endpoints = {f"public GET {ENDPOINTS[name]}": [{"bucket": name.removeprefix("fetch_"), "cost": 1}] for name in own}
    return {"buckets": buckets, "endpoints": endpoints}


async def _run(stage: Stage, case: Case, seconds: float) -> list[Asked]:
    """Asks for so long; gives what became of each request."""
    if case.beside:
        async with Client.on(stage.url) as other:
            patient = Case(
                f"{case.name}: those", case.method, case.amount, case.window_s, case.beside, seconds, 0, PATIENT
            )
            crowd = asyncio.create_task(_ask(other, patient, seconds))
            await asyncio.sleep(1)
            asked = await _ask(stage.client, case, seconds)
            print(f"Beside: {sum(each.result.ok for each in await crowd):,} of {case.beside:,} answered", flush=True)
        return asked
    return await _ask(stage.client, case, seconds)


async def _ask(client: Client, case: Case, seconds: float) -> list[Asked]:
    random_ = random.Random(case.name)
    begun_s = time.monotonic()
    instants = [number / case.per_s for number in range(int(seconds * case.per_s))]
    if case.crowd:
        crowds = math.ceil(seconds / case.every_s)
        instants += [number * case.every_s for number in range(crowds) for _ in range(case.crowd)]

    async def ask(at_s: float, left_s: float) -> Asked:
        await asyncio.sleep(begun_s + at_s - time.monotonic())
        sent_s = time.monotonic()
        deadline_ms = int((time.time() + left_s) * 1000)
        request = Request(case.method, dict(ARGS[case.method]), exchanges=["binance"], deadline_ms=deadline_ms)
        result = await client.ask(request)
        return Asked(sent_s - begun_s, sent_s - begun_s + left_s, time.monotonic() - begun_s, result)

    return await asyncio.gather(*(ask(at_s, random_.uniform(*case.deadlines_s)) for at_s in sorted(instants)))


def _row(table: Any, case: Case, workers: int, asked: Sequence[Asked]) -> None:
    well = [each for each in asked if each.result.ok]
    refused = [each for each in asked if each.refused]
    false, late = false_refusals(asked), [each for each in asked if not each.result.ok and not each.refused]
    for each in late[:EXAMPLES]:
        after = f"had {each.deadline_s - each.sent_s:.1f} s, ended after {each.ended_s - each.sent_s:.1f}"
        print(f"Late: {after}: {each.result.error and each.result.error.message}", flush=True)
    crowded = case.every_s if case.crowd else 0
    seconds = Counter(int(each.ended_s) for each in well if not crowded or each.ended_s % crowded >= CROWD_S)
    even = case.amount / case.window_s
    table.row(
        f"{case.name}, {workers} worker{'s' if workers > 1 else ''}",
        *(len(asked), len(well), len(refused), len(false), len(late), "none", met(not false and not late)),
        *(max((each.ended_s - each.sent_s for each in well), default=0.0), max(seconds.values(), default=0), even),
    )


def false_refusals(asked: Sequence[Asked]) -> list[Asked]:
    """The refused requests that could have been answered: one that came after was, before their deadlines."""
    answered = sorted((each for each in asked if each.result.ok), key=lambda each: each.sent_s)
    earliest_s = list(itertools.accumulate((each.ended_s for each in reversed(answered)), min))[::-1]
    sent_s = [each.sent_s for each in answered]

    def is_false(each: Asked) -> bool:
        after = bisect.bisect_left(sent_s, each.sent_s + CROWD_S)
        return after < len(sent_s) and earliest_s[after] < each.deadline_s - TOLERANCE_S

    return [each for each in asked if each.refused and is_false(each)]
