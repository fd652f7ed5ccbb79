"""Results by direct reply-to, on connections of their own: RabbitMQ may close one over an address that it can't read.

That happens to well-formed addresses too, see `addresses`: before RabbitMQ 4.0 to every one whose node is away. All
that is in flight on the connection then fails with it, and nothing says which address it was. So results are published
side by side only to proven origins, those to which a message was confirmed. Results to other origins are published on a
second connection, one at a time. An origin that closes that one is known, and is not tried again for a while.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiormq.exceptions import ConnectionInternalError

from ... import addresses
from ...errors import BrokerLost, Unroutable
from ..clock import clock_s
from .publisher import Publisher

log = logging.getLogger(__name__)

# How long an origin that closed a connection is not tried again. Its node may be back by then.
SHUNNED_S: Final = 60.0
# How many origins of each kind are remembered; the oldest are forgotten first.
KEPT: Final = 1_000
# The longest that a result waits for its turn while others close the connection: it takes up room in the outbox.
TURN_S: Final = 3.0


class Origins:
    """Origins of direct addresses, each for `kept_s` from when it was added; the newest `KEPT` of them."""

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._since_s: dict[str, float] = {}

    def __contains__(self, origin: str) -> bool:
        return clock_s() - self._since_s.get(origin, -float("inf")) < self._kept_s

    def __len__(self) -> int:
        return len(self._since_s)

    def add(self, origin: str) -> None:
        """Remembers an origin from now on."""
        self._since_s.pop(origin, None)
        self._since_s[origin] = clock_s()
        if len(self._since_s) > KEPT:
            del self._since_s[next(iter(self._since_s))]

    def discard(self, origin: str) -> None:
        """Forgets an origin."""
        self._since_s.pop(origin, None)


class DirectReplies:
    """Publishes results to direct addresses.

    Args:
        beside: the connection for proven origins, where many results are in flight.
        alone: the connection for others, one result at a time.

    Attributes:
        proven: origins that RabbitMQ could read.
    """

    def __init__(self, beside: Publisher, alone: Publisher) -> None:
        self._beside = beside
        self._alone = alone
        self._turn = asyncio.Lock()
        self.proven = Origins(float("inf"))
        self._shunned = Origins(SHUNNED_S)
        self._closed_s = -float("inf")

    @property
    def reconnects(self) -> int:
        """How often the two connections had to be made again, together."""
        return self._beside.link.connects + self._alone.link.connects - 2

    async def publish(self, address: str, put: Callable[[Publisher], Awaitable[None]]) -> None:
        """Publishes one result.

        Args:
            address: where it goes.
            put: publishes it with one of the publishers, and waits for the confirm.

        Raises:
            Unroutable: it is no direct address, or RabbitMQ closed a connection over it lately.
            BrokerLost: the connection died before the confirm.
        """
        if reason := addresses.refusal(address):
            raise Unroutable(reason)
        origin = addresses.origin(address)
        if origin not in self.proven and await self._tried(origin, put):
            return
        try:
            await put(self._beside)
        except BrokerLost as error:
            if _over_an_address(error):  # which one is not known: next time this one is tried alone
                self.proven.discard(origin)
            raise

    async def _tried(self, origin: str, put: Callable[[Publisher], Awaitable[None]]) -> bool:
        """Publishes a result alone, unless its origin was proven meanwhile; returns whether it did."""
        await self._take_turn()
        try:
            if origin in self._shunned:
                raise Unroutable(f"RabbitMQ closed a connection over a direct address of {origin} lately")
            if origin in self.proven:
                return False
            await put(self._alone)
        except BrokerLost as error:
            if not _over_an_address(error):
                raise
            self._shunned.add(origin)
            self._closed_s = clock_s()
            log.warning("direct_reply_closed_connection", extra={"origin": origin})
            raise Unroutable(f"RabbitMQ closed the connection over a direct address of {origin}") from error
        finally:
            self._turn.release()
        self.proven.add(origin)
        return True

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError as error:
            if clock_s() - self._closed_s < TURN_S:
                raise Unroutable("too many direct addresses close their connection") from error
            raise BrokerLost("no answer from RabbitMQ to a direct result before this one") from error


def _over_an_address(error: BrokerLost) -> bool:
    """Whether RabbitMQ itself closed the connection, as it does where it can't read an address."""
    return isinstance(error.__cause__, ConnectionInternalError)
