"""How much later than it could have a call of this lane reaches the exchange: measured, not guessed. Pure.

An exchange counts arrivals, we hand out departures. Two calls that leave a window apart arrive closer together where
the first one was late, or its way longer. Known of each call are how late it left, and its round trip up to the
answer's first byte. What that took beyond the fastest recent round trip to the same endpoint is the most that its way
there can have been longer: the exchange's own slowness is in it too, so this errs on the safe side.

Windows are wider by what is usual, which costs its part of each window; of a call that was later than that all others
are told (`Budget.arrived`), which costs a round trip to Redis. Who can't tell the others, as Redis is away, allows for
the worst.
"""

import math
from typing import Final

# So many calls say enough. Fewer, and the table's margin holds.
ENOUGH: Final = 20
# What is remembered: this generation and the last; a new one begins after both.
GENERATION_CALLS: Final = 50
GENERATION_S: Final = 10.0
# So many calls may be later than usual.
UNUSUAL_PART: Final = 0.1
# How many calls apart the usual is worked out anew.
LOOK_EVERY: Final = 10
LEAST_US: Final = 10_000
# Beyond the worst that was seen so far.
SPARE_US: Final = 5_000
LONGEST_US: Final = 2_000_000
ENDPOINTS_KEPT: Final = 500
# For how long the fastest trip is remembered, at least, and twice as long at most: some minutes in which all were slow
# must not become the measure. A route that became longer makes all calls look late for so long, which costs a part of
# each window.
FASTEST_S: Final = 600.0
# Steps per doubling, from 100 us up: values are kept to within 19 %.
_STEPS: Final = 4
_FIRST_US: Final = 100.0


class _Sizes:
    """Counts values in steps that grow with them."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.number = 0

    def add(self, value_us: float) -> None:
        step = max(0, math.ceil(_STEPS * math.log2(max(value_us, 1.0) / _FIRST_US)))
        self._counts[step] = self._counts.get(step, 0) + 1
        self.number += 1

    def largest(self) -> float:
        return _value(max(self._counts)) if self._counts else 0.0

    def usual(self) -> float:
        """What all but the unusual part stay within."""
        above = self.number
        for step in sorted(self._counts):
            above -= self._counts[step]
            if above <= self.number * UNUSUAL_PART:
                return _value(step)
        return 0.0


def _value(step: int) -> float:
    return _FIRST_US * 2 ** (step / _STEPS)


class _Least:
    """The least value of two spans."""

    __slots__ = ("_end_s", "_last", "_this")

    def __init__(self) -> None:
        self._this = self._last = math.inf
        self._end_s = 0.0

    def add(self, now_s: float, value_s: float) -> float:
        if now_s >= self._end_s:
            self._last, self._this, self._end_s = self._this, math.inf, now_s + FASTEST_S
        self._this = min(self._this, value_s)
        return min(self._this, self._last)


class Spread:
    """What one lane's calls in this process show."""

    def __init__(self) -> None:
        self._trips: dict[str, tuple[float, _Least]] = {}
        self._any = _Least()
        self._far = [_Sizes(), _Sizes()]
        self._first_s = 0.0
        self._began_s: float | None = None
        self._known = False
        self._usual_us = self._worst_us = 0.0

    def answered(self, now_s: float, endpoint: str, trip_s: float, late_us: float = 0.0) -> float:
        """Takes in a round trip, and returns how late the call was at the most, departure and way, microseconds.

        Args:
            now_s: the monotonic clock.
            endpoint: calls with the same one take the exchange equally long.
            trip_s: from the departure to the answer's first byte.
            late_us: how long after its instant it left.
        """
        if len(self._trips) > ENDPOINTS_KEPT:
            self._trips.clear()
        least_s = self._any.add(now_s, trip_s)
        since_s, trips = self._trips.setdefault(endpoint, (now_s, _Least()))
        mine_s = trips.add(now_s, trip_s)
        if now_s - since_s >= GENERATION_S:
            # All of the first ones may have been slow: beside the fastest of all they look slower than they were.
            least_s = mine_s
        far_us = late_us + (trip_s - least_s) * 1e6
        # Where little is known the fastest trip may have been slow too: it came when its answer began, at the latest.
        if self._began_s is None:
            self._first_s = self._began_s = now_s
        sure = self._known and now_s - self._first_s >= GENERATION_S
        told_us = far_us if sure else late_us + trip_s * 1e6
        this = self._far[0]
        this.add(min(far_us, LONGEST_US))
        if this.number % LOOK_EVERY == 0:
            self._usual_us = max(sizes.usual() for sizes in self._far)
        self._worst_us = max(sizes.largest() for sizes in self._far)
        if this.number >= ENOUGH:
            self._known = True
        if this.number >= GENERATION_CALLS and now_s - self._began_s >= GENERATION_S:
            self._far = [_Sizes(), this]
            self._began_s = now_s
        return told_us

    def margin_us(self) -> int:
        """How far apart from their windows' ends calls stay; below zero while too little is known."""
        if not self._known:
            return -1
        return int(max(LEAST_US, self._usual_us))

    def worst_us(self) -> int:
        """The same for those who can't be told of a late call."""
        if not self._known:
            return -1
        return int(max(LEAST_US, self._worst_us + SPARE_US))
