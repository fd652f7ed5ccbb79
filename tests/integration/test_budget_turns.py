"""Calls that arrive late, are moved or not sent: what the exchange sees stays within the limit, on a real Redis."""

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from deploy.servers import Redis
from schemas.runtime.clock import clock_s
from schemas.runtime.store import connect
from tests.support.fleet import wait_until
from tests.support.tcp_proxy import Proxy
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.jitter import ENOUGH
from workers.budget.ledger import Ledger
from workers.budget.rules import LEAST_MARGIN_US
from workers.limits.costs import Bucket, Charge, Kind

pytestmark = pytest.mark.both_stores
NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}')) end\n"
# Far enough ahead that Redis, by its own clock, drops nothing.
START_US = 4_000_000_000_000_000
MARGIN_US = 50_000
LONG_S = 600


def charge(
    amount: float,
    *,
    window_s: float = 1,
    kind: Kind = "rolling",
    cost: float = 1,
    key: str = "b",
    margin_ms: float = MARGIN_US / 1000,
) -> Charge:
    limit = Bucket(name=key, amount=amount, window_s=window_s, kind=kind, margin_ms=margin_ms, source="")
    return Charge(limit, cost, key)


def teach(budget: Budget) -> float:
    """Gives it enough calls to measure; returns how far they spread."""
    for number in range(ENOUGH):
        budget.spread.answered(float(number), "e", 0.01)
    far_us = budget.spread.worst_us()
    assert far_us is not None
    return far_us


