"""A testnet beside the real exchange: who reaches it, where its calls go, and that their budgets are apart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

import workers.dropin.ccxt as fleet_ccxt
from deploy.local import Services
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.messages import ErrorCode
from schemas.runtime.store import connect
from tests.support.fleet import QUICK, Client, opened
from tests.support.reads import BTC
from workers.dropin import door


class World:
    """A fleet with a lane to each of two simulators, of which one is the testnet."""

    def __init__(self, real: Simulator, testnet: Simulator, client: Client, test: dict[str, str]) -> None:
        self.real, self.testnet, self.client, self.test = real, testnet, client, test

    async def counts(self) -> list[int]:
        """How many tickers each of them was asked for."""
        found = [await simulator.counters() for simulator in (self.real, self.testnet)]
        assert not any(each["violations"] for each in found)
        asked = [each["exchanges"]["binance"]["endpoints"] for each in found]
        return [sum(count for name, count in each.items() if "ticker" in name) for each in asked]


@pytest.fixture
async def world(vhost: str, redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    describe: Any = ccxt.binance().describe()
    async with AsyncExitStack() as stack:
        real, testnet = [await stack.enter_async_context(Simulator(exchanges=["binance"])) for _ in range(2)]
        api = ccxt_config("binance", testnet.urls["binance"])["urls"]["api"]
        test = {name: url for name, url in api.items() if name in describe["urls"]["test"]}
        lanes = {
            "binance": {"ccxt": ccxt_config("binance", real.urls["binance"])},
            "binance.testnet": {"sandbox": True, "ccxt": {"urls": {"test": test}}},
        }
        fleet = Services(tmp_path, {**QUICK, "lanes": lanes}, broker_url=vhost, redis_url=redis_url, workers=1)
        await stack.enter_async_context(fleet)
        await opened(fleet)
        yield World(real, testnet, await stack.enter_async_context(Client.on(vhost)), test)


async def test_a_program_s_ccxt_in_sandbox_mode_reaches_the_testnet(
    world: World, vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_BROKER_URL", vhost)
    before = await world.counts()
    exchange = fleet_ccxt.binance({"urls": {"test": world.test}, "options": {"fetchMarkets": {"types": ["spot"]}}})
    exchange.set_sandbox_mode(True)
    try:
        ticker = await asyncio.to_thread(exchange.fetch_ticker, "BTC/USDT")
    finally:
        await asyncio.to_thread(door.close)
    assert ticker["symbol"] == "BTC/USDT"
    assert await world.counts() == [before[0], before[1] + 1]


async def test_a_testnet_is_an_exchange_of_its_own(world: World, redis_url: str) -> None:
    before = await world.counts()
    for number, exchanges in enumerate((["binance.testnet"], ["binance-sandbox"]), 1):
        result = (await world.client.ask("fetch_ticker", BTC, exchanges=exchanges)).result
        assert result.ok, result
        assert (result.exchange, result.lane) == ("binance-sandbox", "binance.testnet")
        assert await world.counts() == [before[0], before[1] + number]

    for number, exchanges in enumerate(([], ["binance"], [], []), 1):
        result = (await world.client.ask("fetch_ticker", BTC, exchanges=exchanges)).result
        assert result.ok, result
        assert (result.exchange, result.lane) == ("binance", "binance")
        assert await world.counts() == [before[0] + number, before[1] + 2]

    result = (await world.client.ask("fetch_ticker", BTC, exchanges=["okx"])).result
    assert result.error is not None
    assert result.error.code is ErrorCode.UNKNOWN_EXCHANGE
    assert "binance-sandbox" in result.error.message

    async with connect(redis_url, timeout_s=5) as client:
        any_client: Any = client
        keys: list[str] = [key.decode() async for key in any_client.scan_iter(match="fleet:{binance*")]
    real = {key.partition("}:")[2] for key in keys if key.startswith("fleet:{binance}:")}
    testnet = {key.partition("}:")[2] for key in keys if key.startswith("fleet:{binance-sandbox}:")}
    assert len(keys) == len(real) + len(testnet)
    assert {"default:spot", "clock"} <= real & testnet, (real, testnet)
