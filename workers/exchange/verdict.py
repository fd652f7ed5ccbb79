"""What an error means for the attempt, and whether an answer asks the whole scope to be silent: pure decisions.

The HTTP status and the exchange's own code come first, ccxt's class second: ccxt turns one and the same limit into five
classes (Binance's 429 is a `DDoSProtection`, HTX's an `ExchangeError`, OKX's with a plain text body an
`ExchangeNotAvailable`; ccxt 4.5.90), and its `ExchangeNotAvailable` is both a dead exchange and a wrong parameter.
"""

import asyncio
import datetime
import email.utils
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import ccxt  # pyright: ignore[reportMissingTypeStubs]
from ccxt.base.errors import AuthenticationError, BaseError  # pyright: ignore[reportMissingTypeStubs]
from msgspec import Struct

from schemas.errors import InvalidMessage
from schemas.messages import ILL, ErrorCode, Outcome

from ..limits.costs import Bucket, Scope
from .bounds import REST_S, Crowded
from .clock import clock_refused
from .rows import TooLarge

# Takes secrets out of a text.
Hide: TypeAlias = Callable[[str], str]

MESSAGE_LIMIT: Final = 300
_LOOKED_AT: Final = 4096
# A limit's answer is short; what is longer at status 200 is data, and not searched.
BODY_SEARCHED: Final = 1024
DEFAULT_PAUSE_S: Final = 2.0
# Binance's longest ban, 3 days; a longer one is a broken header.
LONGEST_PAUSE_S: Final = 3 * 86400.0


class Pause(Struct, frozen=True):
    """Nothing may be sent for `seconds`, because of `reason` (a few words, no secrets).

    `everything` is False where the exchange limits each endpoint alone: then only the buckets of the call are meant.
    `told` is False where the exchange named no time, and the seconds are a guess of ours.
    """

    seconds: float
    reason: str
    everything: bool = True
    told: bool = True


class Count(Struct, frozen=True):
    """What an exchange says it has counted of us, and of others on our address or account.

    Args:
        spent: how much.
        left: how much more it would take; where `spent` is not known.
        window_s: the window of the limit it speaks of, None where it doesn't say.
        ends_s: in how many seconds that window ends, None where it doesn't say.
        scope: what the limit is counted by.
    """

    spent: float | None = None
    left: float | None = None
    window_s: float | None = None
    ends_s: float | None = None
    scope: Scope = "egress"

    def speaks_of(self, buckets: Sequence[Bucket]) -> int | None:
        """Which of a call's buckets is meant: the one with that window, or else the shortest it can be."""
        meant: int | None = None
        for number, bucket in enumerate(buckets):
            if bucket.scope != self.scope or bucket.kind not in ("fixed", "rolling"):
                continue
            if self.window_s is not None and abs(self.window_s - bucket.window_s) > 0.5:
                continue
            if self.ends_s is not None and self.ends_s > bucket.window_s + 0.5:
                continue
            if meant is None or bucket.window_s < buckets[meant].window_s:
                meant = number
        return meant

    def used(self, bucket: Bucket) -> float:
        """What was spent of this bucket.

        From what is left only follows how much more we may spend, whatever the limit is: we spend no more than that if
        our bucket's rest is taken as spent.
        """
        return max(bucket.amount - (self.left or 0.0), 0.0) if self.spent is None else self.spent

    def span_s(self, bucket: Bucket) -> float:
        """The time the count stands for: what has gone by of a window that ends."""
        return bucket.window_s if self.ends_s is None else max(bucket.window_s - self.ends_s, 0.0)


class Seen(Struct):
    """What was seen of an attempt's HTTP calls; the last one counts.

    Args:
        exchange: the ccxt id.
        http_calls: how many HTTP calls were sent.
        status: the status of the last answer, None if there was none.
        body: the start of its body.
        pause: what its limit signal asked for.
    """

    exchange: str
    http_calls: int = 0
    status: int | None = None
    body: str = ""
    pause: Pause | None = None


