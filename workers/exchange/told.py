"""Times that exchanges name: for how long to send no call, in every form. Pure: the clock is an argument.

One reader for all forms: seconds, a date as HTTP or ISO 8601 writes it, Unix seconds, milliseconds, microseconds, in a
header or in the words of an answer ("banned until 1800000000000", "try again in 30 seconds", "retry_after": 5). Of
several the longest counts: "wait 100 ms" beside "ban 5 min" is a ban. Not all of it is believed: a time that is
past gives 0, and one that is further ahead than `FURTHEST_S` is no time. `signals` decides how long to wait.
"""

import datetime
import email.utils
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

# The longest published ban is 3 days (Binance). A time much further ahead is a broken field.
FURTHEST_S: Final = 30 * 86400.0
# Exchanges' clocks are compared with ours by the Date header, which has whole seconds. Where it differs by more than
# this, the answer's instants are by that clock.
CLOCKS_AGREE_S: Final = 2.0
# How many units of a Unix time make a second, by the size of the number: years 2001 to 5138 are told apart by it.
_UNIX: Final = ((1e9, 1.0), (1e12, 1e3), (1e15, 1e6), (1e18, 1e9))
_SPANS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_NUMBER: Final = r"\d{1,19}(?:\.\d{1,9})?"
_UNIT: Final = r"ms|milli(?:second)?s?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?"
_COUNT: Final = rf"{_NUMBER}|(?:an?|one)(?=\s)"
# Of a range the later end counts. A span with "ago" behind it, or with a longer word as its unit, is no time to come.
_RANGE: Final = rf"(?:{_NUMBER}\s?(?:-|\u2013|to)\s?)?"
_SPAN: Final = rf"{_RANGE}(?:{_COUNT})\s?(?:{_UNIT})(?![^\W\d_]|\sago)"
_SOME_SPANS: Final = rf"{_SPAN}(?:(?:,|\sand)?\s?{_SPAN}){{0,3}}"
# Go writes the offset and the zone's name.
_ZONE: Final = r"\s?\(?(?:z|(?:utc|gmt)?\s?[+-]\d\d?(?::?\d\d)?(?:\s(?:utc|gmt))?|utc|gmt)\)?"
_ISO: Final = rf"\d{{4}}[-/]\d\d[-/]\d\d(?:[t\s]\d\d:\d\d(?::\d\d(?:\.\d{{1,9}})?)?(?:{_ZONE})?)?"
_MONTH: Final = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_DAY_AND_MONTH: Final = rf"(?:\d\d?[\s-]{_MONTH}|{_MONTH} \d\d?),?"
_HTTP_DATE: Final = (
    rf"(?:[a-z]{{3,9}}, ?)?{_DAY_AND_MONTH}[\s-]\d{{2,4}},? \d\d:\d\d(?::\d\d)?(?: (?:gmt|utc|[+-]\d{{4}}))?"
)
# ISO 8601 (4.4.3.2): PT30S, P1DT12H.
_DURATION: Final = r"p(?=t?\d)(?:\d+d)?(?:t(?=\d)(?:\d+h)?(?:\d+m)?(?:\d+(?:\.\d+)?s)?)?"
_CLOCK: Final = r"\d{1,2}:\d\d:\d\d"
# What may stand between a word and its time: quotes and signs of JSON, and a preposition.
_BETWEEN: Final = r"[\s\"'\\:=_-]{0,6}"
_HEDGE: Final = r"about|another|approximately|approx\.?|around|roughly|at least|at most|up to|less than"
_PREPOSITION: Final = rf"{_BETWEEN}(?:in|after|for|at|time|{_HEDGE})"
# Behind "available" and "locked" a preposition is needed: an amount may be those too, and 30 m of it are no minutes.
_BEFORE: Final = (
    r"(?:(?:until|till|unblock(?:ed)?|unban(?:ned)?|throttled|retry(?:\s(?:(?:your|the|this)\s)?request)?|again|wait"
    r"|blocked|\bban(?:ned)?|suspended|restricted|lifted|released|expires?|resets?|cool[ -]?down|back[ -]?off)"
    rf"(?:{_PREPOSITION}){{0,2}}|(?:available|locked){_PREPOSITION})"
)
_TIMES: Final = re.compile(
    rf"{_BEFORE}{_BETWEEN}(?:(?P<date>{_HTTP_DATE}|{_ISO})|(?P<duration>{_DURATION}(?!\w))|(?P<span>{_SOME_SPANS})|(?P<unix>\d{{10,19}})(?!\d))",
    re.IGNORECASE,
)
# A number without a unit is a time only behind words that mean nothing else. It is seconds, unless the words say
# milliseconds.
_BARE: Final = re.compile(
    rf"(?:retry[\s_-]?(?:after|in)|again (?:in|after)|wait(?:[\s_-]?for)?)(?P<ms>[\s_-]?(?:ms|millis(?:econds)?))?"
    rf"(?:[\s_-]?sec(?:ond)?s)?[\s\"'\\:=]{{1,6}}(?P<bare>{_NUMBER}(?:e\+?\d{{1,2}})?)(?![.,]?\d|\s?[\w%/:-])",
    re.IGNORECASE,
)
# A time of the day is another thing, so only what is to be waited for counts.
_CLOCKS: Final = re.compile(
    rf"(?:retry|again|wait|blocked|banned|suspended)[\s_-]?(?:in|for|after)[\s\"'\\:=]{{1,6}}(?P<clock>{_CLOCK})(?![\d:])",
    re.IGNORECASE,
)
_ONE_SPAN: Final = re.compile(rf"(?P<count>{_COUNT})\s?(?P<unit>{_UNIT})(?![a-z])", re.IGNORECASE)
_OF_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([dhms])", re.IGNORECASE)
_A_DURATION: Final = re.compile(_DURATION, re.IGNORECASE)
_A_CLOCK: Final = re.compile(_CLOCK)
_ALL_SPANS: Final = re.compile(_SOME_SPANS, re.IGNORECASE)
_A_DATE: Final = re.compile(_ISO, re.IGNORECASE)
# Behind the day and the year; that behind the day's name stays.
_COMMAS: Final = re.compile(r"(?<=\d),")
_TO_THE_MINUTE: Final = len("2027-01-15T08:00")
_A_ZONE: Final = re.compile(rf"{_ZONE}$", re.IGNORECASE)
_AN_OFFSET: Final = re.compile(r"([+-])(\d\d?):?(\d\d)?")


