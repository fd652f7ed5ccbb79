"""Services told to stop at any moment: ``python -m tests.faults.stops --seed 1 --rounds 100``.

Workers and dispatchers run in this process, on the loop that they have in production, so that a start costs little.
They reach RabbitMQ and Redis through proxies that are cut, frozen and slow at random, and Redis is frozen and
restarted. In the middle of that each is told to stop, and must end. A round in which one does not ends the run with 1,
and with where its tasks stand.
"""

import argparse
import asyncio
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

import aio_pika
import tomli_w
import uvloop

from deploy.local import simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from dispatcher.service import Dispatcher
from schemas import topology
from schemas.config import Config, load
from schemas.messages import Request, encode
from schemas.runtime import logs
from schemas.runtime.tasks import end_tasks
from tests.support.tcp_proxy import Proxy
from workers.service import Worker

WORKERS: Final = 3
GRACE_S: Final = 3.0
# The grace, and what a server that does not answer adds to it. A process is given 30 s by Kubernetes.
WITHIN_S: Final = 25.0
SETTINGS: Final = {
    "broker": {"heartbeat_s": 2, "timeout_s": 1.0},
    "dispatcher": {"grace_s": GRACE_S},
    "worker": {"http_timeout_s": 1.5, "grace_s": GRACE_S},
}


class Stage:
    """What the services stand on, and what happens to it."""

    def __init__(self, chance: random.Random, config: Config, redis: Redis, to_redis: Proxy, to_broker: Proxy) -> None:
        self.chance = chance
        self.config = config
        self._redis = redis
        self._to_redis = to_redis
        self._to_broker = to_broker

    @classmethod
    @asynccontextmanager
    async def up(cls, folder: Path, seed: int) -> AsyncGenerator[tuple[Self, RabbitMQ]]:
        """Everything started; logs go to the folder."""
        async with AsyncExitStack() as stack:
            rabbitmq = await stack.enter_async_context(RabbitMQ(folder / "rabbitmq"))
            redis = await stack.enter_async_context(Redis(folder / "redis"))
            simulator = await stack.enter_async_context(Simulator(seed, log=folder / "simulator.log"))
            to_redis = await stack.enter_async_context(Proxy.before(redis.port))
            to_broker = await stack.enter_async_context(Proxy.before(rabbitmq.port))
            file = folder / "fleet.toml"
            file.write_text(tomli_w.dumps({**simulated(simulator.urls), **SETTINGS}), encoding="utf-8")
            urls = {
                "FLEET_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{to_broker.port}/",
                "FLEET_REDIS_URL": f"redis://127.0.0.1:{to_redis.port}/0",
            }
            yield cls(random.Random(seed), load(file, urls), redis, to_redis, to_broker), rabbitmq

    async def disturb(self) -> None:
        """Lets something happen every quarter of a second, until it is cancelled; then all is well again."""
        try:
            while True:
                await self._happens()
                await asyncio.sleep(self.chance.uniform(0, 0.5))
        finally:
            for proxy in (self._to_redis, self._to_broker):
                proxy.thaw()
                proxy.delay_s = 0.0
            self._redis.thaw()

    async def _happens(self) -> None:
        chance = self.chance
        proxy = chance.choice([self._to_redis, self._to_redis, self._to_redis, self._to_broker])
        match chance.choice(["cut", "cut", "cut", "frozen", "slow", "stopped", "restarted", "busy", "busy"]):
            case "cut":
                proxy.cut()
            case "frozen":
                proxy.freeze()
                await asyncio.sleep(chance.uniform(0, 2))
                proxy.thaw()
            case "slow":
                proxy.delay_s = chance.choice([0.02, 0.2, 0.6])
                await asyncio.sleep(chance.uniform(0, 1))
                proxy.delay_s = 0.0
            case "stopped":
                self._redis.freeze()
                await asyncio.sleep(chance.uniform(0, 2))
                self._redis.thaw()
            case "restarted":
                await self._redis.restart()
            case _:  # a loop that has no turn for so long meets many things at the same moment
                time.sleep(chance.uniform(0, 0.3))  # noqa: ASYNC251

    async def round(self) -> list[str]:
        """Some services start, are disturbed, and told to stop; returns where those stand that don't end."""
        chance, config = self.chance, self.config
        services: list[Worker | Dispatcher] = [*(Worker(config) for _ in range(WORKERS)), Dispatcher(config)]
        stops = [asyncio.Event() for _ in services]
        running = [
            asyncio.create_task(service.run(stop, _follow), name=type(service).__name__)
            for service, stop in zip(services, stops, strict=True)
        ]
        await asyncio.sleep(chance.choice([0.2, 1.0, 2.0]))
        disturbing = asyncio.create_task(self.disturb())
        await asyncio.sleep(chance.uniform(0.0, 4.0))
        for stop in stops:
            await asyncio.sleep(chance.uniform(0, 0.3))
            stop.set()
        await asyncio.sleep(chance.uniform(0, 2))
        await end_tasks([disturbing])
        await asyncio.wait(running, timeout=WITHIN_S)
        errors = [error for task in running if task.done() and (error := task.exception()) is not None]
        if errors:
            raise ExceptionGroup("services ended with errors", [e for e in errors if isinstance(e, Exception)])
        return [_stack(task) for task in running if not task.done()]


async def _follow() -> None:
    await asyncio.Event().wait()


def _stack(task: asyncio.Task[None]) -> str:
    lines = [f"{frame.f_code.co_qualname}, line {frame.f_lineno}" for frame in task.get_stack()]
    return f"{task.get_name()}: {', '.join(lines)}"


async def _ask(rabbitmq: RabbitMQ, lanes: list[str]) -> None:
    """Publishes requests, so that there are attempts under way."""
    async with await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel()
        while True:
            for lane in lanes:
                request = Request(method="fetch_ticker", args={"symbol": "BTC/USDT"}, exchanges=[lane])
                await channel.default_exchange.publish(aio_pika.Message(encode(request)), topology.REQUESTS)
            await asyncio.sleep(0.1)


async def run(seed: int, rounds: int) -> int:
    """So many rounds; returns the exit code."""
    logs.setup()
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-stops-") as folder:
        async with Stage.up(Path(folder), seed) as (stage, rabbitmq):
            first = Dispatcher(stage.config)  # declares the queues
            stop = asyncio.Event()
            declaring = asyncio.create_task(first.run(stop, _follow))
            await asyncio.sleep(1.0)
            stop.set()
            await declaring
            asking = asyncio.create_task(_ask(rabbitmq, list(stage.config.lanes)))
            for number in range(rounds):
                if left := await stage.round():
                    print(f"seed {seed}, round {number}: not ended: {left}", flush=True)
                    os._exit(1)  # what does not end would hold this process up too
            await end_tasks([asking])
    print(f"seed {seed}: {rounds * (WORKERS + 1)} services were told to stop, and ended", flush=True)
    return 0


def main() -> int:
    """Runs `run` with what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.stops", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=100, help="four services in each")
    options = parser.parse_args()
    return uvloop.run(run(options.seed, options.rounds))


if __name__ == "__main__":
    sys.exit(main())
