"""What an error means for the attempt: a pure decision.

First counts where it happened: before any call, in an answer that refuses the call, or in ccxt's reading of data. For a
refusal the exchange's own words decide, as the tables have them, else ccxt's class if ccxt knows those words, else the
status. ccxt's class alone is not enough: its `ExchangeNotAvailable` is both a dead exchange and a wrong parameter (ccxt
4.5.90).
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import ccxt  # pyright: ignore[reportMissingTypeStubs]
from ccxt.base.errors import ArgumentsRequired, BaseError, RestrictedLocation  # pyright: ignore[reportMissingTypeStubs]
from msgspec import Struct

from schemas.errors import InvalidMessage
from schemas.messages import ErrorCode, Outcome

from ..budget.grants import Reason
from ..limits.answers import Means
from ..limits.costs import Charge
from .bounds import REST_S, Crowded
from .call import Heard, Seen
from .clock import clock_refused
from .redaction import MESSAGE_LIMIT, Hide, in_one_line
from .rows import TooLarge
from .signals import DEFAULT_PAUSE_S


class Verdict(Struct, frozen=True):
    """How an attempt ended.

    Args:
        outcome: whether another try may help.
        code: why it ended.
        message: the same in words.
        pause_s: for how long its lane can't take it; 0 where there is no reason to wait.
        of_connection: it failed for a reason that has nothing to do with what was asked: no connection, no answer in
            time, a 5xx, maintenance, a page in place of JSON.
    """

    outcome: Outcome
    code: ErrorCode
    message: str
    pause_s: float = 0.0
    of_connection: bool = False


_NOT_SENT: Final[Mapping[Reason, str]] = {
    "budget": "no budget in time",
    "busy": "not sent: this process was too busy to send in its turn",
    "paused": "no budget: the exchange asked for a pause",
    "redis_lost": "no budget: Redis is away",
    "share_too_small": "no budget: Redis is away, and this worker's share of a limit does not hold the call",
}


class NoBudget(Exception):
    """The call was not sent: there is no budget in time, or a pause. It is no error of ccxt, which would try again.

    Args:
        reason: why.
        wait_s: in how many seconds there may be budget.
        lacked: the charge for which there was no room in time, if that is why.
        rooms: how room comes for that one (`Refusal.rooms`).

    Attributes:
        reason, wait_s, lacked, rooms: see Args.
    """

    def __init__(
        self, reason: Reason, wait_s: float, lacked: Charge | None = None, rooms: Sequence[tuple[float, int]] = ()
    ) -> None:
        super().__init__(f"{_NOT_SENT[reason]}; there may be some in {wait_s:.3f} s")
        self.reason = reason
        self.wait_s = wait_s
        self.lacked = lacked
        self.rooms = rooms


_FAILED, _REJECTED, _THROTTLED = Outcome.FAILED, Outcome.REJECTED, Outcome.THROTTLED

# All classes of ccxt's tree; a class that ccxt adds later is judged like its nearest ancestor here.
_BY_CLASS: Final[dict[str, tuple[Outcome, ErrorCode]]] = {
    "BaseError": (_FAILED, ErrorCode.EXCHANGE_ERROR),
    "ExchangeError": (_FAILED, ErrorCode.EXCHANGE_ERROR),
    "AuthenticationError": (_FAILED, ErrorCode.AUTHENTICATION),
    "ArgumentsRequired": (_REJECTED, ErrorCode.INVALID_ARGUMENTS),
    "BadRequest": (_REJECTED, ErrorCode.INVALID_ARGUMENTS),
    "BadSymbol": (_FAILED, ErrorCode.BAD_SYMBOL),
    "OperationRejected": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    # The market exists but does not trade now: for the request it is as good as not listed.
    "MarketClosed": (_FAILED, ErrorCode.BAD_SYMBOL),
    "ContractUnavailable": (_FAILED, ErrorCode.BAD_SYMBOL),
    "ManualInteractionNeeded": (_FAILED, ErrorCode.AUTHENTICATION),
    "RestrictedLocation": (_FAILED, ErrorCode.RESTRICTED),
    "InsufficientFunds": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    "InvalidAddress": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    "InvalidOrder": (_REJECTED, ErrorCode.EXCHANGE_ERROR),
    "NotSupported": (_FAILED, ErrorCode.NOT_SUPPORTED),
    # Our own faults: a proxy set up wrongly, an instance that was closed while an attempt ran on it.
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
# What the exchange's own words mean, in the order in which they are looked for.
_BY_WORDS: Final[Mapping[Means, tuple[Outcome, ErrorCode]]] = {
    "clock": (_FAILED, ErrorCode.CLOCK),
    "region": (_FAILED, ErrorCode.RESTRICTED),
    "busy": (_FAILED, ErrorCode.EXCHANGE_UNAVAILABLE),
    "key": (_FAILED, ErrorCode.AUTHENTICATION),
    "symbol": (_FAILED, ErrorCode.BAD_SYMBOL),
    "arguments": (_REJECTED, ErrorCode.INVALID_ARGUMENTS),
    "unsupported": (_FAILED, ErrorCode.NOT_SUPPORTED),
}
# Classes that ccxt raises for words it does not know: for these the status decides.
_VAGUE: Final = frozenset({"BaseError", "ExchangeError"})
# 4xx that may be the exchange's own answer to the request; with JSON in the body they certainly are.
_REQUEST_STATUSES: Final = frozenset({400, 404, 405, 409, 410, 422})
# 4xx that refuse the request's form, whatever the body (RFC 9110 and 6585).
_FORM_STATUSES: Final = frozenset({406, 411, 412, 413, 414, 415, 416, 417, 431})
_TOO_LARGE: Final = frozenset({413, 414, 431})
_UNKNOWN_REFUSAL: Final = "the exchange refuses it and ccxt does not know why: args may be wrong, above all params"
_FIREWALL: Final = "a page in place of an answer: a firewall before the exchange refuses this address, or this request"
# RFC 9110, 15.4: another address has the answer.
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OTHER_ADDRESS: Final = (
    "if the exchange has moved, set ccxt.urls or ccxt.hostname of the lane; else a proxy or a firewall sends it"
)
_CCXT_STUMBLES: Final = "ccxt fails on these args before it sends anything: "
_NO_LETTERS: Final = re.compile(r"[\W_]+")
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
    """Turns the error that an attempt raised into how the attempt ended.

    ``bad_symbol``, ``not_supported`` and ``authentication`` do not count against the exchange's health: they concern
    this lane, and the dispatcher tries another one if the request allows it.

    Args:
        error: what ccxt, the budget or the argument check raised.
        seen: what was seen of the attempt's HTTP calls.
        hide: takes secrets out of a text.

    Raises:
        BaseException: `error` itself if it is a request to stop (`CancelledError`, `KeyboardInterrupt`).
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
    seen.settle(error)
    message = in_one_line(error, hide)
    if isinstance(error, TimeoutError) and seen.http_calls == 0:
        return Verdict(_THROTTLED, ErrorCode.EXPIRED, "the attempt's time ended before it was sent")
    if seen.heard.pause is not None:
        return Verdict(_FAILED, ErrorCode.RATE_LIMITED, message, seen.heard.pause.seconds)
    outcome, code = _decide(error, seen)
    of_connection = _of_connection(code, seen)
    if seen.heard.unread and of_connection and (seen.heard.status is None or isinstance(error, TimeoutError)):
        # Its time-out passed, or its connection was given up, while nobody could read the answer.
        text = f"this worker stood still for {seen.still_s:.1f} s, and read no answer in time; "
        return Verdict(_THROTTLED, ErrorCode.EXPIRED, (text + message)[:MESSAGE_LIMIT])
    message = (hide(_hint(error, outcome, code, seen)) + message)[:MESSAGE_LIMIT]
    pause_s = DEFAULT_PAUSE_S if code is ErrorCode.RATE_LIMITED else 0.0
    return Verdict(outcome, code, message, pause_s, of_connection=of_connection)


