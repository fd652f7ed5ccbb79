"""What `call`, `map` and `tail` do: requests from words and lines, through the client, and results for people."""

import asyncio
import contextlib
import difflib
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
import typer
from msgspec import Struct, field, json

from .. import http_calls, methods
from ..client.errors import NoDispatcher, NotAllowed, NotConnected
from ..client.fleet import Fleet
from ..explained import explained
from ..messages import ErrorCode, Request, Result
from ..runtime import clock, permanent
from ..urls import place
from . import output, servers
from .servers import ServerAway

PIECE_BYTES: Final = 65_536
_CHANGE: Final = "the same one would fail again: change it"
_OPERATOR: Final = "whoever runs the fleet has to act"
_LATER: Final = "trying again later may help"
# Who has to act after an error, and whether the same request may succeed later; docs/messages.md says it at length.
ACTS: Final[dict[ErrorCode, str]] = {
    ErrorCode.UNREADABLE: _CHANGE,
    ErrorCode.INVALID_REQUEST: _CHANGE,
    ErrorCode.TOO_LARGE: "ask for less",
    ErrorCode.UNKNOWN_EXCHANGE: "name another one, or have whoever runs the fleet add it",
    ErrorCode.METHOD_NOT_ALLOWED: _CHANGE,
    ErrorCode.NOT_SUPPORTED: "other exchanges may have it",
    ErrorCode.INVALID_ARGUMENTS: _CHANGE,
    ErrorCode.BAD_SYMBOL: "another symbol, or other exchanges",
    ErrorCode.DEADLINE_EXCEEDED: "trying again, or a later --deadline, may help",
    ErrorCode.ATTEMPTS_EXHAUSTED: "the attempts say why; trying again later may help",
    ErrorCode.NO_BUDGET: _LATER,
    ErrorCode.PAUSED: _LATER,
    ErrorCode.EXPIRED: f"{_LATER}; if it lasts, there are too few workers",
    ErrorCode.RATE_LIMITED: _LATER,
    ErrorCode.EXCHANGE_UNAVAILABLE: _LATER,
    ErrorCode.EXCHANGE_TIMEOUT: _LATER,
    ErrorCode.EXCHANGE_ERROR: "the exchange refused this very request",
    ErrorCode.MAINTENANCE: _LATER,
    ErrorCode.BAD_RESPONSE: _LATER,
    ErrorCode.AUTHENTICATION: _OPERATOR,
    ErrorCode.CLOCK: f"{_OPERATOR}: the clocks of the workers' machines, or the key's other users",
    ErrorCode.RESTRICTED: f"{_OPERATOR}: another address",
    ErrorCode.DELIVERY_LIMIT: f"{_OPERATOR}: see `ccxt-fleet dead list` and the workers' logs",
    ErrorCode.INTERNAL: "a fault of ours; the worker's log has more",
}

_BY_NAME: Final = {name.replace("_", ""): name for name in methods.PUBLIC_READS | methods.PRIVATE_READS}


def arguments(symbol: str | None, given: Sequence[str]) -> dict[str, Any]:
    """The arguments of a read: the symbol, and ``name=value``; a value that is no JSON is a text.

    Raises:
        typer.BadParameter: one has another form, or stands there twice.
    """
    args: dict[str, Any] = {} if symbol is None else {"symbol": symbol}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"--arg: expected name=value, as limit=5, not {output.plain(each[:80])!r}")
        if name in args:
            raise typer.BadParameter(f"--arg: {name} stands there twice")
        try:
            args[name] = json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            args[name] = text
    return args


def names(given: Sequence[str] | None) -> list[str]:
    """Exchanges' names, of which one word may hold several, with commas between."""
    return [name.strip() for each in given or () for name in each.split(",")]


