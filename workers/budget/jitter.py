"""How much later than it could have a call of this lane reaches the exchange: measured, not guessed. Pure.

An exchange counts arrivals, we hand out departures. Two calls that leave a window apart arrive closer together where
the first one left late, or took longer to arrive. Known of each call are how late it left, and its round trip up to the
answer's first byte. What that took beyond the fastest recent round trip to the same endpoint bounds by how much it can
have arrived later. The exchange's own slowness is in it too, so this errs on the safe side. The fastest round trip is
the whole fleet's: a process that started on a busy machine may have seen slow ones alone.

Windows are wider by what is usual, which costs its part of each window. A call that was later than that is reported to
all workers (`Budget.arrived`), which costs a round trip to Redis. While Redis is away a worker can't report, and allows
for the worst.

Where this process stood still during a trip, that call may have arrived as late as it seems, and is reported so. But it
says nothing of how late calls usually are.
"""

import math
from collections.abc import Mapping
from typing import Final

from schemas.runtime.standstill import DECIDES_S, StillFor, unknown

from .rules import LEAST_MARGIN_US

# After so many calls the measure counts; until then the table's margin does.
ENOUGH: Final = 20
# This generation of calls and the last one are remembered. A new one begins after so many calls and so much time.
GENERATION_CALLS: Final = 50
GENERATION_S: Final = 10.0
# This part of all calls may be later than the usual lateness.
UNUSUAL_PART: Final = 0.1
# The usual lateness is computed anew after so many calls.
LOOK_EVERY: Final = 10
# What is allowed for beyond the worst lateness seen.
SPARE_US: Final = 5_000
LONGEST_US: Final = 2_000_000
ENDPOINTS_KEPT: Final = 500
# The fastest trip is remembered for so long at least, and for twice as long at most: some minutes in which all trips
# were slow must not become the measure. A route that became longer makes all calls look late for so long, which costs a
# part of each window.
FASTEST_S: Final = 600.0
# Of fewer calls even the fastest may have been slow. On a machine that was busy for a minute, 56 calls to one endpoint
# took 17 ms and more, where 0.7 ms would have been enough. The fastest of all endpoints is sure after fewer calls.
SURE_CALLS: Final = 50
SURE_CALLS_HERE: Final = 200
ANY: Final = ""
# Steps per doubling, from 100 us up: values are kept to within 19 %.
_STEPS: Final = 4
_FIRST_US: Final = 100.0