def means_too_many(exchange: str, heard: Heard) -> bool:
    """Whether ccxt's "too many calls" may be believed: it read that in the body, and no table says otherwise."""
    return not heard.by_status and not heard.says(exchange, *_BY_WORDS)


def _hint(error: Exception, outcome: Outcome, code: ErrorCode, seen: Seen) -> str:
    """What to do about it, where the exchange's or ccxt's words do not say it."""
    if code is ErrorCode.CLOCK:
        return _CLOCK_HINT
    if not seen.http_calls:
        return "" if isinstance(error, BaseError) or code is ErrorCode.INTERNAL else _CCXT_STUMBLES
    status, page = seen.heard.status or 0, not _is_json(seen.heard.body)
    if status in _REDIRECTS and (to := _leads_to(seen)):
        return f"status {status} leads to {to}, and redirects are not followed: {_OTHER_ADDRESS}; "
    if outcome is _REJECTED and page and status >= 400:
        return f"{_WHAT_TO_CHANGE.get(status, _SAYS_LITTLE)}; "
    if page and status == 403 and code is ErrorCode.EXCHANGE_UNAVAILABLE:
        return f"{_FIREWALL}; "
    return f"{_UNKNOWN_REFUSAL}; " if (outcome, code) == (_FAILED, ErrorCode.INVALID_ARGUMENTS) else ""


