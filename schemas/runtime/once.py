"""One answer a request: of several attempts at it only the first gives a result. Marks in Redis say which.

There are several attempts where a second lane is asked beside a slow one (a hedge), and where a message is delivered
again: a worker that dies between publishing a result and acknowledging its message leaves a message whose work is done.
Attempts that may be such copies say so (`Attempt.contested`); the others are not looked up.

`Once` is the policy. Services ask it three things: may this attempt be skipped, is one that failed still needed, and
publish this answer once. `Answered` keeps the marks: every answer leaves one (`note`), many of them in one round trip;
a contested attempt looks for one before it runs (`by_another`), and claims the answer before it publishes (`claim`).

All of it is best effort: without Redis nothing is known, and a message that comes twice is answered twice, with the
same id. What must never happen is a request without an answer. So:

- A claim alone ends nothing. It names a branch of the attempts that come from one message (`Attempt.branch`). One
  attempt of a branch is unsettled until the answer is out, and each of them may claim again, wherever the request was
  sent meanwhile, until the mark says that it is answered.
- Only what lies in a queue of ours as an attempt may claim. A request that comes again from its own queue begins a new
  branch each time, which would find the old one's claim and give way for ever.
- A hedge that has claimed must not be dropped any more. Other hedges may (`Once.dispensable`).

A mark belongs to one request: its id and deadline, its reply address and correlation id, the digest of its body, and,
where it fans out, its exchange. The attempt carries all of that unchanged, so every copy finds the same mark. Two
requests may still be equal in all of it, where a program polls with one id. So a mark also names the delivery that it
comes from (`Attempt.taken`). The mark of another delivery counts only where the later of the two may be a copy, that
is, where its message came again. Two messages that each came once are two requests.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import redis.asyncio
from msgspec import Struct, msgpack

from ..messages import Attempt
from . import store
from .store import AWAY

log = logging.getLogger(__name__)

# Longer than a broker needs to notice a dead connection, or to boot, and to deliver again.
KEPT_S: Final = 120
# Marks are written to Redis after so long; a process that dies meanwhile leaves none of its last answers.
NOTE_AFTER_S: Final = 0.05
# A Redis that is slow for a moment loses no marks.
WRITE_TRIES: Final = 3
WRITE_AGAIN_S: Final = 0.5
# The longest that it takes to write the last marks when a process ends.
CLOSE_S: Final = 5.0


class Mark(Struct, frozen=True, array_like=True):
    """A request's mark: the delivery of it that was answered, or is about to be.

    Args:
        taken: as in `Attempt`, like the next two.
        received_ms: when.
        copy: whether its message had come before.
        answered: the broker has confirmed the result.
    """

    taken: str
    received_ms: int
    copy: bool
    answered: bool

    @classmethod
    def by(cls, attempt: Attempt, *, answered: bool) -> "Mark":
        """The mark that an attempt leaves."""
        return cls(attempt.taken, attempt.received_ms, attempt.copy, answered)

    def ends(self, attempt: Attempt) -> bool:
        """Whether an attempt at a request with this mark has nothing left to do."""
        if self.taken == attempt.taken:
            return self.answered
        later = attempt if attempt.received_ms >= self.received_ms else self
        return later.copy


_MARK: Final = msgpack.Decoder(Mark)


class Answered:
    """The marks of one fleet, as one process reads and makes them."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        self._noted: dict[str, bytes] = {}
        self._writing: asyncio.Task[None] | None = None

    async def by_another(self, attempt: Attempt) -> bool | None:
        """Whether its request was answered, or another branch has claimed that; None if Redis is away."""
        request, claim = _keys(attempt)
        try:
            mark, claimed = await self._redis.mget(request, claim)
            known = store.shaped(mark, _read)
        except AWAY as error:
            store.count_loss(error, "mark")
            log.warning("mark_lookup_failed", extra={"request_id": attempt.request.id, "error": repr(error)})
            return None
        return not _free(attempt, known, claimed)

    async def claim(self, attempt: Attempt) -> bool | None:
        """Whether this attempt, whose result will be published next, may answer; None if Redis is away."""
        request, claim = _keys(attempt)
        kept_s = KEPT_S + max(0, int(attempt.deadline_ms / 1000 - time.time()))
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                mark = msgpack.encode(Mark.by(attempt, answered=False))
                pipeline.set(request, mark, nx=True, get=True, ex=kept_s)
                pipeline.set(claim, attempt.branch, nx=True, get=True, ex=kept_s)
                before, claimed = await pipeline.execute()
            known = store.shaped(before, _read)
        except AWAY as error:
            store.count_loss(error, "mark")
            log.warning("mark_lookup_failed", extra={"request_id": attempt.request.id, "error": repr(error)})
            return None
        return _free(attempt, known, claimed)

    @staticmethod
    def mark(attempt: Attempt) -> str:
        """The key of its request's mark."""
        return _keys(attempt)[0]

    async def answered(self, marks: Sequence[str]) -> list[bool]:
        """Which requests were answered, by their marks; none of them if Redis is away."""
        try:
            found: list[Any] = await self._redis.mget(marks)
            known = [store.shaped(mark, _read) for mark in found]
        except AWAY as error:
            store.count_loss(error, "mark")
            return [False] * len(marks)
        return [mark is not None and mark.answered for mark in known]

    def note(self, attempt: Attempt) -> None:
        """Its request is answered: the broker has confirmed the result."""
        self._noted[_keys(attempt)[0]] = msgpack.encode(Mark.by(attempt, answered=True))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_soon(), name="answered")

    @property
    def waiting(self) -> int:
        """How many marks are not on their way to Redis yet."""
        return len(self._noted)

    async def close(self) -> None:
        """Returns when all that was noted is written, or Redis did not take it, after `CLOSE_S` in any case."""
        if self._writing is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._writing
            except TimeoutError:
                log.warning("marks_not_saved", extra={"after_s": CLOSE_S})

    async def _write_soon(self) -> None:
        """Writes until nothing is left. Until Redis has answered it stands for what `close` has to wait for."""
        try:
            while self._noted:
                await asyncio.sleep(NOTE_AFTER_S)
                noted, self._noted = self._noted, {}
                await self._write(noted)
        finally:
            self._writing = None

    async def _write(self, noted: dict[str, bytes]) -> None:
        for left in range(WRITE_TRIES - 1, -1, -1):
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for key, mark in noted.items():
                        pipeline.set(key, mark, ex=KEPT_S)
                    await pipeline.execute()
            except AWAY as error:
                store.count_loss(error, "mark")
                log.debug("marks_not_written", extra={"count": len(noted), "left": left, "error": repr(error)})
                await asyncio.sleep(WRITE_AGAIN_S if left else 0)
            else:
                return


