"""Budgets on a real Redis, in real time: shared pauses, what the exchange reports, many processes on one bucket."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from redis.crc import key_slot

from deploy.servers import Redis
from schemas.runtime.store import connect
from workers.budget.budget import Budget, Grant, Refusal
from workers.budget.jitter import ENOUGH, GENERATION_S, SURE_CALLS_HERE
from workers.budget.ledger import Ledger
from workers.limits.costs import Bucket, Charge, Kind, Scope, load

pytestmark = pytest.mark.both_stores
NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}') or 0) end\n"
MINUTE_US = 60_000_000
# A minute's start, far enough ahead that Redis, by its own clock, drops nothing.
WINDOWS: tuple[Kind, ...] = ("fixed", "rolling")
START_US = 4_000_000_000_000_000 // MINUTE_US * MINUTE_US


@pytest_asyncio.fixture(loop_scope="function")
async def client(redis_url: str) -> AsyncIterator[Any]:
    client: Any = connect(redis_url, timeout_s=5)
    await client.flushdb()
    try:
        yield client
    finally:
        async for key in client.scan_iter("fleet:*"):
            assert await client.pttl(key) != -1, f"{key!r} stays for ever"  # -2: it is gone by now
        await client.aclose()


def bucket(
    amount: float, window_s: float, *, kind: Kind = "rolling", scope: Scope = "egress", margin_ms: float = 0
) -> Bucket:
    return Bucket(name="b", amount=amount, window_s=window_s, kind=kind, scope=scope, margin_ms=margin_ms, source="")


def charge(bucket: Bucket, cost: float = 1.0, key: str = "b") -> Charge:
    return Charge(bucket, cost, key)


async def grants(budget: Budget, charges: list[Charge], *, bulk: bool = False, at_most: int = 1000) -> int:
    """How many calls are granted at once."""
    for count in range(at_most):
        if isinstance(await budget.reserve(charges, max_wait_s=0, bulk=bulk), Refusal):
            return count
    return at_most


async def test_all_workers_share_one_budget_but_not_with_another_address(client: Any) -> None:
    calls = [charge(bucket(10, 60))]
    assert await grants(Budget(Ledger(client, "x:1.1.1.1")), calls, at_most=6) == 6
    assert await grants(Budget(Ledger(client, "x:1.1.1.1")), calls) == 4
    assert await grants(Budget(Ledger(client, "x:2.2.2.2")), calls) == 10
    assert await grants(Budget(Ledger(client, "y:1.1.1.1")), calls) == 10


async def test_an_account_shares_its_buckets_over_all_addresses(client: Any) -> None:
    calls = [charge(bucket(10, 60, scope="account"), key="private"), charge(bucket(7, 60))]
    assert await grants(Budget(Ledger(client, "x:1.1.1.1", account="a")), calls) == 7
    assert await grants(Budget(Ledger(client, "x:2.2.2.2", account="a")), calls) == 3
    assert await grants(Budget(Ledger(client, "x:2.2.2.2", account="b")), calls) == 4


async def test_bulk_leaves_the_reserve_to_live(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(100, 60))]
    assert await grants(budget, calls, bulk=True) == 80
    refused = await budget.reserve(calls, max_wait_s=60, bulk=True)
    assert isinstance(refused, Refusal)
    assert refused.reason == "budget"
    assert await grants(budget, calls) == 20


async def test_bulk_gets_its_turn_in_a_bucket_of_one_when_that_is_empty(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(1, 60))]
    assert await grants(budget, calls, bulk=True) == 1
    assert await grants(budget, calls) == 0


async def test_live_never_waits_behind_bulk(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    assert await grants(budget, calls) == 10
    for _ in range(5):
        assert isinstance(await budget.reserve(calls, max_wait_s=600, bulk=True), Refusal)
    answer = await budget.reserve(calls, max_wait_s=600)
    assert isinstance(answer, Grant)
    assert answer.delay_us <= 60_000_000


async def test_it_is_known_which_bucket_a_call_waits_for(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(100, 60), key="wide"), charge(bucket(2, 60), key="narrow")]
    answers = [await budget.reserve(calls, max_wait_s=max_wait_s) for max_wait_s in (0, 0, 60, 0)]
    assert [answer.held_by for answer in answers] == [None, None, 1, 1]
    await budget.pause(200, "429")
    assert (await budget.reserve(calls, max_wait_s=0)).held_by is None


async def test_a_bucket_s_own_pause_is_seen_in_its_use(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(100, 60), key="b"), charge(msgspec.structs.replace(bucket(100, 60), name="other"), key="o")]
    assert await grants(budget, calls, at_most=1) == 1
    await budget.pause(60, "50011", calls[:1])
    uses = await budget.usage()
    assert 50 < uses["b"].paused_s <= 60
    assert uses["other"].paused_s == 0


async def test_a_pause_stops_everyone_on_the_scope_and_is_never_made_shorter(client: Any) -> None:
    one, two = Budget(Ledger(client, "x:1")), Budget(Ledger(client, "x:1"))
    keyed, elsewhere = Budget(Ledger(client, "x:1", account="a")), Budget(Ledger(client, "x:2"))
    calls = [charge(bucket(100, 60))]
    await one.pause(60, "429 Retry-After: 60")
    await two.pause(1, "short")
    for budget in (one, two, keyed):
        answer = await budget.reserve(calls, max_wait_s=2)
        assert isinstance(answer, Refusal)
        assert answer.reason == "paused"
        assert 50 < answer.wait_s <= 60
        assert 50 < await budget.paused() <= 60
    assert await grants(elsewhere, calls, at_most=1) == 1
    assert await elsewhere.paused() == 0


async def test_a_pause_of_one_endpoint_leaves_the_others(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    limit = bucket(100, 60)
    await budget.pause(60, "50011", [charge(limit, key="candles")])
    assert await grants(budget, [charge(limit, key="candles")], at_most=1) == 0
    assert await grants(budget, [charge(limit, key="trades")], at_most=1) == 1


async def test_a_pause_that_came_while_one_waited_holds(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(1, 0.5))]
    assert await grants(budget, calls) == 1
    waiting = asyncio.create_task(budget.acquire(calls, max_wait_s=5))
    while isinstance(await budget.reserve(calls, max_wait_s=0.5), Grant):
        pass  # Until the other one has its place, a second before ours.
    await budget.pause(60, "418")
    answer = await waiting
    assert isinstance(answer, Refusal)
    assert answer.reason == "paused"


class Told:
    """A bucket on a clock of the test's own, and an exchange that tells what it has counted of it."""

    def __init__(self, client: Any, limit: Bucket) -> None:
        self.client = client
        self.budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
        self.calls = [charge(limit)]

    async def at(self, now_us: int) -> None:
        await self.client.set(NOW_KEY, now_us)

    async def call(self) -> Grant:
        answer = await self.budget.reserve(self.calls, max_wait_s=0)
        assert isinstance(answer, Grant)
        return answer

    async def counted(self, grant: Grant, used: float, *, late_us: float = 0) -> None:
        window_s = self.calls[0].bucket.window_s
        await self.budget.observe(self.calls[0], grant.ranks[0], grant, used, late_us=late_us, span_s=window_s)

    async def left(self) -> int:
        return await grants(self.budget, self.calls)


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


