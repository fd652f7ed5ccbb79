"""RabbitMQ as the fleet uses it: publish and consume over connections that come back.

A `Broker` has two connections, one to consume and one to publish (RabbitMQ stops reading from a connection that
publishes when it is short of memory; acknowledgements must still get through). Where it consumes more queues than one
connection has channels, it has more to consume. Workers have one for their reports. Results by direct reply-to have two
more, see `direct`.

What a service relies on:

- A handler runs in a task of its own. A lost connection does not cancel it; its acknowledgement is then void and the
  message comes again. So handlers publish what they have before they settle, and duplicates carry the same request id.
- `publish` returns when RabbitMQ has confirmed the message.
- Every call has a time-out. A publish whose confirm does not come waits for it as long as its connection lives: a
  frozen RabbitMQ has taken the message, and would take it again. One whose connection died is sent again, for
  `patience_s`.
"""

import asyncio
import logging
import sys
from contextlib import AbstractAsyncContextManager
from typing import Final

import aiormq
from pamqp.commands import Queue
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from .. import topology
from ..config import BrokerConfig
from ..errors import BrokerError, BrokerLost, Refused
from ..messages import MSGPACK
from .amqp.consumers import Consumers
from .amqp.declaration import Declaration
from .amqp.direct import DirectReplies
from .amqp.link import Link
from .amqp.publisher import Outgoing, Publisher
from .deliveries import LARGE_HELD_BYTES, Handler, Subscription
from .room import Room
from .tasks import end_tasks

log = logging.getLogger(__name__)

# Messages that wait while we have room for them are delivered at once: a consumer without any for so long gets none.
QUIET_S: Final = 10.0
RECHECK_S: Final = 0.5
# So many of them are looked at together: a worker may consume thousands. The next look goes on with the others.
LOOKED_AT: Final = 50


