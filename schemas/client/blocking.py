"""`FleetSync`: the client for scripts and notebooks, whose calls return when they are done.

Its event loop runs in a thread of its own. So it works where a loop runs already, as in a notebook.
"""

import asyncio
import itertools
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
from ..runtime.tasks import end_tasks
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
        self._turn = threading.RLock()  # also for a signal's handler that closes it while it opens
        self._life: _Life | None = None
        self._forgotten: Any = None
        self._closed = False
        self._process = os.getpid()

    def __enter__(self) -> Self:
        """Connects; raises as `Fleet` does."""
        with self._turn:
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection."""
        self.close()

    def close(self) -> None:
        """Closes the connection. Calls of other threads that are still under way end in `Closed`."""
        with self._turn:
            self._closed = True
            if self._life is not None and self._forgotten.detach() is not None:
                self._life.end(self._fleet, wait=True)

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

    def begin_http(
        self, url: str, *, exchanges: str | Sequence[str], post: str | None = None, **how: Unpack[HttpHow]
    ) -> Future[HttpAnswer]:
        """Begins an HTTP call and returns its future, for those with an event loop of their own; see `Fleet.http`."""
        return self._submit(self._fleet.http(url, exchanges=exchanges, post=post, **how))

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
                    for request in itertools.islice(source, concurrency - len(under_way)):
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

        stream, life = self._run(begin()), self._life
        assert life is not None

        def come() -> Iterator[Result]:
            try:
                while True:
                    try:
                        yield self._run(stream.__anext__())
                    except StopAsyncIteration:
                        return
            finally:  # perhaps for the garbage collector, which may be in any thread, also in the loop's
                life.begin(stream.aclose())

        return come()

    def _open(self) -> "_Life":
        """Opens it where it is not; the caller has the turn."""
        if self._process != os.getpid():
            raise as_raised(Closed)("made in another process: a fork has no connection; make a FleetSync of its own")
        if self._closed:
            raise as_raised(Closed)("closed: make another FleetSync")
        if self._life is None:
            life = _Life()
            try:
                _result(life.submit(self._fleet.__aenter__()))
            except BaseException:
                life.stop()
                self._fleet = self._make()
                raise
            # Also when it is forgotten, and at the program's end.
            finalize: Any = weakref.finalize
            self._forgotten = finalize(self, _forget, life, self._fleet)
            self._life = life
        return self._life

    def _submit(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            with self._turn:  # after `close` it would never run
                return self._open().submit(call)
        except BaseException:
            call.close()
            raise

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return _result(self._submit(call))


class _Life:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        # Only in its thread the loop can be closed: the caller may be in another loop.
        self._thread = threading.Thread(target=_live, args=(self._loop,), name="ccxt-fleet", daemon=True)
        self._thread.start()

    def submit(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs a call; raises RuntimeError where the loop is over."""
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def begin(self, call: Coroutine[Any, Any, None]) -> None:
        """Runs a call for whose end nobody waits, where the loop is there still."""
        if self._process != os.getpid():  # a fork has neither the thread nor the connection
            return call.close()
        try:
            self.submit(call)
        except RuntimeError:
            call.close()
        return None

    def end(self, fleet: Fleet, *, wait: bool) -> None:
        """Closes the connection and ends the thread."""
        if self._process != os.getpid():
            return
        closing = self.submit(fleet.__aexit__(None, None, None))
        closing.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        if wait:
            self._thread.join()
            closing.result()

    def stop(self) -> None:
        """Ends the thread, with all that runs there."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def _live(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(end_tasks(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _forget(life: _Life, fleet: Fleet) -> None:
    """Ends what nobody has any more.

    The garbage collector may call this in any thread, and inside any lock: it must not wait. At the program's end
    somebody has to, as the thread would end with it; `threading` counts the main thread as ended by then.
    """
    life.end(fleet, wait=not threading.main_thread().is_alive())


def _result(future: Future[T]) -> T:
    """What a call returns; whatever interrupts the wait (Ctrl-C) cancels it."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
