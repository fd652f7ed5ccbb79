"""A worker with many accounts at one address while Redis is away: they have its one part of a limit together."""

import random
from functools import partial
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.runtime.store import connect
from tests.integration.test_redis_lost_model import NAPS_FROM, buckets, play
from tests.support.lines import Simulated, begun, most, saturate
from tests.support.spenders import MARGIN_MS
from workers.limits.costs import Bucket, Charge


@settings(
    max_examples=settings().max_examples // 7,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chosen=buckets(), workers=st.integers(1, 4), accounts=st.integers(1, 5), seed=st.integers(0, 2**32))
async def test_no_limit_is_passed_by_workers_with_many_accounts(
    redis_url: str, chosen: list[Bucket], workers: int, accounts: int, seed: int
) -> None:
    """All accounts of a worker have its one part together."""
    client: Any = connect(redis_url, timeout_s=5)
    try:
        dead = set[str]()
        with patch("workers.budget.membership._is_dead", dead.__contains__):
            await play(client, chosen, workers, random.Random(seed), dead, naps=seed >= NAPS_FROM, accounts=accounts)
    finally:
        await client.aclose()


async def test_a_worker_with_many_accounts_is_one_of_those_that_share_a_limit(redis_url: str) -> None:
    """The other one keeps its half of the limit, and uses it: the accounts have the other half together."""
    async with connect(redis_url, timeout_s=5) as client:
        net = await begun(client, random.Random(0))
        limit = Bucket(name="b", kind="rolling", amount=20, window_s=5, margin_ms=MARGIN_MS, source="")
        calls, sent = [Charge(limit, 1, "b")], list[tuple[Simulated, int]]()
        fleet = [Simulated(net, 64), Simulated(net)]

        live = partial(saturate, net, fleet, calls, sent)
        await live(10)
        for worker in fleet:
            worker.line.state = "cut"
        lost_us = net.now_us
        await live(200)
        assert [worker.budget.own_part for worker in fleet] == [0.5, 0.5]
        assert most(limit, [(at, 1.0) for _, at in sent]) <= 1 + 1e-9
        by_each = [[(at, 1.0) for who, at in sent if who is worker and at > lost_us] for worker in fleet]
        assert [most(limit, spent) for spent in by_each] == [0.5, 0.5]
        for worker in fleet:
            worker.line.state = "good"
        await live(100)
        assert [worker.budget.own_part for worker in fleet] == [None, None]
        assert most(limit, [(at, 1.0) for _, at in sent]) <= 1 + 1e-9