def _leads_to(seen: Seen) -> str:
    """Where an answer sends its caller, without the query; empty where it does not say."""
    to = next((value for name, value in seen.heard.headers.items() if name.lower() == "location"), "")
    return to.partition("?")[0].partition("#")[0][:200]


def _of_connection(code: ErrorCode, seen: Seen) -> bool:
    if code is ErrorCode.BAD_RESPONSE:
        return not _is_json(seen.heard.body)
    if code is ErrorCode.EXCHANGE_UNAVAILABLE:
        return seen.heard.status != 403
    return code in (ErrorCode.EXCHANGE_TIMEOUT, ErrorCode.MAINTENANCE)


def _is_json(body: str) -> bool:
    """Whether a body looks like JSON; only its start was kept."""
    return body.lstrip("\ufeff \t\r\n").startswith(("{", "["))


def _decide(error: Exception, seen: Seen) -> tuple[Outcome, ErrorCode]:
    if isinstance(error, BaseError):
        decide = _unsent if not seen.http_calls else _misread if seen.data else _refused
        outcome, code = decide(error, seen)
        if code is ErrorCode.BAD_SYMBOL and not seen.names_any:
            restricted = isinstance(error, RestrictedLocation)
            return _FAILED, ErrorCode.RESTRICTED if restricted else ErrorCode.NOT_SUPPORTED
        return outcome, code
    if isinstance(error, TimeoutError):
        return _FAILED, ErrorCode.EXCHANGE_TIMEOUT
    if isinstance(error, (OSError, aiohttp.ClientError)):
        return _FAILED, ErrorCode.EXCHANGE_UNAVAILABLE
    if not _raised_in_ccxt(error):
        return _FAILED, ErrorCode.INTERNAL
    if seen.http_calls:
        # ccxt did not expect this answer. A refusal's status still says what it is; data of this form is of no use.
        by_status = None if seen.data else _by_status(seen)
        return by_status or (_FAILED, ErrorCode.BAD_RESPONSE)
    # ccxt checks no arguments: mostly it stumbles over `params`, or over a missing symbol. Else the fault is its own.
    suspect = seen.args is not None and (bool(seen.args.get("params")) or not seen.named)
    return _FAILED, ErrorCode.INVALID_ARGUMENTS if suspect else ErrorCode.NOT_SUPPORTED


def _by_class(error: BaseError) -> tuple[Outcome, ErrorCode]:
    return next(_BY_CLASS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _BY_CLASS)


def _unsent(error: BaseError, seen: Seen) -> tuple[Outcome, ErrorCode]:
    """No call was sent, so ccxt itself refuses: this lane can't run the request, another one may."""
    code = _by_class(error)[1]
    own = code in (ErrorCode.BAD_SYMBOL, ErrorCode.INVALID_ARGUMENTS, ErrorCode.INTERNAL)
    return _FAILED, code if own else ErrorCode.NOT_SUPPORTED


