"""The fleet as users run it: from the installed wheel, in a folder of theirs, without a checkout."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from msgspec import Struct

from deploy.processes import Process, free_port
from tests.integration.test_docs import programs
from tests.support.environments import Environment, built
from tests.support.fleet import Client, wait_until

# What users may have under names that are ours in the checkout, and under one that is a package's that we need.
THEIRS = ("schemas", "dispatcher", "workers", "deploy")
USER_FOLDER = "raise ImportError('a module of the folder that the fleet was started in')\n"
LANES = ("binance", "okx", "htx", "coinbase", "kraken")
SHOWN = """
import importlib, sys
import ccxt_fleet.dispatcher.service
assert "ccxt" not in sys.modules, "a dispatcher does not need ccxt"
import ccxt_fleet.deploy.up, ccxt_fleet.workers.service
from ccxt_fleet.direct import charged
print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]), sep="\\n")
"""


class Running(Struct):
    """``ccxt-fleet up --simulator``."""

    process: Process
    environment: Environment
    folder: Path

    def said(self) -> str:
        return self.process.log.read_text(encoding="utf-8")

    def found(self, pattern: str) -> str:
        """What it printed in a place."""
        found = re.search(pattern, self.said(), re.MULTILINE)
        assert found, self.said()
        return found[1]

    def files(self) -> list[Path]:
        """What is in its folder."""
        return list(Path(self.found(r" in (/\S+)$")).rglob("*"))

    @property
    def env(self) -> dict[str, str]:
        """What it told other programs to have in their environment."""
        return dict(word.split("=", 1) for word in self.found(r"^export (.*?)(?:  # .*)?$").split())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment with the wheel and all of the fleet, and packages of a user's with our folders' names."""
    folder = tmp_path_factory.mktemp("installed")
    environment = Environment(folder / "venv", built(folder), ["services"])
    for name in THEIRS:
        (environment.packages / name).mkdir()
        (environment.packages / name / "__init__.py").write_text("", encoding="utf-8")
    return environment


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Yield a fleet whose lanes are all healthy, started where modules lie that nothing of it may import."""
    folder = tmp_path_factory.mktemp("user")
    for name in (*THEIRS, "redis", "ccxt"):
        (folder / f"{name}.py").write_text(USER_FOLDER, encoding="utf-8")
    argv = [str(environment.bin / "ccxt-fleet"), "up", "--simulator", "--workers", "1"]
    running = Running(Process(argv, log=folder / "up.log", env=os.environ, cwd=folder), environment, folder)
    running.process.start()
    try:
        await wait_until(
            lambda: all(f"{lane} is healthy" in running.said() for lane in LANES) or not running.process.running,
            "all lanes are healthy",
            timeout_s=90,
        )
        assert running.process.running, running.said()
        yield running
    finally:
        await running.process.stop(grace_s=30)
    assert running.process.exit_code == 0, running.said()
    assert running.files() == []


def test_users_keep_their_packages(environment: Environment, tmp_path: Path) -> None:
    printed = environment.run("python", "-c", SHOWN, *THEIRS, cwd=tmp_path).split()
    assert printed == [str(environment.packages / name / "__init__.py") for name in THEIRS]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_first_example_of_the_readme(running: Running, tmp_path: Path) -> None:
    (program,) = programs("README.md")
    argv = ["python", "-c", program]
    printed = await asyncio.to_thread(running.environment.run, *argv, cwd=tmp_path, env=running.env)
    assert re.fullmatch(r"BTC/USDT \d+(\.\d+)?\n", printed)


@pytest.mark.asyncio(loop_scope="module")
async def test_another_exchange_answers_for_one_that_is_down(running: Running) -> None:
    fault = running.found(r"^simulator +(\S+)") + "/faults/okx"
    async with aiohttp.ClientSession() as session, Client.on(running.env["FLEET_BROKER_URL"]) as client:
        async with session.put(fault, json={"down": "refused"}) as answer:
            assert answer.status == 200
        args = {"symbol": "BTC/USDT"}
        answered = await client.ask("fetch_ticker", args, exchanges=["okx", "kraken"], strategy="failover")
        async with session.delete(fault) as answer:
            assert answer.status == 200
    assert [each.lane for each in answered.result.attempts] == ["okx", "kraken"]
    assert answered.result.data["last"] > 0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("command", ["dispatcher", "worker"])
async def test_a_service_of_its_own_ends_in_order(running: Running, command: str) -> None:
    (config,) = (path for path in running.files() if path.name == "fleet.toml")
    port = free_port()
    argv = [str(running.environment.bin / "ccxt-fleet"), command]
    argv += ["--config", str(config), "--metrics-port", str(port)]
    log = running.folder / f"{command}.log"
    service = Process(argv, log=log, env={**os.environ, **running.env}, cwd=running.folder)
    service.start()
    try:
        await wait_until(lambda: _ready(port, service), f"{command} is ready")
        service.send(signal.SIGTERM)
        assert await service.wait(timeout_s=30) == 0, service.tail()
    finally:
        service.kill()
    assert " ERROR " not in log.read_text(encoding="utf-8")


async def _ready(port: int, service: Process) -> bool:
    assert service.running, service.tail()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def test_a_configuration_that_is_wrong_is_said(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("[lanes.okx]\nweigth = 1\n", encoding="utf-8")
    for command in ("up", "dispatcher", "worker"):
        argv = [str(environment.bin / "ccxt-fleet"), command, "--config", "fleet.toml"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "weigth" in done.stderr
        assert "Traceback" not in done.stderr