class Verdict(Struct, frozen=True):
    """How an attempt ended.

    Args:
        outcome: whether another try may help.
        code: why it ended.
        message: the same in words.
        pause_s: for how long its lane can't take it; 0: no reason to wait.
        of_connection: it speaks of the way to the exchange, or of the exchange as a whole, whatever was asked: no
            connection, no answer in time, a 5xx, maintenance, a page in place of JSON.
    """

    outcome: Outcome
    code: ErrorCode
    message: str
    pause_s: float = 0.0
    of_connection: bool = False


class NoBudget(Exception):
    """The call was not sent: no budget in time, or the scope is silent. A worker's own, so that ccxt never retries it.

    Args:
        reason: ``budget``, ``paused`` or ``redis_lost``.
        wait_s: until when the budget would be there, from now.
    """

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(f"{reason}: free in {wait_s:.3f} s")
        self.reason = reason
        self.wait_s = wait_s


# --- limit signals -----------------------------------------------------------------------------------------------

# Exchange codes that mean "slow down" whatever the status, with the pause where no header tells it. Searched as fields,
# never as bare numbers: 50011 may well be a price.
_BODY_SIGNALS: Final = tuple(
    (re.compile(pattern), seconds)
    for pattern, seconds in (
        (r'"code"\s*:\s*"?-1003\b', 10.0),  # Binance: too much weight
        (r'"code"\s*:\s*"?(50011|50061)\b', 2.0),  # OKX: windows of 2 s
        (r'"retCode"\s*:\s*"?(10006|10018|10429)\b', 5.0),  # Bybit: windows of 5 s
        (r'"err-code"\s*:\s*"[^"]*(too-many-requests|rate-too-many|exceed-frequency)', 2.0),  # HTX
        (r'"err-msg"\s*:\s*"[^"]*request limit', 2.0),  # HTX, under the code invalid-parameter
        (r'"err[_-]code"\s*:\s*"?(1032|1084)\b', 3.0),  # HTX futures: windows of 3 s
        (r'"error"\s*:\s*\[[^\]]*EGeneral:Temporary lockout', 900.0),  # Kraken: no length published; 15 min reported
        (r'"error"\s*:\s*\[[^\]]*(EAPI:Rate limit|EGeneral:Too many requests|EService: ?Throttled)', 5.0),  # Kraken
        (r'resource_exhausted|"rate_limit_exceeded"', 1.0),  # Coinbase
        (r'"code"\s*:\s*"?429000\b', 5.0),  # KuCoin
        (r'"label"\s*:\s*"TOO_MANY_REQUESTS"', 10.0),  # Gate: windows of 10 s
    )
)
# What at least one of which is in every body the patterns above find: patterns cost 20 times as much, and nearly all
# answers are data.
_SIGNAL_WORDS: Final = (
    *(
        "1003",
        "50011",
        "50061",
        "10006",
        "10018",
        "10429",
        "429000",
        "1032",
        "1084",
        "TOO_MANY",
        "too-many",
        "frequency",
    ),
    *(
        "request limit",
        "lockout",
        "Rate limit",
        "Too many",
        "Throttled",
        "resource_exhausted",
        "rate_limit",
        "rate-too",
    ),
)
_THROTTLED_UNTIL: Final = re.compile(r"EService: ?Throttled: ?(\d{10,13})")
# Where 403 is the answer to too many calls. Bybit asks for at least 10 minutes without a call; Binance's firewall says
# no length.
_FORBIDDEN_PAUSE_S: Final = {"bybit": 600.0, "binance": 60.0}
_PER_ENDPOINT: Final = ("okx", "myokx", "htx", "huobi", "gate")
_IP_BAN_S: Final = 120.0  # Binance's shortest ban, for a 418 without Retry-After


