"""Acknowledges what came out of a queue, several deliveries at a time.

What is not acknowledged is delivered again, on the next connection at the latest. So an acknowledgement may be late or
lost, and nobody waits for one: whoever has a delivery has it, whatever happens to his task meanwhile.
"""

import asyncio
import logging
from typing import Final

import aiormq

from ..runtime.tasks import end_tasks, lost

log = logging.getLogger(__name__)

# They are sent together, so often, and as soon as there are so many.
EVERY_S: Final = 0.05
AT_ONCE: Final = 50


class Acks:
    """The acknowledgements of one queue, over all connections."""

    def __init__(self) -> None:
        self._channel: aiormq.Channel | None = None
        self._tag: int | None = None
        self._waiting = 0
        self._sending: set[asyncio.Task[None]] = set()

    def begin(self, channel: aiormq.Channel) -> None:
        """From now on deliveries come on this channel; what came on another one is not acknowledged any more."""
        self._channel, self._tag, self._waiting = channel, None, 0

    def took(self, channel: aiormq.Channel | None, tag: int | None) -> None:
        """A delivery on a channel was taken, and so were all before it."""
        if channel is None or channel is not self._channel:
            return
        if self._tag is None:
            asyncio.get_running_loop().call_later(EVERY_S, self._send, channel)
        self._tag = tag
        self._waiting += 1
        if self._waiting >= AT_ONCE:
            self._send(channel)

    async def end(self) -> None:
        """Sends nothing more."""
        self._channel = None
        await end_tasks(self._sending)

    def _send(self, channel: aiormq.Channel) -> None:
        if channel is not self._channel or self._tag is None or channel.is_closed:
            return
        tag, self._tag, self._waiting = self._tag, None, 0
        task = asyncio.create_task(_acknowledge(channel, tag))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


async def _acknowledge(channel: aiormq.Channel, tag: int) -> None:
    try:
        await channel.basic_ack(tag, multiple=True, wait=False)
    except (Exception, asyncio.CancelledError) as error:
        if not lost(error):
            raise
        log.debug("connection_lost_meanwhile", extra={"error": repr(error)})
