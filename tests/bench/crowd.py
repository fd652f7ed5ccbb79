"""Many requests at once: ``--only crowd``.

First 1,000, then 10,000 requests are published as fast as they can be, over five exchanges and five methods in about
the parts that the exchanges allow: sent exactly so, 1,000 would take 10 s. Half name their exchange, half
leave it to the fleet. Latencies count from the beginning; memory is the most that a process held in that time.

Then 10,000 requests for Binance, which has banned the fleet, while 50 calls a second go to three others: first while
the dispatcher finds out about the 10,000, then while they wait; and before, the same calls without them.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from schemas.messages import Request, Result

from .measure import Options, Table, met, percentile
from .stage import EXCHANGES, Servers, Stage

SIZES: Final = (1_000, 10_000)
DEADLINE_S: Final = 900.0
LATENCY_MS: Final = 20
BTC: Final[dict[str, Any]] = {"symbol": "BTC/USDT"}
CLOCK: Final = Request("fetch_time")
TICKER: Final = Request("fetch_ticker", BTC)
CANDLES: Final = Request("fetch_ohlcv", {**BTC, "timeframe": "1m", "limit": 10})
BOOK: Final = Request("fetch_order_book", {**BTC, "limit": 20})
TRADES: Final = Request("fetch_trades", {**BTC, "limit": 20})
# How many of 1,000, by exchange; each exchange allows these in ten seconds at most.
MIX: Final[dict[str, tuple[tuple[Request, int], ...]]] = {
    "binance": ((CLOCK, 130), (TICKER, 100), (CANDLES, 100)),
    "okx": ((CLOCK, 20), (TICKER, 60), (CANDLES, 70), (BOOK, 70), (TRADES, 130)),
    "htx": ((CLOCK, 10), (TICKER, 60), (CANDLES, 40), (BOOK, 60), (TRADES, 50)),
    "coinbase": ((CLOCK, 20), (TICKER, 20), (CANDLES, 20), (BOOK, 20), (TRADES, 10)),
    "kraken": ((TICKER, 5), (BOOK, 5)),
}
WEIGHTS: Final = {exchange: float(sum(of_1000 for _, of_1000 in mix)) for exchange, mix in MIX.items()}
NAMED_PART: Final = 0.5
PAUSED: Final = "binance"
PAUSE_S: Final = 150.0
PINNED: Final = 10_000
BESIDE: Final = (*[replace(TRADES, exchanges=["okx"])] * 7, replace(TICKER, exchanges=["htx"])) * 2 + (
    replace(TICKER, exchanges=["coinbase"]),
)
BESIDE_PER_S: Final = 50.0
BESIDE_S: Final = 30.0
SETTLE_S: Final = 3.0


async def run(options: Options) -> None:
    """Measures and prints."""
    workers = (options.workers or (2,))[0]
    async with Servers.started() as servers:
        async with servers.stage(weights=WEIGHTS, dispatchers=options.dispatchers, workers=workers) as stage:
            for exchange in EXCHANGES:
                await stage.simulator.fault(exchange, latency_ms=LATENCY_MS)
            table = options.table(
                f"Requests at once; dispatchers: {options.dispatchers}; workers: {workers}",
                *("requests", "answered", "well", "s", "per second", "p50, s", "p99, s"),
                *("dispatcher, MB", "worker, MB", "RabbitMQ, MB", "violations", ""),
            )
            for size in SIZES:
                await _crowd(stage, size, table)
        async with servers.stage(weights=WEIGHTS, dispatchers=options.dispatchers, workers=workers) as stage:
            for exchange in EXCHANGES:
                await stage.simulator.fault(exchange, latency_ms=LATENCY_MS)
            await _beside(stage, options)


async def _crowd(stage: Stage, size: int, table: Table) -> None:
    requests = _mixed(size)
    before = (await stage.simulator.counters())["violations"]
    peaks = _Peaks(stage)
    began_s = time.perf_counter()
    ends_s = dict[int, float]()

    async def ask(number: int, request: Request) -> Result:
        result = await stage.client.ask(request)
        ends_s[number] = time.perf_counter() - began_s
        return result

    results = await asyncio.gather(*itertools.starmap(ask, enumerate(requests)), return_exceptions=True)
    took_s = time.perf_counter() - began_s
    answered = [result for result in results if isinstance(result, Result)]
    well = sum(result.ok for result in answered)
    violations = (await stage.simulator.counters())["violations"] - before
    table.row(
        f"{size:,}",
        f"{len(answered):,}",
        f"{well:,}",
        took_s,
        size / took_s,
        *(percentile(list(ends_s.values()), part) for part in (0.5, 0.99)),
        *peaks.now_mb(),
        violations,
        met(well == size and not violations),
    )
    for error in {str(result.error) for result in answered if not result.ok}:
        print(error[:300], flush=True)


def _mixed(size: int) -> list[Request]:
    """The mix, in an order that is the same in every run."""
    deadline_ms = int((time.time() + DEADLINE_S) * 1000)
    draw = random.Random(size)
    requests = [
        replace(request, exchanges=[exchange] if draw.random() < NAMED_PART else [], deadline_ms=deadline_ms)
        for exchange, mix in MIX.items()
        for request, of_1000 in mix
        for _ in range(of_1000 * size // 1000)
    ]
    draw.shuffle(requests)
    return requests


class _Peaks:
    """The most memory that processes held since its start, by the kernel's count of resident pages (proc(5))."""

    def __init__(self, stage: Stage) -> None:
        fleet = stage.fleet
        self._groups = [[each.pid for each in fleet.dispatchers], [each.pid for each in fleet.workers]]
        self._groups.append([stage.rabbitmq.pid])
        for pid in itertools.chain(*self._groups):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew

    def now_mb(self) -> list[float]:
        """The largest dispatcher, the largest worker, and RabbitMQ."""
        return [max(map(_peak_mb, pids)) for pids in self._groups]


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


