"""Strangers' calls from our address: found in what the exchange counts, and left room for."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.budgets import MINUTE_US, START_US, WINDOWS, Told, bucket, emptied

pytestmark = pytest.mark.both_stores


@pytest_asyncio.fixture(loop_scope="function")
async def client(redis_url: str) -> AsyncIterator[Any]:
    async with emptied(redis_url) as client:
        yield client


async def test_calls_of_ours_that_overtake_each_other_are_no_strangers(client: Any) -> None:
    """As all workers' calls do when a minute begins: the exchange has counted others before the first."""
    told = Told(client, bucket(1000, 60, kind="fixed", margin_ms=100))
    await told.at(START_US + 10_000_000)
    await told.counted(await told.call(), 1)
    begins = START_US + MINUTE_US + 100_000
    await told.at(begins)
    burst = [await told.call() for _ in range(200)]
    for grant, used in zip(burst, range(200, 100, -1), strict=False):
        await told.counted(grant, used)
    assert await told.left() == 800


async def test_strangers_that_took_less_are_left_less_in_the_next_minute(client: Any) -> None:
    told = Told(client, bucket(1000, 60, kind="fixed", margin_ms=100))
    await told.at(START_US + 30_000_000)
    await told.counted(await told.call(), 151)  # 300 a minute
    await told.at(START_US + MINUTE_US + 15_000_000)
    burst = [await told.call() for _ in range(2)]
    await told.counted(burst[0], 1)
    await told.counted(burst[1], 2)  # none in a quarter of a minute: 225
    await told.at(START_US + 2 * MINUTE_US + 200_000)
    assert await told.left() == 1000 - int(225 * 1.1 + 1)


async def test_few_that_are_certain_are_left_their_part_too(client: Any) -> None:
    told = Told(client, bucket(1000, 60, kind="fixed", margin_ms=100))
    await told.at(START_US + 6_000_000)
    await told.counted(await told.call(), 9)  # less than calls of ours under way would be taken for
    assert await told.left() == 1000 - 1 - 8 - int(80 * 0.9 * 1.1 + 1)


async def test_while_nothing_is_known_of_strangers_what_is_not_certainly_ours_is_theirs(client: Any) -> None:
    told = Told(client, bucket(1000, 60, kind="fixed", margin_ms=100))
    await told.at(START_US + 30_000_000)
    burst = [await told.call() for _ in range(100)]
    await told.counted(burst[0], 350)
    # 349 in half a minute, at most; as much again, and a tenth, is left to them.
    assert (await told.budget.usage())["b"].used == pytest.approx((100 + 349) / 1000)
    # All have answered, each the later the more it counted: 300 were others' when the last had come.
    for number, grant in enumerate(burst[1:], start=2):
        await told.counted(grant, 300 + number)
    assert (await told.budget.usage())["b"].used == pytest.approx((100 + 300) / 1000)
    assert await told.left() == 1000 - 100 - 300 - 330


async def test_strangers_are_taken_to_go_on_while_our_calls_are_under_way(client: Any) -> None:
    told = Told(client, bucket(1000, 60, kind="fixed", margin_ms=100))
    await told.at(START_US + 30_000_000)
    await told.counted(await told.call(), 151)  # 300 a minute
    await told.at(START_US + MINUTE_US + 12_000_000)
    burst = [await told.call() for _ in range(100)]
    await told.counted(burst[50], 80)  # 60 are expected by now; between none and 79 there are
    assert (await told.budget.usage())["b"].used == pytest.approx((100 + 60) / 1000)
    # What was counted beside all that we were granted is others'.
    await told.counted(burst[51], 189)
    assert (await told.budget.usage())["b"].used == pytest.approx((100 + 89) / 1000)
    assert await told.left() == int(1000 - 100 - 89 - 391.6)


async def test_what_a_stranger_took_in_the_exchanges_minute_is_not_ours_to_spend(client: Any) -> None:
    told = Told(client, bucket(1000, 60, kind="fixed", margin_ms=100))
    middle = START_US + MINUTE_US // 2
    await told.at(middle)
    first = await told.call()
    await told.counted(first, 301)
    await told.counted(await told.call(), 302)
    # 300 in half a minute: as much is left to them for the other half, and a tenth on top.
    assert await told.left() == 1000 - 2 - 300 - 330
    # In the next minute all of it is left to them from the start.
    await told.at(START_US + MINUTE_US + 200_000)
    assert await told.left() == 1000 - 500  # but never more than half
    # An answer to a call of the last minute says nothing about this one.
    await told.counted(first, 999)
    assert (await told.budget.usage())["b"].used == 0.5
    # They were seen no more for two minutes: all of it is ours.
    await told.at(START_US + 4 * MINUTE_US + 200_000)
    assert await told.left() == 1000


async def test_our_own_calls_are_no_strangers_in_flight_or_not(client: Any) -> None:
    for kind in WINDOWS:
        await client.flushdb()
        told = Told(client, bucket(100, 60, kind=kind))
        await told.at(START_US + MINUTE_US // 2)
        out = [await told.call() for _ in range(60)]
        for number, grant in enumerate(out):
            await told.counted(grant, number + 1)  # what arrived by then: it, and those before it
        assert await told.left() == 40, kind


async def test_a_stranger_is_left_room_in_a_rolling_window_as_long_as_it_is_seen(client: Any) -> None:
    told = Told(client, bucket(100, 60))
    await told.at(START_US)
    grant = await told.call()
    # A call that overtook it, as it was slow, is ours.
    await told.at(START_US + 50_000)
    await told.call()
    await told.counted(grant, 32, late_us=50_000)
    await told.counted(grant, 1)
    assert await told.left() == 100 - 2 - 30
    await told.at(START_US + 3 * MINUTE_US)
    assert await told.left() == 100


async def test_a_stranger_is_not_our_limit(client: Any) -> None:
    for kind in WINDOWS:
        await client.flushdb()
        told = Told(client, bucket(100, 60, kind=kind))
        await told.at(START_US + MINUTE_US // 2)
        grant = await told.call()
        await told.counted(grant, 101)
        assert await told.budget.limited(told.calls, grant) is None, kind
        assert (await told.budget.usage())["b"].effective == 1


async def test_how_fast_strangers_are_is_known_anew_with_the_clock(client: Any) -> None:
    told = Told(client, bucket(1000, 60, kind="fixed", margin_ms=100))
    # A tenth of the minute is over by our clock, and half of it by the exchange's.
    await told.at(START_US + 6_000_000)
    await told.counted(await told.call(), 151)
    await told.budget.set_clock(24)
    assert await told.left() == 1000 - 1 - 150 - 165
    await told.at(START_US + MINUTE_US - 24_000_000 + 200_000)
    assert await told.left() == 1000 - 330
