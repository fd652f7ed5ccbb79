"""Publishes over one connection that comes back, and waits for RabbitMQ's confirm.

A confirm that ends because the connection died looks like `CancelledError`, or is a bare `Exception`; here it is
`BrokerLost`, and a real cancellation stays one.
"""

import asyncio
import itertools
import logging
import math
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import aiormq
from msgspec import Struct
from pamqp.commands import Basic

from ... import addresses
from ...config import BrokerConfig
from ...errors import BrokerLost, Refused, Silent, Unroutable
from ..deliveries import AGAIN
from ..tasks import end_tasks, keeping_cancellation, lost
from .alarm import Alarm
from .channels import Channels
from .declaration import Declaration
from .link import Link
from .publishing import PublishingChannels

log = logging.getLogger(__name__)

# No queue has this name: RabbitMQ confirms a message for it, and drops it.
NOBODY: Final = "fleet.nobody"
# A queue is silent when it has not confirmed a message so long after RabbitMQ confirmed one that came so much later.
OVERTAKEN_S: Final = 1.0
# So often in that time it is looked.
LOOKS: Final = 4
# How often it is looked whether messages on a retired channel are still unconfirmed.
RETIRE_EVERY_S: Final = 1.0


class Outgoing(Struct, frozen=True):
    """A message to publish.

    Args:
        body: its body.
        routing_key: as in AMQP, like the next three.
        exchange: empty for the default one, where the routing key is the queue's name.
        content_type: of the body.
        correlation_id: None for none.
        persistent: whether it outlives a restart of RabbitMQ.
        mandatory: whether it is an error if no queue takes it.
    """

    body: bytes
    routing_key: str
    exchange: str
    content_type: str
    correlation_id: str | None
    persistent: bool
    mandatory: bool

    @property
    def direct(self) -> bool:
        """Whether it goes to an address of direct reply-to."""
        return not self.exchange and addresses.is_direct(self.routing_key)

    @property
    def place(self) -> str:
        """Where it goes, for errors."""
        return f"{self.exchange!r}/{self.routing_key!r}"


