"""How fast the turns of a line may come: as a limit allows calls, or slower where its window was filled in parts. Pure.

Turns are evenly apart in the *limit's time*. That passes with the clock where the limit has room for one call after the
other. Where its window was filled in parts, room comes back in parts: between them the limit's time stands still or is
slow. After that window it passes with the clock again.
"""

from bisect import bisect_right
from collections.abc import Sequence

# A message may hold any number of points; the rest is passed over.
POINTS_MOST = 16


class Pace:
    """The pace of turns, from the instant on at which a bucket has room.

    Args:
        first_ms: when it has room for one call, Unix milliseconds.
        step_ms: how long a call takes of it.
        rooms: pairs in order: an instant, and for how many calls it has had room by then.
    """

    def __init__(self, first_ms: float = 0.0, step_ms: float = 0.0, rooms: Sequence[tuple[int, int]] = ()) -> None:
        self._clock_ms = [first_ms]
        self._limit_ms = [first_ms]
        calls_before = 1
        for at_ms, calls in rooms[:POINTS_MOST]:
            takes_ms = (calls - calls_before) * step_ms
            if takes_ms > 0:
                calls_before = calls
                self._limit_ms.append(self._limit_ms[-1] + takes_ms)
                self._clock_ms.append(max(self._clock_ms[-1] + takes_ms, at_ms))

    def later_ms(self, at_ms: float, by_ms: float) -> float:
        """The instant that is later than another by so much of the limit's time, or earlier by a negative one."""
        if len(self._clock_ms) == 1:
            return at_ms + by_ms
        return _mapped(self._limit_ms, self._clock_ms, self._passed_ms(at_ms) + by_ms)

    def between_ms(self, from_ms: float, to_ms: float) -> float:
        """How much of the limit's time is between two instants."""
        return self._passed_ms(to_ms) - self._passed_ms(from_ms)

    def _passed_ms(self, at_ms: float) -> float:
        return _mapped(self._clock_ms, self._limit_ms, at_ms)


def _mapped(points: Sequence[float], to: Sequence[float], at: float) -> float:
    """Reads a line through these points, which goes on evenly before and after them."""
    if at <= points[0]:
        return at - points[0] + to[0]
    if at >= points[-1]:
        return at - points[-1] + to[-1]
    after = bisect_right(points, at)
    part = (at - points[after - 1]) / (points[after] - points[after - 1])
    return to[after - 1] + part * (to[after] - to[after - 1])
