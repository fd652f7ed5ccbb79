"""When calls leave, beside when they may: processes that stand still, slow answers, a Redis that comes and goes.

The real script and the real `Budget.acquire`, in a time that the test moves. Counted is what an exchange counts:
when a call truly left, by a clock that nothing sets.
"""

import asyncio
import heapq
import math
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.runtime.store import connect
from schemas.runtime.tasks import end_tasks
from tests.support.lines import START_US, TEST_CLOCK, Line, Net, most
from workers.budget.budget import Budget
from workers.budget.grants import Refusal
from workers.budget.ledger import Ledger
from workers.budget.membership import BEAT_EVERY_S, Membership
from workers.budget.redis_clock import at_most_us
from workers.budget.rules import LATE_PART, LEAST_MARGIN_US
from workers.budget.script import Library
from workers.limits.costs import Bucket, Charge, Kind

CALLERS = 4
STATES = ("good", "cut", "cut", "deaf")
STEPS = 16


class Wire(Line):
    """A line that takes several questions at once, and answers them one by one."""

    def pipeline(self, *, transaction: bool) -> "Questions":
        assert not transaction
        return Questions(self)


class Questions:
    """Some that go out together."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._commands = list[tuple[Any, ...]]()

    def fcall(self, *command: Any) -> None:
        self._commands.append(command)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        return [await self._wire.fcall(*command) for command in self._commands]


class Timers:
    """The calls that sleep, and until when by the true time."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.running = 0
        self._number = 0
        self._sleepers = list[tuple[float, int, "Process", asyncio.Future[None]]]()

    async def until(self, at_us: float, process: "Process") -> None:
        self._number += 1
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (at_us, self._number, process, woken))
        self.running -= 1
        try:
            await woken
        finally:
            self.running += 1

    async def quiet(self) -> None:
        """Returns when all calls sleep."""
        while self.running:
            await asyncio.sleep(0)

    async def pass_time(self, until_us: int) -> None:
        await self.quiet()
        while self._sleepers and self._sleepers[0][0] <= until_us:
            at_us, number, process, woken = heapq.heappop(self._sleepers)
            if process.still_until_us > max(at_us, self.net.now_us):
                heapq.heappush(self._sleepers, (process.still_until_us, number, process, woken))
                continue
            await self.net.pass_time(max(0, math.ceil(at_us) - self.net.now_us))
            if not woken.done():
                woken.set_result(None)
                await asyncio.sleep(0)
            await self.quiet()
        await self.net.pass_time(max(0, until_us - self.net.now_us))


class Simulation(Budget):
    """The real budget, which sleeps by the test's time."""

    def __init__(self, process: "Process", line: Wire, member: Membership) -> None:
        super().__init__(Ledger(cast("Any", line), "x:1", clock=TEST_CLOCK, member=member))
        self._process = process

    async def _sleep_until(self, instant: float) -> None:
        await self._process.sleep_until(instant)


class Process:
    """A worker with a clock of its own, which runs a little fast or slow; it may stand still."""

    def __init__(self, timers: Timers, limit: Bucket, sent: list[tuple[int, float]]) -> None:
        self.net, self.timers, self.limit, self.sent = timers.net, timers, limit, sent
        self.line = Wire(self.net)
        self.rate = 1 + self.net.chance.uniform(-4e-4, 4e-4)
        self.still_until_us = 0
        self.budget = Simulation(self, self.line, Membership(clock=self.now_s))

    def now_s(self) -> float:
        return (self.net.now_us - START_US) / 1e6 * self.rate + 1000

    async def sleep_until(self, instant: float) -> None:
        while self.now_s() < instant:
            # A microsecond more than that, as an instant so far ahead is rounded.
            await self.timers.until(START_US + (instant - 1000) / self.rate * 1e6 + 1, self)

    async def follow(self) -> None:
        while True:
            await self.budget.beat()
            await self.sleep_until(self.now_s() + BEAT_EVERY_S)

    async def spend(self) -> None:
        """Sends all that it may, with a moment between."""
        charges, chance = [Charge(self.limit, 1.0, "b")], self.net.chance
        while True:
            await self.sleep_until(self.now_s() + chance.choice([0.001, 0.02]))
            grant = await self.budget.acquire(charges, max_wait_s=chance.choice([0.1, 0.5, 1.5]))
            if isinstance(grant, Refusal):
                await self.sleep_until(self.now_s() + 0.05)
                continue
            left_s = self.now_s()
            if self.budget.is_late(grant, left_s):
                await self.budget.back(charges, grant)
                continue
            self.sent.append((self.net.now_us, 1.0))
            await self.sleep_until(left_s + chance.choice([0.0, 0.001, 0.05, 0.3]))
            await self.budget.arrived(charges, grant, at_most_us(max(0.0, (left_s - grant.counts_from_s) * 1e6)))


