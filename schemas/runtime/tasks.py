"""Tasks and their cancellation: a connection that dies cancels what waits on it, as if somebody had cancelled it."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from aio_pika.exceptions import CONNECTION_EXCEPTIONS

log = logging.getLogger(__name__)

# Tasks that have not ended after so long are in the log, with where they stand.
SLOW_S: Final = 5.0


def cancelled() -> bool:
    """Whether this very task was cancelled: a dying connection raises `CancelledError` in all that wait on it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def lost(error: BaseException) -> bool:
    """Whether an error of aiormq means that the connection is gone, or that no answer came in time.

    A connection that ends without a reason rejects what waits on it with a bare `Exception`, or cancels it.
    """
    if isinstance(error, asyncio.CancelledError):
        return not cancelled()
    return isinstance(error, (*CONNECTION_EXCEPTIONS, TimeoutError)) or type(error) is Exception


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they have ended.

    Once is not enough: `asyncio.wait_for` of Python 3.11, which redis-py and aiormq use, swallows a cancellation that
    comes at the moment at which what it waits for is done.
    """
    running, slow_s = set(tasks), time.monotonic() + SLOW_S
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.2)
        if running and time.monotonic() >= slow_s:
            slow_s += 60.0
            log.warning("tasks_not_ending", extra={"tasks": [_where(task) for task in running]})


def _where(task: asyncio.Task[Any]) -> str:
    """A task's name, and the innermost line of Python that it waits in."""
    waits: Any = task.get_coro()
    place = "nowhere"
    while waits is not None:
        # A coroutine, a generator that is awaited, or an asynchronous generator.
        frame = _first(waits, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None:
            place = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
        waits = _first(waits, "cr_await", "gi_yieldfrom", "ag_await")
    return f"{task.get_name()}: {place}"


def _first(of: object, *names: str) -> Any:
    return next((found for name in names if (found := getattr(of, name, None)) is not None), None)


async def done_before(stop: asyncio.Event, job: Coroutine[Any, Any, None]) -> bool:
    """Runs a job until it is done or `stop` is set; returns whether it is done. Raises what the job raises."""
    running, stopping = asyncio.create_task(job), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        return running.done()
    finally:
        await end_tasks(task for task in (running, stopping) if not task.done())
