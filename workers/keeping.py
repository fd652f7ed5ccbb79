"""Keeps answers in Redis for equal requests, beside the publishing of results, which it never holds up.

An attempt that asks for others, too, ends its lease here (`schemas.runtime.answers`): with its answer, or with an error
that equal requests would have. An exchange's answer that says what is wrong with an HTTP call is such an error, too: it
may hold for a moment only, so it is for those who wait, and who comes later asks.

While Redis is slow or away, some ends wait here and are tried again. What is too much is dropped: then those that wait
for the answer lose patience, and one of them asks.
"""

import asyncio
import functools
import logging
from typing import Any, Final

import redis.asyncio
from msgspec import Struct, msgpack

from schemas import bars, sharing
from schemas.config import LaneConfig
from schemas.messages import Attempt, Outcome, Try
from schemas.runtime.answers import ENDED_MS, Answer, Answers, State, failing, insist, pack
from schemas.runtime.clock import clock_s

from . import metrics

log = logging.getLogger(__name__)

# So many ends of leases wait for Redis at once, with so many bytes of data.
WAITING: Final = 2_000
WAITING_BYTES: Final = 64 * 2**20
# So many are written at a time.
WRITERS: Final = 8
# A larger answer is not kept: it would push out too many others.
LARGEST_PART: Final = 8
# From here on data is encoded and compressed beside the event loop.
LARGE_BYTES: Final = 256 * 1024
LONGEST_MS: Final = 86_400_000
# The longest that the last ends may take when a process ends.
CLOSE_S: Final = 5.0


class Ending(Struct, frozen=True):
    """An attempt that ended, and asked for others.

    Args:
        attempt: the attempt.
        lane: the lane's configuration.
        item: how it ended; None where it was not run.
        data: what it brought, if it is ok.
        sent_s: when its first call left, by the monotonic clock; None if none did.
        there_s: when its answer began to come, or its error was there, by the same.
        size_bytes: about how large the data is.
        refused: the data is an exchange's answer that says what is wrong with an HTTP call.
    """

    attempt: Attempt
    lane: LaneConfig
    item: Try | None = None
    data: Any = None
    sent_s: float | None = None
    there_s: float = 0.0
    size_bytes: int = 0
    refused: bool = False


class Keeping:
    """The ends of leases that are on their way to Redis.

    Args:
        client: Redis.
        most_bytes: how many bytes all answers may have there.
    """

    def __init__(self, client: redis.asyncio.Redis, most_bytes: int) -> None:
        self._answers = Answers(client)
        self._most_bytes = most_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._size_bytes = 0
        self._turn = asyncio.Semaphore(WRITERS)

    def put(self, ending: Ending) -> None:
        """Has a lease ended; returns at once."""
        if len(self._tasks) >= WAITING or self._size_bytes + ending.size_bytes > WAITING_BYTES:
            metrics.KEPT.labels("lost").inc()
            return
        self._size_bytes += ending.size_bytes
        task = asyncio.create_task(self._end(ending), name="keep")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drop(self, attempt: Attempt) -> None:
        """An attempt is not run, as its request was answered: whoever waits for it asks."""
        if attempt.share:
            self.put(Ending(attempt, LaneConfig()))

    async def close(self) -> None:
        """Returns when all have ended, or Redis did not take them, after `CLOSE_S` in any case."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)

    async def _end(self, ending: Ending) -> None:
        try:
            async with self._turn:
                how = await insist(functools.partial(self._try, ending), "answer")
                metrics.KEPT.labels(how or "lost").inc()
        finally:
            self._size_bytes -= ending.size_bytes

    async def _try(self, ending: Ending) -> str:
        """Ends a lease; says how."""
        attempt, item = ending.attempt, ending.item
        lease, _, id_ = attempt.share.rpartition(" ")
        if item is None:
            await self._answers.end(lease, id_, State.NONE)
            return "dropped"
        if item.outcome is not Outcome.OK:
            await self._answers.fail(lease, id_, ending.there_s, **failing(attempt, str(item.code), item.message))
            return "error"
        body = await self._packed(ending)
        if ending.sent_s is None or body is None or len(body) > self._most_bytes // LARGEST_PART:
            await self._answers.end(lease, id_, State.ALONE)
            return "not_kept"
        by_redis = await self._answers.by_redis()
        at_us = by_redis(ending.sent_s)
        if ending.refused:
            till_us, kept_ms, key = 0, ENDED_MS, sharing.refusal_key(lease)
        else:
            till_us, kept_ms = _lasts(attempt, ending.data, at_us, by_redis(clock_s()))
            key = sharing.answer_key(sharing.question(attempt.request), sharing.source(ending.lane, attempt.request))
        answer = Answer(at_us, by_redis(ending.there_s), till_us, body, ending.refused)
        metrics.KEPT_BYTES.set(
            await self._answers.keep(key, lease, id_, answer, kept_ms=kept_ms, most_bytes=self._most_bytes)
        )
        return "error" if ending.refused else "kept"

    async def _packed(self, ending: Ending) -> bytes | None:
        """The answer's body; None where its data can't be encoded."""
        if ending.size_bytes < LARGE_BYTES:
            return _packed(ending)
        return await asyncio.to_thread(_packed, ending)


def _packed(ending: Ending) -> bytes | None:
    try:
        data = msgpack.encode(ending.data, enc_hook=str)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None  # JSON takes larger numbers
    return pack(ending.lane.known_as, ending.attempt.lane, data)


def _lasts(attempt: Attempt, data: Any, at_us: int, now_us: int) -> tuple[int, int]:
    """Until when an answer has all finished bars, microseconds, 0 for anything else; and for how many ms it is kept."""
    request = attempt.request
    till_us = 0
    if request.http is None and bars.refusal(request.method, request.args) is None:
        till_us = bars.good_until_ms(request.args, data, at_us // 1000) * 1000
    wanted_ms = request.max_age_ms
    if not isinstance(wanted_ms, int):
        wanted_ms = (till_us - now_us) // 1000
    return till_us, min(max(wanted_ms, ENDED_MS), LONGEST_MS)
