"""The workers that are there, as each says in Redis: what it may serve, and which lanes it has open.

A worker counts as gone when its entry stayed the same at several looks in a row. Looks are counted, and only those that
Redis answers: neither a process that stood still nor a Redis that was away or emptied makes others look gone.
"""

import hashlib
from collections.abc import Collection
from typing import Any, Final

import redis.asyncio
from msgspec import DecodeError, Struct, field, msgpack

from .part import Part
from .spread import Peer

# One hash slot.
ENTRIES: Final = "fleet:{peers}"
KEPT_S: Final = 3600
LOOK_EVERY_S: Final = 1.0
# So many looks in a row without news, and a worker is gone; after so many its entry is removed.
GONE_LOOKS: Final = 5
REMOVED_LOOKS: Final = 60


class Entry(Struct, frozen=True, array_like=True):
    """What a worker says.

    Args:
        number: one more each time.
        patterns: the lanes that it may serve.
        opened: a digest of the lanes that it has open; they lie in a key of their own.
        leaving: it stops.
    """

    number: int
    patterns: tuple[str, ...]
    opened: str
    leaving: bool = False


class _Seen(Struct):
    """What is known of another worker."""

    entry: Entry
    open: frozenset[str] = field(default_factory=frozenset[str])
    opened: str = ""
    same: int = 0


class Peers:
    """The other workers.

    Args:
        client: Redis.
        name: this worker's.
        part: the lanes that it may serve.
    """

    def __init__(self, client: redis.asyncio.Redis, name: str, part: Part) -> None:
        self._client: Any = client
        self._name = name
        self._part = part
        self._number = 0
        self._told = ""  # the digest of the lanes that Redis has of ours
        self._seen: dict[str, _Seen] = {}

    async def look(self, opened: Collection[str], *, leaving: bool = False) -> dict[str, Peer]:
        """Says what this worker has open, and returns which others are there.

        Raises:
            RedisError, OSError: Redis did not answer (`store.AWAY`).
        """
        self._number += 1
        lanes = sorted(opened)
        digest = hashlib.sha256("\0".join(lanes).encode()).hexdigest()[:16]
        entry = Entry(self._number, self._part.patterns, digest, leaving)
        if digest != self._told:
            await self._client.set(_key(digest), msgpack.encode(lanes), ex=KEPT_S)
        async with self._client.pipeline(transaction=False) as asked:
            asked.hset(ENTRIES, self._name, msgpack.encode(entry))
            asked.expire(ENTRIES, KEPT_S)
            asked.expire(_key(digest), KEPT_S)
            asked.hgetall(ENTRIES)
            _, _, is_kept, found = await asked.execute()
        self._told = digest if is_kept else ""
        said = {name.decode(): body for name, body in found.items()}
        for name in {*said, *self._seen} - {self._name}:
            self._take(name, said.get(name, b""))
        await self._forget()
        await self._read_opened()
        return {
            name: Peer(Part(each.entry.patterns), each.open)
            for name, each in self._seen.items()
            if each.same < GONE_LOOKS and not each.entry.leaving
        }

    def _take(self, name: str, body: bytes) -> None:
        try:
            entry = msgpack.decode(body, type=Entry)
        except DecodeError:  # it is gone, or of another version
            if name in self._seen:
                self._seen[name].same += 1
            return
        seen = self._seen.setdefault(name, _Seen(entry))
        seen.same = seen.same + 1 if entry.number == seen.entry.number else 0
        seen.entry = entry

    async def _forget(self) -> None:
        gone = [name for name, each in self._seen.items() if each.same >= REMOVED_LOOKS]
        if gone:
            await self._client.hdel(ENTRIES, *gone)
        for name in gone:
            del self._seen[name]

    async def _read_opened(self) -> None:
        news = [each for each in self._seen.values() if each.opened != each.entry.opened]
        if not news:
            return
        bodies: list[bytes | None] = await self._client.mget([_key(each.entry.opened) for each in news])
        for each, body in zip(news, bodies, strict=True):
            if body is not None:
                each.open, each.opened = frozenset(msgpack.decode(body, type=list[str])), each.entry.opened


def _key(digest: str) -> str:
    return f"{ENTRIES}:{digest}"
