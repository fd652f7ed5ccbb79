"""Reads what producers publish: a body becomes an `Attempt` with all defaults filled in, or an error."""

import uuid
from typing import Final

import msgspec
from msgspec.structs import replace
from pamqp.commands import Basic

from schemas import methods
from schemas.errors import InvalidMessage
from schemas.messages import BODY_LIMIT_BYTES, JSON, MSGPACK, Attempt, ErrorCode, Request, decode_request, is_json

# A deadline below this is no Unix time in milliseconds (it would lie in 1973), most likely a duration.
_EARLIEST_MS: Final = 100_000_000_000


def envelope(properties: Basic.Properties, body: bytes, now_ms: int) -> Attempt:
    """What can be said of a request from its properties alone: where its answer goes, and in which encoding."""
    content_type = properties.content_type or ""
    return Attempt(
        request=Request(method="unread", id=properties.message_id or "", deadline_ms=now_ms),
        lane="",
        number=0,
        received_ms=now_ms,
        reply_to=properties.reply_to or "",
        correlation_id=properties.correlation_id or "",
        content_type=JSON if is_json(content_type, body) else MSGPACK,
    )


def read(envelope: Attempt, body: bytes, timeout_s: float) -> Attempt:
    """Reads and checks a request.

    Args:
        envelope: what its properties say.
        body: as published.
        timeout_s: the deadline, from now, of requests that name none.

    Raises:
        InvalidMessage: with a stable code and what to change.
    """
    if len(body) > BODY_LIMIT_BYTES:
        raise InvalidMessage(
            ErrorCode.TOO_LARGE, f"the body has {len(body)} bytes; at most {BODY_LIMIT_BYTES} are taken"
        )
    request = _decode(envelope.content_type, body)
    now_ms = envelope.received_ms
    deadline_ms = now_ms + int(timeout_s * 1000) if request.deadline_ms is None else request.deadline_ms
    request = replace(request, id=request.id or envelope.request.id or uuid.uuid4().hex, deadline_ms=deadline_ms)
    return replace(envelope, request=request)


def check(attempt: Attempt) -> None:
    """Refuses what no lane should be asked.

    Raises:
        InvalidMessage: the method is not a read, or the deadline has passed.
    """
    if refusal := methods.refusal(attempt.request.method):
        raise InvalidMessage(ErrorCode.METHOD_NOT_ALLOWED, refusal)
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


def _decode(content_type: str, body: bytes) -> Request:
    try:
        return decode_request(content_type, body)
    except msgspec.ValidationError as error:
        if "Expected `object`, got" in str(error) and " at `" not in str(error):
            # Arbitrary bytes are often a valid MessagePack integer: that is not a message with a wrong type.
            raise InvalidMessage(ErrorCode.UNREADABLE, f"not a request in JSON or MessagePack: {error}") from error
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(ErrorCode.UNREADABLE, f"not a request in JSON or MessagePack: {error}") from error
