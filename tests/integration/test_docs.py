"""The programs in the docs run as they stand there, against a fleet at work."""

import asyncio
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest

from deploy.simulator.accounts import ACCOUNTS
from deploy.simulator.ccxt_config import ccxt_config
from schemas import config
from tests.support import gateways, node
from tests.support.commands import here
from tests.support.fleet import Stand

ROOT = Path(__file__).resolve().parents[2]
PRICE = r"\d+(\.\d+)?"
# What the programs in docs/client.md print, less the last one.
CLIENT_PRINTS = (
    rf"BTC/USDT {PRICE}\n(\d{{13}} \[{PRICE}(, {PRICE}){{3}}\] {PRICE}\n){{3}}",
    rf"{PRICE}\n",
    r"(?s)((BTC|ETH)/USDT \d+\n){2}.*results.*2/2.*",
    rf"((binance|okx|kraken) {PRICE}\n){{3}}",
    r"okx \d+ ms \['okx'\]\n5\n",
    r"24 okx (None|\d+)\n",
    r"200 \d{10}\n",
    r"bad_symbol .*BTC/NOTHING.* False [\w-]+ None \[.*\]\n",
    r"okx \d{13}\n",
)


def programs(doc: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / doc).read_text(encoding="utf-8"), re.DOTALL)


async def run(program: str, url: str, *, cwd: Path, ends: int = 0) -> str:
    """Runs a program as a user would, with the package under its own name; returns what it prints, errors last."""
    if cwd != ROOT and not (cwd / "ccxt_fleet").exists():
        (cwd / "ccxt_fleet").symlink_to(ROOT / "schemas")
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
    assert child.returncode == ends, errors.decode()
    return (printed + errors).decode()


async def test_readme(stand: Stand, tmp_path: Path) -> None:
    (program,) = programs("README.md")
    printed = await run(program, stand.url, cwd=tmp_path)
    assert re.fullmatch(r"BTC/USDT \d+(\.\d+)?\n", printed)


@pytest.mark.parametrize(("number", "prints"), list(enumerate(CLIENT_PRINTS)))
async def test_client(stand: Stand, tmp_path: Path, number: int, prints: str) -> None:
    program = programs("docs/client.md")[number]
    running = asyncio.create_task(run(program, stand.url, cwd=tmp_path))
    if "fleet.results(" in program:  # what another program asks for
        while not running.done():
            await stand.client.send({"method": "fetch_time", "exchanges": ["okx"]}, reply_to=None)
            await asyncio.wait([running], timeout=0.5)
    assert re.fullmatch(prints, await running)


def test_every_program_of_the_client_s_page_is_run() -> None:
    assert len(programs("docs/client.md")) == len(CLIENT_PRINTS) + 1


async def test_client_tables(stand: Stand, tmp_path: Path) -> None:
    program = programs("docs/client.md")[-1]
    if any(map(importlib.util.find_spec, ("pandas", "polars"))):
        assert "volume" in await run(program, stand.url, cwd=tmp_path)
    else:
        assert "to_frame needs pandas or polars" in await run(program, stand.url, cwd=tmp_path, ends=1)


async def test_direct(stand: Stand) -> None:
    """With the module's name in the checkout, and led to the simulator."""
    (program,) = programs("docs/direct.md")
    settings = ccxt_config("kraken", stand.simulator.urls["kraken"])
    program = program.replace("ccxt_fleet.direct", "workers.direct").replace('{"options": {}}', repr(settings))
    printed = await run(program.replace("redis://localhost", stand.redis.url), stand.url, cwd=ROOT)
    assert re.fullmatch(r"BTC/USDT \d+(\.\d+)?\n\d+ calls\n", printed)


AT = "http://127.0.0.1:8080"


async def test_gateway(stand: Stand, tmp_path: Path) -> None:
    (python, _), (javascript,) = programs("docs/gateway.md"), programs("docs/gateway.md", "js")
    (_, curls) = programs("docs/gateway.md", "sh")
    async with gateways.beside(stand) as gateway:
        printed = await run(python.replace(AT, gateway.url), stand.url, cwd=tmp_path)
        assert re.fullmatch(rf"BTC/USDT {PRICE}\n", printed)
        printed = await node.run(javascript.replace(AT, gateway.url))
        assert re.fullmatch(rf"BTC-USDT {PRICE}\n", printed)
        for line in curls.splitlines():
            child = await asyncio.create_subprocess_shell(
                f"{line.replace(AT, gateway.url)} --silent --fail", stdout=asyncio.subprocess.PIPE
            )
            out, _ = await child.communicate()
            assert child.returncode == 0
            assert json.loads(out)


def test_gateway_config_prints_what_its_page_has() -> None:
    (part,) = programs("docs/gateway.md", "json5")
    done = here("gateway", "config", "kraken", "--json")
    told, said = json.loads(f"{{{part}}}")["exchange"], done.json["freqtrade"]
    del said["ccxt_config"]["urls"]["api"]["zendesk"]
    assert told == said
    (python, _) = programs("docs/gateway.md")
    assert said["ccxt_config"]["urls"]["api"]["public"] in python


def test_the_gateway_s_configuration_loads(tmp_path: Path) -> None:
    signed, tokens = programs("docs/gateway.md", "toml")
    file = tmp_path / "fleet.toml"
    file.write_text(tokens, encoding="utf-8")
    assert {name: each.weight for name, each in config.load(file, {}).gateway.tokens.items()} == {
        "bot-1": 1,
        "bot-2": 3,
    }
    file.write_text(signed, encoding="utf-8")
    assert config.load(file, {}).gateway.signed


async def test_the_gateway_s_order(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, program = programs("docs/gateway.md")
    account = next(iter(ACCOUNTS.values()))
    for name, value in {"APIKEY": account.key, "SECRET": account.secret, "PASSWORD": account.passphrase}.items():
        monkeypatch.setenv(f"OKX_{name}", value)
    file = tmp_path / "fleet.toml"
    file.write_text(
        stand.fleet.config_file.read_text(encoding="utf-8") + "\n[gateway]\nsigned = true\n", encoding="utf-8"
    )
    async with gateways.beside(stand, words=["--config", str(file)]) as gateway:
        printed = await run(program.replace(AT, gateway.url), stand.url, cwd=tmp_path)
        assert re.fullmatch(r"placed \d+\n", printed)


@pytest.mark.parametrize(
    ("number", "prints"), [(0, rf"{PRICE}\nkraken does not have market symbol NO/PE\n"), (1, r"240 candles\n")]
)
async def test_drop_in(stand: Stand, number: int, prints: str) -> None:
    """With the modules' names in the checkout."""
    program = programs("docs/drop-in.md")[number]
    program = program.replace("ccxt_fleet.ccxt", "workers.dropin.ccxt")
    assert re.fullmatch(prints, await run(program, stand.url, cwd=ROOT))


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
