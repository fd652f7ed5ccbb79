"""Another program on the same address, which takes 30 % of Binance's weight: ``--only strangers``.

It sends its calls evenly, directly to the exchange; the fleet asks for all there is. What both take together is
counted at the door, and whether either is refused.
"""

import asyncio
import time
from collections import Counter
from typing import Final

import aiohttp

from deploy.simulator.process import Simulator
from schemas.runtime.tasks import end_tasks

from .load import Door, next_minute, saturated, through, whole
from .measure import Options, met
from .stage import Servers

SECONDS: Final = 120.0
WORKERS: Final = (2,)
PART: Final = 0.3
# Candles, as the exchange weighs them.
WEIGHT_A_CALL: Final = 2
WEIGHT_PER_S: Final = 100
EXCHANGE: Final = "binance"
AHEAD_S: Final = 15.0


async def run(options: Options) -> None:
    """Measures and prints."""
    seconds = whole(options.seconds or SECONDS, [EXCHANGE])
    table = options.table(
        f"A stranger takes {PART:.0%} of Binance's weight, {seconds:.0f} s",
        *("workers", "used by both", "by the stranger", "requests/min", "refused", "stranger's", "aim", ""),
    )
    async with Servers.started() as servers:
        for workers in options.workers or WORKERS:
            async with servers.stage([EXCHANGE], workers=workers) as stage:
                statuses: Counter[int] = Counter()
                await next_minute([EXCHANGE])
                stranger = asyncio.create_task(_take(stage.simulator, statuses))
                try:
                    # What it takes per time is known by its part of the minute: it is there before the fleet asks.
                    await asyncio.sleep(AHEAD_S)
                    async with saturated(through(stage.client), [EXCHANGE]) as tally:
                        await next_minute([EXCHANGE])
                        door, before, taken = await Door.at(stage.simulator), tally.answered.total(), statuses[200]
                        await asyncio.sleep(seconds)
                        limit = (await door.filled(stage.simulator, EXCHANGE))[0]
                        its = (statuses[200] - taken) * WEIGHT_A_CALL / (WEIGHT_PER_S * seconds)
                        rate = (tally.answered.total() - before) / seconds * 60
                        violations = (await stage.simulator.counters())["violations"]
                finally:
                    await end_tasks([stranger])
                refused = statuses.total() - statuses[200]
                table.row(
                    str(workers),
                    f"{limit.used:.1%}",
                    f"{its:.1%}",
                    f"{rate:,.0f}",
                    str(violations),
                    str(refused),
                    "0",
                    met(violations == 0),
                )


async def _take(simulator: Simulator, statuses: Counter[int]) -> None:
    """The stranger: its part, evenly, from the start."""
    url = f"{simulator.urls[EXCHANGE]}/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=5"
    every_s = WEIGHT_A_CALL / (WEIGHT_PER_S * PART)
    due_s = time.monotonic()
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(url) as answer:
                statuses[answer.status] += 1
            # One that was late does not hurry: that would be more than its part.
            due_s = max(due_s + every_s, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())
