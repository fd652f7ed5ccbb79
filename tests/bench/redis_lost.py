"""Redis killed in the middle of saturation, for 20 s: ``--only redis_lost``.

OKX is asked for more than it allows, through the whole fleet. The simulator counts the part of its limits in use
before, while Redis is away (from the kill to the start), and how long after its start all of it is in use again.
"""

import asyncio
import time
from typing import Any, Final

from deploy.simulator.process import Simulator

from .load import FILLED, saturated, through
from .measure import Options, met
from .stage import Servers

EXCHANGE: Final = "okx"
WORKERS: Final = (2, 4)
BEFORE_S: Final = 15.0
AWAY_S: Final = 20.0
AFTER_S: Final = 30.0
LOOK_EVERY_S: Final = 0.25
# Twice the limits' window.
STRETCH_S: Final = 4.0
WHOLE: Final = 0.95
AIM_AWAY: Final = 0.5
AIM_BACK_S: Final = 5.0


async def run(options: Options) -> None:
    """Measures and prints."""
    away_s = options.seconds or AWAY_S
    table = options.table(
        f"Redis killed for {away_s:.0f} s while OKX is saturated (used: weight of its four limits together)",
        *("workers", "used before", "used meanwhile", "aim", "", "full again after", "aim", "", "refused", "aim", ""),
    )
    async with Servers.started() as servers:
        for workers in options.workers or WORKERS:
            async with (
                servers.stage([EXCHANGE], workers=workers) as stage,
                saturated(through(stage.client), [EXCHANGE]),
            ):
                watch = _Watch(stage.simulator)
                looking = asyncio.create_task(watch.look())
                await asyncio.sleep(BEFORE_S)
                killed_s = time.monotonic()
                servers.redis.kill()
                await asyncio.sleep(away_s)
                started_s = time.monotonic()
                await servers.redis.start()
                await asyncio.sleep(AFTER_S)
                looking.cancel()
                violations = (await stage.simulator.counters())["violations"]
            before = watch.used(killed_s - 2 * STRETCH_S, killed_s)
            meanwhile = watch.used(killed_s, started_s)
            back_s = watch.full_from(started_s, WHOLE * before) - started_s
            table.row(
                str(workers),
                f"{before:.1%}",
                f"{meanwhile:.1%}",
                f"{AIM_AWAY:.0%}",
                met(meanwhile >= AIM_AWAY),
                f"{back_s:.1f} s" if back_s < AFTER_S else f"not in {AFTER_S:.0f} s",
                f"{AIM_BACK_S:.0f} s",
                met(back_s <= AIM_BACK_S),
                str(violations),
                "0",
                met(violations == 0),
            )


class _Watch:
    """The used part of the limits over time."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._seen: list[tuple[float, float]] = []
        self._per_s = 0.0

    async def look(self) -> None:
        while True:
            buckets: dict[str, Any] = (await self._simulator.counters())["exchanges"][EXCHANGE]["buckets"]
            filled = [buckets[name] for name in FILLED[EXCHANGE] if name in buckets]
            self._per_s = sum(bucket["amount"] / bucket["window_s"] for bucket in filled)
            self._seen.append((time.monotonic(), sum(bucket["weight"] for bucket in filled)))
            await asyncio.sleep(LOOK_EVERY_S)

    def used(self, from_s: float, to_s: float) -> float:
        """The used part between two instants."""
        inside = [seen for seen in self._seen if from_s <= seen[0] <= to_s]
        (first_s, before), (last_s, after) = inside[0], inside[-1]
        return (after - before) / (last_s - first_s) / self._per_s

    def full_from(self, from_s: float, part: float) -> float:
        """The first instant from which on this part is in use for twice a window; infinite if there is none."""
        last_s = self._seen[-1][0]
        for at_s, _ in self._seen:
            if from_s <= at_s <= last_s - STRETCH_S and self.used(at_s, at_s + STRETCH_S) >= part:
                return at_s
        return float("inf")