class Clocked:
    """A budget on a clock of the test's own."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))

    async def at(self, now_us: int) -> None:
        await self.client.set(NOW_KEY, START_US + now_us)

    async def granted(self, charges: list[Charge]) -> Grant:
        answer = await self.budget.reserve(charges, max_wait_s=LONG_S)
        assert isinstance(answer, Grant)
        return answer

    async def again(
        self, charges: list[Charge], grant: Grant, *, lead_us: int = 0, max_wait_s: float = LONG_S
    ) -> Grant:
        answer = await self.budget.again(charges, grant, max_wait_s=max_wait_s, lead_us=lead_us)
        assert isinstance(answer, Grant)
        return answer


@pytest_asyncio.fixture(loop_scope="function")
async def clocked(redis_url: str) -> AsyncIterator[Clocked]:
    client: Any = connect(redis_url, timeout_s=5)
    await client.flushdb()
    try:
        clocked = Clocked(client)
        await clocked.at(0)
        yield clocked
        async for key in client.scan_iter("fleet:*"):
            assert await client.pttl(key) != -1, f"{key!r} stays for ever"  # -2: it is gone by now
    finally:
        await client.aclose()


async def test_a_call_that_waits_for_a_late_one_waits_longer(clocked: Clocked) -> None:
    calls = [charge(1)]
    first, second = await clocked.granted(calls), await clocked.granted(calls)
    assert second.at_us == first.at_us + 1_000_000 + MARGIN_US
    await clocked.budget.arrived(calls, first, MARGIN_US - 1)  # the margin is for that
    assert (await clocked.again(calls, second)).at_us == second.at_us
    first = replace(first, at_us=first.at_us + MARGIN_US - 1 - LEAST_MARGIN_US)
    await clocked.budget.arrived(calls, first, 300_000)
    moved = await clocked.again(calls, second)
    assert moved.at_us == first.at_us + 1_000_000 + 300_000
    # And who asks next comes after it.
    assert (await clocked.granted(calls)).at_us == moved.at_us + 1_000_000 + MARGIN_US


async def test_a_margin_that_shrank_lets_no_call_leave_too_early(clocked: Clocked) -> None:
    """A call that was late within the margin of its time still counts when the margin is smaller."""
    calls = [charge(1)]
    await clocked.granted(calls)
    for trip_s in (0.01,) * ENOUGH:
        clocked.budget.spread.answered(0.0, "a", trip_s)
    assert clocked.budget.spread.margin_us() == LEAST_MARGIN_US
    await clocked.at(9_500_000)  # the table's margin holds for ten seconds more
    second = await clocked.granted(calls)
    await clocked.budget.arrived(calls, second, MARGIN_US - 1)
    await clocked.at(10_100_000)
    assert (await clocked.granted(calls)).at_us == second.at_us + 1_000_000 + MARGIN_US - 1


async def test_no_call_uses_the_room_of_a_call_that_was_not_reported(clocked: Clocked) -> None:
    calls = [charge(2)]
    first, second, third = [await clocked.granted(calls) for _ in range(3)]
    assert (first.sure, second.sure, third.sure) == (True, True, False)
    due_us = third.at_us - START_US
    await clocked.at(due_us)
    for look in range(1, 4):  # by and by
        third = await clocked.again(calls, third)
        assert (third.at_us, third.sure) == (START_US + due_us + look * 60_000, False)
        await clocked.at(due_us + look * 60_000)
    for _ in range(2):  # the two look alike
        await clocked.budget.arrived(calls, first, 0)
    moved = await clocked.again(calls, third)
    assert (moved.at_us, moved.sure) == (third.at_us, True)
    # One whose worker died is not waited for without end.
    fourth = await clocked.granted(calls)
    await clocked.at(4_000_000)
    assert (await clocked.again(calls, fourth)).at_us == START_US + 4_000_000


async def test_no_call_leaves_on_an_answer_of_redis_that_came_late(redis_server: Redis) -> None:
    """The instant has come with it: there was no time to check whether all calls before it were reported."""
    async with Proxy.before(redis_server.port) as proxy:
        client = connect(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=5)
        try:
            budget, calls = Budget(Ledger(client, "far:1")), [charge(1)]
            first = await budget.acquire(calls, max_wait_s=1)
            proxy.delay_s = 0.05
            second = await budget.acquire(calls, max_wait_s=30)
            assert isinstance(first, Grant)
            assert isinstance(second, Grant)
            assert second.at_us >= first.at_us + 3_000_000
        finally:
            await client.aclose()


async def test_a_call_without_an_answer_may_still_be_on_its_way(clocked: Clocked) -> None:
    """Its room stays taken as long as that of a call whose worker died: what was written may still arrive."""
    calls, budget = [charge(1)], clocked.budget
    first, second = await clocked.granted(calls), await clocked.granted(calls)
    due_us = second.at_us - START_US
    await clocked.at(due_us)
    far_us = teach(budget)
    left_s = clock_s()
    budget.unanswered(calls, replace(first, early_s=left_s - due_us / 1e6), left_s)
    await asyncio.sleep(far_us / 1e6 + 0.1)  # as far as calls spread
    for look in range(1, 4):
        second = await clocked.again(calls, second)
        assert (second.at_us, second.sure) == (START_US + due_us + look * 60_000, False)
        await clocked.at(due_us + look * 60_000)
    await clocked.at(3_100_000)
    assert (await clocked.again(calls, second)).at_us == START_US + 3_100_000


async def test_a_call_without_an_answer_is_reported_to_long_windows_when_it_has_arrived(clocked: Clocked) -> None:
    calls, budget = [charge(1, window_s=60)], clocked.budget
    first = await clocked.granted(calls)
    teach(budget)
    left_s = clock_s()
    budget.unanswered(calls, replace(first, early_s=left_s - 1), left_s)  # a second late

    async def told() -> bool:
        refusal = await budget.reserve(calls, max_wait_s=1)
        assert isinstance(refusal, Refusal)
        return refusal.wait_s >= 61 + MARGIN_US / 1e6

    await wait_until(told, "the first has arrived")


async def test_a_worker_that_measured_nothing_waits_longest_for_a_call_without_an_answer(clocked: Clocked) -> None:
    calls, budget = [charge(1, window_s=60)], clocked.budget
    first = await clocked.granted(calls)
    left_s = clock_s()
    budget.unanswered(calls, replace(first, early_s=left_s - 1), left_s)
    await asyncio.sleep(0.1)
    refusal = await budget.reserve(calls, max_wait_s=1)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_s == 60 + MARGIN_US / 1e6


async def test_a_late_call_is_moved_and_keeps_its_room(clocked: Clocked) -> None:
    calls = [charge(10, window_s=60), charge(5, window_s=60, kind="fixed", key="f")]
    out = [await clocked.granted(calls) for _ in range(4)]
    for now_us in range(0, 5_000_000, 1_000_000):
        await clocked.at(now_us)
        out[0] = await clocked.again(calls, out[0], lead_us=200_000)
        assert out[0].at_us == START_US + now_us + 200_000
    assert isinstance(await clocked.budget.reserve(calls, max_wait_s=1), Grant)
    assert isinstance(await clocked.budget.reserve(calls, max_wait_s=1), Refusal)


async def test_a_call_that_is_hardly_late_keeps_its_instant(clocked: Clocked) -> None:
    """So small a delay need not be reported: to move many grants would cost Redis much more."""
    calls = [charge(3)]
    out = [await clocked.granted(calls) for _ in range(4)]
    for grant in out[:3]:
        await clocked.budget.arrived(calls, grant, 0)
    due_us = out[3].at_us - START_US
    await clocked.at(due_us + LEAST_MARGIN_US)
    same = await clocked.again(calls, out[3])
    assert (same.at_us, same.delay_us) == (out[3].at_us, -LEAST_MARGIN_US)
    await clocked.at(due_us + LEAST_MARGIN_US + 1)
    assert (await clocked.again(calls, out[3])).at_us == START_US + due_us + LEAST_MARGIN_US + 1
    limit = Bucket(name="p", amount=1, window_s=1, kind="paced", margin_ms=0, source="")
    paced = [Charge(limit, 1, "p")]
    first = await clocked.granted(paced)
    await clocked.at(first.at_us - START_US + 1)
    assert (await clocked.again(paced, first)).at_us == first.at_us + 1


async def test_a_call_that_is_late_by_a_window_reserves_again(clocked: Clocked) -> None:
    """Others checked for the last time before, and leave for the room that it had left by then."""
    calls = [charge(1, window_s=10)]
    first, second = await clocked.granted(calls), await clocked.granted(calls)
    await clocked.at(second.at_us - START_US - 10_000)
    assert (await clocked.again(calls, second)).at_us == second.at_us
    first = await clocked.again(calls, first)
    assert first.at_us == second.at_us + 10_000_000 + MARGIN_US


async def test_room_that_is_given_back_goes_to_another_call(clocked: Clocked) -> None:
    kinds: tuple[Kind, ...] = ("rolling", "fixed", "decaying")
    for kind in kinds:
        calls = [charge(2, window_s=60, kind=kind, key=kind)]
        out = [await clocked.granted(calls) for _ in range(2)]
        await clocked.budget.back(calls, out[0])
        # Without the first one, a level would have been at zero until the second was granted.
        later_us = out[1].delay_us if kind == "decaying" else 0
        assert (await clocked.granted(calls)).delay_us == out[1].delay_us + later_us, kind
        third = await clocked.granted(calls)
        assert third.delay_us > 1_000_000
        # The time it has is over.
        assert isinstance(await clocked.budget.again(calls, third, max_wait_s=0.5), Refusal)
        assert (await clocked.granted(calls)).at_us == third.at_us, kind


async def test_a_forgotten_reservation_may_leave_in_time_and_not_later(clocked: Clocked) -> None:
    calls = [charge(3, window_s=60)]
    out = [await clocked.granted(calls) for _ in range(3)]
    await clocked.client.flushdb()
    await clocked.at(0)
    await clocked.budget.back(calls, out[1])
    await clocked.budget.arrived(calls, out[1], 500_000)
    assert (await clocked.again(calls, out[2])).at_us == out[2].at_us
    # Asked for anew: whatever was handed out before counts until a window after the last of it.
    anew = await clocked.budget.again(calls, out[2], max_wait_s=1, lead_us=300_000)
    assert isinstance(anew, Refusal)
    assert anew.wait_s > LONG_S


async def test_a_forgotten_reservation_of_a_short_window_does_not_leave(clocked: Clocked) -> None:
    calls = [charge(2, window_s=1)]
    first, _, third = [await clocked.granted(calls) for _ in range(3)]
    await clocked.client.flushdb()
    await clocked.at(500_000)
    # Nobody knows of it any more, and so nobody can make room for it.
    await clocked.budget.arrived(calls, first, 400_000)
    refused = await clocked.budget.again(calls, third, max_wait_s=1)
    assert isinstance(refused, Refusal)
    assert refused.wait_s > LONG_S


async def test_a_pause_is_waited_for_or_refused(clocked: Clocked) -> None:
    calls = [charge(1)]
    await clocked.granted(calls)
    second = await clocked.granted(calls)
    await clocked.budget.pause(30, "429")
    refused = await clocked.budget.again(calls, second, max_wait_s=2)
    assert isinstance(refused, Refusal)
    assert refused.reason == "paused"
    assert 29 < refused.wait_s <= 31


@settings(
    max_examples=settings().max_examples * 2 // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
async def test_arrivals_stay_within_the_limit_whichever_call_is_late(redis_url: str, seed: int) -> None:
    """Callers reserve, check again, leave late or not at all. Arrivals are counted over every window."""
    chance = random.Random(seed)
    client: Any = connect(redis_url, timeout_s=5)
    await client.flushdb()
    try:
        await arrive(Clocked(client), chance)
    finally:
        await client.aclose()


async def arrive(clocked: Clocked, chance: random.Random) -> None:
    amounts = [(chance.randint(1, 6), chance.choice([0.5, 1.0, 2.0])) for _ in range(chance.randint(1, 2))]
    shortest_us = int(min(window_s for _, window_s in amounts) * 1e6)
    number = itertools.count()
    events: list[tuple[int, int, str, list[Charge], Any]] = []
    arrivals: list[tuple[int, list[Charge]]] = []

    def then(at_us: int, what: str, calls: list[Charge], grant: Any = None) -> None:
        heapq.heappush(events, (at_us, next(number), what, calls, grant))

    now_us = 0
    for _ in range(60):
        now_us += chance.choice([0, 0, chance.randrange(400_000)])
        calls = [
            charge(amount, window_s=window_s, cost=chance.choice([1, 1, 1, chance.randint(1, amount)]), key=f"b{n}")
            for n, (amount, window_s) in enumerate(amounts)
        ]
        then(now_us, "ask", calls)
    while events:
        now_us, _, what, calls, grant = heapq.heappop(events)
        await clocked.at(now_us)
        if what == "ask":
            grant = await clocked.granted(calls)
            then(grant.at_us - START_US, "leave", calls, grant)
        elif what == "leave" and chance.random() < 0.05:
            await clocked.budget.back(calls, grant)
        elif what == "leave":
            lead_us = chance.choice([0, 0, 0, chance.randrange(1, shortest_us)])
            moved = await clocked.again(calls, grant, lead_us=lead_us)
            if moved.at_us > grant.at_us:
                then(moved.at_us - START_US, "leave", calls, moved)
                continue
            late_us = chance.choice([0, 0, MARGIN_US, chance.randrange(shortest_us // 2)])
            heard = chance.random() < 0.9
            if not heard:  # its caller gave up before it came
                await clocked.budget.arrived(calls, grant, chance.randint(0, late_us), answered=False)
            then(now_us + late_us, "arrive", calls, (grant, late_us, heard))
        else:
            grant, late_us, heard = grant
            arrivals.append((now_us, calls))
            if heard:
                await clocked.budget.arrived(calls, grant, late_us)
    for n, (amount, window_s) in enumerate(amounts):
        for start_us, _ in arrivals:
            window = [calls[n].cost for at_us, calls in arrivals if start_us <= at_us < start_us + window_s * 1e6]
            assert sum(window) <= amount


@settings(
    max_examples=settings().max_examples * 2 // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
async def test_instants_stay_within_a_window_without_a_margin_however_late_the_callers_are(
    redis_url: str, seed: int
) -> None:
    """A busy process may look again seconds after the instant, when others that were granted later have left."""
    chance = random.Random(seed)
    client: Any = connect(redis_url, timeout_s=5)
    await client.flushdb()
    try:
        await leave_late(Clocked(client), chance)
    finally:
        await client.aclose()


async def leave_late(clocked: Clocked, chance: random.Random) -> None:
    amount = chance.randint(1, 6)
    calls = [charge(amount, margin_ms=0)]
    number = itertools.count()
    events: list[tuple[int, int, Grant | None]] = []
    left: list[int] = []
    now_us = 0
    for _ in range(60):
        now_us += chance.choice([0, 0, chance.randrange(400_000)])
        heapq.heappush(events, (now_us, next(number), None))
    while events:
        now_us, _, grant = heapq.heappop(events)
        await clocked.at(now_us)
        if grant is None:
            grant = await clocked.granted(calls)
        elif (moved := await clocked.again(calls, grant)).at_us == grant.at_us:
            left.append(grant.at_us)
            continue
        else:
            grant = moved
        late_us = chance.choice([0, 0, 0, chance.randrange(5_000_000)])
        heapq.heappush(events, (max(now_us, grant.at_us - START_US) + late_us, next(number), grant))
    for start_us in left:
        assert sum(start_us <= at_us < start_us + 1_000_000 for at_us in left) <= amount
