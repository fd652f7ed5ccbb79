"""Marks in Redis of the requests that were answered: of several attempts at one only the first gives a result.

There are several where a second lane is asked beside a slow one, and where a message comes again: a worker that dies
between a result's publication and its acknowledgement leaves a message whose work is done. What may be such a copy says
so (`Attempt.repeated`, `Delivery.repeated`); the rest is not looked up. Every answer leaves a mark (`note`), many of
them in one round trip. Who may not be alone asks before it runs (`by_another`), and before it publishes (`claim`).

All of it is best effort: without Redis nothing is known, and what comes twice is answered twice, with the same id. What
must never happen is a request without an answer. So a claim alone ends nothing: it names the line of copies that come
from one message (`Attempt.line`). One of them is unsettled until the answer is out, and each of them may claim again,
wherever the request was sent meanwhile, until the mark says that it is answered. Therefore only a line claims that lies
in a queue of ours as an attempt: a request that comes again from its own queue begins a new one each time. And a hedge,
which else may come to nothing, may not any more once it has claimed (`dispensable`).

A mark is of a request's id *and* deadline, and where it fans out of its exchange: who uses an id again later is not
refused, while a producer that publishes a request again, in doubt whether the broker has it, is answered once.
"""

import asyncio
import logging
import time
from typing import Final

import redis.asyncio

from .messages import Attempt
from .store import AWAY

log = logging.getLogger(__name__)

# Longer than a broker needs to notice a dead connection, or to boot, and to deliver again.
KEPT_S: Final = 120
# What is noted goes to Redis after so long: who dies meanwhile leaves no mark of its last answers.
NOTE_AFTER_S: Final = 0.05
DONE: Final = b"answered"


class Answered:
    """The marks of one fleet, as one process reads and makes them."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        self._noted: list[str] = []
        self._writing: asyncio.Task[None] | None = None

    async def by_another(self, attempt: Attempt) -> bool | None:
        """Whether its request is answered, or about to be by another line; None if Redis is away and nobody knows."""
        try:
            mark = await self._redis.get(_key(attempt))
        except AWAY as error:
            log.warning("mark_unknown", extra={"request_id": attempt.request.id, "error": repr(error)})
            return None
        return mark is not None and mark != attempt.line.encode()

    async def claim(self, attempt: Attempt) -> bool | None:
        """Whether this attempt, whose result will be published next, may answer; None if Redis is away."""
        left_s = attempt.deadline_ms / 1000 - time.time()
        try:
            mark = await self._redis.set(
                _key(attempt), attempt.line, nx=True, get=True, ex=KEPT_S + max(0, int(left_s))
            )
        except AWAY as error:
            log.warning("mark_unknown", extra={"request_id": attempt.request.id, "error": repr(error)})
            return None
        return mark is None or mark == attempt.line.encode()

    async def dispensable(self, attempt: Attempt) -> bool:
        """Whether nobody needs to know if it comes to nothing: a probe, and a hedge that did not claim before."""
        if not attempt.hedge or not attempt.repeated:
            return attempt.probe or attempt.hedge
        return await self.by_another(attempt) is True

    def note(self, attempt: Attempt) -> None:
        """Its request is answered: the broker has confirmed the result."""
        self._noted.append(_key(attempt))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_soon(), name="answered")

    async def close(self) -> None:
        """Returns when all that was noted is written, or Redis did not take it."""
        while self._writing is not None:
            await self._writing

    async def _write_soon(self) -> None:
        await asyncio.sleep(NOTE_AFTER_S)
        noted, self._noted, self._writing = self._noted, [], None
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in noted:
                    pipeline.set(key, DONE, ex=KEPT_S)
                await pipeline.execute()
        except AWAY as error:
            log.debug("marks_lost", extra={"count": len(noted), "error": repr(error)})


def _key(attempt: Attempt) -> str:
    part = f":{attempt.request.exchanges[0]}" if attempt.results > 1 else ""
    return f"fleet:answered:{attempt.deadline_ms}:{attempt.request.id}{part}"
