"""Deliveries from a queue, and the subscriptions that hand them to their handlers.

A handler runs in a task of its own, which a lost connection does not cancel. See `broker` for the connections.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from ..errors import FleetError
from . import properties
from .room import Room
from .tasks import cancelled, end_tasks, lost

log = logging.getLogger(__name__)
properties.read_leniently()

Handler: TypeAlias = Callable[["Delivery"], Coroutine[Any, Any, None]]

# A message whose result could not be published goes back to its queue after so long. At once, it would reach the
# queue's delivery limit, which is ten, within milliseconds.
BACK_AFTER_S: Final = 1.0
# RabbitMQ counts deliveries that are not settled, also those whose slots are free. More consumers make up for these:
# after so long, by at least this part of the prefetch each, and at most so many. Most results are confirmed sooner.
MAKE_UP_AFTER_S: Final = 0.1
MAKE_UP_PART: Final = 8
MAKE_UP_CONSUMERS: Final = 64
MAKE_UP_TIMEOUT_S: Final = 5.0
# Larger messages are handled only when there is room for them: decoded, one of 256 KiB may take twenty times its size,
# and a whole prefetch of them all of a process's memory. Smaller messages never wait.
LARGE_BYTES: Final = 16 * 1024
LARGE_HELD_BYTES: Final = 32 * 2**20
# At most so much waits for a dispatcher that stands still: newer reports contain all that matters.
OWN_QUEUE_BYTES: Final = 64 * 2**20
# The property `type` of a message that is published again because RabbitMQ may have it already.
AGAIN: Final = "again"


class Delivery:
    """One message from a queue. Its handler settles it, once, on every path.

    Attributes:
        released: whether its slot is free, see `release`.
    """

    __slots__ = ("_channel", "_on_release", "_tag", "body", "properties", "queue", "redelivered", "released")

    def __init__(
        self, message: DeliveredMessage, queue: str, *, no_ack: bool, on_release: Callable[[], None] | None = None
    ) -> None:
        self.body: bytes = message.body
        self.properties: Basic.Properties = message.header.properties
        self.queue = queue
        self.redelivered = bool(message.redelivered)
        self._channel = message.channel
        self._tag = None if no_ack else message.delivery_tag
        self._on_release = on_release
        self.released = False

    def release(self) -> None:
        """Frees its slot: the next delivery may come while this one is not settled yet."""
        if not self.released and self._on_release is not None:
            self.released = True
            self._on_release()

    def of(self, channel: aiormq.Channel | None) -> bool:
        """Whether it came on this channel."""
        return self._channel is channel

    @property
    def death_reason(self) -> str | None:
        """Why RabbitMQ dead-lettered it (``expired``, ``delivery_limit``, …), None if it did not."""
        headers = self.properties.headers or {}
        reason = headers.get("x-last-death-reason") or headers.get("x-first-death-reason")
        return str(reason) if reason else None

    @property
    def copy(self) -> bool:
        """Whether it may have been handled before: it was delivered before, or published again."""
        return self.redelivered or self.properties.message_type == AGAIN

    @property
    def repeated(self) -> bool:
        """Whether there may be two of it: it is a copy, or its connection is gone and RabbitMQ delivers it again."""
        return self.copy or self._channel.is_closed

    async def ack(self) -> None:
        """Takes the message out of its queue. Without effect if the connection is gone: RabbitMQ delivers it again."""
        if self._tag is not None:
            await self._settle(self._channel.basic_ack(self._tag, wait=False))

    async def requeue(self, *, failed: bool) -> None:
        """Gives the message back to its queue.

        Args:
            failed: whether the message may have made its handler fail, so that this counts towards the queue's
                delivery limit. RabbitMQ counts a `basic.reject`; a `basic.nack` only until 4.3 (its guide to negative
                acknowledgements).
        """
        if self._tag is not None:
            settle = self._channel.basic_reject if failed else self._channel.basic_nack
            await self._settle(settle(self._tag, requeue=True, wait=False))

    @staticmethod
    async def _settle(frame: Awaitable[None]) -> None:
        try:
            await frame
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            log.debug("settled_too_late", extra={"error": repr(error)})


class Subscription:
    """A consumer that is set up again on every new connection.

    A delivery whose slot is free (`Delivery.release`) still counts for RabbitMQ until it is settled. Where there are
    many, more consumers on the same channel make up for them: the prefetch of a quorum queue's consumer can't change.

    Args:
        queue: what to consume; None means an exclusive queue of our own, bound to `exchange`, without acknowledgements.
        handler: called for each delivery, in a task of its own.
        prefetch: how many deliveries it may hold that are neither settled nor released.
        room: for the large messages that all subscriptions of a process hold.
        exchange: see `queue`.
    """

    def __init__(self, queue: str | None, handler: Handler, prefetch: int, room: Room, exchange: str = "") -> None:
        self.queue = queue
        self.handler = handler
        self.prefetch = prefetch
        self.room = room
        self.exchange = exchange
        self.tasks: set[asyncio.Task[None]] = set()
        self.last_s = time.monotonic()  # when it was attached, or got its last delivery
        self.channel: aiormq.Channel | None = None
        self._tag: str | None = None
        self._source = ""
        self._taking = True
        self._consumes: int | None = None  # the prefetch of our consumer at RabbitMQ
        self._changing = asyncio.Lock()
        self._released = 0  # deliveries on this channel that are released and not settled
        self._more: list[tuple[str, int]] = []  # consumers that make up for those, with their prefetch
        self._making_up: asyncio.Task[None] | None = None

    async def attach(self, channel: aiormq.Channel, timeout_s: float) -> None:
        """Starts to consume on a fresh channel."""
        async with self._changing:
            self.channel, self._tag, self._consumes = channel, None, None
            self._released = 0
            self._more.clear()
            await self._prepare(channel, timeout_s)
            await self._change(channel, timeout_s)

    async def _prepare(self, channel: aiormq.Channel, timeout_s: float) -> None:
        queue = self.queue
        if queue is None:
            declared = await channel.queue_declare(
                "",
                exclusive=True,
                auto_delete=True,
                arguments={"x-max-length-bytes": OWN_QUEUE_BYTES},
                timeout=timeout_s,
            )
            queue = declared.queue or ""
            await channel.queue_bind(queue, self.exchange, timeout=timeout_s)
        self._source = queue

    async def resize(self, prefetch: int, timeout_s: float) -> None:
        """Holds at most so many deliveries from now on; those that it holds already go on."""
        self.prefetch = prefetch
        await self._update(timeout_s)

    async def stop_taking(self, timeout_s: float) -> None:
        """Takes no more deliveries; those that it holds go on."""
        self._taking = False
        await self._update(timeout_s)

    async def _update(self, timeout_s: float) -> None:
        """Makes RabbitMQ's consumer what is wanted now; changes that come meanwhile are made too."""
        async with self._changing:
            if self.channel is None:
                return
            try:
                await self._change(self.channel, timeout_s)
            except (Exception, asyncio.CancelledError) as error:
                if not lost(error):
                    raise
                # The next connection starts with what is wanted then.
                log.debug("consumer_already_gone", extra={"error": repr(error)})

    async def _change(self, channel: aiormq.Channel, timeout_s: float) -> None:
        while (wanted := self.prefetch if self._taking else None) != self._consumes:
            # In a quorum queue a new prefetch holds for new consumers only.
            if self._tag is not None:
                await channel.basic_cancel(self._tag, timeout=timeout_s)
                self._tag = None
            while wanted is None and self._more:
                await channel.basic_cancel(self._more.pop()[0], timeout=timeout_s)
            if wanted is not None:
                self._tag = await self._consume(channel, wanted, timeout_s)
            self._consumes = wanted

    async def _consume(self, channel: aiormq.Channel, prefetch: int, timeout_s: float) -> str | None:
        await channel.basic_qos(prefetch_count=prefetch, timeout=timeout_s)
        consumed = await channel.basic_consume(
            self._source, self._on_message, no_ack=self.queue is None, timeout=timeout_s
        )
        self.last_s = time.monotonic()
        return consumed.consumer_tag

    async def _on_message(self, message: DeliveredMessage) -> None:
        if not self._taking:  # sent before RabbitMQ knew; it stays unsettled and goes to another consumer
            return
        self.last_s = time.monotonic()
        size_bytes = len(message.body) if self.queue is not None and len(message.body) > LARGE_BYTES else 0
        released = functools.partial(self._on_release, message.channel, size_bytes)
        delivery = Delivery(message, self._source, no_ack=self.queue is None, on_release=released)
        task = asyncio.create_task(self._run(delivery, size_bytes))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _on_release(self, channel: aiormq.abc.AbstractChannel, size_bytes: int) -> None:
        if size_bytes:
            self.room.give(size_bytes)
        if self.channel is None or channel is not self.channel:
            return  # its connection is gone, and the message comes again
        self._released += 1
        if self._making_up is None and self._released - self._made_up >= self._part and self._taking:
            self._making_up = asyncio.create_task(self._make_up(self.channel), name=f"make up {self.queue}")

    @property
    def _part(self) -> int:
        return max(1, self.prefetch // MAKE_UP_PART)

    @property
    def _made_up(self) -> int:
        return sum(prefetch for _, prefetch in self._more)

    async def _make_up(self, channel: aiormq.Channel) -> None:
        """Adds consumers as long as released deliveries lack their slots, and removes them when they are settled."""
        try:
            while True:
                await asyncio.sleep(MAKE_UP_AFTER_S)
                async with self._changing:
                    if not self._taking or channel is not self.channel:
                        return
                    lacking = self._released - self._made_up
                    if lacking >= self._part and len(self._more) < MAKE_UP_CONSUMERS:
                        if tag := await self._consume(channel, lacking, MAKE_UP_TIMEOUT_S):
                            self._more.append((tag, lacking))
                    elif self._more and -lacking >= self._more[-1][1]:
                        tag, _ = self._more.pop()
                        await channel.basic_cancel(tag, timeout=MAKE_UP_TIMEOUT_S)
                    elif not self._more:
                        return
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            log.debug("consumer_already_gone", extra={"error": repr(error)})
        finally:
            self._making_up = None

    async def _run(self, delivery: Delivery, size_bytes: int) -> None:
        if size_bytes:
            await self.room.take(size_bytes)
        try:
            await self.handler(delivery)
        except asyncio.CancelledError:
            if cancelled():
                raise  # by `drain`: the connection closes next, and the message goes to another consumer
            # A library's own cancellation came through. Unsettled, the message would be stuck until this process ends.
            log.exception("handler_cancelled", extra={"queue": delivery.queue})
            await delivery.requeue(failed=True)
        except FleetError as error:
            log.warning("message_requeued", extra={"queue": delivery.queue, "error": repr(error)})
            await asyncio.sleep(BACK_AFTER_S)
            await delivery.requeue(failed=False)
        except Exception:
            # A bug of ours. The message goes back to its queue, and after its delivery limit to fleet.dead.
            log.exception("handler_failed", extra={"queue": delivery.queue})
            await delivery.requeue(failed=True)
        finally:
            self._released -= delivery.released and delivery.of(self.channel)
            if size_bytes and not delivery.released:
                self.room.give(size_bytes)

    def hungry(self, quiet_s: float) -> bool:
        """Whether it has free slots and got no delivery for so long."""
        return len(self.tasks) < self.prefetch + self._made_up and time.monotonic() - self.last_s >= quiet_s

    def running(self) -> list[asyncio.Task[None]]:
        """The tasks of its handlers, and its own."""
        return [*self.tasks, *([] if self._making_up is None else [self._making_up])]

    async def drain(self, grace_s: float) -> None:
        """Waits for the handlers that run; those that outlast the grace are cancelled and their messages come again."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=grace_s)
            await end_tasks(late)
