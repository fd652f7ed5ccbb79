"""The chaos run: ``python -m tests.faults.chaos --seed 1`` (``make chaos SEED=1``).

A producer publishes requests at a steady rate while a schedule drawn from the seed kills, stops, freezes and restarts
every part of a fleet, cuts and delays its connections, takes exchanges down and puts bad messages into its queues. With
``--cluster`` RabbitMQ is three nodes, of which one at a time is hit.
Then every request must have its answer. If not, the seed, the schedule, the producer's record and all logs stay in one
folder, and the run says where.
"""

import argparse
import asyncio
import itertools
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

import aio_pika
import msgspec
import redis.asyncio as redis_client
from msgspec.structs import replace

from deploy.cluster import Cluster
from deploy.local import Service, Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.__main__ import VENUES
from deploy.simulator.process import Simulator
from schemas import topology
from schemas.messages import decode_letter
from schemas.runtime import logs
from schemas.runtime.results import now_ms
from tests.faults.asked import requests_of
from tests.faults.load import Load
from tests.faults.schedule import ALONE, KINDS, Fault, draw
from tests.faults.verdict import Happened, Verdict, judge
from tests.support.fleet import QUICK, opened, wait_until
from tests.support.redis_faults import ERRORS, answering, set_clock
from tests.support.tcp_proxy import Proxy

PER_S: Final = 40.0
FAULT_EVERY_S: Final = 4.0
FLAPS_EVERY_S: Final = 0.7
# Its limit is the only one that is a level, so it is asked for more than its share.
WEIGHTS: Final = {"coinbaseexchange": 3.0}
# What a service says at its end that began while Redis wanted another password.
REFUSED: Final = "it refuses our user or password"
CLOCK_SET_BY_US: Final = (10_000_000, -10_000_000, 500_000, -500_000)
# A request may wait for what is mended last, and its answer for a broker that boots.
ANSWERED_WITHIN_S: Final = 120.0
# A node that was given up starts afresh, and needs a while for its replicas on a busy machine.
WHOLE_WITHIN_S: Final = 120.0
# A queue that comes up before the default exchange keeps what expires in it, and RabbitMQ 3.10 looks again after 180 s
# (`dead_letter_worker_publisher_confirm_timeout`). Its log says "Cannot forward any dead-letter messages".
EMPTY_WITHIN_S: Final = 240.0

EXCHANGE_FAULTS: Final[dict[str, dict[str, object]]] = {
    "exchange_refuses": {"down": "refused"},
    "exchange_resets": {"down": "reset"},
    "exchange_hangs": {"hang": True},
    "exchange_fails": {"error_rate": 0.5},
    "exchange_answers_garbage": {"garbage": "truncated"},
    "exchange_in_maintenance": {"maintenance": True},
}


