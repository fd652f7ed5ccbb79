"""What tests of the whole fleet share: a fleet on a simulator, and a client that sees all that comes out of it."""

import asyncio
import inspect
import itertools
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import aio_pika
import msgspec
import redis.asyncio as redis_client
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from msgspec import Struct

from deploy.local import Service, Services
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from schemas.messages import DeadLetter, Result, decode_letter
from schemas.operator import pauses
from schemas.reports import BucketReport, LaneReport, Report, decode_report

# Short enough that a test can wait for a lane to go offline and come back.
QUICK: Mapping[str, Mapping[str, object]] = {
    "broker": {"heartbeat_s": 5, "timeout_s": 3.0},
    "dispatcher": {
        "failures_in_a_row": 3,
        "trial_after_s": 0.3,
        "trial_after_max_s": 1.0,
        "slow_start_s": 1.0,
        "silent_after_s": 3.0,
    },
    "worker": {"http_timeout_s": 1.5},
}


async def wait_until(
    condition: Callable[[], object], what: str, *, timeout_s: float = 30, every_s: float = 0.02
) -> None:
    """Returns when the condition, plain or a coroutine, gives something true.

    Raises:
        AssertionError: it did not within the time; names `what` and the last value.
    """
    give_up_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return
        if time.monotonic() > give_up_s:
            raise AssertionError(f"after {timeout_s:.0f} s still not: {what} (last: {value!r})")
        await asyncio.sleep(every_s)


async def opened(fleet: Services) -> None:
    """Returns when every worker has opened all lanes."""

    async def all_open() -> bool:
        seen = [await worker.metrics() for worker in fleet.workers]
        return all(each.get(("fleet_lane_open", lane)) for each in seen for lane in fleet.lanes)

    await wait_until(all_open, "all workers have opened all lanes", timeout_s=60, every_s=0.1)


_STATE = re.compile(r"lane_state lane=(\S+) state=(\S+)(?: reason=(.*))?")
_FAILURES = re.compile(r"failures in a row|[1-9]\d* of \d+ calls failed")


def set_aside(log: str) -> Counter[str]:
    """Which lanes a service's log calls down, in maintenance, or failing, and why.

    A lane that is merely slower, as all are on a busy machine, still serves, and does not count.
    """
    return Counter(
        f"{lane} {state}: {reason.strip()}"
        for lane, state, reason in _STATE.findall(log)
        if state in ("offline", "maintenance") or _FAILURES.search(reason)
    )


class Answer(Struct, frozen=True):
    """A result as the client received it, with its properties; `key` is the routing key in `fleet.results`."""

    result: Result
    content_type: str
    correlation_id: str
    key: str | None

    @property
    def code(self) -> str | None:
        """The error's code."""
        return None if self.result.error is None else str(self.result.error.code)


