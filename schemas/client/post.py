"""Brings requests to the fleet and their results back, over one connection that comes back by itself.

The results come to a queue that outlives a lost connection (`EXPIRES_MS`). A request that RabbitMQ had confirmed is
answered there. One that it had not is published again, marked as a copy; the fleet drops it where it has the first. If
the queue itself is lost, all that waits is published again with the name of a new one.
"""

import asyncio
import contextlib
import logging
import math
import os
import random
import time
from typing import Final

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused
from msgspec import DecodeError
from pamqp.commands import Basic

from .. import topology
from ..config import BrokerConfig
from ..errors import BrokerLost, ConfigError, Unroutable
from ..messages import MSGPACK, ErrorCode, Request
from ..runtime.amqp.channels import Channels
from ..runtime.amqp.link import Link
from ..runtime.amqp.publishing import RENEW_AFTER_S
from ..runtime.deliveries import AGAIN
from ..runtime.standstill import AT_THE_END_S, DECIDES_S
from ..runtime.tasks import lost
from ..urls import place
from .acks import Acks
from .errors import Closed, NoDispatcher, NotAllowed, NotConnected, as_raised
from .results import Answer, decode_answer, unanswered

log = logging.getLogger(__name__)

# How long a queue of results lives without its client.
EXPIRES_MS: Final = 60_000
# How long after its deadline a request is given up: until then the fleet's own error may come, which has the reasons.
LATE_S: Final = 0.7
# After a refusal a publish is repeated after the first of these, then after twice as long, up to the second.
BACKOFF_S: Final = 0.1
BACKOFF_MOST_S: Final = 5.0
# The longest that deleting the queue of results may take, at the end; else it goes by itself.
LEAVE_S: Final = 2.0
# How long a request waits for RabbitMQ's confirm when it has its result.
CONFIRM_S: Final = 0.1
# Ends messages about an address.
HINT: Final = "the address comes from Fleet(url), else from FLEET_BROKER_URL"


class Letter:
    """A request under way.

    Args:
        request: the request, with its id and deadline.
        body: the same, encoded.
    """

    __slots__ = ("_done", "answers", "body", "complete", "held_up", "limit", "publishing", "reply_to", "request")

    def __init__(self, request: Request, body: bytes) -> None:
        self.request = request
        self.body = body
        self.answers: dict[str, Answer] = {}
        self.complete = False
        self.publishing = False
        self.reply_to = ""
        self.held_up = ""
        left_s = max((request.deadline_ms or 0) / 1000 - time.time(), 0.0) + LATE_S
        self.limit = asyncio.timeout_at(asyncio.get_running_loop().time() + left_s)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, answer: Answer) -> None:
        """A result came. A second one of the same exchange is a copy, and so is one more than there are to be."""
        if self.complete:
            return
        self.answers.setdefault(answer.exchange or "", answer)
        if len(self.answers) >= answer.results:
            self.complete = True
            self.end()
            if self.publishing:  # the confirm is not needed any more, and in nearly all cases it is about to come
                self.give_up(CONFIRM_S)

    def end(self) -> None:
        """Wakes the call that waits for the results: they are there, or they can't come any more."""
        if not self._done.done():
            self._done.set_result(None)

    def give_up(self, after_s: float) -> None:
        """The request has so much time from now on, whatever its deadline."""
        at_s, when_s = asyncio.get_running_loop().time() + after_s, self.limit.when()
        if when_s is not None and when_s > at_s and not self.limit.expired():
            self.limit.reschedule(at_s)

    async def look(self) -> None:
        """Reads what lies there unread, when this process has stood still past the request's time."""
        self._done = asyncio.get_running_loop().create_future()  # the old one was cancelled with who waited for it
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AT_THE_END_S):
                while not self.complete:
                    await self.wait()

    async def wait(self) -> None:
        """Returns after the next `end`, or after one that nobody has waited for."""
        await self._done
        self._done = asyncio.get_running_loop().create_future()