async def test_a_lowered_bucket_is_whole_again_the_later_the_oftener_it_was_lowered(client: Any) -> None:
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


async def test_a_stranger_is_not_our_limit(client: Any) -> None:
    for kind in WINDOWS:
        await client.flushdb()
        told = Told(client, bucket(100, 60, kind=kind))
        await told.at(START_US + MINUTE_US // 2)
        grant = await told.call()
        await told.counted(grant, 101)
        assert await told.budget.limited(told.calls, grant) is None, kind
        assert (await told.budget.usage())["b"].effective == 1


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
    assert await told.budget.pause(3, "Retry-After: 3", grant=grant) == 3


async def test_all_keys_of_an_exchange_lie_in_one_slot_of_a_cluster(client: Any) -> None:
    limits = [charge(bucket(10, 60), key="Trades:{XBT}USD"), charge(bucket(10, 60, scope="account"), key="a:b")]
    limits.append(charge(bucket(10, 60, kind="fixed"), key="f"))
    for egress in ("10.0.0.1", "http://user:secret@[::1]:8080", "http://proxy/{x}?token=secret"):
        budget = Budget(Ledger(client, f"x:{egress}", account="api-key{1}"))
        answer = await budget.reserve(limits, max_wait_s=60)
        assert isinstance(answer, Grant)
        await budget.set_clock(1.0)
        await budget.observe(limits[0], answer.ranks[0], answer, 9, late_us=0, span_s=60)
        await budget.limited(limits, answer)
        await budget.pause(1, "all")
        await budget.pause(1, "some", limits)
    keys: list[bytes] = [key async for key in client.scan_iter("*")]
    assert {key.split(b":")[-1] for key in keys} >= {b"clock", b"epoch", b"spread", b"pause", b"learned"}
    assert len({key_slot(key) for key in keys}) == 1
    assert not [key for key in keys if b"secret" in key or b"api-key" in key]


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
    now_s = time.monotonic()
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


async def test_how_fast_strangers_are_is_known_anew_with_the_clock(client: Any) -> None:
    told = Told(client, bucket(1000, 60, kind="fixed", margin_ms=100))
    # A tenth of the minute is over by our clock, and half of it by the exchange's.
    await told.at(START_US + 6_000_000)
    await told.counted(await told.call(), 151)
    await told.budget.set_clock(24)
    assert await told.left() == 1000 - 1 - 150 - 165
    await told.at(START_US + MINUTE_US - 24_000_000 + 200_000)
    assert await told.left() == 1000 - 330


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


async def test_a_call_of_several_buckets_waits_for_the_last_and_takes_from_all_or_none(
    client: Any,
) -> None:
    budget = Budget(Ledger(client, "x:1"))
    wide, narrow = charge(bucket(100, 60), key="wide"), charge(bucket(1, 60), key="narrow")
    assert await grants(budget, [wide, narrow]) == 1
    assert await grants(budget, [wide]) == 99


async def test_redis_away_is_a_refusal() -> None:
    client: Any = connect("redis://127.0.0.1:1/0", timeout_s=0.5)
    budget = Budget(Ledger(client, "x:1"))
    answer = await budget.reserve([charge(bucket(1, 60))], max_wait_s=1)
    assert isinstance(answer, Refusal)
    assert answer.reason == "redis_lost"
    assert await budget.paused() == 0
    await client.aclose()


async def test_redis_that_forgot_the_function_is_told_again(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    assert await grants(budget, calls, at_most=2) == 2
    await client.function_flush("SYNC")
    assert await grants(budget, calls) == 8


async def test_no_password_of_a_proxy_gets_into_redis(client: Any) -> None:
    await grants(Budget(Ledger(client, "x:http://user:secret@proxy:8080", account="key{1}")), [charge(bucket(1, 60))])
    keys = [key async for key in client.scan_iter("fleet:*")]
    assert keys
    assert not [key for key in keys if b"secret" in key or b"user" in key]


async def test_real_tables_of_all_exchanges_are_granted(client: Any) -> None:
    for exchange, api, path in (
        ("binance", ("public",), "ticker/24hr"),
        ("okx", ("public",), "market/ticker"),
        ("htx", ("spot", "public"), "market/depth"),
        ("coinbase", ("v2", "public"), "time"),
        ("kraken", ("public",), "OHLC"),
        ("bitstamp", ("public",), "anything"),
    ):
        charges = load(exchange, 100).charges(api, "GET", path, {"pair": "XBTUSDT"}, 1)
        # A fixed window's boundary may be this instant: then it is granted just after.
        assert isinstance(await Budget(Ledger(client, f"{exchange}:1")).reserve(charges, max_wait_s=1), Grant)


def _work(url: str) -> list[tuple[int, int, int]]:
    """One process: many tasks ask for calls of different weights."""
    return asyncio.run(_ask(url))


async def _ask(url: str) -> list[tuple[int, int, int]]:
    client = connect(url, timeout_s=5)
    budget = Budget(Ledger(client, "x:1"))
    limit = bucket(40, 0.25)
    sent: list[tuple[int, int, int]] = []

    async def ask(cost: int) -> None:
        for _ in range(5):
            answer = await budget.acquire([charge(limit, cost)], max_wait_s=60)
            assert isinstance(answer, Grant)
            sent.append((answer.at_us, cost, time.time_ns() // 1000))

    await asyncio.gather(*(ask(cost) for cost in (1, 1, 2, 3, 10)))
    await client.aclose()
    return sent


async def test_processes_side_by_side_are_never_above_and_none_starves(redis_url: str, client: Any) -> None:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        logs = await asyncio.gather(*(loop.run_in_executor(pool, _work, redis_url) for _ in range(4)))
    granted = sorted(entry for log in logs for entry in log)
    assert len(granted) == 4 * 5 * 5
    for start, *_ in granted:
        assert sum(cost for at, cost, _ in granted if start <= at < start + 250_000) <= 40
    # Nobody sends before the instant that was reserved (Redis and we read the same clock here).
    assert all(sent >= at for at, _, sent in granted)


async def test_what_is_asked_together_is_served_in_order_and_a_cancelled_caller_holds_nobody_up(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(1, 0.01))]
    tasks = [asyncio.create_task(budget.reserve(calls, max_wait_s=60)) for _ in range(200)]
    await asyncio.sleep(0)
    for task in tasks[10::10]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    instants = [answer.at_us for answer in answers if isinstance(answer, Grant)]
    assert len(instants) == 200 - 19
    assert instants == sorted(set(instants))
    assert isinstance(await budget.reserve(calls, max_wait_s=60), Grant)


async def test_an_emptied_redis_counts_as_full_for_those_who_knew_it(client: Any) -> None:
    calls = [
        charge(bucket(10, 60)),
        charge(bucket(10, 60, kind="fixed"), key="f"),
        charge(bucket(1, 60, kind="paced"), key="p"),
    ]
    for number, one in enumerate(calls):
        old, other = Budget(Ledger(client, f"x:{number}")), Budget(Ledger(client, f"x:{number}"))
        assert await grants(old, [one], at_most=1) == 1
        assert isinstance(await other.reserve([one], max_wait_s=0), Grant | Refusal)
        await client.flushdb()
        # One that has just started can't know that there was anything; the first that does tells all.
        new = Budget(Ledger(client, f"x:{number}"))
        assert await grants(new, [one], at_most=1) == 1
        for budget in (old, other, new):
            assert await grants(budget, [one], at_most=1) == 0
        # It ends: a window later there is room again.
        answer = await new.reserve([one], max_wait_s=200)
        assert isinstance(answer, Grant)
        assert answer.delay_us <= 130_000_000


async def test_a_restarted_redis_counts_as_full_even_when_it_remembers(redis_server: Redis, client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    assert await grants(budget, calls, at_most=1) == 1
    redis_server.kill()
    lost = await budget.reserve(calls, max_wait_s=0)
    assert isinstance(lost, Refusal)
    assert lost.reason == "redis_lost"
    await redis_server.start()
    answer = await budget.reserve(calls, max_wait_s=0)
    assert isinstance(answer, Refusal)
    assert answer.reason == "budget"
    assert 50 < answer.wait_s <= 61


async def test_a_lost_connection_alone_costs_nothing(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    assert await grants(budget, calls, at_most=4) == 4
    await client.client_kill_filter(skipme=False)
    answers = [await budget.reserve(calls, max_wait_s=0) for _ in range(12)]
    granted = [answer for answer in answers if isinstance(answer, Grant)]
    assert 4 <= len(granted) <= 6


async def test_a_pause_set_while_redis_was_away_is_told_when_it_is_back(redis_server: Redis, client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    redis_server.kill()
    await budget.pause(60, "418")
    assert await budget.paused() > 50
    await redis_server.start()
    answer = await budget.reserve(calls, max_wait_s=0)
    assert isinstance(answer, Refusal)
    assert answer.reason == "paused"
    other = await Budget(Ledger(client, "x:1")).reserve(calls, max_wait_s=0)
    assert isinstance(other, Refusal)
    assert other.reason == "paused"
