"""Texts that callers choose are read in a time that grows as they do: nobody holds up the others with a long one.

A pattern that tries each of a thousand beginnings to the end takes 64 times as long for a text that is 8 times as long.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from dispatcher import nearly_json
from schemas import http_calls
from schemas.gateway import ages, calls
from schemas.gateway.kinds import kind_of
from schemas.gateway_config import MaxAgeConfig
from workers.exchange import redaction

# What reads such a text, and how long one may be for it: it reads no more, or a caller's path has no more.
READS: Final[Mapping[str, tuple[Callable[[str], Any], int]]] = {
    "the kind of a path": (lambda text: kind_of("/" + text), 32_000),
    "an exchange": (lambda text: calls.read(f"/{text}/x", "GET", b""), 32_000),
    "a host": (lambda text: calls.read(f"/okx/a{text}/x", "GET", b""), 32_000),
    "an interval": (lambda text: ages.max_age_ms(MaxAgeConfig(), "okx", "/candles", f"bar={text}", 1), 32_000),
    "an address": (lambda text: http_calls.malformed(f"https://a.example/{text}"), 32_000),
    "a signature": (lambda text: http_calls.signed_by(f"https://a.example/x?{text}", text), 32_000),
    "nearly JSON": (lambda text: nearly_json.read(b"{" + text.encode()), nearly_json.LONGEST_BYTES - 16),
    "an error": (lambda text: redaction.clean(text, str), 4_000),
}
PARTS: Final = (
    *("ticker", "-ticker", "depth", "orderbook", "kline", "candle", "candleticks", "book", "trade", "instruments-"),
    *("a", "-", "a/", "a.", "a-", "a_", "1", "1_", "-sandbox", ":1", "utc", "1m", "candle_1", "%2e", "a=", "a=1&"),
    *(
        "http://",
        "https://a",
        "://",
        "a://",
        "a@",
        "token",
        "token ",
        "token=",
        "secret'",
        " ",
        "'",
        '"',
        "//",
        "/*",
        "[{",
    ),
)
# How much longer the long text is, and how much more time it may take: between 8 and 64.
LONGER: Final = 8
MOST: Final = 3 * LONGER
# What takes less is not measured well.
LEAST_S: Final = 50e-6


def seconds(read: Callable[[str], Any], text: str) -> float:
    """The CPU time that it takes, the shortest of some."""
    found: list[float] = []
    for _ in range(3):
        began_s = time.thread_time()
        read(text)
        found.append(time.thread_time() - began_s)
    return min(found)


@pytest.mark.parametrize("name", READS)
def test_time_grows_as_the_text_does(name: str) -> None:
    read, longest = READS[name]
    slow: dict[str, float] = {}
    for part in PARTS:
        for end in ("", "!"):
            short, long = (part * (size // len(part)) + end for size in (longest // LONGER, longest))
            grown = seconds(read, long) / max(seconds(read, short), LEAST_S)
            if grown > MOST:
                slow[part + end] = grown
    assert not slow
