"""Reads what producers publish: a body becomes an `Attempt` with all defaults filled in, or an error."""

import datetime
import hashlib
import math
import os
import uuid
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from pamqp.commands import Basic

from schemas import addresses, bars, http_calls, methods, times
from schemas.encodings import EXACT_BELOW, absent, decode_request, filled, is_json, rounded, whole
from schemas.errors import InvalidMessage
from schemas.kinds import kind
from schemas.messages import BODY_LIMIT_BYTES, JSON, MSGPACK, SHORT_LIMIT_BYTES, Attempt, ErrorCode, Http, Request

from . import slips, unreadable

# ccxt's deepest argument is a table, `params`, with lists in it. Encoding a much deeper one could exhaust the stack.
_DEPTH_LIMIT: Final = 8
_TEXT_LIMIT: Final = 500
# What MessagePack has beside JSON, and what to send instead.
_NOT_TAKEN: Final[Mapping[type, str]] = {
    bytes: "bytes (bin): pack texts as str",
    datetime.datetime: "a timestamp of MessagePack: send Unix milliseconds, as a whole number",
    msgspec.msgpack.Ext: "an extension type of MessagePack: send text, a number, a list or a map",
}


def envelope(properties: Basic.Properties, body: bytes, now_ms: int) -> Attempt:
    """What a message's properties tell of a request: where its result goes, and in which encoding."""
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


def read(envelope: Attempt, body: bytes, timeout_s: float, content_encoding: str = "") -> Attempt:
    """Reads a request. Its arguments lose what is null, and whole numbers written as floats become whole numbers.

    Args:
        envelope: as `envelope` made it.
        body: as published.
        timeout_s: the deadline, from now, of requests that name none.
        content_encoding: as the message has it.

    Raises:
        InvalidMessage: with a stable code and what to change.
    """
    try:
        request = _decode(envelope.content_type, content_encoding, body)
    except InvalidMessage as error:
        # A message of the fleet's own is routed here by mistake. So would be the result of it, and the result of that.
        if of_ours := kind(envelope.content_type, body):
            text = f"{of_ours} of the fleet, not a request: something publishes it to the exchange of requests"
            raise InvalidMessage(ErrorCode.UNREADABLE, text) from error
        raise
    if not is_json(envelope.content_type, body) and (at := rounded(body)):
        code = ErrorCode.INVALID_ARGUMENTS if at[0] == "args" else ErrorCode.INVALID_REQUEST
        text = f"{at[-1]} is a float of 32 bits, which has too few digits for it: send an integer, or a double"
        raise InvalidMessage(code, text)
    if request.http is not None:
        request = _http(request, request.http)
    elif not request.method:
        text = "Object missing required field `method` - at `$.method`; or `http`, for an HTTP call"
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, text)
    now_ms = envelope.received_ms
    deadline_ms = now_ms + int(timeout_s * 1000) if request.deadline_ms is None else request.deadline_ms
    # The id becomes the result's correlation id where the request has none.
    if len(request.id.encode()) > SHORT_LIMIT_BYTES:
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, f"id may have at most {SHORT_LIMIT_BYTES} bytes in UTF-8")
    return replace(
        envelope,
        request=replace(
            request,
            id=request.id or envelope.request.id or uuid.uuid4().hex,
            deadline_ms=deadline_ms,
            args={name: _plain(name, filled(name, value), _DEPTH_LIMIT) for name, value in _given(request.args)},
        ),
    )


def named(envelope: Attempt, body: bytes) -> Attempt:
    """A request that `read` refused, with its id and its method where they can be read."""
    id_, method = unreadable.named(envelope.content_type, body)
    return replace(envelope, request=replace(envelope.request, id=id_ or envelope.request.id, method=method))


