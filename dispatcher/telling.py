"""Dispatchers tell each other what they do to the lines for budget, through a channel of Redis (`told`).

Redis forgets a message that nobody hears, and is away at times. Then each dispatcher goes by its own line, and takes
the others to give as many turns as it does (`Waiting`), as it does beside dispatchers that tell nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis.asyncio
import redis.exceptions
from msgspec import DecodeError

from schemas.messages import encode
from schemas.runtime import store
from schemas.runtime.shards import Shards

from .told import SILENT_S, Change, Tellers, Told, decode_told

log = logging.getLogger(__name__)

CHANNEL: Final = "fleet:lines"
# What is done to lines within this time goes out together.
COLLECT_S: Final = 0.005
# One that has nothing to tell says that it is there.
BEAT_S: Final = 1.0
AGAIN_S: Final = 1.0
# While Redis does not answer: the oldest are of no use any more.
KEPT: Final = 10_000


class Telling:
    """One dispatcher's part in it.

    Args:
        client: Redis.
        name: the dispatcher's, one in the fleet.
        take: takes what another one did.
        clock: stops while this process stands still.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        name: str,
        take: Callable[[Sequence[tuple[str, Change]]], None],
        clock: Callable[[], float],
    ) -> None:
        self._client: Any = client
        self._name = name
        self._take = take
        self._clock = clock
        self._tellers = Tellers(name)
        self._changes: list[tuple[str, Change]] = []
        self._changed = asyncio.Event()
        self._tells = False
        self._unheard_s: float | None = None  # when that was told here of which nothing was heard yet

    def note(self, lane: str, change: Change) -> None:
        """This is to be told."""
        self._changes.append((lane, change))
        self._changed.set()

    def others(self, dispatchers: int) -> int:
        """How many of the other dispatchers tell what they do; from now on this one does if there are others."""
        self._tells = dispatchers > 1
        return min(self._tellers.count(self._clock()), dispatchers - 1)

    async def tell(self) -> None:
        """Tells what is noted, and once a second that it is there; never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._changed.wait()
                    await asyncio.sleep(COLLECT_S)
            self._changed.clear()
            changes, self._changes = self._changes[-KEPT:], []
            if not self._tells:
                continue
            try:
                await self._client.publish(CHANNEL, encode(Told(self._name, changes)))
                self._unheard_s = self._unheard_s or self._clock()
            except store.AWAY as error:
                store.count_loss(error, "lines")

    async def hear(self) -> None:
        """Takes in what the others tell; never returns."""
        while True:
            try:
                await self._hear()
            except store.AWAY as error:
                store.count_loss(error, "lines")
            await asyncio.sleep(AGAIN_S)

    async def _hear(self) -> None:
        node: Any = self._client
        if isinstance(node, Shards):  # each node hears what is told at any
            node = await node.primary_of(CHANNEL)
        async with node.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CHANNEL)
            self._unheard_s = None  # what was told until now went past it
            while True:
                message: dict[str, Any] | None = await channel.get_message(timeout=SILENT_S)
                if message is not None:
                    self._heard(message["data"])
                elif self._unheard_s is not None and self._clock() - self._unheard_s > SILENT_S:
                    self._unheard_s = None
                    raise redis.exceptions.TimeoutError("nothing is heard, not even what was told here")

    def _heard(self, body: bytes) -> None:
        self._unheard_s = None
        try:
            told = decode_told(body)
        except DecodeError as error:
            log.warning("lines_unreadable", extra={"error": str(error)})
            return
        self._take(self._tellers.take(told, self._clock()))
