"""Removed lanes: attempts in their queues go to other lanes, and queues that nobody uses any more are deleted.

A queue is deleted when it had no consumer and no message for `quiet_s`, which is longer than any publish takes. Then no
process holds a message of it: a worker consumes until its last attempt of the lane has ended, and another dispatcher
publishes what it took back within that time. Time in which this process stands still is none in which it looked.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from schemas import topology
from schemas.errors import FleetError, Unroutable
from schemas.runtime.broker import Broker
from schemas.runtime.clock import clock_s
from schemas.runtime.deliveries import Handler

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
# What RabbitMQ said may have lain here unread. After so long it is asked again: the lane may be back, and in use.
OLD_S: Final = 1.0


class Removed:
    """The queues that are left of removed lanes, as far as this dispatcher has served the lanes.

    Args:
        broker: RabbitMQ.
        take_back: handles an attempt that waited for a removed lane, and settles it.
        quiet_s: how long a queue must have been empty and unused; longer than any publish may take.
        clock: stops while nothing can be heard.
    """

    def __init__(self, broker: Broker, take_back: Handler, quiet_s: float, clock: Callable[[], float]) -> None:
        self._broker = broker
        self._take_back = take_back
        self._quiet_s = quiet_s
        self._clock = clock
        self._used_s: dict[str, float] = {}  # by queue: when it was last in use
        self._changed = asyncio.Event()

    def change(self, removed: set[str], kept: set[str]) -> None:
        """Takes another configuration, with these lanes gone; of those that are kept, some may be back."""
        for queue in topology.lane_queues(kept):
            self._used_s.pop(queue.name, None)
        for queue in topology.lane_queues(removed):
            self._used_s[queue.name] = self._clock()
        self._changed.set()

    async def run(self) -> None:
        """Empties and deletes the queues until cancelled."""
        while True:
            await self._changed.wait()
            for queue in list(self._used_s):
                try:
                    await self._look(queue)
                except FleetError as error:  # messages that were not settled are in the queue again
                    log.warning("queue_not_emptied", extra={"queue": queue, "error": str(error)})
            if not self._used_s:
                self._changed.clear()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, queue: str) -> None:
        try:
            async with self._broker.aside() as channel:
                asked_s = clock_s()
                found = await channel.queue_declare(queue, passive=True)
                if found.message_count:
                    await self._broker.take_back(queue, self._take_back)
                if queue not in self._used_s:
                    return  # the lane is back
                if found.message_count or found.consumer_count:
                    self._used_s[queue] = self._clock()
                elif self._clock() - self._used_s[queue] >= self._quiet_s and clock_s() - asked_s < OLD_S:
                    del self._used_s[queue]
                    if self._broker.declares:
                        await channel.queue_delete(queue)
                        log.info("queue_deleted", extra={"queue": queue})
        except Unroutable:  # another dispatcher has deleted it
            self._used_s.pop(queue, None)
