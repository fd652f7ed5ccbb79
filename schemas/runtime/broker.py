"""RabbitMQ as the fleet uses it: the one place that knows aio-pika's traps.

A `Broker` is two connections that come back by themselves, one to consume and one to publish (the broker stops reading
from a connection that publishes when it is short of memory; acknowledgements must still get through). Workers have a
third for their reports. Results by direct reply-to have two more, see `direct`.

It is built on aio-pika's plain connection, not its robust one, and rebuilds a lost connection as a whole: connect,
declare, consume. So nothing is restored half-way, a queue the broker lost is declared again, and a queue declared with
other arguments is an error that says so in place of a connection that flaps forever.

What a service relies on:

- A handler runs in a task of its own. A lost connection does not cancel it; its acknowledgement is then void and the
  message comes again, so handlers publish what they have before they settle, and duplicates carry the same request id.
- `publish` returns when the broker has confirmed the message. A confirm that is cancelled because the connection died
  looks like `CancelledError`, or is a bare `Exception`; here it is `BrokerLost`, and a real cancellation stays one.
- Every call has a time-out. A publish whose confirm does not come waits for it as long as its connection lives: a
  frozen broker has taken it, and would take it again. One whose connection died is sent again, for `patience_s`.
"""

import asyncio
import functools
import itertools
import logging
import math
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel as PikaChannel
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from msgspec.structs import replace
from pamqp.commands import Basic, Queue
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from .. import addresses, topology
from ..config import BrokerConfig
from ..errors import (
    BrokerError,
    BrokerLost,
    ConfigError,
    FleetError,
    Refused,
    Silent,
    TopologyError,
    Unroutable,
)
from ..messages import MSGPACK
from . import permanent
from .deliveries import AGAIN, LARGE_HELD_BYTES, Delivery, Handler, Subscription, end_tasks, lost
from .direct import DirectReplies
from .room import Room

log = logging.getLogger(__name__)

# So long after RabbitMQ stops to take messages, or takes them again, it shows.
ALARM_EVERY_S: Final = 0.5
# Messages that wait while we have room come at once: who got none for so long gets none at all.
QUIET_S: Final = 10.0
RECHECK_S: Final = 0.5
# So many messages are handled at once when a queue is taken back.
BATCH: Final = 50
# What the connection that consumes needs beside one for each subscription: to declare, and to take queues back.
CHANNELS_BESIDE: Final = 16
# A publishing channel that a queue refuses is exchanged for a fresh one when it is so old.
RENEW_AFTER_S: Final = 1.0
# So many queues are known that are not the fleet's and have confirmed a message.
KNOWN_KEPT: Final = 10_000
# The key of a message for nobody.
NOBODY: Final = "fleet.nobody"
# A queue is silent that does not confirm what was published so long before something that was confirmed.
OVERTAKEN_S: Final = 1.0


