"""How commands speak: data on standard output, talk on standard error, and one table of exit codes.

Nothing here imports a server's client: `--help` has to be there at once.
"""

import contextlib
import datetime
import os
import sys
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import typer

T = TypeVar("T")

OK: Final = 0
WRONG: Final = 1
USAGE: Final = 2
AWAY: Final = 4
STOPPED: Final = 130
CLOSED: Final = 141

# What docs/commands.md and `--help` say of them; `up`, `dispatcher` and `worker` have 3 beside these.
EXIT_CODES: Final[dict[int, str]] = {
    OK: "done",
    WRONG: "done, and the answer is no: an error as result, nothing found, something is wrong",
    USAGE: "the words of the command can't be used, or a file that it names",
    3: "a service got a second signal and ended at once",
    AWAY: "RabbitMQ or Redis can't be reached or refuses, or no fleet was ever started there",
    STOPPED: "Ctrl-C",
    CLOSED: "whoever read its output has closed it, as `| head` does",
}
EPILOG: Final = "Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items()) + "."

# Where a colour says more than the word alone, by words of ours.
COLOURS: Final[dict[str, str]] = {
    "healthy": "green",
    "ok": "green",
    "degraded": "yellow",
    "note": "yellow",
    "maintenance": "yellow",
    "offline": "red",
    "wrong": "red",
    "unknown": "yellow",
}


def say(text: str) -> None:
    """Prints for people what is no data, on standard error."""
    with contextlib.suppress(BrokenPipeError):
        typer.echo(plain_lines(text), err=True)


def out(text: str) -> None:
    """Writes data.

    Raises:
        typer.Exit: nobody reads it any more, and the command ends in order.
    """
    try:
        typer.echo(text)
    except BrokenPipeError:
        raise typer.Exit(CLOSED) from None


def out_body(content: bytes) -> None:
    """Writes a body to the letter; in a terminal without control characters, and with an end of line."""
    if is_terminal():
        out(plain_lines(content.decode(errors="replace")))
        return
    try:
        typer.echo(content, nl=False)
    except BrokenPipeError:
        raise typer.Exit(CLOSED) from None


def fail(text: str, code: int = WRONG) -> NoReturn:
    """Ends the command with a line that says why."""
    say(text)
    raise typer.Exit(code)


def show_json(value: Any) -> None:
    """One JSON document."""
    import msgspec  # only when it is needed: `--help` is quicker without

    out(_escaped(msgspec.json.format(_encoded(value), indent=2).decode()))


def show_json_line(value: Any) -> None:
    """One JSON document on one line."""
    out(_escaped(_encoded(value).decode()))


def _encoded(value: Any) -> bytes:
    import json

    import msgspec

    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:  # a file's name that is no text in UTF-8
        return json.dumps(msgspec.to_builtins(value, enc_hook=str), ensure_ascii=False).encode(errors="replace")


def _escaped(document: str) -> str:
    """A JSON document that a terminal shows and does not obey: the same, but for how some characters are written.

    JSON leaves many as they are: those from U+007F to U+009F, which begin commands of terminals, and those that turn
    the direction of writing round.
    """
    return "\n".join(line if line.isprintable() else "".join(map(_sign, line)) for line in document.split("\n"))


def _sign(sign: str) -> str:
    import json

    return sign if sign.isprintable() else json.dumps(sign)[1:-1]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; in a terminal lines end at its edge."""
    cells = [[plain("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [bool(cells) and all(_is_number(row[column]) for row in cells) for column in range(len(heads))]
    for number, row in enumerate((list(heads), *cells)):
        line = "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        if (width := _width()) and len(line) > width:
            line = line[: width - 1] + "…"
        out(line if number == 0 else coloured(line, row))


def _is_number(cell: str) -> bool:
    return not cell or (cell[0].isdigit() and not cell.count("-") and not cell.count(":"))


def coloured(line: str, words: Iterable[str]) -> str:
    """The line with the first of our words in its colour; as it is where no colours are wanted."""
    if not colours():
        return line
    for word in words:
        if colour := COLOURS.get(word):
            return line.replace(word, typer.style(word, fg=colour), 1)
    return line


def colours() -> bool:
    """Whether there may be colours: in a terminal, and unless NO_COLOR says no (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and is_terminal()


def is_terminal() -> bool:
    """Whether people see what is printed."""
    return sys.stdout.isatty()


def talks() -> bool:
    """Whether people read what is said beside the data."""
    return sys.stderr.isatty()


def clear() -> None:
    """Empties the terminal."""
    typer.echo("\x1b[2J\x1b[H", nl=False)


def _width() -> int:
    """How many characters a line may have; 0 where nobody cuts it off."""
    if not is_terminal():
        return 0
    with contextlib.suppress(OSError):
        return os.get_terminal_size(sys.stdout.fileno()).columns
    return 0


def plain(text: str) -> str:
    """Text from outside, on one line and without control characters for the terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def plain_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(plain, text.split("\n")))


def many(count: int, word: str) -> str:
    """So many of something, as in ``1 worker`` and ``2 workers``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def when(at_ms: int) -> str:
    """A time in UTC, to the second; empty for none."""
    try:
        return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).isoformat(" ", "seconds") if at_ms else ""
    except (ValueError, OverflowError):  # anyone can write such a number; dates end with the year 9999
        return f"{at_ms} ms"


def duration(seconds: float) -> str:
    """A length of time in two units at the most, as in ``3 d 4 h``."""
    left = max(0, round(seconds))
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in units:
        count, left = divmod(left, size)
        if count or (parts and unit != "s") or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 ") or len(parts) == 1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's work; Ctrl-C ends it in order.

    Raises:
        typer.Exit: it was stopped, or it failed; why is printed.
    """
    import asyncio
    import logging

    from ..errors import FleetError
    from ..runtime.tasks import ended_by_cancel

    logging.disable()  # libraries would talk into the command's output; what matters it says itself
    try:
        return asyncio.run(ended_by_cancel(work))
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None
    except FleetError as error:
        from .servers import ServerAway

        fail(str(error), AWAY if isinstance(error, ServerAway) else WRONG)
    finally:
        logging.disable(logging.NOTSET)


class App(typer.Typer):
    """The whole command line: whatever happens below it, its user sees a sentence and no traceback."""

    def __call__(self, *words: Any, **options: Any) -> Any:
        """Runs the command line and exits."""
        _open_standard_files()
        try:
            return super().__call__(*words, **options)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else OK if end.code is None else WRONG
            sys.exit(_flushed(_told_apart(end) if code == WRONG else code))
        except KeyboardInterrupt:
            sys.exit(_flushed(STOPPED))
        except Exception as error:
            if os.environ.get("FLEET_TRACEBACK"):
                raise
            say(
                f"a fault of ours: {type(error).__name__}: {error}\n"
                "Please report it, with what FLEET_TRACEBACK=1 in the environment shows."
            )
            sys.exit(WRONG)


def _open_standard_files() -> None:
    """Where somebody closed one (`>&-`), a server's connection would get its number and what we print."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _told_apart(error: BaseException) -> int:
    """The exit code of what Typer makes an exit with 1: Ctrl-C, and an output that nobody reads any more (of help)."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, KeyboardInterrupt):
            return STOPPED
        if isinstance(found, BrokenPipeError):
            return CLOSED
        found = found.__cause__ or found.__context__
    return WRONG


def _flushed(code: int) -> int:
    """Writes out what is left; the exit code, which is another one where nobody reads any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python complains as it exits
        return CLOSED
    return code
