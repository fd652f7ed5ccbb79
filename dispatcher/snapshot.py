"""A snapshot in Redis of what a dispatcher knows of the lanes, for the next one that starts.

All dispatchers know the same and write the same key. It is best effort: without it a dispatcher learns what it needs
from reports within seconds.
"""

import logging
from collections.abc import Mapping
from typing import Final

import msgspec
import redis.asyncio

from schemas.runtime import store
from schemas.runtime.store import AWAY

from .health import LaneHealth, Memory

log = logging.getLogger(__name__)

KEY: Final = "fleet:health"
# An older snapshot says nothing of the lanes as they are.
KEPT_S: Final = 60
EVERY_S: Final = 2.0

_DECODER: Final = msgspec.msgpack.Decoder(dict[str, Memory])


async def save(client: redis.asyncio.Redis, lanes: Mapping[str, LaneHealth], now_s: float, now_ms: int) -> None:
    """Writes what is known of the lanes that workers serve."""
    memories = {name: lane.memory(now_s, now_ms) for name, lane in lanes.items() if not lane.silent(now_s)}
    if not memories:
        return
    try:
        await client.set(KEY, msgspec.msgpack.encode(memories), ex=KEPT_S)
    except AWAY as error:
        store.count_loss(error, "snapshot")
        log.warning("snapshot_not_saved", extra={"error": repr(error)})


async def load(client: redis.asyncio.Redis, lanes: Mapping[str, LaneHealth], now_s: float, now_ms: int) -> None:
    """Restores what an earlier dispatcher, or another one, knew of the lanes."""
    try:
        body = await client.get(KEY)
        memories = store.shaped(body, _DECODER.decode) if body is not None else {}
    except AWAY as error:
        store.count_loss(error, "snapshot")
        log.warning("snapshot_not_loaded", extra={"error": repr(error)})
        return
    for name, memory in memories.items():
        if lane := lanes.get(name):
            lane.remember(memory, now_s, now_ms)
    if memories:
        log.info("snapshot_loaded", extra={"lanes": ",".join(memories)})
