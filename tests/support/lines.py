"""Workers' connections to a real Redis that break in every way, in a time that the test moves."""

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from redis.exceptions import ConnectionError as Lost

from tests.support.spenders import MARGIN_MS
from tests.support.stores import known_here
from workers.budget.budget import Budget
from workers.budget.grants import Grant
from workers.budget.ledger import Ledger
from workers.budget.membership import Membership
from workers.budget.rounds import renew
from workers.budget.script import Library
from workers.limits.costs import Bucket, Charge, Kind

NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}')) end\n"
# Redis drops keys by its own clock: far enough ahead that it drops none, the test drops them by the test's clock.
START_US = 4_000_000_000_000_000
TICK_US = 100_000


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


class Simulated:
    """A worker with a clock of its own, which runs a little fast or slow.

    Args:
        net: Redis.
        accounts: its calls are of so many accounts in turn; 0 for none.
    """

    def __init__(self, net: Net, accounts: int = 0) -> None:
        self.line = Line(net)
        self.net = net
        self.rate = 1 + net.chance.uniform(-4e-4, 4e-4)
        self.stood_still_us = 0
        self.member = Membership(clock=lambda: (net.now_us - self.stood_still_us - START_US) / 1e6 * self.rate + 1000)
        self.budget = Budget(Ledger(cast("Any", self.line), "x:1", clock=TEST_CLOCK, member=self.member))
        self._turns = itertools.cycle([self.budget.of(str(number)) for number in range(accounts)] or [self.budget])
        self.next_beat_us = 0
        self.rests_until_us = 0

    async def beat(self, *, rests: bool) -> None:
        """A beat: as one of many budgets at rest, where it may."""
        course = self.budget.course
        await (renew([course]) if rests and course.may_rest else course.beat())

    async def ask(self, charges: list[Charge], *, max_wait_s: float, bulk: bool) -> int | None:
        """The instant that is granted."""
        answer = await next(self._turns).reserve(charges, max_wait_s=max_wait_s, bulk=bulk)
        if not isinstance(answer, Grant):
            return None
        if self.budget.own_part is None:
            return await self.net.true_us(answer.at_us)
        return self.net.now_us + round(answer.delay_us / self.rate)


async def begun(client: Any, chance: random.Random) -> Net:
    """A Redis that was in use for long, and has nothing that counts; the test moves its clock."""
    await client.flushdb()
    await known_here(client, "x")
    await client.function_load(Library(TEST_CLOCK).text, replace=True)
    net = Net(client, chance)
    await net.pass_time(1)
    return net


async def saturate(
    net: Net, fleet: Sequence[Simulated], calls: list[Charge], sent: list[tuple[Simulated, int]], ticks: int
) -> None:
    """Time passes: each worker beats, and sends all that it is granted; adds who sent, and when."""
    for _ in range(ticks):
        await net.pass_time(TICK_US)
        for worker in fleet:
            await worker.budget.beat()
            while (at := await worker.ask(calls, max_wait_s=0, bulk=False)) is not None:
                sent.append((worker, at))


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
