"""Limits that are a level: what leaves is within them, whichever call stands still, is moved or goes back."""

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
