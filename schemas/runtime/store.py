"""Redis or Valkey: how the fleet connects to it, and what it means that it is away.

It may be one server, one with replicas and Sentinels (`primary`), or a Cluster (`shards`): the URL says which.

Redis counts as away for a command that got no usable answer: the connection failed, the time ran out, or what came back
is an error reply or not of the expected form. The caller treats all of these alike, as it does not know whether Redis
ran the command. So all of them are `AWAY`. Each is counted by kind and logged with its text (`count_loss`), and the
fleet goes on without Redis meanwhile. An error reply that means a fault of our own has the kind `ERR`.
"""

import asyncio
import contextlib
import functools
import logging
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import redis.asyncio
import redis.exceptions
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .. import redis_urls
from ..errors import ConfigError
from ..urls import place
from . import permanent
from .clock import clock_s
from .primary import Sentinels, ToPrimary, UnknownService
from .shards import Shards
from .tasks import keeping_cancellation

if TYPE_CHECKING:
    from prometheus_client import Counter

log = logging.getLogger(__name__)
T = TypeVar("T")

# What is raised where there is no usable answer.
AWAY: Final = (redis.exceptions.RedisError, OSError)
# The same error is logged again after so long.
SAID_AGAIN_S: Final = 60.0
KINDS_KEPT: Final = 100

# Error replies begin with a code in capitals (the RESP specification, simple errors); redis-py takes some of them off
# and has classes for those.
_CODE: Final = re.compile(r"-?([A-Z]{2,20})\b")
_said_s: dict[tuple[str, str], float] = {}


def connect(url: str, *, timeout_s: float) -> redis.asyncio.Redis:
    """A client that gives up after a time-out, and never repeats a command by itself.

    A reservation that is repeated after its answer was lost would be charged twice.
    """
    servers = redis_urls.read(url)
    if servers.kind == "sentinel":
        sentinels = Sentinels([_Client(_pool(each, timeout_s)) for each in servers.urls], servers.service)
        pool = _pool(servers.data_url, timeout_s)
        pool.connection_class = type("ToPrimary", (ToPrimary, pool.connection_class), {"sentinels": sentinels})
        return _Client(pool, sentinels)
    if servers.kind == "cluster":
        seeds = [redis_urls.host_and_port(each) for each in servers.urls]
        return Shards(seeds, lambda at: _Client(_pool(servers.data_url, timeout_s, host=at[0], port=at[1])))
    return _Client(_pool(servers.data_url, timeout_s))


def _pool(url: str, timeout_s: float, **place: Any) -> redis.asyncio.BlockingConnectionPool:
    # A few connections and a queue for them: a thousand attempts that start together would otherwise open a thousand
    # connections, none of them in time.
    pool = _Pool.from_url(  # pyright: ignore[reportUnknownMemberType]
        url,
        max_connections=16,
        timeout=4 * timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        protocol=3,  # as redis-py from 8.0 on: HELLO says at once whether Redis takes us
    )
    pool.connection_kwargs |= place
    pool.connection_class = type("Connection", (_Lost, pool.connection_class), {})
    return pool


class _Pool(redis.asyncio.BlockingConnectionPool):
    """Hands out a connection that ended at rest, too: its user sees the loss, as another server may answer by now.

    redis-py puts a new one in its place before anyone hears of it; only 8.1 does not.
    """

    async def get_connection(self, *words: Any, **named: Any) -> AbstractConnection:
        pool: Any = super()
        try:
            connection: AbstractConnection = await pool.get_connection(*words, **named)
        except BaseException:
            # A condition of Python 3.11 forgets that it woke somebody who was cancelled just then: it wakes another.
            async with self._condition:
                self._condition.notify()
            raise
        return connection

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        connect: Any = connection.connect
        await connect()


class _Pipeline(Pipeline):
    """Leaves an error's text as the server said it: redis-py puts the command before it, and up to 7.0 in its place."""

    def annotate_exception(self, exception: Exception, number: int, command: Iterable[object]) -> None:
        pass


class _Client(redis.asyncio.Redis):
    """Closes what it needs, too."""

    def __init__(self, pool: redis.asyncio.ConnectionPool, sentinels: Sentinels | None = None) -> None:
        super().__init__(connection_pool=pool)
        self._sentinels = sentinels

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> _Pipeline:
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        # A server that hangs takes no goodbye, and the end of whoever leaves must not fail for that.
        with contextlib.suppress(*AWAY):
            await super().aclose(close_connection_pool=True)
        if self._sentinels is not None:
            await self._sentinels.close()


