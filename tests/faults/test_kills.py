"""Kills, stops and restarts under a steady load cost no request and break no limit."""

import asyncio
import signal
from collections.abc import AsyncIterator
from functools import partial

import pytest

from deploy.local import Service
from tests.faults.load import Load
from tests.support.fleet import Stand, opened, wait_until

REQUESTS = 100
# When the fault comes, with more still to be sent.
BEFORE = 25


@pytest.fixture
async def load(stand: Stand) -> AsyncIterator[Load]:
    """A producer for this test alone: results left by earlier tests are gone."""
    results = await stand.client.channel.get_queue("fleet.results", ensure=False)
    await results.purge()
    # Attempts take a while, so that there are some in flight whenever something is killed.
    for exchange in ("binance", "okx", "htx"):
        await stand.simulator.fault(exchange, latency_ms=200)
    async with Load.on(stand.url, stand.fleet.lanes) as load:
        yield load


async def test_a_killed_worker_loses_nothing(stand: Stand, load: Load) -> None:
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    worker = stand.fleet.workers[0]

    async def holds_some() -> bool:
        seen = await worker.metrics()
        return sum(value for key, value in seen.items() if key[0] == "fleet_attempts_in_flight") > 2

    await wait_until(holds_some, "attempts in flight")
    worker.kill()
    await running
    assert not load.errors, load.errors[:3]


async def test_a_killed_dispatcher_loses_nothing_until_it_is_started_again(stand: Stand, load: Load) -> None:
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    dispatcher = stand.fleet.dispatchers[0]
    dispatcher.kill()
    held = len(load.sent)
    await wait_until(lambda: len(load.sent) > held + 20, "requests wait for a dispatcher")
    dispatcher.start()
    await running
    assert not load.errors, load.errors[:3]


async def serves(service: Service) -> bool:
    """Whether its port says ready. Lanes need not be healthy, as slow as they are made here."""
    return (await service.ask("readyz"))[0] == 200


async def test_another_dispatcher_goes_on_for_one_that_is_killed(stand: Stand, load: Load) -> None:
    other = stand.fleet.add_dispatcher()
    try:
        await wait_until(partial(serves, other), "it serves")
        running = asyncio.create_task(load.run(REQUESTS))
        await load.answered(BEFORE)
        stand.fleet.dispatchers[0].kill()
        await running
        assert not load.errors, load.errors[:3]
        stand.fleet.dispatchers[0].start()
        await wait_until(partial(serves, stand.fleet.dispatchers[0]), "the first serves again")
    finally:
        stand.fleet.dispatchers.remove(other)
        await other.stop(grace_s=20)
    assert other.exit_code == 0, other.tail()


@pytest.mark.parametrize("kind", ["worker", "dispatcher"])
async def test_a_stopped_service_finishes_first(stand: Stand, load: Load, kind: str) -> None:
    service = stand.fleet.workers[0] if kind == "worker" else stand.fleet.dispatchers[0]
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    service.send(signal.SIGTERM)
    assert await service.wait(timeout_s=30) == 0, service.tail()
    service.start()
    await running
    await opened(stand.fleet)
    assert not load.errors, load.errors[:3]
    assert load.duplicates == 0


async def test_a_worker_that_is_stopped_in_a_hang_hands_its_attempts_to_another(stand: Stand, load: Load) -> None:
    for exchange in stand.fleet.lanes:
        await stand.simulator.fault(exchange, latency_ms=1_000)
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    stand.fleet.workers[0].send(signal.SIGINT)
    assert await stand.fleet.workers[0].wait(timeout_s=30) == 0, stand.fleet.workers[0].tail()
    await running
    assert not load.errors, load.errors[:3]
    assert load.duplicates == 0


async def test_a_killed_redis_stops_nothing_for_good(stand: Stand, load: Load) -> None:
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    stand.redis.kill()
    held = len(load.sent)
    await wait_until(lambda: len(load.sent) > held + 30, "requests while Redis is away")
    await stand.redis.start()
    await running
    assert not load.errors, load.errors[:3]
    assert load.duplicates == 0


async def test_a_frozen_redis_stops_nothing_for_good(stand: Stand, load: Load) -> None:
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    stand.redis.freeze()
    held = len(load.sent)
    await wait_until(lambda: len(load.sent) > held + 40, "requests while Redis is frozen")
    stand.redis.thaw()
    await running
    assert not load.errors, load.errors[:3]
    assert load.duplicates == 0


async def test_a_killed_broker_loses_nothing(stand: Stand, load: Load) -> None:
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    stand.rabbitmq.kill()
    await stand.rabbitmq.start()
    await running
    assert not load.errors, load.errors[:3]
    assert all(service.running for service in stand.services)