class World:
    """A fleet with all that it stands on, each part of which can be hurt; services reach the servers by proxies."""

    def __init__(
        self,
        rabbitmq: RabbitMQ | Cluster,
        redis: Redis,
        simulator: Simulator,
        fleet: Services,
        to_nodes: list[Proxy],
        to_redis: Proxy,
    ) -> None:
        self.cluster = rabbitmq if isinstance(rabbitmq, Cluster) else None
        self.nodes = _nodes(rabbitmq)
        self.redis = redis
        self.simulator = simulator
        self.fleet = fleet
        self.to_nodes, self.to_redis = to_nodes, to_redis
        self.happened: list[Happened] = []
        self.buried: list[str] = []
        self.bad_exits: list[str] = []
        self._bad_numbers = 0
        # A part that needs longer to come back than its fault was to last has its next fault after that.
        self._parts = {kind.part: asyncio.Lock() for kind in KINDS.values()}

    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path, seed: int, *, cluster: bool) -> AsyncGenerator[Self, None]:
        """Everything started, with two dispatchers and three workers; logs go to the folder."""
        async with AsyncExitStack() as stack:
            rabbitmq = (Cluster if cluster else RabbitMQ)(folder / "rabbitmq")
            await stack.enter_async_context(rabbitmq)
            redis = await stack.enter_async_context(Redis(folder / "redis"))
            simulator = await stack.enter_async_context(
                Simulator(seed, exchanges=list(VENUES), log=folder / "simulator.log")
            )
            to_nodes = [await stack.enter_async_context(Proxy.before(node.port)) for node in _nodes(rabbitmq)]
            to_redis = await stack.enter_async_context(Proxy.before(redis.port))
            fleet = Services(
                folder,
                {**simulated(simulator.urls, WEIGHTS), **QUICK},
                broker_url=",".join(f"amqp://guest:guest@127.0.0.1:{proxy.port}/" for proxy in to_nodes),
                redis_url=f"redis://127.0.0.1:{to_redis.port}/0",
                dispatchers=2,
                workers=3,
            )
            await stack.enter_async_context(fleet)
            await opened(fleet)
            await rabbitmq.sync()
            yield cls(rabbitmq, redis, simulator, fleet, to_nodes, to_redis)

    async def suffer(self, schedule: list[Fault]) -> None:
        """Lets everything happen when it is due; returns when all is mended."""
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                await asyncio.sleep(max(0.0, started_s + fault.at_s - time.monotonic()))
                group.create_task(self._happen(fault))

    async def end(self) -> None:
        """Stops the services, and remembers which of them did not end well."""
        for service in (*self.fleet.workers, *self.fleet.dispatchers):
            await _hears(service)
        await self.fleet.stop()
        for service in (*self.fleet.workers, *self.fleet.dispatchers):
            self._look_at_exit(service)

    async def left_over(self) -> dict[str, int]:
        """How many messages each queue of the fleet holds, less what is meant to stay, once all had time to end."""
        held: dict[str, int] = {}

        async def none_left() -> bool:
            held.clear()
            for line in (await self.nodes[0].ctl("list_queues", "name", "messages", "--no-table-headers")).splitlines():
                name, count = line.split()
                if name not in (topology.DEAD, topology.RESULTS) and int(count):
                    held[name] = int(count)
            return not held

        try:
            await wait_until(none_left, "queues are empty", timeout_s=EMPTY_WITHIN_S, every_s=0.5)
        except AssertionError:
            return held
        return {}

    async def unburied(self) -> list[str]:
        """The bad messages that are not in `fleet.dead`."""
        found: set[str] = set()
        async with await aio_pika.connect(self.nodes[0].url) as connection:
            channel = await connection.channel()
            dead = await channel.get_queue(topology.DEAD)
            while message := await dead.get(fail=False):
                found.add(decode_letter(message.body).body.decode(errors="replace"))
        return [body for body in self.buried if body not in found]

    async def _happen(self, fault: Fault) -> None:
        part = KINDS[fault.kind].part
        hurt = {
            "worker": self._worker,
            "dispatcher": self._dispatcher,
            "rabbitmq": self._rabbitmq,
            "network": self._network,
            "redis": self._redis,
            "exchange": self._exchange,
            "messages": self._messages,
        }
        async with self._parts[part]:
            began_ms = now_ms()
            print(f"{fault.at_s:7.1f} s  {fault.kind} for {fault.lasts_s} s", flush=True)
            await hurt[part](fault)
            self.happened.append(Happened(fault, began_ms, now_ms()))

    async def _worker(self, fault: Fault) -> None:
        await self._service(fault, self.fleet.workers)

    async def _dispatcher(self, fault: Fault) -> None:
        await self._service(fault, self.fleet.dispatchers)

    async def _service(self, fault: Fault, services: list[Service]) -> None:
        service = services[int(fault.draw * len(services))]
        if fault.kind.endswith("frozen"):
            service.freeze()
            await asyncio.sleep(fault.lasts_s)
            service.thaw()
            return
        if fault.kind.endswith("killed"):
            service.kill()
        else:
            await _hears(service)
            await service.stop(grace_s=40)
            self._look_at_exit(service)
        await asyncio.sleep(fault.lasts_s)
        service.start()

    def _look_at_exit(self, service: Service) -> None:
        if service.exit_code != 0:
            self.bad_exits.append(f"{service.name}: {service.exit_code}")

    async def _rabbitmq(self, fault: Fault) -> None:
        node = self.nodes[int(fault.draw * len(self.nodes))]
        match fault.kind.removeprefix("rabbitmq_"):
            case "leader_killed":
                assert self.cluster is not None
                leaders = [queue.leader for _, queue in sorted((await self.cluster.replicas()).items())]
                node = self.cluster.named(leaders[int(fault.draw * len(leaders))])
                await self._killed(node, fault.lasts_s)
            case "killed":
                await self._killed(node, fault.lasts_s)
            case "restarted":
                await node.stop()
                await asyncio.sleep(fault.lasts_s)
                await node.start()
            case _:  # frozen, given up
                node.freeze()
                await asyncio.sleep(fault.lasts_s)
                node.thaw()
        if self.cluster is not None:  # two nodes away at once are no majority
            await wait_until(self.cluster.whole, "all replicas take part", timeout_s=WHOLE_WITHIN_S, every_s=1)

    @staticmethod
    async def _killed(node: RabbitMQ, lasts_s: float) -> None:
        node.kill()
        await asyncio.sleep(lasts_s)
        await node.start()

    async def _network(self, fault: Fault) -> None:
        link = self.to_nodes[int(fault.draw * len(self.to_nodes))]
        match fault.kind.removeprefix("rabbitmq_"):
            case "cut_off":
                link.cut()
            case "slow":
                link.delay_s = 0.05 + 0.25 * fault.draw
                await asyncio.sleep(fault.lasts_s)
                link.delay_s = 0.0
            case _:  # unreachable
                link.freeze()
                await asyncio.sleep(fault.lasts_s)
                link.thaw()

    async def _redis(self, fault: Fault) -> None:
        server = self.redis
        match fault.kind.removeprefix("redis_"):
            case "killed":
                server.kill()
                await asyncio.sleep(fault.lasts_s)
                await server.start()
            case "restarted":
                await server.restart()
            case "emptied":
                async with redis_client.from_url(server.url) as client:
                    await client.flushall()
            case "frozen":
                server.freeze()
                await asyncio.sleep(fault.lasts_s)
                server.thaw()
            case "answers_errors":
                async with answering(server, ERRORS[int(fault.draw * len(ERRORS))]):
                    await asyncio.sleep(fault.lasts_s)
                for service in (*self.fleet.workers, *self.fleet.dispatchers):
                    _supervise(service)
            case "flaps":
                ends_s = time.monotonic() + fault.lasts_s
                while time.monotonic() < ends_s:
                    self.to_redis.cut()
                    await asyncio.sleep(FLAPS_EVERY_S)
            case "clock_set":
                by_us = CLOCK_SET_BY_US[int(fault.draw * len(CLOCK_SET_BY_US))]
                await set_clock(server.url, by_us)
                await asyncio.sleep(fault.lasts_s)
                await set_clock(server.url, 0, by_us)
            case _:  # cut off
                self.to_redis.cut()

    async def _exchange(self, fault: Fault) -> None:
        exchange = sorted(self.simulator.urls)[int(fault.draw * len(self.simulator.urls))]
        await self.simulator.fault(exchange, **EXCHANGE_FAULTS[fault.kind])
        await asyncio.sleep(fault.lasts_s)
        await self.simulator.clear(exchange)

    async def _messages(self, fault: Fault) -> None:
        """Puts what no consumer can read where each of them reads."""
        lane = self.fleet.lanes[int(fault.draw * len(self.fleet.lanes))]
        queues = (topology.REQUESTS, topology.BULK_REQUESTS, topology.RETURNED, topology.work_name(lane, bulk=False))
        for queue in queues:
            for form in ("not a message {}", '{{"method": "fetch_ticker", "args": {{ {}'):
                self._bad_numbers += 1
                body = form.format(self._bad_numbers)
                await self._publish(body.encode(), queue)
                self.buried.append(body)
        await self._publish(b"not a report", "", topology.REPORTS)

    async def _publish(self, body: bytes, routing_key: str, exchange: str = "") -> None:
        """Publishes until it is confirmed: the broker may be away at any time."""
        nodes = itertools.cycle(self.nodes)

        async def confirmed() -> bool:
            try:
                async with asyncio.timeout(5), await aio_pika.connect(next(nodes).url) as connection:
                    channel = await connection.channel()
                    to = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
                    await to.publish(aio_pika.Message(body, delivery_mode=2), routing_key, mandatory=not exchange)
            except (OSError, TimeoutError, aio_pika.exceptions.AMQPError):
                return False
            return True

        await wait_until(confirmed, "a bad message is published", timeout_s=90, every_s=0.5)