def limit_signal(
    exchange: str, status: int, headers: Mapping[str, str], body: str, now_s: float, hide: Hide = str
) -> Pause | None:
    """Reads an answer for "too many calls" and for how long to be silent.

    Args:
        exchange: the ccxt id.
        status: the HTTP status.
        headers: as received, in any case.
        body: as received.
        now_s: the wall clock, Unix seconds.
        hide: takes secrets out of a text.

    Returns:
        How long the scope must be silent, or None where the answer says nothing of limits.
    """
    if status == 200 and len(body) > BODY_SEARCHED:
        return None
    default_s = _default_pause_s(exchange, status, body[:BODY_SEARCHED])
    if default_s is None:
        return None
    told_s = _told_s({name.lower(): value for name, value in headers.items()}, body[:BODY_SEARCHED], now_s)
    seconds = default_s if told_s is None else told_s
    reason = f"status {status}: {_clean(body, hide)[:80]}".rstrip(": ")
    return Pause(
        min(max(seconds, 0.1), LONGEST_PAUSE_S),
        reason,
        everything=not exchange.startswith(_PER_ENDPOINT),
        told=told_s is not None,
    )


def counted(exchange: str, headers: Mapping[str, str], now_s: float) -> Count | None:
    """Reads what the exchange says it has counted; None where the answer does not say.

    Sources: Binance rest-api.md (`X-MBX-USED-WEIGHT-1M`) and its page on /sapi (`X-SAPI-USED-IP-WEIGHT-1M`); HTX spot
    API pages (`X-HB-RateLimit-Requests-Remain`, `-Expire`: the window's end, Unix milliseconds) and futures ones
    (`ratelimit-limit`, `-remaining`, and in milliseconds `-interval` and `-reset`); KuCoin's page on rate limits
    (`gw-ratelimit-*`, reset in milliseconds from now, windows of 30 s); Bybit v5 (`X-Bapi-Limit-*`: an account's limit
    at one endpoint, never the address's).

    Args:
        exchange: the ccxt id.
        headers: as received, in any case.
        now_s: the wall clock, Unix seconds.
    """
    reader = next((reader for name, reader in _COUNTS.items() if exchange.startswith(name)), None)
    if reader is None:
        return None
    lowered = {name.lower(): value for name, value in headers.items()}
    return reader(lambda name: _number(lowered.get(name, "")), now_s)


_Header = Callable[[str], float | None]


def _binance_count(header: _Header, _: float) -> Count | None:
    spent = header("x-mbx-used-weight-1m")
    if spent is None:
        spent = header("x-sapi-used-ip-weight-1m")
    return Count(spent=spent, window_s=60.0) if spent else None


def _htx_count(header: _Header, now_s: float) -> Count | None:
    if (left := header("x-hb-ratelimit-requests-remain")) is not None:
        ends_s = _until_s(header("x-hb-ratelimit-requests-expire") or 0.0, now_s)
        return None if ends_s is None else Count(left=left, ends_s=ends_s)
    limit, left = header("ratelimit-limit"), header("ratelimit-remaining")
    if limit is None or left is None:
        return None
    interval_ms = header("ratelimit-interval")
    return Count(
        spent=max(limit - left, 0.0),
        window_s=interval_ms / 1000 if interval_ms else None,
        ends_s=_until_s(header("ratelimit-reset") or 0.0, now_s),
    )


def _kucoin_count(header: _Header, _: float) -> Count | None:
    limit, left, resets_ms = (header(f"gw-ratelimit-{name}") for name in ("limit", "remaining", "reset"))
    if limit is None or left is None or resets_ms is None:
        return None
    return Count(spent=max(limit - left, 0.0), window_s=30.0, ends_s=resets_ms / 1000)


def _bybit_count(header: _Header, _: float) -> Count | None:
    limit, left = header("x-bapi-limit"), header("x-bapi-limit-status")
    if limit is None or left is None:
        return None
    return Count(spent=max(limit - left, 0.0), scope="account")


