"""What comes out of a queue: deliveries, and the subscriptions that hand them to their handlers.

A handler runs in a task of its own, which a lost connection does not cancel. See `broker` for the connections.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeAlias

import aiormq
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from ..errors import FleetError
from . import properties
from .room import Room

log = logging.getLogger(__name__)
properties.read_leniently()

Handler: TypeAlias = Callable[["Delivery"], Coroutine[Any, Any, None]]

# What could not be published may be possible a little later. Sooner, a message would be back ten times, which is its
# queue's delivery limit, within some milliseconds.
BACK_AFTER_S: Final = 1.0
# Slots that are free while their deliveries are unsettled are made up for after so long, in such parts of the prefetch,
# by at most so many consumers more. Most results are confirmed before.
MAKE_UP_AFTER_S: Final = 0.1
MAKE_UP_PART: Final = 8
MAKE_UP_CONSUMERS: Final = 64
MAKE_UP_TIMEOUT_S: Final = 5.0
# Larger messages are read only when there is room: one of 256 KiB may take twenty times as much when it is read, and a
# prefetch's worth of them a process's memory. What is smaller waits for nothing.
LARGE_BYTES: Final = 16 * 1024
LARGE_HELD_BYTES: Final = 32 * 2**20
# What waits for a dispatcher that stands still, at most: newer reports say all that matters.
OWN_QUEUE_BYTES: Final = 64 * 2**20
# The property `type` of a message that is published again because nobody knows whether the broker has it.
AGAIN: Final = "again"


def cancelled() -> bool:
    """Whether somebody cancelled this very task: a dying connection raises `CancelledError` in all that wait on it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def lost(error: BaseException) -> bool:
    """Whether an error of aiormq says that the connection is gone, or no answer came in time.

    A connection that ends for no reason it was given rejects what waits on it with a bare `Exception`, or cancels it.
    """
    if isinstance(error, asyncio.CancelledError):
        return not cancelled()
    return isinstance(error, (*CONNECTION_EXCEPTIONS, TimeoutError)) or type(error) is Exception


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they are over.

    Once is not enough: `asyncio.wait_for` of Python 3.11, which redis-py and aiormq use, swallows a cancellation that
    comes in the moment in which what it waits for is done.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.2)


