"""What the benchmarks of a whole fleet stand on: servers for all of them, and a fleet with its simulator for each."""

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from deploy.local import Service, Services, simulated
from deploy.processes import ProcessError
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from schemas.runtime.store import connect

from .client import Client

EXCHANGES: Final = ("binance", "okx", "htx", "coinbase", "kraken")
OPEN_TIMEOUT_S: Final = 180.0


class Stage(Struct, frozen=True):
    """A fleet at work on a simulator."""

    url: str
    rabbitmq: RabbitMQ
    redis: Redis
    simulator: Simulator
    fleet: Services
    client: Client


class Servers:
    """RabbitMQ and Redis of a run; each fleet gets a virtual host of its own and an empty Redis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rabbitmq = RabbitMQ(folder / "rabbitmq")
        self.redis = Redis(folder / "redis")
        self._numbers = itertools.count()

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls) -> AsyncGenerator["Servers"]:
        """Starts both; ends them and removes what they wrote."""
        with tempfile.TemporaryDirectory(prefix="ccxt-fleet-bench-") as folder:
            servers = cls(Path(folder))
            async with servers.rabbitmq, servers.redis:
                yield servers

    @contextlib.asynccontextmanager
    async def stage(
        self,
        exchanges: Sequence[str] = EXCHANGES,
        *,
        dispatchers: int = 1,
        workers: int = 1,
        processes: int | None = None,
        weights: Mapping[str, float] | None = None,
        config: Mapping[str, Any] | None = None,
        simulator_words: Sequence[str] = (),
        lanes: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> AsyncGenerator[Stage]:
        """Starts a fleet and a simulator of these exchanges; yields when all workers have opened all lanes.

        Args:
            exchanges: which.
            dispatchers: how many.
            workers: how many.
            processes: how many processes each worker is, with one parent; None for a worker alone.
            weights: the lanes' weights; 1 where none is given.
            config: the parts of the configuration beside the lanes.
            simulator_words: further words of the simulator's command line.
            lanes: makes the lanes of those that there would be.
        """
        name = f"bench{next(self._numbers)}"
        await self.rabbitmq.ctl("add_vhost", name)
        await self.rabbitmq.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        url = f"{self.rabbitmq.url}{name}"
        async with connect(self.redis.url, timeout_s=5) as redis:
            await redis.flushall()
        async with contextlib.AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(Simulator(exchanges=list(exchanges), arguments=simulator_words))
            base = simulated(simulator.urls, weights)
            fleet = Services(
                self.folder / name,
                {"lanes": lanes(base["lanes"]), **(config or {})},
                broker_url=url,
                redis_url=self.redis.url,
                dispatchers=dispatchers,
                workers=workers,
                processes=processes,
            )
            await stack.enter_async_context(fleet)
            for worker in fleet.workers:
                await opened(fleet, worker)
            client = await stack.enter_async_context(Client.on(url))
            yield Stage(url, self.rabbitmq, self.redis, simulator, fleet, client)
        await self.rabbitmq.ctl("delete_vhost", name)


async def opened(fleet: Services, worker: Service) -> None:
    """Returns when the worker has opened all lanes; until then it loads markets out of the same budgets."""
    give_up_s = time.monotonic() + OPEN_TIMEOUT_S
    processes = [()] if fleet.processes is None else [(str(each),) for each in range(1, fleet.processes + 1)]
    while True:
        seen = await worker.metrics()
        if all(seen.get(("fleet_lane_open", *process, lane)) for process in processes for lane in fleet.lanes):
            return
        if time.monotonic() > give_up_s or not worker.running:
            raise ProcessError(f"{worker.name} did not open all lanes; the end of {worker.log}:\n{worker.tail()}")
        await asyncio.sleep(0.1)
