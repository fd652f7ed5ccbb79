"""The command line: ``python -m schemas`` in the checkout, ``python -m ccxt_fleet`` where the package is installed."""

import asyncio
import datetime
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import aio_pika
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from .config import BrokerConfig, broker_urls, load
from .dead import Act, DeadLetters, Filter, Letter
from .definitions import definitions as make_definitions
from .errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    help="Programs for who runs or uses the fleet.",
    add_completion=False,
    pretty_exceptions_show_locals=False,  # there may be a password among them
)
dead = typer.Typer(no_args_is_help=True, help="What lies in fleet.dead: look at it, send it again, drop it.")
app.add_typer(dead, name="dead")

Keys = Annotated[list[str] | None, typer.Argument(help="keys of letters, or how they begin, as `list` shows them")]
Reason = Annotated[str | None, typer.Option(help="only letters that are there for this reason")]
Origin = Annotated[str | None, typer.Option(help="only letters from this queue")]
RequestId = Annotated[str | None, typer.Option("--request", help="only letters of the request with this id")]
Older = Annotated[float | None, typer.Option("--older-than-s", help="only letters that came so many seconds ago")]
Everything = Annotated[bool, typer.Option("--all", help="all letters: needed where nothing else is said")]
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
    url: Url = URL,
) -> None:
    """One line for each letter, oldest first."""
    letters = _run(_each(url, _filter(keys, reason, origin, request_id, older_than_s)))
    table = Table("key", "came", "reason", "from", "request", "attempts", "bytes", "why", box=None)
    for letter in letters:
        attempts = "" if letter.attempts is None else str(letter.attempts)
        size, why = str(len(letter.body)), letter.message.splitlines()[0][:80] if letter.message else ""
        row = (letter.key, _time(letter.at_ms), letter.reason, letter.origin, letter.request_id, attempts, size, why)
        table.add_row(*map(_plain, row))
    console = _console()
    console.print(table)
    console.print(f"{len(letters)} dead letters")


@dead.command()
def show(key: Annotated[str, typer.Argument(help="a letter's key, or how it begins")], url: Url = URL) -> None:
    """All of one letter, and the request in it."""
    for letter in _run(_each(url, Filter(keys=[key]))):
        console = _console()
        for name in ("key", "reason", "message", "origin", "request_id", "attempts", "content_type", "reply_to"):
            console.print(f"{name:<14} {_plain(str(getattr(letter, name)))}", soft_wrap=True)
        console.print(f"{'came':<14} {_time(letter.at_ms)}")
        for line in _body(letter).split("\n"):
            console.print(_plain(line), soft_wrap=True)
        return
    raise typer.BadParameter(f"no letter's key begins with {key}")


@dead.command()
def replay(
    keys: Keys = None,
    reason: Reason = None,
    origin: Origin = None,
    request_id: RequestId = None,
    older_than_s: Older = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    url: Url = URL,
) -> None:
    """Sends the requests in letters again, as new ones; those that still can't be read stay."""
    wanted = _filter(keys, reason, origin, request_id, older_than_s, everything=everything)

    async def work() -> None:
        async with DeadLetters.at(url) as letters:

            async def again(letter: Letter) -> bool:
                readable = letter.request() is not None
                _say("not readable, stays" if not readable else "to replay" if dry_run else "replayed", letter)
                return readable and not dry_run and await letters.replay(letter)

            await letters.each(wanted, again)

    _run(work())


@dead.command()
def drop(
    keys: Keys = None,
    reason: Reason = None,
    origin: Origin = None,
    request_id: RequestId = None,
    older_than_s: Older = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    url: Url = URL,
) -> None:
    """Takes letters out for good."""
    wanted = _filter(keys, reason, origin, request_id, older_than_s, everything=everything)

    async def gone(letter: Letter) -> bool:
        _say("to drop" if dry_run else "dropped", letter)
        return not dry_run

    _run(_each(url, wanted, gone))


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


async def _each(url: str, wanted: Filter, act: Act | None = None) -> list[Letter]:
    async with DeadLetters.at(url) as letters:
        return await letters.each(wanted, act)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except (OSError, aio_pika.exceptions.AMQPError) as error:
        typer.echo(f"RabbitMQ: {error}", err=True)
        raise typer.Exit(1) from error


def _say(what: str, letter: Letter) -> None:
    typer.echo(_plain(f"{what}: {letter.key} {letter.reason} {letter.origin} {letter.request_id}".rstrip()))


def _console() -> Console:
    return Console(markup=False, emoji=False, highlight=False)


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
