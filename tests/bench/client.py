"""A producer of the benchmarks: publishes requests, and waits for their results on a queue of its own."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator
from typing import Final, Self

import aio_pika
import aiormq
import msgspec
from aiormq.abc import DeliveredMessage

from schemas import topology
from schemas.messages import MSGPACK, Request, Result, encode

# How long after its deadline a request's result may come: by then it was lost.
PATIENCE_S: Final = 60.0
# The deadline a request has by itself.
DEADLINE_S: Final = 30.0


class Client:
    """Uses aiormq's channel, as the services do, and MessagePack, to need little of the CPU that it measures."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self._channel = channel
        self._reply_to = ""
        self._waiting: dict[str, asyncio.Future[Result]] = {}
        self._numbers = itertools.count()
        self._decoder = msgspec.msgpack.Decoder(Result)

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, url: str) -> AsyncGenerator[Self]:
        """Connects; leaves at the end."""
        async with await aio_pika.connect(url) as connection:
            lower = await (await connection.channel()).get_underlay_channel()
            assert isinstance(lower, aiormq.Channel)
            self = cls(lower)
            self._reply_to = (await lower.queue_declare("", exclusive=True)).queue or ""
            await lower.basic_consume(self._reply_to, self._on_result, no_ack=True)
            yield self

    async def _on_result(self, message: DeliveredMessage) -> None:
        result = self._decoder.decode(message.body)
        answer = self._waiting.get(result.id)
        if answer is not None and not answer.done():  # a result may come twice, or too late
            answer.set_result(result)

    async def ask(self, request: Request) -> Result:
        """Publishes a request and waits for its result, which may be an error; gives it an id.

        Raises:
            RuntimeError: no result a minute after its deadline.
        """
        name = f"bench-{next(self._numbers)}"
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[name] = answer
        timeout_s = PATIENCE_S + DEADLINE_S
        if request.deadline_ms is not None:
            timeout_s = PATIENCE_S + request.deadline_ms / 1000 - time.time()
        await self._channel.basic_publish(
            encode(msgspec.structs.replace(request, id=name)),
            exchange=topology.BULK_REQUESTS if request.bulk else topology.REQUESTS,
            properties=aiormq.spec.Basic.Properties(
                content_type=MSGPACK, correlation_id=name, reply_to=self._reply_to, delivery_mode=2
            ),
            wait=False,
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise RuntimeError(f"{request.exchanges} {request.method}: no result of {name}") from None
        finally:
            self._waiting.pop(name, None)
