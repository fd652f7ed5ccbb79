"""Makes a real Redis answer errors, or show another time, while it runs."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio as redis_client
import redis.exceptions

from deploy.servers import Redis
from schemas.runtime import store
from workers.budget.script import REDIS_CLOCK, Library

# Each answers all that write, or all that the fleet asks, with an error of its own, until it is undone.
ERRORS: Final = ("MISCONF", "BUSY", "NOREPLICAS", "NOPERM", "OOM", "READONLY", "NOAUTH", "WRONGTYPE", "unknown")
# In place of the machine's clock, which a test can't set: Redis's own, so much further.
_SET_CLOCK: Final = "local function clock() local t = redis.call('TIME') return t[1] * 1000000 + t[2] + {} end\n"
# What a clock that is set does to keys' ends: they come so much sooner, or later.
_MOVE_ENDS: Final = """
local cursor, by = '0', tonumber(ARGV[1])
repeat
  local found = redis.call('SCAN', cursor, 'COUNT', 1000)
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    local left = redis.call('PTTL', key)
    if left > 0 then
      redis.call('PEXPIRE', key, string.format('%d', left - by))
    end
  end
until cursor == '0'
"""


def losses(kind: str) -> float:
    """How many questions were lost in this process, by kind."""
    (family,) = store.losses().collect()
    return sum(one.value for one in family.samples if one.name.endswith("_total") and one.labels["kind"] == kind)


@asynccontextmanager
async def answering(server: Redis, error: str) -> AsyncGenerator[None]:
    """Redis answers with this error (one of `ERRORS`) for as long.

    Args:
        server: the real one.
        error: the error's code; `unknown` for answers of a form that no answer of ours has. `MASTERDOWN` is for reads.
    """
    client: Any = redis_client.from_url(server.url)
    async with client, _FAULTS[error](server, client):
        yield


async def set_clock(url: str, by_us: int, from_us: int = 0) -> None:
    """Sets Redis's clock, as the budgets read it, and the ends of its keys.

    Nothing can set one process's clock alone: LD_PRELOAD of libfaketime hangs this Redis, whose allocator asks for the
    time first, and the script reads TIME inside. So the function in Redis is replaced by one that adds this.

    Args:
        url: the real Redis.
        by_us: how far its clock is from the machine's now, microseconds.
        from_us: how far it was.
    """
    library = Library()
    text = library.text.replace(REDIS_CLOCK, _SET_CLOCK.format(by_us))
    async with redis_client.from_url(url) as client:
        both: Any = client.pipeline(transaction=True)
        both.eval(_MOVE_ENDS, 0, (by_us - from_us) // 1000)
        both.function_load(text, replace=True)
        await both.execute()


@asynccontextmanager
async def _setting(client: Any, name: str, value: object, undone: object) -> AsyncGenerator[None]:
    await client.config_set(name, value)
    try:
        yield
    finally:
        await client.config_set(name, undone)


@asynccontextmanager
async def _snapshot_fails(server: Redis, client: Any) -> AsyncGenerator[None]:
    """A snapshot can't be written: a folder has its name."""
    place = server.folder / "dump.rdb"
    place.mkdir()
    try:
        async with _setting(client, "save", "3600 1000000", ""):
            await client.bgsave()
            while (await client.info("persistence"))["rdb_last_bgsave_status"] == "ok":
                await asyncio.sleep(0.02)
            yield
    finally:
        place.rmdir()


@asynccontextmanager
async def _busy(server: Redis, client: Any) -> AsyncGenerator[None]:
    async with (
        redis_client.from_url(server.url, socket_timeout=None) as other,
        _setting(client, "busy-reply-threshold", 1, 5000),
    ):
        commands: Any = other
        running = asyncio.create_task(commands.eval("while true do end", 0))
        try:
            yield
        finally:
            await client.script_kill()
            with contextlib.suppress(redis.exceptions.ResponseError):
                await running


@asynccontextmanager
async def _no_replicas(_: Redis, client: Any) -> AsyncGenerator[None]:
    async with _setting(client, "min-replicas-to-write", 1, 0):
        yield


@asynccontextmanager
async def _not_permitted(_: Redis, client: Any) -> AsyncGenerator[None]:
    await client.execute_command("ACL", "SETUSER", "default", "-fcall", "-set", "-get", "-hmget")
    try:
        yield
    finally:
        await client.execute_command("ACL", "SETUSER", "default", "+@all")


@asynccontextmanager
async def _out_of_memory(_: Redis, client: Any) -> AsyncGenerator[None]:
    async with _setting(client, "maxmemory", 1, 0):
        yield


@asynccontextmanager
async def _replica(_: Redis, client: Any) -> AsyncGenerator[None]:
    await client.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        await client.replicaof("NO", "ONE")


@asynccontextmanager
async def _stale_replica(server: Redis, client: Any) -> AsyncGenerator[None]:
    async with _setting(client, "replica-serve-stale-data", "no", "yes"), _replica(server, client):
        yield


@asynccontextmanager
async def _other_password(_: Redis, client: Any) -> AsyncGenerator[None]:
    async with _setting(client, "requirepass", "another", ""):
        await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield


@asynccontextmanager
async def _other_type(_: Redis, client: Any) -> AsyncGenerator[None]:
    """Somebody writes where we do."""
    keys = [key async for key in client.scan_iter("fleet:*:members")]
    for key in keys:
        await client.rename(key, b"kept:" + key)
        await client.set(key, "theirs", ex=600)
    try:
        yield
    finally:
        for key in keys:
            await client.rename(b"kept:" + key, key)


@asynccontextmanager
async def _other_form(_: Redis, client: Any) -> AsyncGenerator[None]:
    library = Library()
    text = library.text.replace("return answer(keys, args) end", "return {1, 2} end")
    await client.function_load(text, replace=True)
    try:
        yield
    finally:
        await client.function_load(library.text, replace=True)


_FAULTS: Final = {
    "MISCONF": _snapshot_fails,
    "BUSY": _busy,
    "NOREPLICAS": _no_replicas,
    "NOPERM": _not_permitted,
    "OOM": _out_of_memory,
    "READONLY": _replica,
    "MASTERDOWN": _stale_replica,
    "NOAUTH": _other_password,
    "WRONGTYPE": _other_type,
    "unknown": _other_form,
}