_COUNTS: Final = {
    "binance": _binance_count,
    "htx": _htx_count,
    "huobi": _htx_count,
    "kucoin": _kucoin_count,
    "bybit": _bybit_count,
}


def _default_pause_s(exchange: str, status: int, body: str) -> float | None:
    if status == 403:
        family = next((name for name in _FORBIDDEN_PAUSE_S if exchange.startswith(name)), None)
        # Bybit's 403 is also its answer to addresses in the USA: only the text tells them apart.
        if family == "binance" or (family == "bybit" and "too frequent" in body.lower()):
            return _FORBIDDEN_PAUSE_S[family]
    for word in _SIGNAL_WORDS:
        if word in body:
            for pattern, seconds in _BODY_SIGNALS:
                if pattern.search(body):
                    return seconds
            break
    if status == 418:
        return _IP_BAN_S
    return DEFAULT_PAUSE_S if status == 429 else None


def _told_s(headers: Mapping[str, str], body: str, now_s: float) -> float | None:
    """The time the exchange itself names, by header or body."""
    if (retry_after := headers.get("retry-after")) is not None:
        seconds = _number(retry_after)
        return seconds if seconds is not None else _until_date_s(retry_after, now_s)
    if match := _THROTTLED_UNTIL.search(body):
        return _until_s(float(match[1]), now_s)
    for name in ("x-bapi-limit-reset-timestamp", "x-hb-ratelimit-requests-expire", "ratelimit-reset"):
        if (instant := _number(headers.get(name, ""))) is not None:
            return _until_s(instant, now_s)
    if (left_ms := _number(headers.get("gw-ratelimit-reset", ""))) is not None:
        return left_ms / 1000
    return None


def _until_s(instant: float, now_s: float) -> float | None:
    """Seconds until an instant in Unix seconds or milliseconds; None for what is neither, or more than an hour off."""
    left_s = (instant / 1000 if instant > 1e11 else instant) - now_s
    return left_s if 0 <= left_s <= 3600 else None


def _until_date_s(text: str, now_s: float) -> float | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(date.timestamp() - now_s, 0.0)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < 1e15 else None


# --- verdicts ----------------------------------------------------------------------------------------------------

_FAILED, _REJECTED, _THROTTLED = Outcome.FAILED, Outcome.REJECTED, Outcome.THROTTLED

