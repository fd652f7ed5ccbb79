"""When a worker that lost Redis goes back to it. Pure: the clock is an argument, seconds.

A worker that goes back to the shared budget and loses it again has no share for a window and some seconds, as the
grants of all workers may have used everything up. A Redis that comes and goes every second would cost more than one
that is away. So a loss soon after the last return is a flap. With each flap Redis has to answer for longer without a
loss before the worker goes back: at first not at all, then for twice as long each time.
"""

from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 30.0
# A loss so long after the last return is no flap. It is longer than any time that has to be waited.
FORGIVEN_S: Final = 60.0


class Flapping:
    """One worker's losses of Redis."""

    def __init__(self) -> None:
        self._steady_s = 0.0
        self._lost_s = self._back_s = float("-inf")
        self._away = False

    def lost(self, now_s: float) -> None:
        """Redis did not answer."""
        if not self._away:
            flaps = now_s - self._back_s < FORGIVEN_S
            self._steady_s = min(max(FIRST_S, 2 * self._steady_s), LONGEST_S) if flaps else 0.0
            self._away = True
        self._lost_s = now_s

    def may_return(self, now_s: float) -> bool:
        """Whether Redis, which has just answered, has done so for long enough."""
        return now_s - self._lost_s >= self._steady_s

    def back(self, now_s: float) -> None:
        """The worker shares the budget again."""
        self._back_s, self._away = now_s, False
