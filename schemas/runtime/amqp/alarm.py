"""Notices when RabbitMQ, short of memory or disk space, stops reading from a connection that publishes."""

import asyncio
import logging
from typing import Final

from .link import Link

log = logging.getLogger(__name__)

# How often it looks, and how long it then waits for a sign: it notices after at most twice this.
EVERY_S: Final = 0.5


class Alarm:
    """Whether RabbitMQ reads nothing from one connection at the moment.

    Attributes:
        since_s: since when, by the loop's clock; None while it reads.
    """

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self.since_s: float | None = None

    async def watch(self) -> None:
        """Looks until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(EVERY_S)
            channels = self._link.channels
            blocked = channels is not None and self._link.up() and not await channels.ready(EVERY_S)
            if blocked and self.since_s is None:
                self.since_s = clock()
                log.warning("publishing_blocked", extra={"connection": self._name})
            elif not blocked and self.since_s is not None:
                blocked_s, self.since_s = round(clock() - self.since_s, 1), None
                log.info("publishing_unblocked", extra={"connection": self._name, "blocked_s": blocked_s})
