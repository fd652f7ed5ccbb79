"""Cancels a task at each of its waits in turn: just as it begins to wait, or at the moment at which that is over."""

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any


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