class Once:
    """The policy that lets one of several attempts at a request answer it.

    Args:
        marks: of the requests that were answered.
    """

    def __init__(self, marks: Answered) -> None:
        self._marks = marks

    async def skip(self, attempt: Attempt) -> bool:
        """Whether an attempt need not run or go on: another one has answered its request, or is about to."""
        return attempt.contested and await self._marks.by_another(attempt) is True

    async def dispensable(self, attempt: Attempt) -> bool:
        """Whether an attempt that failed, or was not sent, may be dropped: a probe, or a hedge that has not claimed."""
        if not attempt.hedge or not attempt.repeated:
            return attempt.probe or attempt.hedge
        return await self._marks.by_another(attempt) is True

    async def answer(
        self, attempt: Attempt, publish: Callable[[], Awaitable[None]], *, kept: bool = True, always: bool = False
    ) -> bool:
        """Publishes an attempt's answer unless another attempt at the request was first; says whether it did.

        Args:
            attempt: what is answered.
            publish: publishes it, and returns when the broker has confirmed it; its errors go to the caller.
            kept: whether the attempt lies in a queue of ours; one that does not may not claim.
            always: publishes it whatever the marks say.
        """
        if attempt.contested and not always and not await self._may_answer(attempt, kept=kept):
            return False
        await publish()
        self._marks.note(attempt)
        return True

    async def _may_answer(self, attempt: Attempt, *, kept: bool) -> bool:
        if not kept:
            return await self._marks.by_another(attempt) is not True
        first = await self._marks.claim(attempt)
        # Without Redis a hedge gives way: the first branch is under way, and answers in any case.
        return not await self.dispensable(attempt) if first is None else first


def _read(mark: bytes | None) -> Mark | None:
    return None if mark is None else _MARK.decode(mark)


def _free(attempt: Attempt, mark: Mark | None, claimed: Any) -> bool:
    """Whether the attempt may answer.

    Args:
        attempt: the attempt.
        mark: its request's mark, if there is one.
        claimed: the branch of this delivery that has claimed the answer, in bytes; None if none has.
    """
    if claimed is not None and claimed != attempt.branch.encode():
        return False
    return mark is None or not mark.ends(attempt)


def _keys(attempt: Attempt) -> tuple[str, str]:
    """The keys of the request's mark, and of the claim among the branches of this one delivery of it."""
    part = attempt.request.exchanges[0] if attempt.results > 1 else ""
    # As text: a deadline that is refused may have any number of digits.
    names = attempt.request.id, str(attempt.deadline_ms), attempt.reply_to, attempt.correlation_id, attempt.digest, part
    request = hashlib.blake2b(msgpack.encode(names), digest_size=16).hexdigest()
    return f"fleet:answered:{request}", f"fleet:claimed:{request}:{attempt.taken or attempt.received_ms}"
