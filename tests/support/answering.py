"""Answers requests in place of a fleet, at once, where a test asks what the client does with its connection."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aio_pika
import msgspec
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from schemas import topology
from schemas.encodings import decode_request
from schemas.messages import JSON, Request, Result

DATA: Final = 5


async def requested(channel: AbstractChannel) -> AbstractQueue:
    """The queue of requests, which nobody reads, and the exchange of results."""
    exchange = await channel.declare_exchange(topology.REQUESTS, "fanout", durable=True)
    queue = await channel.declare_queue(topology.REQUESTS, durable=True)
    await queue.bind(exchange)
    await channel.declare_exchange(topology.RESULTS, "topic", durable=True)
    return queue


@asynccontextmanager
async def answering(url: str, data: Callable[[Request], Any] = lambda _: DATA) -> AsyncGenerator[AbstractChannel, None]:
    """Answers every request there by its queue of results, those without data not at all; gives the channel."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await requested(channel)

        async def answer(message: AbstractIncomingMessage) -> None:
            request = decode_request(message.content_type or "", message.body)
            if (found := data(request)) is not None:
                made = result(request.id, message.correlation_id, found)
                await channel.default_exchange.publish(made, message.reply_to or "")
            await message.ack()

        await queue.consume(answer)
        yield channel


def result(id: str, correlation_id: str | None = None, data: Any = DATA) -> aio_pika.Message:
    """A result, as the fleet publishes it."""
    made = Result(id, True, "fetch_time", exchange="okx", data=data)
    return aio_pika.Message(
        msgspec.json.encode(made), content_type=JSON, correlation_id=correlation_id, delivery_mode=2
    )
