"""Hedges: second attempts at requests with `hedge_ms` whose first one has not answered in time.

The dispatcher that sent the first attempt keeps a timer in memory. If it dies there is no second attempt, but the first
goes on. Results do not pass through dispatchers. So a dispatcher looks into Redis for the marks of requests whose
`hedge_ms` is long, and forgets those that were answered.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from schemas.errors import BrokerError
from schemas.messages import Attempt, decode_attempt
from schemas.runtime.once import KEPT_S, Answered
from schemas.runtime.results import now_ms
from schemas.runtime.tasks import end_tasks

from . import metrics

log = logging.getLogger(__name__)

# The most second attempts that are planned at once, and the most bytes of their messages; further requests get none.
KEPT: Final = 10_000
KEPT_BYTES: Final = 64 * 2**20
# The first look for a request's mark comes after so long, and each next one after twice as long as the one before. The
# longest gap is shorter than a mark is kept.
LOOK_EVERY_S: Final = 1.0
LOOK_LATEST_S: Final = KEPT_S / 2
LOOK_BATCH: Final = 500

Ask: TypeAlias = Callable[[Attempt], Awaitable[bool]]
"""Sends a second attempt beside this one; returns whether a lane could take it."""


class _Hedge(Struct):
    """A second attempt that is planned. It is made from the message of the first, which takes less memory."""

    body: bytes
    mark: str
    look_at_s: float
    gap_s: float = LOOK_EVERY_S
    task: asyncio.Task[None] | None = None


class Hedges:
    """The second attempts that are planned.

    Args:
        marks: of the requests that were answered.
        ask: sends a second attempt.

    Attributes:
        size_bytes: the bytes of their messages.
    """

    def __init__(self, marks: Answered, ask: Ask) -> None:
        self._marks = marks
        self._ask = ask
        self._kept: dict[str, _Hedge] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def plan(self, attempt: Attempt, body: bytes) -> None:
        """A first attempt was sent, with this body. A second one follows if there is no answer in time."""
        hedge_ms, key = attempt.request.hedge_ms, _key(attempt)
        if hedge_ms is None or attempt.number != 1 or attempt.hedge or key in self._kept:
            return
        if attempt.deadline_ms <= now_ms() + hedge_ms:
            return  # it would come too late
        if len(self._kept) >= KEPT or self.size_bytes + len(body) > KEPT_BYTES:
            return
        hedge = _Hedge(body, self._marks.mark(attempt), asyncio.get_running_loop().time() + LOOK_EVERY_S)
        hedge.task = asyncio.create_task(self._wait(hedge, hedge_ms / 1000), name="hedge")
        hedge.task.add_done_callback(lambda _: self._drop(key))
        self._kept[key] = hedge
        self.size_bytes += len(body)

    def cancel(self, attempt: Attempt) -> None:
        """The first attempt came back, so another one follows it anyway."""
        self._forget(_key(attempt))

    async def run(self) -> None:
        """Forgets hedges whose requests were answered, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = asyncio.get_running_loop().time()
            due = [key for key, hedge in self._kept.items() if hedge.look_at_s <= now_s]
            for first in range(0, len(due), LOOK_BATCH):
                await self._look(due[first : first + LOOK_BATCH], now_s)

    async def close(self) -> None:
        """Forgets all that are planned."""
        await end_tasks([hedge.task for hedge in self._kept.values() if hedge.task is not None])

    async def _look(self, keys: Sequence[str], now_s: float) -> None:
        kept = {key: self._kept[key] for key in keys if key in self._kept}
        if not kept:
            return
        answered = await self._marks.answered([hedge.mark for hedge in kept.values()])
        for (key, hedge), over in zip(kept.items(), answered, strict=True):
            if over:
                self._forget(key)
            hedge.gap_s = min(2 * hedge.gap_s, LOOK_LATEST_S)
            hedge.look_at_s = now_s + hedge.gap_s

    def _forget(self, key: str) -> None:
        if (hedge := self._kept.get(key)) and hedge.task is not None:
            hedge.task.cancel()

    def _drop(self, key: str) -> None:
        self.size_bytes -= len(self._kept.pop(key).body)

    async def _wait(self, hedge: _Hedge, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        attempt = decode_attempt(hedge.body)
        if await self._marks.by_another(replace(attempt, hedge=True)) is not False:
            return  # it was answered; or Redis is away, and both attempts would answer
        try:
            sent = await self._ask(attempt)
        except BrokerError as error:
            # Nothing is lost: the first attempt goes on.
            log.warning("hedge_not_sent", extra={"request_id": attempt.request.id, "error": str(error)})
        else:
            metrics.HEDGES.inc(sent)


def _key(attempt: Attempt) -> str:
    return f"{attempt.taken or attempt.received_ms} {attempt.request.id} {' '.join(attempt.request.exchanges)}"
