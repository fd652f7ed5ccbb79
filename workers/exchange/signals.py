"""What an answer says of limits: whether it refuses the call as one too many, and how long to send none. Pure.

The HTTP status and the exchange's own words come before ccxt's class, because ccxt has five classes for the same thing:
Binance's 429 is a `DDoSProtection`, HTX's an `ExchangeError`, OKX's with a plain text body an `ExchangeNotAvailable`
(ccxt 4.5.90).

A header or the words of the answer may name the time (`told`). It is kept within the shortest and the longest that make
sense for a limit or a ban. Where no time to come is named, the length is our backoff.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from ..limits.answers import Answer, Answers, Means
from . import told
from .redaction import Hide, clean

# A refusal is short; a longer body at status 200 is data, and is not searched.
BODY_SEARCHED: Final = 1024
# A page of HTML says late what it is: Cloudflare's after 2 to 3 KB.
PAGE_SEARCHED: Final = 16 * 1024
DEFAULT_PAUSE_S: Final = 2.0
# Refusals that are not due to too many calls of ours, at whatever status. They set no pause, and no limit is learned.
NOT_OURS: Final[tuple[Means, ...]] = ("busy", "region")
OUR_BACKOFF: Final = "our backoff"
IN_THE_TEXT: Final = "text of the answer"
# Statuses that refuse a call at every exchange.
_LIMIT: Final = Answer(means="limit", status=429, pause_s=DEFAULT_PAUSE_S, source="RFC 6585")
_BAN: Final = Answer(
    means="ban",
    status=418,
    pause_s=120,
    least_s=10,
    source="binance-spot-api-docs: rest-api.md, IP limits: 2 minutes to 3 days; Upbit's are as long as it says",
)


# What a refusal speaks of. address: all that leaves from there. buckets: the call's own, as the exchange limits each
# endpoint alone. account: the one that signed. unsaid: the account, where only its own limits were charged, else the
# address.
Of: TypeAlias = Literal["address", "buckets", "account", "unsaid"]


class Pause(Struct, frozen=True):
    """No call may be sent for some time.

    Args:
        seconds: for how long.
        reason: why, in a few words without secrets.
        of: what may send none.
        told: False where the exchange named no time to come, and `seconds` is our guess.
        source: where the length is from.
        most_s: it is never made longer than this, however often the exchange refuses.
    """

    seconds: float
    reason: str
    of: Of = "unsaid"
    told: bool = True
    source: str = OUR_BACKOFF
    most_s: float = 3600.0

    @property
    def kind_of_source(self) -> str:
        """The same in one word, for metrics."""
        if not self.told:
            return "backoff"
        return "text" if self.source == IN_THE_TEXT else "header"


def limit_signal(
    answers: Answers,
    status: int,
    headers: Mapping[str, str],
    body: str,
    now_s: float,
    hide: Hide = str,
    *,
    refused: bool = False,
) -> Pause | None:
    """Reads an answer for "too many calls", and for how long to send none.

    Args:
        answers: what the exchange's answers mean.
        status: the HTTP status.
        headers: as received, in any case.
        body: as received.
        now_s: the wall clock, Unix seconds.
        hide: takes secrets out of a text.
        refused: it is known to be a refusal.

    Returns:
        The pause, or None where the answer says nothing of limits.
    """
    answer = _meaning(answers, status, headers, body) or (_LIMIT if refused else None)
    if answer is None or answer.pause_s is None:
        return None
    least_s, most_s = answer.bounds_s
    seconds, source = _told(answers, {name.lower(): value for name, value in headers.items()}, body, now_s)
    return Pause(
        min(max(seconds or answer.pause_s, least_s), most_s),
        f"status {status}: {clean(body, hide)[:80]}".rstrip(": "),
        of=_of(answers, answer, body),
        told=bool(seconds),
        source=source,
        most_s=most_s,
    )


def _of(answers: Answers, answer: Answer, body: str) -> Of:
    # A page of HTML is not from the exchange's own program: its endpoints and accounts can't be what is meant.
    if answer.means == "ban" or body.lstrip()[:1] == "<":
        return "address"
    if answer.account:
        return "account"
    return "buckets" if answers.endpoint_alone else "unsaid"


def _meaning(answers: Answers, status: int, headers: Mapping[str, str], body: str) -> Answer | None:
    if status == 200 and len(body) > BODY_SEARCHED:
        return None
    start = body[:BODY_SEARCHED]
    if found := answers.find("ban", status, body[:PAGE_SEARCHED], headers):
        return found
    if any(answers.find(means, status, start, headers) for means in NOT_OURS):
        return None
    if status == _BAN.status:
        return _BAN
    return answers.find("limit", status, start, headers) or (_LIMIT if status == _LIMIT.status else None)


def _told(answers: Answers, headers: Mapping[str, str], body: str, now_s: float) -> tuple[float, str]:
    """The longest time that the exchange itself names, and where; 0 where it names none to come."""
    now_s = told.clock_s(headers, now_s)
    found = {
        f"header {'Retry-After' if name == 'retry-after' else name}": told.in_header(
            headers[name], now_s, milliseconds=milliseconds
        )
        for name, milliseconds in _headers(answers, headers)
    }
    # Where a header names a time of no use, the source says so: then an operator sees why we guess.
    guess = f"{OUR_BACKOFF}, as {next(iter(found))} names no time to come" if found else OUR_BACKOFF
    found[IN_THE_TEXT] = told.in_text(body[:BODY_SEARCHED], now_s)
    source = max(found, key=lambda source: found[source] or 0.0)
    seconds = found[source] or 0.0
    return seconds, source if seconds else guess


def _headers(answers: Answers, headers: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """The names of headers that hold a time, and whether it is in milliseconds."""
    if "retry-after" in headers:
        yield "retry-after", False
    for name, header in answers.pause_headers.items():
        for sent in headers:
            if sent == name or (name.endswith("*") and sent.startswith(name[:-1])):
                yield sent, header.gives == "milliseconds"
