"""Cancels a task at each of its waits in turn: just as it begins to wait, or at the moment at which that is over."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeAlias

from schemas.runtime.tasks import done_within, end_tasks

Job: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]
# Longer than any of these takes on a busy machine, and much longer than they may be under way.
WITHIN_S = 20.0
# A job that has not come to its next wait after so long waits for ever where it is.
STILL_S = 1.0
# Where a job never ends, so many waits contain each of its kinds several times.
MOST = 30


class Cancelling:
    """Awaits a job, and cancels the task that it runs in at its n-th wait.

    A cancellation that comes at the moment at which what a task waits for is done is what `asyncio.wait_for` of Python
    3.11 swallows. Chance meets that moment seldom; on a busy machine it is as long as one turn of the loop.

    Args:
        job: what runs.
        number: at which wait, from 1.
        late: when that wait is over, and not as it begins.

    Attributes:
        waits: how often it has waited until now.
    """

    def __init__(self, job: Coroutine[Any, Any, Any], number: int, *, late: bool) -> None:
        self._job = job
        self._number = number
        self._late = late
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        while True:
            try:
                waited = self._job.send(None) if error is None else self._job.throw(error)
            except StopIteration as end:
                return end.value
            self.waits += 1
            if self.waits == self._number:
                if self._late and asyncio.isfuture(waited):
                    waited.add_done_callback(lambda _: task.cancel())  # before the task itself hears of it
                else:
                    task.cancel()
            error = None
            try:
                yield waited
            except BaseException as thrown:
                error = thrown


async def awaited(job: Awaitable[Any]) -> None:
    """As a coroutine, which a task can be made of."""
    await job


async def cancelled_everywhere(job: Job, works: Job) -> None:
    """Cancels the job at each of its waits; each time it ends, and `works` still does what it does."""
    for late in (False, True):
        for number in range(1, MOST):
            cancelling = Cancelling(job(), number, late=late)
            task = asyncio.create_task(awaited(cancelling))
            waited_s = time.monotonic()
            while cancelling.waits < number and not task.done() and time.monotonic() < waited_s + STILL_S:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            await done_within(WITHIN_S, end_tasks([task]))
            await done_within(WITHIN_S, works())
            if cancelling.waits < number:
                break


async def cancelled_once(job: Job) -> None:
    """Cancels the job at each of its waits, once: each time that ends it."""
    for late in (False, True):
        for number in range(1, MOST):
            cancelling = Cancelling(job(), number, late=late)
            task = asyncio.create_task(awaited(cancelling))
            await asyncio.wait([task], timeout=WITHIN_S)
            assert task.done(), (number, late)
            if cancelling.waits < number:
                break
            assert task.cancelled(), (number, late)
