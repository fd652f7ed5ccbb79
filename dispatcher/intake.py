"""Reads what producers publish: a body becomes an `Attempt` with all defaults filled in, or an error."""

import hashlib
import os
import uuid
from collections.abc import Collection
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from pamqp.commands import Basic

from schemas import addresses, methods
from schemas.errors import InvalidMessage
from schemas.kinds import kind
from schemas.messages import (
    BODY_LIMIT_BYTES,
    JSON,
    LATEST_MS,
    MSGPACK,
    SHORT_LIMIT_BYTES,
    Attempt,
    ErrorCode,
    Request,
    decode_request,
    is_json,
)

# A deadline below this is no Unix time in milliseconds (it would lie in 1973), most likely a duration.
_EARLIEST_MS: Final = 100_000_000_000
# ccxt takes a table `params` and lists in it. No argument is nested deeper, and encoding one could exhaust a stack.
_DEPTH_LIMIT: Final = 8


def envelope(properties: Basic.Properties, body: bytes, now_ms: int) -> Attempt:
    """A request as far as its properties tell: where its answer goes, and in which encoding."""
    content_type = properties.content_type or ""
    return Attempt(
        request=Request(method="", id=properties.message_id or "", deadline_ms=now_ms),
        lane="",
        number=0,
        received_ms=now_ms,
        reply_to=properties.reply_to or "",
        correlation_id=properties.correlation_id or "",
        content_type=JSON if is_json(content_type, body) else MSGPACK,
        digest=hashlib.blake2b(body[:BODY_LIMIT_BYTES], digest_size=12).hexdigest(),
        taken=os.urandom(8).hex(),
    )


def read(envelope: Attempt, body: bytes, timeout_s: float) -> Attempt:
    """Reads and checks a request.

    Args:
        envelope: as `envelope` made it.
        body: as published.
        timeout_s: the deadline, from now, of requests that name none.

    Raises:
        InvalidMessage: with a stable code and what to change.
    """
    try:
        request = _decode(envelope.content_type, body)
    except InvalidMessage as error:
        # The answer to one of the fleet's own messages would come back too, and so on.
        if of_ours := kind(envelope.content_type, body):
            text = f"{of_ours} of the fleet, not a request: something publishes it to the exchange of requests"
            raise InvalidMessage(ErrorCode.UNREADABLE, text) from error
        raise
    now_ms = envelope.received_ms
    deadline_ms = now_ms + int(timeout_s * 1000) if request.deadline_ms is None else request.deadline_ms
    # The id may become the answer's correlation id.
    if len(request.id.encode()) > SHORT_LIMIT_BYTES:
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, f"id may have at most {SHORT_LIMIT_BYTES} bytes in UTF-8")
    request = replace(request, id=request.id or envelope.request.id or uuid.uuid4().hex, deadline_ms=deadline_ms)
    return replace(envelope, request=request)


def check(attempt: Attempt, allowed: Collection[str]) -> None:
    """Refuses a request that no lane should get.

    Args:
        attempt: the request.
        allowed: the only methods that are run; empty allows all public reads.

    Raises:
        InvalidMessage: the reply address is not usable, the method is not a read or not allowed, the deadline has
            passed or is no Unix time in milliseconds, or an argument can't be encoded.
    """
    if reason := addresses.refusal(attempt.reply_to):
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, reason)
    if refusal := methods.refusal(attempt.request.method, account=attempt.request.account is not None):
        raise InvalidMessage(ErrorCode.METHOD_NOT_ALLOWED, refusal)
    if allowed and attempt.request.method not in allowed:
        text = f"this fleet does not run {attempt.request.method!r}; it runs {', '.join(sorted(allowed))}"
        raise InvalidMessage(ErrorCode.METHOD_NOT_ALLOWED, text)
    deadline_ms, now_ms = attempt.deadline_ms, attempt.received_ms
    if deadline_ms < _EARLIEST_MS:
        raise InvalidMessage(
            ErrorCode.DEADLINE_EXCEEDED,
            f"deadline_ms {deadline_ms} is no Unix time in milliseconds; for a duration add it to the time now",
        )
    if deadline_ms <= now_ms:
        raise InvalidMessage(
            ErrorCode.DEADLINE_EXCEEDED, f"deadline_ms passed {now_ms - deadline_ms} ms before the request came"
        )
    if deadline_ms > LATEST_MS:
        raise InvalidMessage(
            ErrorCode.INVALID_REQUEST, f"deadline_ms {deadline_ms} is no Unix time in milliseconds, but finer"
        )
    for name, value in attempt.request.args.items():
        _check_value(name, value, _DEPTH_LIMIT)


def _check_value(name: str, value: Any, levels: int) -> None:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, f"{name} holds a number beyond 64 bits")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):  # pyright: ignore[reportUnknownVariableType]
            raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, f"{name} has keys that are no text")
        value = list(value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        if not levels:
            raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, f"{name} is nested deeper than {_DEPTH_LIMIT} levels")
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            _check_value(name, item, levels - 1)


def _decode(content_type: str, body: bytes) -> Request:
    if len(body) > BODY_LIMIT_BYTES:
        raise InvalidMessage(
            ErrorCode.TOO_LARGE, f"the body has {len(body)} bytes; at most {BODY_LIMIT_BYTES} are taken"
        )
    try:
        return decode_request(content_type, body)
    except msgspec.ValidationError as error:
        if "Expected `object`, got" in str(error) and " at `" not in str(error):
            # Arbitrary bytes are often a valid MessagePack integer: that is not a message with a wrong type.
            raise InvalidMessage(ErrorCode.UNREADABLE, f"not a request in JSON or MessagePack: {error}") from error
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidMessage(ErrorCode.UNREADABLE, f"not a request in JSON or MessagePack: {error}") from error