async def done_before(stop: asyncio.Event, job: Coroutine[Any, Any, None]) -> bool:
    """Does a job unless told to stop before it is done; says whether it is done. Raises what the job does."""
    doing, told = asyncio.create_task(job), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([doing, told], return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
        return doing.done()
    finally:
        await end_tasks(task for task in (doing, told) if not task.done())


class Delivery:
    """One message from a queue; whoever handles it settles it, once, on every path.

    Attributes:
        released: it holds no slot of its consumer any more, see `release`.
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
        """Frees its slot: another delivery may be taken while this one is not settled yet."""
        if not self.released and self._on_release is not None:
            self.released = True
            self._on_release()

    def of(self, channel: aiormq.Channel | None) -> bool:
        """Whether it came on this channel."""
        return self._channel is channel

    @property
    def death_reason(self) -> str | None:
        """Why the broker dead-lettered it (``expired``, ``delivery_limit``, …), None if it did not."""
        headers = self.properties.headers or {}
        reason = headers.get("x-last-death-reason") or headers.get("x-first-death-reason")
        return str(reason) if reason else None

    @property
    def copy(self) -> bool:
        """Whether it may have been taken before: it came before, or was published again."""
        return self.redelivered or self.properties.message_type == AGAIN

    @property
    def repeated(self) -> bool:
        """Whether there may be two of it: it is a copy, or its connection is gone, and it comes again."""
        return self.copy or self._channel.is_closed

    async def ack(self) -> None:
        """Takes the message out of its queue. Void if the connection is gone: then it comes again."""
        if self._tag is not None:
            await self._settle(self._channel.basic_ack(self._tag, wait=False))

    async def requeue(self, *, failed: bool) -> None:
        """Gives the message back to its queue.

        Args:
            failed: whether it may be the message that its handler fails of, so that it counts towards the queue's
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
            log.debug("settling_is_void", extra={"error": repr(error)})


class Subscription:
    """A consumer that is set up again on every new connection.

    A delivery that was released (`Delivery.release`) still counts for RabbitMQ. Where many are, more consumers on the
    same channel make up for them: RabbitMQ heeds another prefetch of a quorum queue's consumer only when it is new.

    Args:
        queue: what to consume; None means an exclusive queue of our own, bound to `exchange`, without acknowledgements.
        handler: called in a task of its own for each delivery.
        prefetch: how many deliveries it may hold that are neither settled nor released.
        room: for what all subscriptions of a process hold of large messages.
        exchange: see `queue`.
    """

    def __init__(self, queue: str | None, handler: Handler, prefetch: int, room: Room, exchange: str = "") -> None:
        self.queue = queue
        self.handler = handler
        self.prefetch = prefetch
        self.room = room
        self.exchange = exchange
        self.tasks: set[asyncio.Task[None]] = set()
        self.last_s = time.monotonic()  # when it attached, or took its last delivery
        self.channel: aiormq.Channel | None = None
        self._tag: str | None = None
        self._source = ""
        self._taking = True
        self._consumes: int | None = None  # with which prefetch the broker knows our consumer
        self._changing = asyncio.Lock()
        self._released = 0  # of this channel, and unsettled
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
        """Holds so many deliveries from now on; those that it holds already go on."""
        self.prefetch = prefetch
        await self._heed(timeout_s)

    async def stop_taking(self, timeout_s: float) -> None:
        """Takes no more deliveries; what it holds goes on."""
        self._taking = False
        await self._heed(timeout_s)

    async def _heed(self, timeout_s: float) -> None:
        """Tells the broker what changed; what changes meanwhile, or while a connection comes back, it is told too."""
        async with self._changing:
            if self.channel is None:
                return
            try:
                await self._change(self.channel, timeout_s)
            except (Exception, asyncio.CancelledError) as error:
                if not lost(error):
                    raise
                # The next connection begins with what holds then.
                log.debug("consumer_is_gone_already", extra={"error": repr(error)})

    async def _change(self, channel: aiormq.Channel, timeout_s: float) -> None:
        while (wanted := self.prefetch if self._taking else None) != self._consumes:
            # A quorum queue heeds a channel's new prefetch for new consumers only.
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
        if not self._taking:  # the broker has not heard of it yet: unsettled, it comes to another
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
            return  # void: the message comes again
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
        """Consumes with as many consumers more as it takes to make up for what is released; until nothing is."""
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
            log.debug("consumer_is_gone_already", extra={"error": repr(error)})
        finally:
            self._making_up = None

    async def _run(self, delivery: Delivery, size_bytes: int) -> None:
        if size_bytes:
            await self.room.take(size_bytes)
        try:
            await self.handler(delivery)
        except asyncio.CancelledError:
            if cancelled():
                raise  # `drain`: the connection closes next, and the message comes to another
            # Something below us lets its own cancellation out; unsettled, the message would hang until we end.
            log.exception("handler_cancelled_from_below", extra={"queue": delivery.queue})
            await delivery.requeue(failed=True)
        except FleetError as error:
            log.warning("message_goes_back", extra={"queue": delivery.queue, "error": repr(error)})
            await asyncio.sleep(BACK_AFTER_S)
            await delivery.requeue(failed=False)
        except Exception:
            # A bug of ours. The message goes back, and after its delivery limit to fleet.dead: nothing is lost.
            log.exception("handler_failed", extra={"queue": delivery.queue})
            await delivery.requeue(failed=True)
        finally:
            self._released -= delivery.released and delivery.of(self.channel)
            if size_bytes and not delivery.released:
                self.room.give(size_bytes)

    def hungry(self, quiet_s: float) -> bool:
        """Whether it has room and nothing came for so long."""
        return len(self.tasks) < self.prefetch + self._made_up and time.monotonic() - self.last_s >= quiet_s

    def running(self) -> list[asyncio.Task[None]]:
        """Its handlers, and what it does beside them."""
        return [*self.tasks, *([] if self._making_up is None else [self._making_up])]

    async def drain(self, grace_s: float) -> None:
        """Waits for the handlers that run; those that outlast the grace are cancelled and their messages come again."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=grace_s)
            await end_tasks(late)
