"""What a caller gets in place of an answer: a status, and a body that says why. Pure.

A program behind the gateway may be ccxt, which reads any answer as the exchange's own. So each status here is one that
ccxt raises an error for. And what stands in an exchange's place is a text: of JSON that they don't know, some of ccxt's
classes make an error that programs take for the last word, and not for one to try again after.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, json

from ..messages import ErrorCode, Try
from .signed import Lost, Unsent

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
# Of a signed call that was sent, and whose answer got lost.
OUTCOME_UNKNOWN: Final = "outcome_unknown"
TIMED_OUT: Final = 504
# What there is no answer to in time is worth another try.
LATER: Final = 503
STATUSES: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.UNREADABLE: 400,
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.TOO_LARGE: 422,
    ErrorCode.UNKNOWN_EXCHANGE: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 403,
    ErrorCode.NOT_SUPPORTED: 422,
    ErrorCode.INVALID_ARGUMENTS: 422,
    ErrorCode.BAD_SYMBOL: 422,
    ErrorCode.DEADLINE_EXCEEDED: LATER,
    ErrorCode.ATTEMPTS_EXHAUSTED: 502,
    ErrorCode.NO_BUDGET: LATER,
    ErrorCode.PAUSED: LATER,
    ErrorCode.EXPIRED: LATER,
    ErrorCode.RATE_LIMITED: LATER,
    ErrorCode.EXCHANGE_UNAVAILABLE: LATER,
    ErrorCode.EXCHANGE_TIMEOUT: 504,
    ErrorCode.EXCHANGE_ERROR: 422,
    ErrorCode.MAINTENANCE: LATER,
    ErrorCode.BAD_RESPONSE: 502,
    ErrorCode.AUTHENTICATION: 502,
    ErrorCode.CLOCK: 502,
    ErrorCode.RESTRICTED: 451,
    ErrorCode.DELIVERY_LIMIT: 500,
    ErrorCode.INTERNAL: 500,
}
# The statuses of our own refusals, by the code that stands in their body.
OWN: Final[Mapping[str, int]] = {
    "bad_call": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "signed_call": 403,
    "not_found": 404,
    "wrong_verb": 405,
    "no_body": 408,
    "too_large": 422,
    OUTCOME_UNKNOWN: 502,  # or `TIMED_OUT`
    "busy": LATER,
    "leaving": LATER,
    "no_fleet": LATER,
    "fault": 500,
}
# Where nothing tells when another try may help, seconds.
RETRY_AFTER_S: Final = 1
_MOST_RETRY_AFTER_S: Final = 3600


class Refusal(Struct, frozen=True):
    """An answer of the gateway's own.

    Args:
        status: of HTTP.
        code: an `ErrorCode`, or one of `OWN`.
        message: what to change, or what to wait for.
        request_id: the request's, which stands in the fleet's logs; empty where the fleet was not asked.
        retry_after_s: after how long another try may help, None where none would.
        headers: more headers.
        closes: whether the connection ends with it.
    """

    status: int
    code: str
    message: str
    request_id: str = ""
    retry_after_s: int | None = None
    headers: Mapping[str, str] = {}
    closes: bool = False

    def body(self, *, as_json: bool) -> bytes:
        """Its body: a text in an exchange's place, JSON in a result's."""
        if as_json:
            told = {"id": self.request_id, "ok": False, "error": {"code": self.code, "message": self.message}}
            return json.encode(told) + b"\n"
        return f"ccxt-fleet: {self.code}: {self.message}\n".encode(errors="replace")

    def all_headers(self, *, as_json: bool) -> dict[str, str]:
        """Its headers, with those that its fields stand for."""
        more = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.request_id:
            more["X-Fleet-Request"] = self.request_id
        kind = JSON_TYPE if as_json else TEXT_TYPE
        return {"Content-Type": kind, "Cache-Control": "no-store", "X-Fleet-Error": self.code, **more, **self.headers}


def refused(code: str, message: str, *, closes: bool = False, **headers: str) -> Refusal:
    """A refusal of our own; names of headers have ``_`` in place of ``-``."""
    status = OWN[code]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    after_s = RETRY_AFTER_S if status == LATER else None
    return Refusal(status, code, message, retry_after_s=after_s, headers=named, closes=closes)


def of_unsent(end: Unsent) -> Refusal:
    """What stands for a signed call that was not sent."""
    status = OWN[end.code] if end.code in OWN else STATUSES[ErrorCode(end.code)]
    after_s = None
    if status == LATER:
        after_s = max(RETRY_AFTER_S, min(math.ceil(end.retry_after_s or 0), _MOST_RETRY_AFTER_S))
    return Refusal(status, end.code, end.message, retry_after_s=after_s)


def of_lost(end: Lost) -> Refusal:
    """What stands for a signed call that was sent, and nobody knows how it ended."""
    return Refusal(TIMED_OUT if end.timed_out else OWN[OUTCOME_UNKNOWN], OUTCOME_UNKNOWN, end.message)


def of_error(code: ErrorCode, message: str, request_id: str, tries: Sequence[Try], now_ms: int) -> Refusal:
    """What stands for an error of the fleet."""
    status = STATUSES.get(code, 500)
    after_s = retry_after_s(tries, now_ms) if status == LATER else None
    return Refusal(status, str(code), message, request_id, after_s)


def retry_after_s(tries: Sequence[Try], now_ms: int) -> int:
    """After how long the first of the lanes could take it, as far as they said so; seconds, 1 at least."""
    last = {each.lane: each.retry_at_ms for each in tries}
    times = [at_ms for at_ms in last.values() if at_ms is not None]
    if not times:
        return RETRY_AFTER_S
    return max(RETRY_AFTER_S, min(math.ceil((min(times) - now_ms) / 1000), _MOST_RETRY_AFTER_S))
