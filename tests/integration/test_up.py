"""`make up` shows which lanes open, and of those that don't why."""

import asyncio
import signal
import sys
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import tomli_w

from deploy.local import Service, simulated
from deploy.processes import free_port
from deploy.simulator.process import Simulator
from schemas import Fleet

ROOT = Path(__file__).parents[2]


async def test_lanes_that_open_and_one_that_does_not(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    async with Simulator() as simulator:
        nowhere, door = f"http://127.0.0.1:{free_port()}", free_port()
        path.write_text(tomli_w.dumps(simulated({"okx": simulator.urls["okx"], "kraken": nowhere})))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.up", "--config", str(path), "--workers", "1", "--gateway", str(door)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        said = ""
        async with asyncio.timeout(120):
            while "okx is healthy" not in said or "kraken is not healthy: ExchangeNotAvailable" not in said:
                line = await child.stdout.readline()
                assert line, said
                said += line.decode()
                if line.startswith(b"export "):  # who pastes it may ask at once
                    url = line.split()[1].decode().removeprefix("FLEET_BROKER_URL=")
                    async with Fleet(url) as fleet:
                        assert await fleet.fetch_time(exchanges=["okx"], deadline=timedelta(seconds=60))
            assert f"gateway      http://127.0.0.1:{door}\n" in said
            url = f"http://127.0.0.1:{door}/v1/fetch_time?exchanges=okx"
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                assert answer.status == 200
            child.send_signal(signal.SIGTERM)
            await child.stdout.read()
            assert await child.wait() == 0
    assert "kraken is healthy" not in said


async def test_ctrl_c_ends_it_also_while_it_starts() -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.up", "--simulator"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        said = (await child.stdout.readline()).decode()
        assert said.startswith("starting RabbitMQ")
        child.send_signal(signal.SIGINT)
        assert await child.stdout.read() == b"stopping\n"
        assert await child.wait() == 0
    assert not await asyncio.to_thread(Path(said.split()[-1]).exists)


async def test_a_service_that_hangs_is_not_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the whole fleet when aiohttp's five minutes were over."""
    monkeypatch.setattr(aiohttp.client, "DEFAULT_TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    over = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    service = Service(["true"], tmp_path / "service.log", {})
    async with await asyncio.start_server(hang, "127.0.0.1", service.metrics_port):
        assert await service.metrics() == {}
        assert await service.ask("readyz") == (0, "")
        over.set()