class Link:
    """One connection that comes back by itself, with one channel for publishing or one for each subscription."""

    def __init__(self, config: BrokerConfig, name: str, lanes: list[str], *, publishes: bool) -> None:
        self._config = config
        self._name = name
        self.lanes = lanes
        self._publishes = publishes
        # In an order of its own: else all processes would sit on the first node, and all move to the next when it dies.
        self._urls = itertools.cycle(random.sample(config.urls, len(config.urls)))
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: aio_pika.abc.AbstractConnection | None = None
        # By the channel below; aio-pika keeps its own by weak reference only.
        self._channels: dict[aiormq.Channel | None, PikaChannel] = {}
        self._publisher: aiormq.Channel | None = None
        self._publisher_since_s = 0.0
        self._retiring: set[asyncio.Task[None]] = set()
        self._opening: set[int] = set()  # numbers of channels that are being opened
        self._idle: list[tuple[PikaChannel, aiormq.Channel]] = []
        self.subscriptions: list[Subscription] = []
        self._declared = False
        self._known: set[str] = set()
        self._newcomers: aiormq.Channel | None = None
        self._newcomers_since_s = 0.0
        self._newcoming = asyncio.Lock()
        self._asking: asyncio.Task[None] | None = None
        # When the newest of the messages was published that RabbitMQ has answered, by the loop's clock.
        self.answered_s = -math.inf
        self.connects = 0
        self.up = self._up.is_set
        self.blocked_since_s: float | None = None
        self._alarm: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects for the first time and stays connected from then on.

        Raises:
            ConfigError: RabbitMQ does not let us in, and no retry would change that (`permanent`).
            TopologyError: a queue exists with other arguments.
            BrokerLost: RabbitMQ did not answer within `patience_s`.
        """
        async for attempt in self._retrying(stop_after_s=self._config.patience_s):
            with attempt:
                await self._open_one()
        self._task = asyncio.create_task(self._stay_up(), name=f"link {self._name}")
        if self._publishes:
            self._alarm = asyncio.create_task(self._heed_alarms(), name=f"alarms {self._name}")

    async def close(self) -> None:
        """Leaves the broker; nothing may be in flight any more."""
        own = (self._task, self._alarm, self._asking)
        await end_tasks([*self._retiring, *(task for task in own if task is not None)])
        await self._drop()

    async def lasts(self) -> None:
        """Returns never; raises what `start` does if the connection was lost and did not come back for `give_up_s`."""
        assert self._task is not None
        await asyncio.shield(self._task)

    @asynccontextmanager
    async def aside(self) -> AsyncGenerator[aiormq.Channel, None]:
        """A channel for a few acts aside: what goes wrong there closes no other one.

        It is kept for the next: each channel that was ever opened keeps 4 KB of memory until its connection is closed
        (aio-pika 10.2.1 with aiormq 7.2.4), and some look aside every second.

        Raises, also out of what is done with it:
            BrokerLost: the connection is away, or the broker did not answer in time.
            Unroutable: a queue is not there.
            TopologyError: a queue exists with other arguments.
        """
        connection = self._connection
        if connection is None:
            raise BrokerLost("no connection to RabbitMQ")
        try:
            channel, lower = self._idle.pop() if self._idle else await self._one_more(connection)
            try:
                yield lower
            except BaseException:
                async with asyncio.timeout(self._config.timeout_s):
                    await channel.close()
                raise
            if connection is self._connection and not lower.is_closed:
                self._idle.append((channel, lower))
        except ChannelNotFoundEntity as error:
            raise Unroutable(str(error)) from error
        except ChannelPreconditionFailed as error:
            raise TopologyError(f"RabbitMQ holds a queue of ours with other arguments: {error}") from error
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            raise BrokerLost(f"no answer from RabbitMQ: {error!r}") from error

    async def _one_more(self, connection: aio_pika.abc.AbstractConnection) -> tuple[PikaChannel, aiormq.Channel]:
        async with asyncio.timeout(self._config.timeout_s):
            channel = await self._numbered(connection)
            lower = await channel.get_underlay_channel()
        assert isinstance(lower, aiormq.Channel)
        return channel, lower

    async def _numbered(self, connection: aio_pika.abc.AbstractConnection, **settings: bool) -> PikaChannel:
        """Opens a channel under the lowest free number.

        aiormq's own choice is one above the highest in use: where channels come and go it passes the last number that
        RabbitMQ allows while few are open, and RabbitMQ ends the connection.

        Raises:
            BrokerLost: all numbers are in use, or the connection is away.
        """
        transport = connection.transport
        if transport is None:
            raise BrokerLost("no connection to RabbitMQ")
        taken = transport.connection.channels.keys() | self._opening
        number = next((each for each in range(1, _most_channels(transport) + 1) if each not in taken), None)
        if number is None:
            raise BrokerLost("all channels that RabbitMQ allows on the connection are in use")
        self._opening.add(number)
        try:
            return await connection.channel(number, **settings)
        finally:
            self._opening.discard(number)

    async def take_back(self, queue: str, handler: Handler) -> int:
        """Gives all that waits in a queue now to `handler`; see `Broker.take_back`."""
        connection, taken = self._connection, 0
        if connection is None:
            raise BrokerLost("no connection to RabbitMQ")
        try:
            async with await self._numbered(connection, publisher_confirms=False) as channel:
                lower = await channel.get_underlay_channel()
                while batch := await self._get(lower, queue):
                    await asyncio.gather(*map(handler, batch))
                    taken += len(batch)
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            raise BrokerLost(f"{queue} could not be taken back: {error!r}") from error
        return taken

    async def _get(self, channel: aiormq.abc.AbstractChannel, queue: str) -> list[Delivery]:
        batch: list[Delivery] = []
        while len(batch) < BATCH:
            message = await channel.basic_get(queue, timeout=self._config.timeout_s)
            if isinstance(message.delivery, aiormq.spec.Basic.GetEmpty):
                break
            batch.append(Delivery(message, queue, no_ack=False))
        return batch

    async def channel(self, timeout_s: float) -> aiormq.Channel:
        """The publishing channel, waiting for the connection if it is away.

        Raises:
            BrokerLost: it is still away after the time-out.
        """
        if not self._up.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._up.wait()
            except TimeoutError as error:
                raise BrokerLost("no connection to RabbitMQ") from error
        assert self._publisher is not None
        return self._publisher

    async def channel_to(self, queue: str, timeout_s: float) -> aiormq.Channel:
        """The publishing channel for a queue that is not the fleet's: another one until it has confirmed a message.

        A quorum queue that nobody leads holds a channel up that publishes to it for the first time, for 30 s
        (`rabbit_fifo_client` registers it there, and waits). Later it only does not confirm. Raises as `channel` does.
        """
        publisher = await self.channel(timeout_s)
        if queue in self._known:
            return publisher
        async with self._newcoming:
            if self._newcomers is None or self._newcomers.is_closed:
                connection = self._connection
                try:
                    async with asyncio.timeout(timeout_s):
                        newcomers = await self._new_channel()
                except (Exception, asyncio.CancelledError) as error:
                    if not lost(error):
                        raise
                    raise BrokerLost(f"no channel: {error!r}") from error
                if connection is not self._connection:
                    raise BrokerLost("the connection was lost meanwhile")
                self._newcomers, self._newcomers_since_s = newcomers, asyncio.get_running_loop().time()
                self._watch(newcomers)
            return self._newcomers

    def confirmed(self, queue: str, channel: aiormq.Channel) -> None:
        """A queue that is not the fleet's has confirmed a message on this channel."""
        if channel is self._newcomers:
            if len(self._known) >= KNOWN_KEPT:
                self._known.clear()
            self._known.add(queue)

    def held_up(self, channel: aiormq.Channel, tag: int | None) -> bool:
        """Whether a message before this one may hold it up; newcomers get another channel from now on.

        It may where newcomers publish. The first there that was not confirmed waits for its own queue alone.
        """
        if channel is self._newcomers:
            self._leave_newcomers()
        unconfirmed: list[int] = [*channel.confirmations]
        return channel is not self._publisher and unconfirmed[:1] != [tag]

    def _leave_newcomers(self) -> None:
        if self._newcomers is not None:
            self._start_retiring(self._newcomers)
            self._newcomers = None

    def ask(self) -> None:
        """Finds out whether RabbitMQ answers what is published now: it confirms also what no queue takes."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name=f"ask {self._name}")

    async def _ask(self) -> None:
        asked_s = asyncio.get_running_loop().time()
        try:
            if self._publisher is not None:
                await self._publisher.basic_publish(b"", routing_key=NOBODY, wait=False)
                self.answered_s = max(self.answered_s, asked_s)
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            log.debug("no_answer", extra={"error": repr(error)})

    async def renew(self, refused: aiormq.Channel) -> None:
        """Publishes on a fresh channel from now on, unless this one was not the newest, or is new itself.

        A queue refuses a channel for as long as a node is away that led it when the channel first published to it,
        whoever leads the queue by then (RabbitMQ before 3.12.5: its pull requests 9221 and 9241). What is in flight on
        the channel ends there.
        """
        clock = asyncio.get_running_loop().time
        if refused is self._newcomers and clock() >= self._newcomers_since_s + RENEW_AFTER_S:
            self._leave_newcomers()
        if refused is not self._publisher or clock() < self._publisher_since_s + RENEW_AFTER_S:
            return
        self._publisher_since_s = clock()
        try:
            async with asyncio.timeout(self._config.timeout_s):
                fresh = await self._new_channel()
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            log.debug("no_fresh_channel", extra={"error": repr(error)})
            return
        if self._publisher is refused:
            self._publisher = fresh
            self._known.clear()
            self._watch(fresh)
            self._start_retiring(refused)

    def _start_retiring(self, channel: aiormq.Channel) -> None:
        self._retiring.add(retiring := asyncio.create_task(self._retire(channel)))
        retiring.add_done_callback(self._retiring.discard)

    async def _retire(self, channel: aiormq.Channel) -> None:
        while channel.confirmations and not channel.is_closed:
            await asyncio.sleep(RENEW_AFTER_S)
        await self._close(channel)

    async def add(self, subscription: Subscription) -> None:
        """Consumes from now on, on this connection and all that follow it.

        Raises:
            ConfigError: RabbitMQ allows no further channel on this connection.
        """
        self.check_room(1)
        self.subscriptions.append(subscription)
        if not self._up.is_set():
            return
        try:
            await self._attach(subscription)
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            # The connection broke meanwhile: the next one has the subscription too.
            log.debug("subscription_waits", extra={"queue": subscription.queue, "error": repr(error)})
            self._lost.set()

    def check_room(self, more: int) -> None:
        """Sees whether so many more subscriptions fit; where one channel is too many RabbitMQ ends the connection.

        Raises:
            ConfigError: they don't.
        """
        transport = getattr(self._connection, "transport", None)
        if transport is None:
            return
        most = _most_channels(transport)
        wanted = len(self.subscriptions) + more + CHANNELS_BESIDE
        if wanted > most:
            raise ConfigError(
                f"RabbitMQ allows {most} channels on a connection (its channel_max), and {wanted} are needed, "
                "two for each lane: serve fewer lanes, or raise it"
            )

    async def remove(self, subscription: Subscription) -> None:
        """Consumes no more; returns when what was taken is over."""
        self.subscriptions.remove(subscription)
        await subscription.stop_taking(self._config.timeout_s)
        while subscription.tasks:
            await asyncio.wait(subscription.tasks)
        await self._close(subscription.channel)

    async def _close(self, channel: aiormq.Channel | None) -> None:
        if (closed := self._channels.pop(channel, None)) is None:
            return
        try:
            async with asyncio.timeout(self._config.timeout_s):
                await closed.close()
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            log.debug("channel_is_gone_already", extra={"error": repr(error)})

    def _retrying(self, stop_after_s: float) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(BrokerLost),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            before_sleep=self._say_retry,
            stop=stop_after_delay(stop_after_s),
            reraise=True,
        )

    def _say_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "connect_failed", extra={"connection": self._name, "try": state.attempt_number, "error": str(error)}
        )

    async def _stay_up(self) -> None:
        while True:
            await self._lost.wait()
            give_up_s = time.monotonic() + self._config.give_up_s
            await self._drop()
            while not self._up.is_set():
                try:
                    async for attempt in self._retrying(stop_after_s=max(give_up_s - time.monotonic(), 0.001)):
                        with attempt:
                            await self._open_one()
                except FleetError:
                    if time.monotonic() >= give_up_s:
                        raise
                    # A topology or a permission that changed under us: only a person can mend it, but it may be mended.
                    log.exception("broker_does_not_take_us_back", extra={"connection": self._name})
                    await asyncio.sleep(5)

    async def _open_one(self) -> None:
        """Connects to the next node, or to the one after it where that refuses us; raises what the last one did."""
        for left in reversed(range(len(self._config.urls))):
            try:
                return await self._open()
            except ConfigError as error:
                if not left:
                    raise
                log.warning("node_refuses_us", extra={"connection": self._name, "error": str(error)})
        return None

    async def _open(self) -> None:
        url = next(self._urls)
        self._lost.clear()
        try:
            async with asyncio.timeout(self._config.timeout_s * 3):
                self._connection = await aio_pika.connect(
                    url,
                    timeout=self._config.timeout_s,
                    heartbeat=self._config.heartbeat_s,
                    client_properties={"connection_name": f"{self._name} ({os.getpid()})"},
                )
                await self._set_up()
        except ChannelPreconditionFailed as error:
            await self._drop()
            raise TopologyError(
                f"RabbitMQ at {_place(url)} holds a queue of ours with other arguments: {error}"
            ) from error
        except (Exception, asyncio.CancelledError) as error:
            await self._drop()
            if not lost(error):
                raise
            if said := await permanent.why_cut(error, url, self._config.timeout_s):
                raise ConfigError(f"no connection to RabbitMQ at {_place(url)}: {said}") from error
            raise BrokerLost(f"no connection to RabbitMQ at {_place(url)}: {error!r}") from error
        self.connects += 1
        self._up.set()
        log.info("connected", extra={"connection": self._name, "broker": _place(url), "count": self.connects})

    async def _set_up(self) -> None:
        channel = await self._new_channel()
        if self._config.declare:
            await self._declare(channel)
        if self._publishes:
            self._publisher, self._publisher_since_s = channel, asyncio.get_running_loop().time()
        self._watch(channel)
        attached = set[Subscription]()
        # Some come and go meanwhile.
        while waiting := [each for each in self.subscriptions if each not in attached]:
            await self._attach(waiting[0])
            attached.add(waiting[0])

    async def _attach(self, subscription: Subscription) -> None:
        channel = await self._new_channel()
        await subscription.attach(channel, self._config.timeout_s)
        if subscription in self.subscriptions:
            self._watch(channel)
        else:
            await self._close(channel)

    async def _declare(self, channel: aiormq.Channel) -> None:
        """Declares what is not there; on a connection that comes back it binds only where something is gone.

        All nodes of a cluster agree on a binding, also on one that is there already: while a node is silent and not yet
        given up (for a minute, its `net_ticktime`), no answer comes. What is there is told at once.
        """
        if self._declared:
            try:
                await find(channel, self.lanes, self._config.timeout_s)
            except ChannelNotFoundEntity:
                self._declared = False  # the next try declares and binds all
                raise
        await declare(channel, self.lanes, self._config.timeout_s, bind=not self._declared)
        self._declared = True

    async def _new_channel(self) -> aiormq.Channel:
        assert self._connection is not None
        # Returned messages must raise: callbacks are one more thing that can get lost.
        settings = {"publisher_confirms": self._publishes, "on_return_raises": self._publishes}
        channel = await self._numbered(self._connection, **settings)
        # The channel below aio-pika's own: 100 µs less CPU a message, and the same connection and error handling.
        lower = await channel.get_underlay_channel()
        assert isinstance(lower, aiormq.Channel)
        self._channels[lower] = channel
        return lower

    async def _heed_alarms(self) -> None:
        """Says when RabbitMQ takes nothing from this connection, and when it does again.

        Short of memory or disk it says so (connection.blocked) and stops to read. aiormq then holds publishes back,
        and tells nobody but its log: all that can be asked is whether it is `ready`.
        """
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(ALARM_EVERY_S)
            transport = getattr(self._connection, "transport", None)
            if transport is None or not self._up.is_set():
                blocked = False
            else:
                ready = asyncio.ensure_future(transport.connection.ready())
                blocked = not (await asyncio.wait([ready], timeout=ALARM_EVERY_S))[0]
                await end_tasks([ready])
            if blocked and self.blocked_since_s is None:
                self.blocked_since_s = clock()
                log.warning("broker_blocks_us", extra={"connection": self._name})
            elif not blocked and self.blocked_since_s is not None:
                blocked_s = round(clock() - self.blocked_since_s, 1)
                self.blocked_since_s = None
                log.info("broker_takes_again", extra={"connection": self._name, "blocked_s": blocked_s})

    def _watch(self, channel: aiormq.Channel) -> None:
        """A channel that closes, or a consumer the broker cancels, ends the whole connection, to be rebuilt cleanly."""
        connection = self._connection

        def lose(*_: object) -> None:
            if self._connection is connection and channel in self._channels:
                self._up.clear()
                self._lost.set()

        channel.closing.add_done_callback(lose)  # pyright: ignore[reportUnknownMemberType]  (a bare Future there)
        channel.on_consumer_cancel_callbacks.add(lose)

    async def _drop(self) -> None:
        self._up.clear()
        connection, self._connection, self._publisher = self._connection, None, None
        self._newcomers = None
        self._known.clear()
        self._channels.clear()
        self._idle.clear()
        if connection is not None:
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    await connection.close()
            except (Exception, asyncio.CancelledError) as error:
                if not lost(error):
                    raise
                log.debug("close_of_a_dead_connection", extra={"error": repr(error)})


class Broker:
    """The fleet's door to RabbitMQ for one process.

    Args:
        config: where it is and how long to wait for it.
        name: shown in RabbitMQ's list of connections.
        lanes: whose work queues must exist.
        reports: it publishes to `fleet.reports`, on a connection of its own. RabbitMQ stops to read for seconds from
            one that publishes faster than quorum queues write; a heartbeat must not wait behind that.
    """

    def __init__(self, config: BrokerConfig, name: str, lanes: list[str], *, reports: bool = False) -> None:
        self._config = config
        self._consumer = Link(config, f"{name} consumes", lanes, publishes=False)
        self._publisher = Link(config, f"{name} publishes", lanes, publishes=True)
        self._reporter = Link(config, f"{name} reports", lanes, publishes=True) if reports else self._publisher
        self._shared = list(dict.fromkeys((self._consumer, self._publisher, self._reporter)))
        # These declare nothing: they come back often where somebody's address closes them.
        plain = replace(config, declare=False)
        direct = [Link(plain, f"{name} {does}", lanes, publishes=True) for does in ("replies", "tries to reply")]
        self.direct = DirectReplies(*direct)
        self._links = [*self._shared, *direct]
        self._room = Room(sys.maxsize, LARGE_HELD_BYTES)
        self._message_prefix = os.urandom(6).hex()
        self._message_numbers = itertools.count()

    async def start(self) -> None:
        """Connects and declares the topology; see `Link.start` for what it raises."""
        for link in self._links:
            await link.start()

    @property
    def declares(self) -> bool:
        """Whether it declares queues, and may delete them."""
        return self._config.declare

    @property
    def connected(self) -> bool:
        """Whether all connections stand; but for those of direct reply-to, which clients can close."""
        return all(link.up() for link in self._shared)

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ, short of memory or disk space, takes nothing from us at the moment."""
        return self._publisher.blocked_since_s is not None

    @property
    def connects(self) -> int:
        """How often the connection was made that was lost most often; but for those of direct reply-to."""
        return max(link.connects for link in self._shared)

    async def lasts(self) -> None:
        """Returns never.

        Raises:
            BrokerLost, ConfigError, TopologyError: a connection did not come back for `give_up_s`.
        """
        await asyncio.gather(*(link.lasts() for link in self._links))

    async def ill(self) -> str:
        """Why only a fresh process would help, as far as RabbitMQ tells; empty if nothing speaks for it."""
        starving = await self.starving()
        return f"messages wait and don't come: {', '.join(starving)}" if starving else ""

    async def starving(self, *, quiet_s: float = QUIET_S) -> list[str]:
        """The queues that hold messages while we have room for them and got none for `quiet_s`.

        The connection that publishes is asked, as the one that consumes may be frozen. While it is away nobody knows.
        """
        starving: list[str] = []
        for subscription in list(self._consumer.subscriptions):
            queue = subscription.queue
            if queue is None or not subscription.hungry(quiet_s):
                continue
            try:
                if not await self._waiting(queue):
                    continue
                await asyncio.sleep(RECHECK_S)  # it may have come just now
                if subscription.hungry(quiet_s) and await self._waiting(queue):
                    starving.append(queue)
            except BrokerError as error:
                log.debug("queue_unknown", extra={"queue": queue, "error": str(error)})
        return starving

    async def take_back(self, queue: str, handler: Handler) -> int:
        """Takes all that waits in a queue now, a few messages at a time, and gives each to `handler`, which settles it.

        Returns:
            How many there were.

        Raises:
            BrokerLost: the connection died; what was not settled is in the queue still.
        """
        return await self._consumer.take_back(queue, handler)

    async def _waiting(self, queue: str) -> int:
        return (await self._found(queue)).message_count or 0

    async def consumers(self, queue: str) -> int:
        """How many consume a queue, all processes together; see `Link.aside` for what it raises."""
        return (await self._found(queue)).consumer_count or 0

    async def _found(self, queue: str) -> Queue.DeclareOk:
        async with self.aside() as channel:
            return await channel.queue_declare(queue, passive=True, timeout=self._config.timeout_s)

    def aside(self) -> AbstractAsyncContextManager[aiormq.Channel]:
        """A channel on the connection that publishes, for a few acts aside; see `Link.aside` for what it raises."""
        return self._publisher.aside()

    async def serve_lanes(self, lanes: list[str]) -> None:
        """Declares these lanes' work queues, now and on every connection from now on, in place of those before.

        Without `declare` in the configuration it sees whether they are there. Where this raises all is as before.

        Raises:
            BrokerLost: the broker did not answer in time.
            TopologyError: a queue exists with other arguments.
            Unroutable: a queue is not there, and is not ours to declare.
        """
        async with self.aside() as channel:
            if self.declares:
                await declare(channel, lanes, self._config.timeout_s)
            else:
                for queue in topology.lane_queues(lanes):
                    await channel.queue_declare(queue.name, passive=True, timeout=self._config.timeout_s)
        for link in self._links:
            link.lanes = lanes

    def check_lanes(self, lanes: Collection[str]) -> None:
        """Sees whether the queues of all these lanes can be consumed here beside what is consumed already.

        Raises:
            ConfigError: RabbitMQ does not allow as many channels.
        """
        queues = {queue.name for queue in topology.lane_queues(list(lanes))}
        self._consumer.check_room(len(queues - {each.queue for each in self._consumer.subscriptions}))

    async def restore(self) -> None:
        """Declares again what somebody may have deleted; without `declare` it only looks. Raises as `serve_lanes`."""
        await self.serve_lanes(self._publisher.lanes)

    def subscribed(self, queue: str) -> bool:
        """Whether this queue is consumed."""
        return bool(self._of(queue))

    async def unsubscribe(self, queue: str) -> None:
        """Consumes a queue no more; returns when what was taken from it is over."""
        for subscription in self._of(queue):
            await self._consumer.remove(subscription)

    async def resize(self, queue: str, prefetch: int) -> None:
        """Holds so many unsettled deliveries of a queue from now on."""
        for subscription in self._of(queue):
            await subscription.resize(prefetch, self._config.timeout_s)

    def _of(self, queue: str) -> list[Subscription]:
        return [each for each in self._consumer.subscriptions if each.queue == queue]

    async def subscribe(
        self, queue: str | None, handler: Handler, *, prefetch: int, exchange: str = ""
    ) -> Subscription:
        """Consumes a queue (or, for None, an exchange through a queue of our own) until `close`."""
        subscription = Subscription(queue, handler, prefetch, self._room, exchange)
        await self._consumer.add(subscription)
        return subscription

    async def publish(
        self,
        body: bytes,
        routing_key: str,
        *,
        exchange: str = "",
        content_type: str = MSGPACK,
        correlation_id: str | None = None,
        persistent: bool = True,
        mandatory: bool = True,
        retry_refused: bool = True,
        patience_s: float | None = None,
        silent_after_s: float | None = None,
    ) -> None:
        """Publishes and waits for the confirm.

        It is sent again when the connection died before the confirm; so it is after a refusal (a full queue), unless
        `retry_refused` is off. All of it takes little more than `patience_s`, the configured one unless it is given.
        With `silent_after_s` it goes to a queue that is not the fleet's, and may be held up by nobody else.

        Raises:
            Unroutable: no queue takes it.
            Refused: the queue was full, or nobody led it, for `patience_s`.
            Silent: no confirm for `silent_after_s`, while RabbitMQ confirms what was published later.
            BrokerLost: no confirm within `patience_s`; the message may or may not be there.
        """
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + (self._config.patience_s if patience_s is None else patience_s)
        direct = not exchange and addresses.is_direct(routing_key)
        watched_s = None if direct else silent_after_s

        async def send(message_type: str | None) -> None:
            if direct:
                await self.direct.publish(routing_key, functools.partial(put, message_type))
            else:
                await put(message_type, self._reporter if exchange == topology.REPORTS else self._publisher)

        async def put(message_type: str | None, link: Link) -> None:
            if watched_s is None:
                channel = await link.channel(self._config.timeout_s)
            else:
                channel = await link.channel_to(routing_key, self._config.timeout_s)
            properties = Basic.Properties(
                # Returned messages are matched to publishes by this id: it must be unique among those in flight.
                message_id=f"{self._message_prefix}-{next(self._message_numbers)}",
                content_type=content_type,
                correlation_id=correlation_id,
                message_type=message_type,
                delivery_mode=2 if persistent else 1,
            )
            sent_s, left_s = clock(), max(self._config.timeout_s, give_up_s - clock())
            try:
                async with _unless_silent(link, channel, properties, watched_s):
                    await channel.basic_publish(
                        body,
                        exchange=exchange,
                        routing_key=routing_key,
                        properties=properties,
                        # RabbitMQ delivers a direct one and returns it as unroutable as well.
                        mandatory=mandatory and not direct,
                        timeout=left_s if left_s < math.inf else None,
                        wait=False,
                    )
            except aiormq.exceptions.PublishError as error:
                raise Unroutable(f"no queue takes {exchange!r}/{routing_key!r}") from error
            except aiormq.exceptions.DeliveryError as error:
                link.answered_s = max(link.answered_s, sent_s)
                await link.renew(channel)
                raise Refused(f"the queue behind {exchange!r}/{routing_key!r} is full, or has no leader") from error
            except (Exception, asyncio.CancelledError) as error:
                if not lost(error):
                    raise
                raise BrokerLost(f"publish to {exchange!r}/{routing_key!r}: {error!r}") from error
            link.answered_s = max(link.answered_s, sent_s)
            link.confirmed(routing_key, channel)

        again = (BrokerLost, Refused) if retry_refused else (BrokerLost,)
        try:
            await send(None)
        except again as error:
            log.info("publish_again", extra={"exchange": exchange, "routing_key": routing_key, "error": str(error)})
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(again),
                wait=wait_random_exponential(multiplier=0.1, max=2),
                stop=lambda _: clock() >= give_up_s,
                reraise=True,
            ):
                with attempt:
                    await send(AGAIN)

    async def stop_taking(self) -> None:
        """Takes no more deliveries."""
        stopping = (each.stop_taking(self._config.timeout_s) for each in self._consumer.subscriptions)
        await asyncio.gather(*stopping)

    async def drain(self, grace_s: float) -> None:
        """Waits for the handlers that run, at most `grace_s`."""
        await asyncio.gather(*(subscription.drain(grace_s) for subscription in self._consumer.subscriptions))

    async def close(self) -> None:
        """Leaves the broker. What is unsettled comes to another consumer, and no handler goes on with it here."""
        await asyncio.gather(*(link.close() for link in self._links))
        await end_tasks(task for each in self._consumer.subscriptions for task in each.running())


