"""Numbers, instants and dates as exchanges write them into headers. Pure: the clock is an argument."""

import datetime
import email.utils
from typing import Final

# An instant further ahead is a broken header.
FURTHEST_S: Final = 3600.0


def number(text: str) -> float | None:
    """A number from 0; None for anything else, and for what no header means."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 <= found < 1e15 else None


def until_s(instant: float, now_s: float) -> float | None:
    """Seconds until an instant.

    Args:
        instant: Unix seconds or milliseconds.
        now_s: the wall clock, Unix seconds.

    Returns:
        None for an instant that is past, or more than an hour ahead.
    """
    left_s = (instant / 1000 if instant > 1e11 else instant) - now_s
    return left_s if 0 <= left_s <= FURTHEST_S else None


def date_s(text: str, now_s: float) -> float | None:
    """Seconds until a date as HTTP writes it, 0 for one that is past; None for anything else.

    Args:
        text: the date.
        now_s: the wall clock, Unix seconds.
    """
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(date.timestamp() - now_s, 0.0)
