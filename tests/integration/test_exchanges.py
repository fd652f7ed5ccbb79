"""Lanes against real HTTP servers, with their budget in a real Redis."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis.asyncio

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.config import LimitsConfig
from schemas.errors import ConfigError, InvalidMessage
from schemas.messages import ErrorCode, Outcome
from schemas.methods import PUBLIC_READS
from tests.support.exchange_lanes import Answers, CountedBudget, Lanes, call, lanes_on
from tests.support.fleet import wait_until
from workers.budget.budget import Budget, Grant, Refusal
from workers.exchange.call import CALL, Call
from workers.exchange.errors import NoBudget, judge
from workers.exchange.lane_exchange import CLOCK_TRIES, LaneExchange

SIMULATED = ("binance", "okx", "htx", "coinbase", "kraken")
TICKER = '{"symbol":"BTCUSDT","lastPrice":"5","bidPrice":"4","askPrice":"6"}'
BITSTAMP_TICKER = '{"pair":"BTC/USDT","last":"5","timestamp":"1"}'
BTC: dict[str, Any] = {"symbol": "BTC/USDT"}


@pytest.fixture
async def server() -> AsyncIterator[Answers]:
    async with Answers.serving() as answers:
        yield answers


@pytest.fixture
async def lanes(redis_url: str) -> AsyncIterator[Lanes]:
    async with lanes_on(redis_url) as lanes:
        yield lanes


async def failed(
    lane: LaneExchange, attempt: Call, method: str = "fetch_ticker", args: dict[str, Any] = BTC
) -> ErrorCode:
    with pytest.raises(Exception) as raised:
        await lane.call(method, args, attempt)
    return judge(raised.value, attempt).code


@pytest.mark.parametrize("exchange", SIMULATED)
async def test_an_exchange_well_and_ill(lanes: Lanes, exchange: str) -> None:
    """Every HTTP call of every method is charged once; garbage at status 200 is never data; limits are kept."""
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

        reads: dict[str, dict[str, Any]] = {
            "fetch_ticker": BTC,
            "fetch_order_book": BTC,
            "fetch_ohlcv": {**BTC, "timeframe": "1m", "limit": 5},
            "fetch_trades": {**BTC, "limit": 5},
            "fetch_time": {},
        }
        for method, args in reads.items():
            attempt = call(exchange)
            assert await lane.call(method, args, attempt)
            assert attempt.http_calls == 1
            assert attempt.exchange_s > 0
        assert await hits() == len(budget.granted) == opened + len(reads)

        numbers = itertools.count(2)

        def elsewhere() -> LaneExchange:
            """The same from an address that has sent nothing yet."""
            address = f"127.0.0.{next(numbers)}"
            egress = lanes.egress(local_addr=address)
            return lanes.lane(exchange, settings, scope=address, egress=egress, http_timeout_s=1)[0]

        for garbage in ("html", "truncated", "empty", "redirect"):
            await simulator.fault(exchange, garbage=garbage)
            for method, args in reads.items():
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


@pytest.mark.parametrize(("status", "code"), [(429, ErrorCode.RATE_LIMITED), (418, ErrorCode.RATE_LIMITED)])
async def test_a_limits_answer_silences_all_who_share_the_address(
    server: Answers, lanes: Lanes, status: int, code: ErrorCode
) -> None:
    server.answer = (status, {"Retry-After": "50"}, "{}")
    lane, _ = lanes.lane("binance", server.settings("binance"))
    other, _ = lanes.lane("binance", server.settings("binance"), egress=lanes.egress())
    elsewhere, _ = lanes.lane("binance", server.settings("binance"), scope="10.0.0.2")
    assert await failed(lane, call("binance")) is code
    server.answer = (200, {}, TICKER)
    for silent in (lane, other):
        attempt = call("binance", max_wait_s=5)
        with pytest.raises(NoBudget) as raised:
            await silent.call("fetch_ticker", BTC, attempt)
        verdict = judge(raised.value, attempt)
        assert (verdict.outcome, verdict.code) == (Outcome.THROTTLED, ErrorCode.PAUSED)
        assert 5 < verdict.pause_s <= 50
    assert (await elsewhere.call("fetch_ticker", BTC, call("binance")))["last"] == 5
    assert len(server.hits) == 2


async def test_an_endpoints_limit_silences_that_endpoint_alone(server: Answers, lanes: Lanes) -> None:
    server.answer = (429, {"Retry-After": "50"}, '{"code":"50011","msg":"Too Many Requests","data":[]}')
    lane, _ = lanes.lane("okx", server.settings("okx"))
    assert await failed(lane, call("okx")) is ErrorCode.RATE_LIMITED
    server.answer = (200, {}, '{"code":"0","data":[{"ts":"1"}]}')
    assert await failed(lane, call("okx", max_wait_s=1)) is ErrorCode.PAUSED
    assert await lane.call("fetch_time", {}, call("okx", max_wait_s=1)) == 1


async def test_ccxts_own_retries_are_charged(server: Answers, lanes: Lanes) -> None:
    server.answer = (503, {}, "{}")
    settings = server.settings("binance")
    settings["options"] = {"ticker/24hr": {"maxRetriesOnFailure": 2}}
    lane, budget = lanes.lane("binance", settings)
    attempt = call("binance")
    assert await failed(lane, attempt) is ErrorCode.EXCHANGE_UNAVAILABLE
    assert len(server.hits) == len(budget.granted) == attempt.http_calls == 3


async def test_ccxts_own_retry_waits_for_the_pause_its_first_try_caused(server: Answers, lanes: Lanes) -> None:
    server.answer = (429, {"Retry-After": "50"}, "{}")
    settings = server.settings("binance")
    settings["options"] = {"ticker/24hr": {"maxRetriesOnFailure": 2}}
    lane, _ = lanes.lane("binance", settings)
    assert await failed(lane, call("binance", max_wait_s=1)) is ErrorCode.PAUSED
    assert len(server.hits) == 1


async def test_an_exchange_without_a_table_gets_ccxts_own_pace(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {}, '{"last":"5","bid":"4","ask":"6","timestamp":"1"}')
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"))
    assert (await lane.call("fetch_ticker", BTC, call("bitstamp")))["last"] == 5
    [charge] = budget.granted[0]
    assert (charge.bucket.kind, charge.bucket.source) == ("paced", "ccxt rateLimit")
    attempt = call("bitstamp", max_wait_s=0)
    with pytest.raises(NoBudget) as raised:
        for _ in range(100):
            await lane.call("fetch_ticker", BTC, attempt)
    assert raised.value.reason == "budget"
    assert 0 < raised.value.wait_s < 1


async def test_no_budget_is_no_call(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {}, TICKER)
    lane, budget = lanes.lane("binance", server.settings("binance"))
    await budget.pause(30, "test")
    attempt = call("binance", max_wait_s=1, timeout_s=5)
    assert await failed(lane, attempt) is ErrorCode.PAUSED
    assert attempt.http_calls == len(server.hits) == 0


async def test_the_exchanges_own_count_is_taken_over(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {"X-MBX-USED-WEIGHT-1M": "3000"}, TICKER)
    lane, budget = lanes.lane("binance", server.settings("binance"))
    used = 0.0
    while used < 0.5:  # the second time, if a minute ended between the call and the question
        await lane.call("fetch_ticker", BTC, call("binance"))
        used = (await budget.usage())["spot"].used


async def test_a_count_that_the_exchange_itself_calls_wrong_is_not_taken_over(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {"X-MBX-USED-WEIGHT-1M": "2000"}, '[{"symbol":"BTCUSDT","bidPrice":"1","askPrice":"2"}]')
    lane, budget = lanes.lane("binanceusdm", server.settings("binanceusdm"))
    await lane.call("fetch_bids_asks", {}, call("binanceusdm"))
    used = (await budget.usage())["futures"].used
    assert 0 < used < 0.1


def one_bucket(*, amount: float, window_s: float) -> LimitsConfig:
    bucket = {"kind": "rolling", "amount": amount, "window_s": window_s}
    return LimitsConfig(buckets={"own": bucket}, endpoints={"public GET *": [{"bucket": "own"}]})


async def test_limits_of_the_configuration_are_kept(server: Answers, lanes: Lanes) -> None:
    """Also where the exchange has no table of ours."""
    server.answer = (200, {}, BITSTAMP_TICKER)
    limits = one_bucket(amount=2, window_s=60)
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"), limits=limits)
    for _ in range(2):
        await lane.call("fetch_ticker", BTC, call("bitstamp"))
    assert (await budget.usage())["own"].used == 1
    attempt = call("bitstamp", max_wait_s=1, timeout_s=5)
    assert await failed(lane, attempt) is ErrorCode.NO_BUDGET
    assert lane.tallies.take()["own"].refused == 1


async def test_the_exchanges_clock_is_taken_over_within_one_window(server: Answers, lanes: Lanes) -> None:
    """A clock that is wrong by years moves the start of the minute, and no more."""
    server.by_path = {"time": '{"serverTime":1}'}
    lane, _ = lanes.lane("binance", server.settings("binance"))
    token = CALL.set(attempt := call("binance"))
    await lane._set_clock(attempt)  # pyright: ignore[reportPrivateUsage]
    CALL.reset(token)
    told: Any = await lanes.client.get("fleet:{binance}:clock")
    ahead_us, _, _ = told.partition(b":")
    assert abs(int(ahead_us)) <= 30e6


async def test_the_exchanges_clock_is_asked_again_when_the_answer_took_long(server: Answers, lanes: Lanes) -> None:
    server.by_path = {"time": '{"serverTime":1}'}
    server.held_path = "time"
    lane, budget = lanes.lane("binance", server.settings("binance"))
    token = CALL.set(attempt := call("binance"))
    setting = asyncio.create_task(lane._set_clock(attempt))  # pyright: ignore[reportPrivateUsage]
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
    assert all(attempt.http_calls == 1 and attempt.status == 200 for attempt in attempts)


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
        ("load_markets", {"reload": True}, "no argument 'reload'"),
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
    args = {**BTC, "since": None, "params": {"until": 120_000, "price": None, "symbols": ["A"]}}
    assert await lane.call("fetch_ohlcv", args, call("binance")) == [[60_000, 1, 2, 1, 2, 3]]


async def test_a_lane_says_what_it_can(server: Answers, lanes: Lanes) -> None:
    lane, _ = lanes.lane("binance", server.settings("binance"))
    assert {"fetch_ticker", "fetch_ohlcv", "fetch_order_book", "load_markets"} <= set(lane.methods)
    assert set(lane.methods) <= PUBLIC_READS
    assert "create_order" not in lane.methods


async def test_settings_that_would_undo_the_budget_are_overruled(server: Answers, lanes: Lanes) -> None:
    settings = {**server.settings("binance"), "enableRateLimit": True, "timeout": 1, "session": None}
    lane, _ = lanes.lane("binance", settings)
    server.answer = (200, {}, TICKER)
    assert await lane.call("fetch_ticker", BTC, call("binance"))


async def test_an_exchange_ccxt_does_not_know(lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match=r"lanes\.bitcoinica\.exchange: expected an exchange id"):
        lanes.lane("bitcoinica", {})


async def test_bulk_calls_wait_for_room_one_after_another_and_live_ones_pass_them(
    lanes: Lanes, server: Answers
) -> None:
    """Those that wait hold no room, so that a live call is not behind them; and they hardly ask Redis meanwhile."""
    server.answer = (200, {}, BITSTAMP_TICKER)
    limits = one_bucket(amount=10, window_s=1.0)
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"), limits=limits)
    attempts = [call("bitstamp", max_wait_s=30, bulk=True) for _ in range(40)]
    waiting = asyncio.gather(*(lane.call("fetch_ticker", BTC, attempt) for attempt in attempts))
    await wait_until(lambda: len(server.hits) > 10, "the second window has begun")
    live = call("bitstamp")
    await lane.call("fetch_ticker", BTC, live)
    assert not waiting.done()
    await waiting
    assert len(server.hits) == len(budget.granted) == 41
    # The first ones did not wait, and the last one waited for four windows: eight in each are not live ones'.
    assert min(attempt.waited_s for attempt in attempts) < 1
    assert max(attempt.waited_s for attempt in attempts) > 3
    assert live.waited_s < 1
    assert budget.asked < 200


async def test_a_lane_in_a_hurry_lets_no_bulk_call_wait(lanes: Lanes, server: Answers) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"), limits=one_bucket(amount=2, window_s=20))

    async def asks() -> BaseException | None:
        attempt = call("bitstamp", max_wait_s=30, bulk=True)
        ended = await asyncio.gather(lane.call("fetch_ticker", BTC, attempt), return_exceptions=True)
        return ended[0] if isinstance(ended[0], BaseException) else None

    assert await asks() is None
    waiting = asyncio.gather(*(asks() for _ in range(3)))
    await wait_until(lambda: budget.asked == 2, "one of them has been told to wait")
    lane.hurry()
    async with asyncio.timeout(5):
        assert all(isinstance(ended, NoBudget) for ended in await waiting)
        assert isinstance(await asks(), NoBudget)
    live = call("bitstamp")
    await lane.call("fetch_ticker", BTC, live)
    assert live.http_calls == 1


async def test_bulk_calls_that_wait_too_long_are_handed_back(lanes: Lanes, server: Answers) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    limits = one_bucket(amount=1, window_s=5.0)
    lane, _ = lanes.lane("bitstamp", server.settings("bitstamp"), limits=limits)
    attempts = [call("bitstamp", max_wait_s=0.5, bulk=True) for _ in range(3)]
    ended = await asyncio.gather(
        *(lane.call("fetch_ticker", BTC, attempt) for attempt in attempts), return_exceptions=True
    )
    assert [isinstance(each, NoBudget) for each in ended] == [False, True, True], ended
    assert len(server.hits) == 1


class LateOnce(CountedBudget):
    """Finds the first call too late, and does then what the test says."""

    def __init__(self, client: redis.asyncio.Redis, scope: str, then: Callable[[], object]) -> None:
        super().__init__(client, scope)
        self._then: Callable[[], object] | None = then

    def is_late(self, grant: Grant, now_s: float) -> bool:
        if self._then is None:
            return super().is_late(grant, now_s)
        then, self._then = self._then, None
        then()
        return True


@pytest.mark.parametrize("why", ["its time ended", "the lane is in a hurry"])
async def test_a_reservation_that_is_not_moved_is_given_back(lanes: Lanes, server: Answers, why: str) -> None:
    """The call was late at the last look; paying again raises before anything is asked of the budget."""
    attempt = call("bitstamp", bulk=why == "the lane is in a hurry")

    def then() -> None:
        if why == "its time ended":
            attempt.timeout_s = 0.0
        else:
            lane.hurry()

    budget = LateOnce(lanes.client, "bitstamp:default", then)
    limits = one_bucket(amount=2, window_s=500)
    lane = lanes.lane("bitstamp", server.settings("bitstamp"), budget=budget, limits=limits)[0]
    with pytest.raises((TimeoutError, NoBudget)):
        await lane.call("fetch_ticker", BTC, attempt)
    assert not server.hits

    async def all_free() -> bool:
        used = await budget.usage()
        assert used
        return all(use.used == 0 for use in used.values())

    await wait_until(all_free, "the reservation is back")


async def test_a_call_that_is_cancelled_as_it_waits_for_its_instant_gives_it_back(
    lanes: Lanes, server: Answers
) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"), limits=one_bucket(amount=1, window_s=500))
    await lane.call("fetch_ticker", BTC, call("bitstamp"))
    attempt = call("bitstamp", max_wait_s=1000, timeout_s=1000)
    waiting = asyncio.create_task(lane.call("fetch_ticker", BTC, attempt))

    async def wait_s() -> float:
        refusal = await Budget.reserve(budget, budget.granted[0], max_wait_s=0)
        assert isinstance(refusal, Refusal)
        return refusal.wait_s

    async def reserved() -> bool:
        return await wait_s() > 750

    async def given_back() -> bool:
        return await wait_s() <= 750

    await wait_until(reserved, "it has its instant, and the next one is a window later")
    waiting.cancel()
    await wait_until(given_back, "its instant is free")
    assert len(server.hits) == 1
