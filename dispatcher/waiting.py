"""The requests that wait for a lane in the delay queues, by kind, and how long they will take. Pure.

A dispatcher knows what it put there, and until when: each delay queue has one time. Other dispatchers put about as much
there, as all of them take requests from the same queues in turn.

The rate at which a lane works them off is measured from the reports while some wait and nothing but its limits holds it
up. It is measured for each kind apart, as an exchange may have much room for one method and none for another.
"""

import math
from typing import Final

from schemas.reports import LaneReport

# A rate is known after so long. It is that of the last one or two periods of the second length.
KNOWN_AFTER_S: Final = 3.0
RATE_S: Final = 5.0
# Requests that leave their delay queue within so long are counted together.
TICK_S: Final = 0.1
# Fewer than these say nothing: they may rest after a failure, or have met the last second of a full limit, while the
# lane itself is idle.
CROWD: Final = 10


class _Rate:
    """How many attempts ended per second, since the measurement began."""

    def __init__(self, now_s: float) -> None:
        self._older = 0
        self._older_from_s = self._from_s = self._now_s = now_s
        self._ended = 0

    def count(self, ended: int, now_s: float) -> None:
        """So many more attempts ended until now."""
        if now_s - self._from_s >= RATE_S:
            self._older, self._older_from_s = self._ended, self._from_s
            self._ended, self._from_s = 0, now_s
        self._ended += ended
        self._now_s = now_s

    @property
    def per_s(self) -> float:
        """0 while it is not known."""
        measured_s = self._now_s - self._older_from_s
        return (self._older + self._ended) / measured_s if measured_s >= KNOWN_AFTER_S else 0.0


class Waiting:
    """The requests that wait for one lane. Kinds are those of `Request.kind`.

    Attributes:
        count: how many there are, of all kinds.
        ms: by kind, the time until all that wait now are answered; without kinds whose rate is not known, or of which
            fewer than `CROWD` wait.
    """

    def __init__(self) -> None:
        self.count = 0.0
        self.ms: dict[str, float] = {}
        self._ticks: dict[str, dict[int, float]] = {}  # by kind and tick: how many leave their delay queue then
        self._rates: dict[str, _Rate] = {}

    def put(self, kind: str, amount: float, until_s: float) -> None:
        """So many requests wait until then; of one that other lanes may take too, the part that is expected here."""
        ticks = self._ticks.setdefault(kind, {})
        tick = math.ceil(until_s / TICK_S)
        ticks[tick] = ticks.get(tick, 0.0) + amount

    def per_s(self, kind: str) -> float:
        """The rate at which attempts of this kind end while some wait; 0 where that is not known."""
        return self._rates[kind].per_s if kind in self._rates else 0.0

    def observe(self, report: LaneReport, now_s: float, *, held_up: bool) -> None:
        """Takes in a worker's report.

        Args:
            report: of this lane.
            now_s: by the clock of `put`.
            held_up: something else than its limits holds the lane up, so its rate says nothing of them.
        """
        self.count, self.ms = 0.0, {}
        for kind in list(self._ticks):
            count = self._left(kind, now_s)
            self.count += count
            if kind not in self._ticks or held_up:
                self._rates.pop(kind, None)
                continue
            rate = self._rates.setdefault(kind, _Rate(now_s))
            rate.count(report.ended.get(kind, 0), now_s)
            if count >= CROWD and rate.per_s:
                self.ms[kind] = count / rate.per_s * 1000

    def _left(self, kind: str, now_s: float) -> float:
        ticks, passed = self._ticks[kind], now_s / TICK_S
        for tick in [tick for tick in ticks if tick <= passed]:
            del ticks[tick]
        if not ticks:
            del self._ticks[kind]
        return sum(ticks.values())
