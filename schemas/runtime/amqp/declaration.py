"""Declares the fleet's exchanges and queues in RabbitMQ, or sees whether they are there."""

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity

from ... import topology


class Declaration:
    """The topology as one process declares it: when it starts, and again on each new connection.

    Args:
        lanes: whose work queues must exist.
        timeout_s: the longest that one command may take.
        declares: whether exchanges and queues are ours to declare.

    Attributes:
        lanes: as above; may be exchanged.
    """

    def __init__(self, lanes: list[str], timeout_s: float, *, declares: bool) -> None:
        self.lanes = lanes
        self._timeout_s = timeout_s
        self._declares = declares
        self._bound = False

    async def on(self, channel: aiormq.Channel) -> None:
        """Declares on a new connection what does not exist; once all was bound, binds again only if something is gone.

        All nodes of a cluster have to agree on a binding, even on one that exists: while a node is silent and not yet
        given up (for a minute, its `net_ticktime`), no answer comes. Whether a queue exists is answered at once.
        """
        if not self._declares:
            return
        if self._bound:
            try:
                await find(channel, self.lanes, self._timeout_s)
            except ChannelNotFoundEntity:
                self._bound = False  # the next connection declares and binds everything
                raise
        await declare(channel, self.lanes, self._timeout_s, bind=not self._bound)
        self._bound = True

    async def change(self, channel: aiormq.Channel, lanes: list[str]) -> None:
        """Has other lanes from now on, once their queues exist: declares these, or only looks where that is not ours.

        Raises:
            ChannelPreconditionFailed: a queue exists with other arguments.
            ChannelNotFoundEntity: a queue does not exist and is not ours to declare.
        """
        if self._declares:
            await declare(channel, lanes, self._timeout_s)
        else:
            for queue in topology.lane_queues(lanes):
                await channel.queue_declare(queue.name, passive=True, timeout=self._timeout_s)
        self.lanes = lanes


async def find(channel: aiormq.Channel, lanes: list[str], timeout_s: float) -> None:
    """Looks for every exchange and queue, whatever its arguments; raises ChannelNotFoundEntity for a missing one."""
    for exchange in topology.EXCHANGES:
        await channel.exchange_declare(exchange.name, passive=True, timeout=timeout_s)
    for queue in topology.queues(lanes):
        await channel.queue_declare(queue.name, passive=True, timeout=timeout_s)


async def declare(channel: aiormq.Channel, lanes: list[str], timeout_s: float, *, bind: bool = True) -> None:
    """Declares the whole topology; what exists with the same arguments stays as it is.

    An exchange comes after the queues that it feeds, and is bound at once: what is published to an exchange without a
    queue is confirmed and dropped, unless it is `mandatory`. Before the exchange is there, nothing is confirmed.
    """
    queues = topology.queues(lanes)
    for queue in queues:
        await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments), timeout=timeout_s)
    for exchange in topology.EXCHANGES:
        await channel.exchange_declare(exchange.name, exchange_type=exchange.kind, durable=True, timeout=timeout_s)
        for queue in queues:
            if bind and queue.exchange == exchange.name:
                await channel.queue_bind(queue.name, queue.exchange, queue.routing_key, timeout=timeout_s)
