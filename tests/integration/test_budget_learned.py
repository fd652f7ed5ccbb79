"""What a bucket learns from the exchange: it said too many, and how long to be silent."""

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from tests.support.budgets import MINUTE_US, START_US, TEST_CLOCK, WINDOWS, Told, bucket, charge, emptied, grants
from workers.budget.budget import Budget
from workers.budget.grants import Grant
from workers.budget.ledger import Ledger
from workers.budget.pauses import Pauses
from workers.limits.costs import Kind

pytestmark = pytest.mark.both_stores


@pytest_asyncio.fixture(loop_scope="function")
async def client(redis_url: str) -> AsyncIterator[Any]:
    async with emptied(redis_url) as client:
        yield client


async def test_too_many_lowers_the_bucket_once_for_all_and_it_comes_back(client: Any) -> None:
    kinds: tuple[Kind, ...] = (*WINDOWS, "decaying")
    for kind in kinds:
        await client.flushdb()
        told = Told(client, bucket(100, 60, kind=kind))
        other = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
        now = START_US + MINUTE_US // 2
        await told.at(now)
        out = [await told.call() for _ in range(3)]
        learned = await told.budget.limited(told.calls, out[0])
        assert learned is not None
        assert (learned.bucket, learned.amount, learned.effective) == ("b", 100, 90)
        assert await other.limited(told.calls, out[1]) is None  # it was out already
        assert await grants(other, told.calls) == 90 - 3, kind
        for _ in range(20):
            now += 2 * MINUTE_US
            await told.at(now)
            await told.budget.limited(told.calls, await told.call())
        assert (await told.budget.usage())["b"].effective == 0.3


async def test_what_was_learned_outlives_a_redis_that_forgets(client: Any) -> None:
    for kind in WINDOWS:
        await client.flushdb()
        told = Told(client, bucket(100, 60, kind=kind))
        await told.at(START_US)
        assert await told.budget.limited(told.calls, await told.call()) is not None
        assert (await told.budget.usage())["b"].effective == 0.9
        await client.flushdb()
        await told.at(START_US + MINUTE_US)
        for _ in range(2):
            assert (await told.budget.usage())["b"].effective == 0.91
        other = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
        assert await grants(other, told.calls) == 91, kind
        await told.at(START_US + 12 * MINUTE_US)
        assert (await told.budget.usage())["b"].effective == 1


async def test_a_bucket_that_was_lowered_more_often_takes_longer_to_be_whole(client: Any) -> None:
    for kind in WINDOWS:
        await client.flushdb()
        told = Told(client, bucket(100, 60, kind=kind))
        now = START_US

        async def effective_after(minutes: int, told: Told = told) -> float:
            nonlocal now
            now += minutes * MINUTE_US
            await told.at(now)
            await told.call()
            return (await told.budget.usage())["b"].effective

        async def lower(told: Told = told) -> None:
            assert await told.budget.limited(told.calls, await told.call()) is not None

        await effective_after(0)
        await lower()
        assert [await effective_after(minutes) for minutes in (5, 4, 1)] == [0.95, 0.99, 1]
        await effective_after(23 * 60)
        await lower()
        assert [await effective_after(minutes) for minutes in (10, 10)] == [0.95, 1]
        for _ in range(9):
            await effective_after(1)
            await lower()
        lowest = (await told.budget.usage())["b"].effective
        assert await effective_after(640) == pytest.approx(lowest + 0.1, abs=0.001)
        # A day after it was whole again nothing of that counts.
        await effective_after(64 * 100 + 24 * 60)
        await lower()
        assert [await effective_after(minutes) for minutes in (5, 5)] == [0.95, 1]


async def test_a_bucket_of_one_that_was_lowered_has_a_longer_window(client: Any) -> None:
    told = Told(client, bucket(1, 1))
    await told.at(START_US)
    await told.budget.limited(told.calls, await told.call())
    answer = await told.budget.reserve(told.calls, max_wait_s=5)
    assert isinstance(answer, Grant)
    assert answer.delay_us == 1_111_112


async def test_the_fullest_of_a_calls_buckets_is_lowered(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(100, 60), key="wide"), charge(bucket(2, 60), key="narrow")]
    answer = await budget.reserve(calls, max_wait_s=0)
    assert isinstance(answer, Grant)
    learned = await budget.limited(calls, answer)
    assert learned is not None
    assert learned.bucket == "narrow"