def number(text: str) -> float | None:
    """A number from 0; None for anything else, and for what no header means."""
    found = _float(text)
    return found if found is not None and 0 <= found < 1e15 else None


def until_s(instant: float, now_s: float, *, furthest_s: float = 3600.0) -> float | None:
    """Seconds until an instant.

    Args:
        instant: Unix time, in seconds or smaller units.
        now_s: the wall clock, Unix seconds.
        furthest_s: an instant further ahead is a broken field.

    Returns:
        None for an instant that is past, too far ahead, or none.
    """
    left_s = _left_s(instant, now_s)
    return left_s if left_s is not None and 0 <= left_s <= furthest_s else None


def in_header(text: str, now_s: float, *, milliseconds: bool = False) -> float | None:
    """For how long a header says to send no call, seconds.

    Args:
        text: the header's value, in any form.
        now_s: the wall clock by which it is meant, Unix seconds.
        milliseconds: a small number is a time left in milliseconds, not in seconds.

    Returns:
        0 for a time that is past; None where there is no time in it.
    """
    text = text.strip().strip("\"'")
    value = _float(text)
    if value is not None:
        return _time_s(value, now_s, 1000.0 if milliseconds else 1.0)
    if _ALL_SPANS.fullmatch(text):
        return _of_spans_s(text, now_s)
    if _A_DURATION.fullmatch(text):
        return _told(_duration_s(text))
    if _A_CLOCK.fullmatch(text):
        return _told(_clock_s(text))
    if (date_s := _date_s(text)) is not None:
        return _told(date_s - now_s)
    # The same header twice is joined by a comma.
    return _longest(_time_s(each, now_s, 1.0) for part in text.split(",") if (each := _float(part)) is not None)


