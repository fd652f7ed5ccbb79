"""Where a result goes: to the request's `reply_to`, else to `fleet.results`. What none can be made of: `fleet.dead`."""

import logging
import time
from typing import Final

from . import addresses, topology
from .broker import Broker
from .deliveries import Delivery
from .errors import Unroutable
from .messages import BODY_LIMIT_BYTES, Attempt, DeadLetter, ErrorCode, Failure, Result, Try, encode
from .methods import PUBLIC_READS

log = logging.getLogger(__name__)

NO_EXCHANGE: Final = "none"


def now_ms() -> int:
    """The wall clock in Unix milliseconds, as messages carry it."""
    return time.time_ns() // 1_000_000


def failure(attempt: Attempt, code: ErrorCode, message: str, *tries: Try) -> Result:
    """The error result of a request: what is wrong, and all attempts so far with `tries` behind them."""
    return Result(
        id=attempt.request.id,
        ok=False,
        method=attempt.request.method,
        exchange=attempt.request.exchanges[0] if attempt.results > 1 else None,
        error=Failure(code, message),
        attempts=[*attempt.tries, *tries],
        received_ms=attempt.received_ms,
        completed_ms=now_ms(),
        results=attempt.results,
    )


def results_key(result: Result) -> str:
    """The key of a result in `fleet.results`: ``<exchange>.<method>.<ok or error>``."""
    method = result.method if result.method in PUBLIC_READS else "invalid"
    return f"{result.exchange or NO_EXCHANGE}.{method}.{'ok' if result.ok else 'error'}"


async def publish(broker: Broker, attempt: Attempt, result: Result, body: bytes | None = None) -> None:
    """Publishes the result of a request and waits for the confirm.

    Args:
        broker: where.
        attempt: the request, for where its answer goes and in which encoding.
        result: the answer.
        body: the result as already encoded.

    A `reply_to` that no longer exists (the client left), or that is no address, does not lose the result: it goes to
    `fleet.results`.

    Raises:
        BrokerLost, Refused: the result is not safe; the caller must not settle what it answers.
    """
    content_type = attempt.content_type
    body = encode(result, content_type) if body is None else body
    correlation_id = attempt.correlation_id or result.id
    if attempt.reply_to and not addresses.refusal(attempt.reply_to):
        try:
            await broker.publish(body, attempt.reply_to, content_type=content_type, correlation_id=correlation_id)
        except Unroutable:
            log.warning("reply_to_is_gone", extra={"request_id": result.id, "reply_to": attempt.reply_to})
        else:
            return
    await broker.publish(
        body,
        results_key(result),
        exchange=topology.RESULTS,
        content_type=content_type,
        correlation_id=correlation_id,
    )


async def bury(
    broker: Broker, delivery: Delivery, reason: ErrorCode, message: str, attempt: Attempt | None = None
) -> None:
    """Puts a message that no consumer can use into `fleet.dead`, and waits for the confirm; the caller settles it.

    Args:
        broker: where.
        delivery: the message.
        reason: the code of what is wrong.
        message: the same in words.
        attempt: what it says, where it can be read.

    Raises:
        BrokerLost, Refused: it is not safe; the caller must not settle it.
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