async def test_after_a_pause_it_starts_at_half(client: Any) -> None:
    for kind in WINDOWS:
        await client.flushdb()
        told = Told(client, bucket(100, 1, kind=kind))
        await told.at(START_US)
        await told.budget.pause(5, "429")
        assert await told.left() == 0
        await told.at(START_US + 5_000_000)
        assert await told.left() == 50, kind
        await told.at(START_US + 7_000_000)
        assert await told.left() == 75, kind
        await told.at(START_US + 9_000_000)
        assert await told.left() == 100, kind


async def test_a_pause_of_unknown_length_is_doubled_when_the_next_call_meets_the_limit_again(client: Any) -> None:
    told = Told(client, bucket(100, 1))
    now = START_US
    await told.at(now)
    grant = await told.call()
    for expected_s in (2, 4, 8, 16, 32, 64, 128, 128):
        assert await told.budget.pause(2, "?", told=False, grant=grant) == expected_s
        # One that was out when the pause began makes it no longer.
        assert await told.budget.pause(2, "?", told=False, grant=grant) == expected_s
        now += expected_s * 1_000_000
        await told.at(now)
        grant = await told.call()
    assert await told.budget.pause(3, "Retry-After: 3", grant=grant) == 192


async def test_a_named_length_is_doubled_where_the_exchange_refuses_again_at_once(client: Any) -> None:
    """It is then too short. A later refusal, or one of a call from before the pause, leaves it as it is named."""
    told = Told(client, bucket(100, 1))
    now = START_US
    await told.at(now)
    grant = await told.call()
    for expected_s in (1, 2, 4, 8, 16, 32, 50, 50):
        for _ in range(2):
            assert await told.budget.pause(1, "429", most_s=50, grant=grant) == expected_s
        now += expected_s * 1_000_000
        await told.at(now)
        grant = await told.call()
    now += 10_000_000
    await told.at(now)
    grant = await told.call()
    assert await told.budget.pause(1, "429", most_s=50, grant=grant) == 1
    # A refusal without a length goes on from there.
    await told.at(now := now + 1_000_000)
    assert await told.budget.pause(2, "429", told=False, grant=await told.call()) == 4


async def test_no_pause_becomes_longer_than_its_most(client: Any) -> None:
    told = Told(client, bucket(100, 1))
    now, held_s = START_US, 0.0
    for named in (True, False):
        for _ in range(8):
            await told.at(now)
            held_s = await told.budget.pause(9, "?", told=named, most_s=60, grant=await told.call())
            assert held_s <= 60
            now += int(held_s * 1e6)
    assert held_s == 60


def test_without_redis_pauses_grow_by_the_same_rule() -> None:
    for named, lengths in ((False, (2, 4, 8, 16, 32, 64, 128, 128)), (True, (2, 4, 8, 16, 32, 64, 70, 70))):
        now_s = 1000.0
        pauses = Pauses(lambda: now_s)  # noqa: B023 (called in this pass alone)
        for expected_s in lengths:
            left_s = [
                pauses.refused(["x"], 2, "a|b", most_s=70 if named else 3600, named=named, at_s=now_s) for _ in range(2)
            ]
            # The second call was out before the pause.
            assert left_s == [expected_s, expected_s]
            assert pauses.source(["x"]) == "a"
            now_s += expected_s
            assert pauses.source(["x"]) == ""
        now_s += 60
        assert pauses.refused(["x"], 2, "a|b", most_s=70, named=named, at_s=now_s) == 2


@pytest.mark.parametrize("seed", range(5))
async def test_pauses_are_as_long_without_redis_as_with_it(client: Any, seed: int) -> None:
    """The rule is written twice, in Lua and in Python: random refusals make both the same pauses."""
    random, told = Random(seed), Told(client, bucket(1000, 1))
    now_s, till_s = START_US / 1e6, 0.0
    pauses = Pauses(lambda: now_s)
    for _ in range(60):
        # Of a call from before the pause or after it, at once or later.
        at_s = till_s + random.choice((-1, 0, 3, 9, 11, 40)) if till_s else now_s
        now_s = max(now_s, at_s) + random.choice((0, 0, 1))
        length_s, named, most_s = random.choice((1, 2, 10, 120)), random.random() < 0.5, random.choice((60, 3600))
        await told.at(int(now_s * 1e6))
        grant = Grant(0, int(at_s * 1e6))
        shared_s = await told.budget.pause(length_s, "?", told=named, most_s=most_s, grant=grant)
        alone_s = pauses.refused(["x"], length_s, "?|?", most_s=most_s, named=named, at_s=at_s)
        assert alone_s == pytest.approx(shared_s, abs=1e-4)
        assert shared_s >= length_s
        till_s = now_s + shared_s
