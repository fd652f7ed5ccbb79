"""Each process's ``/status`` in Redis, for people; it is written every two seconds, and soon after it has changed.

``fleet:processes`` is a sorted set of names, by when each last wrote (Unix seconds); ``fleet:status:<name>`` is the
status in JSON, which expires soon after the process wrote it last. Best effort: nothing in the fleet depends on it.
The command line reads it, as it reaches Redis and not the processes' HTTP ports.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import redis.asyncio
from msgspec import Struct

from ..status import AnyStatus, DispatcherStatus, WorkerStatus
from . import store

NAMES: Final = "fleet:processes"
EVERY_S: Final = 2.0
# A thousand lanes that open one by one are not a thousand writes.
LEAST_S: Final = 0.2
# A process that is busy for some seconds is still there.
KEPT_S: Final = 10
# How long a name may stay without its status: clocks of machines differ.
NAME_KEPT_S: Final = 3600


class Presence(Struct, frozen=True):
    """The processes whose status is in Redis."""

    dispatchers: list[DispatcherStatus]
    workers: list[WorkerStatus]


def key_of(name: str) -> str:
    """The key of a process's status."""
    return f"fleet:status:{name}"


async def announce(client: redis.asyncio.Redis, status: Callable[[], AnyStatus], changed: asyncio.Event) -> None:
    """Writes a process's status until cancelled, and then removes it.

    Args:
        client: Redis.
        status: how it is now.
        changed: set where it has changed in what people wait for.
    """
    try:
        while True:
            changed.clear()
            await _write(client, status())
            await asyncio.sleep(LEAST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S - LEAST_S):
                    await changed.wait()
    finally:
        await _leave(client, status().process.name)


async def _write(client: redis.asyncio.Redis, status: AnyStatus) -> None:
    any_client: Any = client
    name, now_s = status.process.name, int(time.time())
    try:
        async with any_client.pipeline(transaction=False) as all_at_once:
            all_at_once.set(key_of(name), msgspec.json.encode(status), ex=KEPT_S)
            all_at_once.zadd(NAMES, {name: now_s})
            all_at_once.zremrangebyscore(NAMES, 0, now_s - NAME_KEPT_S)
            all_at_once.expire(NAMES, NAME_KEPT_S)
            await all_at_once.execute()
    except store.AWAY as error:
        store.count_loss(error, "status")


async def _leave(client: redis.asyncio.Redis, name: str) -> None:
    any_client: Any = client
    try:
        await any_client.delete(key_of(name))
        await any_client.zrem(NAMES, name)
    except store.AWAY as error:
        store.count_loss(error, "status")


async def read(client: redis.asyncio.Redis) -> Presence:
    """The processes that are there. A status that this version can't read is left out.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    any_client: Any = client
    names: list[bytes] = await any_client.zrange(NAMES, 0, -1)
    bodies: list[bytes | None] = await any_client.mget(list(map(_key_as_read, names))) if names else []
    found = Presence([], [])
    for body in bodies:
        status = None if body is None else _decoded(body)
        if isinstance(status, DispatcherStatus):
            found.dispatchers.append(status)
        elif isinstance(status, WorkerStatus):
            found.workers.append(status)
    return found


def _key_as_read(name: bytes) -> str:
    return key_of(name.decode(errors="replace"))


def _decoded(body: bytes) -> DispatcherStatus | WorkerStatus | None:
    try:
        service = msgspec.json.decode(body, type=_OfAny).process.service
        if service == "workers":
            return msgspec.json.decode(body, type=WorkerStatus)
        return msgspec.json.decode(body, type=DispatcherStatus)
    except msgspec.DecodeError:
        return None


class _Of(Struct):
    service: str


class _OfAny(Struct):
    process: _Of
