"""Limits that are a level: what leaves is within them, whichever call stands still, is moved or goes back."""

import asyncio
import heapq
import itertools
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.runtime.store import connect
from tests.integration.test_budget_turns import START_US, Clocked
from tests.support.lines import most
from workers.budget.budget import Budget
from workers.budget.grants import Grant
from workers.budget.ledger import Ledger
from workers.budget.membership import Membership
from workers.budget.rules import PRESENT_S
from workers.limits.costs import Bucket, Charge, Kind

pytestmark = pytest.mark.both_stores


@settings(
    max_examples=settings().max_examples * 2 // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(["decaying", "paced"]),
    amount=st.sampled_from([1, 2, 5, 15]),
    margin_ms=st.sampled_from([0.0, 50.0]),
    heavy=st.booleans(),
    seed=st.integers(0, 2**32),
)
@example(kind="paced", amount=1, margin_ms=0.0, heavy=False, seed=0)
async def test_a_level_holds_whichever_call_stands_still_or_goes_back(
    redis_url: str, kind: Kind, amount: int, margin_ms: float, heavy: bool, seed: int
) -> None:
    """Calls that stood still together would leave together, and room that goes back may be of a time that is over."""
    client: Any = connect(redis_url, timeout_s=5)
    await client.flushdb()
    try:
        limit = Bucket(name="b", kind=kind, amount=amount, window_s=1, margin_ms=margin_ms, source="")
        left = await leave_or_go_back(Clocked(client), limit, random.Random(seed), heaviest=amount if heavy else 1)
        assert most(limit, left) <= 1 + 1e-3  # instants are whole microseconds, and costs whole thousandths
    finally:
        await client.aclose()


async def test_a_late_call_whose_limit_is_set_aside_moves_no_level(redis_url: str) -> None:
    """A worker that stood still counts as away itself, with all of the limit, until Redis has heard it again."""
    client: Any = connect(redis_url, timeout_s=5)
    charges = [Charge(Bucket(name="b", kind="decaying", amount=15, window_s=45, source=""), 1, "b")]
    budget = Budget(Ledger(client, "x:1", member=Membership()))
    try:
        for _ in range(2):  # the second says that it heard the first's answer
            await budget.beat()
        grant = await budget.reserve(charges, max_wait_s=1)
        assert isinstance(grant, Grant)
        await asyncio.sleep(2 * PRESENT_S)
        again = await budget.again(charges, grant, max_wait_s=1, lead_us=1)
        if isinstance(again, Grant):
            await budget.back(charges, again)
        for _ in range(3):
            await budget.beat()
        grant = await budget.reserve(charges, max_wait_s=1)
        assert isinstance(grant, Grant), grant
        assert grant.delay_us <= 0
    finally:
        await budget.leave()
        await client.aclose()


async def test_calls_that_come_within_the_margin_take_nothing_from_a_level(redis_url: str) -> None:
    """Its margin is kept free for them. Were they reported, each would take as much of it as it was late."""
    client: Any = connect(redis_url, timeout_s=5)
    late_us, last_us = 40_000, list[int]()
    charges = [Charge(Bucket(name="b", kind="decaying", amount=15, window_s=1.5, margin_ms=50, source=""), 1, "b")]
    try:
        for told in (False, True):
            await client.flushdb()
            clocked, last = Clocked(client), 0
            await clocked.at(0)
            for _ in range(100):
                grant = await clocked.granted(charges)
                last = grant.at_us
                await clocked.at(last - START_US + late_us)
                if told and late_us > grant.margin_us:
                    await clocked.budget.arrived(charges, grant, late_us)
            last_us.append(last)
        assert last_us[0] == last_us[1]
    finally:
        await client.aclose()


async def leave_or_go_back(
    clocked: Clocked, limit: Bucket, chance: random.Random, heaviest: int
) -> list[tuple[int, float]]:
    number = itertools.count()
    events: list[tuple[int, int, str, list[Charge], Any]] = []
    left: list[tuple[int, float]] = []

    def then(at_us: int, what: str, calls: list[Charge], grant: Any = None) -> None:
        heapq.heappush(events, (at_us, next(number), what, calls, grant))

    asked_us = 0
    for _ in range(60):
        asked_us += chance.choice([0, 0, 0, chance.randrange(200_000), chance.randrange(1_500_000)])
        then(asked_us, "ask", [Charge(limit, chance.randint(1, heaviest), "b")])
    still_until_us = 0
    while events:
        now_us, _, what, calls, grant = heapq.heappop(events)
        if now_us < still_until_us:
            then(still_until_us, what, calls, grant)
            continue
        if chance.random() < 0.05:
            still_until_us = now_us + chance.randrange(3_000_000)
        await clocked.at(now_us)
        if what == "ask":
            grant = await clocked.granted(calls)
            due_us = grant.at_us - START_US
            if chance.random() < 0.15:
                then(chance.randint(now_us, due_us + 300_000), "back", calls, grant)
            else:
                then(due_us, "leave", calls, grant)
        elif what == "back":
            await clocked.budget.back(calls, grant)
        else:
            moved = await clocked.again(calls, grant)
            if moved.at_us - START_US > now_us:
                then(moved.at_us - START_US, "leave", calls, moved)
            else:
                left.append((now_us, calls[0].cost))
    return left
