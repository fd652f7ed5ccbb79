"""What `doctor` looks at in Redis: its version, whether it forgets or refuses, and its clock."""

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import redis.asyncio
from msgspec.structs import replace

from ..runtime import store
from . import servers
from .shapes import Finding

OLDEST: Final[Mapping[str, tuple[int, int]]] = {"Redis": (7, 0), "Valkey": (8, 0)}
NEARLY_FULL: Final = 0.9


async def look(client: redis.asyncio.Redis) -> list[Finding]:
    """All findings but the clocks', of each of its servers."""
    found: list[Finding] = []
    for at, node in await store.nodes(client):
        each = await _of_one(node)
        found += [replace(one, says=f"{at}: {one.says}") for one in each] if at else each
    return found


async def _of_one(node: Any) -> list[Finding]:
    try:
        info: dict[str, Any] = await node.info()
    except store.AWAY as error:
        text = f"it answers, but not to INFO: {error}"
        return [Finding("Redis", "note", text, "give its user the command INFO to have more checked")]
    try:
        config: dict[str, str] = await node.config_get("save", "min-replicas-to-write")
    except store.AWAY:  # managed services often refuse it
        config = {}
    return list(findings(info, config))


def findings(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[Finding]:
    """What Redis's INFO says, and its configuration where a user may read it."""
    yield _version(info)
    yield from _memory(info)
    yield from _persistence(info, config)
    yield from _replicas(info, config)
    if info.get("role") == "slave":
        yield Finding("Redis", "wrong", "it is a replica, and takes no writes", "name the primary in FLEET_REDIS_URL")


def _version(info: Mapping[str, Any]) -> Finding:
    name, said = servers.product(info)
    numbers, oldest = tuple(map(int, re.findall(r"\d+", said)[:2])), OLDEST[name]
    if numbers and numbers < oldest:
        wanted = ".".join(map(str, oldest))
        return Finding("Redis", "wrong", f"{name} {said} is too old", f"install {name} {wanted} or later")
    return Finding("Redis", "ok", f"{name} {said}")


def _memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    policy, most = str(info.get("maxmemory_policy", "")), int(info.get("maxmemory", 0))
    used, evicted = int(info.get("used_memory", 0)), int(info.get("evicted_keys", 0))
    if policy and policy != "noeviction":
        level = "wrong" if most else "note"
        text = f"maxmemory-policy is {policy}: a budget that is evicted is forgotten, and limits are passed"
        yield Finding("Redis's memory", level, text, "CONFIG SET maxmemory-policy noeviction, and in redis.conf")
    if evicted and policy != "noeviction":
        yield Finding("Redis's memory", "wrong", f"it has evicted {evicted:,} keys", "give it more memory: maxmemory")
    if most and used > NEARLY_FULL * most:
        text = f"{used / most:.0%} of maxmemory is in use; full, it refuses, and workers go on with their shares"
        yield Finding("Redis's memory", "wrong", text, "raise maxmemory, or give the fleet a Redis of its own")
    elif policy == "noeviction":
        yield Finding("Redis's memory", "ok", "it evicts nothing")


def _replicas(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[Finding]:
    # A Cluster's primary stops by itself when it does not see the others.
    alone = info.get("redis_mode") != "cluster" and config.get("min-replicas-to-write") == "0"
    if alone and int(info.get("connected_slaves", 0)):
        text = "cut off from its replicas it takes writes on, beside the one that is promoted: limits may be passed"
        yield Finding("Redis's replicas", "note", text, "`min-replicas-to-write 1`, `min-replicas-max-lag 10`")


def _persistence(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[Finding]:
    about = "Redis's disk"
    if int(info.get("loading", 0)):
        yield Finding(about, "wrong", "it is loading its data and answers nothing", "wait")
    # A snapshot that failed makes Redis refuse writes only where it is to make some (`save`).
    saves, appends = config.get("save") != "", bool(int(info.get("aof_enabled", 0)))
    kept = {"rdb_last_bgsave_status": saves, "aof_last_write_status": appends}
    failed = [name for name, wanted in kept.items() if wanted and info.get(name) == "err"]
    if failed:
        text = f"its last write to disk failed ({', '.join(failed)}): it refuses writes until one succeeds"
        yield Finding(about, "wrong", text, "its log says why: often a full disk, or a folder that it may not write")
    elif not saves and not appends:
        text = "it keeps nothing over a restart: workers then go on with their shares for the longest window in use"
        yield Finding(about, "note", text, "`appendonly yes` in redis.conf, if restarts are frequent")
    else:
        yield Finding(about, "ok", "it keeps its data over a restart" if "save" in config else "its writes succeed")


async def clocks_s(client: redis.asyncio.Redis) -> list[tuple[str, float, float]]:
    """How far this machine's clock is ahead of each server's, at least and at most, seconds; first whose it is."""
    found: list[tuple[str, float, float]] = []
    for at, node in await store.nodes(client):
        before_s = time.time()
        seconds, micros = await node.time()
        there_s = int(seconds) + int(micros) / 1e6
        found.append((f"Redis's at {at}" if at else "Redis's", before_s - there_s, time.time() - there_s))
    return found
