"""How much later than another a call of this lane may reach the exchange: measured, not guessed. Pure.

An exchange counts arrivals, we hand out departures. Two calls that leave a window apart arrive closer together where
the first one was late, or its way longer. Known of each call are how late it left, and its round trip up to the
answer's first byte. What that took beyond the fastest recent round trip to the same endpoint is the most that its way
there can have been longer: the exchange's own slowness is in it too, so this errs on the safe side, and `budget.lua`
caps it.

Lateness is enforced (a late call does not leave), so that of it only what pays counts; of the ways the longest.
"""

import math
from typing import Final

# So many calls say enough. Fewer, and the table's margin holds.
ENOUGH: Final = 200
# What is remembered: this generation and the last; a new one begins after both.
GENERATION_CALLS: Final = 200
GENERATION_S: Final = 30.0
# How many calls apart the usual lateness is worked out anew.
LOOK_EVERY: Final = 20
# What a margin costs is its part of the window; what a late call costs is itself. Weighed for the shortest windows.
SHORTEST_WINDOW_US: Final = 1_000_000
LEAST_US: Final = 10_000
# Beyond what was seen so far.
SPARE_US: Final = 5_000
LONGEST_US: Final = 2_000_000
ENDPOINTS_KEPT: Final = 500
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

    def cheapest(self) -> float:
        """The value to allow for, where allowing costs its part of the shortest window, and each value above itself."""
        best, cost, above = 0.0, math.inf, self.number
        for step in sorted(self._counts):
            above -= self._counts[step]
            if (new := _value(step) / SHORTEST_WINDOW_US + above / self.number) < cost:
                best, cost = _value(step), new
        return best


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
            self._last, self._this, self._end_s = self._this, math.inf, now_s + 2 * GENERATION_S
        self._this = min(self._this, value_s)
        return min(self._this, self._last)


class Spread:
    """What one lane's calls in this process show."""

    def __init__(self) -> None:
        self._trips: dict[str, _Least] = {}
        self._late = [_Sizes(), _Sizes()]
        self._way = [_Sizes(), _Sizes()]
        self._began_s: float | None = None
        self._known = False
        self._late_us = 0.0
        self.way_us = 0.0

    def left(self, late_us: float) -> None:
        """Takes in how long after its instant a call was ready to leave, or would have been."""
        self._late[0].add(min(late_us, LONGEST_US))

    def answered(self, now_s: float, endpoint: str, trip_s: float) -> float:
        """Takes in a round trip, and returns how much longer than the fastest it was, microseconds.

        Args:
            now_s: the monotonic clock.
            endpoint: calls with the same one take the exchange equally long.
            trip_s: from the departure to the answer's first byte.
        """
        if len(self._trips) > ENDPOINTS_KEPT:
            self._trips.clear()
        longer_us = (trip_s - self._trips.setdefault(endpoint, _Least()).add(now_s, trip_s)) * 1e6
        self._way[0].add(min(longer_us, LONGEST_US))
        self.way_us = max(sizes.largest() for sizes in self._way)
        if self._way[0].number % LOOK_EVERY == 0:
            self._late_us = max(sizes.cheapest() for sizes in self._late)
        if self._began_s is None:
            self._began_s = now_s
        if self._way[0].number >= ENOUGH:
            self._known = True
            if self._way[0].number >= GENERATION_CALLS and now_s - self._began_s >= GENERATION_S:
                self._late = [_Sizes(), self._late[0]]
                self._way = [_Sizes(), self._way[0]]
                self._began_s = now_s
        return longer_us

    def margin_us(self) -> int:
        """How far apart from their windows' ends calls must stay; below zero while too little is known."""
        if not self._known:
            return -1
        return int(max(LEAST_US, self._late_us + self.way_us + SPARE_US))
