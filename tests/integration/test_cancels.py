"""What a service does beside its requests, cancelled at each of its waits: it ends, and what it used can be used again.

A service that is told to stop cancels all of this, at whatever moment that is.
"""

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from dispatcher import snapshot
from schemas import topology
from schemas.runtime.once import Answered
from schemas.runtime.store import connect
from schemas.runtime.tasks import end_tasks
from tests.support.broker import connected
from tests.support.cancels import awaited, cancelled_everywhere, cancelled_once
from tests.support.fleet import wait_until
from tests.support.routers import attempt, new
from tests.support.spenders import CALL
from workers.budget.budget import Budget
from workers.budget.ledger import Ledger
from workers.budget.membership import Membership

# As many as `schemas.runtime.store.connect` opens at most.
CONNECTIONS = 16


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = connect(redis_url, timeout_s=10)
    yield client
    await client.aclose()


async def test_a_budget(client: redis.asyncio.Redis, redis_url: str) -> None:
    budget = Budget(Ledger(client, "x:1", member=Membership()))
    await budget.beat()

    async def look() -> None:
        await budget.usage()
        await budget.paused()

    async def works() -> None:
        await budget.beat()
        assert budget.own_part is None

    async def acquire() -> None:
        await budget.acquire(CALL, max_wait_s=1.0)

    for job in (acquire, look, budget.share_trips, lambda: budget.follow(0.0005)):
        await cancelled_everywhere(job, works)
    await budget.leave()
    await all_connections_are_left(client, redis_url)


async def test_what_redis_keeps_beside_budgets(client: redis.asyncio.Redis, redis_url: str) -> None:
    answered, asked, lanes = Answered(client), attempt("okx"), new().health

    async def marks() -> None:
        await answered.by_another(asked)
        await answered.claim(asked)
        await answered.answered([answered.mark(asked)])

    async def keep() -> None:
        await snapshot.load(client, lanes, 0.0, 0)
        await snapshot.save(client, lanes, 0.0, 0)

    async def works() -> None:
        assert await client.ping()

    for job in (marks, keep):
        await cancelled_everywhere(job, works)
    await all_connections_are_left(client, redis_url)


async def test_one_cancellation_ends_a_command(client: redis.asyncio.Redis, redis_url: str) -> None:
    """Who hangs up cancels once: an order that went on would be sent with nobody to hear of it."""
    commands: Any = client
    await commands.set("a", "1")

    async def several() -> None:
        async with client.pipeline() as pipeline:
            queued: Any = pipeline
            queued.get("a").get("b")
            await pipeline.execute()

    for job in (lambda: awaited(commands.get("b")), several):
        await cancelled_once(job)
        assert await commands.get("a") == b"1"  # and no connection has another one's answer
    await all_connections_are_left(client, redis_url)


async def test_one_cancellation_ends_a_publish(vhost: str) -> None:
    async with connected(vhost) as broker:
        for silent_after_s in (None, 5.0):
            publisher = functools.partial(broker.publish, b"{}", topology.RETURNED, silent_after_s=silent_after_s)
            await cancelled_once(publisher)


async def all_connections_are_left(client: redis.asyncio.Redis, url: str) -> None:
    """None of them is taken for in use."""
    commands: Any = client
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(commands.blpop(["nothing"], 60)) for _ in range(CONNECTIONS)
    ]
    async with redis.asyncio.from_url(url) as other:

        async def all_wait() -> bool:
            found: Any = await other.info("clients")
            return bool(found["blocked_clients"] == CONNECTIONS)

        await wait_until(all_wait, "all connections are in use")
    await end_tasks(waiting)