@asynccontextmanager
async def running(timers: Timers, fleet: list[Process]) -> AsyncGenerator[None, None]:
    def run(work: Callable[[], Any]) -> asyncio.Task[None]:
        async def counted() -> None:
            try:
                await work()
            finally:
                timers.running -= 1

        timers.running += 1
        return asyncio.create_task(counted())

    before = asyncio.all_tasks()
    tasks = [run(work) for process in fleet for work in (process.follow, *[process.spend] * CALLERS)]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        await end_tasks(tasks)
        for process in fleet:  # What it still tells would set the next one's clock.
            await end_tasks(process.budget.telling.running)
        # Questions that went out together go on without their callers: the client is closed after that.
        if asking := asyncio.all_tasks() - before:
            await asyncio.wait(asking)


async def play(client: Any, limit: Bucket, workers: int, chance: random.Random) -> None:
    """Plays a quarter of a minute; fails where a window holds too much."""
    await client.flushdb()
    await client.function_load(Library(TEST_CLOCK).text, replace=True)
    net, sent = Net(client, chance), list[tuple[int, float]]()
    await net.pass_time(1)
    timers = Timers(net)
    fleet = [Process(timers, limit, sent) for _ in range(workers)]
    async with running(timers, fleet):
        await timers.pass_time(net.now_us + 1_000_000)
        for process in fleet:
            process.line.state = chance.choice(STATES)
        # Until shares open: see `membership`.
        await timers.pass_time(net.now_us + int((4.5 + limit.window_s) * 1e6))
        for step in range(STEPS):
            await timers.pass_time(net.now_us + int(chance.uniform(50_000, 600_000)))
            for process in fleet if chance.random() < 0.6 else [chance.choice(fleet)]:
                if chance.random() < 0.5:
                    process.still_until_us = net.now_us + int(chance.choice([0.02, 0.1, 0.3, 0.3, 0.8]) * 1e6)
                if step > STEPS // 2:
                    process.line.state = chance.choice(["good", process.line.state])
    assert most(limit, sent) <= 1 + excess(limit) + 1e-9


def excess(limit: Bucket) -> float:
    """How much more than its amount a level without a margin may hold, as calls may leave a little late."""
    if limit.kind != "paced":
        return 0.0
    return max(LEAST_MARGIN_US, LATE_PART * limit.window_s * 1e6 / limit.amount) / (limit.window_s * 1e6)


KINDS: tuple[Kind, ...] = ("rolling", "fixed", "decaying", "paced")


@settings(
    max_examples=settings().max_examples // 7,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(KINDS),
    amount=st.sampled_from([2, 5, 20]),
    window_s=st.sampled_from([0.5, 1.0, 2.0]),
    workers=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
@example(kind="rolling", amount=20, window_s=2.0, workers=1, seed=80130)  # its clock runs slow while a call is late
async def test_no_window_holds_more_however_late_calls_wake(
    redis_url: str, kind: Kind, amount: int, window_s: float, workers: int, seed: int
) -> None:
    client: Any = connect(redis_url, timeout_s=5)
    margin_ms = 0.0 if kind == "paced" else 50.0
    limit = Bucket(name="b", kind=kind, amount=amount, window_s=window_s, margin_ms=margin_ms, source="")
    try:
        await play(client, limit, workers, random.Random(seed))
    finally:
        await client.aclose()
