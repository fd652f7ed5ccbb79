"""Goes through `fleet.dead`, and puts back what is not taken out.

A queue shows a message by handing it out, and hides it from everybody else until it is given back. So one at a time
goes through the letters: it holds an exclusive queue, which RabbitMQ lets one connection have and deletes with it. A
second one waits. (Quorum queues heed no consumer's wish to be the only one, as RabbitMQ's own documentation says; a
stream could be read by many, but nothing can be taken out of it, and `fleet.dead` exists.)

Letters come in batches, each to a consumer of its own that takes no more than that: so the client holds one batch,
whatever the queue holds. All are taken out and given back in the order in which they came: a reader that is killed
leaves them in another.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, Self, TypeAlias

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aiormq.exceptions import ChannelLockedResource

from .. import topology
from ..runtime import properties
from .dead import Filter, Letter, Replay

properties.read_leniently()

READER: Final = "fleet.dead.reader"
BATCH: Final = 200
TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.1
# RabbitMQ puts back no more than so many at once in their order: beyond, Erlang's maps have none (measured, 3.10.8).
IN_ORDER: Final = 32
# And once so many commands of a client wait, it makes one of those that follow (32 in rabbit_fifo_client, 3.10.8).
AT_ONCE: Final = 16
# What was promised may have been dropped meanwhile, where the queue is full.
QUIET_S: Final = 1.0

# A letter, and its message for `DeadLetters.take`.
Held: TypeAlias = tuple[Letter, AbstractIncomingMessage]


class DeadLetters:
    """`fleet.dead` at work, for one connection at a time."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue) -> None:
        self._channel = channel
        self._queue = queue
        self._held: list[dict[int, None]] = []  # delivery tags of each batch, in order

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str, waits: Callable[[str], None]) -> AsyncGenerator[Self, None]:
        """The queue at this broker; what was not taken out is in it again at the end.

        Args:
            url: the broker's.
            waits: is told in words why it takes longer.
        """
        async with await aio_pika.connect(url, timeout=TIMEOUT_S) as connection:
            told = False
            while True:
                try:
                    own = await connection.channel()
                    await own.declare_queue(READER, exclusive=True, auto_delete=True)
                    break
                except ChannelLockedResource:
                    if not told:
                        waits("another command goes through the dead letters: waiting until it is done")
                    told = True
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
        # Also those behind the last that is wanted: RabbitMQ puts what it is given back behind what was given back
        # before, so that the order only stays where all have been out.
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
        """Has so many handed out, or as many as there are."""
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
        """Returns when they are in the queue again: who comes next is to see them."""
        if self._channel.is_closed:  # they are given back by that
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
        await underlay.basic_nack(0, multiple=True, requeue=True)  # what came unasked at the end
        await self._filled(back)

    async def _filled(self, count: int) -> None:
        """Returns when so many letters are there; or not, as a full queue drops the oldest."""
        for _ in range(int(TIMEOUT_S / POLL_S)):
            if (await self._counts())[0] >= count:
                return
            await asyncio.sleep(POLL_S / 10)

    async def _alone(self, waits: Callable[[str], None]) -> None:
        """A reader that was killed is gone before its letters are back; its consumer goes with them."""
        tries = 0
        while (await self._counts())[1] and tries < TIMEOUT_S / POLL_S:
            tries += 1
            await asyncio.sleep(POLL_S)
        if tries == TIMEOUT_S / POLL_S:
            waits(f"other programs consume {topology.DEAD}: what they hold is not shown")

    async def _counts(self) -> tuple[int, int]:
        """How many letters and how many consumers it has."""
        queue = await self._channel.declare_queue(topology.DEAD, passive=True, timeout=TIMEOUT_S)
        told = queue.declaration_result
        return told.message_count or 0, told.consumer_count or 0
