"""Budgets while Redis is away: each worker goes on with its share, and all of them together never pass a limit.

First the real script and the real `Budget` against a model of everything that can go wrong between them, in a time
that the test moves: lines cut one by one, commands that arrive late or whose answers are lost, a Redis that forgets,
workers that come, leave and die. Then real losses of a real Redis.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as Lost

from workers.budget import SCRIPT, Grant, connect
from workers.costs import Bucket, Charge, Kind
from workers.membership import Membership
from workers.sharing import SharedBudget

NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}')) end\n"
# Redis drops keys by its own clock: far enough ahead that it drops none, the test drops them by the test's clock.
START_US = 4_000_000_000_000_000
TICK_US = 100_000
MARGIN_MS = 50.0


class Line:
    """One worker's way to Redis."""

    def __init__(self, net: "Net") -> None:
        self.net = net
        self.state = "good"

    async def info(self, section: str) -> Any:
        if self.state != "good":
            raise Lost
        return await self.net.client.info(section)

    async def evalsha(self, *command: Any) -> Any:
        if self.state == "cut":
            raise Lost
        if self.state == "late":
            self.net.late.append(command)
            raise Lost
        await self.net.pass_time(self.net.chance.choice([0, 0, 500, 30_000]))
        answer = await self.net.client.evalsha(*command)
        await self.net.pass_time(self.net.chance.choice([0, 0, 500, 30_000]))
        if self.state == "deaf":
            raise Lost
        return answer

    async def eval(self, *command: Any) -> Any:
        return await self.net.client.eval(*command)


@dataclass
class Net:
    """Redis, its clock, and what is still on its way to it."""

    client: Any
    chance: random.Random
    now_us: int = START_US
    late: list[Any] = field(default_factory=list[Any])

    async def pass_time(self, us: int) -> None:
        if us:
            self.now_us += us
            await self.client.set(NOW_KEY, self.now_us)

    async def expire(self) -> None:
        async for key in self.client.scan_iter("fleet:*"):
            at_ms = await self.client.pexpiretime(key)
            assert at_ms > 0, f"{key!r} stays for ever"
            if START_US <= at_ms * 1000 <= self.now_us:
                await self.client.delete(key)


class Simulated:
    """A worker with a clock of its own, which runs a little fast or slow."""

    def __init__(self, net: Net) -> None:
        self.line = Line(net)
        self.net = net
        self.rate = 1 + net.chance.uniform(-4e-4, 4e-4)
        self.budget = SharedBudget(
            cast("Any", self.line),
            "x:1",
            clock=TEST_CLOCK,
            member=Membership(clock=lambda: (net.now_us - START_US) / 1e6 * self.rate + 1000),
        )
        self.next_beat_us = 0

    async def ask(self, charges: list[Charge], *, max_wait_s: float, bulk: bool) -> int | None:
        """The instant that is granted."""
        answer = await self.budget.reserve(charges, max_wait_s=max_wait_s, bulk=bulk)
        if not isinstance(answer, Grant):
            return None
        if self.budget.own_part is None:
            return answer.at_us
        return self.net.now_us + round(answer.delay_us / self.rate)


KINDS: tuple[Kind, ...] = ("rolling", "fixed", "decaying", "paced")


@st.composite
def buckets(draw: st.DrawFn) -> list[Bucket]:
    return [
        Bucket(
            name=f"b{number}",
            kind=draw(st.sampled_from(KINDS)),
            amount=draw(st.sampled_from([1, 3, 8, 20])),
            window_s=draw(st.sampled_from([1.0, 2.0, 5.0])),
            margin_ms=MARGIN_MS,
            source="",
        )
        for number in range(draw(st.integers(1, 2)))
    ]


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=buckets(), workers=st.integers(1, 4), seed=st.integers(0, 2**32))
async def test_never_above_whatever_happens_to_whom(
    redis_url: str, chosen: list[Bucket], workers: int, seed: int
) -> None:
    client: Any = connect(redis_url, timeout_s=5)
    try:
        await play(client, chosen, workers, random.Random(seed))
    finally:
        await client.aclose()


async def play(client: Any, chosen: list[Bucket], workers: int, chance: random.Random) -> None:
    """Half a minute of a fleet's life."""
    await client.flushdb()
    await client.script_load(TEST_CLOCK + SCRIPT)
    net = Net(client, chance)
    await net.pass_time(1)
    fleet = [Simulated(net) for _ in range(workers)]
    granted: dict[str, list[tuple[int, float]]] = defaultdict(list)
    known = True
    for tick in range(chance.choice([150, 300])):
        await net.pass_time(TICK_US)
        if tick % 10 == 0:
            await net.expire()
        if chance.random() < 0.06:
            states = ["good", "good", "cut", "late", "deaf"]
            state = chance.choice(states)
            for worker in fleet if chance.random() < 0.4 else [chance.choice(fleet)]:
                worker.line.state = state
        if chance.random() < 0.004 and known:
            await client.flushdb()
            await client.set(NOW_KEY, net.now_us)
            known = False
        if chance.random() < 0.01 and len(fleet) > 1:
            worker = fleet.pop(chance.randrange(len(fleet)))
            if chance.random() < 0.5:
                await worker.budget.leave()
        if chance.random() < 0.02 and len(fleet) < 5 and known:
            fleet.append(Simulated(net))
        if chance.random() < 0.1:
            # What a frozen Redis had in its sockets, run at last.
            for command in net.late:
                await client.evalsha(*command)
            net.late.clear()
        for worker in fleet:
            if net.now_us >= worker.next_beat_us:
                await worker.budget.beat()
                known = known or worker.line.state == "good"
                worker.next_beat_us = net.now_us + chance.choice([200_000, 200_000, 200_000, 1_000_000])
            for _ in range(chance.choice([0, 1, 1, 3])):
                asked = chance.sample(chosen, chance.randint(1, len(chosen)))
                charges = [Charge(one, chance.choice([1.0, 1.0, min(2.5, one.amount)]), one.name) for one in asked]
                at = await worker.ask(charges, max_wait_s=chance.choice([0, 0.2, 2, 2, 60]), bulk=chance.random() < 0.2)
                if at is not None:
                    for charge in charges:
                        granted[charge.key].append((at, charge.cost))
    for bucket in chosen:
        assert most(bucket, granted[bucket.name]) <= 1 + 1e-9
