"""Whose clock is wrong, a worker's own or Redis's: the other workers tell.

A machine may stand still together with its clock (a snapshot, a migration), or wake and know only roughly how long it
slept. Its workers then see a step that Redis's clock never made.
"""

import random
from collections.abc import AsyncIterator
from typing import Final

import pytest

from schemas.runtime.store import connect
from tests.support.lines import TICK_US, Net, Simulated, begun, limits, most
from workers.budget.rules import PRESENT_S
from workers.limits.costs import Charge

LIMIT: Final = limits(("rolling", 3))[0]
CALLS: Final = [Charge(LIMIT, 1, LIMIT.name)]


@pytest.fixture
async def net(redis_url: str) -> AsyncIterator[Net]:
    async with connect(redis_url, timeout_s=5) as client:
        yield await begun(client, random.Random(0))


class Fleet:
    """Workers that ask for all that they may have.

    Attributes:
        sent: when calls left, and what they take.
        by: how many were each one's.
    """

    def __init__(self, net: Net, count: int) -> None:
        self.net = net
        self.workers = [Simulated(net) for _ in range(count)]
        self.sent = list[tuple[int, float]]()
        self.by = dict.fromkeys(self.workers, 0)

    async def live(self, ticks: int, *silent: Simulated) -> None:
        """Time passes, in which some are silent."""
        for _ in range(ticks):
            await self.net.pass_time(TICK_US)
            for worker in self.workers:
                if worker not in silent:
                    await worker.budget.beat()
                    while (at := await worker.ask(CALLS, max_wait_s=0, bulk=False)) is not None:
                        self.sent.append((at, 1.0))
                        self.by[worker] += 1

    async def correction_s(self) -> float:
        """By how much Redis's clock is corrected."""
        found = await self.net.client.get("fleet:{x}:set")
        return int(found.partition(b":")[0]) / 1e6

    @property
    def most(self) -> float:
        return most(LIMIT, self.sent)


@pytest.mark.parametrize("still_us", [100_000, 500_000, 1_400_000, 2_500_000, 10_000_000, -900_000])
async def test_a_worker_whose_own_clock_is_wrong_does_not_correct_redis_s_beside_another(
    net: Net, still_us: int
) -> None:
    fleet = Fleet(net, 3)
    await fleet.live(30)
    awake, *asleep = fleet.workers
    await fleet.live(max(1, still_us // TICK_US), *asleep)
    for worker in asleep:
        worker.stood_still_us = still_us
    before = fleet.by[awake]
    for _ in range(10):
        await fleet.live(3)
        assert awake.budget.own_part is None
    assert await fleet.correction_s() == 0
    assert fleet.by[awake] > before
    assert [worker.budget.own_part for worker in fleet.workers] == [None, None, None]
    assert fleet.most <= 1 + 1e-9


@pytest.mark.parametrize("step_us", [400_000, 1_400_000, 2_500_000, -400_000, -1_400_000, -2_500_000])
async def test_a_small_step_of_redis_s_clock_is_corrected_when_all_have_seen_it(net: Net, step_us: int) -> None:
    fleet = Fleet(net, 3)
    await fleet.live(30)
    net.set_by_us = step_us
    await net.show()
    await fleet.live(3)
    assert await fleet.correction_s() == pytest.approx(-step_us / 1e6, abs=0.2)
    await fleet.live(60)
    assert fleet.most <= 1 + 1e-9
    assert [worker.budget.own_part for worker in fleet.workers] == [None, None, None]


@pytest.mark.parametrize("step_us", [500_000, -50_000])
async def test_one_that_is_gone_keeps_nobody_from_correcting_the_clock_for_long(net: Net, step_us: int) -> None:
    """It looks present, and neither doubts the clock nor believes it."""
    fleet = Fleet(net, 2)
    await fleet.live(30)
    _, gone = fleet.workers
    net.set_by_us = step_us
    await net.show()
    await fleet.live(2, gone)
    assert await fleet.correction_s() == 0, "the other one's lease is no older than its next beat"
    await fleet.live(int(2 * PRESENT_S * 1e6) // TICK_US, gone)
    assert await fleet.correction_s() == pytest.approx(-step_us / 1e6, abs=0.06)
    assert fleet.most <= 1 + 1e-9


async def test_who_is_alone_corrects_at_once(net: Net) -> None:
    fleet = Fleet(net, 1)
    await fleet.live(30)
    net.set_by_us = 500_000
    await net.show()
    await fleet.live(1)
    assert await fleet.correction_s() == pytest.approx(-0.5, abs=0.2)
    assert fleet.most <= 1 + 1e-9
