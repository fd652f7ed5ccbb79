"""Redis or Valkey: how all of the fleet connects to it."""

from typing import Final
from urllib.parse import urlsplit

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from . import permanent
from .errors import ConfigError

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


async def admitted(client: redis.asyncio.Redis, url: str, *, timeout_s: float) -> None:
    """Sees whether Redis takes us at all; one that is away may be back soon, and is no reason not to start.

    Raises:
        ConfigError: it does not, and no retry would change that (`permanent`).
    """
    try:
        await client.ping()  # pyright: ignore[reportGeneralTypeIssues, reportUnknownMemberType]
    except AWAY as error:
        if said := await permanent.why_cut(error, url, timeout_s):
            parts = urlsplit(url)
            place = parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
            raise ConfigError(f"no connection to Redis at {place}: {said}") from error
