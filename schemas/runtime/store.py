"""Redis or Valkey: how all of the fleet connects to it, and what it means that it is away.

Redis is away for whoever asked and got no answer: the connection failed, the time ran out, or what came back is an
error reply or of a form that no answer has. Which error makes no difference to the caller: after none of them does it
know what Redis would have said. So all of them are `AWAY`, each is counted by kind and logged with its text (`lost`),
and the fleet goes on without Redis for as long. An error reply that speaks of a fault of our own has the kind `ERR`.
"""

import functools
import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..errors import ConfigError
from . import permanent

if TYPE_CHECKING:
    from prometheus_client import Counter

log = logging.getLogger(__name__)
T = TypeVar("T")

# All that is raised where there is no answer.
AWAY: Final = (redis.exceptions.RedisError, OSError)
# The same text is logged again after so long.
SAID_AGAIN_S: Final = 60.0
KINDS_KEPT: Final = 100

# Error replies begin with a code in capitals (the RESP specification, simple errors); redis-py takes some of them off
# and has classes for those.
_CODE: Final = re.compile(r"-?([A-Z]{2,20})\b")
_said_s: dict[tuple[str, str], float] = {}


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


@functools.cache
def losses() -> "Counter":
    """The metric that counts them; where the services are installed."""
    from prometheus_client import Counter  # noqa: PLC0415 (the contract is installed without it)

    return Counter("fleet_redis_losses_total", "Questions that Redis did not answer.", ["kind"])


def lost(error: BaseException, what: str) -> None:
    """Counts a question that got no answer, and logs it; the same again once a minute.

    Args:
        error: one of `AWAY`.
        what: what Redis was asked for.
    """
    kind = kind_of(error)
    losses().labels(kind).inc()
    now_s = time.monotonic()
    if now_s - _said_s.get((what, kind), -SAID_AGAIN_S) < SAID_AGAIN_S:
        return
    if len(_said_s) >= KINDS_KEPT:
        _said_s.clear()
    _said_s[what, kind] = now_s
    # Its text: redis-py's `repr` has none.
    log.warning("redis_lost", extra={"what": what, "kind": kind, "error": f"{type(error).__name__}: {error}"})


def kind_of(error: BaseException) -> str:
    """The code of an error reply as Redis names it, where redis-py has no class for it; else the class's name."""
    if type(error) is redis.exceptions.ResponseError:
        # In a pipeline redis-py puts the command before it.
        code = _CODE.match(str(error).rpartition("caused error: ")[2].lstrip("(\"'"))
        return code[1] if code else "ERR"
    return type(error).__name__


def shaped(answer: Any, read: Callable[[Any], T]) -> T:
    """What `read` makes of an answer.

    Raises:
        InvalidResponse: it has not the form that `read` expects, so that it is none.
    """
    try:
        return read(answer)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise redis.exceptions.InvalidResponse(f"not an answer to this question: {answer!r:.200}") from error
