"""When candles' bars close, and so until when an answer with candles holds every finished bar. Pure.

Exchanges agree on the length of a bar, and not on where days, weeks and months begin. So an answer's own rows say where
its bars begin. Only where it has none do days begin at midnight UTC, weeks on Mondays, and months and years with the
calendar's.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from . import times

BAR: Final = "bar"
# An exchange publishes a bar a moment after it has closed. So an answer that was asked for this soon after a close is
# good only until this long after it, or for a quarter of a short bar. That covers clocks that differ by less, too.
SETTLES_MS: Final = 2_000
# Finished bars never change.
FOREVER_MS: Final = times.LATEST_MS

_TIMEFRAME: Final = re.compile(r"([1-9][0-9]{0,3})([smhdwMyY])")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_MONTHS: Final = {"M": 1, "y": 12, "Y": 12}
# 5 January 1970 was the first Monday of Unix time.
_MONDAY_MS: Final = 4 * 86_400_000
_CANDLES: Final = "ohlcv"


def refusal(method: str, args: Mapping[str, Any]) -> str | None:
    """Why a read can't be asked for by its bars; None if it can."""
    if not method.endswith(_CANDLES):
        return (
            f'max_age_ms: "{BAR}" is for candles (fetch_ohlcv and the like); give {method or "an HTTP call"} a number'
        )
    timeframe = args.get("timeframe")
    if not isinstance(timeframe, str):
        return f'max_age_ms: "{BAR}" needs the argument timeframe, as exchanges have different defaults'
    if _TIMEFRAME.fullmatch(timeframe) is None:
        return f'max_age_ms: "{BAR}" knows no bars of {timeframe[:20]!r}; give a number'
    return None


def closes_ms(timeframe: str, after_ms: int, opened_ms: int | None = None) -> tuple[int, int]:
    """The last close of a bar until a time, and the first one after it, in Unix milliseconds.

    Args:
        timeframe: as ccxt writes it, as ``15m``.
        after_ms: the time.
        opened_ms: when some bar opened; None if that is not known.

    Raises:
        ValueError: it is no timeframe.
    """
    found = _TIMEFRAME.fullmatch(timeframe)
    if found is None:
        raise ValueError(f"no timeframe: {timeframe!r}")
    count, unit = int(found[1]), found[2]
    if unit in _MONTHS:
        return _months_ms(count * _MONTHS[unit], after_ms, opened_ms)
    length_ms = count * _UNIT_MS[unit]
    origin_ms = opened_ms if opened_ms is not None else _MONDAY_MS if unit == "w" else 0
    last_ms = origin_ms + (after_ms - origin_ms) // length_ms * length_ms
    return last_ms, last_ms + length_ms


def good_until_ms(args: Mapping[str, Any], rows: Any, at_ms: int) -> int:
    """Until when candles hold every bar that is finished by then.

    Args:
        args: of the read: its timeframe, and which bars were asked for.
        rows: the candles, oldest first.
        at_ms: when the call left for the exchange.

    Raises:
        ValueError: the arguments have no timeframe that is known.
    """
    timeframe = str(args.get("timeframe"))
    opens = [row[0] for row in _rows(rows)]
    ends: list[int] = []
    for opened_ms in {*opens[:1], *opens[-1:]} or {None}:
        last_ms, next_ms = closes_ms(timeframe, at_ms, opened_ms)
        settled_ms = last_ms + min(SETTLES_MS, (next_ms - last_ms) // 4)
        ends.append(settled_ms if at_ms < settled_ms else next_ms)
    if opens and _never_changes(args, timeframe, opens, at_ms):
        return FOREVER_MS
    return min(ends)


def _never_changes(args: Mapping[str, Any], timeframe: str, opens: Sequence[int], at_ms: int) -> bool:
    """Whether all that was asked for is there and finished: what a range in the past holds stays as it is.

    Where fewer bars came than were asked for, later ones may still come behind them.
    """
    since, limit = args.get("since"), args.get("limit")
    params: Mapping[str, Any] = args.get("params") or {}
    until = params.get("until")
    if not isinstance(since, int) or opens[0] != closes_ms(timeframe, since - 1, opens[0])[1]:
        return False  # the first bar behind `since` is not there: the exchange may count from the end
    if closes_ms(timeframe, opens[-1], opens[-1])[1] > at_ms - SETTLES_MS:
        return False
    if isinstance(until, int) and closes_ms(timeframe, until, opens[0])[1] <= at_ms - SETTLES_MS:
        return True
    return isinstance(limit, int) and len(opens) >= limit


def _rows(rows: Any) -> Iterable[Any]:
    """The rows whose times can be such; none if any other is among them."""
    given: list[Any] = rows if isinstance(rows, list) else []  # pyright: ignore[reportUnknownVariableType]
    fair = all(isinstance(row, list) and row and _is_time(row[0]) for row in given)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return given if fair else []


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and not times.wrong_unit(value)


def _months_ms(count: int, after_ms: int, opened_ms: int | None) -> tuple[int, int]:
    """The same for months. Where some bar opened at midnight of another time zone, all do."""
    first, offset_ms = 0, 0
    if opened_ms is not None:
        near = _month(opened_ms)
        near = min(near, near + 1, key=lambda month: abs(opened_ms - _starts_ms(month)))
        if abs(opened_ms - _starts_ms(near)) < _UNIT_MS["d"]:
            first, offset_ms = near, opened_ms - _starts_ms(near)
    last = first + (_month(after_ms - offset_ms) - first) // count * count
    return _starts_ms(last) + offset_ms, _starts_ms(last + count) + offset_ms


def _month(at_ms: int) -> int:
    """The number of a month, counted from January of year 0."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.year * 12 + at.month - 1


def _starts_ms(month: int) -> int:
    return int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000)
