"""Connections to exchanges: there before the first call, reused, and rebuilt when they are dead."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.messages import ErrorCode
from tests.support.exchange_lanes import Answers, Lanes, call
from tests.support.fleet import wait_until
from tests.support.suspended import Machine
from tests.support.tcp_proxy import Proxy
from workers.exchange import egress
from workers.exchange.errors import judge
from workers.exchange.lane_exchange import LaneExchange

BTC: dict[str, Any] = {"symbol": "BTC/USDT"}
TICKER = '{"symbol":"BTCUSDT","lastPrice":"5","bidPrice":"4","askPrice":"6"}'


@pytest.fixture
async def server() -> AsyncIterator[Answers]:
    async with Answers.serving() as answers:
        answers.answer = (200, {}, TICKER)
        yield answers


@pytest.fixture
async def proxy(server: Answers) -> AsyncIterator[Proxy]:
    """Yield a proxy before the server, which the server shows to be there."""
    async with Proxy.before(int(server.url.rpartition(":")[2])) as proxy:
        server.url = f"http://127.0.0.1:{proxy.port}"
        yield proxy


async def ask(lane: LaneExchange, times: int = 1) -> None:
    """Calls at once, all of which must bring data."""
    tickers = await asyncio.gather(*(lane.call("fetch_ticker", BTC, call("binance")) for _ in range(times)))
    assert all(ticker["last"] for ticker in tickers)


async def ask_on_many(lane: LaneExchange, server: Answers, times: int) -> None:
    """Makes calls that need a connection each: they are answered together, when the last has come."""
    before = len(server.hits)
    server.held_path = "ticker"
    asking = asyncio.create_task(ask(lane, times))
    await wait_until(lambda: len(server.hits) == before + times, "all calls have come")
    server.held_path = ""
    await asking


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("egress_of", ["the system", "another address", "an HTTP proxy"])
async def test_the_first_call_finds_a_connection(lanes: Lanes, server: Answers, proxy: Proxy, egress_of: str) -> None:
    settings = server.settings("binance")
    egresses: dict[str, dict[str, Any]] = {
        "the system": {},
        "another address": {"local_addr": "127.0.0.2"},
        "an HTTP proxy": {"proxy": f"http://127.0.0.1:{proxy.port}"},
    }
    egress = lanes.egress(**egresses[egress_of])
    await egress.open([f"{server.url}/api/v3/ticker", f"{server.url}/api/v3/time"])
    assert proxy.accepted == 1
    assert not server.hits
    lane, budget = lanes.lane("binance", settings, egress=egress)
    await ask(lane)
    assert (proxy.accepted, len(server.hits), len(budget.granted)) == (1, 1, 1)


@pytest.mark.parametrize("exchange", ["binance", "okx", "htx", "coinbase", "kraken"])
async def test_a_lane_whose_markets_others_read_has_a_connection_before_its_first_call(
    lanes: Lanes, exchange: str
) -> None:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(exchanges=[exchange]))
        proxy = await stack.enter_async_context(Proxy.before(int(simulator.urls[exchange].rpartition(":")[2])))
        settings = ccxt_config(exchange, f"http://127.0.0.1:{proxy.port}")
        reader, _ = lanes.lane(exchange, settings)
        await reader.open()
        counted = (await simulator.counters())["exchanges"][exchange]["requests"]
        other, budget = lanes.lane(exchange, settings)
        accepted = proxy.accepted
        await other.open()
        assert proxy.accepted == accepted + 1
        assert (await simulator.counters())["exchanges"][exchange]["requests"] == counted
        assert not budget.granted
        assert await other.call("fetch_ticker", BTC, call(exchange))
        assert proxy.accepted == accepted + 1


async def test_an_address_where_nothing_listens_is_reported_by_the_calls(lanes: Lanes, proxy: Proxy) -> None:
    opened = lanes.egress()
    proxy.freeze()
    await opened.open(["http://127.0.0.1:1", f"https://127.0.0.1:{proxy.port}"])
    proxy.thaw()


async def test_a_connection_that_was_idle_for_long_is_not_used(
    lanes: Lanes, server: Answers, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, _ = lanes.lane("binance", server.settings("binance"))
    await ask(lane)
    await ask(lane)
    assert proxy.accepted == 1
    monkeypatch.setattr(egress, "IDLE_S", 0.0)
    await ask(lane)
    assert proxy.accepted == 2
    assert len(server.hits) == 3


async def test_a_connection_that_was_idle_while_the_machine_slept_is_not_used(
    lanes: Lanes, server: Answers, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    lane, _ = lanes.lane("binance", server.settings("binance"))
    await ask(lane)
    await ask(lane)
    assert proxy.accepted == 1
    machine.slept_s = egress.IDLE_S + 1
    await ask(lane)
    assert proxy.accepted == 2


async def test_a_connection_that_ends_as_a_call_comes_costs_a_second_call_and_no_attempt(lanes: Lanes) -> None:
    async with Simulator(exchanges=["binance"]) as simulator:
        lane, budget = lanes.lane("binance", ccxt_config("binance", simulator.urls["binance"]))
        await lane.open()
        opened = len(budget.granted)
        await simulator.fault("binance", hangs_up=True)
        for _ in range(10):
            attempt = call("binance")
            assert await lane.call("fetch_ticker", BTC, attempt)
            assert attempt.http_calls <= 2
        counted = (await simulator.counters())["exchanges"]["binance"]
    assert counted["faults"] > 5
    assert counted["requests"] == len(budget.granted) == opened + 10 + counted["faults"]


async def test_an_exchange_that_ends_every_connection_is_asked_twice_at_most(lanes: Lanes) -> None:
    """The first call is answered; from then on connections end as a call comes, new ones too."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        if requests == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            writer.write(f"Content-Length: {len(TICKER)}\r\n\r\n{TICKER}".encode())
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        answers = Answers()
        answers.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        lane, budget = lanes.lane("binance", answers.settings("binance"))
        await ask(lane)
        for calls in (2, 1):  # then there is no connection to reuse
            attempt = call("binance")
            with pytest.raises(Exception) as raised:
                await lane.call("fetch_ticker", BTC, attempt)
            assert judge(raised.value, attempt).code is ErrorCode.EXCHANGE_UNAVAILABLE
            assert attempt.http_calls == calls
    assert requests == len(budget.granted) == 4


