"""By how much shared answers cut calls, and what they cost: ``--only shared``.

So many bots ask for the candles of the same pairs on one exchange at once, bar after bar, as bots do when a bar closes:
without `max_age_ms`, as the reference, and with it. The exchange counts the calls. Then ten thousand ask for one thing.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from deploy.simulator.process import Simulator
from schemas.messages import Request, Result

from .measure import Options, Table, percentile
from .stage import Servers, Stage

BOTS: Final = 32
# No more pairs than the limit has room for without sharing, so that the reference is answered, too.
PAIRS: Final = 20
CROWDS: Final = 4
DEADLINE_S: Final = 60.0
# So many equal requests at once.
CROWD: Final = 10_000
EXCHANGE: Final = "okx"
# One call of all that a crowd asks for, in another order for each bot.
LIMITS: Final = range(10, 10 + PAIRS)


async def run(options: Options) -> None:
    """Measures and prints."""
    title = f"{BOTS} bots ask for the same {PAIRS} candles at once, {CROWDS} times, on one {EXCHANGE} lane"
    columns = ("requests", "calls", "requests a call", "with data", "p50 ms", "p99 ms", "all in s")
    table = options.table(title, "asked with", *columns)
    async with Servers.started() as servers:
        for name, shares in (("nothing (reference)", False), ("max_age_ms", True)):
            dispatchers = options.dispatchers
            async with servers.stage((EXCHANGE,), dispatchers=dispatchers, workers=2) as stage:
                # Each crowd has questions of its own, as each bar has.
                crowds = [
                    [_request(bot, limit, crowd, shares=shares) for bot in range(BOTS) for limit in LIMITS]
                    for crowd in range(CROWDS)
                ]
                await _show(table, name, stage, crowds)
                if shares:
                    one = _request(0, LIMITS[0], CROWDS, shares=True)
                    await _show(table, f"max_age_ms, {CROWD:,} equal ones", stage, [[one] * CROWD])


async def _show(table: Table, name: str, stage: Stage, crowds: Sequence[Sequence[Request]]) -> None:
    before, took_ms, good, begun_s = await _calls(stage.simulator), list[float](), 0, time.monotonic()
    for requests in crowds:
        for result, spent_ms in await asyncio.gather(*(_ask(stage, each) for each in requests)):
            good += result.ok
            took_ms.append(spent_ms)
    spent_s, calls = time.monotonic() - begun_s, await _calls(stage.simulator) - before
    count = len(took_ms)
    p50, p99 = percentile(took_ms, 0.5), percentile(took_ms, 0.99)
    table.row(name, count, calls, f"{count / calls:.1f}", good, p50, p99, f"{spent_s:.1f}")


async def _ask(stage: Stage, request: Request) -> tuple[Result, float]:
    begun_s = time.monotonic()
    deadline_ms = int((time.time() + DEADLINE_S) * 1000)
    result = await stage.client.ask(replace(request, deadline_ms=deadline_ms))
    return result, (time.monotonic() - begun_s) * 1000


def _request(bot: int, limit: int, crowd: int, *, shares: bool) -> Request:
    turned = LIMITS[(limit + bot) % PAIRS]
    args = {"symbol": "BTC/USDT", "timeframe": "1m", "limit": turned + crowd * PAIRS}
    return Request("fetch_ohlcv", args, exchanges=[EXCHANGE], max_age_ms=30_000 if shares else None)


async def _calls(simulator: Simulator) -> int:
    endpoints = (await simulator.counters())["exchanges"][EXCHANGE]["endpoints"]
    return sum(count for path, count in endpoints.items() if "candles" in path)
