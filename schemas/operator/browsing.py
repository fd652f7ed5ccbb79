"""Goes through `fleet.dead`, and puts back what is not taken out.

A queue shows a message only by delivering it, and hides it from all other consumers until it is requeued. So only one
command at a time goes through the letters: it holds an exclusive queue, which RabbitMQ gives to one connection and
deletes with it. A second command waits. (Quorum queues have no exclusive consumers, as RabbitMQ's documentation says. A
stream could be read by many, but nothing can be taken out of it, and `fleet.dead` exists.)

Letters come in batches, each from a consumer of its own that takes no more than that, so that the client holds one
batch, however long the queue is. All are taken and requeued in the order in which they came; a command that is killed
leaves them in another order.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, Self, TypeAlias

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aiormq.exceptions import ChannelLockedResource

from .. import topology
from . import servers
from .dead import Filter, Letter, Replay

READER: Final = "fleet.dead.reader"
BATCH: Final = 200
TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.1
# How many messages RabbitMQ requeues in their order with one command: Erlang's larger maps have no order (3.10.8).
IN_ORDER: Final = 32
# When more commands of a client wait, RabbitMQ joins those that follow to one (32 in rabbit_fifo_client, 3.10.8).
AT_ONCE: Final = 16
# How long to wait for the next letter; a full queue may have dropped it meanwhile.
QUIET_S: Final = 1.0

# A letter, and its message for `DeadLetters.take`.
Held: TypeAlias = tuple[Letter, AbstractIncomingMessage]


class DeadLetters:
    """`fleet.dead`, for one connection at a time."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue) -> None:
        self._channel = channel
        self._queue = queue
        self._held: list[dict[int, None]] = []  # delivery tags of each batch, in order

    @classmethod
    @asynccontextmanager
    async def at(cls, urls: tuple[str, ...], waits: Callable[[str], None]) -> AsyncGenerator[Self, None]:
        """The queue on this RabbitMQ; at the end, letters that were not taken out are back in it.

        Args:
            urls: RabbitMQ's.
            waits: called with a text when another command makes this one wait.

        Raises:
            ServerAway: RabbitMQ is away, or refuses.
        """
        async with servers.rabbitmq(urls) as connection:
            waiting = False
            while True:
                try:
                    own = await connection.channel()
                    await own.declare_queue(READER, exclusive=True, auto_delete=True)
                    break
                except ChannelLockedResource:
                    if not waiting:
                        waits("another command goes through the dead letters: waiting until it is done")
                    waiting = True
                    await asyncio.sleep(POLL_S)
            channel = await connection.channel(on_return_raises=True)
            await channel.set_qos(prefetch_count=BATCH)
            letters = cls(channel, await channel.declare_queue(topology.DEAD, passive=True))
            await letters._alone(waits)
            try:
                yield letters
            finally:
                await letters._give_back()

    async def batches(self, wanted: Filter, *, after: str = "", limit: int | None = None) -> AsyncGenerator[list[Held]]:
        """The letters that were there at the beginning, oldest first.

        Args:
            wanted: which.
            after: the key of a letter, or how it begins; only those behind it.
            limit: how many at most.
        """
        left, _ = await self._counts()
        passed, found = not after, 0
        # All letters are taken, also those behind the last one wanted: RabbitMQ puts requeued messages behind earlier
        # requeued ones, so the order stays only where all were taken.
        while left > 0:
            messages = await self._take(min(left, BATCH))
            if not messages:
                return
            left -= len(messages)
            batch: list[Held] = []
            for message in messages:
                letter = Letter.read(message)
                if passed and wanted.fits(letter) and (limit is None or found < limit):
                    batch.append((letter, message))
                    found += 1
                passed = passed or letter.key.startswith(after)
            if batch:
                yield batch

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Takes a letter of the last batch out for good."""
        await message.ack()
        del self._held[-1][message.delivery_tag or 0]

    async def publish(self, replay: Replay) -> None:
        """Publishes a request; returns when RabbitMQ has it."""
        message = aio_pika.Message(
            replay.body,
            content_type=replay.content_type or None,
            reply_to=replay.reply_to or None,
            correlation_id=replay.correlation_id or None,
            message_id=replay.message_id or None,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        exchange = await self._channel.get_exchange(replay.exchange, ensure=False)
        await exchange.publish(message, "", timeout=30)

    async def _take(self, count: int) -> list[AbstractIncomingMessage]:
        """Receives so many messages, or as many as there are."""
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        messages: list[AbstractIncomingMessage] = []
        tag = await self._queue.consume(arrived.put, timeout=TIMEOUT_S)
        try:
            while len(messages) < count:
                try:
                    async with asyncio.timeout(QUIET_S):
                        messages.append(await arrived.get())
                except TimeoutError:
                    if not (await self._counts())[0]:
                        break
        finally:
            await self._queue.cancel(tag, timeout=TIMEOUT_S)
        self._held.append({message.delivery_tag or 0: None for message in messages})
        return messages

    async def _give_back(self) -> None:
        """Requeues the letters; returns when they are in the queue again, for the next command to see."""
        if self._channel.is_closed:  # that has requeued them
            return
        underlay = await self._channel.get_underlay_channel()
        back, sent = (await self._counts())[0], 0
        for batch in self._held:
            tags = list(batch)
            for number in range(0, len(tags), IN_ORDER):
                some = tags[number : number + IN_ORDER]
                await underlay.basic_nack(some[-1], multiple=True, requeue=True, wait=False)
                back, sent = back + len(some), sent + 1
                if sent % AT_ONCE == 0:
                    await self._filled(back)
        await underlay.basic_nack(0, multiple=True, requeue=True)  # deliveries that came at the end
        await self._filled(back)

    async def _filled(self, count: int) -> None:
        """Waits until so many letters are in the queue; not for ever, as a full queue drops the oldest."""
        for _ in range(int(TIMEOUT_S / POLL_S)):
            if (await self._counts())[0] >= count:
                return
            await asyncio.sleep(POLL_S / 10)

    async def _alone(self, waits: Callable[[str], None]) -> None:
        """Waits until the letters of a command that was killed are back: its consumer ends with that."""
        tries = 0
        while (await self._counts())[1] and tries < TIMEOUT_S / POLL_S:
            tries += 1
            await asyncio.sleep(POLL_S)
        if tries == TIMEOUT_S / POLL_S:
            waits(f"other programs consume {topology.DEAD}: the letters that they hold are not shown")

    async def _counts(self) -> tuple[int, int]:
        """How many letters and how many consumers it has."""
        queue = await self._channel.declare_queue(topology.DEAD, passive=True, timeout=TIMEOUT_S)
        found = queue.declaration_result
        return found.message_count or 0, found.consumer_count or 0
