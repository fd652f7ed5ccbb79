"""What a request for an HTTP call gets: the exchange's answer to the letter, or the error that stands for it."""

import base64
import zlib
from collections.abc import Mapping
from typing import Any, Final

from schemas.messages import ErrorCode, Outcome

from .bounds import MIB, Crowded
from .call import Call
from .errors import NoBudget, Verdict
from .rows import TooLarge

# A longer body is compressed: in JSON every quotation mark of it would have a backslash, and a result has 15 MiB.
PLAIN_BYTES: Final = MIB
# Headers of the connection, of a body that is decompressed by now, and of somebody's session.
_DROPPED: Final = frozenset(
    """
    connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade
    content-encoding content-length set-cookie alt-svc nel report-to strict-transport-security
    content-security-policy
    """.split()
)
# The exchange understood the call and says what is wrong with it, or that it has no such thing.
_ANSWERS: Final = frozenset(
    {
        ErrorCode.INVALID_ARGUMENTS,
        ErrorCode.BAD_SYMBOL,
        ErrorCode.NOT_SUPPORTED,
        ErrorCode.AUTHENTICATION,
        ErrorCode.CLOCK,
        ErrorCode.EXCHANGE_ERROR,
    }
)


def is_answer(error: BaseException, verdict: Verdict, call: Call) -> bool:
    """Whether what ccxt raised over an answer is the caller's to read. What speaks of the exchange or of limits is not.

    Args:
        error: what was raised.
        verdict: what it means.
        call: the attempt's.
    """
    if isinstance(error, (NoBudget, Crowded, TooLarge, TimeoutError)) or call.holding.kept is None:
        return False
    if call.heard.status is None or call.heard.pause is not None:
        return False
    if verdict.outcome is Outcome.REJECTED or verdict.code in _ANSWERS:
        return True
    return verdict.code is ErrorCode.BAD_RESPONSE and not verdict.of_connection


def answer(call: Call) -> dict[str, Any]:
    """The exchange's last answer, as `docs/messages.md` has it."""
    kept = call.holding.kept or b""
    return {"status": call.heard.status, "headers": _headers(call.heard.headers), **_body(kept)}


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower() not in _DROPPED}


def _body(body: bytes) -> dict[str, str]:
    if len(body) <= PLAIN_BYTES:
        try:
            return {"body": body.decode()}
        except UnicodeDecodeError:
            pass
    return {"body_gzip": base64.b64encode(zlib.compress(body, 1, wbits=31)).decode()}
