"""A program's way to the fleet: every read of ccxt as a method, whole results, and many requests at once."""

import asyncio
import logging
import math
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, Unpack, overload

from .. import topology
from ..config import BrokerConfig, broker_urls
from ..messages import Request
from . import asking
from .asking import EMPTY, All, How, HttpHow, Mode, RequestHow
from .errors import Closed, as_raised
from .http import HttpAnswer
from .many import Requests, counted, mapped
from .post import Letter, Post
from .reads import Reads
from .results import Answer
from .stream import Results

# Errors say what goes wrong; the logs are for programs that set logging up.
for _name in (__name__.partition(".")[0], "aio_pika", "aiormq"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

DEADLINE: Final = timedelta(seconds=30)
MAP_DEADLINE: Final = timedelta(minutes=10)
PATIENCE: Final = timedelta(seconds=10)


class Fleet(Reads):
    """The fleet at a RabbitMQ, open within ``async with``; in one event loop, and in one process.

    Args:
        url: RabbitMQ's address; for a cluster several, with commas between them. Without it the address is that of
            ``FLEET_BROKER_URL``, else this machine's.
        deadline: of requests that name none.
        patience: how long to try to connect, when it opens.

    Raises:
        ConfigError: the address is none.
        TypeError: an argument is of another type.
    """

    def __init__(self, url: str = "", *, deadline: timedelta = DEADLINE, patience: timedelta = PATIENCE) -> None:
        asking.expect("url", url, str, "a text like amqp://user:password@host:5672/")
        asking.check_duration("deadline", deadline)
        asking.check_duration("patience", patience)
        where = "Fleet's url" if url else "FLEET_BROKER_URL in the environment"
        said = url or os.environ.get("FLEET_BROKER_URL", "")
        urls = broker_urls(where, said) if said else BrokerConfig().urls
        patience_s = patience.total_seconds()
        self._config = BrokerConfig(urls=urls, patience_s=patience_s, give_up_s=math.inf, declare=False)
        self._deadline = deadline
        self._ids = asking.Ids()
        self._streams: list[Results] = []
        self._post: Post | None = None
        self._where: tuple[asyncio.AbstractEventLoop, int] | None = None

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            NotConnected: RabbitMQ does not answer; the message says where it was looked for.
            NotAllowed: RabbitMQ does not let us in.
        """
        if self._where is not None:
            raise as_raised(Closed)("this Fleet was opened before; make another one")
        self._where = (asyncio.get_running_loop(), os.getpid())
        post = Post(self._config, f"client {Path(sys.argv[0]).name or 'python'}")
        await post.open()
        self._post = post
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection. Calls that are still under way end in `Closed`."""
        assert self._post is not None
        async with AsyncExitStack() as closing:  # each, whatever becomes of those before it
            closing.push_async_callback(self._post.close)
            for stream in self._streams:
                closing.push_async_callback(stream.aclose)

    @overload
    async def request(
        self, method: str, args: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[RequestHow]
    ) -> Answer: ...

    @overload
    async def request(
        self, method: str, args: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[RequestHow]
    ) -> list[Answer]: ...

    async def request(
        self, method: str, args: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[RequestHow]
    ) -> Answer | list[Answer]:
        """Asks, and returns the whole result: data or error, the exchange, all attempts, when it came and went.

        Args:
            method: a ccxt read in snake_case.
            args: its arguments by their names.
            mode: ``any`` for one answer; ``all`` for a list with the result of each exchange.
            how: see `How`.

        Raises:
            NoDispatcher, NotAllowed, Closed: it could not be asked.
        """
        asking.check_names("request", how)
        answers = await self.ask(asking.request_of(method, args, mode=mode, **how))
        return answers if mode == "all" else answers[0]

    async def http(
        self, url: str, *, exchanges: str | Sequence[str], post: str | None = None, **how: Unpack[HttpHow]
    ) -> HttpAnswer:
        """Has the fleet make one HTTP call of an exchange's public API, and returns the exchange's answer.

        Args:
            url: the whole address, with its query.
            exchanges: the exchange whose API it is.
            post: what is sent with a POST, for the reads that an exchange has no GET for; None for a GET.
            how: see `HttpHow`.

        Raises:
            RequestFailed: there is no answer of the exchange, or none that speaks of the call.
            NoDispatcher, NotAllowed, Closed: it could not be asked.
        """
        asking.check_names("http", how, asking.HTTP_NAMES)
        answers = await self.ask(asking.call_of(url, exchanges, post, **how))
        return HttpAnswer.of(answers[0].get(), answers[0].age_ms)

    async def map(
        self,
        requests: Requests,
        *,
        concurrency: int = 100,
        deadline: timedelta | datetime = MAP_DEADLINE,
        progress: bool = False,
    ) -> AsyncGenerator[Answer, None]:
        """Asks for many at once, and gives the results as they come; each has its `request`.

        An error of one request is a result like any other. While RabbitMQ's queue is full, or the connection away,
        requests wait.

        Args:
            requests: taken one by one, as there is room.
            concurrency: how many are under way.
            deadline: of requests that name none, from when each is taken.
            progress: whether to show a bar, where rich is installed.

        Raises:
            NoDispatcher, NotAllowed, Closed: nothing can be asked.
            TypeError, ValueError: something else than requests, or a number below 1.
        """
        asking.check_map(requests, concurrency, deadline)
        async with aclosing(mapped(lambda each: self.ask(each, deadline=deadline), requests, concurrency)) as answers:
            with counted(requests, shown=progress) as count:
                async for answer in answers:
                    count(answer)
                    yield answer

    def results(self, pattern: str = "#") -> Results:
        """The stream of results that go to `fleet.results`: those without a `reply_to`, and those that found none.

        Args:
            pattern: of keys ``<exchange>.<method>.<ok or error>``, as in ``binance.fetch_trades.*``.

        Raises:
            ValueError: no key fits the pattern.
        """
        asking.expect("pattern", pattern, str, "a text")
        topology.check_pattern(pattern)
        self._open()
        self._streams = [each for each in self._streams if not each.ended]
        self._streams.append(stream := Results(self._config, pattern))
        return stream

    async def ask(self, request: Request, *, deadline: timedelta | datetime | None = None) -> list[Answer]:
        """Asks what a request says; the results, one but for a request to ``all``. See `request` for errors.

        Args:
            request: with or without an id and a deadline.
            deadline: where the request has none; without it the client's.
        """
        post = self._open()
        request = asking.sent(request, self._ids, self._deadline if deadline is None else deadline)
        body = asking.encoded(request)
        return [body] if isinstance(body, Answer) else await post.ask(Letter(request, body))

    async def read(self, method: str, args: Mapping[str, Any], mode: Mode, how: How) -> Any:
        """Asks for a read by its name and its arguments' names: the data, or with ``all`` the data of each."""
        asking.check_names(method, how)
        answers = await self.ask(asking.request_of(method, args, mode=mode, **how))
        if mode == "any":
            return answers[0].get()
        return All[Any].of(answers)

    def _open(self) -> Post:
        if self._post is None or self._where is None:
            raise as_raised(Closed)("not open: use it within `async with Fleet(...) as fleet:`")
        loop, process = self._where
        if process != os.getpid():
            raise as_raised(Closed)("opened in another process: a fork has no connection; open a Fleet of its own")
        if loop is not asyncio.get_running_loop():
            raise as_raised(Closed)("opened in another event loop: open one Fleet in each, or use FleetSync")
        if self._post.closed:
            raise as_raised(Closed)("closed: its `async with` block is over")
        return self._post
