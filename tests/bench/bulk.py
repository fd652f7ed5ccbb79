"""Live requests beside a full backlog of bulk ones: ``--only bulk``.

On each lane more bulk requests wait than it can serve in the time. Live ones come at a steady rate within what the
configuration keeps for them (`live_reserve`, a fifth). How long they wait is what they take beyond the exchange's own
time.
"""

import asyncio
import itertools
import time
from typing import Final

from schemas.messages import Request, Result

from .load import PAIRS
from .measure import Options, met, percentile
from .stage import Servers, Stage

SECONDS: Final = 60.0
WORKERS: Final = (2,)
AIM_MS: Final = 1_000.0
DEADLINE_S: Final = 900.0
# Tickers: what an exchange allows in a second, and what part of it is asked for live.
ALLOWED_PER_S: Final = {"binance": 50.0, "okx": 10.0, "htx": 10.0, "coinbase": 10.0}
LIVE: Final = 0.15
# Binance's minute may allow all of itself twice within a short time.
BACKLOG: Final = 2.0
WARM_UP_S: Final = 10.0


async def run(options: Options) -> None:
    """Measures and prints."""
    seconds = options.seconds or SECONDS
    table = options.table(
        f"Tickers live, {LIVE:.0%} of what is allowed, beside a backlog of bulk ones, {seconds:.0f} s",
        *("lane", "workers", "live", "wait p50, ms", "p99, ms", "max, ms", "aim", "", "errors"),
        *("bulk done/s", "allowed/s", "bulk waiting"),
    )
    async with Servers.started() as servers:
        for workers in options.workers or WORKERS:
            async with servers.stage(list(ALLOWED_PER_S), workers=workers) as stage:
                bulk = {
                    exchange: [
                        asyncio.create_task(_ask(stage, exchange, pair, bulk=True))
                        for pair in itertools.islice(
                            itertools.cycle(PAIRS), int(BACKLOG * rate * (seconds + WARM_UP_S))
                        )
                    ]
                    for exchange, rate in ALLOWED_PER_S.items()
                }
                try:
                    await asyncio.sleep(WARM_UP_S)
                    before = {exchange: sum(map(asyncio.Task[Result].done, tasks)) for exchange, tasks in bulk.items()}
                    begun_s = time.monotonic()
                    live = await asyncio.gather(*(_live(stage, name, seconds) for name in ALLOWED_PER_S))
                    took_s = time.monotonic() - begun_s
                    for (exchange, rate), results in zip(ALLOWED_PER_S.items(), live, strict=True):
                        done = sum(task.done() for task in bulk[exchange])
                        waits_ms = [wait_ms for wait_ms, _ in results]
                        p99_ms, most_ms = percentile(waits_ms, 0.99), max(waits_ms)
                        table.row(
                            exchange,
                            str(workers),
                            str(len(results)),
                            percentile(waits_ms, 0.5),
                            p99_ms,
                            most_ms,
                            f"< {AIM_MS:,.0f}",
                            met(most_ms < AIM_MS),
                            str(sum(not result.ok for _, result in results)),
                            (done - before[exchange]) / took_s,
                            rate,
                            str(len(bulk[exchange]) - done),
                        )
                finally:
                    waiting = [task for tasks in bulk.values() for task in tasks]
                    for task in waiting:
                        task.cancel()
                    await asyncio.gather(*waiting, return_exceptions=True)
                print(f"Limits broken at the simulator: {(await stage.simulator.counters())['violations']}", flush=True)


async def _ask(stage: Stage, exchange: str, pair: str, *, bulk: bool = False) -> Result:
    deadline_ms = int((time.time() + DEADLINE_S) * 1000)
    return await stage.client.ask(
        Request(
            "fetch_ticker",
            {"symbol": pair},
            exchanges=[exchange],
            deadline_ms=deadline_ms,
            priority="bulk" if bulk else "live",
        )
    )


async def _live(stage: Stage, exchange: str, seconds: float) -> list[tuple[float, Result]]:
    """Asks at fixed times; each result with the milliseconds it took less those at the exchange."""
    rate = ALLOWED_PER_S[exchange] * LIVE
    begun_s = time.monotonic()

    async def ask(number: int) -> tuple[float, Result]:
        due_s = begun_s + number / rate
        await asyncio.sleep(due_s - time.monotonic())
        result = await _ask(stage, exchange, PAIRS[number % len(PAIRS)])
        took_ms = (time.monotonic() - due_s) * 1000
        return took_ms - sum(item.exchange_ms for item in result.attempts), result

    return await asyncio.gather(*(ask(number) for number in range(int(seconds * rate))))