async def _hears(service: Service) -> None:
    """Returns when a service handles signals. Before, a signal ends it at once, when it has nothing to lose yet."""

    async def serves() -> object:
        _supervise(service)
        return await service.metrics()

    await wait_until(serves, f"{service.name} has started")


def _supervise(service: Service) -> None:
    """Starts a service again that ended as it began, since Redis wanted another password just then.

    That is meant for a person's eyes, so the service does not wait for it; what supervises services starts them again.
    """
    if not service.running and REFUSED in service.tail(1):
        service.start()


def _nodes(rabbitmq: RabbitMQ | Cluster) -> list[RabbitMQ]:
    return rabbitmq.nodes if isinstance(rabbitmq, Cluster) else [rabbitmq]


async def run(
    seed: int,
    requests: int,
    folder: Path,
    *,
    per_s: float = PER_S,
    every_s: float = FAULT_EVERY_S,
    kinds: Sequence[str] = ALONE,
    cluster: bool = False,
) -> Verdict:
    """One run: everything is started, hurt, judged and stopped.

    Args:
        seed: the schedule, the requests and the simulator follow from it.
        requests: how many.
        folder: for the schedule, the record, the verdict and all logs; it exists.
        per_s: requests a second.
        every_s: the mean time between two faults.
        kinds: the faults there may be.
        cluster: whether RabbitMQ is a cluster of three nodes.
    """
    schedule = draw(seed, requests / per_s, every_s, kinds)
    _keep(folder / "schedule.json", schedule)
    async with World.at(folder, seed, cluster=cluster) as world:
        async with Load.on(world.fleet.broker_url, world.fleet.lanes, per_s=per_s) as load:
            async with asyncio.TaskGroup() as group:
                group.create_task(world.suffer(schedule))
                group.create_task(load.publish(requests, requests_of(seed, ["binance", "okx", "htx"])))
            try:
                await wait_until(lambda: not load.unanswered, "all answered", timeout_s=ANSWERED_WITHIN_S, every_s=0.1)
            except AssertionError as error:
                print(error, flush=True)
            left_over = await world.left_over()
        unburied = await world.unburied()
        counters = await world.simulator.counters()
        await world.end()
        verdict = judge(
            load,
            world.happened,
            counters=counters,
            unburied=unburied,
            left_over=left_over,
            bad_exits=world.bad_exits,
        )
    record = {
        name: {
            "sent_ms": load.sent_ms[name],
            "deadline_ms": load.deadline_ms[name],
            "arrived_ms": load.arrived_ms.get(name, []),
            "results": [replace(one, data=None) for one in load.results.get(name, [])],
        }
        for name in load.sent_ms
    }
    kept = {"record": record, "verdict": verdict, "happened": world.happened, "counters": counters}
    for name, what in kept.items():
        _keep(folder / f"{name}.json", what)
    return verdict


