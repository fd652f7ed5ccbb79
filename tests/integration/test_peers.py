"""A worker that shares out the lanes says that it is there, whatever else it is busy with."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import tomli_w

from deploy.local import simulated
from deploy.simulator.process import Simulator
from schemas.config import load
from schemas.runtime import store
from schemas.runtime.tasks import end_tasks
from tests.support.fleet import QUICK, wait_until
from workers.part import ALL
from workers.peers import GONE_LOOKS, LOOK_EVERY_S, Peers
from workers.service import Worker


async def _follow() -> None:
    await asyncio.Event().wait()


async def test_it_is_there_while_its_lanes_change_and_its_connections_are_taken(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(exchanges=["okx"]))
        file = tmp_path / "fleet.toml"
        config = {**simulated(simulator.urls), **QUICK, "worker": {**QUICK["worker"], "spread": 1}}
        file.write_text(tomli_w.dumps(config), encoding="utf-8")
        worker: Any = Worker(load(file, {"FLEET_BROKER_URL": vhost, "FLEET_REDIS_URL": redis_url}))
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop, _follow))
        stack.push_async_callback(end_tasks, [running])
        await wait_until(lambda: worker._begun, "the worker serves its lanes")
        async with store.connect(redis_url, timeout_s=1.0) as client, worker._changing:
            other = Peers(client, "other", ALL)
            pool = worker._redis.connection_pool
            taken = [await pool.get_connection() for _ in range(pool.max_connections)]
            for _ in range(GONE_LOOKS + 3):
                assert worker.name in await other.look(())
                await asyncio.sleep(LOOK_EVERY_S)
            for connection in taken:
                await pool.release(connection)
        stop.set()
        await asyncio.wait_for(running, 60)
