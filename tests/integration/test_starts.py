"""A service that can't run ends at once with one line that says why; a signal during its start ends it too."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from deploy.processes import free_port

ROOT = Path(__file__).parents[2]
UNREACHABLE = "[broker]\npatience_s = 0.2\nurls = ['amqp://u:s3cr3t@127.0.0.1:{port}/']\n[lanes.okx]\n"


async def ended(package: str, folder: Path, text: str) -> tuple[int, str]:
    path = folder / "fleet.toml"
    path.write_text(text)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", package, "--config", str(path), cwd=ROOT, env={}, stderr=asyncio.subprocess.PIPE
    )
    _, said = await child.communicate()
    return child.returncode or 0, said.decode()


@pytest.mark.parametrize(
    ("package", "text", "says"),
    [
        ("dispatcher", "[lanes.okx]\nweight = 'heavy'\n", "fleet.toml: lanes.okx.weight: "),
        ("dispatcher", UNREACHABLE, "127.0.0.1:{port}"),
        ("workers", UNREACHABLE, "127.0.0.1:{port}"),
    ],
)
async def test_a_service_says_why_in_one_line(tmp_path: Path, package: str, text: str, says: str) -> None:
    port = str(free_port())
    code, said = await ended(package, tmp_path, text.replace("{port}", port))
    assert code == 1, said
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith(f"{package}: ")
    assert says.replace("{port}", port) in last
    assert "s3cr3t" not in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[lanes.mtgox]\n", "workers: lanes.mtgox.exchange: expected an exchange id of ccxt, not 'mtgox'"),
        ("[lanes.okx]\nccxt = { features = 7 }\n", "workers: lanes.okx.ccxt: "),
        ("[lanes.okx]\n[limits.gate]\n", "workers: limits.gate: expected the exchange of a lane: one of okx"),
        ("[lanes.okx]\n[limits.okx]\nbuckets.of_20.amount = 0\n", "workers: limits.okx.buckets.of_20.amount: "),
        (
            '[lanes.okx]\n[limits.okx.endpoints]\n"public get *" = [{ bucket = "user_10" }]\n',
            'workers: limits.okx.endpoints."public get *": ccxt calls no such endpoint; expected "public GET *"',
        ),
        ("[lanes.kraken]\nsandbox = true\n", "workers: lanes.kraken.sandbox: expected false: ccxt knows no testnet"),
        ('[lanes.okx]\nccxt.urls.api.public = "http://x"\n', "workers: lanes.okx.ccxt.urls.api.public: "),
    ],
)
async def test_a_worker_says_which_lane_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    broker = f"[broker]\npatience_s = 0.2\nurls = ['amqp://127.0.0.1:{free_port()}/']\n"
    code, said = await ended("workers", tmp_path, broker + text)
    assert code == 1, said
    assert any(line.startswith(says) for line in said.splitlines()), said
    assert "release all resources" not in said
    assert "Exception ignored" not in said


@pytest.mark.parametrize("package", ["dispatcher", "workers"])
async def test_a_service_that_is_stopped_while_rabbitmq_is_away_ends_in_order(tmp_path: Path, package: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(f"[broker]\nurls = ['amqp://127.0.0.1:{free_port()}/']\n[lanes.okx]\n")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", package, "--config", str(path), cwd=ROOT, env={}, stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None
    async for line in child.stderr:
        if b"connect_failed" in line:
            break
    child.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        await child.stderr.read()
        assert await child.wait() == 0
