"""Counts the results that nobody read in time: `fleet.results` drops its oldest when it is full, and what is too old.

RabbitMQ tells nobody, but it dead-letters what it drops, with the reason. So each dispatcher has a queue for each
reason, which nobody reads: it empties it every second (`queue.purge`), and RabbitMQ says of how many messages. No body
leaves the broker for that. Every dispatcher counts all that is dropped while it is connected.
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
# As RabbitMQ names them: the queue was full; it was there for too long.
REASONS: Final = ("maxlen", "expired")
# So much is kept between two looks, also where a dispatcher stands still; of more than that the count is too small.
KEPT_BYTES: Final = 256 * 2**20


class Dropped:
    """What was dropped since this dispatcher began.

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
            except FleetError as error:  # what is dropped meanwhile is not counted
                log.info("drops_not_counted", extra={"why": str(error)})
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        async with self._broker.aside() as channel:
            if channel.connection is not self._connection:  # the queues went with the one before
                self._queues = {reason: await _bound(channel, reason) for reason in REASONS}
                self._connection = channel.connection
            for reason, queue in self._queues.items():
                purged = await channel.queue_purge(queue)
                self.counts[reason] += purged.message_count or 0
                metrics.DROPPED.labels(reason).inc(purged.message_count or 0)


async def _bound(channel: aiormq.Channel, reason: str) -> str:
    """A queue of our own to which all comes that was dropped for this reason."""
    declared = await channel.queue_declare("", exclusive=True, arguments={"x-max-length-bytes": KEPT_BYTES})
    name = declared.queue or ""
    # Headers that begin with x- count for nothing unless it is said like this (RabbitMQ 3.10).
    await channel.queue_bind(
        name, topology.DROPPED, arguments={"x-match": "any-with-x", "x-first-death-reason": reason}
    )
    return name
