"""Lanes against real HTTP servers, with their budget in a real Redis."""

import asyncio
import itertools
import time
from typing import Any

import pytest

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.errors import ConfigError, InvalidMessage
from schemas.messages import ErrorCode, Outcome
from schemas.methods import HTTP, PUBLIC_READS
from tests.support.exchange_lanes import Answers, Lanes, call
from workers.exchange.call import CALL, Call
from workers.exchange.clock import CLOCK_TRIES, set_windows
from workers.exchange.errors import NoBudget, judge
from workers.exchange.lane_exchange import LaneExchange

SIMULATED = ("binance", "okx", "htx", "coinbase", "kraken")
TICKER = '{"symbol":"BTCUSDT","lastPrice":"5","bidPrice":"4","askPrice":"6"}'
BTC: dict[str, Any] = {"symbol": "BTC/USDT"}
READS: dict[str, dict[str, Any]] = {
    "fetch_ticker": BTC,
    "fetch_order_book": BTC,
    "fetch_ohlcv": {**BTC, "timeframe": "1m", "limit": 5},
    "fetch_trades": {**BTC, "limit": 5},
    "fetch_time": {},
}


async def failed(
    lane: LaneExchange, attempt: Call, method: str = "fetch_ticker", args: dict[str, Any] = BTC
) -> ErrorCode:
    with pytest.raises(Exception) as raised:
        await lane.call(method, args, attempt)
    return judge(raised.value, attempt).code


@pytest.mark.parametrize("exchange", SIMULATED)
async def test_an_exchange_well_and_ill(lanes: Lanes, exchange: str) -> None:
    """Every HTTP call of every method is charged once. Garbage with status 200 is never data. Limits are kept."""
    async with Simulator(exchanges=[exchange]) as simulator:
        settings = ccxt_config(exchange, simulator.urls[exchange])
        lane, budget = lanes.lane(exchange, settings)
        await lane.open()

        async def hits() -> int:
            counters = await simulator.counters()
            assert counters["violations"] == 0
            return int(counters["exchanges"][exchange]["requests"])

        opened = await hits()
        assert len(budget.granted) == opened
        other, other_budget = lanes.lane(exchange, settings, scope="10.0.0.2")
        await other.open()
        assert not other_budget.granted
        assert await hits() == opened

        for method, args in READS.items():
            attempt = call(exchange)
            assert await lane.call(method, args, attempt)
            assert attempt.http_calls == 1
            assert attempt.exchange_s > 0
        assert await hits() == len(budget.granted) == opened + len(READS)

        numbers = itertools.count(2)

        def elsewhere() -> LaneExchange:
            """The same from an address that has sent nothing yet."""
            address = f"127.0.0.{next(numbers)}"
            egress = lanes.egress(local_addr=address)
            return lanes.lane(exchange, settings, scope=address, egress=egress, http_timeout_s=1)[0]

        for garbage in ("html", "truncated", "empty", "redirect"):
            await simulator.fault(exchange, garbage=garbage)
            for method, args in READS.items():
                attempt = call(exchange)
                lane = elsewhere()
                await lane.open()
                assert await failed(lane, attempt, method, args) is ErrorCode.BAD_RESPONSE, (garbage, method)
                assert attempt.http_calls == 1
        unavailable = {ErrorCode.EXCHANGE_UNAVAILABLE}
        for fault, codes in (
            ({"hang": True}, {ErrorCode.EXCHANGE_TIMEOUT}),
            ({"down": "reset"}, unavailable),
            ({"down": "refused"}, unavailable),
            # Coinbase has no words for it but a 503, Kraken but "unavailable".
            ({"maintenance": True}, unavailable if exchange in ("coinbase", "kraken") else {ErrorCode.MAINTENANCE}),
        ):
            await simulator.fault(exchange, **fault)
            lane = elsewhere()
            await lane.open()
            assert await failed(lane, call(exchange)) in codes, fault
        counters = await simulator.counters()
        assert counters["violations"] == 0
        assert len(counters["exchanges"][exchange]["clients"]) > 20
        await simulator.clear(exchange)
        assert await lane.call("fetch_ticker", BTC, call(exchange))


@pytest.mark.parametrize(("status", "pause_s"), [(429, 50), (418, 120)])
async def test_a_refusal_pauses_all_lanes_of_the_address(
    server: Answers, lanes: Lanes, status: int, pause_s: float
) -> None:
    server.answer = (status, {"Retry-After": "50"}, "{}")
    lane, _ = lanes.lane("binance", server.settings("binance"))
    other, _ = lanes.lane("binance", server.settings("binance"), egress=lanes.egress())
    elsewhere, _ = lanes.lane("binance", server.settings("binance"), scope="10.0.0.2")
    assert await failed(lane, call("binance")) is ErrorCode.RATE_LIMITED
    server.answer = (200, {}, TICKER)
    for silent in (lane, other):
        attempt = call("binance", max_wait_s=5)
        with pytest.raises(NoBudget) as raised:
            await silent.call("fetch_ticker", BTC, attempt)
        verdict = judge(raised.value, attempt)
        assert (verdict.outcome, verdict.code) == (Outcome.THROTTLED, ErrorCode.PAUSED)
        assert 5 < verdict.pause_s <= pause_s  # no ban is shorter than 2 minutes
    assert (await elsewhere.call("fetch_ticker", BTC, call("binance")))["last"] == 5
    assert len(server.hits) == 2