# Every class of ccxt's tree; a class ccxt adds later is judged as the nearest of its ancestors.
_BY_CLASS: Final[dict[str, tuple[Outcome, ErrorCode]]] = {
    "BaseError": (_FAILED, ErrorCode.EXCHANGE_ERROR),
    "ExchangeError": (_FAILED, ErrorCode.EXCHANGE_ERROR),
    "AuthenticationError": (_FAILED, ErrorCode.AUTHENTICATION),
    "ArgumentsRequired": (_REJECTED, ErrorCode.INVALID_ARGUMENTS),
    "BadRequest": (_REJECTED, ErrorCode.INVALID_ARGUMENTS),
    "BadSymbol": (_FAILED, ErrorCode.BAD_SYMBOL),
    "OperationRejected": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    # The market exists but does not trade here and now: as far as the request goes, it is not listed.
    "MarketClosed": (_FAILED, ErrorCode.BAD_SYMBOL),
    "ContractUnavailable": (_FAILED, ErrorCode.BAD_SYMBOL),
    "ManualInteractionNeeded": (_FAILED, ErrorCode.AUTHENTICATION),
    "RestrictedLocation": (_FAILED, ErrorCode.RESTRICTED),
    "InsufficientFunds": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    "InvalidAddress": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    "InvalidOrder": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    "NotSupported": (_FAILED, ErrorCode.NOT_SUPPORTED),
    # Ours, not the exchange's: a proxy set up wrongly, an instance closed under a running attempt.
    "InvalidProxySettings": (_FAILED, ErrorCode.INTERNAL),
    "ExchangeClosedByUser": (_FAILED, ErrorCode.INTERNAL),
    "OperationFailed": (_FAILED, ErrorCode.EXCHANGE_UNAVAILABLE),
    "DDoSProtection": (_FAILED, ErrorCode.RATE_LIMITED),
    "RateLimitExceeded": (_FAILED, ErrorCode.RATE_LIMITED),
    "OnMaintenance": (_FAILED, ErrorCode.MAINTENANCE),
    "InvalidNonce": (_FAILED, ErrorCode.CLOCK),
    "ChecksumError": (_FAILED, ErrorCode.BAD_RESPONSE),
    "RequestTimeout": (_FAILED, ErrorCode.EXCHANGE_TIMEOUT),
    "BadResponse": (_FAILED, ErrorCode.BAD_RESPONSE),
    "CancelPending": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    "UnsubscribeError": (_FAILED, ErrorCode.EXCHANGE_ERROR),
}
# Classes that say no more than "it did not work": for these the status decides.
_VAGUE: Final = frozenset(
    {"BaseError", "ExchangeError", "OperationFailed", "NetworkError", "ExchangeNotAvailable", "AuthenticationError"}
)
_WRONG_KEY: Final = re.compile(r"EAPI: ?Invalid (key|signature)|EGeneral: ?Permission denied")  # Kraken: ExchangeError
# What ccxt takes for wrong arguments, or for nothing that it knows.
_UNKNOWN_SYMBOL: Final = re.compile(
    r"EQuery: ?(Unknown asset pair|Invalid asset pair)"  # Kraken
    r'|"retCode"\s*:\s*10001\b[^}]*symbol'  # Bybit: "Symbol Invalid", "params error: symbol invalid"
    r'|"code"\s*:\s*"?40034\b'  # Bitget: "Parameter symbol does not exist"
    r'|"code"\s*:\s*"?200003\b'  # KuCoin futures: "symbol not exists"
    r'|"err[_-]code"\s*:\s*1014\b'  # HTX futures: the contract doesn't exist
    r'|"err[_-]msg"\s*:\s*"[^"]*contract_code',  # HTX futures
    re.IGNORECASE,
)
# 4xx that may be the exchange's own words on what was asked; in JSON they are.
_REQUEST_STATUSES: Final = frozenset({400, 404, 405, 409, 410, 422})
# 4xx that speak of the request's form, whatever their body (RFC 9110 and 6585).
_FORM_STATUSES: Final = frozenset({406, 411, 412, 413, 414, 415, 416, 417, 431})
_TOO_LARGE: Final = frozenset({413, 414, 431})
_SAYS_LITTLE: Final = "the exchange can't read this request and does not say why: check args, above all params"
_WHAT_TO_CHANGE: Final = {
    404: "the exchange has nothing at this address: check args, above all params",
    413: "the request is too large for the exchange: send less in args and params",
    414: "the request's URL is too long for the exchange: send less in args and params",
    431: "the request's URL is too long for the exchange: send less in args and params",
}
_CLOCK_HINT: Final = (
    "clock: the exchange finds our time, or nonce, wrong, also after its clock was measured. Operator: synchronise "
    "the workers' clocks, and use the key in no other program; "
)