class _Sizes:
    """A histogram with steps that grow with the values, and the most that any value can have been."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.number = 0
        self.worst_us = 0.0

    def add(self, value_us: float, most_us: float) -> None:
        step = max(0, math.ceil(_STEPS * math.log2(max(value_us, 1.0) / _FIRST_US)))
        self._counts[step] = self._counts.get(step, 0) + 1
        self.number += 1
        self.worst_us = max(self.worst_us, most_us)

    def usual(self) -> float:
        """The value that all but `UNUSUAL_PART` stay within."""
        above = self.number
        for step in sorted(self._counts):
            above -= self._counts[step]
            if above <= self.number * UNUSUAL_PART:
                return _value(step)
        return 0.0


def _value(step: int) -> float:
    return _FIRST_US * 2 ** (step / _STEPS)


class _Fastest:
    """The fastest trip of this span of time and the last one."""

    __slots__ = ("_calls", "_end_s", "_enough", "_first_s", "_last_s", "_this_s")

    def __init__(self, now_s: float, enough: int) -> None:
        self._enough = enough
        self._this_s = self._last_s = math.inf
        self._first_s, self._end_s = now_s, now_s + FASTEST_S
        self._calls = 0

    def add(self, now_s: float, trip_s: float) -> None:
        self._calls += 1
        if now_s >= self._end_s:
            self._last_s, self._this_s, self._end_s = self._this_s, math.inf, now_s + FASTEST_S
        self._this_s = min(self._this_s, trip_s)

    @property
    def trip_s(self) -> float:
        return min(self._this_s, self._last_s)

    def sure(self, now_s: float) -> bool:
        return self._calls >= self._enough and now_s - self._first_s >= GENERATION_S


class Spread:
    """What one lane's calls in this process show.

    Args:
        still_s: for how long the process stood still.
    """

    def __init__(self, still_s: StillFor = unknown) -> None:
        self._still_s = still_s
        self._trips: dict[str, _Fastest] = {}
        self._fleet_s: dict[str, float] = {}
        self._forgotten_s: dict[str, float] = {}
        self._span = -1
        self._far = [_Sizes(), _Sizes()]
        self._began_s: float | None = None
        self._known = False
        self._usual_us = self._worst_us = 0.0

    def answered(self, now_s: float, endpoint: str, trip_s: float, late_us: float = 0.0) -> float:
        """Takes in a round trip; returns how late the call can have arrived at the most, microseconds.

        Args:
            now_s: the monotonic clock.
            endpoint: calls with the same one take the exchange equally long.
            trip_s: from the departure to the answer's first byte.
            late_us: how long after its instant it left.
        """
        if self._began_s is None:
            self._began_s = now_s
        usual_s, sure_s = self._fastest(now_s, endpoint, trip_s)
        far_us, most_us = late_us + (trip_s - usual_s) * 1e6, late_us + (trip_s - sure_s) * 1e6
        if self._still_s(now_s - trip_s, now_s) >= DECIDES_S:
            return most_us
        this = self._far[0]
        this.add(min(far_us, LONGEST_US), min(most_us, LONGEST_US))
        if this.number % LOOK_EVERY == 0:
            self._usual_us = max(sizes.usual() for sizes in self._far)
        self._worst_us = max(sizes.worst_us for sizes in self._far)
        if this.number >= ENOUGH:
            self._known = True
        if this.number >= GENERATION_CALLS and now_s - self._began_s >= GENERATION_S:
            self._far = [_Sizes(), this]
            self._began_s = now_s
        return most_us

    def _fastest(self, now_s: float, endpoint: str, trip_s: float) -> tuple[float, float]:
        """The fastest known trip to this endpoint, and a trip than which certainly none is faster.

        The latter is the fastest of all endpoints while there were few calls to this one, and 0 while there were few to
        any, as even the fastest of few may have been slow.
        """
        if len(self._trips) > ENDPOINTS_KEPT:
            self._trips.clear()
        for name in (endpoint, ANY):
            fastest = self._trips.setdefault(name, _Fastest(now_s, SURE_CALLS_HERE if name else SURE_CALLS))
            fastest.add(now_s, trip_s)
        usual_s = min(self._trips[endpoint].trip_s, self._fleet_s.get(endpoint, math.inf))
        for name in (endpoint, ANY):
            if name in self._fleet_s or self._trips[name].sure(now_s):
                return usual_s, min(self._trips[name].trip_s, self._fleet_s.get(name, math.inf))
        return usual_s, 0.0

    def faster(self, now_s: float) -> dict[str, float]:
        """By endpoint, our round trips that are faster than the fleet's, to be published."""
        ours = {
            name: fastest.trip_s
            for name, fastest in self._trips.items()
            if fastest.sure(now_s) and fastest.trip_s < self._fleet_s.get(name, math.inf)
        }
        return self._forgotten_s | ours

    def take_fleet(self, span: int, trips_s: Mapping[str, float]) -> None:
        """Takes in the fleet's fastest trips, by endpoint.

        A trip of this span of time that is missing now was lost with Redis's data. It is kept here and published again:
        a worker that starts on a busy machine sees slow trips alone.
        """
        known_s = self._fleet_s if span == self._span else {}
        self._forgotten_s = {name: trip_s for name, trip_s in known_s.items() if trip_s < trips_s.get(name, math.inf)}
        self._fleet_s = {**trips_s, **self._forgotten_s}
        self._span = span

    def margin_us(self) -> int | None:
        """How far from a window's ends calls stay; None while too little is known."""
        if not self._known:
            return None
        return int(max(LEAST_MARGIN_US, self._usual_us))

    def worst_us(self) -> int | None:
        """The same while late calls can't be reported, as Redis is away."""
        if not self._known:
            return None
        return int(max(LEAST_MARGIN_US, self._worst_us + SPARE_US))