@asynccontextmanager
async def _unless_silent(
    link: Link, channel: aiormq.Channel, message: Basic.Properties, after_s: float | None
) -> AsyncGenerator[None, None]:
    """Ends a publication with Silent that has no confirm for so long, while later ones to other queues have theirs."""
    if after_s is None:
        yield
        return
    loop = asyncio.get_running_loop()
    sent_s, limit = loop.time(), asyncio.timeout(None)
    looking: asyncio.TimerHandle
    tag: int | None = None

    def look() -> None:
        nonlocal looking, tag
        tag = channel.message_id_delivery_tag.get(message.message_id or "")
        if tag is not None and link.answered_s >= sent_s + OVERTAKEN_S:
            limit.reschedule(loop.time())
        else:
            link.ask()
            looking = loop.call_later(OVERTAKEN_S / 4, look)

    looking = loop.call_later(after_s, look)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        text = f"no confirm for {loop.time() - sent_s:.0f} s, while others have theirs"
        held_up = link.held_up(channel, tag)
        raise Silent(text, lambda: tag in channel.confirmations and not channel.is_closed, held_up=held_up) from error
    finally:
        looking.cancel()


async def find(channel: aiormq.Channel, lanes: list[str], timeout_s: float) -> None:
    """Looks for every exchange and queue, whatever its arguments; raises ChannelNotFoundEntity for one that is away."""
    for exchange in topology.EXCHANGES:
        await channel.exchange_declare(exchange.name, passive=True, timeout=timeout_s)
    for queue in topology.queues(lanes):
        await channel.queue_declare(queue.name, passive=True, timeout=timeout_s)


async def declare(channel: aiormq.Channel, lanes: list[str], timeout_s: float, *, bind: bool = True) -> None:
    """Declares the whole topology; what exists with the same arguments stays as it is."""
    for exchange in topology.EXCHANGES:
        await channel.exchange_declare(exchange.name, exchange_type=exchange.kind, durable=True, timeout=timeout_s)
    for queue in topology.queues(lanes):
        await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments), timeout=timeout_s)
        if bind and queue.exchange:
            await channel.queue_bind(queue.name, queue.exchange, queue.routing_key, timeout=timeout_s)


def _most_channels(transport: aio_pika.abc.UnderlayConnection) -> int:
    """The highest channel number that RabbitMQ and we agreed on; 0 is no limit but that of AMQP's 16 bits."""
    lower = transport.connection
    assert isinstance(lower, aiormq.Connection)
    return lower.connection_tune.channel_max or 65_535


def _place(url: str) -> str:
    """Host and port of a URL, for messages: never its password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"