def in_text(text: str, now_s: float) -> float | None:
    """For how long the words of a refusal say to send no call, seconds; 0 and None as in `in_header`.

    Args:
        text: the start of the answer's body.
        now_s: as in `in_header`.
    """
    found: list[float | None] = []
    for match in _TIMES.finditer(text):
        if match["date"]:
            date_s = _date_s(match["date"])
            found.append(None if date_s is None else _told(date_s - now_s))
        elif match["span"]:
            found.append(_of_spans_s(match["span"], now_s))
        elif match["duration"]:
            found.append(_told(_duration_s(match["duration"])))
        else:
            found.append(_told(_left_s(float(match["unix"]), now_s)))
    found += [_time_s(float(match["bare"]), now_s, 1000.0 if match["ms"] else 1.0) for match in _BARE.finditer(text)]
    found += [_told(_clock_s(match["clock"])) for match in _CLOCKS.finditer(text)]
    return _longest(found)


def clock_s(headers: Mapping[str, str], now_s: float) -> float:
    """The clock by which an answer's instants are meant: its own Date where that is not ours.

    Args:
        headers: by their names in lower case.
        now_s: our wall clock, Unix seconds.
    """
    date_s = _date_s(headers.get("date", ""))
    ours = date_s is None or abs(date_s - now_s) <= CLOCKS_AGREE_S or abs(date_s - now_s) > FURTHEST_S
    return now_s if date_s is None or ours else date_s


def _float(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _time_s(value: float, now_s: float, per_s: float) -> float | None:
    """A number as a time from now, or as a Unix time where it is too large for that."""
    if value < _UNIX[0][0] and value / per_s <= FURTHEST_S:
        return max(value / per_s, 0.0)
    return _told(_left_s(value, now_s))


def _left_s(instant: float, now_s: float) -> float | None:
    """Seconds until a Unix time in any unit, below 0 for one that is past; None where it can be none."""
    per_s = next((per_s for least, per_s in reversed(_UNIX) if instant >= least), None)
    return None if per_s is None else instant / per_s - now_s


def _told(left_s: float | None) -> float | None:
    return None if left_s is None or left_s > FURTHEST_S else max(left_s, 0.0)


def _longest(times: Iterable[float | None]) -> float | None:
    return max((each for each in times if each is not None), default=None)


def _of_spans_s(text: str, now_s: float) -> float | None:
    """The time left of one or several spans; one that is too long for that is a Unix time with its unit."""
    seconds = _spans_s(text)
    return _told(seconds if seconds <= FURTHEST_S else _left_s(seconds, now_s))


def _duration_s(text: str) -> float:
    return sum(float(count) * _SPANS[unit.lower()] for count, unit in _OF_DURATION.findall(text))


def _clock_s(text: str) -> float:
    hours, minutes, seconds = map(int, text.split(":"))
    return hours * 3600.0 + minutes * 60 + seconds


def _spans_s(text: str) -> float:
    return sum(_span_s(match["count"], match["unit"].lower()) for match in _ONE_SPAN.finditer(text))


def _span_s(count: str, unit: str) -> float:
    unit = "ms" if unit.startswith(("ms", "milli")) else unit[0]
    return (_float(count) or 0.0 if count[0].isdigit() else 1.0) * _SPANS[unit]


def _date_s(text: str) -> float | None:
    """Unix seconds of a date as HTTP or ISO 8601 writes it, or with slashes; without a zone it is UTC."""
    try:
        if _A_DATE.fullmatch(text):
            zone = _A_ZONE.search(text, _TO_THE_MINUTE)
            date = datetime.datetime.fromisoformat((text[: zone.start()] if zone else text).replace("/", "-"))
            if zone and (offset := _AN_OFFSET.search(zone[0])):
                ahead = datetime.timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
                date = date.replace(tzinfo=datetime.timezone(-ahead if offset[1] == "-" else ahead))
        else:
            date = email.utils.parsedate_to_datetime(_COMMAS.sub(" ", text.replace(".", "")))
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.UTC)
        return date.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
