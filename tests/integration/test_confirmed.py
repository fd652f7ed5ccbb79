"""What RabbitMQ confirmed to a producer is answered, also while the fleet's queues come or are replaced."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import aiormq
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity, DeliveryError

from deploy.local import Services, simulated
from deploy.servers import RabbitMQ
from deploy.simulator.process import Simulator
from schemas import topology
from schemas.runtime.amqp import declaration
from tests.support.fleet import QUICK, wait_until

LANE = "okx"
REST_S = 0.01
# RabbitMQ counts what a quorum queue holds every 5 s (its `quorum_tick_interval`).
COUNTED_WITHIN_S = 6.0


class Producer:
    """A program that keeps to `docs/messages.md`: what is returned, refused or not taken is published again.

    Attributes:
        confirmed: the ids of requests that RabbitMQ confirmed and did not return.
        answered: the ids of those that were answered.
        told: what else RabbitMQ said, by its kind.
    """

    def __init__(self, connection: aio_pika.abc.AbstractConnection) -> None:
        self._connection = connection
        self.confirmed: set[str] = set()
        self.answered: set[str] = set()
        self.told: set[type[Exception]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, url: str) -> AsyncGenerator["Producer"]:
        async with await aio_pika.connect(url) as connection:
            producer = cls(connection)
            publishing = asyncio.create_task(producer._publish())
            yield producer
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)

    async def _publish(self) -> None:
        answers = await self._connection.channel()
        queue = await answers.declare_queue(exclusive=True)
        await queue.consume(self._take, no_ack=True)
        channel = None
        for number in itertools.count():
            message = aio_pika.Message(
                msgspec.json.encode({"method": "fetch_time", "id": str(number)}),
                content_type="application/json",
                delivery_mode=2,
                reply_to=queue.name,
            )
            while True:
                try:
                    if channel is None or channel.is_closed:
                        channel = await self._connection.channel(on_return_raises=True)
                    exchange = await channel.get_exchange(topology.REQUESTS, ensure=False)
                    await exchange.publish(message, "")
                    break
                except (AMQPError, aiormq.exceptions.AMQPError) as error:
                    self.told.add(type(error))
                    await asyncio.sleep(REST_S)
            self.confirmed.add(str(number))
            await asyncio.sleep(REST_S * 5)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        self.answered.add(msgspec.json.decode(message.body)["id"])  # an error is an answer: there may be no budget

    async def more(self, count: int) -> None:
        """Returns when so many more requests are confirmed."""
        enough = len(self.confirmed) + count
        await wait_until(lambda: len(self.confirmed) >= enough, "more is confirmed", timeout_s=60)

    async def all_answered(self) -> None:
        """Returns when all that was confirmed until now is answered."""
        confirmed = set(self.confirmed)
        await wait_until(lambda: confirmed <= self.answered, "all is answered", timeout_s=60)


class Watched:
    """A channel that, after each command, looks which exchanges are there, and whether their queues are too."""

    def __init__(self, channel: aiormq.Channel, look: aio_pika.abc.AbstractConnection, exchange: str) -> None:
        self._channel, self._look, self._exchange = channel, look, exchange
        self.unbound: list[str] = []  # the commands after which it was there without a queue

    def __getattr__(self, name: str) -> Any:
        async def command(*args: Any, **kwargs: Any) -> Any:
            done = await getattr(self._channel, name)(*args, **kwargs)
            looking = await self._look.channel(on_return_raises=True)
            try:
                exchange = await looking.get_exchange(self._exchange, ensure=False)
                await exchange.publish(aio_pika.Message(b"x"), "okx")
            except DeliveryError:
                self.unbound.append(f"{name} {args[0]}")
            except ChannelNotFoundEntity:
                pass
            else:
                await looking.close()
            return done

        return command


@pytest.mark.parametrize("exchange", [topology.REQUESTS, topology.BULK_REQUESTS, topology.WORK, topology.RESULTS])
async def test_an_exchange_is_bound_as_soon_as_it_is_there(vhost: str, exchange: str) -> None:
    async with await aio_pika.connect(vhost) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        watched: Any = Watched(channel, connection, exchange)
        await declaration.declare(watched, [LANE], 10)
        assert watched.unbound == [f"exchange_declare {exchange}"]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


def fleet(folder: Path, simulator: Simulator, url: str, redis_url: str, *, declare: bool = True) -> Services:
    config = {**simulated(simulator.urls), **QUICK}
    lanes: dict[str, Any] = {LANE: config["lanes"][LANE]}
    broker = {**QUICK["broker"], "declare": declare}
    return Services(
        folder, {**config, "lanes": lanes, "broker": broker}, broker_url=url, redis_url=redis_url, workers=1
    )


async def test_what_is_confirmed_before_the_first_start_is_over_is_answered(
    vhost: str, redis_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    async with Producer.at(vhost) as producer:
        await wait_until(lambda: producer.told, "RabbitMQ has refused")
        assert not producer.confirmed
        async with fleet(tmp_path, simulator, vhost, redis_url):
            await producer.more(20)
            await producer.all_answered()


async def shut(url: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemas", "requests", "shut", "--url", url), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await child.communicate()
    assert (child.returncode, printed) == (0, b"RabbitMQ refuses requests now\n")


async def test_queues_are_replaced_as_the_docs_say_and_nothing_is_lost(
    vhost: str, rabbitmq: RabbitMQ, redis_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    old: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 10}  # as a version before may have had it

    async def empty() -> bool:
        if not await none_counted():
            return False
        await asyncio.sleep(COUNTED_WITHIN_S)
        return await none_counted()

    async def none_counted() -> bool:
        listed = await rabbitmq.ctl("list_queues", "--vhost", vhost.rpartition("/")[2], "name", "messages")
        held = dict(line.split("\t") for line in listed.splitlines() if line.startswith("fleet."))
        return all(name in (topology.RESULTS, topology.DEAD) or count == "0" for name, count in held.items())

    async with await aio_pika.connect(vhost) as connection:
        channel = await connection.channel()
        lower = await channel.get_underlay_channel()
        assert isinstance(lower, aiormq.Channel)
        await declaration.declare(lower, [LANE], 10)
        await channel.queue_delete(topology.REQUESTS)
        queue = await channel.declare_queue(topology.REQUESTS, durable=True, arguments=old)
        await queue.bind(topology.REQUESTS)
        async with Producer.at(vhost) as producer:
            async with fleet(tmp_path / "old", simulator, vhost, redis_url, declare=False) as before:
                await producer.more(20)
                await shut(vhost)
                # Workers open their lanes meanwhile, and the lane has its limit.
                await wait_until(empty, "the queues are empty", timeout_s=120, every_s=0.2)
                await before.stop()
            await shut(vhost)
            assert await empty()
            confirmed = len(producer.confirmed)
            new = fleet(tmp_path / "new", simulator, vhost, redis_url)
            first = new.add_dispatcher()
            await wait_until(lambda: not first.running, "the new version does not start yet")
            assert topology.REQUESTS in first.tail()
            assert len(producer.confirmed) == confirmed
            await channel.queue_delete(topology.REQUESTS)
            async with fleet(tmp_path / "again", simulator, vhost, redis_url):
                await producer.more(20)
                await producer.all_answered()