class Publisher:
    """Publishes over a connection of its own.

    Args:
        config: where RabbitMQ is, and how long to wait for it.
        name: shown in RabbitMQ's list of connections.
        declaration: what is declared on each new connection; None for nothing.
    """

    def __init__(self, config: BrokerConfig, name: str, declaration: Declaration | None) -> None:
        self._config = config
        self._name = name
        self._declaration = declaration
        self.link = Link(config, name, self._set_up, confirms=True)
        self._alarm = Alarm(self.link, name)
        self._publishing: PublishingChannels | None = None
        self._watching: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[None] | None = None
        # When the newest message was published that RabbitMQ has answered, by the loop's clock.
        self._answered_s = -math.inf
        # Returned messages are matched to publishes by their ids: those in flight must be unique.
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Connects; see `Link.start` for what it raises."""
        await self.link.start()
        self._watching = asyncio.create_task(self._alarm.watch(), name=f"alarm {self._name}")

    async def close(self) -> None:
        """Closes the connection; nothing may be in flight any more."""
        own = (self._watching, self._asking)
        await end_tasks([*self._retiring, *(task for task in own if task is not None)])
        await self.link.close()

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ, short of memory or disk space, reads nothing from this connection at the moment."""
        return self._alarm.since_s is not None

    async def publish(
        self,
        message: Outgoing,
        *,
        give_up_s: float = math.inf,
        silent_after_s: float | None = None,
        repeated: bool = False,
    ) -> None:
        """Publishes a message once, and waits for the confirm.

        Args:
            message: the message.
            give_up_s: when to stop waiting, by the loop's clock; it waits at least `timeout_s` of the configuration.
            silent_after_s: given for a queue that is not the fleet's, see `Broker.publish`.
            repeated: whether it was published before, and may be there already.

        Raises:
            Unroutable, Refused, Silent, BrokerLost: as `Broker.publish`.
        """
        timeout_s, clock = self._config.timeout_s, asyncio.get_running_loop().time
        await self.link.wait_up(timeout_s)
        assert self._publishing is not None
        publishing = self._publishing
        channel = publishing.main if silent_after_s is None else await publishing.of(message.routing_key)
        message_id = f"{self._prefix}-{next(self._numbers)}"
        sent_s = clock()
        left_s = max(timeout_s, give_up_s - sent_s) if give_up_s < math.inf else None
        sending = _send(channel, message, message_id, left_s, repeated=repeated)
        try:
            with keeping_cancellation():
                if silent_after_s is None:
                    await sending
                else:
                    async with self._unless_silent(publishing, channel, message_id, silent_after_s):
                        await sending
        except aiormq.exceptions.PublishError as error:
            raise Unroutable(f"no queue takes {message.place}") from error
        except aiormq.exceptions.DeliveryError as error:
            self._answered_s = max(self._answered_s, sent_s)
            await publishing.renew(channel)
            raise Refused(f"the queue behind {message.place} is full, or has no leader") from error
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            raise BrokerLost(f"publish to {message.place}: {error!r}") from error
        self._answered_s = max(self._answered_s, sent_s)
        publishing.confirmed(message.routing_key, channel)

    @asynccontextmanager
    async def _unless_silent(
        self, publishing: PublishingChannels, channel: aiormq.Channel, message_id: str, after_s: float
    ) -> AsyncGenerator[None, None]:
        """Ends a publish with `Silent` that has no confirm after a time, while RabbitMQ confirms later messages."""
        loop = asyncio.get_running_loop()
        sent_s, limit = loop.time(), asyncio.timeout(None)
        looking: asyncio.TimerHandle
        tag: int | None = None
        overtaken = 0  # how often that was seen: looks are counted, as this process may stand still

        def look() -> None:
            nonlocal looking, tag, overtaken
            tag = channel.message_id_delivery_tag.get(message_id)
            if tag is None or self._answered_s < sent_s + OVERTAKEN_S:
                self._ask()
            else:
                overtaken += 1
            # What RabbitMQ did not read for a while it reads together, and then it answers the question first.
            if overtaken > LOOKS:
                limit.reschedule(loop.time())
            else:
                looking = loop.call_later(OVERTAKEN_S / LOOKS, look)

        looking = loop.call_later(after_s, look)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            text = f"no confirm for {loop.time() - sent_s:.0f} s, while others have theirs"
            held_up = publishing.leave(channel, tag)
            raise Silent(
                text, lambda: tag in channel.confirmations and not channel.is_closed, held_up=held_up
            ) from error
        finally:
            looking.cancel()

    def _ask(self) -> None:
        """Finds out whether RabbitMQ answers what is published now: it confirms also what no queue takes."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._asked(), name=f"ask {self._name}")

    async def _asked(self) -> None:
        asked_s = asyncio.get_running_loop().time()
        try:
            if self._publishing is not None:
                await self._publishing.main.basic_publish(b"", routing_key=NOBODY, wait=False)
                self._answered_s = max(self._answered_s, asked_s)
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            log.debug("question_not_answered", extra={"error": repr(error)})

    async def _set_up(self, channels: Channels) -> None:
        main = await channels.open()
        if self._declaration is not None:
            await self._declaration.on(main)

        def retire(channel: aiormq.Channel) -> None:
            self._retiring.add(task := asyncio.create_task(_close_when_confirmed(channels, channel)))
            task.add_done_callback(self._retiring.discard)

        self._publishing = PublishingChannels(channels, main, self._config.timeout_s, retire)


async def _send(
    channel: aiormq.Channel, message: Outgoing, message_id: str, timeout_s: float | None, *, repeated: bool
) -> None:
    """Publishes on this channel and waits for the confirm; raises what aiormq raises."""
    await channel.basic_publish(
        message.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
        properties=Basic.Properties(
            message_id=message_id,
            content_type=message.content_type,
            correlation_id=message.correlation_id,
            message_type=AGAIN if repeated else None,
            delivery_mode=2 if message.persistent else 1,
        ),
        # RabbitMQ delivers a direct reply and returns it as unroutable as well.
        mandatory=message.mandatory and not message.direct,
        timeout=timeout_s,
        wait=False,
    )


async def _close_when_confirmed(channels: Channels, channel: aiormq.Channel) -> None:
    while channel.confirmations and not channel.is_closed:
        await asyncio.sleep(RETIRE_EVERY_S)
    await channels.close(channel)
