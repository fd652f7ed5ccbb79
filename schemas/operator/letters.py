"""`dead`: lists dead letters, shows them, replays them, drops them."""

import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from . import output
from .options import Json, Url, broker_urls

if TYPE_CHECKING:
    import aio_pika

    from .browsing import DeadLetters, Held
    from .dead import Filter, Letter

NO_SUCH: Final = "no such dead letter; `ccxt-fleet dead list` shows those there are, and their keys"
app = typer.Typer(
    no_args_is_help=True, help="Dead letters, the messages in fleet.dead: list them, replay them, drop them."
)

Keys = Annotated[list[str] | None, typer.Argument(help="keys of letters, or their beginnings, as `list` shows them")]
Reason = Annotated[str | None, typer.Option(help="only letters with this reason")]
Origin = Annotated[str | None, typer.Option(help="only letters from this queue")]
RequestId = Annotated[str | None, typer.Option("--request", help="only letters of the request with this id")]
Older = Annotated[float | None, typer.Option("--older-than-s", help="only letters older than so many seconds")]
Everything = Annotated[bool, typer.Option("--all", help="all letters: needed where nothing else selects some")]
After = Annotated[str, typer.Option(help="only letters behind the one with this key, or its beginning")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most so many letters, the oldest")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only show what would be done")]


class Selection(NamedTuple):
    """The letters that a command works on: those that match, behind the one with the key `after`, at most `limit`."""

    wanted: "Filter"
    after: str = ""
    limit: int | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing selects some."""
        from .dead import Filter

        return self.wanted == Filter()


def _select(
    keys: Keys = None,
    reason: Reason = None,
    origin: Origin = None,
    request_id: RequestId = None,
    older_than_s: Older = None,
    after: After = "",
    limit: Limit = None,
) -> Selection:
    from .dead import Filter

    before_ms = None if older_than_s is None else (time.time() - older_than_s) * 1000
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


@app.command("list")
@_selecting
def list_letters(selection: Selection, url: Url = None, as_json: Json = False) -> None:
    """One line for each letter, oldest first; with --json one document a line."""
    last = ""

    async def line(_: "DeadLetters", batch: "list[Held]") -> None:
        nonlocal last
        if not last and not as_json:
            output.out(_row("key", "came", "reason", "from", "request", "attempts", "bytes", "why"))
        for letter, _message in batch:
            last = letter.key
            if as_json:
                output.show_json_line(_as_json(letter))
                continue
            attempts = "" if letter.attempts is None else str(letter.attempts)
            size, why = str(len(letter.body)), letter.message.splitlines()[0][:80] if letter.message else ""
            came = output.when(letter.at_ms)
            output.out(_row(last, came, letter.reason, letter.origin, letter.request_id, attempts, size, why))

    found = _each(url, selection, line)
    output.say(f"{found} dead letters" + (f"; what follows: --after {last}" if found == selection.limit else ""))


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="a letter's key, or how it begins")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """One letter in full, with the request in it."""
    from .dead import Filter

    async def all_of(_: "DeadLetters", batch: "list[Held]") -> None:
        letter = batch[0][0]
        if as_json:
            output.show_json(_as_json(letter))
            return
        for name in ("key", "reason", "message", "origin", "request_id", "attempts", "content_type", "reply_to"):
            output.out(f"{name:<14} {output.plain(str(getattr(letter, name)))}")
        output.out(f"{'came':<14} {output.when(letter.at_ms)}")
        output.out(output.plain_lines(_body(letter)))

    _each(url, Selection(Filter(keys=[key]), limit=1), all_of)


@app.command()
@_selecting
def replay(
    selection: Selection,
    everything: Everything = False,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Publishes the requests in letters again, as new ones; letters that can't be read stay."""
    import asyncio

    _check_selected(selection, everything)

    async def again(letters: "DeadLetters", batch: "list[Held]") -> None:
        async def one(letter: "Letter", message: "aio_pika.abc.AbstractIncomingMessage") -> str:
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
                _tell(what, letter, as_json)
        for what in done:
            if isinstance(what, BaseException):
                raise what

    _each(url, selection, again)


@app.command()
@_selecting
def drop(
    selection: Selection,
    everything: Everything = False,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Removes letters for good."""
    _check_selected(selection, everything)

    async def gone(letters: "DeadLetters", batch: "list[Held]") -> None:
        for letter, message in batch:
            if not dry_run:
                await letters.take(message)
            _tell("to drop" if dry_run else "dropped", letter, as_json)

    _each(url, selection, gone)


def _check_selected(selection: Selection, everything: bool) -> None:
    if not everything and selection.everything:
        raise typer.BadParameter(
            "select letters by key, --reason, --origin, --request or --older-than-s, or give --all"
        )


def _each(url: str | None, selection: Selection, work: "Callable[[DeadLetters, list[Held]], Awaitable[None]]") -> int:
    """Works on the selected letters, a batch at a time; returns their number, and exits with 1 if there are none."""
    from .browsing import DeadLetters

    wanted, after, limit = selection

    async def each() -> int:
        found = 0
        async with DeadLetters.at(broker_urls(url), output.say) as letters:
            async for batch in letters.batches(wanted, after=after, limit=limit):
                await work(letters, batch)
                found += len(batch)
        return found

    found = output.run(each())
    if not found:
        output.fail("no dead letters" if selection.everything and not after else NO_SUCH)
    return found


def _tell(what: str, letter: "Letter", as_json: bool) -> None:
    if as_json:
        output.show_json_line({"done": what, **_as_json(letter)})
    else:
        said = f"{what}: {letter.key} {letter.reason} {letter.origin} {letter.request_id}".rstrip()
        output.out(output.plain(said))


def _row(key: str, came: str, reason: str, origin: str, request: str, attempts: str, size: str, why: str) -> str:
    """Columns as wide as is usual for them: later letters are not known yet."""
    words = map(output.plain, (key, came, reason, origin, request, attempts, size, why))
    widths = (12, 25, 14, 24, 32, 8, 6, 0)
    return "  ".join(f"{word:<{width}}" for word, width in zip(words, widths, strict=True)).rstrip()


def _as_json(letter: "Letter") -> dict[str, Any]:
    """A letter for programs: the request in it where that can be read, else its body in base64."""
    import msgspec

    fields = msgspec.structs.asdict(letter)
    attempt = letter.request()
    body: bytes = fields.pop("body")
    return {**fields, "request": attempt and attempt.request, "body": None if attempt else body}


def _body(letter: "Letter") -> str:
    import msgspec

    attempt = letter.request()
    if attempt is None:
        return repr(letter.body)
    return msgspec.json.format(msgspec.json.encode(attempt, enc_hook=str)).decode()
