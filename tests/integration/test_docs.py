"""The programs in the docs run as they stand there, against a fleet at work."""

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.support import node
from tests.support.fleet import Stand

ROOT = Path(__file__).resolve().parents[2]


def programs(doc: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / doc).read_text(encoding="utf-8"), re.DOTALL)


async def run(program: str, url: str, *, cwd: Path) -> str:
    """Runs a program as a user would, and returns what it prints; it must end well."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        cwd=cwd,
        env={**os.environ, "FLEET_BROKER_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(90):
            printed, errors = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, errors.decode()
    return printed.decode()


async def test_readme(stand: Stand, tmp_path: Path) -> None:
    (program,) = programs("README.md")
    printed = await run(program, stand.url, cwd=tmp_path)
    assert "'ok': True" in printed
    assert "'last': " in printed


async def test_messages(stand: Stand, tmp_path: Path) -> None:
    direct, results = programs("docs/messages.md")
    lines = sorted((await run(direct, stand.url, cwd=tmp_path)).splitlines())
    assert [re.sub(r"\d+(\.\d+)?$", "<price>", re.sub(r" [a-z]+ ", " <exchange> ", line)) for line in lines] == [
        "ticker-0 <exchange> <price>",
        "ticker-1 <exchange> <price>",
    ]
    assert re.fullmatch(r"kraken\.fetch_time\.ok \d{13}\n", await run(results, stand.url, cwd=tmp_path))


async def test_messages_in_javascript(stand: Stand) -> None:
    (program,) = programs("docs/messages.md", "js")
    printed = await node.run(program, url=stand.url)
    assert [re.sub(r" [a-z]+ ", " <exchange> ", line) for line in printed.splitlines()] == [
        "candles-0 <exchange> 2",
        "candles-1 <exchange> 2",
    ]
