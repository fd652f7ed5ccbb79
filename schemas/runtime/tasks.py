"""Tasks and their cancellation: a connection that dies cancels what waits on it, as if somebody had cancelled it."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from aio_pika.exceptions import CONNECTION_EXCEPTIONS


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
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.2)


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
