"""What tests of the whole fleet share: a fleet on a simulator, and a client that sees all that comes out of it."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import aio_pika
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from msgspec import Struct

from deploy.local import Fleet, Service, simulated
from deploy.simulator.process import Simulator
from schemas.messages import DeadLetter, Result

T = TypeVar("T")

# Short enough that a test can wait for a lane to go offline and come back.
QUICK: Mapping[str, Mapping[str, object]] = {
    "broker": {"heartbeat_s": 5, "timeout_s": 3.0},
    "dispatcher": {"failures_in_a_row": 3, "trial_after_s": 0.3, "trial_after_max_s": 1.0, "silent_after_s": 3.0},
    "worker": {"http_timeout_s": 1.5},
}


async def wait_until(
    condition: Callable[[], T | Awaitable[T]], what: str, *, timeout_s: float = 30, every_s: float = 0.02
) -> T:
    """Returns what the condition gives once that is true.

    Raises:
        AssertionError: it was not true within the time; names `what` and the last value.
    """
    give_up_s = time.monotonic() + timeout_s
    while True:
        found = condition()
        value: Any = await found if isinstance(found, Awaitable) else found  # pyright: ignore[reportUnknownVariableType]
        if value:
            return value
        if time.monotonic() > give_up_s:
            raise AssertionError(f"after {timeout_s:.0f} s still not: {what} (last: {value!r})")
        await asyncio.sleep(every_s)


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
                results = await client.channel.declare_queue(exclusive=True)
                await results.bind("fleet.results", "#")
                await results.consume(client._take, no_ack=True)
                dead = await client.channel.get_queue("fleet.dead", ensure=False)
                await dead.consume(client._bury, no_ack=True)
            yield client

    def new_id(self) -> str:
        """A correlation id nobody used before."""
        return f"{self.reply_to}-{next(self._numbers)}"

    async def publish(
        self, body: bytes, queue: str = "fleet.requests", *, to_exchange: str = "", **properties: Any
    ) -> None:
        """Publishes a body as it is, confirmed."""
        exchange = await self.channel.get_exchange(to_exchange, ensure=False) if to_exchange else None
        message = aio_pika.Message(body, delivery_mode=2, **properties)
        await (exchange or self.channel.default_exchange).publish(message, queue)

    async def send(self, request: Mapping[str, object] | bytes, **properties: Any) -> str:
        """Publishes a request, answered to this client unless `properties` say otherwise; returns its correlation id."""
        correlation_id = properties.setdefault("correlation_id", self.new_id())
        properties.setdefault("content_type", "application/json")
        properties.setdefault("reply_to", self.reply_to)
        await self.publish(request if isinstance(request, bytes) else msgspec.json.encode(request), **properties)
        return str(correlation_id)

    async def answer(self, correlation_id: str, *, timeout_s: float = 30) -> Answer:
        """The first answer with this correlation id."""
        found = await wait_until(
            lambda: self.answers.get(correlation_id), f"an answer to {correlation_id}", timeout_s=timeout_s
        )
        assert found
        return found[0]

    async def ask(self, method: str, args: Mapping[str, object] | None = None, **fields: object) -> Answer:
        """Sends a request and waits for its answer; `fields` are the request's other fields."""
        return await self.answer(await self.send({"method": method, "args": args or {}, **fields}))

    async def buried(self, body: bytes) -> DeadLetter:
        """The dead letter that holds this body."""

        def find() -> DeadLetter | None:
            return next((dead for dead in self.dead if isinstance(dead, DeadLetter) and dead.body == body), None)

        found = await wait_until(find, f"a dead letter with {body[:80]!r}")
        assert found is not None
        return found

    async def _take(self, message: AbstractIncomingMessage) -> None:
        kind = message.content_type or ""
        decode = msgspec.json.decode if kind == "application/json" else msgspec.msgpack.decode
        key = message.routing_key if message.exchange == "fleet.results" else None
        answer = Answer(decode(message.body, type=Result), kind, message.correlation_id or "", key)
        self.answers[answer.correlation_id].append(answer)

    async def _bury(self, message: AbstractIncomingMessage) -> None:
        try:
            self.dead.append(msgspec.msgpack.decode(message.body, type=DeadLetter))
        except msgspec.DecodeError:
            self.dead.append(message.body)


class Stand(Struct, frozen=True):
    """A fleet at work on a simulator, and a client of it."""

    simulator: Simulator
    fleet: Fleet
    client: Client

    async def metric(self, services: Sequence[Service], *name: str) -> float:
        """A metric's sum over services, by name and label values."""
        return sum([(await service.metrics()).get(name, 0.0) for service in services])

    async def healthy(self, *lanes: str) -> bool:
        """Whether every dispatcher sees the lanes healthy."""
        seen = [await dispatcher.metrics() for dispatcher in self.fleet.dispatchers if dispatcher.running]
        return all(each.get(("fleet_lane_healthy", lane)) for each in seen for lane in lanes)

    async def heal(self) -> None:
        """Ends all faults and waits until every lane is healthy; an offline one comes back with its next request."""
        for exchange in self.simulator.urls:
            await self.simulator.clear(exchange)

        async def come_back() -> bool:
            for lane in self.fleet.lanes:
                if not await self.healthy(lane):
                    await self.client.ask("fetch_time", exchanges=[lane])
            return await self.healthy(*self.fleet.lanes)

        if not await self.healthy(*self.fleet.lanes):
            await wait_until(come_back, "all lanes are healthy", every_s=0.1)

    async def violations(self) -> int:
        """How often a limit was broken."""
        return int((await self.simulator.counters())["violations"])


@asynccontextmanager
async def stand(
    folder: Path,
    broker_url: str,
    redis_url: str,
    *,
    exchanges: Sequence[str] | None = None,
    dispatchers: int = 1,
    workers: int = 2,
    config: Mapping[str, Mapping[str, object]] = QUICK,
) -> AsyncGenerator[Stand, None]:
    """Starts a simulator, a fleet on it and a client; `config` are the sections beside the lanes."""
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(exchanges=exchanges))
        fleet = Fleet(
            folder,
            {**simulated(simulator.urls), **config},
            broker_url=broker_url,
            redis_url=redis_url,
            dispatchers=dispatchers,
            workers=workers,
        )
        await stack.enter_async_context(fleet)
        client = await stack.enter_async_context(Client.on(broker_url))
        yield Stand(simulator, fleet, client)