def _keep(path: Path, what: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(what)))


def main() -> int:
    """Runs `run` with what the command line says, and keeps its folder if the promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what the run follows from (default: 1)")
    parser.add_argument("--requests", type=int, default=20_000, help="how many (default: 20000)")
    parser.add_argument("--per-s", type=float, default=PER_S, help=f"requests a second (default: {PER_S:.0f})")
    parser.add_argument("--every-s", type=float, default=FAULT_EVERY_S, help="mean seconds between two faults")
    parser.add_argument("--cluster", action="store_true", help="a RabbitMQ of three nodes, and what can befall it")
    parser.add_argument("--keep", action="store_true", help="keep the folder in any case")
    options = parser.parse_args()
    logs.setup(logging.WARNING)  # the producer's own: it loses RabbitMQ as all others do
    folder = Path(tempfile.mkdtemp(prefix=f"ccxt-fleet-chaos-{options.seed}-"))
    kept = False
    try:
        running = run(
            options.seed,
            options.requests,
            folder,
            per_s=options.per_s,
            every_s=options.every_s,
            kinds=tuple(KINDS) if options.cluster else ALONE,
            cluster=options.cluster,
        )
        verdict = asyncio.run(running)
        kept = verdict.ok
        print("\n".join(verdict.lines()))
    finally:
        if kept and not options.keep:
            shutil.rmtree(folder)
        else:
            print(f"schedule, record and logs of seed {options.seed}: {folder}", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