def unknown_word(word: str, options: Sequence[str]) -> str:
    """What to say of a word that `call` does not know: another option may be meant, or an argument of the read."""
    word = output.plain(word[:80])
    if not word.startswith("-"):
        return f"{word!r}: beside its symbol a read's arguments go by name, as in --arg timeframe=1h"
    near = difflib.get_close_matches(word.partition("=")[0], options, 1, 0.75)
    meant = f"; is {near[0]} meant?" if near else "; an argument of the read goes by name, as in --arg limit=5"
    return f"no such option: {word}{meant}"


def request(
    method: str,
    args: Mapping[str, Any],
    *,
    exchanges: Sequence[str],
    everyone: bool,
    account: str | None,
    strategy: str | None,
    deadline_s: float,
    bulk: bool,
    hedge_s: float | None,
    max_age_ms: int | str | None,
) -> Request:
    """The request of a command's words.

    Raises:
        typer.BadParameter: it can't be asked; says what may be meant.
    """
    method = _BY_NAME.get(method.lower(), method)  # fetchTicker, as in ccxt's other languages
    if why := methods.refusal(method, account=account is not None):
        near = difflib.get_close_matches(method, _BY_NAME.values(), 1, 0.75)
        meant = f"; perhaps {near[0]}" if near and near[0] != method else ""
        raise typer.BadParameter(f"{output.plain(why[:300])}{meant}")
    return _converted(
        {
            "method": method,
            "args": dict(args),
            "exchanges": list(exchanges),
            "exchanges_mode": "all" if everyone else "any",
            "account": account,
            **_how(strategy, deadline_s, hedge_s, max_age_ms, bulk=bulk),
        }
    )


def call(
    address: str,
    *,
    exchanges: Sequence[str],
    post: str | None,
    strategy: str | None,
    deadline_s: float,
    bulk: bool,
    hedge_s: float | None,
    max_age_ms: int | None,
) -> Request:
    """The request for an HTTP call of a command's words.

    Raises:
        typer.BadParameter: it can't be asked; says why.
    """
    of = {"url": address} if post is None else {"url": address, "method": "POST", "body": post}
    made = _converted(
        {
            "http": of,
            "exchanges": list(exchanges),
            **_how(strategy, deadline_s, hedge_s, max_age_ms, bulk=bulk),
        }
    )
    assert made.http is not None
    if reason := http_calls.refusal(made.http):
        raise typer.BadParameter(output.plain(reason))
    return made


def _converted(fields: Mapping[str, Any]) -> Request:
    try:
        made = msgspec.convert(fields, Request)
        json.encode(made)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(explained(error, Request)) from None
    except UnicodeEncodeError:
        raise typer.BadParameter("expected text in UTF-8") from None
    return made


def _how(
    strategy: str | None, deadline_s: float, hedge_s: float | None, max_age_ms: int | str | None, *, bulk: bool
) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "deadline_ms": int((time.time() + deadline_s) * 1000),
        "priority": "bulk" if bulk else "live",
        "hedge_ms": None if hedge_s is None else max(1, round(hedge_s * 1000)),
        "max_age_ms": max_age_ms,
    }


@contextlib.asynccontextmanager
async def client(urls: tuple[str, ...]) -> AsyncGenerator[Fleet, None]:
    """The client that commands ask through.

    Raises:
        ServerAway: RabbitMQ can't be reached, or refuses, or no fleet was ever started there.
    """
    async with servers.rabbitmq(urls):  # the client would go on trying for a while; whoever types wants to know
        pass
    try:
        async with Fleet(",".join(urls), patience=timedelta(seconds=servers.TIMEOUT_S)) as fleet:
            yield fleet
    except NotConnected as error:
        at = place(urls[0])
        raise ServerAway(f"RabbitMQ at {at}: {permanent.words(error)}\n{servers.HINT}") from error
    except NotAllowed as error:  # its cause has not the hint for those who write programs
        raise ServerAway(f"{error.__cause__ or error}\n--url or FLEET_BROKER_URL names another") from error
    except NoDispatcher as error:
        raise ServerAway(str(error)) from error


