"""Where a window begins by the exchange's clock, and how far calls stay from its ends."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from schemas.runtime.clock import clock_s
from tests.support.budgets import MINUTE_US, NOW_KEY, START_US, TEST_CLOCK, bucket, charge, emptied, grants
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.jitter import ENOUGH, GENERATION_S, SURE_CALLS_HERE
from workers.budget.ledger import Ledger

pytestmark = pytest.mark.both_stores


@pytest_asyncio.fixture(loop_scope="function")
async def client(redis_url: str) -> AsyncIterator[Any]:
    async with emptied(redis_url) as client:
        yield client


async def test_margins_are_the_tables_until_measured_and_then_the_largest_that_any_worker_measures(client: Any) -> None:
    limit = bucket(1, 1, margin_ms=150)
    await client.set(NOW_KEY, START_US)
    one, two = (Budget(Ledger(client, "x:1", clock=TEST_CLOCK)) for _ in range(2))

    async def window_us(budget: Budget) -> int:
        """From one grant to the next; much later the next time."""
        await client.set(NOW_KEY, int(await client.get(NOW_KEY)) + 100_000_000)
        first, second = [await budget.reserve([charge(limit)], max_wait_s=10) for _ in range(2)]
        assert isinstance(first, Grant)
        assert isinstance(second, Grant)
        return second.at_us - first.at_us

    assert await window_us(one) == 1_150_000
    for budget, spread_s in ((one, 0.0), (two, 0.05)):
        for trip_s in (0.01, *[0.01 + spread_s] * ENOUGH):
            budget.spread.answered(0.0, "endpoint", trip_s)
    assert await window_us(one) == 1_010_000
    measured_us = await window_us(two)
    assert 1_050_000 < measured_us < 1_070_000
    # The jittery worker's calls land among the other's.
    first, second = [await one.reserve([charge(limit)], max_wait_s=10) for _ in range(2)]
    assert isinstance(first, Grant)
    assert isinstance(second, Grant)
    assert second.at_us - first.at_us == measured_us
    # And so do those of one that has just started.
    fresh = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
    assert isinstance(await fresh.reserve([charge(limit)], max_wait_s=10), Grant)
    third = await one.reserve([charge(limit)], max_wait_s=10)
    assert isinstance(third, Grant)
    assert third.at_us - second.at_us == 2 * 1_150_000


async def test_the_fastest_trip_of_any_worker_is_every_worker_s_measure(client: Any) -> None:
    old, fresh, elsewhere = Budget(Ledger(client, "x:1")), Budget(Ledger(client, "x:1")), Budget(Ledger(client, "x:2"))
    now_s = clock_s()
    for trip_s in (0.02, *[0.05] * SURE_CALLS_HERE):
        old.spread.answered(now_s - GENERATION_S, "public ticker", trip_s)
    for budget in (old, fresh, elsewhere):
        await budget.share_trips()
    assert fresh.spread.answered(now_s, "public ticker", 0.05) == pytest.approx(30_000)
    assert elsewhere.spread.answered(now_s, "public ticker", 0.05) == pytest.approx(50_000)
    for _ in range(SURE_CALLS_HERE):
        fresh.spread.answered(now_s - GENERATION_S, "public ticker", 0.03)
    await fresh.share_trips()  # slower: changes nothing
    await old.share_trips()
    assert old.spread.faster(now_s) == fresh.spread.faster(now_s) == {}
    del old  # who made the fastest trip is gone when Redis forgets it
    await client.flushdb()
    newest = Budget(Ledger(client, "x:1"))
    for budget in (fresh, fresh, newest):  # who hears that Redis was emptied tells it again
        await budget.share_trips()
    assert newest.spread.answered(now_s, "public ticker", 0.05) == pytest.approx(30_000)


async def test_fixed_windows_follow_the_exchange_clock(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
    calls = [charge(bucket(1, 60, kind="fixed", margin_ms=100))]
    await client.set(NOW_KEY, START_US + MINUTE_US // 2)
    await budget.set_clock(7.5)
    assert await grants(budget, calls) == 1
    answer = await budget.reserve(calls, max_wait_s=60)
    assert isinstance(answer, Grant)
    assert answer.at_us == START_US + MINUTE_US - 7_500_000 + 100_000


async def test_calls_stay_away_from_a_minutes_ends_by_as_much_as_the_clock_may_be_wrong(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
    calls = [charge(bucket(1, 60, kind="fixed", margin_ms=100))]
    await budget.set_clock(-1, 1.5)
    for asked_us, granted_us in ((60_000_000, 62_500_000), (120_000_000, 122_500_000)):
        await client.set(NOW_KEY, START_US + asked_us)
        answer = await budget.reserve(calls, max_wait_s=60)
        assert isinstance(answer, Grant)
        assert answer.at_us == START_US + granted_us


async def test_what_was_spent_counts_in_the_minute_that_the_clock_puts_it_in(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
    calls = [charge(bucket(10, 60, kind="fixed", margin_ms=100))]
    # Our minute has begun, the exchange's not: it is the last one's calls that they join, and nobody waits for more.
    await client.set(NOW_KEY, START_US + 55_000_000)
    assert await grants(budget, calls, at_most=2) == 2
    await client.set(NOW_KEY, START_US + 65_000_000)
    assert await grants(budget, calls, at_most=3) == 3
    await budget.set_clock(-20)
    assert await grants(budget, calls) == 5
    assert (await budget.usage())["b"].used == 1
    # Our minute is not over, the exchange's is; what it counted in this one stays counted in this one.
    await client.set(NOW_KEY, START_US + 82_000_000)
    assert await grants(budget, calls, at_most=4) == 4
    await budget.set_clock(0.5)
    assert await grants(budget, calls) == 0  # before, some of those of the last minute may be in this one
    await client.set(NOW_KEY, START_US + 120_000_000)
    assert await grants(budget, calls) == 10


async def test_what_is_reserved_moves_where_the_clock_puts_too_much_in_a_minute(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
    calls = [charge(bucket(2, 60, kind="fixed", margin_ms=100))]
    await client.set(NOW_KEY, START_US + 59_000_000)
    assert await grants(budget, calls) == 2
    waiting = await budget.reserve(calls, max_wait_s=10)
    assert isinstance(waiting, Grant)
    assert waiting.at_us == START_US + MINUTE_US + 100_000
    await budget.set_clock(-5)
    moved = await budget.again(calls, waiting, max_wait_s=10)
    assert isinstance(moved, Grant)
    assert moved.at_us == START_US + MINUTE_US + 5_100_000


async def test_a_refusal_says_how_room_comes_where_a_window_was_filled_in_parts(client: Any) -> None:
    """By a few points, and none where it comes evenly."""
    limit = charge(bucket(200, 60, margin_ms=100))
    budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
    for after_s, more in ((0, 101), (20, 35), (50, 64)):
        await client.set(NOW_KEY, START_US + after_s * 1_000_000)
        for _ in range(more):
            assert isinstance(await budget.reserve([limit], max_wait_s=1), Grant)
    refusal = await budget.reserve([limit], max_wait_s=1)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_s == pytest.approx(10.1)
    for wait_s, count in refusal.rooms:
        assert wait_s == pytest.approx(10.1 if count <= 101 else 30.1 if count <= 136 else 60.1)
    told = [count for _, count in refusal.rooms]
    assert told == sorted(set(told))
    assert (told[0], told[-1], len(told)) == (1, 200, 15)
    assert {101, 102, 136, 137} <= set(told)  # both gaps are found to the call, and no more is to be said
    bulk = await budget.reserve([limit], max_wait_s=0, bulk=True)
    assert isinstance(bulk, Refusal)
    assert not bulk.rooms
    dear = await budget.reserve([charge(limit.bucket, 60)], max_wait_s=1)
    assert isinstance(dear, Refusal)
    assert [wait_s for wait_s, _ in dear.rooms] == pytest.approx([10.1, 30.1, 60.1])
    assert [count for _, count in dear.rooms] == [1, 2, 3]


async def test_a_refusal_says_nothing_of_room_that_comes_evenly(client: Any) -> None:
    limit = charge(bucket(100, 50, margin_ms=100))
    budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
    for number in range(100):
        await client.set(NOW_KEY, START_US + number * 400_000)
        assert isinstance(await budget.reserve([limit], max_wait_s=1), Grant)
    refusal = await budget.reserve([limit], max_wait_s=1)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "budget"
    assert not refusal.rooms