def _misread(error: BaseError, seen: Seen) -> tuple[Outcome, ErrorCode]:
    """The exchange answered with data, and ccxt can't read it."""
    outcome, code = _by_class(error)
    if isinstance(error, ArgumentsRequired):
        return _FAILED, ErrorCode.NOT_SUPPORTED  # of two markets with one id, ccxt does not know which is meant
    if code is ErrorCode.BAD_SYMBOL and not _speaks_of(str(error), seen):
        return _FAILED, ErrorCode.BAD_RESPONSE  # a market that ccxt does not know yet
    return outcome, code


def _speaks_of(text: str, seen: Seen) -> bool:
    """Whether a text names one of the symbols that the request names, however it is written."""
    if seen.args is None:
        return True
    said, named = _NO_LETTERS.sub("", text).upper(), [name.partition(":")[0] for name in seen.named]
    return any(_NO_LETTERS.sub("", name).upper() in said for name in named)


def _refused(error: BaseError, seen: Seen) -> tuple[Outcome, ErrorCode]:
    """The exchange refused the call, or gave no answer."""
    if clock_refused(error, seen):
        return _FAILED, ErrorCode.CLOCK
    if seen.heard.status is None:
        return _unanswered(error)
    for means, meant in _BY_WORDS.items():
        if seen.heard.says(seen.exchange, means):
            return meant
    if seen.heard.by_status or type(error).__name__ in _VAGUE:
        return _by_status(seen) or _by_class(error)
    if isinstance(error, RestrictedLocation) and seen.heard.status not in (403, 451):
        return _FAILED, ErrorCode.BAD_SYMBOL  # this pair is not for our region, other pairs are
    return _by_class(error)


def _unanswered(error: BaseError) -> tuple[Outcome, ErrorCode]:
    reason = error.__cause__
    if isinstance(reason, aiohttp.ClientResponseError) and not isinstance(reason, aiohttp.ClientHttpProxyError):
        return _FAILED, ErrorCode.BAD_RESPONSE  # an answer that is no HTTP
    if isinstance(reason, aiohttp.ClientPayloadError):
        return _FAILED, ErrorCode.BAD_RESPONSE  # cut off, or compressed wrongly
    outcome, code = _by_class(error)
    vague = type(error).__name__ in _VAGUE or code is ErrorCode.AUTHENTICATION
    return (_FAILED, ErrorCode.EXCHANGE_UNAVAILABLE) if vague else (outcome, code)


def _by_status(seen: Seen) -> tuple[Outcome, ErrorCode] | None:
    """What a status alone says; None where it says nothing, as 200 does."""
    status, is_json = seen.heard.status or 0, _is_json(seen.heard.body)
    if status == 451 or (status == 403 and is_json):
        return _FAILED, ErrorCode.RESTRICTED
    if status == 403:
        return _FAILED, ErrorCode.EXCHANGE_UNAVAILABLE
    if status in (408, 504, 524):
        return _FAILED, ErrorCode.EXCHANGE_TIMEOUT
    if status in (401, 407, 511):
        return _FAILED, ErrorCode.AUTHENTICATION
    if status >= 500:
        return _FAILED, ErrorCode.EXCHANGE_UNAVAILABLE
    if status in _FORM_STATUSES:
        return _REJECTED, ErrorCode.TOO_LARGE if status in _TOO_LARGE else ErrorCode.INVALID_ARGUMENTS
    if status not in _REQUEST_STATUSES:
        return None
    if not is_json:
        return _REJECTED, ErrorCode.INVALID_ARGUMENTS
    # The exchange understood the request, but does not have the thing, or refuses it: another exchange may not.
    return _FAILED, ErrorCode.BAD_SYMBOL if status in (404, 410) else ErrorCode.INVALID_ARGUMENTS


_CCXT: Final = str(Path(ccxt.__file__).parent)
_OURS: Final = str(Path(__file__).parent.parent)


def _raised_in_ccxt(error: Exception) -> bool:
    """Whether ccxt raised it: of the frames that are ccxt's or ours, the innermost is ccxt's."""
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
