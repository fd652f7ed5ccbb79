"""Counts results that nobody read in time: `fleet.results` drops what is too old, and its oldest when it is full.

RabbitMQ counts no drops, but it dead-letters each dropped message, with the reason. So each dispatcher has a queue for
each reason, and purges it every second. The answer to `queue.purge` is the number of messages, and no body leaves the
broker for that. Every dispatcher counts all results that are dropped while it is connected.
"""

import asyncio
import logging
from typing import Final

import aiormq

from schemas import topology
from schemas.errors import FleetError
from schemas.runtime.broker import Broker

from . import metrics

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
# As RabbitMQ names them: the queue was full; the result was there for too long.
REASONS: Final = ("maxlen", "expired")
# The most that a queue keeps between two purges, or while a dispatcher is frozen. What is beyond that is not counted.
KEPT_BYTES: Final = 256 * 2**20


class Dropped:
    """The results that were dropped since this dispatcher started.

    Attributes:
        counts: how many results, by reason.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._connection: aiormq.abc.AbstractConnection | None = None
        self._queues: dict[str, str] = {}
        self.counts: dict[str, int] = dict.fromkeys(REASONS, 0)

    async def run(self) -> None:
        """Counts until cancelled."""
        while True:
            try:
                await self._look()
            except FleetError as error:  # results dropped meanwhile are not counted
                log.info("drops_not_counted", extra={"why": str(error)})
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        async with self._broker.aside() as channel:
            if channel.connection is not self._connection:  # the queues were those of the connection before
                self._queues = {reason: await _bound(channel, reason) for reason in REASONS}
                self._connection = channel.connection
            for reason, queue in self._queues.items():
                purged = await channel.queue_purge(queue)
                self.counts[reason] += purged.message_count or 0
                metrics.DROPPED.labels(reason).inc(purged.message_count or 0)


async def _bound(channel: aiormq.Channel, reason: str) -> str:
    """Declares a queue of our own that gets all results dropped for this reason; gives its name."""
    declared = await channel.queue_declare("", exclusive=True, arguments={"x-max-length-bytes": KEPT_BYTES})
    name = declared.queue or ""
    # `any-with-x`: headers that begin with x- are not matched by `any` (RabbitMQ 3.10).
    await channel.queue_bind(
        name, topology.DROPPED, arguments={"x-match": "any-with-x", "x-first-death-reason": reason}
    )
    return name
