"""What an answer says of limits: whether it refuses the call as one too many, and how long to send none. Pure.

The HTTP status and the exchange's own words come before ccxt's class, as ccxt turns one and the same limit into five
classes: Binance's 429 is a `DDoSProtection`, HTX's an `ExchangeError`, OKX's with a plain text body an
`ExchangeNotAvailable` (ccxt 4.5.90).
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from ..limits.answers import Answers, Found, Means
from .headers import date_s, number, until_s
from .redaction import Hide, clean

# A refusal is short; a longer body at status 200 is data, and is not searched.
BODY_SEARCHED: Final = 1024
DEFAULT_PAUSE_S: Final = 2.0
# Refusals that are not for too many calls of ours, at whatever status: nothing pauses, and no limit is learned.
NOT_OURS: Final[tuple[Means, ...]] = ("busy", "region")
# The longest ban of Binance is 3 days; a longer one is a broken header.
LONGEST_PAUSE_S: Final = 3 * 86400.0
# Statuses that refuse a call at every exchange: 429 (RFC 6585), and 418, with which Binance and exchanges like it ban
# an address, for 2 minutes at least.
_STATUSES: Final[Mapping[int, float]] = {429: DEFAULT_PAUSE_S, 418: 120.0}


class Pause(Struct, frozen=True):
    """No call may be sent for some time.

    Args:
        seconds: for how long.
        reason: why, in a few words without secrets.
        everything: False where the exchange limits each endpoint alone: then only the call's own buckets are meant.
        told: False where the exchange named no time, and `seconds` is our guess.
    """

    seconds: float
    reason: str
    everything: bool = True
    told: bool = True


def limit_signal(
    answers: Answers, status: int, headers: Mapping[str, str], body: str, now_s: float, hide: Hide = str
) -> Pause | None:
    """Reads an answer for "too many calls", and for how long to send none.

    Args:
        answers: what the exchange's answers mean.
        status: the HTTP status.
        headers: as received, in any case.
        body: as received.
        now_s: the wall clock, Unix seconds.
        hide: takes secrets out of a text.

    Returns:
        The pause, or None where the answer says nothing of limits.
    """
    if status == 200 and len(body) > BODY_SEARCHED:
        return None
    if any(answers.find(means, status, body[:BODY_SEARCHED], headers) for means in NOT_OURS):
        return None
    found = answers.find("limit", status, body[:BODY_SEARCHED], headers)
    default_s = found.answer.pause_s if found else _STATUSES.get(status)
    if default_s is None:
        return None
    told_s = _told_s(answers, {name.lower(): value for name, value in headers.items()}, found, now_s)
    seconds = default_s if told_s is None else told_s
    return Pause(
        min(max(seconds, 0.1), LONGEST_PAUSE_S),
        f"status {status}: {clean(body, hide)[:80]}".rstrip(": "),
        everything=not answers.endpoint_alone,
        told=told_s is not None,
    )


def _told_s(answers: Answers, headers: Mapping[str, str], found: Found | None, now_s: float) -> float | None:
    """The seconds that the exchange itself names, in Retry-After, the body, or a header of its own."""
    if (retry_after := headers.get("retry-after")) is not None:
        seconds = number(retry_after)
        return seconds if seconds is not None else date_s(retry_after, now_s)
    if found is not None and found.until is not None:
        return until_s(found.until, now_s)
    for name, header in answers.pause_headers.items():
        if (value := number(headers.get(name, ""))) is not None:
            if header.gives == "instant":
                return until_s(value, now_s)
            return value if header.gives == "seconds" else value / 1000
    return None
