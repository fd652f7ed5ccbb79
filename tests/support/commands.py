"""Runs the command line as a user does, in a process of its own or, quicker, in the test's."""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer.main
from msgspec import Struct

from schemas.operator import output
from schemas.operator.cli import app

ROOT = Path(__file__).resolve().parents[2]
# No colours, and no terminal's width.
PLAIN = {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}


class Done(Struct, frozen=True):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def environment(broker_url: str = "", redis_url: str = "") -> dict[str, str]:
    """The variables that lead a command to servers."""
    return {**os.environ, **PLAIN, "FLEET_BROKER_URL": broker_url, "FLEET_REDIS_URL": redis_url}


async def command(*words: str, broker_url: str, redis_url: str = "", given: str = "") -> Done:
    """Runs a command in a process of its own, until it ends."""
    child = await started(*words, broker_url=broker_url, redis_url=redis_url)
    try:
        async with asyncio.timeout(90):
            out, err = await child.communicate(given.encode())
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return Done(child.returncode or 0, out.decode(), err.decode())


async def started(*words: str, broker_url: str, redis_url: str = "") -> asyncio.subprocess.Process:
    """Starts a command in a process of its own."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemas", *words),
        cwd=ROOT,
        env=environment(broker_url, redis_url),
        # Where the tests run in the background, SIGINT is ignored, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def here(*words: str, env: Mapping[str, str] | None = None) -> Done:
    """Runs a command in this process; not inside a running event loop."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {**PLAIN, **(env or {})}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", ["ccxt-fleet"]),
    ):
        try:
            app(list(words), prog_name="ccxt-fleet")
            code = output.OK
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())


def leaves() -> Iterator[tuple[Sequence[str], Any]]:
    """Every command of the command line, by its words."""

    def below(words: tuple[str, ...], found: Any) -> Iterator[tuple[Sequence[str], Any]]:
        inner: dict[str, Any] | None = getattr(found, "commands", None)
        if inner is None:
            yield words, found
            return
        for name, each in inner.items():
            yield from below((*words, name), each)

    yield from below((), typer.main.get_command(app))
