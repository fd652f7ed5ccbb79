"""`FleetSync`: the client for scripts and notebooks, whose calls return when they are done.

Its event loop runs in a thread of its own. So it works where a loop runs already, as in a notebook.
"""

import asyncio
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from ..messages import Request
from .asking import EMPTY, How, HttpHow, Mode, RequestHow, check_map
from .blocking_reads import BlockingReads
from .errors import Closed, as_raised
from .fleet import DEADLINE, MAP_DEADLINE, PATIENCE, Fleet
from .http import HttpAnswer
from .many import counted
from .results import Answer, Result
from .stream import Results

T = TypeVar("T")


class FleetSync(BlockingReads):
    """The fleet at a RabbitMQ. The first call opens it; ``with``, `close` or the program's end closes it.

    It may be used by several threads.

    Args:
        url: RabbitMQ's address; without it that of ``FLEET_BROKER_URL``, else this machine's.
        deadline: of requests that name none.
        patience: how long to try to connect, when it opens.
    """

    def __init__(self, url: str = "", *, deadline: timedelta = DEADLINE, patience: timedelta = PATIENCE) -> None:
        self._make: Callable[[], Fleet] = lambda: Fleet(url, deadline=deadline, patience=patience)
        self._fleet = self._make()
        self._opening = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] | None = None
        self._closed = False
        self._process = os.getpid()

    def __enter__(self) -> Self:
        """Connects; raises as `Fleet` does."""
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection."""
        self.close()

    def close(self) -> None:
        """Closes the connection. Calls of other threads that are still under way end in `Closed`."""
        with self._opening:
            self._closed = True
            if self._end is not None:
                self._end()

    def read(self, method: str, args: Mapping[str, Any], mode: Mode, how: How) -> Any:
        """Asks for a read by its name and its arguments' names."""
        return self._run(self._fleet.read(method, args, mode, how))

    @overload
    def request(
        self, method: str, args: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[RequestHow]
    ) -> Answer: ...

    @overload
    def request(
        self, method: str, args: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[RequestHow]
    ) -> list[Answer]: ...

    def request(
        self, method: str, args: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[RequestHow]
    ) -> Answer | list[Answer]:
        """Asks, and returns the whole result; see `Fleet.request`."""
        if mode == "all":
            return self._run(self._fleet.request(method, args, mode="all", **how))
        return self._run(self._fleet.request(method, args, **how))

    def http(
        self, url: str, *, exchanges: str | Sequence[str], post: str | None = None, **how: Unpack[HttpHow]
    ) -> HttpAnswer:
        """Has the fleet make one HTTP call of an exchange's public API; see `Fleet.http`."""
        return self._run(self._fleet.http(url, exchanges=exchanges, post=post, **how))

    def map(
        self,
        requests: Iterable[Request],
        *,
        concurrency: int = 100,
        deadline: timedelta | datetime = MAP_DEADLINE,
        progress: bool = False,
    ) -> Iterator[Answer]:
        """Asks for many at once, and gives the results as they come; see `Fleet.map`."""
        check_map(requests, concurrency, deadline)
        came: queue.SimpleQueue[Future[list[Answer]]] = queue.SimpleQueue()
        source, under_way = iter(requests), set[Future[list[Answer]]]()
        try:
            with counted(requests, shown=progress) as count:
                while True:
                    while len(under_way) < concurrency and (request := next(source, None)) is not None:
                        future = self._submit(self._fleet.ask(request, deadline=deadline))
                        under_way.add(future)
                        future.add_done_callback(came.put)
                    if not under_way:
                        return
                    done = came.get()
                    under_way.discard(done)
                    for answer in done.result():
                        count(answer)
                        yield answer
        finally:
            for future in under_way:
                future.cancel()

    def results(self, pattern: str = "#") -> Iterator[Result]:
        """The stream of results by their keys; see `Fleet.results`. It is opened at once, and never ends by itself."""

        async def begin() -> Results:
            return await self._fleet.results(pattern).__aenter__()

        stream = self._run(begin())

        def come() -> Iterator[Result]:
            try:
                while True:
                    try:
                        yield self._run(stream.__anext__())
                    except StopAsyncIteration:
                        return
            finally:
                with contextlib.suppress(Closed):  # then it is over already
                    self._run(stream.aclose())

        return come()

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._process != os.getpid():
            raise as_raised(Closed)("made in another process: a fork has no connection; make a FleetSync of its own")
        with self._opening:
            if self._closed:
                raise as_raised(Closed)("closed: make another FleetSync")
            if self._loop is None:
                self._loop = self._start()
            return self._loop

    def _start(self) -> asyncio.AbstractEventLoop:
        """Starts the thread and connects."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_live, args=(loop,), name="ccxt-fleet", daemon=True)
        thread.start()
        opening = asyncio.run_coroutine_threadsafe(self._fleet.__aenter__(), loop)
        try:
            opening.result()
        except BaseException:
            opening.cancel()
            _stop(loop, thread)
            self._fleet = self._make()
            raise
        # Also when it is forgotten, and at the program's end.
        finalize: Any = weakref.finalize
        self._end = finalize(self, _close, loop, thread, self._fleet, os.getpid())
        return loop

    def _submit(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            return asyncio.run_coroutine_threadsafe(call, self._open())
        except BaseException:
            call.close()
            raise

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        """Runs a call to its end; what interrupts the wait (Ctrl-C) cancels it."""
        future = self._submit(call)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _live(loop: asyncio.AbstractEventLoop) -> None:
    """The thread: runs the loop until it is stopped. Only here it can be closed: the caller may be in another loop."""
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, fleet: Fleet, process: int) -> None:
    if process != os.getpid():  # a fork has neither the thread nor the connection
        return
    closing = asyncio.run_coroutine_threadsafe(fleet.__aexit__(None, None, None), loop)
    if threading.current_thread() is thread:  # it was forgotten there, in an error's traceback
        closing.add_done_callback(lambda _: loop.stop())
        return
    closing.result()
    _stop(loop, thread)


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
