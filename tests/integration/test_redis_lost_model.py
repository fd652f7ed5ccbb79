"""Budgets against a model of everything that can go wrong between workers and Redis, in a time that the test moves.

The script and the `Budget` are the real ones. Connections are cut one by one, commands arrive late or their answers are
lost, Redis forgets, workers come, leave and die. All workers together never pass a limit.
"""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.runtime.store import connect
from tests.support.lines import NOW_KEY, TICK_US, Net, Simulated, begun, limits, most, saturate
from tests.support.spenders import MARGIN_MS
from workers.limits.costs import Bucket, Charge, Kind

# In lives with such seeds workers are asked nothing at times; what the others draw stays as it was found.
NAPS_FROM = 2**20
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


@settings(
    max_examples=settings().max_examples // 7,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(chosen=limits(("rolling", 3), ("rolling", 1)), workers=2, seed=77_977)  # one dies before its call leaves
@example(chosen=limits(("decaying", 1), ("rolling", 3)), workers=1, seed=3_959)  # a clock that runs fast
@example(  # one that had no part was granted something before Redis was emptied
    chosen=[Bucket(name="b0", kind="rolling", amount=1, window_s=5.0, margin_ms=MARGIN_MS, source="")],
    workers=2,
    seed=400_480,
)
@given(chosen=buckets(), workers=st.integers(1, 4), seed=st.integers(0, 2**32))
async def test_no_limit_is_passed_whatever_fails(redis_url: str, chosen: list[Bucket], workers: int, seed: int) -> None:
    client: Any = connect(redis_url, timeout_s=5)
    try:
        dead = set[str]()
        with patch("workers.budget.membership._is_dead", dead.__contains__):
            await play(client, chosen, workers, random.Random(seed), dead, naps=seed >= NAPS_FROM)
    finally:
        await client.aclose()


@settings(
    max_examples=settings().max_examples // 7,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(chosen=limits(("rolling", 1), ("rolling", 1)), workers=2, seed=963)  # set twice while one is away
@example(chosen=limits(("rolling", 1), ("rolling", 1)), workers=1, seed=429)  # set back to when one went away
@example(chosen=limits(("paced", 1)), workers=1, seed=1909)  # a share ends with a call ahead
@example(  # one that never had an answer began what Redis remembers, and begins it again when that was emptied
    chosen=[
        *limits(("paced", 1)),
        Bucket(name="b1", kind="rolling", amount=8, window_s=5.0, margin_ms=MARGIN_MS, source=""),
    ],
    workers=3,
    seed=200_191,
)
@example(chosen=limits(("rolling", 1), ("rolling", 1)), workers=3, seed=115)  # who asks an emptied Redis first
@example(chosen=limits(("paced", 8), ("rolling", 8)), workers=3, seed=302_009)  # the same
@given(chosen=buckets(), workers=st.integers(1, 4), seed=st.integers(0, 2**32))
async def test_no_limit_is_passed_however_redis_s_clock_is_set(
    redis_url: str, chosen: list[Bucket], workers: int, seed: int
) -> None:
    client: Any = connect(redis_url, timeout_s=5)
    steps_us = [10_000_000, -10_000_000, 500_000, -500_000]
    try:
        dead = set[str]()
        with patch("workers.budget.membership._is_dead", dead.__contains__):
            await play(client, chosen, workers, random.Random(seed), dead, steps_us, naps=seed >= NAPS_FROM)
    finally:
        await client.aclose()


@dataclass
class Life:
    """A fleet's life, as chance has it.

    Attributes:
        net: Redis, its clock, and what is still on its way to it.
        chosen: the limits.
        dead: the members that the others see to be dead.
        set_by_us: by what Redis's clock may be set.
        steps: how often it may still be set. Each adds a round trip to what is not known of the exchange's clock; here
            that is a tenth of a window.
        fleet: the workers.
        granted: each call that leaves: its worker, its instant and what it takes.
        witnesses: those that knew Redis when it last forgot, or when its clock was last set, until one reaches it.
        accounts: of how many each worker's calls are; 0 where accounts don't matter.
        naps: now and then a worker is asked nothing for a while, and beats as one at rest.
        calm: a worker came while nobody had seen that yet: nothing else fails until one has.
    """

    net: Net
    chosen: list[Bucket]
    dead: set[str]
    set_by_us: Sequence[int]
    steps: int
    fleet: list[Simulated]
    naps: bool = False
    accounts: int = 0
    granted: list[tuple[Simulated, int, list[Charge]]] = field(
        default_factory=list[tuple[Simulated, int, list[Charge]]]
    )
    witnesses: set[str] = field(default_factory=set[str])
    calm: bool = False

    @property
    def is_seen(self) -> bool:
        """Whether one that knew Redis before has reached it since it forgot, or since its clock was set."""
        return not self.witnesses

    def happened(self) -> None:
        """Redis forgot, or its clock was set."""
        self.witnesses = {worker.member.id for worker in self.fleet if worker.member.count > 0}

    async def disturb(self) -> None:
        """Connections break and come back, Redis forgets, its clock is set."""
        net, chance = self.net, self.net.chance
        if chance.random() < 0.06 and not self.calm:
            states = ["good", "good", "cut", "late", "deaf"]
            state = chance.choice(states)
            for worker in self.fleet if chance.random() < 0.4 else [chance.choice(self.fleet)]:
                worker.line.state = state
        if chance.random() < 0.004 and self.is_seen:
            await net.client.flushdb()
            await net.show()
            self.happened()
        # A step that comes before a worker has reached Redis is none to that worker: there the exchange's clock is
        # measured when markets are read, which nobody does here.
        known = all(worker.member.count > 0 for worker in self.fleet)
        if self.steps and chance.random() < 0.01 and self.is_seen and known:
            self.steps -= 1
            net.set_by_us += chance.choice(self.set_by_us)
            await net.show()
            self.happened()

    async def come_and_go(self) -> None:
        """Workers leave, die and start."""
        net, chance = self.net, self.net.chance
        if chance.random() < 0.01 and len(self.fleet) > 1 and not self.calm:
            worker = self.fleet.pop(chance.randrange(len(self.fleet)))
            leaves = chance.random() < 0.5
            if leaves:
                await worker.budget.leave()
            if leaves or chance.random() < 0.7:
                self.dead.add(worker.member.id)  # also where Redis was not told that it leaves
                # What it was granted for later it does not send any more.
                self.granted = [one for one in self.granted if one[0] is not worker or one[1] <= net.now_us]
        # Where nobody can tell a new one what happened before it has waited for long, that is accepted.
        told = any(worker.line.state == "good" and worker.member.id in self.witnesses for worker in self.fleet)
        if chance.random() < 0.02 and len(self.fleet) < 5 and (self.is_seen or told):
            self.calm = not self.is_seen
            self.fleet.append(Simulated(net, self.accounts))

    async def run_late_commands(self) -> None:
        """What a frozen Redis had in its sockets, run at last."""
        for command in self.net.late:
            await self.net.client.fcall(*command)
        self.net.late.clear()

    async def work(self, worker: Simulated) -> None:
        """A worker's beat, where it is due, and some calls."""
        net, chance = self.net, self.net.chance
        if net.now_us >= worker.next_beat_us:
            await worker.beat(rests=self.naps)
            if worker.line.state == "good" and worker.member.id in self.witnesses:
                self.witnesses.clear()
                self.calm = False
            worker.next_beat_us = net.now_us + chance.choice([200_000, 200_000, 200_000, 1_000_000])
        if self.naps and chance.random() < 0.05:
            worker.rests_until_us = net.now_us + chance.choice([1_000_000, 3_000_000])
        for _ in range(chance.choice([0, 1, 1, 3]) if net.now_us >= worker.rests_until_us else 0):
            asked = chance.sample(self.chosen, chance.randint(1, len(self.chosen)))
            charges = [Charge(one, chance.choice([1.0, 1.0, min(2.5, one.amount)]), one.name) for one in asked]
            at = await worker.ask(charges, max_wait_s=chance.choice([0, 0.2, 2, 2, 60]), bulk=chance.random() < 0.2)
            if at is not None:
                self.granted.append((worker, at, charges))


async def play(
    client: Any,
    chosen: list[Bucket],
    workers: int,
    chance: random.Random,
    dead: set[str],
    set_by_us: Sequence[int] = (),
    *,
    naps: bool,
    accounts: int = 0,
) -> None:
    """Half a minute of a fleet's life.

    Args:
        client: of the real Redis.
        chosen: the limits.
        workers: how many there are at first.
        chance: draws what happens.
        dead: the members that the others see to be dead.
        set_by_us: by what Redis's clock may be set.
        naps: whether workers are asked nothing at times.
        accounts: of how many each worker's calls are; 0 where accounts don't matter.
    """
    net = await begun(client, chance)
    fleet = [Simulated(net, accounts) for _ in range(workers)]
    life = Life(net, chosen, dead, set_by_us, 2 if set_by_us else 0, fleet, naps, accounts)
    for tick in range(chance.choice([150, 300])):
        await net.pass_time(TICK_US)
        if tick % 10 == 0:
            await net.expire()
        await life.disturb()
        await life.come_and_go()
        if chance.random() < 0.1:
            await life.run_late_commands()
        for worker in life.fleet:
            await life.work(worker)
    for bucket in chosen:
        taken = [(at, charge) for _, at, charges in life.granted for charge in charges]
        spent = [(at, charge.cost) for at, charge in taken if charge.key == bucket.name]
        assert most(bucket, spent) <= 1 + 1e-9


@pytest.fixture
async def net(redis_url: str) -> AsyncIterator[Net]:
    async with connect(redis_url, timeout_s=5) as client:
        yield await begun(client, random.Random(0))


async def test_what_an_emptied_redis_forgot_was_granted_as_far_ahead_as_to_anyone(net: Net) -> None:
    """The first to ask it wants to wait for nothing, and did not before; another one had waited for long."""
    (limit,) = limits(("rolling", 1))
    calls, sent = [Charge(limit, 1, "b0")], list[int]()
    patient, hasty = fleet = [Simulated(net) for _ in range(2)]

    async def ask(worker: Simulated, max_wait_s: float) -> None:
        if (at := await worker.ask(calls, max_wait_s=max_wait_s, bulk=False)) is not None:
            sent.append(at)

    for worker in fleet * 3:
        await net.pass_time(TICK_US)
        await worker.budget.beat()
    for _ in range(3):
        await ask(patient, 2.5)
    assert len(sent) == 3
    await net.client.flushdb()
    await net.show()
    for max_wait_s in (0, 2, 2):
        await ask(hasty, max_wait_s)
    assert most(limit, [(at, 1.0) for at in sent]) <= 1 + 1e-9


async def test_workers_that_are_all_back_after_long_share_the_whole_limit_soon(net: Net) -> None:
    """A Redis that was killed has forgotten what it granted; but that has left every window meanwhile."""
    fleet = [Simulated(net) for _ in range(2)]
    limit = Bucket(name="b", kind="rolling", amount=20, window_s=5, margin_ms=MARGIN_MS, source="")
    calls = [Charge(limit, 1, "b")]

    async def beats(ticks: int) -> None:
        for _ in range(ticks):
            await net.pass_time(TICK_US)
            for worker in fleet:
                await worker.budget.beat()

    async def granted_at_once() -> int:
        return sum([await worker.ask(calls, max_wait_s=0, bulk=False) is not None for worker in fleet * 20])

    await beats(10)
    assert await granted_at_once() == 20
    for worker in fleet:
        worker.line.state = "cut"
    await beats(200)
    await net.client.flushdb()
    await net.client.set(NOW_KEY, net.now_us)
    fleet[0].line.state = "good"
    await beats(3)
    assert fleet[0].budget.own_part == 0.5  # the other one may have been granted something since
    fleet[1].line.state = "good"
    await beats(3)
    assert fleet[0].budget.own_part == 0.5  # one that neither knows may have come while they were away
    await beats(40)
    assert [worker.budget.own_part for worker in fleet] == [None, None]
    assert await granted_at_once() == 20


async def test_who_finds_redis_away_and_then_empty_takes_nothing_that_others_may_use(net: Net) -> None:
    """The others are on their shares, and come back a little later than the newcomer."""
    limit = Bucket(name="b", kind="rolling", amount=12, window_s=6, margin_ms=MARGIN_MS, source="")
    calls = [Charge(limit, 1, "b")]
    sent: list[tuple[Simulated, int]] = []

    async def live(fleet: list[Simulated], ticks: int) -> None:
        await saturate(net, fleet, calls, sent, ticks)

    old, new = [Simulated(net) for _ in range(3)], Simulated(net)
    await live(old, 10)
    for worker in [*old, new]:
        worker.line.state = "cut"
    lost_us = net.now_us
    await live([*old, new], 150)
    assert {worker.member.id for worker, at in sent if at > lost_us} == {worker.member.id for worker in old}
    await net.client.flushdb()
    await net.show()
    new.line.state = "good"
    await live([new, *old], 30)
    assert new.budget.own_part is None
    for worker in old:
        worker.line.state = "good"
    await live([new, *old], 150)
    assert most(limit, [(at, 1.0) for _, at in sent]) <= 1 + 1e-9
    assert [worker.budget.own_part for worker in (new, *old)] == [None] * 4
    assert any(one is new for one, _ in sent)


async def test_a_fleet_that_was_there_before_redis_has_the_whole_limit_soon(net: Net) -> None:
    """Nobody comes back, and no window counts as full."""
    fleet = [Simulated(net) for _ in range(2)]
    limit = Bucket(name="b", kind="rolling", amount=20, window_s=60, margin_ms=MARGIN_MS, source="")

    async def granted_after(ticks: int) -> int:
        for _ in range(ticks):
            await net.pass_time(TICK_US)
            for worker in fleet:
                await worker.budget.beat()
        asked = [await worker.ask([Charge(limit, 1, "b")], max_wait_s=0, bulk=False) for worker in fleet * 20]
        return sum(at is not None for at in asked)

    await net.client.flushdb()
    await net.show()
    for worker in fleet:
        worker.line.state = "cut"
    assert await granted_after(10) == 0
    for worker in fleet:
        worker.line.state = "good"
    assert await granted_after(20) == 0
    assert await granted_after(25) == 20


async def test_who_moves_the_clock_ahead_shortens_no_window_of_a_worker_that_believed_it(net: Net) -> None:
    """It was set back while one worker was away, and another one met Redis for the first time."""
    (limit,) = limits(("rolling", 20))
    calls = [Charge(limit, 1, "b0")]
    sent: list[tuple[int, float]] = []

    async def send_all(worker: Simulated) -> None:
        while (at := await worker.ask(calls, max_wait_s=0, bulk=False)) is not None:
            sent.append((at, 1.0))

    old, new = Simulated(net), Simulated(net)
    await old.budget.beat()
    await net.pass_time(5_000_000)
    net.set_by_us = -2_000_000
    await net.show()
    await new.budget.beat()
    await send_all(new)
    await old.budget.beat()  # It corrects the clock.
    assert int((await net.client.get("fleet:{x}:set")).partition(b":")[0]) > 1_900_000
    for _ in range(60):
        await net.pass_time(TICK_US)
        for worker in (old, new):
            await worker.budget.beat()
            await send_all(worker)
    assert most(limit, sent) <= 1 + 1e-9
    assert len(sent) >= 40  # All windows counted as full once, and no longer.


async def test_a_clock_that_was_set_back_to_when_a_worker_went_away_is_corrected(net: Net) -> None:
    """By that clock the worker, which is on its share, had an answer just now."""
    (limit,) = limits(("rolling", 20))
    calls = [Charge(limit, 1, "b0")]
    here, away = fleet = [Simulated(net) for _ in range(2)]
    sent: list[tuple[int, float]] = []

    async def live(ticks: int, *senders: Simulated) -> None:
        for _ in range(ticks):
            await net.pass_time(TICK_US)
            for worker in fleet:
                await worker.budget.beat()
            for worker in senders:
                while (at := await worker.ask(calls, max_wait_s=1, bulk=False)) is not None:
                    sent.append((at, 1.0))

    await live(20, here, away)
    away.line.state = "cut"
    cut_us = net.now_us
    await live(80, away)
    assert away.budget.own_part == 0.5
    net.set_by_us = cut_us + 500_000 - net.now_us
    await net.show()
    await live(30, here, away)
    assert here.budget.own_part is None
    assert most(limit, sent) <= 1 + 1e-9


async def test_a_worker_whose_own_clock_stood_still_does_not_correct_redis_s_beside_others(net: Net) -> None:
    awake, asleep = fleet = [Simulated(net) for _ in range(2)]
    for worker in fleet * 3:
        await worker.budget.beat()
    for _ in range(100):
        await net.pass_time(TICK_US)
        await awake.budget.beat()
    asleep.stood_still_us = 100 * TICK_US
    for worker in fleet * 3:
        await worker.budget.beat()
    assert (await net.client.get("fleet:{x}:set")).partition(b":")[0] == b"0"
    assert [worker.budget.own_part for worker in fleet] == [None, None]