async def test_a_refusal_of_one_endpoint_pauses_that_endpoint_alone(server: Answers, lanes: Lanes) -> None:
    server.answer = (429, {"Retry-After": "50"}, '{"code":"50011","msg":"Too Many Requests","data":[]}')
    lane, _ = lanes.lane("okx", server.settings("okx"))
    assert await failed(lane, call("okx")) is ErrorCode.RATE_LIMITED
    server.answer = (200, {}, '{"code":"0","data":[{"ts":"1"}]}')
    assert await failed(lane, call("okx", max_wait_s=1)) is ErrorCode.PAUSED
    assert await lane.call("fetch_time", {}, call("okx", max_wait_s=1)) == 1


def ccxt_of(lane: LaneExchange) -> Any:
    return lane._ccxt  # pyright: ignore[reportPrivateUsage]


async def test_the_exchanges_clock_is_taken_over_within_one_window(server: Answers, lanes: Lanes) -> None:
    """A clock that is wrong by years moves the start of the minute, and no more."""
    server.by_path = {"time": '{"serverTime":1}'}
    lane, budget = lanes.lane("binance", server.settings("binance"))
    token = CALL.set(attempt := call("binance"))
    await set_windows(ccxt_of(lane).fetch_time, attempt, budget, lane.costs)
    CALL.reset(token)
    told: Any = await lanes.client.get("fleet:{binance}:clock")
    ahead_us, _, _ = told.partition(b":")
    assert abs(int(ahead_us)) <= 30e6


async def test_the_exchanges_clock_is_asked_again_when_the_answer_took_long(server: Answers, lanes: Lanes) -> None:
    server.by_path = {"time": '{"serverTime":1}'}
    server.held_path = "time"
    lane, budget = lanes.lane("binance", server.settings("binance"))
    token = CALL.set(attempt := call("binance"))
    setting = asyncio.create_task(set_windows(ccxt_of(lane).fetch_time, attempt, budget, lane.costs))
    CALL.reset(token)
    while not server.hits:
        await asyncio.sleep(0.01)
    held_s = time.monotonic()
    while time.monotonic() - held_s < 0.2:
        await asyncio.sleep(0.01)
    server.held_path = ""
    await setting
    assert 2 <= len(server.hits) <= CLOCK_TRIES
    assert len(budget.granted) == len(server.hits)


async def test_a_thousand_attempts_at_once(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {}, TICKER)
    lane, budget = lanes.lane("binance", server.settings("binance"))
    attempts = [call("binance", max_wait_s=90, timeout_s=120) for _ in range(1000)]
    tickers = await asyncio.gather(*(lane.call("fetch_ticker", BTC, attempt) for attempt in attempts))
    assert all(ticker["last"] == 5 for ticker in tickers)
    assert len(server.hits) == len(budget.granted) == 1000
    assert all(attempt.http_calls == 1 and attempt.heard.status == 200 for attempt in attempts)


