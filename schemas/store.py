"""Redis or Valkey: how all of the fleet connects to it."""

from typing import Final

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

# All that is raised while Redis is away.
AWAY: Final = (redis.exceptions.RedisError, OSError)


def connect(url: str, *, timeout_s: float) -> redis.asyncio.Redis:
    """A client that gives up in time, and never repeats a command by itself.

    A reservation of budget repeated after a lost answer would be charged twice.
    """
    # A few connections and a queue before them: a thousand attempts that start together would otherwise open a
    # thousand, and none of them in time.
    pool = redis.asyncio.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
        url,
        max_connections=16,
        timeout=4 * timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
    return redis.asyncio.Redis.from_pool(pool)