class _Lost(AbstractConnection):
    """A connection that may be gone just before something is written to it, or lead to the wrong server.

    The loop of asyncio drops what is written then. uvloop raises `RuntimeError`, which redis-py 8.1 lets through. A
    server that says READONLY is no primary any more: the next connection may lead to one that is.
    """

    _demoted = False

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,
    ) -> None:
        if self._demoted:
            self._demoted = False
            await self.disconnect()
        try:
            with keeping_cancellation():
                await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise redis.exceptions.ConnectionError(f"connection lost: {error}") from error
        except asyncio.CancelledError:
            await self.disconnect(nowait=True)  # nobody will read the answer
            raise

    async def read_response(self, *args: Any, **options: Any) -> Any:
        read: Any = super().read_response
        try:
            return await read(*args, **options)
        except redis.exceptions.ReadOnlyError:
            self._demoted = True
            raise


async def nodes(client: redis.asyncio.Redis) -> list[tuple[str, Any]]:
    """The servers behind a client, each with a name for people; the one alone has none.

    Raises:
        RedisError, OSError: a Cluster does not say which they are.
    """
    if isinstance(client, Shards):
        return [(f"{host}:{port}", node) for (host, port), node in await client.primaries()]
    return [("", client)]


async def time_us(client: redis.asyncio.Redis, key: str) -> int:
    """What the clock of the server shows that has a key, microseconds.

    Raises:
        RedisError, OSError: there is no usable answer.
    """
    node: Any = await client.primary_of(key) if isinstance(client, Shards) else client
    return shaped(await node.time(), lambda said: int(said[0]) * 1_000_000 + int(said[1]))


async def check_access(client: redis.asyncio.Redis, url: str, *, timeout_s: float) -> None:
    """Checks that Redis accepts us. A Redis that is away may be back soon, and is no reason not to start.

    Raises:
        ConfigError: it refuses us, and no retry would change that (`permanent`).
    """
    try:
        await client.ping()  # pyright: ignore[reportGeneralTypeIssues, reportUnknownMemberType]
        if redis_urls.read(url).kind == "one":
            await _check_mode(client, url)
    except AWAY as error:
        first = redis_urls.read(url).urls[0]
        if why := await permanent.why_cut(error, first, timeout_s, _why):
            raise ConfigError(f"no connection to Redis at {place(url)}: {why}") from error


async def _check_mode(client: redis.asyncio.Redis, url: str) -> None:
    """Checks that a server is neither a Sentinel nor one of a Cluster, whose URLs are others."""
    try:
        info: dict[str, Any] = await client.info("server")
    except redis.exceptions.ResponseError:  # our user may not ask
        return
    schemes = {"cluster": "redis+cluster://", "sentinel": "redis+sentinel://"}
    if scheme := schemes.get(str(info.get("redis_mode"))):
        raise ConfigError(f"no connection to Redis at {place(url)}: it is a {info['redis_mode']}: {scheme}")


def _why(error: BaseException, _: str) -> str:
    """What to change after an error of Redis that no retry helps against, as `permanent.why` asks."""
    if isinstance(error, redis.exceptions.AuthenticationError) or str(error).startswith("WRONGPASS"):
        return "it refuses our user or password"
    if isinstance(error, UnknownService):
        return str(error)
    if isinstance(error, redis.exceptions.ResponseError):
        said = str(error)
        if "DB index" in said or said.startswith("SELECT is not allowed"):
            return f"{said}: the URL names a database that it does not have"
        if "cluster support disabled" in said:
            return "it is no cluster: redis://"
        if said.lower().startswith("unknown command") and "sentinel" in said.lower():
            return "it is no Sentinel: redis://"
    if isinstance(error, redis.exceptions.InvalidResponse):
        return "what listens there does not speak Redis's protocol"
    return ""


@functools.cache
def losses() -> "Counter":
    """The metric that counts commands without a usable answer."""
    from prometheus_client import Counter  # noqa: PLC0415 (only the services have it installed)

    return Counter("fleet_redis_errors_total", "Redis commands without a usable answer.", ["kind"])


def count_loss(error: BaseException, what: str) -> None:
    """Counts a command that got no usable answer, and logs it; the same error at most once a minute.

    Args:
        error: one of `AWAY`.
        what: what the command was for.
    """
    kind = kind_of(error)
    losses().labels(kind).inc()
    now_s = clock_s()
    if now_s - _said_s.get((what, kind), -SAID_AGAIN_S) < SAID_AGAIN_S:
        return
    if len(_said_s) >= KINDS_KEPT:
        _said_s.clear()
    _said_s[what, kind] = now_s
    # redis-py's `repr` does not have the text.
    log.warning("redis_error", extra={"what": what, "kind": kind, "error": f"{type(error).__name__}: {error}"})


def kind_of(error: BaseException) -> str:
    """The code of an error reply, where redis-py has no class for it; otherwise the class's name."""
    if type(error) is redis.exceptions.ResponseError:
        code = _CODE.match(str(error))
        return code[1] if code else "ERR"
    return type(error).__name__


def shaped(answer: Any, read: Callable[[Any], T]) -> T:
    """An answer of Redis as `read` reads it.

    Raises:
        InvalidResponse: it has another form than `read` expects.
    """
    try:
        return read(answer)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise redis.exceptions.InvalidResponse(f"not an answer to this command: {answer!r:.200}") from error
