"""The command line: ``python -m schemas`` in the checkout, ``python -m ccxt_fleet`` where the package is installed."""

import asyncio
import datetime
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import aio_pika
import msgspec
import redis.asyncio
import typer

from ..config import BrokerConfig, RedisConfig, broker_urls, load
from ..config import redis_url as redis_url_in
from ..definitions import definitions as make_definitions
from ..errors import ConfigError
from ..runtime import store
from . import pauses
from .browsing import DeadLetters, Held
from .dead import Filter, Letter

app = typer.Typer(
    no_args_is_help=True,
    help="Programs for who runs or uses the fleet.",
    add_completion=False,
    pretty_exceptions_show_locals=False,  # there may be a password among them
)
dead = typer.Typer(no_args_is_help=True, help="What lies in fleet.dead: look at it, send it again, drop it.")
app.add_typer(dead, name="dead")
pausing = typer.Typer(no_args_is_help=True, help="Pauses that exchanges asked for: look at them, or end them.")
app.add_typer(pausing, name="pause")

Keys = Annotated[list[str] | None, typer.Argument(help="keys of letters, or how they begin, as `list` shows them")]
Reason = Annotated[str | None, typer.Option(help="only letters that are there for this reason")]
Origin = Annotated[str | None, typer.Option(help="only letters from this queue")]
RequestId = Annotated[str | None, typer.Option("--request", help="only letters of the request with this id")]
Older = Annotated[float | None, typer.Option("--older-than-s", help="only letters that came so many seconds ago")]
Everything = Annotated[bool, typer.Option("--all", help="all letters: needed where nothing else is said")]
After = Annotated[str, typer.Option(help="only letters behind the one with this key, or that begins so")]
Limit = Annotated[int | None, typer.Option(min=1, help="so many letters at most, the oldest")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and leave all as it is")]


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


@app.callback()
def _main() -> None:
    """Typer's way to have commands below commands while there is one alone."""


@app.command()
def definitions(
    config: Annotated[Path, typer.Option(help="the fleet's TOML file, for its lanes")] = Path("deploy/fleet.toml"),
    vhost: Annotated[str, typer.Option(help="the virtual host")] = "/",
) -> None:
    """Queues, exchanges, users and permissions for `rabbitmqctl import_definitions`."""
    made = make_definitions(load(config).lanes, vhost)
    typer.echo(msgspec.json.format(msgspec.json.encode(made)).decode())


@dead.command("list")
def list_letters(
    keys: Keys = None,
    reason: Reason = None,
    origin: Origin = None,
    request_id: RequestId = None,
    older_than_s: Older = None,
    after: After = "",
    limit: Limit = None,
    url: Url = URL,
) -> None:
    """One line for each letter, oldest first."""
    wanted = _filter(keys, reason, origin, request_id, older_than_s)
    typer.echo(_row("key", "came", "reason", "from", "request", "attempts", "bytes", "why"))
    last = ""

    async def line(_: DeadLetters, batch: list[Held]) -> None:
        nonlocal last
        for letter, _message in batch:
            attempts = "" if letter.attempts is None else str(letter.attempts)
            size, why = str(len(letter.body)), letter.message.splitlines()[0][:80] if letter.message else ""
            came, last = _time(letter.at_ms), letter.key
            typer.echo(_row(last, came, letter.reason, letter.origin, letter.request_id, attempts, size, why))

    found = _each(url, wanted, line, after=after, limit=limit)
    typer.echo(f"{found} dead letters" + (f"; what follows: --after {last}" if found == limit else ""))


@dead.command()
def show(key: Annotated[str, typer.Argument(help="a letter's key, or how it begins")], url: Url = URL) -> None:
    """All of one letter, and the request in it."""

    async def all_of(_: DeadLetters, batch: list[Held]) -> None:
        letter = batch[0][0]
        for name in ("key", "reason", "message", "origin", "request_id", "attempts", "content_type", "reply_to"):
            typer.echo(f"{name:<14} {_plain(str(getattr(letter, name)))}")
        typer.echo(f"{'came':<14} {_time(letter.at_ms)}")
        for line in _body(letter).split("\n"):
            typer.echo(_plain(line))

    _each(url, Filter(keys=[key]), all_of, limit=1)


@dead.command()
def replay(
    keys: Keys = None,
    reason: Reason = None,
    origin: Origin = None,
    request_id: RequestId = None,
    older_than_s: Older = None,
    after: After = "",
    limit: Limit = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    url: Url = URL,
) -> None:
    """Sends the requests in letters again, as new ones; those that still can't be read stay."""
    wanted = _filter(keys, reason, origin, request_id, older_than_s, everything=everything)

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

    _each(url, wanted, again, after=after, limit=limit)


@dead.command()
def drop(
    keys: Keys = None,
    reason: Reason = None,
    origin: Origin = None,
    request_id: RequestId = None,
    older_than_s: Older = None,
    after: After = "",
    limit: Limit = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    url: Url = URL,
) -> None:
    """Takes letters out for good."""
    wanted = _filter(keys, reason, origin, request_id, older_than_s, everything=everything)

    async def gone(letters: DeadLetters, batch: list[Held]) -> None:
        for letter, message in batch:
            if not dry_run:
                await letters.take(message)
            _say("to drop" if dry_run else "dropped", letter)

    _each(url, wanted, gone, after=after, limit=limit)


@pausing.command("list")
def list_pauses(
    exchange: Annotated[str, typer.Argument(help="only those of this exchange")] = "*", redis_url: RedisUrl = REDIS_URL
) -> None:
    """One line for each pause that holds, the longest first."""
    found: list[pauses.Pause] = _at_redis(redis_url, lambda client: pauses.held(client, exchange))
    for each in found:
        _say_pause("paused", each)
    typer.echo(f"{len(found)} pauses")


@pausing.command()
def lift(
    exchange: Annotated[str, typer.Argument(help="the exchange")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    redis_url: RedisUrl = REDIS_URL,
) -> None:
    """Ends all pauses of an exchange, for all workers. Only where you know that it takes calls again."""
    if not exchange.isalnum():  # it becomes a pattern
        raise typer.BadParameter(f"{exchange!r} is no exchange; `pause list` shows those that are paused")
    if not yes:
        typer.confirm(f"{exchange} asked for silence; calls before its time may bring a longer ban. Go on?", abort=True)
    ended: list[pauses.Pause] = _at_redis(redis_url, lambda client: pauses.lift(client, exchange))
    for each in ended:
        _say_pause("lifted", each)
    if not ended:
        typer.echo(f"no pause of {exchange}", err=True)
        raise typer.Exit(1)


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
    typer.echo(_plain(f"{what}: {place} {pause.bucket or 'all of it'}, {pause.left_s:.0f} s left: {pause.reason}"))


def _filter(
    keys: list[str] | None,
    reason: str | None,
    origin: str | None,
    request_id: str | None,
    older_than_s: float | None,
    *,
    everything: bool = True,
) -> Filter:
    before_ms = None if older_than_s is None else int((time.time() - older_than_s) * 1000)
    wanted = Filter(keys or (), reason, origin, request_id, before_ms)
    if not everything and wanted == Filter():
        raise typer.BadParameter("say which: by key, --reason, --origin, --request, --older-than-s, or --all")
    return wanted


def _each(
    url: str,
    wanted: Filter,
    work: Callable[[DeadLetters, list[Held]], Awaitable[None]],
    *,
    after: str = "",
    limit: int | None = None,
) -> int:
    """Works on the letters that are meant, a batch at a time; says how many they were, and ends with 1 if none was."""

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
    except BrokenPipeError as error:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends
        raise typer.Exit(1) from error
    except (OSError, aio_pika.exceptions.AMQPError) as error:
        typer.echo(f"RabbitMQ: {error}", err=True)
        raise typer.Exit(1) from error


def _say(what: str, letter: Letter) -> None:
    typer.echo(_plain(f"{what}: {letter.key} {letter.reason} {letter.origin} {letter.request_id}".rstrip()))


def _row(key: str, came: str, reason: str, origin: str, request: str, attempts: str, size: str, why: str) -> str:
    """Columns as wide as what is usual in them: the letters to come are not known yet."""
    words = map(_plain, (key, came, reason, origin, request, attempts, size, why))
    widths = (12, 25, 14, 24, 32, 8, 6, 0)
    return "  ".join(f"{word:<{width}}" for word, width in zip(words, widths, strict=True)).rstrip()


def _plain(text: str) -> str:
    """What anyone may have written, on one line and without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _time(at_ms: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).isoformat(" ", "seconds") if at_ms else ""
    except (ValueError, OverflowError):  # Anyone's number: not before the year 10000.
        return f"{at_ms} ms"


def _body(letter: Letter) -> str:
    attempt = letter.request()
    if attempt is None:
        return repr(letter.body)
    return msgspec.json.format(msgspec.json.encode(attempt, enc_hook=str)).decode()
