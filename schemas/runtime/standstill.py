"""When this process stood still: it was stopped, its machine was paused, or something kept its event loop busy.

Time-outs pass meanwhile, and what came lies unread in sockets. So whoever measures a time by what arrives has to take
that off. A task ticks every 0.1 s. Of the time between two ticks, all beyond two of these counts as a standstill. That
is a part of what is measured and no threshold: a tick that is a little late takes a little off.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from .clock import clock_s

TICK_S: Final = 0.1
# A tick may be so late, on a machine that has more to do, before that counts.
LATE_S: Final = TICK_S
# From so much on a standstill decides: what was measured meanwhile, or did not arrive in time, says nothing of others.
DECIDES_S: Final = 0.3
# What ends so soon after a standstill may have had its time-out before its answer, which lay there, was read.
AT_THE_END_S: Final = 0.5
# Of so many standstills it is known when they were.
KEPT: Final = 100

StillFor: TypeAlias = Callable[[float, float], float]
"""For how long the process stood still between two times, see `Standstills.still_s`."""


def unknown(from_s: float, to_s: float) -> float:
    """Of a process that does not tick: nothing is taken off."""
    return 0.0


class Standstills:
    """Knows when this process stood still, from its making on. All times are seconds of the monotonic clock.

    Args:
        clock: that clock.

    Attributes:
        spans: the last standstills, each from when to when.
    """

    def __init__(self, clock: Callable[[], float] = clock_s) -> None:
        self._clock = clock
        self._ticked_s = clock()
        self._total_s = 0.0
        self.spans = deque[tuple[float, float]](maxlen=KEPT)

    async def run(self, hears: Callable[[], bool] = lambda: True) -> None:
        """Ticks; never returns.

        Args:
            hears: whether anything can arrive now. Time in which nothing could is as good as a standstill.
        """
        self.start()
        while True:
            await asyncio.sleep(TICK_S)
            if hears():
                self.tick()

    def start(self) -> None:
        """From now on it ticks: what passed since its making, or since it stopped, was no standstill."""
        self._ticked_s = self._clock()

    def tick(self) -> None:
        """The event loop runs."""
        now_s = self._clock()
        if span := self._under_way(now_s):
            self.spans.append(span)
            self._total_s += span[1] - span[0]
        self._ticked_s = now_s

    def still_s(self, from_s: float, to_s: float) -> float:
        """For how long it stood still between these times; that is known before the next tick, too."""
        begin_s, end_s = self._under_way(self._clock()) or (to_s, to_s)
        still_s = max(0.0, min(to_s, end_s) - max(from_s, begin_s))
        for begin_s, end_s in reversed(self.spans):
            if end_s <= from_s:  # nor does any before it matter: this is asked for every call
                break
            still_s += max(0.0, min(to_s, end_s) - max(from_s, begin_s))
        return still_s

    def awake_s(self) -> float:
        """The time without all standstills: a clock that stops while the process does."""
        now_s = self._clock()
        under_way = self._under_way(now_s)
        return now_s - self._total_s - (under_way[1] - under_way[0] if under_way else 0.0)

    def _under_way(self, now_s: float) -> tuple[float, float] | None:
        begin_s = self._ticked_s + TICK_S + LATE_S
        return (begin_s, now_s) if now_s > begin_s else None