def check(attempt: Attempt, allowed: Collection[str]) -> None:
    """Refuses a request that no lane should get.

    Args:
        attempt: the request.
        allowed: the only methods that are run; empty allows all that the fleet knows.

    Raises:
        InvalidMessage: the reply address is not usable, the method is not a read or not allowed, no answer to another
            request can do, or the deadline has passed or is no Unix time in milliseconds.
    """
    if reason := addresses.refusal(attempt.reply_to):
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, reason)
    method = attempt.request.method
    refusal = methods.refusal(method, account=attempt.request.account is not None)
    if refusal and attempt.request.http is None:
        raise InvalidMessage(ErrorCode.METHOD_NOT_ALLOWED, refusal + slips.method(method))
    if allowed and method not in allowed:
        text = f"this fleet does not run {method!r}; it runs {', '.join(sorted(allowed))}"
        raise InvalidMessage(ErrorCode.METHOD_NOT_ALLOWED, text)
    if alone := _alone(attempt.request):
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, alone)
    deadline_ms, now_ms = attempt.deadline_ms, attempt.received_ms
    if reason := times.wrong_unit(deadline_ms):
        code = ErrorCode.INVALID_REQUEST if deadline_ms > now_ms else ErrorCode.DEADLINE_EXCEEDED
        raise InvalidMessage(code, f"deadline_ms {deadline_ms} {reason}")
    if deadline_ms <= now_ms:
        raise InvalidMessage(
            ErrorCode.DEADLINE_EXCEEDED, f"deadline_ms passed {now_ms - deadline_ms} ms before the request came"
        )


def _http(request: Request, call: Http) -> Request:
    """A request for an HTTP call, with what stands for its method; raises InvalidMessage if it is not taken."""
    if request.method or request.args or request.account:
        text = "http stands alone: leave method, args and account out, or http"
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, text)
    if not request.exchanges:
        raise InvalidMessage(ErrorCode.INVALID_REQUEST, "exchanges: name the exchange that the URL in http belongs to")
    if reason := http_calls.refusal(call):
        raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, reason)
    return replace(request, method=methods.HTTP)


def _alone(request: Request) -> str | None:
    """Why no answer to another request can do for this one, although it says how old one may be; None if one can."""
    if request.max_age_ms is not None and request.account is not None:
        return "max_age_ms: what an account reads is not shared; leave it out, or account"
    if request.max_age_ms != bars.BAR:
        return None
    return bars.refusal("" if request.http else request.method, request.args)


def _given(table: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """The entries of a table that say something: null means the default, as if the entry were left out."""
    return [(key, value) for key, value in table.items() if not absent(value)]


def _plain(name: str, value: Any, levels: int) -> Any:
    """An argument's value in the form that workers get; raises InvalidMessage where there is none."""
    value = whole(value)
    if isinstance(value, float) and not abs(value) < EXACT_BELOW:
        text = "is no number" if not math.isfinite(value) else "holds a float beyond 2^53, which may have lost digits"
        raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, f"{name} {text}: {value}")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, f"{name} holds a number beyond 64 bits")
    for unwanted, why in _NOT_TAKEN.items():
        if isinstance(value, unwanted):
            raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, f"{name} holds {why}")
    if not isinstance(value, (dict, list)):
        return value
    if not levels:
        raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, f"{name} is nested deeper than {_DEPTH_LIMIT} levels")
    if isinstance(value, list):
        return [_plain(name, item, levels - 1) for item in value]  # pyright: ignore[reportUnknownVariableType]
    table: dict[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]
    if not all(isinstance(key, str) for key in table):
        raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, f"{name} has keys that are no text")
    return {key: _plain(name, item, levels - 1) for key, item in _given(table)}


def _decode(content_type: str, content_encoding: str, body: bytes) -> Request:
    if len(body) > BODY_LIMIT_BYTES:
        raise InvalidMessage(
            ErrorCode.TOO_LARGE, f"the body has {len(body)} bytes; at most {BODY_LIMIT_BYTES} are taken"
        )
    try:
        return decode_request(content_type, body)
    except msgspec.DecodeError as error:
        of_field = isinstance(error, msgspec.ValidationError)
        # Arbitrary bytes are often a valid MessagePack integer: that is not a message with a wrong type.
        if of_field and not ("Expected `object`, got" in str(error) and " at `" not in str(error)):
            text = str(error)[:_TEXT_LIMIT]  # it may name a field of any length
            raise InvalidMessage(ErrorCode.INVALID_REQUEST, text + slips.field(str(error))) from error
        why = unreadable.what(content_type, content_encoding, body) or error
        raise InvalidMessage(ErrorCode.UNREADABLE, f"not a request in JSON or MessagePack: {why}") from error
