"""The clock that the fleet measures time by: it is never set, and goes on while the machine is suspended.

On Linux and macOS `time.monotonic` stops while the machine is suspended, and so do an event loop's timers; Redis's
clock and an exchange's go on. What is measured by a clock that stops looks younger than it is: a worker would go on
with a part of the limits that others were given long ago. Linux has `CLOCK_BOOTTIME` for this (clock_gettime(2)).
macOS's `CLOCK_MONOTONIC` goes on by itself (its clock_gettime(3)), and so does Windows' clock.

Where time in which the machine sleeps shall not count `time.monotonic` is right; `tests/unit/test_clock.py` lists these
places. Delays may be used with timers, but instants of the two clocks may not be mixed.
"""

import time
from typing import Final

_GOES_ON: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def clock_s() -> float:
    """Now, seconds since some moment."""
    return time.monotonic() if _GOES_ON is None else time.clock_gettime(_GOES_ON)