async def ask(urls: tuple[str, ...], what: Request) -> Sequence[Result]:
    """The results of a request, one but for a request to all.

    Raises:
        ServerAway: it could not be asked.
    """
    async with client(urls) as fleet:
        return await fleet.ask(what)


def told(result: Result) -> str:
    """An error for people: what happened, all attempts, and who has to act."""
    assert result.error is not None
    who = f"{result.exchange}: " if result.exchange else ""
    lines = [f"{who}{result.error.code}: {result.error.message}"]
    for each in result.attempts:
        told_already = (each.code, each.message) == (result.error.code, result.error.message)
        said = f" {each.code}: {each.message}" if each.code and not told_already else ""
        spent = f"{each.waited_ms:.0f} ms for budget, {each.exchange_ms:.0f} ms at the exchange"
        lines.append(f"  {each.lane} {each.outcome}{said} ({spent})")
    lines.append(f"request {result.id}: {ACTS[result.error.code]}")
    return "\n".join(lines)


def how(result: Result) -> str:
    """Where an answer came from, and how long that took."""
    failed = [each.lane for each in result.attempts if each.outcome != "ok"]
    after = f", after {output.many(len(failed), 'attempt')} at {', '.join(dict.fromkeys(failed))}" if failed else ""
    shared = "" if result.age_ms is None else f", shared and {result.age_ms} ms old"
    return f"{result.lane} answered in {result.completed_ms - result.received_ms} ms{after}{shared}"


class Counted(Struct):
    """How a run of `map` went.

    Attributes:
        begun_s: when it began, by the monotonic clock.
        ok: answers with data.
        codes: errors, by code.
        lines: lines that are no request.
    """

    begun_s: float = field(default_factory=clock.clock_s)
    ok: int = 0
    codes: Counter[str] = field(default_factory=Counter[str])
    lines: int = 0

    @property
    def wrong(self) -> int:
        """How many did not get data."""
        return self.codes.total() + self.lines

    def took(self, result: Result) -> None:
        """Counts a result."""
        if result.error is None:
            self.ok += 1
        else:
            self.codes[result.error.code] += 1

    def told(self) -> str:
        """The end of the run, for people."""
        parts = [f"{self.ok:,} ok", *(f"{count:,} {code}" for code, count in self.codes.most_common())]
        if self.lines:
            parts.append(f"{self.lines:,} lines are no request")
        return f"{', '.join(parts)} in {output.duration(clock.clock_s() - self.begun_s)}"


