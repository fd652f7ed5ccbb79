"""Workers that are new to a Redis whose memory or clock is not what it was: in a time that the test moves."""

import random
from collections.abc import AsyncIterator, Sequence

import pytest

from schemas.runtime.store import connect
from tests.support.lines import TICK_US, Net, Simulated, begun, limits, most
from tests.support.spenders import MARGIN_MS
from workers.budget.grants import Refusal
from workers.limits.costs import Bucket, Charge

LIMIT = limits(("rolling", 20))[0]


@pytest.fixture
async def net(redis_url: str) -> AsyncIterator[Net]:
    async with connect(redis_url, timeout_s=5) as client:
        yield await begun(client, random.Random(0))


class Fleet:
    """Workers that send all they may, as far ahead as they may."""

    def __init__(self, net: Net, workers: int, limit: Bucket = LIMIT) -> None:
        self.net, self.limit = net, limit
        self.workers = [Simulated(net) for _ in range(workers)]
        self.sent: list[tuple[Simulated, int]] = []

    async def live(self, ticks: int, *, first: Sequence[Simulated] = ()) -> None:
        """Lets so many ticks pass; in each some may be the first to speak with Redis."""
        for _ in range(ticks):
            await self.net.pass_time(TICK_US)
            for worker in [*first, *(one for one in self.workers if one not in first)]:
                await self.net.pass_time(1)  # No two of them at the same instant.
                await worker.budget.beat()
                charges = [Charge(self.limit, 1, self.limit.name)]
                while (at := await worker.ask(charges, max_wait_s=2.5, bulk=False)) is not None:
                    self.sent.append((worker, at))

    def come(self) -> Simulated:
        """Another one starts."""
        self.workers.append(Simulated(self.net))
        return self.workers[-1]

    @property
    def most(self) -> float:
        """The most of the limit that was sent in any window."""
        return most(self.limit, [(at, 1.0) for _, at in self.sent])

    @property
    def shares(self) -> list[float | None]:
        """The workers' own parts; None for those that share the whole."""
        return [worker.budget.own_part for worker in self.workers]


async def test_who_is_new_and_the_first_at_an_emptied_redis_waits_for_the_others(net: Net) -> None:
    """They are connected, but slower."""
    fleet = Fleet(net, 2)
    await fleet.live(20)
    before, old = len(fleet.sent), fleet.workers[:]
    await net.client.flushdb()
    await net.show()
    new = fleet.come()
    await new.budget.beat()
    fleet.workers = [new]
    await fleet.live(10)  # The others are just late.
    assert len(fleet.sent) == before
    fleet.workers += old
    await fleet.live(100, first=[new])
    assert fleet.most <= 1 + 1e-9
    assert fleet.shares == [None] * 3
    assert any(worker is new for worker, _ in fleet.sent)


async def test_a_fleet_that_starts_at_an_empty_redis_has_the_whole_limit_soon(net: Net) -> None:
    """Once the others that may have been there have had time to come back; later ones don't wait again."""
    await net.client.flushdb()
    await net.show()
    fleet = Fleet(net, 2)
    await fleet.live(20)
    assert not fleet.sent
    await fleet.live(25)
    assert fleet.shares == [None, None]
    assert len(fleet.sent) >= 20
    for worker in fleet.workers:
        await worker.budget.leave()
    await net.pass_time(5_000_000)
    again = Fleet(net, 1)
    await again.live(2)
    assert len(again.sent) >= 20


@pytest.mark.parametrize("to_us", [-3_000_000, 500_000, 3_000_000])
async def test_who_is_new_takes_nothing_beside_shares_that_look_unused_by_a_clock_that_was_set_back(
    net: Net, to_us: int
) -> None:
    """To around the time at which the others were cut off: by that clock they are present, or were just now."""
    fleet = Fleet(net, 2)
    await fleet.live(20)
    for worker in fleet.workers:
        worker.line.state = "cut"
    cut_us = net.now_us
    await fleet.live(80)
    assert fleet.shares == [0.5, 0.5]
    net.set_by_us = cut_us + to_us - net.now_us
    await net.show()
    new = fleet.come()
    await fleet.live(100)
    assert new.budget.own_part is None
    assert fleet.most <= 1 + 1e-9
    for worker in fleet.workers:
        worker.line.state = "good"
    await fleet.live(60)
    assert fleet.shares == [None] * 3
    assert fleet.most <= 1 + 1e-9


