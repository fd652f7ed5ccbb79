"""Consumes queues over one connection that comes back: each subscription has a channel of its own on it.

How many there may be is RabbitMQ's choice; `consumers` takes more connections where they are more.
"""

import asyncio
import logging
from typing import Final

import aiormq

from ...config import BrokerConfig
from ...errors import BrokerLost
from ..deliveries import Delivery, Handler, Subscription
from ..tasks import lost
from .channels import Channels
from .declaration import Declaration
from .link import Link

log = logging.getLogger(__name__)

# How many messages are handled at a time when a queue is taken back.
BATCH: Final = 50
# Channels that the connection needs beside one for each subscription: to declare, and to take queues back.
CHANNELS_BESIDE: Final = 16
# How many channels RabbitMQ allows on a connection by itself.
USUAL_MOST: Final = 2047


class Consumer:
    """Some subscriptions and their connection.

    Args:
        config: where RabbitMQ is, and how long to wait for it.
        name: shown in RabbitMQ's list of connections.
        declaration: what is declared on each new connection.
    """

    def __init__(self, config: BrokerConfig, name: str, declaration: Declaration) -> None:
        self._timeout_s = config.timeout_s
        self._most = USUAL_MOST  # channels that RabbitMQ allows, as the last connection said
        self._declaration = declaration
        self.link = Link(config, name, self._set_up, confirms=False)
        self.subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Connects; see `Link.start` for what it raises."""
        await self.link.start()

    async def close(self) -> None:
        """Closes the connection. RabbitMQ gives unsettled messages to another consumer."""
        await self.link.close()

    async def add(self, subscription: Subscription) -> None:
        """Consumes from now on, on this connection and on all that follow it; there must be `room`."""
        self.subscriptions.append(subscription)
        channels = self.link.channels
        if channels is None or not self.link.up():
            return
        try:
            await self._attach(subscription, channels)
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            # The connection broke meanwhile: the next one has the subscription too.
            log.debug("subscription_postponed", extra={"queue": subscription.queue, "error": repr(error)})
            self.link.lose()

    async def remove(self, subscription: Subscription) -> None:
        """Stops consuming; returns when the handlers of what was delivered have ended."""
        self.subscriptions.remove(subscription)
        await subscription.stop_taking(self._timeout_s)
        while subscription.tasks:
            await asyncio.wait(subscription.tasks)
        if self.link.channels is not None:
            await self.link.channels.close(subscription.channel)

    @property
    def room(self) -> int:
        """How many more subscriptions fit; RabbitMQ ends the connection over one channel too many."""
        if self.link.channels is not None:
            self._most = self.link.channels.most or self._most
        return self._most - CHANNELS_BESIDE - len(self.subscriptions)

    async def take_back(self, queue: str, handler: Handler) -> int:
        """Gives all that waits in a queue now to `handler`; see `Broker.take_back`."""
        channels, taken = self.link.channels, 0
        if channels is None:
            raise BrokerLost("no connection to RabbitMQ")
        try:
            async with await channels.numbered(publisher_confirms=False) as channel:
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
            message = await channel.basic_get(queue, timeout=self._timeout_s)
            if isinstance(message.delivery, aiormq.spec.Basic.GetEmpty):
                break
            batch.append(Delivery(message, queue, no_ack=False))
        return batch

    async def _set_up(self, channels: Channels) -> None:
        channel = await channels.open()
        await self._declaration.on(channel)
        channels.watch(channel)
        attached = set[Subscription]()
        # Subscriptions come and go meanwhile.
        while waiting := [each for each in self.subscriptions if each not in attached]:
            await self._attach(waiting[0], channels)
            attached.add(waiting[0])

    async def _attach(self, subscription: Subscription, channels: Channels) -> None:
        channel = await channels.open()
        await subscription.attach(channel, self._timeout_s)
        if subscription in self.subscriptions:
            channels.watch(channel)
        else:
            await channels.close(channel)
