"""Reply addresses for which RabbitMQ closes the connection: they harm no other client, and no result is lost."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from msgspec import json
from msgspec.structs import replace

from deploy.servers import RabbitMQ
from schemas import addresses
from schemas.config import BrokerConfig
from schemas.errors import Unroutable
from schemas.messages import Attempt, ErrorCode, Request, Result, encode
from schemas.runtime.broker import Broker
from tests.support.fleet import Stand, wait_until
from tests.unit.test_addresses import MALFORMED, direct

TICKER = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}}
CLIENTS = 20
NUMBERS = itertools.count(1)


def away() -> str:
    """A well-formed address of a node that is not there, each time another one."""
    return direct(f"reply@{next(NUMBERS)}")


class Direct:
    """A client on a connection of its own that gets its results by direct reply-to."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self.address = ""
        self.got: list[AbstractIncomingMessage] = []

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str) -> AsyncGenerator["Direct", None]:
        """A client at this URL that knows its address."""
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            client = cls(channel)
            replies = await channel.get_queue(addresses.DIRECT, ensure=False)
            await replies.consume(client._take, no_ack=True)
            mine = await channel.declare_queue(exclusive=True)
            await channel.default_exchange.publish(aio_pika.Message(b"", reply_to=addresses.DIRECT), mine.name)
            client.address = str((await mine.get(no_ack=True)).reply_to)
            yield client

    async def send(self, **request: object) -> None:
        """Publishes a request."""
        message = aio_pika.Message(json.encode({**TICKER, **request}), reply_to=addresses.DIRECT, delivery_mode=2)
        await self._channel.default_exchange.publish(message, "fleet.requests")

    async def _take(self, message: AbstractIncomingMessage) -> None:
        self.got.append(message)


@pytest.fixture
async def broker(vhost: str) -> AsyncIterator[Broker]:
    broker = Broker(BrokerConfig(urls=(vhost,), timeout_s=3.0), "test", [])
    await broker.start()
    yield broker
    await broker.close()


@pytest.fixture
async def clients(vhost: str) -> AsyncIterator[list[Direct]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Direct.on(vhost)) for _ in range(CLIENTS)]


def closes(rabbitmq: RabbitMQ) -> bool:
    """Whether this RabbitMQ closes the connection over the address of a node that is not there."""
    return rabbitmq.version.startswith("3.")


async def refused(broker: Broker, address: str) -> bool:
    try:
        await broker.publish(b"x", address)
    except Unroutable:
        return True
    return False


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_address_is_never_published_to(broker: Broker, case: str) -> None:
    with pytest.raises(Unroutable, match="reply_to"):
        await broker.publish(b"x", MALFORMED[case])
    assert broker.direct.reconnects == 0


async def test_addresses_of_nodes_that_are_away_harm_no_other(
    broker: Broker, clients: list[Direct], rabbitmq: RabbitMQ
) -> None:
    """Each closes a connection once. The others are published to meanwhile, and all arrive."""
    await asyncio.gather(*(broker.publish(b"first", client.address) for client in clients))
    bad = [away() for _ in range(10)]
    good = [broker.publish(b"%d" % number, client.address) for client in clients for number in range(20)]
    *seen, _ = await asyncio.gather(*(refused(broker, address) for address in bad), asyncio.gather(*good))
    assert seen == [closes(rabbitmq)] * len(bad)
    bodies = sorted([b"first", *(b"%d" % number for number in range(20))])
    await wait_until(lambda: all(len(client.got) >= len(bodies) for client in clients), "all that were sent")
    assert all(sorted(message.body for message in client.got) == bodies for client in clients)
    closed = len(bad) * closes(rabbitmq)
    await wait_until(lambda: broker.direct.reconnects == closed, "it is back after the last one")
    assert broker.connects == 1
    # None is tried again.
    assert [await refused(broker, address) for address in bad] == seen
    assert broker.direct.reconnects == closed


