"""The two channels that a connection publishes on, so that one bad queue holds up no other one.

`main` is for the fleet's own exchanges, and for reply queues that have confirmed a message. Other reply queues are
newcomers, and share a second channel. The first publish of a channel to a quorum queue without a leader holds the
channel up for 30 s (`rabbit_fifo_client` registers the channel with the queue, and waits). Later ones only get no
confirm.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import aiormq

from ...errors import BrokerLost
from ..tasks import lost
from .channels import Channels

log = logging.getLogger(__name__)

# A channel that a queue refuses is replaced by a fresh one when it is so old.
RENEW_AFTER_S: Final = 1.0
# How many reply queues are remembered that have confirmed a message.
KNOWN_KEPT: Final = 10_000


class PublishingChannels:
    """The channels that one connection publishes on, while it lasts.

    Args:
        channels: of the connection.
        main: one of them, for the fleet's own exchanges.
        timeout_s: the longest that it may take to open one more.
        retire: called with a channel that nothing is published on any more; closes it when all on it is confirmed.

    Attributes:
        main: as above; a fresh one may take its place.
    """

    def __init__(
        self, channels: Channels, main: aiormq.Channel, timeout_s: float, retire: Callable[[aiormq.Channel], None]
    ) -> None:
        self._channels = channels
        self._timeout_s = timeout_s
        self._retire = retire
        self._clock = asyncio.get_running_loop().time
        self.main = main
        self._main_since_s = self._clock()
        self._known: set[str] = set()
        self._newcomers: aiormq.Channel | None = None
        self._newcomers_since_s = 0.0
        self._newcoming = asyncio.Lock()
        channels.watch(main)

    async def of(self, queue: str) -> aiormq.Channel:
        """The channel for a reply queue: `main` once it has confirmed a message, until then that of the newcomers.

        Raises:
            BrokerLost: the connection is gone, or RabbitMQ did not answer in time.
        """
        if queue in self._known:
            return self.main
        async with self._newcoming:
            if self._newcomers is None or self._newcomers.is_closed:
                self._newcomers = await self._one_more()
                self._newcomers_since_s = self._clock()
            return self._newcomers

    async def _one_more(self) -> aiormq.Channel:
        try:
            async with asyncio.timeout(self._timeout_s):
                channel = await self._channels.open()
        except (Exception, asyncio.CancelledError) as error:
            if not lost(error):
                raise
            raise BrokerLost(f"no channel: {error!r}") from error
        self._channels.watch(channel)
        return channel

    def confirmed(self, queue: str, channel: aiormq.Channel) -> None:
        """A queue has confirmed a message on this channel: it is no newcomer any more."""
        if channel is self._newcomers:
            if len(self._known) >= KNOWN_KEPT:
                self._known.clear()
            self._known.add(queue)

    def leave(self, channel: aiormq.Channel, tag: int | None) -> bool:
        """Gives newcomers a fresh channel after a message without a confirm on theirs.

        Returns:
            Whether that message may wait behind another queue's. Only those of newcomers can; the first unconfirmed one
            there waits for its own queue alone.
        """
        if channel is self._newcomers:
            self._leave_newcomers()
        unconfirmed: list[int] = [*channel.confirmations]
        return channel is not self.main and unconfirmed[:1] != [tag]

    async def renew(self, refused: aiormq.Channel) -> None:
        """After a refusal, publishes on a fresh channel from now on; not if the refused one is new, or gone already.

        A queue refuses a channel for as long as the node is away that led it when the channel first published to it,
        whoever leads the queue by then (RabbitMQ before 3.12.5: its pull requests 9221 and 9241).
        """
        now_s = self._clock()
        if refused is self._newcomers and now_s >= self._newcomers_since_s + RENEW_AFTER_S:
            self._leave_newcomers()
        if refused is not self.main or now_s < self._main_since_s + RENEW_AFTER_S:
            return
        self._main_since_s = now_s
        try:
            fresh = await self._one_more()
        except BrokerLost as error:
            log.debug("channel_not_renewed", extra={"error": str(error)})
            return
        if self.main is refused:
            self.main = fresh
            self._known.clear()
            self._retire(refused)

    def _leave_newcomers(self) -> None:
        if self._newcomers is not None:
            self._retire(self._newcomers)
            self._newcomers = None
