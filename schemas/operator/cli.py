"""The command line: ``python -m schemas`` in the checkout, ``python -m ccxt_fleet`` where the package is installed."""

import asyncio
import datetime
import functools
import inspect
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import aio_pika
import msgspec
import redis.asyncio
import typer

from .. import old_names
from ..config import BrokerConfig, RedisConfig, broker_urls, load
from ..config import redis_url as redis_url_in
from ..definitions import definitions as make_definitions
from ..errors import ConfigError
from ..runtime import modules, store
from . import door, pauses, services
from .browsing import DeadLetters, Held
from .dead import Filter, Letter

app = typer.Typer(
    no_args_is_help=True,
    help="Commands for operators and users of the fleet.",
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they may contain a password
)
dead = typer.Typer(
    no_args_is_help=True, help="Dead letters, the messages in fleet.dead: list them, replay them, drop them."
)
services.register(app)
app.add_typer(dead, name="dead")
pausing = typer.Typer(no_args_is_help=True, help="Pauses that exchanges asked for: list them, end them.")
app.add_typer(pausing, name="pause")
requests = typer.Typer(no_args_is_help=True, help="Requests: take no more of them.")
app.add_typer(requests, name="requests")

Keys = Annotated[list[str] | None, typer.Argument(help="keys of letters, or their beginnings, as `list` shows them")]
Reason = Annotated[str | None, typer.Option(help="only letters with this reason")]
Origin = Annotated[str | None, typer.Option(help="only letters from this queue")]
RequestId = Annotated[str | None, typer.Option("--request", help="only letters of the request with this id")]
Older = Annotated[float | None, typer.Option("--older-than-s", help="only letters older than so many seconds")]
Everything = Annotated[bool, typer.Option("--all", help="all letters: needed where nothing else selects some")]
After = Annotated[str, typer.Option(help="only letters behind the one with this key, or its beginning")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most so many letters, the oldest")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only show what would be done")]


def _checked(url: str) -> str:
    try:
        return broker_urls("--url, or FLEET_BROKER_URL", url)[0]
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


Url = Annotated[  # not shown as the default: there may be a password in it
    str,
    typer.Option(
        show_default=False, callback=_checked, help="RabbitMQ; by default FLEET_BROKER_URL, else this machine's"
    ),
]

URL: Final = os.environ.get("FLEET_BROKER_URL", BrokerConfig().urls[0])


def _checked_redis(url: str) -> str:
    try:
        return redis_url_in("--redis-url, or FLEET_REDIS_URL", url)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


RedisUrl = Annotated[
    str,
    typer.Option(
        show_default=False, callback=_checked_redis, help="Redis; by default FLEET_REDIS_URL, else this machine's"
    ),
]
REDIS_URL: Final = os.environ.get("FLEET_REDIS_URL", RedisConfig().url)
REDIS_TIMEOUT_S: Final = 5.0


class Selection(NamedTuple):
    """The letters that a command works on: those that match, behind the one with the key `after`, at most `limit`."""

    wanted: Filter
    after: str = ""
    limit: int | None = None