class Client:
    """A program that uses the fleet through plain AMQP: it shares no code with the services but the messages."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self._connection = connection
        self.channel = channel
        self.reply_to = ""
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        self.dead: list[DeadLetter | bytes] = []
        self.results: AbstractQueue | None = None  # its own, of all results
        self._numbers = itertools.count()

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str, *, topology: bool = True) -> AsyncGenerator[Self, None]:
        """A client of the fleet at this URL.

        Args:
            url: RabbitMQ.
            topology: whether the fleet has declared its queues; else there are no results and dead letters to see.
        """
        connection = await aio_pika.connect(url)
        async with connection:
            client = cls(connection, await connection.channel(on_return_raises=True))
            replies = await client.channel.declare_queue(exclusive=True)
            client.reply_to = replies.name
            await replies.consume(client._take, no_ack=True)
            if topology:
                client.results = await client.channel.declare_queue(exclusive=True)
                await client.results.bind("fleet.results", "#")
                await client.results.consume(client._take, no_ack=True)
                dead = await client.channel.get_queue("fleet.dead", ensure=False)
                await dead.consume(client._bury, no_ack=True)
            yield client

    def new_id(self) -> str:
        """A correlation id that was not used before."""
        return f"{self.reply_to}-{next(self._numbers)}"

    async def publish(
        self, body: bytes, queue: str = "fleet.requests", *, to_exchange: str = "", **properties: Any
    ) -> None:
        """Publishes a body as it is, confirmed."""
        exchange = await self.channel.get_exchange(to_exchange, ensure=False) if to_exchange else None
        message = aio_pika.Message(body, delivery_mode=2, **properties)
        await (exchange or self.channel.default_exchange).publish(message, queue)

    async def send(self, request: Mapping[str, object] | bytes, **properties: Any) -> str:
        """Publishes a request, answered to this client unless `properties` say otherwise; gives its correlation id."""
        correlation_id = properties.setdefault("correlation_id", self.new_id())
        properties.setdefault("content_type", "application/json")
        properties.setdefault("reply_to", self.reply_to)
        await self.publish(request if isinstance(request, bytes) else msgspec.json.encode(request), **properties)
        return str(correlation_id)

    async def answer(self, correlation_id: str, *, timeout_s: float = 30) -> Answer:
        """The first answer with this correlation id."""
        await wait_until(
            lambda: self.answers.get(correlation_id), f"an answer to {correlation_id}", timeout_s=timeout_s
        )
        return self.answers[correlation_id][0]

    async def ask(self, method: str, args: Mapping[str, object] | None = None, **fields: object) -> Answer:
        """Sends a request and waits for its answer; `fields` are the request's other fields."""
        return await self.answer(await self.send({"method": method, "args": args or {}, **fields}))

    async def buried(self, body: bytes) -> DeadLetter:
        """The dead letter that holds this body."""

        def found() -> list[DeadLetter]:
            return [dead for dead in self.dead if isinstance(dead, DeadLetter) and dead.body == body]

        await wait_until(found, f"a dead letter with {body[:80]!r}")
        return found()[0]

    async def _take(self, message: AbstractIncomingMessage) -> None:
        kind = message.content_type or ""
        decode = msgspec.json.decode if kind == "application/json" else msgspec.msgpack.decode
        key = message.routing_key if message.exchange == "fleet.results" else None
        answer = Answer(decode(message.body, type=Result), kind, message.correlation_id or "", key)
        self.answers[answer.correlation_id].append(answer)

    async def _bury(self, message: AbstractIncomingMessage) -> None:
        try:
            self.dead.append(decode_letter(message.body))
        except msgspec.DecodeError:
            self.dead.append(message.body)