class Broker:
    """RabbitMQ for one process.

    Args:
        config: where it is and how long to wait for it.
        name: shown in RabbitMQ's list of connections.
        lanes: whose work queues must exist.
        reports: it publishes to `fleet.reports`, on a connection of its own. RabbitMQ stops for seconds to read from a
            connection that publishes faster than quorum queues write; a heartbeat must not wait behind that.
    """

    def __init__(self, config: BrokerConfig, name: str, lanes: list[str], *, reports: bool = False) -> None:
        self._config = config
        self._declaration = Declaration(lanes, config.timeout_s, declares=config.declare)
        self._consumers = Consumers(config, f"{name} consumes", self._declaration)
        self._publisher = Publisher(config, f"{name} publishes", self._declaration)
        self._reporter = Publisher(config, f"{name} reports", self._declaration) if reports else self._publisher
        # These declare nothing: they reconnect often where a reply address closes them.
        beside, alone = Publisher(config, f"{name} replies", None), Publisher(config, f"{name} tries to reply", None)
        self.direct = DirectReplies(beside, alone)
        self._publishers = [self._publisher, *([self._reporter] if reports else [])]
        self._all: list[Consumers | Publisher] = [self._consumers, *self._publishers, beside, alone]
        self._room = Room(sys.maxsize, LARGE_HELD_BYTES)
        self._looked_at = 0  # where the last look for consumers without deliveries ended
        self._starving: list[str] = []  # what it found

    async def start(self) -> None:
        """Connects and declares the topology; see `Link.start` for what it raises."""
        for each in self._all:
            await each.start()

    def expect_lanes(self, lanes: list[str]) -> None:
        """Before the start: these lanes' work queues must exist, in place of those before."""
        self._declaration.lanes = lanes

    @property
    def declares(self) -> bool:
        """Whether it declares queues, and may delete them."""
        return self._config.declare

    @property
    def connected(self) -> bool:
        """Whether all connections are up; those of direct reply-to don't count, as clients can close them."""
        return all(link.up() for link in self._links)

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ, short of memory or disk space, takes nothing from us at the moment."""
        return self._publisher.blocked

    @property
    def connects(self) -> int:
        """How often the connection was made that was lost most often; those of direct reply-to don't count."""
        return max(link.connects for link in self._links)

    @property
    def _links(self) -> list[Link]:
        return [*self._consumers.links, *(each.link for each in self._publishers)]

    async def lasts(self) -> None:
        """Never returns.

        Raises:
            BrokerLost, ConfigError, TopologyError: a connection did not come back for `give_up_s`.
        """
        others = (each.link.lasts() for each in self._all if isinstance(each, Publisher))
        await asyncio.gather(self._consumers.lasts(), *others)

    async def unhealthy(self) -> str:
        """Why only a restart of this process would help, as its queues show; empty if nothing is wrong."""
        starving = await self.starving()
        return f"messages wait and are not delivered: {', '.join(starving)}" if starving else ""

    async def starving(self, *, quiet_s: float = QUIET_S) -> list[str]:
        """The queues that hold messages while their consumers here have room for them and got none for `quiet_s`.

        `LOOKED_AT` are looked at each time, in turn. The connection that publishes is asked, as the one that consumes
        may be frozen. While it is away nobody knows.
        """
        starving: list[str] = []
        for queue, subscription in self._to_look_at(quiet_s):
            try:
                if not await self.length(queue):
                    continue
                await asyncio.sleep(RECHECK_S)  # a message may have arrived just now
                if subscription.hungry(quiet_s) and await self.length(queue):
                    starving.append(queue)
            except BrokerError as error:
                log.debug("queue_not_found", extra={"queue": queue, "error": str(error)})
        self._starving = starving
        return starving

    def _to_look_at(self, quiet_s: float) -> list[tuple[str, Subscription]]:
        """The next ones that get nothing, and those that starved at the last look."""
        every = self._consumers.subscriptions
        begun = self._looked_at % max(1, len(every))
        hungry = [
            (each.queue, each) for each in [*every[begun:], *every[:begun]] if each.queue and each.hungry(quiet_s)
        ]
        looked = [one for one in hungry if one[0] in self._starving]
        looked += [one for one in hungry if one not in looked][:LOOKED_AT]
        if looked:
            self._looked_at = every.index(looked[-1][1]) + 1
        return looked

    async def consumers(self, queue: str) -> int:
        """How many consumers a queue has, in all processes together; see `Channels.aside` for what it raises."""
        return (await self._found(queue)).consumer_count or 0

    async def length(self, queue: str) -> int:
        """How many messages of a queue are with no consumer; raises as `consumers` does."""
        return (await self._found(queue)).message_count or 0

    async def _found(self, queue: str) -> Queue.DeclareOk:
        async with self.aside() as channel:
            return await channel.queue_declare(queue, passive=True, timeout=self._config.timeout_s)

    def aside(self) -> AbstractAsyncContextManager[aiormq.Channel]:
        """A channel on the connection that publishes, for a few commands; see `Channels.aside` for what it raises."""
        return self._publisher.link.aside()

    async def serve_lanes(self, lanes: list[str]) -> None:
        """Declares these lanes' work queues, now and on every later connection, in place of those before.

        Without `declare` in the configuration it only looks whether they exist. Where this raises, all is as before.

        Raises:
            BrokerLost: RabbitMQ did not answer in time.
            TopologyError: a queue exists with other arguments.
            Unroutable: a queue does not exist, and is not ours to declare.
        """
        async with self.aside() as channel:
            await self._declaration.change(channel, lanes)

    async def restore(self) -> None:
        """Declares again what somebody may have deleted; without `declare` it only looks. Raises as `serve_lanes`."""
        await self.serve_lanes(self._declaration.lanes)

    def subscribed(self, queue: str) -> bool:
        """Whether this queue is consumed."""
        return bool(self._consumers.of(queue))

    async def subscribe(
        self, queue: str | None, handler: Handler, *, prefetch: int, exchange: str = ""
    ) -> Subscription:
        """Consumes a queue (or, for None, an exchange through a queue of our own) until `close`."""
        subscription = Subscription(queue, handler, prefetch, self._room, exchange)
        await self._consumers.add(subscription)
        return subscription

    async def unsubscribe(self, queue: str) -> None:
        """Stops consuming a queue; returns when the handlers of what was delivered have ended."""
        for subscription in self._consumers.of(queue):
            await self._consumers.remove(subscription)

    async def resize(self, queue: str, prefetch: int) -> None:
        """Holds at most so many unsettled deliveries of a queue from now on."""
        for subscription in self._consumers.of(queue):
            await subscription.resize(prefetch, self._config.timeout_s)

    async def take_back(self, queue: str, handler: Handler) -> int:
        """Takes all that waits in a queue now, a few messages at a time, and gives each to `handler`, which settles it.

        Returns:
            How many there were.

        Raises:
            BrokerLost: the connection died; what was not settled is still in the queue.
        """
        return await self._consumers.take_back(queue, handler)

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
        """Publishes a message and waits for the confirm.

        It is published again when the connection died before the confirm, and after a refusal (a full queue) unless
        `retry_refused` is off. All of it takes little more than `patience_s`, the configured one unless it is given.
        With `silent_after_s` the message is for a queue that is not the fleet's, and no other queue may hold it up.

        Raises:
            Unroutable: no queue takes it.
            Refused: the queue was full, or had no leader, for `patience_s`.
            Silent: no confirm for `silent_after_s` and a second, while RabbitMQ confirms what was published later.
            BrokerLost: no confirm within `patience_s`; the message may or may not be there.
        """
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + (self._config.patience_s if patience_s is None else patience_s)
        message = Outgoing(body, routing_key, exchange, content_type, correlation_id, persistent, mandatory)
        again = (BrokerLost, Refused) if retry_refused else (BrokerLost,)
        try:
            await self._publish_once(message, give_up_s, silent_after_s)
        except again as error:
            log.info("publish_retried", extra={"exchange": exchange, "routing_key": routing_key, "error": str(error)})
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(again),
                wait=wait_random_exponential(multiplier=0.1, max=2),
                stop=lambda _: clock() >= give_up_s,
                reraise=True,
            ):
                with attempt:
                    await self._publish_once(message, give_up_s, silent_after_s, repeated=True)

    async def _publish_once(
        self, message: Outgoing, give_up_s: float, silent_after_s: float | None, *, repeated: bool = False
    ) -> None:
        if message.direct:
            await self.direct.publish(
                message.routing_key, lambda link: link.publish(message, give_up_s=give_up_s, repeated=repeated)
            )
            return
        publisher = self._reporter if message.exchange == topology.REPORTS else self._publisher
        await publisher.publish(message, give_up_s=give_up_s, silent_after_s=silent_after_s, repeated=repeated)

    async def stop_taking(self) -> None:
        """Takes no more deliveries."""
        stopping = (each.stop_taking(self._config.timeout_s) for each in self._consumers.subscriptions)
        await asyncio.gather(*stopping)

    async def drain(self, grace_s: float) -> None:
        """Waits for the handlers that run, at most `grace_s`."""
        await asyncio.gather(*(subscription.drain(grace_s) for subscription in self._consumers.subscriptions))

    async def close(self) -> None:
        """Closes all connections. Unsettled messages go to another consumer, and their handlers here are cancelled."""
        await asyncio.gather(*(each.close() for each in self._all))
        await end_tasks(task for each in self._consumers.subscriptions for task in each.running())