async def test_an_exchange_that_restarts_costs_no_attempt_and_no_handle(lanes: Lanes) -> None:
    async with Simulator(exchanges=["binance"]) as simulator:
        lane, budget = lanes.lane("binance", ccxt_config("binance", simulator.urls["binance"]))
        await lane.open()
        await simulator.fault("binance", latency_ms=50)  # so that they need a connection each
        await ask(lane, 20)
        before = handles()
        for _ in range(5):
            await simulator.fault("binance", down="refused")
            await simulator.fault("binance", latency_ms=50)
            await ask(lane, 20)
        await wait_until(lambda: handles() <= before, "no handle is left behind")
        counted = (await simulator.counters())["exchanges"]["binance"]
    assert counted["requests"] == len(budget.granted)


async def test_after_one_call_without_an_answer_no_other_meets_a_dead_connection(
    lanes: Lanes, server: Answers, proxy: Proxy
) -> None:
    lane, _ = lanes.lane("binance", server.settings("binance"))
    await ask_on_many(lane, server, 10)
    assert proxy.accepted == 10
    before = handles()
    proxy.freeze(*range(1, 11))
    attempt = call("binance", timeout_s=1)
    with pytest.raises(Exception) as raised:
        await lane.call("fetch_ticker", BTC, attempt)
    assert judge(raised.value, attempt).code is ErrorCode.EXCHANGE_TIMEOUT
    await ask_on_many(lane, server, 10)
    assert proxy.accepted == 20
    proxy.thaw()
    await wait_until(lambda: handles() <= before, "no handle is left behind")


async def test_what_has_answered_since_is_not_given_up(lanes: Lanes, server: Answers, proxy: Proxy) -> None:
    lane, _ = lanes.lane("binance", server.settings("binance"))
    await ask_on_many(lane, server, 2)
    proxy.freeze()
    lost = asyncio.create_task(lane.call("fetch_ticker", BTC, call("binance", timeout_s=1)))
    await wait_until(lambda: proxy.held, "it is out")
    proxy.freeze(*proxy.held)
    await ask(lane)  # on the other connection
    with pytest.raises(Exception, match="ticker"):
        await lost
    await ask(lane)
    assert proxy.accepted == 2
    proxy.thaw()


async def test_nothing_is_left_open_when_an_address_is_given_up(lanes: Lanes, server: Answers, proxy: Proxy) -> None:
    await ask_on_many(lanes.lane("binance", server.settings("binance"))[0], server, 2)  # what stays of the tests
    before = handles()
    for number in range(5):
        opened = egress.Egress(lanes.ssl_context, local_addr=f"127.0.0.{number + 2}")
        lane, _ = lanes.lane("binance", server.settings("binance"), egress=opened)
        await ask_on_many(lane, server, 5)
        await opened.close()
    assert proxy.accepted == 27
    await wait_until(lambda: handles() <= before, "no handle is left behind")