class Stand(Struct, frozen=True):
    """A fleet at work on a simulator, with its servers, and a client of it."""

    rabbitmq: RabbitMQ
    url: str
    redis: Redis
    simulator: Simulator
    fleet: Services
    client: Client

    @property
    def services(self) -> list[Service]:
        """Dispatchers and workers."""
        return [*self.fleet.dispatchers, *self.fleet.workers]

    async def metric(self, services: Sequence[Service], *name: str) -> float:
        """A metric's sum over services, by name and label values."""
        return sum([(await service.metrics()).get(name, 0.0) for service in services])

    async def healthy(self, *lanes: str) -> bool:
        """Whether every dispatcher sees the lanes healthy."""
        seen = [await dispatcher.metrics() for dispatcher in self.fleet.dispatchers]
        return all(each.get(("fleet_lane_healthy", lane)) for each in seen for lane in lanes)

    async def heal(self) -> None:
        """Ends all faults, starts what was killed, and waits until every lane is healthy."""
        faulty = [name for name, faults in (await self.simulator.ask("GET", "/faults")).items() if any(faults.values())]
        for exchange in faulty:
            await self.simulator.clear(exchange)
        self.redis.thaw()
        await self.redis.start()
        if not all(service.running for service in self.services):
            for service in self.services:
                service.start()
            await opened(self.fleet)
        await wait_until(self.connected, "all services are connected to RabbitMQ", timeout_s=60, every_s=0.1)

        if faulty:
            # The last slow or failed call must not be news to the dispatchers in the next test.
            await wait_until(self.idle, "nothing is under way", timeout_s=60)
            await self.reported()
        await self.lift()
        await wait_until(self.unpaused, "no exchange has to be left alone any more", timeout_s=60)

        async def come_back() -> bool:
            if await self.healthy(*self.fleet.lanes):
                return True
            # A lane that failed comes back with its next request.
            ill = [lane for lane in self.fleet.lanes if not await self.healthy(lane)]
            await asyncio.gather(*(self.client.ask("fetch_time", exchanges=[lane]) for lane in ill))
            return await self.healthy(*self.fleet.lanes)

        await wait_until(come_back, "all lanes are healthy", timeout_s=60, every_s=0.1)

    async def lift(self) -> None:
        """Ends all pauses, as an operator does: bans last for minutes, and those who banned have been healed."""
        async with redis_client.from_url(self.redis.url) as client:
            for exchange in {each.exchange for each in await pauses.held(client)}:
                await pauses.lift(client, exchange)

    async def connected(self) -> bool:
        """Whether every service has its connection to RabbitMQ, which each makes again in its own time."""
        seen = [await service.status() for service in self.services]
        return all(status and status["process"]["connected"] for status in seen)

    async def idle(self) -> bool:
        """Whether no worker holds an attempt."""
        seen = [await worker.metrics() for worker in self.fleet.workers]
        return not any(value for each in seen for key, value in each.items() if key[0] == "fleet_attempts_in_flight")

    async def unpaused(self) -> bool:
        """Whether no pause holds any more."""
        seen = [each for service in self.services for each in (await service.metrics()).items()]
        return not any(value for key, value in seen if key[0] in {"fleet_lane_paused", "fleet_budget_paused_seconds"})

    async def reported(self) -> None:
        """Returns when every worker has reported twice: what had ended until now is in the second report."""
        heard = Counter[str]()

        async def take(message: AbstractIncomingMessage) -> None:
            heard[decode_report(message.body).worker] += 1

        queue = await self.client.channel.declare_queue(exclusive=True)
        await queue.bind("fleet.reports")
        tag = await queue.consume(take, no_ack=True)
        await wait_until(
            lambda: sum(count > 1 for count in heard.values()) >= len(self.fleet.workers), "all workers have reported"
        )
        await queue.cancel(tag)
        await queue.delete(if_unused=False, if_empty=False)  # a report may have come since

    async def violations(self) -> int:
        """How often a limit was broken."""
        return int((await self.simulator.counters())["violations"])

    async def broken(self) -> dict[str, Any]:
        """Return the calls that broke a limit, by exchange."""
        exchanges = (await self.simulator.counters())["exchanges"]
        return {name: counts["broken"] for name, counts in exchanges.items() if counts["broken"]}


class Heard:
    """The last report of each worker and of each lane by each worker, and what all of them said of buckets."""

    def __init__(self) -> None:
        self.reports: dict[str, Report] = {}
        self.lanes: dict[tuple[str, str], LaneReport] = {}
        self._buckets: list[tuple[str, str, BucketReport]] = []

    async def take(self, message: AbstractIncomingMessage) -> None:
        """A report came."""
        report = decode_report(message.body)
        self.reports[report.worker] = report
        self.lanes |= {(report.worker, lane.lane): lane for lane in report.lanes}
        self._buckets += [(lane.lane, name, said) for lane in report.lanes for name, said in lane.buckets.items()]

    def bucket(self, lane: str, name: str) -> BucketReport:
        """The sums over all reports of a bucket, and the fullest it was."""
        said = [each for of, bucket, each in self._buckets if (of, bucket) == (lane, name)]
        return BucketReport(
            used=max((each.used for each in said), default=0),
            granted=sum(each.granted for each in said),
            waited_ms=sum(each.waited_ms for each in said),
            refused=sum(each.refused for each in said),
        )

    def any(self, lane: str, so: Callable[[LaneReport], bool]) -> bool:
        """Whether the last report of some worker says so of a lane."""
        return any(so(report) for (_, name), report in self.lanes.items() if name == lane)
