"""The stream of results: what goes to the exchange `fleet.results`, by a pattern of its keys."""

import asyncio
import os
from types import TracebackType
from typing import Final, Self

import aiormq
from aiormq.abc import DeliveredMessage
from msgspec import DecodeError

from .. import topology
from ..config import BrokerConfig
from ..errors import BrokerLost, ConfigError, Unroutable
from ..runtime.amqp.channels import Channels
from ..runtime.amqp.link import Link
from .acks import Acks
from .errors import NoDispatcher, NotAllowed, NotConnected, as_raised
from .post import EXPIRES_MS, nobody
from .results import Result, decode_result

# How many results RabbitMQ sends ahead of the program that reads them.
AHEAD: Final = 200
# The most that waits in the queue of a slow reader; beyond it the oldest are dropped.
QUEUE_BYTES: Final = 256 * 2**20


class Results:
    """Results as they come, from when it is opened: ``async with``, else the first step of ``async for``, opens it.

    It ends when it is closed, or its `Fleet` is. Results wait in a queue of its own, also while the connection is away
    for up to a minute. One may come twice.

    Args:
        config: where RabbitMQ is.
        pattern: of keys ``<exchange>.<method>.<ok or error>``; ``*`` stands for one word, ``#`` for any number.

    Attributes:
        ended: whether it was closed.
    """

    def __init__(self, config: BrokerConfig, pattern: str) -> None:
        self._config = config
        self._pattern = pattern
        self._queue = f"{topology.CLIENT}.{os.urandom(10).hex()}"
        self._link = Link(config, f"results {pattern}", self._set_up, confirms=False)
        self._came: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
        self._channel: aiormq.Channel | None = None
        self._acks = Acks()
        self._opening = asyncio.Lock()
        self._opened = False
        self.ended = False

    async def __aenter__(self) -> Self:
        """Opens it.

        Raises:
            NotConnected, NotAllowed: as when a `Fleet` is opened.
            NoDispatcher: there is no such exchange.
        """
        async with self._opening:  # one that failed, or was cancelled, is made again by the next who asks
            if self._opened or self.ended:
                return self
            try:
                await self._link.start()
            except Unroutable as error:
                raise as_raised(NoDispatcher)(nobody(topology.RESULTS, self._config)) from error
            except BrokerLost as error:
                raise as_raised(NotConnected)(str(error)) from error
            except ConfigError as error:
                raise as_raised(NotAllowed)(str(error)) from error
            self._opened = True
        if self.ended:  # meanwhile
            await self._link.close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        await self.aclose()

    async def aclose(self) -> None:
        """Ends it; what still waits in its queue is gone in a minute."""
        self.ended = True
        self._came.put_nowait(None)
        try:
            await self._acks.end()
        finally:
            await self._link.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        """The next result; what can't be read as one is left out."""
        await self.__aenter__()
        while not self.ended:
            if (message := await self._came.get()) is None:
                self._came.put_nowait(None)  # for others who wait
                break
            # Nothing is waited for from here on: whoever is cancelled leaves the result to the next who asks.
            self._acks.took(self._channel, message.delivery_tag)
            try:
                return decode_result(message.header.properties.content_type or "", message.body)
            except DecodeError:
                continue
        raise StopAsyncIteration

    async def _set_up(self, channels: Channels) -> None:
        timeout_s = self._config.timeout_s
        async with channels.aside() as aside:
            await aside.exchange_declare(topology.RESULTS, passive=True, timeout=timeout_s)
        channel = await channels.open()
        limits: dict[str, int] = {"x-expires": EXPIRES_MS, "x-max-length-bytes": QUEUE_BYTES}
        await channel.queue_declare(self._queue, durable=True, arguments={**limits}, timeout=timeout_s)
        await channel.queue_bind(self._queue, topology.RESULTS, self._pattern, timeout=timeout_s)
        await channel.basic_qos(prefetch_count=AHEAD, timeout=timeout_s)
        channels.watch(channel)
        while not self._came.empty():  # what is not acknowledged comes again
            self._came.get_nowait()
        if self.ended:
            self._came.put_nowait(None)
        self._channel = channel
        self._acks.begin(channel)
        await channel.basic_consume(self._queue, self._on_result, timeout=timeout_s)

    async def _on_result(self, message: DeliveredMessage) -> None:
        self._came.put_nowait(message)
