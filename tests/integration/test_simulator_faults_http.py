"""Each fault of the simulator, as a client and as ccxt meets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
import pytest_asyncio

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator, SimulatorError

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXCHANGES = ("binance", "okx", "htx", "coinbase", "kraken", "coinbaseexchange")
TIMES = {
    "binance": "/api/v3/time",
    "okx": "/api/v5/public/time",
    "htx": "/v1/common/timestamp",
    "coinbase": "/v2/time",
    "kraken": "/0/public/Time",
    "coinbaseexchange": "/time",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Simulator]:
    async with Simulator(exchanges=EXCHANGES, arguments=["--no-limits"]) as simulator:
        yield simulator


@pytest_asyncio.fixture(loop_scope="module")
async def simulator(running: Simulator) -> Simulator:
    for name in running.urls:
        await running.clear(name)
    await running.reset()
    return running


@asynccontextmanager
async def client(simulator: Simulator, name: str, **overrides: Any) -> AsyncGenerator[Any]:
    config = {**ccxt_config(name, simulator.urls[name]), "enableRateLimit": False, "timeout_on_exit": 0, **overrides}
    exchange = getattr(ccxt, name)(config)
    try:
        yield exchange
    finally:
        await exchange.close()


async def faults(simulator: Simulator, name: str) -> int:
    count: int = (await simulator.counters())["exchanges"][name]["faults"]
    return count


async def until_fault(simulator: Simulator, name: str) -> None:
    """Wait until a request has met a fault. Only polling shows it, and each poll lets the others go on."""
    async with asyncio.timeout(30):
        while not await faults(simulator, name):
            pass


async def test_it_hangs_up_on_a_connection_s_second_request(simulator: Simulator) -> None:
    await simulator.fault("okx", hangs_up=True)
    async with aiohttp.ClientSession() as session:
        session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
        for number in range(6):
            if number % 2:
                with pytest.raises(aiohttp.ServerDisconnectedError):
                    await session.get(simulator.urls["okx"] + TIMES["okx"])
                continue
            async with session.get(simulator.urls["okx"] + TIMES["okx"]) as answer:
                assert answer.status == 200
    assert await faults(simulator, "okx") == 3


@pytest.mark.parametrize("name", EXCHANGES)
async def test_down_refuses_connections_and_comes_back_on_the_same_port(simulator: Simulator, name: str) -> None:
    url = simulator.urls[name] + TIMES[name]
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as answer:
            assert answer.status == 200
        await simulator.fault(name, down="refused")
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            # Also on the connection that was kept alive: down cuts it.
            await session.get(url)
        assert isinstance(raised.value.os_error, ConnectionRefusedError)
        # A second time changes nothing, and the others go on.
        await simulator.fault(name, down="refused")
        other = "okx" if name != "okx" else "htx"
        async with session.get(simulator.urls[other] + TIMES[other]) as answer:
            assert answer.status == 200
        await simulator.clear(name)
        async with session.get(url) as answer:
            assert answer.status == 200
    await simulator.fault(name, down="refused")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)
    assert simulator.urls[name] == (await simulator.ask("GET", "/exchanges"))[name]


@pytest.mark.parametrize("name", EXCHANGES)
async def test_reset_cuts_every_connection(simulator: Simulator, name: str) -> None:
    async with client(simulator, name) as exchange:
        await simulator.fault(name, down="reset")
        with pytest.raises(ccxt.ExchangeNotAvailable) as raised:
            await exchange.fetch_time()
        assert isinstance(raised.value.__cause__, aiohttp.ClientConnectionError)
        await simulator.clear(name)
        assert await exchange.fetch_time()


async def test_hang_reads_and_never_answers_and_going_down_frees_it(simulator: Simulator) -> None:
    await simulator.fault("okx", hang=True)
    async with aiohttp.ClientSession() as session:
        asked = asyncio.create_task(session.get(simulator.urls["okx"] + TIMES["okx"]))
        await until_fault(simulator, "okx")
        assert not asked.done()
        await simulator.fault("okx", down="refused")
        with pytest.raises(aiohttp.ClientConnectionError):
            await asked


async def test_latency_makes_answers_late(simulator: Simulator) -> None:
    # The client gives up first: an answer takes a minute at least.
    await simulator.fault("okx", latency_ms=60_000, latency_jitter_ms=1000)
    async with client(simulator, "okx", timeout=50) as exchange:
        with pytest.raises(ccxt.RequestTimeout):
            await exchange.fetch_time()
        await simulator.fault("okx", latency_ms=1)
        exchange.timeout = 10_000
        assert await exchange.fetch_time()


@pytest.mark.parametrize("name", EXCHANGES)
async def test_errors_come_at_their_rate_as_500_and_503(simulator: Simulator, name: str) -> None:
    await simulator.fault(name, error_rate=0.3)
    statuses: list[int] = []
    async with aiohttp.ClientSession() as session:
        for _ in range(400):
            async with session.get(simulator.urls[name] + TIMES[name]) as answer:
                statuses.append(answer.status)
                await answer.read()
    assert set(statuses) == {200, 500, 503}
    failed = len(statuses) - statuses.count(200)
    # 120 expected; the draw is seeded, so this can't flake, only change with the code.
    assert 80 < failed < 160
    assert await faults(simulator, name) == failed


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        # Away from binance.com ccxt has no class for -1008.
        ("binance", {ccxt.OperationFailed, ccxt.ExchangeError}),
        ("okx", {ccxt.ExchangeNotAvailable}),
        ("htx", {ccxt.ExchangeNotAvailable}),
        ("coinbase", {ccxt.ExchangeNotAvailable}),
        ("kraken", {ccxt.ExchangeNotAvailable}),
        ("coinbaseexchange", {ccxt.ExchangeNotAvailable}),
    ],
)
async def test_what_ccxt_makes_of_errors(simulator: Simulator, name: str, errors: set[type[Exception]]) -> None:
    seen: set[type[Exception]] = set()
    async with client(simulator, name) as exchange:
        await exchange.load_markets()
        await simulator.fault(name, error_rate=1)
        for _ in range(30):
            with pytest.raises(ccxt.BaseError) as raised:
                await exchange.fetch_ticker("BTC/USDT")
            seen.add(raised.type)
    assert seen == errors


@pytest.mark.parametrize("name", EXCHANGES)
async def test_garbage_comes_with_http_200(simulator: Simulator, name: str) -> None:
    url = simulator.urls[name] + TIMES[name]
    async with aiohttp.ClientSession() as session:
        await simulator.fault(name, garbage="html")
        async with session.get(url) as answer:
            assert answer.status == 200
            assert (await answer.text()).startswith("<!DOCTYPE html>")
        await simulator.fault(name, garbage="empty")
        async with session.get(url) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        await simulator.fault(name, garbage="truncated")
        async with session.get(url) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        await simulator.fault(name, garbage="redirect")
        async with session.get(url, allow_redirects=False) as answer:
            assert answer.status == 302
        async with session.get(url) as answer:
            assert (answer.status, len(answer.history)) == (200, 1)
            assert "<html>" in await answer.text()
        await simulator.clear(name)
        async with session.get(url) as answer:
            assert await answer.json()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("binance", ccxt.OnMaintenance),
        ("okx", ccxt.OnMaintenance),
        ("htx", ccxt.OnMaintenance),
        ("coinbase", ccxt.ExchangeNotAvailable),
        ("kraken", ccxt.ExchangeNotAvailable),
        ("coinbaseexchange", ccxt.ExchangeNotAvailable),
    ],
)
async def test_maintenance_is_reported_in_the_exchanges_own_way(
    simulator: Simulator, name: str, error: type[Exception]
) -> None:
    async with client(simulator, name) as exchange:
        await exchange.load_markets()
        await simulator.fault(name, maintenance=True)
        with pytest.raises(error):
            await exchange.fetch_ticker("BTC/USDT")
        if exchange.has["fetchStatus"]:
            assert (await exchange.fetch_status())["status"] == "maintenance"
            await simulator.clear(name)
            assert (await exchange.fetch_status())["status"] == "ok"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("binance", ccxt.DDoSProtection),
        ("okx", ccxt.RateLimitExceeded),
        ("htx", ccxt.ExchangeError),
        ("coinbase", ccxt.RateLimitExceeded),
        ("kraken", ccxt.DDoSProtection),
        ("coinbaseexchange", ccxt.RateLimitExceeded),
    ],
)
async def test_a_ban_is_for_every_client_and_ends(simulator: Simulator, name: str, error: type[Exception]) -> None:
    async with client(simulator, name) as exchange:
        await simulator.fault(name, ban_s=30)
        for _ in range(2):
            with pytest.raises(error) as raised:
                await exchange.fetch_time()
            assert raised.type is error
        await simulator.set_clock(advance_s=31)
        assert await exchange.fetch_time()
    counts = (await simulator.counters())["exchanges"][name]
    assert (counts["refused_while_banned"], counts["refused_over_limit"], counts["violations"]) == (2, 0, 2)


async def test_the_control_port_says_what_is_wrong(simulator: Simulator) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"latency": 3}, "unknown field `latency`"),
        ({"down": "maybe"}, r"\$\.down"),
        ({"error_rate": 2}, r"\$\.error_rate"),
        ({"hang": 1}, r"\$\.hang"),
    ]
    for entry, reason in wrong:
        with pytest.raises(SimulatorError, match=f"400.*{reason}"):
            await simulator.fault("okx", **entry)
    with pytest.raises(SimulatorError, match=r"404.*no exchange 'mtgox' here"):
        await simulator.fault("mtgox", hang=True)
    with pytest.raises(SimulatorError, match=r"400.*advance_s"):
        await simulator.set_clock(advance_s=-1)
    await simulator.fault("okx", latency_ms=5)
    assert (await simulator.ask("GET", "/faults"))["okx"]["latency_ms"] == 5
    await simulator.clear("okx")
    assert (await simulator.ask("GET", "/faults"))["okx"]["latency_ms"] == 0


async def test_a_start_that_fails_says_why_and_leaves_nothing() -> None:
    simulator = Simulator(exchanges=["mtgox"])
    with pytest.raises(SimulatorError, match="no exchange 'mtgox'"):
        await simulator.start()
    assert simulator.pid is None


async def test_a_signal_ends_it_with_status_0_even_while_requests_hang() -> None:
    simulator = Simulator(exchanges=["okx"])
    await simulator.start()
    await simulator.fault("okx", hang=True)
    process = simulator._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    async with aiohttp.ClientSession() as session:
        asked = asyncio.create_task(session.get(simulator.urls["okx"] + TIMES["okx"]))
        await until_fault(simulator, "okx")
        await simulator.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await asked
    assert process.exit_code == 0
