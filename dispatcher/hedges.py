"""Second attempts for requests that ask for one when the first has not answered in time.

A timer in memory for each, in the dispatcher that sent the first attempt. If that dispatcher dies there is no second
one: the first goes its way all the same.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from msgspec.structs import replace

from schemas.answered import Answered
from schemas.deliveries import end_tasks
from schemas.errors import BrokerError
from schemas.messages import Attempt

from . import metrics

log = logging.getLogger(__name__)

# More requests than these get no second attempt while so many wait for theirs.
KEPT: Final = 10_000

Ask: TypeAlias = Callable[[Attempt], Awaitable[bool]]
"""Sends a second attempt beside this one, which is under way; says whether there was a lane for it."""


class Hedges:
    """The second attempts that are still to come.

    Args:
        marks: of the requests that were answered.
        ask: sends one.
    """

    def __init__(self, marks: Answered, ask: Ask) -> None:
        self._marks = marks
        self._ask = ask
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def plan(self, attempt: Attempt) -> None:
        """A first attempt was sent: a second one follows if it has not been answered in its request's time."""
        hedge_ms = attempt.request.hedge_ms
        if hedge_ms is None or attempt.number != 1 or attempt.hedge or len(self._tasks) >= KEPT:
            return
        key = _key(attempt)
        task = asyncio.create_task(self._wait(attempt, hedge_ms / 1000), name=f"hedge {key}")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def cancel(self, attempt: Attempt) -> None:
        """The attempt came back, and goes elsewhere anyway."""
        if task := self._tasks.get(_key(attempt)):
            task.cancel()

    async def close(self) -> None:
        """Forgets all that are still to come."""
        await end_tasks([*self._tasks.values()])

    async def _wait(self, attempt: Attempt, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if await self._marks.by_another(replace(attempt, hedge=True)) is not False:
            return  # without Redis both could answer
        try:
            sent = await self._ask(attempt)
        except BrokerError as error:
            # Nothing is lost: the first attempt is under way.
            log.warning("hedge_not_sent", extra={"request_id": attempt.request.id, "error": str(error)})
        else:
            metrics.HEDGES.inc(sent)


def _key(attempt: Attempt) -> str:
    return f"{attempt.taken or attempt.received_ms} {attempt.request.id} {' '.join(attempt.request.exchanges)}"
