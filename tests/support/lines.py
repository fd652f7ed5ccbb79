"""Workers' connections to a real Redis that break in every way, in a time that the test moves."""

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ConnectionError as Lost

from tests.support.spenders import MARGIN_MS
from workers.limits.costs import Bucket, Kind

NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}')) end\n"
# Redis drops keys by its own clock: far enough ahead that it drops none, the test drops them by the test's clock.
START_US = 4_000_000_000_000_000


class Line:
    """One worker's way to Redis."""

    def __init__(self, net: "Net") -> None:
        self.net = net
        self.state = "good"

    async def info(self, section: str) -> Any:
        if self.state != "good":
            raise Lost
        return await self.net.client.info(section)

    async def fcall(self, *command: Any) -> Any:
        if self.state == "cut":
            raise Lost
        if self.state == "late":
            self.net.late.append(command)
            raise Lost
        await self.net.pass_time(self.net.chance.choice([0, 0, 500, 30_000]))
        async with self.net.one_at_a_time:
            answer = await self.net.client.fcall(*command)
        await self.net.pass_time(self.net.chance.choice([0, 0, 500, 30_000]))
        if self.state == "deaf":
            raise Lost
        return answer


@dataclass
class Net:
    """Redis, its clock, and what is still on its way to it."""

    client: Any
    chance: random.Random
    now_us: int = START_US
    set_by_us: int = 0  # how far Redis's clock was set
    unseen: bool = False  # it was set, and nobody can have noticed
    late: list[Any] = field(default_factory=list[Any])
    # Redis shows the time that it is: else a step that is on its way looks like a clock that was set.
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def pass_time(self, us: int) -> None:
        if us:
            await self.show(us)

    async def show(self, later_us: int = 0) -> None:
        """Lets Redis's clock show what it is by then."""
        async with self.one_at_a_time:
            self.now_us += later_us
            await self.client.set(NOW_KEY, self.now_us + self.set_by_us)

    async def true_us(self, at_us: int) -> int:
        """When an instant of the corrected clock is."""
        found: Any = await self.client.get("fleet:{x}:set")
        by_us = int(found.decode().partition(":")[0]) if found else 0
        return at_us - self.set_by_us - by_us

    async def expire(self) -> None:
        async for key in self.client.scan_iter("fleet:*"):
            at_ms = await self.client.pexpiretime(key)
            assert at_ms > 0, f"{key!r} stays for ever"
            if START_US <= at_ms * 1000 <= self.now_us + self.set_by_us:
                await self.client.delete(key)


def most(bucket: Bucket, grants: list[tuple[int, float]]) -> float:
    """The most that any window held, as a part of the amount."""
    window = int(bucket.window_s * 1e6)
    grants = sorted(grants)
    worst = 0.0
    if bucket.kind == "fixed":
        counts: dict[int, float] = defaultdict(float)
        for at, cost in grants:
            counts[at // window] += cost
        worst = max(counts.values(), default=0.0)
    elif bucket.kind == "rolling":
        for start, _ in grants:
            worst = max(worst, sum(cost for at, cost in grants if start <= at < start + window))
    else:
        level, last = 0.0, 0
        for at, cost in grants:
            level = max(0.0, level - (at - last) * bucket.amount / window) + cost
            worst, last = max(worst, level), at
    return worst / bucket.amount


def limits(*kinds: tuple[Kind, int]) -> list[Bucket]:
    """Buckets with windows of a second, by kind and amount."""
    return [
        Bucket(name=f"b{number}", kind=kind, amount=amount, window_s=1.0, margin_ms=MARGIN_MS, source="")
        for number, (kind, amount) in enumerate(kinds)
    ]
