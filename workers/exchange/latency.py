"""How a lane's exchange answers: what is out now, for how long nothing came back, and how slow it is beside itself.

What is usual is kept by lane and method as a mean of latencies' logarithms, so that half and double weigh alike. It
learns slowly, and slower still from calls far above it: an exchange that turns slow must not become its own measure.
Pure: the clock is an argument.
"""

import math
from typing import Final

from msgspec import Struct

# So many calls are averaged before anything is compared with them; after that each counts for a two hundredth.
FIRST: Final = 10
LEARNS: Final = 1 / 200
# A call so many times slower than usual is no example of it. But what stays so for days is usual in the end.
UNUSUAL: Final = 3.0
LEARNS_UNUSUAL: Final = 1 / 5000
# A latency below the clock's grain has no logarithm worth keeping.
_LEAST_S: Final = 1e-4


class _Usual(Struct):
    """What is usual for one method: the mean of the logarithms of its latencies, and how many there were."""

    log: float = 0.0
    count: int = 0


class Answering:
    """What one worker sees of one lane's answers. All times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.unanswered = 0
        self._since_s = 0.0
        self._usual: dict[str, _Usual] = {}
        self._log_sum = 0.0
        self._compared = 0

    def sent(self, now_s: float) -> None:
        """An HTTP call goes out."""
        if not self.unanswered:
            self._since_s = now_s
        self.unanswered += 1

    def heard(self, now_s: float) -> None:
        """An answer came in, whatever it says."""
        self._since_s = now_s

    def ended(self) -> None:
        """An HTTP call is over, answered or not."""
        self.unanswered -= 1

    def silent_s(self, now_s: float) -> float:
        """For how long calls have been out with no answer to any; 0 when none is out."""
        return max(0.0, now_s - self._since_s) if self.unanswered else 0.0

    def took(self, method: str, latency_s: float) -> None:
        """An attempt brought data.

        Args:
            method: its ccxt method.
            latency_s: the mean time of its HTTP calls.
        """
        log = math.log(max(latency_s, _LEAST_S))
        usual = self._usual.setdefault(method, _Usual())
        if usual.count < FIRST:
            usual.count += 1
            usual.log += (log - usual.log) / usual.count
            return
        slower = log - usual.log
        self._log_sum += slower
        self._compared += 1
        usual.log += slower * (LEARNS_UNUSUAL if slower > math.log(UNUSUAL) else LEARNS)

    def slowness(self) -> float:
        """How many times slower than usual the attempts since the last call of this were: their geometric mean.

        1 where there were none, or too few before to compare with.
        """
        mean = self._log_sum / self._compared if self._compared else 0.0
        self._log_sum, self._compared = 0.0, 0
        return math.exp(mean)
