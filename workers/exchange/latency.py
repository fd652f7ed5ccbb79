"""How a lane's exchange answers: calls in flight, time without any answer, latency relative to its own baseline.

The baseline is kept by method: a moving mean of the logarithms of latencies, so that half and double weigh alike. It
moves slowly, and slower still for calls far above it: an exchange that turns slow must not become its own baseline.
Pure: the clock is an argument.
"""

import math
from typing import Final

from msgspec import Struct

from schemas.runtime.standstill import StillFor, unknown

# Calls that make the first baseline; after them each call has a weight of 1/200.
FIRST: Final = 10
LEARNS: Final = 1 / 200
# A call this many times slower than the baseline hardly moves it. If calls stay slow for days it follows all the same.
UNUSUAL: Final = 3.0
LEARNS_UNUSUAL: Final = 1 / 5000
# The clock's resolution: a shorter latency counts as this.
_LEAST_S: Final = 1e-4


class _Baseline(Struct):
    """One method's baseline: the mean of the logarithms of its latencies, and the number of them up to `FIRST`."""

    log: float = 0.0
    count: int = 0


class Answering:
    """One worker's view of one lane's answers. All times in seconds of one monotonic clock.

    Args:
        still_s: for how long the process stood still, and so read no answer.
    """

    def __init__(self, still_s: StillFor = unknown) -> None:
        self._still_s = still_s
        self.unanswered = 0
        self._since_s = 0.0
        self._baselines: dict[str, _Baseline] = {}
        self._log_sum = 0.0
        self._compared = 0

    def sent(self, now_s: float) -> None:
        """An HTTP call is sent."""
        if not self.unanswered:
            self._since_s = now_s
        self.unanswered += 1

    def answered(self, now_s: float) -> None:
        """An answer came, whatever it says."""
        self._since_s = now_s

    def ended(self) -> None:
        """An HTTP call is over, answered or not."""
        self.unanswered -= 1

    def silent_s(self, now_s: float) -> float:
        """For how long calls have been in flight without an answer to any; 0 if none is in flight."""
        if not self.unanswered:
            return 0.0
        return max(0.0, now_s - self._since_s - self._still_s(self._since_s, now_s))

    def took(self, method: str, latency_s: float) -> None:
        """An attempt was answered with data.

        Args:
            method: its ccxt method.
            latency_s: the mean time of its HTTP calls.
        """
        log = math.log(max(latency_s, _LEAST_S))
        baseline = self._baselines.setdefault(method, _Baseline())
        if baseline.count < FIRST:
            baseline.count += 1
            baseline.log += (log - baseline.log) / baseline.count
            return
        slower = log - baseline.log
        self._log_sum += slower
        self._compared += 1
        baseline.log += slower * (LEARNS_UNUSUAL if slower > math.log(UNUSUAL) else LEARNS)

    def usual_s(self, method: str) -> float:
        """How long an answer to a method usually takes; 0 while that is not known."""
        baseline = self._baselines.get(method)
        return math.exp(baseline.log) if baseline and baseline.count == FIRST else 0.0

    def slowness(self) -> float:
        """Latency relative to the baseline: the geometric mean over the attempts since the last call of this.

        1 if there were none, or no baseline yet.
        """
        mean = self._log_sum / self._compared if self._compared else 0.0
        self._log_sum, self._compared = 0.0, 0
        return math.exp(mean)
