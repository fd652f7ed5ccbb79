"""What a machine that is suspended does to its clocks."""

import time

import pytest


class Machine:
    """As `time` has it from now on.

    Attributes:
        slept_s: for how long it was suspended: the clock that goes on then is so much further, the others are not.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept_s = 0.0
        self._real = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", self._now_s)

    def _now_s(self, clock: int) -> float:
        return self._real(clock) + (self.slept_s if clock == time.CLOCK_BOOTTIME else 0.0)