async def _beside(stage: Stage, options: Options) -> None:
    table = options.table(
        f"{BESIDE_PER_S:.0f} requests a second, beside {PINNED:,} for {PAUSED}, which has banned the fleet",
        *("", "requests", "well", "p50, ms", "p99, ms", "p50, times", "p99, times"),
    )
    seconds = options.seconds or BESIDE_S
    alone = await _row(stage, table, "alone", seconds, None)
    await stage.simulator.fault(PAUSED, ban_s=PAUSE_S)
    began_s = time.monotonic()
    deadline_ms = int((time.time() + DEADLINE_S) * 1000)
    pinned = replace(CLOCK, exchanges=[PAUSED], deadline_ms=deadline_ms)
    waiting = [asyncio.create_task(stage.client.ask(pinned))]
    while not any([(await each.metrics()).get(("fleet_lane_paused", PAUSED)) for each in stage.fleet.dispatchers]):
        await asyncio.sleep(0.1)
    waiting += [asyncio.create_task(stage.client.ask(pinned)) for _ in range(PINNED)]
    await _row(stage, table, "while they come", seconds, alone)
    await asyncio.sleep(SETTLE_S)
    await _row(stage, table, "while they wait", seconds, alone)
    if time.monotonic() > began_s + PAUSE_S:
        print("The ban was over before the end.", flush=True)
    print(f"Of the {PINNED:,}, {sum(task.done() for task in waiting):,} had ended by then.", flush=True)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def _row(
    stage: Stage, table: Table, what: str, seconds: float, alone: tuple[float, float] | None
) -> tuple[float, float]:
    """Calls at fixed times for so long, and one row about them; gives median and 99th percentile."""
    start_s = time.perf_counter() + 0.05
    deadline_ms = int((time.time() + DEADLINE_S) * 1000)

    async def ask(number: int, request: Request) -> tuple[float, bool]:
        due_s = start_s + number / BESIDE_PER_S
        await asyncio.sleep(due_s - time.perf_counter())
        result = await stage.client.ask(replace(request, deadline_ms=deadline_ms))
        return (time.perf_counter() - due_s) * 1000, result.ok

    count = int(seconds * BESIDE_PER_S)
    answers = await asyncio.gather(*itertools.starmap(ask, zip(range(count), itertools.cycle(BESIDE), strict=False)))
    p50_ms, p99_ms = (percentile([took_ms for took_ms, _ in answers], part) for part in (0.5, 0.99))
    well = sum(ok for _, ok in answers)
    times: Sequence[object] = ("", "") if alone is None else (f"{p50_ms / alone[0]:.2f}", f"{p99_ms / alone[1]:.2f}")
    table.row(what, count, well, p50_ms, p99_ms, *times)
    return p50_ms, p99_ms