def judge(error: BaseException, seen: Seen, hide: Hide = str) -> Verdict:
    """Says how an attempt ended that raised `error`.

    ``bad_symbol``, ``not_supported`` and ``authentication`` speak of this lane, not against its exchange's health: the
    dispatcher tries another lane where the request allows it.

    Args:
        error: what ccxt, the budget or the argument check raised.
        seen: the attempt's HTTP calls.
        hide: takes secrets out of a text.

    Raises:
        BaseException: `error` itself where it is no error but the end (`CancelledError`, `KeyboardInterrupt`).
    """
    if not isinstance(error, Exception) or isinstance(error, asyncio.CancelledError):
        raise error
    if isinstance(error, NoBudget):
        code = ErrorCode.PAUSED if error.reason == "paused" else ErrorCode.NO_BUDGET
        return Verdict(_THROTTLED, code, str(error), error.wait_s)
    if isinstance(error, Crowded):
        return Verdict(_THROTTLED, ErrorCode.EXPIRED, str(error), REST_S)
    if isinstance(error, TooLarge):
        return Verdict(_FAILED, ErrorCode.TOO_LARGE, str(error))
    if isinstance(error, InvalidMessage):
        return Verdict(_REJECTED, error.code, error.message[:MESSAGE_LIMIT])
    message = in_one_line(error, hide)
    if isinstance(error, TimeoutError) and seen.http_calls == 0:
        return Verdict(_THROTTLED, ErrorCode.EXPIRED, "the attempt's time ended before it was sent")
    if seen.pause is not None:
        return Verdict(_FAILED, ErrorCode.RATE_LIMITED, message, seen.pause.seconds)
    outcome, code = _decide(error, seen)
    if not seen.http_calls and code in ILL:
        # Without a call it is ccxt that refuses: this lane can't do it, and the text says why.
        return Verdict(_FAILED, ErrorCode.NOT_SUPPORTED, message)
    if code is ErrorCode.CLOCK:
        message = (_CLOCK_HINT + message)[:MESSAGE_LIMIT]
    elif outcome is _REJECTED and not _is_json(seen.body) and (seen.status or 0) >= 400:
        message = f"{_WHAT_TO_CHANGE.get(seen.status or 0, _SAYS_LITTLE)}; {message}"[:MESSAGE_LIMIT]
    pause_s = DEFAULT_PAUSE_S if code is ErrorCode.RATE_LIMITED else 0.0
    return Verdict(outcome, code, message, pause_s, of_connection=_of_connection(code, seen))


def _of_connection(code: ErrorCode, seen: Seen) -> bool:
    if code is ErrorCode.BAD_RESPONSE:
        return not _is_json(seen.body)
    return code in (ErrorCode.EXCHANGE_UNAVAILABLE, ErrorCode.EXCHANGE_TIMEOUT, ErrorCode.MAINTENANCE)


def _is_json(body: str) -> bool:
    """Whether it starts as an exchange's own words do; only its start was kept."""
    return body.lstrip("\ufeff \t\r\n").startswith(("{", "["))


def _decide(error: Exception, seen: Seen) -> tuple[Outcome, ErrorCode]:
    if isinstance(error, BaseError):
        if seen.http_calls and clock_refused(error, seen.body):
            return _FAILED, ErrorCode.CLOCK
        if (decided := _by_answer(error, seen)) is not None:
            return decided
        return next(_BY_CLASS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _BY_CLASS)
    if isinstance(error, TimeoutError):
        return _FAILED, ErrorCode.EXCHANGE_TIMEOUT
    if isinstance(error, (OSError, aiohttp.ClientError)):
        return _FAILED, ErrorCode.EXCHANGE_UNAVAILABLE
    if _raised_in_ccxt(error):
        # A parser that met what it did not expect; without an answer it was not the exchange's doing, and the lane
        # simply can't run this request.
        return _FAILED, ErrorCode.BAD_RESPONSE if seen.http_calls else ErrorCode.NOT_SUPPORTED
    return _FAILED, ErrorCode.INTERNAL


def _by_answer(error: BaseError, seen: Seen) -> tuple[Outcome, ErrorCode] | None:
    name, status = type(error).__name__, seen.status
    if name in _VAGUE:
        return _by_status(error, seen)
    if name == "BadRequest" and _UNKNOWN_SYMBOL.search(seen.body):
        return _FAILED, ErrorCode.BAD_SYMBOL
    if name == "RestrictedLocation" and seen.http_calls and status not in (403, 451):
        return _FAILED, ErrorCode.BAD_SYMBOL  # "this pair is not for your region", among answers to others
    if name == "BadResponse" and (
        status in _FORM_STATUSES or (status in _REQUEST_STATUSES and not _is_json(seen.body))
    ):
        return _by_status(error, seen)
    return None


