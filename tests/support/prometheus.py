"""Debian's Prometheus as a child process: it scrapes what it is told to, and answers queries."""

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from deploy.processes import Process, ProcessError, Startable, free_port
from deploy.servers import find_program

FOLDER: Final = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES: Final = FOLDER / "rules.yml"
BOOT_TIMEOUT_S: Final = 60.0


def program(name: str) -> str:
    """The path of Prometheus or promtool; raises ProcessError with how to get it."""
    found = find_program(name)
    if found is None:
        raise ProcessError(f"{name} is not on this machine: apt-get install prometheus, or make setup DEPLOY=yes")
    return str(found)


def promtool(*words: str | Path) -> str:
    """What promtool prints; raises AssertionError with it where it finds a fault."""
    ran = subprocess.run([program("promtool"), *map(str, words)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


class Prometheus(Startable):
    """Scrapes every second, and evaluates the shipped rules as often.

    Args:
        folder: for its data and its log.
        targets: by the shipped configuration's jobs, the ports on this machine.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[int]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(_configuration((FOLDER / "prometheus.yml").read_text(encoding="utf-8"), targets))
        promtool("check", "config", config)
        words = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
        listen = f"--web.listen-address=127.0.0.1:{self.port}"
        argv = [program("prometheus"), *words, listen]
        self._process = Process(argv, log=folder / "prometheus.log", env=os.environ, cwd=folder)

    async def start(self) -> None:
        """Starts it and returns when it answers; ProcessError with its log where it does not."""
        self._process.start()
        give_up_s = asyncio.get_running_loop().time() + BOOT_TIMEOUT_S
        while not await self._ready():
            if not self._process.running or asyncio.get_running_loop().time() > give_up_s:
                raise ProcessError(f"Prometheus does not serve:\n{self._process.tail()}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends it."""
        await self._process.stop(grace_s=10)

    async def ask(self, page: str, **params: str) -> Any:
        """The data of a page of its API; raises AssertionError with its error."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{page}"
        async with aiohttp.ClientSession() as session, session.get(url, params=params) as answer:
            said = await answer.json()
        assert said["status"] == "success", said
        return said["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that a query gives now; a number that is none, as 0 / 0, counts as a sample too."""
        found: list[dict[str, Any]] = (await self.ask("query", query=expression))["result"]
        return found

    async def _ready(self) -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/-/ready") as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False


def _configuration(shipped: str, targets: Mapping[str, Sequence[int]]) -> str:
    """The shipped configuration with other targets, in place of each job's own, and a second in place of 15."""
    text = shipped.replace("15s", "1s").replace("[rules.yml]", f"[{RULES}]")
    for job, ports in targets.items():
        places = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        text, found = re.subn(rf"(job_name: {job}\n(?:.*\n)*?.*targets: )\[.*\]", rf"\g<1>[{places}]}}]", text, count=1)
        assert found, job
    return text
