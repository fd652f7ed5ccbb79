"""Makes results, ready for `outbox` to publish; and dead letters of messages that no result can be made of."""

import logging
import time
from typing import Any, Final

from msgspec import Struct

from .. import addresses, topology
from ..messages import BODY_LIMIT_BYTES, Attempt, DeadLetter, ErrorCode, Failure, Result, Try, encode
from ..methods import HTTP, PRIVATE_READS, PUBLIC_READS
from .broker import Broker
from .deliveries import Delivery

log = logging.getLogger(__name__)

NO_EXCHANGE: Final = "none"
_METHODS: Final = PUBLIC_READS | PRIVATE_READS | {HTTP}


def now_ms() -> int:
    """The wall clock in Unix milliseconds, as messages carry it."""
    return time.time_ns() // 1_000_000


def failure(attempt: Attempt, code: ErrorCode, message: str, *tries: Try) -> Result:
    """The error result of a request: what is wrong, and all attempts so far, with `tries` as the last ones."""
    request = attempt.request
    of_one = attempt.results > 1 or (request.exchanges_mode == "all" and len(request.exchanges) == 1)
    return Result(
        id=request.id,
        ok=False,
        method=request.method,
        exchange=request.exchanges[0] if of_one else None,
        error=Failure(code, message),
        attempts=[*attempt.tries, *tries],
        received_ms=attempt.received_ms,
        completed_ms=now_ms(),
        results=attempt.results,
    )


def shared(attempt: Attempt, exchange: str, lane: str, data: Any) -> Result:
    """The result of a request that takes the answer to another one."""
    return Result(
        id=attempt.request.id,
        ok=True,
        method=attempt.request.method,
        exchange=exchange,
        lane=lane,
        data=data,
        attempts=attempt.tries,
        received_ms=attempt.received_ms,
        completed_ms=now_ms(),
        results=attempt.results,
    )


def results_key(result: Result) -> str:
    """The key of a result in `fleet.results`: ``<exchange>.<method>.<ok or error>``."""
    method = result.method if result.method in _METHODS else "invalid"
    return f"{result.exchange or NO_EXCHANGE}.{method}.{'ok' if result.ok else 'error'}"


class Ready(Struct, frozen=True):
    """A result ready to be published; no more than this is kept of it until RabbitMQ has it.

    Args:
        request_id: of the request that it answers.
        reply_to: the queue that it goes to; empty means `fleet.results`.
        key: its key in `fleet.results`.
        body: the result, encoded.
        content_type: how.
        correlation_id: for the message's properties.
    """

    request_id: str
    reply_to: str
    key: str
    body: bytes
    content_type: str
    correlation_id: str


def ready(attempt: Attempt, result: Result, body: bytes | None = None) -> Ready:
    """The result of a request, ready to be published.

    Args:
        attempt: the request, for where its answer goes and in which encoding.
        result: the answer.
        body: the result as already encoded.

    A result whose `reply_to` is no valid address goes to `fleet.results`.
    """
    body = encode(result, attempt.content_type) if body is None else body
    correlation_id = attempt.correlation_id or result.id
    reply_to = "" if addresses.refusal(attempt.reply_to) else attempt.reply_to
    return Ready(result.id, reply_to, results_key(result), body, attempt.content_type, correlation_id)


async def bury(
    broker: Broker, delivery: Delivery, reason: ErrorCode, message: str, attempt: Attempt | None = None
) -> None:
    """Puts a message that can't be used into `fleet.dead`, and waits for the confirm; the caller settles it.

    Args:
        broker: publishes it.
        delivery: the message.
        reason: the code of what is wrong.
        message: the same in words.
        attempt: the attempt in it, where it can be read.

    Raises:
        BrokerLost, Refused: it may not be in `fleet.dead`; the caller must not settle it.
    """
    log.warning("dead_letter", extra={"queue": delivery.queue, "reason": reason, "why": message})
    properties = delivery.properties
    letter = DeadLetter(
        reason,
        message,
        delivery.queue,
        now_ms(),
        delivery.body[:BODY_LIMIT_BYTES],
        request_id=attempt.request.id if attempt else properties.message_id or "",
        attempts=attempt.number if attempt else 0,
        content_type=properties.content_type or "",
        reply_to=attempt.reply_to if attempt else properties.reply_to or "",
        correlation_id=attempt.correlation_id if attempt else properties.correlation_id or "",
    )
    await broker.publish(encode(letter), topology.DEAD)
