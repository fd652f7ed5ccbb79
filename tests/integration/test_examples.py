"""Every configuration in the docs opens all its lanes under their real names, or is refused as the docs tell."""

import asyncio
import re
import sys
import tomllib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from aiohttp import web

from deploy.local import Services
from deploy.simulator.accounts import ACCOUNTS
from deploy.simulator.process import Simulator
from deploy.standin import NAMES, StandIns, pass_on
from schemas.config import load
from tests.support.fleet import Client, opened
from tests.support.reads import BTC

ROOT: Final = Path(__file__).resolve().parents[2]
# Where the docs say that secrets are mounted; a test may write there no more than a user may.
MOUNTED: Final = "/run/secrets/"
# What the shipped file does not ask, and Binance's class asks by itself: futures.
FUTURES: Final = {"fapi.binance.com": "binance", "dapi.binance.com": "binance"}
TESTNETS: Final = {"testnet.binance.vision": "binance"}
PROXY: Final = "proxy.example:3128"
ACCOUNT: Final = next(iter(ACCOUNTS.values()))
SECRETS: Final = {"api_key": ACCOUNT.key, "secret": ACCOUNT.secret, "password": ACCOUNT.passphrase}


class Example(NamedTuple):
    """A TOML block of the docs, and the error that stands below it where it is an example of one."""

    doc: str
    toml: str
    error: str

    def completed(self) -> str:
        """The example as it stands, and the lanes of its groups where it has none."""
        raw = tomllib.loads(self.toml)
        grouped = () if "lanes" in raw else (name for group in raw["groups"].values() for name in group["exchanges"])
        return self.toml + "".join(f"\n[lanes.{name}]\n" for name in grouped)


def examples(*, refused: bool) -> list[Any]:
    # A block that begins with a table's name is that table (`test_new_exchange.py` runs it), no configuration.
    block = re.compile(
        r"```toml\n(?!# workers/limits/)((?:(?!```).)*)```(?:\n\n```text\n((?:(?!```).)*)```)?", re.DOTALL
    )
    docs = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    found = [
        pytest.param(Example(doc.name, toml, error.strip()), id=f"{doc.name}:{number}")
        for doc in docs
        for number, (toml, error) in enumerate(block.findall(doc.read_text(encoding="utf-8")), 1)
        if bool(error) is refused
    ]
    assert found
    return found


class Exchanges:
    """Bybit and Bitso with one market each, which the simulator does not have."""

    urls: dict[str, str]

    async def _bybit(self, request: web.Request) -> web.Response:
        market = {"symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "status": "Trading"}
        ticker = {"symbol": "BTCUSDT", "lastPrice": "5", "bid1Price": "4", "ask1Price": "6"}
        spot = [ticker if request.path.endswith("tickers") else market]
        category = request.query["category"]
        result = {"category": category, "list": spot if category == "spot" else [], "nextPageCursor": ""}
        return web.json_response({"retCode": 0, "retMsg": "OK", "result": result, "time": 1})

    async def _bitso(self, request: web.Request) -> web.Response:
        ticker = {"created_at": "2026-11-29T00:00:00+00:00", "last": "5", "bid": "4", "ask": "6", "book": "btc_usdt"}
        market = {"book": "btc_usdt", "minimum_amount": "1", "fees": {"flat_rate": {"maker": "1", "taker": "1"}}}
        payload: dict[str, Any] = {"ticker": ticker, "available_books": [market], "catalogues": {}}
        return web.json_response({"success": True, "payload": payload[request.match_info["what"]]})

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncGenerator["Exchanges"]:
        exchanges = cls()
        app = web.Application()
        app.router.add_get("/v5/market/{what:instruments-info|tickers}", exchanges._bybit)
        app.router.add_get("/api/v3/{what:ticker|available_books|catalogues}", exchanges._bitso)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        exchanges.urls = dict.fromkeys(("api.bybit.com", "bitso.com"), f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            yield exchanges
        finally:
            await runner.cleanup()


class HttpProxy:
    """An HTTP proxy with an address of its own, to stand-ins alone; `connected` are the names it was asked for."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self.port = 0
        self._ports: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, name, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
        assert verb == "CONNECT"
        self.connected.append(name)
        there = await asyncio.open_connection("127.0.0.1", self._ports[name], local_addr=("127.0.0.2", 0))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def know(self, stand_ins: StandIns) -> None:
        """Takes the places of these."""
        self._ports = stand_ins.ports


def supply_secrets(toml: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Puts an account's secrets where the example looks for them; returns it with mounted files in this folder."""
    for account in tomllib.loads(toml).get("accounts", {}).values():
        for part, where in account.items():
            if "env" in where:
                monkeypatch.setenv(where["env"], SECRETS[part])
            else:
                assert where["file"].startswith(MOUNTED)
                (folder / where["file"].removeprefix(MOUNTED)).write_text(SECRETS[part])
    return toml.replace(MOUNTED, f"{folder}/")


@pytest.mark.parametrize("example", examples(refused=False))
async def test_all_lanes_open_and_answer(
    example: Example, vhost: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, proxy = tmp_path / "example.toml", HttpProxy()
    file.write_text(supply_secrets(example.completed(), tmp_path, monkeypatch), encoding="utf-8")
    config = load(file)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator())
        others = await stack.enter_async_context(Exchanges.serving())
        await stack.enter_async_context(proxy.serving())
        names = {**NAMES, **FUTURES, **TESTNETS}
        urls = others.urls | {name: simulator.urls[exchange] for name, exchange in names.items()}
        stand_ins = StandIns(tmp_path / "stand-ins", urls, {PROXY: proxy.port})
        await stack.enter_async_context(stand_ins)
        proxy.know(stand_ins)
        fleet = Services(tmp_path, file, broker_url=vhost, redis_url=redis_url, workers=1, stand_ins=stand_ins)
        await stack.enter_async_context(fleet)
        await opened(fleet)
        client = await stack.enter_async_context(Client.on(vhost))
        for name, lane in config.lanes.items():
            answer = await client.ask("fetch_ticker", BTC, exchanges=[name])
            assert answer.result.ok, answer
            assert answer.result.lane == name
            if lane.account:
                balance = await client.ask("fetch_balance", account=lane.account)
                assert balance.result.ok, balance
                assert balance.result.data["BTC"]["total"] == float(ACCOUNT.btc)
        for group in config.groups:
            assert (await client.ask("fetch_ticker", BTC, exchanges=[group])).result.ok
        assert bool(proxy.connected) == any(lane.proxy for lane in config.lanes.values())
        assert not (await simulator.counters())["violations"]


@pytest.mark.parametrize("example", examples(refused=True))
async def test_what_is_wrong_is_refused_as_the_docs_tell(example: Example, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(example.toml, encoding="utf-8")
    for package in ("dispatcher", "workers"):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", package, "--config", "fleet.toml"),
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await child.communicate()
        assert (child.returncode, said.decode()) == (1, f"{package}: {example.error}\n")