def _by_status(error: BaseError, seen: Seen) -> tuple[Outcome, ErrorCode] | None:
    status = seen.status
    if isinstance(error, AuthenticationError) and seen.http_calls == 0:
        return _FAILED, ErrorCode.NOT_SUPPORTED  # ccxt asks for keys, and this lane has none
    if isinstance(error.__cause__, aiohttp.ClientPayloadError):
        return _FAILED, ErrorCode.BAD_RESPONSE  # cut off, or compressed wrongly
    if status is None:
        # No answer: the connection failed.
        return (_FAILED, ErrorCode.EXCHANGE_UNAVAILABLE) if seen.http_calls else None
    if _WRONG_KEY.search(seen.body):
        return _FAILED, ErrorCode.AUTHENTICATION
    if _UNKNOWN_SYMBOL.search(seen.body):
        return _FAILED, ErrorCode.BAD_SYMBOL
    if status in (403, 451):
        return _FAILED, ErrorCode.RESTRICTED
    if status in (408, 504, 524):
        return _FAILED, ErrorCode.EXCHANGE_TIMEOUT
    if status in (401, 407, 511):
        return _FAILED, ErrorCode.AUTHENTICATION
    if status >= 500:
        return _FAILED, ErrorCode.EXCHANGE_UNAVAILABLE
    if status in _FORM_STATUSES:
        return _REJECTED, ErrorCode.TOO_LARGE if status in _TOO_LARGE else ErrorCode.INVALID_ARGUMENTS
    if status in _REQUEST_STATUSES:
        if not _is_json(seen.body):
            return _REJECTED, ErrorCode.INVALID_ARGUMENTS
        if isinstance(error, AuthenticationError):
            return _FAILED, ErrorCode.AUTHENTICATION
        # The exchange understood, and has no such thing; another one may.
        return (_FAILED, ErrorCode.BAD_SYMBOL) if status in (404, 410) else (_REJECTED, ErrorCode.INVALID_ARGUMENTS)
    return None


_CCXT: Final = str(Path(ccxt.__file__).parent)
_OURS: Final = str(Path(__file__).parent.parent)


def _raised_in_ccxt(error: Exception) -> bool:
    """Whether the innermost frame that is either ccxt's or ours is ccxt's: then it is no bug of the fleet."""
    in_ccxt = False
    trace: Any = error.__traceback__
    while trace is not None:
        file: str = trace.tb_frame.f_code.co_filename
        if file.startswith(_CCXT):
            in_ccxt = True
        elif file.startswith(_OURS):
            in_ccxt = False
        trace = trace.tb_next
    return in_ccxt


_QUERY: Final = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*")
_USER: Final = re.compile(r"(\w+://)[^\s/@]+@")
_SECRET: Final = re.compile(r"(?i)\b(signature|api-?_?key|secret|passphrase|token)([\"']?\s*[=:]\s*[\"']?)[^\s&,\"'}]+")


def _clean(text: str, hide: Hide) -> str:
    # A secret at the end of what is looked at must not be cut in two before it is hidden.
    text = hide(text[: 2 * _LOOKED_AT])[:_LOOKED_AT]
    text = _SECRET.sub(r"\1\2…", _USER.sub(r"\1", _QUERY.sub(r"\1", text)))
    return " ".join(text.split())


def in_one_line(error: BaseException, hide: Hide = str) -> str:
    """An error's class and text, without queries, passwords of proxies, or what looks like a secret.

    Args:
        error: whatever was raised.
        hide: takes secrets out of a text.
    """
    name, text = type(error).__name__, _clean(str(error), hide)
    return (f"{name}: {text}" if text else name)[:MESSAGE_LIMIT]
