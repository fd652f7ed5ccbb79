"""Workers that share out the lanes by themselves: whichever comes, dies or leaves, nothing is lost, no limit broken."""

import asyncio
import signal
import tomllib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from deploy.local import Service, Services, simulated
from deploy.redis_servers import RedisCluster
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from tests.conftest import new_vhost
from tests.faults.load import Load
from tests.support.fleet import QUICK, wait_until

LANES = 12
SPREAD = 2
# By exchange, how many workers serve each lane: Binance's limits can use more.
COUNTS = {"coinbase": SPREAD, "binance": 3}
PART = 150  # requests, in each of which something happens


@pytest.fixture
async def shared(
    rabbitmq: RabbitMQ, vhost_numbers: Iterator[int], tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[str, Services]]:
    """Yield RabbitMQ's URL and a fleet of three workers and twelve lanes, each of which two or three workers serve."""
    url = await new_vhost(rabbitmq, vhost_numbers)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(request.param(tmp_path / "redis"))
        simulator = await stack.enter_async_context(Simulator(exchanges=["coinbase", "binance"]))
        lanes: dict[str, Any] = {}
        for exchange, lane in simulated(simulator.urls)["lanes"].items():
            for number in range(1, LANES // 2 + 1):
                lanes[f"{exchange}.n{number}"] = {**lane, "local_addr": f"127.3.0.{number}"}
        config = {**QUICK, "lanes": lanes, "worker": {**QUICK["worker"], "spread": SPREAD}}
        fleet = Services(tmp_path, config, broker_url=url, redis_url=redis.url, workers=3)
        await stack.enter_async_context(fleet)
        yield url, fleet
        assert not (await simulator.counters())["violations"]


async def open_at(worker: Service) -> set[str]:
    """The lanes that a worker serves."""
    return {each["lane"] for each in (await worker.status()).get("lanes", ()) if each["open"]}


async def shared_out(fleet: Services, workers: int) -> None:
    """Returns when so many workers are there, and each lane is served by as many of them as it should."""

    async def done() -> bool:
        running = [worker for worker in fleet.workers if worker.running]
        served = [await open_at(worker) for worker in running]
        counts = Counter(lane for lanes in served for lane in lanes)
        ready = all([(await worker.ask("readyz"))[0] == 200 for worker in running])
        return (
            ready
            and len(running) == workers
            and (all(served) or len(fleet.lanes) < workers)
            and counts == {lane: min(COUNTS[lane.partition(".")[0]], workers) for lane in fleet.lanes}
        )

    await wait_until(done, f"{workers} workers have shared out the lanes", timeout_s=90, every_s=0.2)


@pytest.mark.parametrize("shared", [RedisCluster], indirect=True)
async def test_nothing_is_lost_as_workers_come_die_and_leave(shared: tuple[str, Services]) -> None:
    url, fleet = shared
    await shared_out(fleet, 3)
    first, second, _ = fleet.workers

    async def while_asked(load: Load, change: Any, workers: int) -> None:
        running = asyncio.create_task(load.run(PART))
        await load.answered(len(load.results) + PART // 5)
        change()
        await running
        await shared_out(fleet, workers)

    async with Load.on(url, fleet.lanes) as load:
        await while_asked(load, first.kill, 2)
        await while_asked(load, fleet.add_worker, 3)
        await while_asked(load, lambda: second.send(signal.SIGTERM), 2)
        assert await second.wait(timeout_s=40) == 0
        await while_asked(load, fleet.add_worker, 3)
        assert not load.errors, load.errors[:3]
        assert len(load.results) == 4 * PART
    handed = [worker.log.read_text().count("lane_handed_over") for worker in fleet.workers]
    assert any(handed), handed


@pytest.mark.parametrize("shared", [Redis], indirect=True)
async def test_more_workers_than_lanes_stand_by_and_are_ready(shared: tuple[str, Services]) -> None:
    _, fleet = shared
    config = tomllib.loads(fleet.config_file.read_text())
    config["lanes"] = {"coinbase.n1": config["lanes"]["coinbase.n1"]}
    fleet.config_file.write_text(tomli_w.dumps(config))
    fleet.lanes = ["coinbase.n1"]
    await shared_out(fleet, 3)
