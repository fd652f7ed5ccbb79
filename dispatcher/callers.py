"""What the callers in one line have booked of its limit, and which of them takes more than his share. Pure.

A caller is a reply address; requests without one are one caller's. Shares are of a limit's time: a call that costs
three times as much counts three times. Memory goes by callers and the seconds they wait for, not by requests.
"""

import math
from typing import Final

# A turn counts as booked until the end of its second.
TICK_MS: Final = 1_000
# Callers are compared by classes of what they booked, so many to each doubling. It makes a turn up to a fifth later.
CLASSES_EACH: Final = 4
SMALLEST_MS: Final = 2.0**-10
CLASSES: Final = 40 * CLASSES_EACH
# What is booked may come to this much less or more than 0 by rounding.
NOTHING_MS: Final = 1e-6
# A caller who took less than his share may take so many turns more afterwards, as requests do not come evenly.
CREDIT: Final = 4


def _class(work_ms: float) -> int:
    """The class of so much time."""
    if work_ms <= SMALLEST_MS:
        return 0
    return min(CLASSES - 1, int(CLASSES_EACH * math.log2(work_ms / SMALLEST_MS)))


class Callers:
    """The callers of one line. All times are Unix milliseconds; a gap is the time that one turn takes of the line."""

    def __init__(self) -> None:
        self._booked_ms: dict[str, float] = {}
        self._ticks: dict[int, dict[str, float]] = {}  # by second: what is booked in it, by caller
        self._tick = 0
        self._counts = [0] * CLASSES
        self._sums_ms = [0.0] * CLASSES
        self._there_until_ms: dict[str, float] = {}
        self._due_ms: dict[str, float] = {}

    def observe(self, now_ms: float) -> None:
        """Forgets turns that are over, and callers that are gone."""
        tick = math.floor(now_ms / TICK_MS)
        if tick <= self._tick:
            return
        self._tick = tick
        for passed in [each for each in self._ticks if each <= tick]:
            for caller, gap_ms in self._ticks.pop(passed).items():
                self._add(caller, -gap_ms)
        self._there_until_ms = {caller: at_ms for caller, at_ms in self._there_until_ms.items() if at_ms > now_ms}
        self._due_ms = {caller: at_ms for caller, at_ms in self._due_ms.items() if caller in self._there_until_ms}

    @property
    def count(self) -> int:
        """How many callers share the line."""
        return len(self._there_until_ms)

    def book(self, caller: str, at_ms: float, gap_ms: float) -> None:
        """A caller gets a turn. He counts as one who shares the line until each that waits could have one more."""
        tick = self._ticks.setdefault(math.ceil(at_ms / TICK_MS), {})
        tick[caller] = tick.get(caller, 0.0) + gap_ms
        self._add(caller, gap_ms)
        until_ms = at_ms + gap_ms * len(self._booked_ms)
        self._there_until_ms[caller] = max(self._there_until_ms.get(caller, 0.0), until_ms)

    def overtakes_ms(self, caller: str, gap_ms: float) -> float:
        """How much of what others have booked comes after one more turn of this caller's.

        If all callers' turns come in rounds, one of each, that is what is left of others when his are over.
        """
        if len(self._booked_ms) <= (caller in self._booked_ms):
            return 0.0
        mine_ms = self._booked_ms.get(caller, 0.0) + gap_ms
        above = _class(mine_ms) + 1
        return max(0.0, sum(self._sums_ms[above:]) - mine_ms * sum(self._counts[above:]))

    def due_ms(self, caller: str, at_ms: float, gap_ms: float) -> float:
        """When a caller's turn at `at_ms` is due by his share: at most `CREDIT` turns before it."""
        earliest_ms = at_ms - CREDIT * gap_ms * max(1, self.count)
        return max(earliest_ms, self._due_ms.get(caller, earliest_ms))

    def went(self, caller: str, at_ms: float, gap_ms: float) -> None:
        """A caller's request leaves in its turn. His next one is due when each of the others had one."""
        self._due_ms[caller] = min(at_ms, self.due_ms(caller, at_ms, gap_ms)) + gap_ms * max(1, self.count)

    def _add(self, caller: str, gap_ms: float) -> None:
        before_ms = self._booked_ms.get(caller, 0.0)
        after_ms = before_ms + gap_ms
        if before_ms:
            self._move(_class(before_ms), -1, -before_ms)
        if after_ms > NOTHING_MS:
            self._booked_ms[caller] = after_ms
            self._move(_class(after_ms), 1, after_ms)
        else:
            self._booked_ms.pop(caller, None)

    def _move(self, of: int, count: int, work_ms: float) -> None:
        self._counts[of] += count
        self._sums_ms[of] = self._sums_ms[of] + work_ms if self._counts[of] else 0.0