@pytest.mark.parametrize("step_us", [10_000_000, 900_000, -900_000, -10_000_000])
async def test_who_is_new_after_the_clock_was_set_waits_for_one_that_knew_it(net: Net, step_us: int) -> None:
    fleet = Fleet(net, 2)
    await fleet.live(20)
    old = fleet.workers[:]
    net.set_by_us = step_us
    await net.show()
    new = fleet.come()
    fleet.workers = [new]
    before = len(fleet.sent)
    await fleet.live(4)  # The others are just late.
    assert len(fleet.sent) == before
    fleet.workers += old
    await fleet.live(60, first=[new])
    assert fleet.most <= 1 + 1e-9
    assert fleet.shares == [None] * 3
    assert any(worker is new for worker, _ in fleet.sent)


async def test_who_is_new_takes_over_what_others_correct_the_clock_by(net: Net) -> None:
    """It met Redis after the step, and would take the correction for another one."""
    fleet = Fleet(net, 1)
    await fleet.live(20)
    (old,) = fleet.workers
    net.set_by_us = 10_000_000
    await net.show()
    new = fleet.come()
    await new.budget.beat()
    await old.budget.beat()
    await new.budget.beat()
    await fleet.live(60)
    assert int((await net.client.get("fleet:{x}:set")).partition(b":")[0]) < -9_800_000
    assert fleet.most <= 1 + 1e-9
    assert fleet.shares == [None] * 2


async def test_who_is_alone_at_an_emptied_redis_vouches_for_no_clock(net: Net) -> None:
    """What the clock was corrected by is forgotten too: it jumps ahead. One that knew it comes back a little later."""
    fleet = Fleet(net, 1)
    await fleet.live(20)
    (old,) = fleet.workers
    net.set_by_us = 10_000_000
    await net.show()
    await fleet.live(20)
    await net.client.flushdb()
    await net.show()
    new = fleet.come()
    fleet.workers = [new]
    await fleet.live(10)
    fleet.workers = [old, new]
    await fleet.live(60)
    assert int((await net.client.get("fleet:{x}:set")).partition(b":")[0]) < -9_800_000
    assert fleet.most <= 1 + 1e-9
    assert fleet.shares == [None] * 2


async def test_an_emptied_redis_grants_nothing_before_it_knows_whose_parts_are_out(net: Net) -> None:
    """Fixed windows are full by whole windows: the next one may begin within the time that is granted ahead."""
    (limit,) = limits(("fixed", 1))
    fleet = Fleet(net, 2, limit)
    await fleet.live(20)
    left, lone = fleet.workers
    left.line.state = "cut"
    await fleet.live(80)
    await net.client.flushdb()
    await net.show()
    charges = [Charge(limit, 1, limit.name)]
    for _ in range(9):
        await net.pass_time(TICK_US)
        assert await lone.ask(charges, max_wait_s=2.5, bulk=False) is None


async def test_who_is_new_beside_others_waits_for_no_more_than_their_next_beat(net: Net) -> None:
    fleet = Fleet(net, 2)
    for _ in range(2):
        for worker in fleet.workers:
            await worker.budget.beat()
    new = fleet.come()
    await new.budget.beat()
    charges = [Charge(LIMIT, 1, "b0")]
    assert await new.ask(charges, max_wait_s=2.5, bulk=False) is None
    await fleet.workers[0].budget.beat()
    await new.budget.beat()
    assert await new.ask(charges, max_wait_s=2.5, bulk=False) is not None


async def test_who_came_while_the_others_were_cut_off_counts_when_redis_has_forgotten_it(net: Net) -> None:
    """The others have all parts, and are the first to be back; nobody knows it."""
    one = Bucket(name="b", kind="rolling", amount=1, window_s=1, margin_ms=MARGIN_MS, source="")
    fleet = Fleet(net, 2, one)
    await fleet.live(20)
    old = fleet.workers[:]
    for worker in old:
        worker.line.state = "cut"
    await fleet.live(80)
    new = fleet.come()
    await fleet.live(60)
    assert sum(worker is new for worker, _ in fleet.sent) >= 3
    await net.client.flushdb()
    await net.show()
    new.line.state = "cut"
    for worker in old:
        worker.line.state = "good"
    await fleet.live(20)
    new.line.state = "good"
    await fleet.live(100)
    assert fleet.most <= 1 + 1e-9
    assert fleet.shares == [None] * 3


async def test_a_pause_is_said_also_where_the_part_of_one_that_is_away_leaves_no_room(net: Net) -> None:
    limit = limits(("rolling", 2))[0]
    fleet = Fleet(net, 2, limit)
    here, away = fleet.workers
    await fleet.live(20)
    away.line.state = "cut"
    fleet.workers = [here]
    await fleet.live(20)

    async def refusal() -> Refusal:
        answer = await here.budget.reserve([Charge(limit, 2, limit.name)], max_wait_s=2.5)
        assert isinstance(answer, Refusal)
        return answer

    assert (await refusal()).reason == "budget"
    await here.budget.pause(30, "too many")
    paused = await refusal()
    assert (paused.reason, round(paused.wait_s)) == ("paused", 30)
