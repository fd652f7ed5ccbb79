"""Candle frames: where they begin and which of them a request asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from .prices import DAY_S, HOUR_S, LISTED_S, MINUTE_S


class Frame(NamedTuple):
    """A candle's length. All open on UTC boundaries; weeks on Monday where `offset_s` says so."""

    length_s: int
    offset_s: int = 0
    months: int = 0

    def floor(self, at_s: int) -> int:
        """The opening second of the candle that holds `at_s`."""
        if self.months:
            day = datetime.fromtimestamp(at_s, UTC)
            month = (day.year * 12 + day.month - 1) // self.months * self.months
            return _month_start(month)
        return (at_s - self.offset_s) // self.length_s * self.length_s + self.offset_s

    def following(self, start_s: int) -> int:
        """The opening second of the next candle."""
        if self.months:
            day = datetime.fromtimestamp(start_s, UTC)
            return _month_start(day.year * 12 + day.month - 1 + self.months)
        return start_s + self.length_s


def _month_start(month: int) -> int:
    return int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp())


MONDAY_S = 4 * DAY_S
"""1970-01-05 was a Monday."""

FRAMES: dict[str, Frame] = {
    "1s": Frame(1),
    **{f"{n}m": Frame(n * MINUTE_S) for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": Frame(n * HOUR_S) for n in (1, 2, 4, 6, 8, 12)},
    "1d": Frame(DAY_S),
    "3d": Frame(3 * DAY_S),
    "1w": Frame(7 * DAY_S, MONDAY_S),
    "1M": Frame(30 * DAY_S, months=1),
    "3M": Frame(91 * DAY_S, months=3),
    "1y": Frame(365 * DAY_S, months=12),
}


def openings(frame: Frame, start_s: float | None, end_s: float, limit: int) -> list[int]:
    """Opening seconds in [start_s, end_s], oldest first: the oldest `limit` of them, or without a start the newest."""
    end = int(end_s)
    found: list[int] = []
    if start_s is not None:
        if start_s > end:
            return found
        start = max(int(-(-start_s // 1)), LISTED_S)
        at_s = frame.floor(start)
        if at_s < start:
            at_s = frame.following(at_s)
        while at_s <= end and len(found) < limit:
            found.append(at_s)
            at_s = frame.following(at_s)
        return found
    at_s = frame.floor(end)
    while at_s >= LISTED_S and len(found) < limit:
        found.append(at_s)
        at_s = frame.floor(at_s - 1)
    found.reverse()
    return found
