"""Consumes any number of queues: over one more connection where RabbitMQ allows no more channels on those there are.

It allows 2,047 on each, unless its `channel_max` says otherwise, and ends a connection with one too many. Each
subscription has a channel of its own, so that an error there is no other's.
"""

import asyncio
import contextlib

from ...config import BrokerConfig
from ...errors import BrokerLost
from ..deliveries import Handler, Subscription
from ..tasks import end_tasks
from .consumer import Consumer
from .declaration import Declaration
from .link import Link


class Consumers:
    """The subscriptions of one process and their connections; arguments as of `Consumer`."""

    def __init__(self, config: BrokerConfig, name: str, declaration: Declaration) -> None:
        self._config = config
        self._name = name
        self._declaration = declaration
        self._all = [Consumer(config, name, declaration)]
        self._by_queue: dict[str | None, dict[Subscription, Consumer]] = {}
        self._growing = asyncio.Lock()
        self._grown = asyncio.Event()

    @property
    def links(self) -> list[Link]:
        """The connections."""
        return [each.link for each in self._all]

    @property
    def subscriptions(self) -> list[Subscription]:
        """All subscriptions."""
        return [subscription for each in self._all for subscription in each.subscriptions]

    async def start(self) -> None:
        """Connects; see `Link.start` for what it raises."""
        await self._all[0].start()

    async def close(self) -> None:
        """Closes the connections. RabbitMQ gives unsettled messages to another consumer."""
        await asyncio.gather(*(each.close() for each in self._all))

    async def lasts(self) -> None:
        """Never returns; raises what `Link.lasts` raises of any of the connections."""
        watched: list[asyncio.Task[None]] = []
        try:
            while True:
                self._grown.clear()
                watched += [asyncio.create_task(each.link.lasts()) for each in self._all[len(watched) :]]
                grown = asyncio.create_task(self._until_grown())
                try:
                    done, _ = await asyncio.wait([*watched, grown], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await end_tasks([grown])
                for task in done - {grown}:
                    task.result()
        finally:
            await end_tasks(watched)

    async def _until_grown(self) -> None:
        await self._grown.wait()

    def of(self, queue: str) -> list[Subscription]:
        """The subscriptions to a queue."""
        return list(self._by_queue.get(queue, ()))

    async def add(self, subscription: Subscription) -> None:
        """Consumes from now on, and again whenever a connection was lost."""
        while (consumer := next((each for each in self._all if each.room > 0), None)) is None:
            async with self._growing:
                if all(each.room <= 0 for each in self._all):
                    await self._grow()
        self._by_queue.setdefault(subscription.queue, {})[subscription] = consumer
        await consumer.add(subscription)

    async def _grow(self) -> None:
        more = Consumer(self._config, f"{self._name} {len(self._all) + 1}", self._declaration)
        while True:
            # While RabbitMQ is away the connections that there are say when it has been for too long.
            with contextlib.suppress(BrokerLost):
                await more.start()
                break
        self._all.append(more)
        self._grown.set()

    async def remove(self, subscription: Subscription) -> None:
        """Stops consuming; returns when the handlers of what was delivered have ended."""
        consumer = self._by_queue.get(subscription.queue, {}).pop(subscription, None)
        if consumer is not None:
            await consumer.remove(subscription)

    async def take_back(self, queue: str, handler: Handler) -> int:
        """Gives all that waits in a queue now to `handler`; see `Broker.take_back`."""
        return await self._all[0].take_back(queue, handler)
