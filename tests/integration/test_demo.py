"""The demo as its users run it, in a pipe: it ends well, says so, and leaves nothing behind."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


async def start(folder: Path, *words: str) -> Process:
    """The demo with all it writes in this folder, which marks all that it starts."""
    argv = [sys.executable, "-m", "deploy.demo", "--seconds", "6", *words]
    return await asyncio.create_subprocess_exec(
        *argv, cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)}, stdout=PIPE, stderr=STDOUT
    )


def left(folder: Path) -> list[str]:
    """The files in this folder, and every process that knows it by its arguments or its environment."""
    found = [str(file) for file in folder.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes()
            if str(folder).encode() in argv + (process / "environ").read_bytes():
                found.append(argv.replace(b"\0", b" ").decode())
        except OSError:  # it has ended, or is not ours
            continue
    return found


@pytest.mark.parametrize("words", [(), ("--as-shipped",), ("--cluster",)])
async def test_every_request_is_answered_and_nothing_is_left(tmp_path: Path, words: tuple[str, ...]) -> None:
    demo = await start(tmp_path, *words)
    printed = (await demo.communicate())[0].decode()
    assert demo.returncode == 0, printed
    assert re.search(r"^ requests +\d+ ", printed, re.MULTILINE)
    assert re.search(r"^ results +\d+  \d+ with data, 0 errors, 0 missing", printed, re.MULTILINE)
    assert re.search(r"^ violations +0 ", printed, re.MULTILINE)
    assert re.search(r"^ lane +bucket +granted +fullest +waited +refused", printed, re.MULTILINE)
    for event in ("okx goes down", "okx is up again", "every request has its result"):
        assert event in printed
    assert ("taking deploy/fleet.toml as it stands" in printed) == ("--as-shipped" in words)
    assert ("a Redis Cluster of 3 shards" in printed) == ("--cluster" in words)
    assert not left(tmp_path)


async def test_ctrl_c_ends_it_all(tmp_path: Path) -> None:
    demo = await start(tmp_path)
    assert demo.stdout is not None
    async for line in demo.stdout:
        if b"lanes healthy" in line:
            break
    demo.send_signal(signal.SIGINT)
    printed = (await demo.communicate())[0].decode()
    assert demo.returncode == 130, printed
    assert "Traceback" not in printed
    assert not left(tmp_path)
