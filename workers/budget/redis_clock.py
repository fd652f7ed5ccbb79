"""What Redis's clock shows, as far as a worker knows by its own: the one estimate by which a budget's calls leave.

Each answer says what Redis's clock showed between two instants of ours. The narrowest such span counts, and widens by
what clocks may drift until another one is narrower. While a worker goes on with its share the estimate is held: what it
grants itself must be as far apart by our clock as by Redis's, however much better Redis's is known meanwhile. Pure;
instants of ours are seconds of the monotonic clock, Redis's are microseconds since 1970.
"""

import math
from typing import Final

# How much faster one clock may run than another, corrections by NTP included.
DRIFT: Final = 1e-3
# Where its clock is behind by more than this, a worker itself has stood still. Less may be an error of the estimate.
STOOD_STILL_US: Final = 3_000_000


def at_most_us(span_us: float) -> float:
    """How long a span by our clock may have been by Redis's, microseconds."""
    return span_us / (1 - DRIFT)


class RedisClock:
    """Follows one Redis's clock from this process."""

    def __init__(self) -> None:
        # Redis's clock showed this, and between which instants of ours.
        self._shown_us = 0
        self._early_s: float = -math.inf
        self._late_s: float = math.inf
        self.held = False

    @property
    def known(self) -> bool:
        """Whether Redis has answered yet."""
        return self._late_s < math.inf

    def answered(self, now_s: float, redis_us: int, *, asked_s: float) -> float:
        """Takes in an answer; returns how much later it came than the estimate allows for, seconds.

        Args:
            now_s: when it came.
            redis_us: what Redis's clock showed.
            asked_s: not before this instant of ours.
        """
        early_s, late_s = self._between(redis_us)
        if not self.held:
            early_s, late_s = max(asked_s, early_s), min(now_s, late_s)
            if early_s > late_s:  # It was set.
                early_s, late_s = asked_s, now_s
            self._shown_us, self._early_s, self._late_s = redis_us, early_s, late_s
        return max(0.0, now_s - late_s)

    def corrected(self, now_s: float, redis_us: int, *, asked_s: float) -> None:
        """Takes in an answer by a clock that was corrected: what was seen before says nothing.

        While it is held the estimate never goes ahead, as that would bring what was granted nearer to what comes.

        Args:
            now_s: when it came.
            redis_us: what Redis's clock shows now.
            asked_s: not before this instant of ours.
        """
        shown_us, late_s = redis_us, now_s
        if self.held and 0 < redis_us - self.shows(now_s)[0] < STOOD_STILL_US:
            shown_us, late_s = self._shown_us, self._late_s
            asked_s = min(self._early_s, asked_s - (redis_us - shown_us) / 1e6 / (1 - DRIFT))
        self._shown_us, self._early_s, self._late_s = shown_us, asked_s, late_s

    def shows(self, now_s: float) -> tuple[int, int]:
        """What Redis's clock shows at this instant of ours, at the earliest and at the latest."""
        if not self.known:
            raise ValueError("Redis has not answered yet")
        least_s, most_s = now_s - self._late_s, now_s - self._early_s
        least_us = min(least_s * (1 - DRIFT), least_s * (1 + DRIFT)) * 1e6
        most_us = max(most_s * (1 - DRIFT), most_s * (1 + DRIFT)) * 1e6
        return self._shown_us + math.floor(least_us), self._shown_us + math.ceil(most_us)

    def due(self, at_us: int) -> float:
        """When Redis's clock shows `at_us`, on ours, at the latest: a call that leaves then never leaves early."""
        return self._between(at_us)[1]

    def earliest(self, at_us: int) -> float:
        """The same at the earliest: lateness counts from then."""
        return self._between(at_us)[0]

    def _between(self, at_us: int) -> tuple[float, float]:
        ahead_s = (at_us - self._shown_us) / 1e6
        by_s = ahead_s / (1 + DRIFT), ahead_s / (1 - DRIFT)
        return self._early_s + min(by_s), self._late_s + max(by_s)
