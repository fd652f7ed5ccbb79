"""How old the answer to an HTTP call may be, by what its URL asks for. Pure.

The fleet does not know what bars a URL asks for. Here it is read from the URL as far as exchanges agree: an answer that
was asked for since the last bar closed has all finished bars, and what ended long ago never changes.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl

from ..gateway_config import MaxAgeConfig
from .kinds import kind_of

# The most that a request may say.
MOST_MS: Final = 86_400_000
# An exchange publishes a bar a moment after it has closed, and clocks differ. Until then after a close an answer is
# taken that may lack the last bar; from then on only one that was asked for since, or that was under way.
SETTLES_MS: Final = 2_000
# Days and longer bars begin at some full hour: each exchange has its own.
_HOUR_MS: Final = 3_600_000
_INTERVALS: Final = frozenset(
    {"interval", "bar", "granularity", "period", "timeframe", "resolution", "candle_type", "type"}
)
_ENDS: Final = frozenset({"endtime", "end_time", "end", "endat", "to", "until", "end_ts", "end_timestamp"})
_UNITS_MS: Final = {
    "s": 1_000,
    "sec": 1_000,
    "second": 1_000,
    "m": 60_000,
    "min": 60_000,
    "minute": 60_000,
    "h": _HOUR_MS,
    "hour": _HOUR_MS,
    "d": 86_400_000,
    "day": 86_400_000,
    "w": 604_800_000,
    "week": 604_800_000,
    "mon": 2_678_400_000,
    "month": 2_678_400_000,
}
_INTERVAL: Final = re.compile(r"(?:candle_?)?(\d+)_?([a-z]+?)s?(?:utc\d*)?")
_WORDS: Final = {"one": "1", "two": "2", "five": "5", "six": "6", "fifteen": "15", "thirty": "30"}
# Plain numbers are seconds, which is never too long; these exchanges mean minutes.
_MINUTES: Final = ("kraken", "bybit")


def max_age_ms(policy: MaxAgeConfig, exchange: str, path: str, query: str, now_ms: int) -> int:
    """How old the answer may be, milliseconds.

    Args:
        policy: the configuration's.
        exchange: whose call it is.
        path: of the URL.
        query: of the URL.
        now_ms: Unix milliseconds.
    """
    age = getattr(policy, kind_of(path))
    if age != "bar":
        return min(round(float(age) * 1000), MOST_MS)
    given = {name.lower(): value for name, value in parse_qsl(query)}
    interval_ms = _interval_ms(exchange, given)
    if interval_ms is None:
        return 0
    end_ms = _end_ms(exchange, given)
    if end_ms is not None and end_ms + interval_ms + SETTLES_MS <= now_ms:
        return MOST_MS  # every bar that began by then is finished
    since_close_ms = now_ms % min(interval_ms, _HOUR_MS)
    return since_close_ms if since_close_ms < SETTLES_MS else since_close_ms - SETTLES_MS


def _interval_ms(exchange: str, given: Mapping[str, str]) -> int | None:
    said = next((given[name] for name in given if name in _INTERVALS), "")
    if said.isdecimal() and len(said) < 8:
        return int(said) * (60_000 if exchange.startswith(_MINUTES) else 1_000) or None
    if said[-1:] == "M" and said[:-1].isdecimal():  # months, where m are minutes
        said = f"{said[:-1]}mon"
    text = said.lower()
    for word, digits in _WORDS.items():
        text = text.replace(f"{word}_", digits)
    found = _INTERVAL.fullmatch(text)
    if found is None or len(found[1]) > 4:
        return None
    unit_ms = _UNITS_MS.get(found[2])
    return int(found[1]) * unit_ms if unit_ms and int(found[1]) else None


def _end_ms(exchange: str, given: Mapping[str, str]) -> int | None:
    """When the range that is asked for ends; OKX gives what is before its `after`."""
    ends = _ENDS | {"after"} if exchange.startswith("okx") or exchange == "myokx" else _ENDS
    said = next((given[name] for name in given if name in ends), "")
    if not said.isdecimal():
        try:
            return round(datetime.fromisoformat(said).timestamp() * 1000) if said[-1:] == "Z" else None
        except ValueError:
            return None
    number = int(said[:20])
    for most, factor in ((10**11, 1_000), (10**14, 1)):  # seconds, or milliseconds
        if number < most:
            return number * factor
    return None