@contextlib.contextmanager
def opened(file: str) -> Generator[TextIO, None, None]:
    """The lines of a file, or of standard input for ``-``.

    Raises:
        typer.Exit: it can't be read.
    """
    if file == "-":
        yield sys.stdin
        return
    try:
        lines = Path(file).open(encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 (closed below)
    except (OSError, ValueError) as error:
        output.fail(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}", output.USAGE)
    with lines:
        yield lines


class Requests:
    """The requests in lines of JSON.

    Args:
        lines: a file.
        otherwise: fields for requests that do not have them.

    Attributes:
        wrong: how many lines were none.
    """

    def __init__(self, lines: TextIO, otherwise: Mapping[str, Any]) -> None:
        self._lines = lines
        self._otherwise = {name: value for name, value in otherwise.items() if value or value == 0}
        self.wrong = 0

    async def each(self) -> AsyncGenerator[Request, None]:
        """Reads on as far as requests are taken: the file may be a pipe without an end."""
        number = 0
        async for line in _read(self._lines.fileno()):
            number += 1
            if not line.strip():
                continue
            try:
                fields = json.decode(line, type=dict[str, Any])
                given = {name: value for name, value in fields.items() if value is not None}
                found = msgspec.convert({**self._otherwise, **given}, Request)
            except (msgspec.ValidationError, msgspec.DecodeError, UnicodeError, RecursionError) as error:
                self.wrong += 1
                why = explained(error, Request) if isinstance(error, msgspec.ValidationError) else str(error)
                output.say(f"line {number} is no request: {why}")
                continue
            if not found.method and found.http is None:
                self.wrong += 1
                output.say(f"line {number} is no request: expected `method`, or `http`")
                continue
            yield found


async def _read(number: int) -> AsyncGenerator[bytes, None]:
    """The lines of an open file. A pipe may be silent for ever: Ctrl-C ends the wait, and would not end a thread's."""
    left = b""
    while piece := await _piece(number):
        *whole, left = (left + piece).split(b"\n")
        for line in whole:
            yield line
    if left:
        yield left


async def _piece(number: int) -> bytes:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(number, ready.set)
    except PermissionError:  # a file on a disk makes nobody wait
        return os.read(number, PIECE_BYTES)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(number)
    return os.read(number, PIECE_BYTES)


async def map_all(
    urls: tuple[str, ...], asked: Requests, *, deadline_s: float, concurrency: int, whole: bool
) -> Counted:
    """Prints the results of requests as they come.

    Args:
        urls: RabbitMQ's.
        asked: the requests.
        deadline_s: of those that name none.
        concurrency: how many are under way.
        whole: whether all of a result is printed; else its id with the data or the error.

    Raises:
        ServerAway: nothing can be asked.
    """
    counted = Counted()
    async with client(urls) as fleet:
        with _progress(counted) as shown:
            deadline = timedelta(seconds=deadline_s)
            answers = fleet.map(asked.each(), concurrency=concurrency, deadline=deadline)
            async with contextlib.aclosing(answers) as results:
                async for result in results:
                    counted.took(result)
                    output.show_json_line(plain(result) if whole else short(result))
                    shown()
    counted.lines = asked.wrong
    return counted


def plain(result: Result) -> dict[str, Any]:
    """A result as docs/messages.md has it, without what the client adds."""
    return {name.name: getattr(result, name.name) for name in msgspec.structs.fields(Result)}


def short(result: Result) -> dict[str, Any]:
    """A result's id with the data, or with the error."""
    if result.error is None:
        return {"id": result.id, "exchange": result.exchange, "data": result.data}
    return {"id": result.id, "exchange": result.exchange, "error": result.error}


@contextlib.contextmanager
def _progress(counted: Counted) -> Generator[Callable[[], None], None, None]:
    """A line on standard error that counts, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True, no_color=not output.colours())
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        task = progress.add_task("asking")

        def shown() -> None:
            rate = (counted.ok + counted.wrong) / max(clock.clock_s() - counted.begun_s, 0.001)
            progress.update(task, description=f"{counted.ok:,} ok, {counted.wrong:,} errors, {rate:,.0f} a second")

        yield shown


async def follow(urls: tuple[str, ...], pattern: str, times: int | None, *, as_json: bool) -> None:
    """Prints results from the stream, until Ctrl-C or for so many times.

    Args:
        urls: RabbitMQ's.
        pattern: which.
        times: how many; None for no end.
        as_json: whether each is printed as JSON.

    Raises:
        ServerAway: it can't be read.
    """
    seen = 0
    async with client(urls) as fleet, fleet.results(pattern) as results:
        if output.talks():
            output.say(f"reading {pattern} of fleet.results, until Ctrl-C")
        async for result in results:
            if as_json:
                output.show_json_line(plain(result))
            else:
                output.out(output.plain(line_of(result)))
            seen += 1
            if seen == times:
                return


def line_of(result: Result) -> str:
    """A result in one line."""
    came = output.when(result.completed_ms).removesuffix("+00:00")
    took = f"{result.completed_ms - result.received_ms} ms"
    says = "ok" if result.error is None else f"{result.error.code}: {result.error.message}"
    return f"{came}  {result.exchange or 'none'}  {result.method}  {took}  {result.id}  {says}"
