"""The clock that signed calls carry: an exchange refuses a signature whose time is too far from its own."""

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ccxt.base.errors import ChecksumError, InvalidNonce  # pyright: ignore[reportMissingTypeStubs]

log = logging.getLogger(__name__)

# "Your time is wrong", in the words of those exchanges whose errors are no `InvalidNonce` to ccxt 4.5.90, or not all of
# them. Codes that mean something else elsewhere (Bitget's 40004) have no place here.
_REFUSED: Final = re.compile(
    r'"code"\s*:\s*-1021\b'  # Binance, and those that speak as it does
    r'|"code"\s*:\s*"?50112\b'  # OKX
    r'|"label"\s*:\s*"REQUEST_EXPIRED"'  # Gate
    r"|E(API|General): ?Invalid nonce"  # Kraken
    r'|"err[_-]msg"\s*:\s*"[^"]*timestamp'  # HTX
    r"|request timestamp expired",  # Coinbase
    re.IGNORECASE,
)
# An exchange that tells its time in whole seconds, as Kraken does, may be a second further than it says.
_WHOLE_S: Final = 1.0


def clock_refused(error: BaseException, body: str) -> bool:
    """Whether an exchange refused a call for its time or its nonce.

    Args:
        error: what ccxt raised.
        body: the start of the answer's body.
    """
    # A checksum of a stream's is an `InvalidNonce` to ccxt.
    by_class = isinstance(error, InvalidNonce) and not isinstance(error, ChecksumError)
    return by_class or _REFUSED.search(body) is not None


class SigningClock:
    """How far an exchange's clock is ahead of ours, as it was measured last. All times in seconds.

    Args:
        lane: for the log.

    Attributes:
        ahead_s: by so much; 0 until it is measured.
    """

    def __init__(self, lane: str) -> None:
        self.ahead_s = 0.0
        self._lane = lane
        self._measured_s = -math.inf
        self._measuring = asyncio.Lock()

    async def measure(
        self, fetch_time: Callable[[], Awaitable[Any]], trip_s: Callable[[], float], *, since_s: float
    ) -> None:
        """Measures it, unless that was done after `since_s`: of many calls refused at once, one measures.

        Args:
            fetch_time: asks the exchange for its time, Unix milliseconds.
            trip_s: how long the last call took.
            since_s: when the refused call began, by the monotonic clock.

        Raises whatever `fetch_time` raises.
        """
        async with self._measuring:
            if self._measured_s >= since_s:
                return
            server_ms = int(await fetch_time())
            error_s = trip_s() / 2 + (0.0 if server_ms % 1000 else _WHOLE_S)
            ahead_s = server_ms / 1000 - time.time() + trip_s() / 2
            self.ahead_s = ahead_s if abs(ahead_s) > error_s else 0.0
            self._measured_s = time.monotonic()
            log.warning("clock_measured", extra={"lane": self._lane, "ahead_s": round(self.ahead_s, 3)})