def _select(
    keys: Keys = None,
    reason: Reason = None,
    origin: Origin = None,
    request_id: RequestId = None,
    older_than_s: Older = None,
    after: After = "",
    limit: Limit = None,
) -> Selection:
    before_ms = None if older_than_s is None else int((time.time() - older_than_s) * 1000)
    return Selection(Filter(keys or (), reason, origin, request_id, before_ms), after, limit)


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `_select`, in place of its first parameter, the selection."""
    options, own = (list(inspect.signature(each).parameters.values()) for each in (_select, command))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        selection = _select(**{option.name: given.pop(option.name) for option in options})
        command(selection, **given)

    parameters = [*options, *own[1:]]
    setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010 (which Typer reads)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


@app.callback()
def _main() -> None:
    """Makes Typer treat a single command as a subcommand."""


@app.command()
def definitions(
    config: Annotated[Path, typer.Option(help="the fleet's TOML file, for its lanes")] = modules.FLEET_TOML,
    vhost: Annotated[str, typer.Option(help="the virtual host")] = "/",
) -> None:
    """Queues, exchanges, users and permissions for `rabbitmqctl import_definitions`."""
    made = make_definitions(load(config).lanes, vhost)
    typer.echo(msgspec.json.format(msgspec.json.encode(made)).decode())


@requests.command()
def shut(url: Url = URL) -> None:
    """Has RabbitMQ refuse all requests, until a service starts or the definitions are imported again."""
    _run(door.shut(url))
    typer.echo("RabbitMQ refuses requests now")


@dead.command("list")
@_selecting
def list_letters(
    selection: Selection,
    url: Url = URL,
) -> None:
    """One line for each letter, oldest first."""
    typer.echo(_row("key", "came", "reason", "from", "request", "attempts", "bytes", "why"))
    last = ""

    async def line(_: DeadLetters, batch: list[Held]) -> None:
        nonlocal last
        for letter, _message in batch:
            attempts = "" if letter.attempts is None else str(letter.attempts)
            size, why = str(len(letter.body)), letter.message.splitlines()[0][:80] if letter.message else ""
            came, last = _time(letter.at_ms), letter.key
            typer.echo(_row(last, came, letter.reason, letter.origin, letter.request_id, attempts, size, why))

    found = _each(url, selection, line)
    typer.echo(f"{found} dead letters" + (f"; what follows: --after {last}" if found == selection.limit else ""))


@dead.command()
def show(key: Annotated[str, typer.Argument(help="a letter's key, or how it begins")], url: Url = URL) -> None:
    """One letter in full, with the request in it."""

    async def all_of(_: DeadLetters, batch: list[Held]) -> None:
        letter = batch[0][0]
        for name in ("key", "reason", "message", "origin", "request_id", "attempts", "content_type", "reply_to"):
            typer.echo(f"{name:<14} {_plain(str(getattr(letter, name)))}")
        typer.echo(f"{'came':<14} {_time(letter.at_ms)}")
        for line in _body(letter).split("\n"):
            typer.echo(_plain(line))

    _each(url, Selection(Filter(keys=[key]), limit=1), all_of)


@dead.command()
@_selecting
def replay(
    selection: Selection,
    everything: Everything = False,
    dry_run: DryRun = False,
    url: Url = URL,
) -> None:
    """Publishes the requests in letters again, as new ones; letters that can't be read stay."""
    _check_selected(selection, everything)

    async def again(letters: DeadLetters, batch: list[Held]) -> None:
        async def one(letter: Letter, message: aio_pika.abc.AbstractIncomingMessage) -> str:
            fresh = letter.replay()
            if fresh is None:
                return "not readable, stays"
            if dry_run:
                return "to replay"
            await letters.publish(fresh)
            await letters.take(message)
            return "replayed"

        done = await asyncio.gather(*(one(*held) for held in batch), return_exceptions=True)
        for (letter, _message), what in zip(batch, done, strict=True):
            if isinstance(what, str):
                _say(what, letter)
        for what in done:
            if isinstance(what, BaseException):
                raise what

    _each(url, selection, again)


@dead.command()
@_selecting
def drop(
    selection: Selection,
    everything: Everything = False,
    dry_run: DryRun = False,
    url: Url = URL,
) -> None:
    """Removes letters for good."""
    _check_selected(selection, everything)

    async def gone(letters: DeadLetters, batch: list[Held]) -> None:
        for letter, message in batch:
            if not dry_run:
                await letters.take(message)
            _say("to drop" if dry_run else "dropped", letter)

    _each(url, selection, gone)


@pausing.command("list")
def list_pauses(
    exchange: Annotated[str, typer.Argument(help="only those of this exchange")] = "*", redis_url: RedisUrl = REDIS_URL
) -> None:
    """One line for each pause, the longest first."""
    exchange = old_names.today(exchange)
    found: list[pauses.Pause] = _at_redis(redis_url, lambda client: pauses.held(client, exchange))
    for each in found:
        _say_pause("paused", each)
    others = "" if found or exchange == "*" else _others(redis_url)
    typer.echo(f"{len(found)} pauses{others}")