class Post:
    """The connection, and all requests that are under way on it.

    Args:
        config: where RabbitMQ is, and how long to wait for it.
        name: shown in RabbitMQ's list of connections.
    """

    def __init__(self, config: BrokerConfig, name: str) -> None:
        self._config = config
        self.link = Link(config, name, self._set_up, confirms=True)
        self._letters: dict[str, Letter] = {}
        self._queue = ""
        self._publishing: aiormq.Channel | None = None
        self._publishing_since_s = 0.0
        self._reopening = asyncio.Lock()
        self._retired: list[aiormq.Channel] = []
        self._consumer = ""
        self._replies: aiormq.Channel | None = None
        self._acks = Acks()
        self.closed = False

    async def open(self) -> None:
        """Connects for the first time.

        Raises:
            NotConnected: RabbitMQ did not answer within `patience_s`.
            NotAllowed: it does not let us in.
        """
        try:
            async with asyncio.timeout(self._config.patience_s):
                await self.link.start()
        except (BrokerLost, TimeoutError) as error:
            why = self.link.trouble or f"no connection to RabbitMQ at {self.place}: no answer"
            await self.close()
            raise as_raised(NotConnected)(f"{why}; is it running there? {HINT}") from error
        except ConfigError as error:
            await self.close()
            raise as_raised(NotAllowed)(f"{error}; {HINT}") from error

    async def close(self) -> None:
        """Ends all calls that are under way, with `Closed`, and the connection."""
        self.closed = True
        for letter in list(self._letters.values()):
            letter.give_up(0.0)
        try:
            await self._acks.end()
            if self._queue and self.link.channels is not None:
                await self._leave()
        finally:  # also where whoever closes it is cancelled
            await self.link.close()

    @property
    def place(self) -> str:
        """Where RabbitMQ is, for messages: never with a password."""
        return places(self._config)

    async def ask(self, letter: Letter) -> list[Answer]:
        """Publishes a request and waits for its results; those of a request to ``any`` are one.

        An error result is no error here, and no result by the deadline is an error result.

        Raises:
            NoDispatcher: no queue takes it.
            NotAllowed: RabbitMQ forbids it.
            Closed: the client was closed meanwhile.
        """
        request = letter.request
        if request.id in self._letters:
            text = f"a request with the id {request.id!r} is under way already: give each one of its own"
            return [unanswered(request, ErrorCode.INVALID_REQUEST, text)]
        self._letters[request.id] = letter
        try:
            async with letter.limit:
                while not letter.complete and not self.closed:
                    if letter.reply_to != self._queue:
                        letter.publishing = True
                        await self._publish(letter)
                        letter.publishing = False
                    await letter.wait()
        except TimeoutError:
            still_s = asyncio.get_running_loop().time() - (letter.limit.when() or math.inf)
            if still_s >= DECIDES_S and not letter.complete and not self.closed:
                await letter.look()
            if not letter.complete and not self.closed:
                late = unanswered(request, ErrorCode.DEADLINE_EXCEEDED, self._why(letter, still_s))
                return [*letter.answers.values(), late]
        finally:
            del self._letters[request.id]
        if not letter.complete:
            raise as_raised(Closed)(f"the client was closed before the answer to {request.id}")
        return list(letter.answers.values())

    async def _publish(self, letter: Letter) -> None:
        """Publishes a request until RabbitMQ confirms it, or its results are there."""
        again, wait_s = False, BACKOFF_S
        channel: aiormq.Channel | None = None
        while not letter.complete:
            try:
                await self.link.wait_up(math.inf)
                if letter.held_up and channel is not None:
                    await self._renew(channel)
                channel = await self._channel()
                await self._send(channel, letter, again=again)
            except aiormq.exceptions.DeliveryError as error:
                if isinstance(error, aiormq.exceptions.PublishError):
                    raise as_raised(NoDispatcher)(nobody(topology.REQUESTS, self._config)) from error
                letter.held_up = "its queue is full, or has no leader"
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(2 * wait_s, BACKOFF_MOST_S)
            except ChannelNotFoundEntity as error:
                raise as_raised(NoDispatcher)(nobody(topology.REQUESTS, self._config)) from error
            except ChannelAccessRefused as error:
                raise as_raised(NotAllowed)(f"RabbitMQ at {self.place} refuses the request: {error}") from error
            except (Exception, asyncio.CancelledError) as error:
                if not lost(error) and not isinstance(error, BrokerLost):
                    raise
                log.debug("request_not_confirmed", extra={"request_id": letter.request.id, "error": repr(error)})
                again, letter.held_up = True, ""
                await asyncio.sleep(0)
            else:
                letter.held_up = ""
                return

    async def _send(self, channel: aiormq.Channel, letter: Letter, *, again: bool) -> None:
        request, letter.reply_to = letter.request, self._queue
        await channel.basic_publish(
            letter.body,
            exchange=topology.BULK_REQUESTS if request.bulk else topology.REQUESTS,
            properties=Basic.Properties(
                message_id=request.id,
                correlation_id=request.id,
                content_type=MSGPACK,
                reply_to=letter.reply_to,
                message_type=AGAIN if again else None,
                delivery_mode=2,
            ),
            mandatory=True,
            wait=False,
        )

    async def _channel(self) -> aiormq.Channel:
        """The channel to publish on; a fresh one where RabbitMQ has closed the last one over a publish."""
        channel = self._publishing
        if channel is not None and not channel.is_closed:
            return channel
        async with self._reopening:
            if self._publishing is None or self._publishing.is_closed:
                await self._fresh()
            assert self._publishing is not None
            return self._publishing

    async def _fresh(self) -> None:
        channels = self.link.channels
        if channels is None:
            raise BrokerLost("no connection to RabbitMQ")
        async with asyncio.timeout(self._config.timeout_s):
            self._publishing = await channels.open()
        self._publishing_since_s = asyncio.get_running_loop().time()

    async def _renew(self, refused: aiormq.Channel) -> None:
        """Publishes on a fresh channel from now on, where the one that was refused is the present one and old."""
        async with self._reopening:
            old = asyncio.get_running_loop().time() >= self._publishing_since_s + RENEW_AFTER_S
            if refused is self._publishing and old:
                self._retired.append(refused)
                await self._fresh()
            for channel in [each for each in self._retired if each.is_closed or not each.confirmations]:
                self._retired.remove(channel)
                if self.link.channels is not None:
                    await self.link.channels.close(channel)

    async def _set_up(self, channels: Channels) -> None:
        replies = await channels.open()
        if not self._queue or not await _is_there(channels, self._queue, self._config.timeout_s):
            self._queue = f"{topology.CLIENT}.{os.urandom(10).hex()}"
            for letter in list(self._letters.values()):
                letter.end()
        timeout_s, arguments = self._config.timeout_s, {"x-expires": EXPIRES_MS}
        await replies.queue_declare(self._queue, durable=True, arguments={**arguments}, timeout=timeout_s)
        channels.watch(replies)
        self._replies = replies
        self._acks.begin(replies)
        consuming = await replies.basic_consume(self._queue, self._on_result, timeout=timeout_s)
        self._consumer = consuming.consumer_tag or ""
        self._publishing, self._retired = await channels.open(), []
        self._publishing_since_s = asyncio.get_running_loop().time()

    async def _leave(self) -> None:
        """Deletes the queue of results: what comes after this goes to `fleet.results`."""
        replies = self._replies
        assert replies is not None
        try:
            async with asyncio.timeout(LEAVE_S):
                await replies.basic_cancel(self._consumer)
                await replies.queue_delete(self._queue)
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            log.debug("queue_left_behind", extra={"queue": self._queue, "error": str(error)})

    async def _on_result(self, message: DeliveredMessage) -> None:
        properties = message.header.properties
        letter = self._letters.get(properties.correlation_id or "")
        if letter is not None:
            letter.take(_read(letter.request, properties.content_type or "", message.body))
        self._acks.took(self._replies, message.delivery_tag)

    def _why(self, letter: Letter, still_s: float) -> str:
        """Why there is no answer by the deadline, as far as it shows from here."""
        if self.link.trouble:
            return f"no answer by the deadline: {self.link.trouble}"
        if still_s >= DECIDES_S:
            return (
                f"no answer by the deadline: this process stood still for {still_s:.1f} s or more (it was stopped, or "
                "something kept its event loop busy), and nothing lay there when it went on"
            )
        if not self.link.up():
            return f"no answer by the deadline: the connection to RabbitMQ at {self.place} was lost"
        if letter.held_up:
            return f"no answer by the deadline: RabbitMQ at {self.place} did not take the request: {letter.held_up}"
        if letter.publishing:
            return (
                f"no answer by the deadline: RabbitMQ at {self.place} has not confirmed the request: does it hang, or "
                "is it short of memory or disk space?"
            )
        return (
            f"no answer by the deadline; RabbitMQ at {self.place} has the request: is a dispatcher running, and is "
            "this machine's clock right?"
        )


def nobody(exchange: str, config: BrokerConfig) -> str:
    """What to start where the fleet's exchange or its queue is not there."""
    return (
        f"no dispatcher has declared {exchange} at {places(config)}: start the fleet there (`ccxt-fleet up`, or "
        f"`ccxt-fleet dispatcher` and `ccxt-fleet worker`); {HINT}"
    )


def places(config: BrokerConfig) -> str:
    """Where RabbitMQ is, for messages: never with a password."""
    return ", ".join(map(place, config.urls))


async def _is_there(channels: Channels, queue: str, timeout_s: float) -> bool:
    try:
        async with channels.aside() as channel:
            await channel.queue_declare(queue, passive=True, timeout=timeout_s)
    except Unroutable:
        return False
    return True


def _read(request: Request, content_type: str, body: bytes) -> Answer:
    try:
        return decode_answer(content_type, body, request)
    except DecodeError as error:
        text = f"the result can't be read: {error}; is the fleet of a newer version than this client?"
        return unanswered(request, ErrorCode.INTERNAL, text)