async def test_markets_are_loaded_once_and_renewed_for_all_lanes(server: Answers, lanes: Lanes) -> None:
    market = (
        '{"symbol":"%sUSDT","status":"TRADING","baseAsset":"%s","quoteAsset":"USDT","filters":[],'
        '"permissions":["SPOT"],"isSpotTradingAllowed":true}'
    )
    server.by_path = {"exchangeInfo": f'{{"symbols":[{market % ("BTC", "BTC")}]}}'}
    server.by_path["time"] = f'{{"serverTime":{time.time() * 1000:.0f}}}'
    settings = server.settings("binance")
    del settings["markets"]
    settings |= {"options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False}}
    settings |= {"has": {"fetchCurrencies": False}}
    server.answer = (200, {}, TICKER)
    one, _ = lanes.lane("binance", settings)
    two, _ = lanes.lane("binance", settings, scope="10.0.0.2")
    await asyncio.gather(one.open(), two.open())
    assert server.hits == ["/api/v3/exchangeInfo", "/api/v3/time"]
    assert await failed(two, call("binance"), args={"symbol": "ETH/USDT"}) is ErrorCode.BAD_SYMBOL

    server.by_path["exchangeInfo"] = f'{{"symbols":[{market % ("ETH", "ETH")}]}}'
    await one.open(max_age_s=0)
    await two.open(max_age_s=60)
    assert server.hits.count("/api/v3/exchangeInfo") == 2
    assert await two.call("fetch_ticker", {"symbol": "ETH/USDT"}, call("binance"))

    server.by_path["exchangeInfo"] = '{"symbols":[]}'
    with pytest.raises(Exception, match="no data"):
        await one.open(max_age_s=0)


@pytest.mark.parametrize(
    ("method", "args", "words"),
    [
        ("fetch_ticker", {}, "needs the argument 'symbol'"),
        ("fetch_ticker", {"symbol": 5}, "symbol must be text"),
        ("fetch_ticker", {"symbol": ["BTC/USDT"]}, "symbol must be text"),
        ("fetch_ticker", {**BTC, "depth": 5}, "no argument 'depth'; it takes symbol, params"),
        ("fetch_tickers", {"symbols": "BTC/USDT"}, "symbols must be a list"),
        ("fetch_ohlcv", {**BTC, "since": "yesterday"}, "since must be Unix milliseconds"),
        ("fetch_ohlcv", {**BTC, "limit": True}, "limit must be a whole number"),
        ("fetch_ohlcv", {**BTC, "limit": 0}, "limit must be a whole number"),
        ("fetch_ohlcv", {**BTC, "params": {"paginate": True}}, "params.paginate is not taken"),
        ("fetch_ohlcv", {**BTC, "params": {"default_paginate": True}}, "is not taken"),
        ("fetch_ticker", {**BTC, "params": {"maxRetriesOnFailure": 9}}, "the fleet retries"),
        ("fetch_ticker", {**BTC, "params": {"httpsProxy": "http://x"}}, "proxies are set"),
        ("fetch_ticker", {**BTC, "params": {"headers": {}}}, "the fleet sets the headers"),
        ("fetch_ticker", {**BTC, "params": {"a": {"b": 1}}}, "params.a must be"),
        ("fetch_ticker", {**BTC, "params": {"a": "../../v1/other"}}, "may not hold"),
        ("fetch_ticker", {**BTC, "params": "limit=5"}, "params must be a table"),
        ("load_markets", {"reload": True}, "reload is not taken: use fetch_markets"),
    ],
)
async def test_wrong_arguments_cost_nothing(
    server: Answers, lanes: Lanes, method: str, args: dict[str, Any], words: str
) -> None:
    lane, budget = lanes.lane("binance", server.settings("binance"))
    with pytest.raises(InvalidMessage, match=words) as raised:
        await lane.call(method, args, call("binance"))
    assert raised.value.code is ErrorCode.INVALID_ARGUMENTS
    assert not server.hits
    assert not budget.granted


async def test_what_this_exchange_can_not_do(server: Answers, lanes: Lanes) -> None:
    lane, _ = lanes.lane("kraken", server.settings("kraken"))
    for method, args in (
        ("fetch_greeks", BTC),
        ("fetch_balance", {}),
        ("create_order", {}),
        ("fetch_ohlcv", {**BTC, "timeframe": "7m"}),
    ):
        attempt = call("kraken")
        assert await failed(lane, attempt, method, args) is ErrorCode.NOT_SUPPORTED
    keyed, _ = lanes.lane("binance", server.settings("binance"))
    assert await failed(keyed, call("binance"), "fetch_trading_fees", {}) is ErrorCode.NOT_SUPPORTED
    assert not server.hits


async def test_params_until_and_the_like_stay_open(server: Answers, lanes: Lanes) -> None:
    server.by_path = {"klines": '[[60000,"1","2","1","2","3"]]'}
    lane, _ = lanes.lane("binance", server.settings("binance"))
    args = {**BTC, "since": None, "params": {"until": 1_700_000_120_000, "price": None, "symbols": ["A"]}}
    assert await lane.call("fetch_ohlcv", args, call("binance")) == [[60_000, 1, 2, 1, 2, 3]]


async def test_a_lane_says_what_it_can(server: Answers, lanes: Lanes) -> None:
    lane, _ = lanes.lane("binance", server.settings("binance"))
    assert {"fetch_ticker", "fetch_ohlcv", "fetch_order_book", "load_markets"} <= set(lane.methods)
    assert set(lane.methods) <= PUBLIC_READS | {HTTP}
    assert "create_order" not in lane.methods


async def test_settings_that_would_undo_the_budget_are_overruled(server: Answers, lanes: Lanes) -> None:
    settings = {**server.settings("binance"), "enableRateLimit": True, "timeout": 1, "session": None}
    lane, _ = lanes.lane("binance", settings)
    server.answer = (200, {}, TICKER)
    assert await lane.call("fetch_ticker", BTC, call("binance"))


async def test_an_exchange_ccxt_does_not_know(lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match=r"lanes\.bitcoinica\.exchange: expected an exchange id"):
        lanes.lane("bitcoinica", {})
