"""Whether a number can be a Unix time in milliseconds. A time in another unit is silently another year."""

from typing import Final

# In milliseconds this is in 1973. What is below it was meant in seconds, or is a duration.
EARLIEST_MS: Final = 100_000_000_000
# In milliseconds this is in the year 5138. What is above it was meant in microseconds or nanoseconds.
LATEST_MS: Final = 100_000_000_000_000
# In seconds this is in 2001.
_EARLIEST_S: Final = 1_000_000_000


def wrong_unit(time: float) -> str:
    """Why a number is no Unix time in milliseconds, and what it may be instead; empty if it can be one."""
    if EARLIEST_MS <= time <= LATEST_MS:
        return ""
    if time > LATEST_MS:
        unit = "micro" if time < LATEST_MS * 1000 else "nano"
        return f"is no Unix time in milliseconds, but finer: are these {unit}seconds?"
    if time >= _EARLIEST_S:
        return "is no Unix time in milliseconds: are these seconds? Multiply them by 1000"
    return "is no Unix time in milliseconds; for a duration add it to the time now"
