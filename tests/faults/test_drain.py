"""A process that is stopped loses nothing, however often it gets the signal. Workers come and go under load."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from schemas.runtime.processes import FORCED_EXIT
from tests.faults.load import Load
from tests.support.fleet import Stand, opened, wait_until

# Longer than a worker's grace, much shorter than what a request may wait: who is made to wait by a worker that leaves
# longer than its grace misses this.
WITHIN_MS = 20_000


@pytest.fixture
async def load(stand: Stand) -> AsyncIterator[Load]:
    results = await stand.client.channel.get_queue("fleet.results", ensure=False)
    await results.purge()
    async with Load.on(stand.url, stand.fleet.lanes) as load:
        yield load


async def test_a_second_signal_ends_a_service_at_once_and_loses_nothing(stand: Stand, load: Load) -> None:
    for exchange in stand.fleet.lanes:
        await stand.simulator.fault(exchange, latency_ms=1_000)
    running = asyncio.create_task(load.run(60))
    worker = stand.fleet.workers[0]

    async def holds_some() -> bool:
        seen = await worker.metrics()
        return sum(value for key, value in seen.items() if key[0] == "fleet_attempts_in_flight") > 2

    await wait_until(holds_some, "attempts in flight")
    worker.send(signal.SIGTERM)
    while worker.running:
        worker.send(signal.SIGTERM)
        await asyncio.sleep(0.05)
    assert worker.exit_code == FORCED_EXIT, worker.tail()
    await running
    assert not load.errors, load.errors[:3]


async def test_workers_come_and_go_and_no_request_is_lost_or_held_up(stand: Stand, load: Load) -> None:
    here, leaving = stand.fleet.workers
    await leaving.stop(grace_s=20)
    stand.fleet.workers.remove(leaving)
    running = asyncio.create_task(load.run(600, within_ms=WITHIN_MS))
    try:
        for _ in range(7):
            stand.fleet.add_worker()
        await opened(stand.fleet)
        grown = len(load.results)
        await load.answered(min(grown + 60, 500))
    finally:
        added = [worker for worker in stand.fleet.workers if worker is not here]
        await asyncio.gather(*(worker.stop(grace_s=20) for worker in added))
        stand.fleet.workers[:] = [here]
    assert [worker.exit_code for worker in added] == [0] * 7
    await running
    stand.fleet.workers.append(leaving)
    leaving.start()
    await opened(stand.fleet)
    assert not load.errors, load.errors[:3]
    assert load.duplicates == 0