async def test_a_node_that_leaves_closes_the_connection_once_for_all_its_clients(
    broker: Broker, clients: list[Direct], rabbitmq: RabbitMQ
) -> None:
    """Many results for its clients are in flight then, beside those for others."""
    node = f"reply@{next(NUMBERS)}"
    gone = [direct(node, number) for number in range(150)]
    await asyncio.gather(*(broker.publish(b"first", client.address) for client in clients))
    broker.direct.proven.add(addresses.origin(gone[0]))
    good = [broker.publish(b"%d" % number, client.address) for client in clients for number in range(5)]
    *seen, _ = await asyncio.gather(*(refused(broker, address) for address in gone), asyncio.gather(*good))
    assert seen == [closes(rabbitmq)] * len(gone)
    # What was in flight may have come before, and is published again.
    for client in clients:
        bodies = {b"first", *(b"%d" % number for number in range(5))}
        await wait_until(lambda: {message.body for message in client.got} == bodies, "all that were sent")  # noqa: B023
    # Once beside the others, and once alone.
    closed = 2 if closes(rabbitmq) else 0
    await wait_until(lambda: broker.direct.reconnects == closed, "both are back")
    assert broker.connects == 1


async def test_a_request_with_an_address_that_is_none_is_refused_and_harms_no_other(stand: Stand) -> None:
    connects = await connected(stand)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Direct.on(stand.url)) for _ in range(CLIENTS)]
        # RabbitMQ itself lets nobody publish the one that it has to fill in.
        malformed = [address for address in MALFORMED.values() if address != addresses.DIRECT]
        bad = [await stand.client.send(TICKER, reply_to=address) for address in malformed]
        for client in clients:
            await client.send()
            bad.append(await stand.client.send(TICKER, reply_to=malformed[0]))
        for sent in bad:
            answer = await stand.client.answer(sent)
            assert (answer.code, answer.key) == (ErrorCode.INVALID_REQUEST, "none.fetch_ticker.error")
            assert answer.result.error is not None
            assert "reply_to" in answer.result.error.message
        await wait_until(lambda: all(client.got for client in clients), "all others are answered")
        assert all(json.decode(client.got[0].body, type=Result).ok for client in clients)
    assert await connected(stand) == connects


async def test_results_for_a_node_that_is_away_go_to_the_results_and_harm_no_other(
    stand: Stand, rabbitmq: RabbitMQ
) -> None:
    """Results of workers, and errors of dispatchers."""
    connects = await connected(stand)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Direct.on(stand.url)) for _ in range(CLIENTS)]
        bad: list[str] = []
        for client in clients:
            await client.send()
            await client.send(exchanges=["nowhere"])
            bad.append(await stand.client.send(TICKER, reply_to=away()))
            bad.append(await stand.client.send({**TICKER, "exchanges": ["nowhere"]}, reply_to=away()))
        await wait_until(lambda: all(len(client.got) == 2 for client in clients), "all others are answered")
        for client in clients:
            results = [json.decode(message.body, type=Result) for message in client.got]
            assert sorted(result.error.code if result.error else "" for result in results) == ["", "unknown_exchange"]
        if closes(rabbitmq):
            for sent in bad:
                assert (await stand.client.answer(sent)).key is not None
    assert await connected(stand) == connects


async def test_an_attempt_with_an_address_that_is_none_is_answered_among_the_results(stand: Stand) -> None:
    """One that a dispatcher of an older version took."""
    client = stand.client
    for address in ("amq.rabbitmq.reply-to.a.b", "fleet.requests", "fleet.returned"):
        request = Request(**TICKER, id=client.new_id(), deadline_ms=time.time_ns() // 1_000_000 + 60_000)  # type: ignore[arg-type]
        attempt = Attempt(request, "okx", 1, 1, reply_to=address)
        await client.publish(encode(attempt), "okx", to_exchange="fleet.work")
        answer = await client.answer(request.id)
        assert (answer.result.ok, answer.key) == (True, "okx.fetch_ticker.ok")
        gone = replace(attempt, request=replace(request, id=client.new_id(), exchanges=["nowhere"]))
        await client.publish(encode(gone), "fleet.returned")
        assert (await client.answer(gone.request.id)).key == "none.fetch_ticker.error"


async def connected(stand: Stand) -> list[int]:
    """How often each service had to connect, but for what is published by direct reply-to."""
    return [(await service.status())["process"]["connects"] for service in stand.services]
