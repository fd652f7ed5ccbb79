"""The clock offset of signed calls: an exchange refuses a signature whose time is too far from its own clock."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ccxt.base.errors import BadResponse, ChecksumError, InvalidNonce  # pyright: ignore[reportMissingTypeStubs]

from schemas.runtime.clock import clock_s
from schemas.runtime.standstill import DECIDES_S, StillFor, unknown

from ..budget.budget import Budget
from ..limits.costs import Costs
from .call import Call, Seen

log = logging.getLogger(__name__)

# The clock of an exchange that sends whole seconds, as Kraken does, is up to a second ahead of what it sends.
_WHOLE_S: Final = 1.0
# Most attempts at measuring where windows begin.
CLOCK_TRIES: Final = 3


def clock_refused(error: BaseException, seen: Seen) -> bool:
    """Whether an exchange refused a call for its time or its nonce.

    Args:
        error: what ccxt raised.
        seen: what was seen of the call.
    """
    # ccxt raises an `InvalidNonce` for a stream's checksum too.
    by_class = isinstance(error, InvalidNonce) and not isinstance(error, ChecksumError)
    return by_class or seen.heard.says(seen.exchange, "clock")


async def server_ms(fetch_time: Callable[[], Awaitable[Any]]) -> float:
    """The exchange's time, Unix milliseconds; raises `BadResponse` where its answer holds none."""
    found = await fetch_time()
    if isinstance(found, (int, float)) and math.isfinite(found):
        return found
    raise BadResponse("fetch_time: the exchange's answer holds no time")


async def set_windows(fetch_time: Callable[[], Awaitable[Any]], call: Call, budget: Budget, costs: Costs) -> None:
    """Measures the exchange's clock, by which fixed windows start; the error is half a round trip.

    On a busy machine a round trip may take seconds. Then it is measured again, and calls keep the error of the best
    measurement away from the windows' ends.

    Args:
        fetch_time: asks the exchange for its time, Unix milliseconds.
        call: that of the running attempt.
        budget: gets the offset.
        costs: the exchange's limits; where none has fixed windows nothing is measured.
    """
    fixed = [bucket for bucket in costs.buckets.values() if bucket.kind == "fixed"]
    if not fixed:
        return
    error_s, ahead_s = math.inf, 0.0
    for _ in range(CLOCK_TRIES):
        told_ms = await server_ms(fetch_time)
        if not call.windowed:  # the time of another host than the one that counts in windows
            return
        if call.trip_s / 2 < error_s:
            error_s = call.trip_s / 2
            ahead_s = told_ms / 1000 - call.left_us / 1e6 - error_s
        if error_s * 1000 <= min(bucket.margin_ms for bucket in fixed) / 2:
            break
    # Only the windows' start matters; and a wrong answer must not hold calls up for years.
    window_s = max(bucket.window_s for bucket in fixed)
    await budget.set_clock((ahead_s + window_s / 2) % window_s - window_s / 2, error_s)


class SigningClock:
    """How far an exchange's clock is ahead of ours, by the latest measurement. All times in seconds.

    Args:
        lane: for the log.
        still_s: for how long this process stood still.

    Attributes:
        ahead_s: the offset; 0 until it is measured.
    """

    def __init__(self, lane: str, still_s: StillFor = unknown) -> None:
        self.ahead_s = 0.0
        self._still_s = still_s
        self._lane = lane
        self._measured_s = -math.inf
        self._measuring = asyncio.Lock()

    async def measure(
        self, fetch_time: Callable[[], Awaitable[Any]], trip_s: Callable[[], float], *, since_s: float
    ) -> None:
        """Measures the offset, unless that was done after `since_s`: of many refused calls only one measures.

        Args:
            fetch_time: asks the exchange for its time, Unix milliseconds.
            trip_s: the round trip time of the last call.
            since_s: when the refused call began, by the monotonic clock.

        Raises:
            Exception: whatever `fetch_time` raises.
        """
        async with self._measuring:
            if self._measured_s >= since_s:
                return
            asked_s, told_ms = clock_s(), await server_ms(fetch_time)
            if self._still_s(asked_s, clock_s()) >= DECIDES_S:  # that may be so long ago
                told_ms = await server_ms(fetch_time)
            error_s = trip_s() / 2 + (0.0 if told_ms % 1000 else _WHOLE_S)
            ahead_s = told_ms / 1000 - time.time() + trip_s() / 2
            self.ahead_s = ahead_s if abs(ahead_s) > error_s else 0.0
            self._measured_s = clock_s()
            log.warning("clock_measured", extra={"lane": self._lane, "ahead_s": round(self.ahead_s, 3)})
