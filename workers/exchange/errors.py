"""What an error means for the attempt: a pure decision.

The HTTP status and the exchange's own words come before ccxt's class: its `ExchangeNotAvailable` is both a dead
exchange and a wrong parameter (ccxt 4.5.90).
"""

import asyncio
from pathlib import Path
from typing import Any, Final

import aiohttp
import ccxt  # pyright: ignore[reportMissingTypeStubs]
from ccxt.base.errors import AuthenticationError, BaseError  # pyright: ignore[reportMissingTypeStubs]
from msgspec import Struct

from schemas.errors import InvalidMessage
from schemas.messages import ILL, ErrorCode, Outcome

from .bounds import REST_S, Crowded
from .call import Seen
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
        of_connection: the failure is of the connection, or of the whole exchange, whatever was asked: no connection,
            no answer in time, a 5xx, maintenance, a page in place of JSON.
    """

    outcome: Outcome
    code: ErrorCode
    message: str
    pause_s: float = 0.0
    of_connection: bool = False


class NoBudget(Exception):
    """The call was not sent: there is no budget in time, or a pause. Not an error of ccxt's: ccxt never retries it.

    Args:
        reason: ``budget``, ``paused`` or ``redis_lost``.
        wait_s: in how many seconds there would be budget.
    """

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(f"{reason}: free in {wait_s:.3f} s")
        self.reason = reason
        self.wait_s = wait_s


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
# Classes that only say "it did not work": for these the status decides.
_VAGUE: Final = frozenset(
    {"BaseError", "ExchangeError", "OperationFailed", "NetworkError", "ExchangeNotAvailable", "AuthenticationError"}
)
# 4xx that may be the exchange's own answer to the request; with JSON in the body they are.
_REQUEST_STATUSES: Final = frozenset({400, 404, 405, 409, 410, 422})
# 4xx that refuse the request's form, whatever the body (RFC 9110 and 6585).
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
    message = in_one_line(error, hide)
    if isinstance(error, TimeoutError) and seen.http_calls == 0:
        return Verdict(_THROTTLED, ErrorCode.EXPIRED, "the attempt's time ended before it was sent")
    if seen.pause is not None:
        return Verdict(_FAILED, ErrorCode.RATE_LIMITED, message, seen.pause.seconds)
    outcome, code = _decide(error, seen)
    if not seen.http_calls and code in ILL:
        # No call was sent, so ccxt itself refuses: this lane can't run the request, and the text says why.
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
    """Whether a body looks like JSON; only its start was kept."""
    return body.lstrip("\ufeff \t\r\n").startswith(("{", "["))


def _decide(error: Exception, seen: Seen) -> tuple[Outcome, ErrorCode]:
    if isinstance(error, BaseError):
        if seen.http_calls and clock_refused(error, seen):
            return _FAILED, ErrorCode.CLOCK
        if (decided := _by_answer(error, seen)) is not None:
            return decided
        return next(_BY_CLASS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _BY_CLASS)
    if isinstance(error, TimeoutError):
        return _FAILED, ErrorCode.EXCHANGE_TIMEOUT
    if isinstance(error, (OSError, aiohttp.ClientError)):
        return _FAILED, ErrorCode.EXCHANGE_UNAVAILABLE
    if _raised_in_ccxt(error):
        # A parser of ccxt's failed. With an answer, the exchange sent something unexpected; without one, this lane just
        # can't run the request.
        return _FAILED, ErrorCode.BAD_RESPONSE if seen.http_calls else ErrorCode.NOT_SUPPORTED
    return _FAILED, ErrorCode.INTERNAL


def _by_answer(error: BaseError, seen: Seen) -> tuple[Outcome, ErrorCode] | None:
    name, status = type(error).__name__, seen.status
    if name in _VAGUE:
        return _by_status(error, seen)
    if name == "BadRequest" and seen.says("symbol"):
        return _FAILED, ErrorCode.BAD_SYMBOL
    if name == "RestrictedLocation" and seen.http_calls and status not in (403, 451):
        return _FAILED, ErrorCode.BAD_SYMBOL  # this pair is not for our region, other pairs are
    if name == "BadResponse" and (
        status in _FORM_STATUSES or (status in _REQUEST_STATUSES and not _is_json(seen.body))
    ):
        return _by_status(error, seen)
    return None


def _by_status(error: BaseError, seen: Seen) -> tuple[Outcome, ErrorCode] | None:
    status = seen.status
    if isinstance(error, AuthenticationError) and seen.http_calls == 0:
        return _FAILED, ErrorCode.NOT_SUPPORTED  # ccxt wants keys, and this lane has none
    if isinstance(error.__cause__, aiohttp.ClientPayloadError):
        return _FAILED, ErrorCode.BAD_RESPONSE  # cut off, or compressed wrongly
    if status is None:
        # No answer: the connection failed.
        return (_FAILED, ErrorCode.EXCHANGE_UNAVAILABLE) if seen.http_calls else None
    if seen.says("key"):
        return _FAILED, ErrorCode.AUTHENTICATION
    if seen.says("symbol"):
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
        # The exchange understood the request, but does not have the thing; another exchange may.
        return (_FAILED, ErrorCode.BAD_SYMBOL) if status in (404, 410) else (_REJECTED, ErrorCode.INVALID_ARGUMENTS)
    return None


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
