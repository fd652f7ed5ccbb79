"""Marks in Redis of the requests that were answered, so that of several attempts at one only the first gives a result.

Best effort: without Redis, whoever may answer anyway does. A mark names who answered, because who crashes between the
mark and the result's publication gets its message again and must still be allowed to publish.
"""

import logging
from typing import Final

import redis.asyncio
import redis.exceptions

from .messages import Attempt

log = logging.getLogger(__name__)

# A mark outlives the request's deadline by this time, in which messages may still come again.
KEPT_MS: Final = 60_000
AWAY: Final = (redis.exceptions.RedisError, OSError)


def _key(attempt: Attempt) -> str:
    request = attempt.request
    part = f":{request.exchanges[0]}" if attempt.results > 1 else ""
    return f"fleet:answered:{attempt.received_ms}:{request.id}{part}"


async def by_another(client: redis.asyncio.Redis, attempt: Attempt, who: str) -> bool | None:
    """Whether somebody else has answered this request already; None where nobody knows, because Redis is away."""
    try:
        answered = await client.get(_key(attempt))
    except AWAY as error:
        log.warning("mark_unknown", extra={"request_id": attempt.request.id, "error": repr(error)})
        return None
    return answered is not None and answered != who.encode()


async def claim(client: redis.asyncio.Redis, attempt: Attempt, who: str, now_ms: int) -> bool | None:
    """Claims the right to answer a request.

    Args:
        client: Redis.
        attempt: the request.
        who: names the claimant the same when its message comes again.
        now_ms: the wall clock.

    Returns:
        Whether the result may be published; None where nobody knows, because Redis is away.
    """
    kept_ms = max(0, attempt.deadline_ms - now_ms) + KEPT_MS
    try:
        before = await client.set(_key(attempt), who, nx=True, get=True, px=kept_ms)
    except AWAY as error:
        log.warning("mark_unknown", extra={"request_id": attempt.request.id, "error": repr(error)})
        return None
    return before is None or before == who.encode()