@pausing.command()
def lift(
    exchange: Annotated[str, typer.Argument(help="the exchange")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    redis_url: RedisUrl = REDIS_URL,
) -> None:
    """Ends all pauses of an exchange, for all workers. Use it only if you know that it takes calls again."""
    if not exchange.replace("-", "").isalnum():  # it becomes part of a pattern
        raise typer.BadParameter(f"{exchange!r} is no exchange; `pause list` shows those that are paused")
    exchange = old_names.today(exchange)
    if not yes:
        typer.confirm(f"{exchange} asked for silence; calls before its time may bring a longer ban. Go on?", abort=True)
    ended: list[pauses.Pause] = _at_redis(redis_url, lambda client: pauses.lift(client, exchange))
    for each in ended:
        _say_pause("lifted", each)
    if not ended:
        typer.echo(f"no pause of {exchange}{_others(redis_url)}", err=True)
        raise typer.Exit(1)


def _others(redis_url: str) -> str:
    """What to say of the exchanges that have pauses where one has none: those of one host share theirs."""
    found: list[pauses.Pause] = _at_redis(redis_url, pauses.held)
    names = dict.fromkeys(each.exchange for each in found)
    return f"; paused: {', '.join(names)} (exchanges on one host share pauses)" if names else ""


def _at_redis(url: str, work: Callable[[redis.asyncio.Redis], Awaitable[Any]]) -> Any:
    async def do() -> Any:
        async with store.connect(url, timeout_s=REDIS_TIMEOUT_S) as client:
            return await work(client)

    try:
        return asyncio.run(do())
    except store.AWAY as error:
        typer.echo(f"Redis: {error}", err=True)
        raise typer.Exit(1) from error


def _say_pause(what: str, pause: pauses.Pause) -> None:
    place = pause.place.removeprefix("fleet:")
    length = f"{pause.left_s:.0f} s left" + (f" by {pause.source}" if pause.source else "")
    typer.echo(_plain(f"{what}: {place} {pause.bucket or 'all of it'}, {length}: {pause.reason}"))


def _check_selected(selection: Selection, everything: bool) -> None:
    if not everything and selection.wanted == Filter():
        raise typer.BadParameter(
            "select letters by key, --reason, --origin, --request or --older-than-s, or give --all"
        )


def _each(url: str, selection: Selection, work: Callable[[DeadLetters, list[Held]], Awaitable[None]]) -> int:
    """Works on the selected letters, a batch at a time; returns their number, and exits with 1 if there are none."""
    wanted, after, limit = selection

    async def each() -> int:
        found = 0
        async with DeadLetters.at(url, lambda why: typer.echo(why, err=True)) as letters:
            async for batch in letters.batches(wanted, after=after, limit=limit):
                await work(letters, batch)
                found += len(batch)
        return found

    found: int = _run(each())
    if not found:
        typer.echo("no such dead letter" if after or wanted != Filter() else "no dead letters", err=True)
        raise typer.Exit(1)
    return found


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except BrokenPipeError as error:  # as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python complains as it exits
        raise typer.Exit(1) from error
    except (OSError, aio_pika.exceptions.AMQPError) as error:
        typer.echo(f"RabbitMQ: {error}", err=True)
        raise typer.Exit(1) from error


def _say(what: str, letter: Letter) -> None:
    typer.echo(_plain(f"{what}: {letter.key} {letter.reason} {letter.origin} {letter.request_id}".rstrip()))


def _row(key: str, came: str, reason: str, origin: str, request: str, attempts: str, size: str, why: str) -> str:
    """Columns as wide as is usual for them: later letters are not known yet."""
    words = map(_plain, (key, came, reason, origin, request, attempts, size, why))
    widths = (12, 25, 14, 24, 32, 8, 6, 0)
    return "  ".join(f"{word:<{width}}" for word, width in zip(words, widths, strict=True)).rstrip()


def _plain(text: str) -> str:
    """Text from outside, on one line and without control characters for the terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _time(at_ms: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).isoformat(" ", "seconds") if at_ms else ""
    except (ValueError, OverflowError):  # anyone can write such a number; dates end with the year 9999
        return f"{at_ms} ms"


def _body(letter: Letter) -> str:
    attempt = letter.request()
    if attempt is None:
        return repr(letter.body)
    return msgspec.json.format(msgspec.json.encode(attempt, enc_hook=str)).decode()
