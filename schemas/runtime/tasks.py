"""Tasks and their cancellation: a connection that dies cancels what waits on it, as if somebody had cancelled it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aio_pika.exceptions import CONNECTION_EXCEPTIONS

log = logging.getLogger(__name__)
T = TypeVar("T")

# Tasks that have not ended after so long are in the log, with where they stand.
SLOW_S: Final = 5.0
# For so long what a command does as it ends is left alone: it closes connections.
CLOSING_S: Final = 2.0


def cancelled(times: int = 0) -> bool:
    """Whether this very task was cancelled: a dying connection raises `CancelledError` in all that wait on it.

    Args:
        times: `cancellations` of before, as a task that was cancelled may do something as it ends.
    """
    return cancellations() > times


def cancellations() -> int:
    """How often this very task was cancelled."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


@contextlib.contextmanager
def keeping_cancellation() -> Generator[None, None, None]:
    """Around what may swallow a cancellation: one that comes meanwhile is raised at its end, in place of any error.

    `asyncio.wait_for` of Python 3.11, in which redis-py writes and older aiormq waits for confirms, swallows one that
    comes at the moment at which what it waits for is done, or fails.
    """
    before = cancellations()
    try:
        yield
    except Exception:
        if not cancelled(before):
            raise
    if cancelled(before):
        raise asyncio.CancelledError


def lost(error: BaseException) -> bool:
    """Whether an error of aiormq means that the connection is gone, or that no answer came in time.

    A connection that ends without a reason rejects what waits on it with a bare `Exception`, or cancels it.
    """
    if isinstance(error, asyncio.CancelledError):
        return not cancelled()
    return isinstance(error, (*CONNECTION_EXCEPTIONS, TimeoutError)) or type(error) is Exception


class UnderWay:
    """Counts what is under way, so that its end can be waited for."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.contextmanager
    def one(self) -> Generator[None, None, None]:
        """Counts one, until the end of the context."""
        self._count += 1
        self._none.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._none.set()

    async def none(self) -> None:
        """Returns when none is under way."""
        await self._none.wait()


class Asides:
    """Tasks that nobody waits for while they run.

    Attributes:
        running: each is held here, as the event loop does not do that.
    """

    def __init__(self) -> None:
        self.running = set[asyncio.Task[None]]()

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        """Runs a job."""
        task = asyncio.create_task(job)
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def ended(self) -> None:
        """Returns when those that run now have ended; raises what the first one to fail raises."""
        await asyncio.gather(*self.running)


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], *, again_s: float = 0.2) -> None:
    """Cancels tasks until they have ended, again after each `again_s`, which what they do as they end has to do with.

    Once is not enough: what they wait in may swallow it (`keeping_cancellation`), or they wait for something else as
    they end.
    """
    running, slow_s = set(tasks), time.monotonic() + SLOW_S
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again_s)
        if running and time.monotonic() >= slow_s:
            slow_s += 60.0
            log.warning("tasks_not_ending", extra={"tasks": [_where(task) for task in running]})


async def ended_by_cancel(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work`, and when cancelled ends it, though it may swallow the first cancellation (see `end_tasks`)."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task])
    finally:
        await end_tasks([task], again_s=CLOSING_S)
    return task.result()


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


async def done_within(seconds: float, job: Awaitable[T]) -> T:
    """Runs a job for so long at most; returns what it returns, and raises what it raises.

    `asyncio.timeout` cancels once. A job that swallows that (see `end_tasks`), or waits for something else as it ends,
    would have no limit any more.

    Raises:
        TimeoutError: it took longer; it has ended by now.
    """

    async def run() -> T:
        return await job

    running = asyncio.create_task(run())
    try:
        await asyncio.wait([running], timeout=seconds)
        if not running.done():
            raise TimeoutError
        return running.result()
    finally:
        await end_tasks([running])


class SideTasks:
    """Tasks beside a main one, which end with it. Where one of them fails, the main one is to end too.

    `asyncio.TaskGroup` would cancel each of them once and wait. One that swallows that (see `end_tasks`) goes on, and
    the process with it, half dead and deaf to every signal.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self._failed = asyncio.Event()

    def create_task(self, job: Coroutine[Any, Any, None], *, name: str | None = None) -> asyncio.Task[None]:
        """Starts a task. It may return, and whoever cancels it may do so; all else is a failure."""
        task = asyncio.create_task(job, name=name)
        self._running.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error: BaseException | None = None
        if not task.cancelled():
            error = task.exception()
        elif not task.cancelling():
            error = RuntimeError(f"the task {task.get_name()!r} ended as if it had been cancelled, and nobody did that")
        if isinstance(error, Exception):
            self._failures.append(error)
            self._failed.set()

    async def until(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set.

        Raises:
            ExceptionGroup: one of the tasks failed; it has what they raised.
        """

        async def failed() -> None:
            await self._failed.wait()

        await done_before(stop, failed())
        self._look()

    def _look(self) -> None:
        if self._failures:
            raise ExceptionGroup("a side task ended", self._failures)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._running:  # one that swallowed its cancellation may start another one
            await end_tasks(self._running)
        if error is None:
            self._look()
