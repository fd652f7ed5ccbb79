"""The simulator's limits over HTTP: so many requests pass, and the next is refused as the exchange does it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
import pytest_asyncio

from deploy.simulator.__main__ import VENUES
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Simulator]:
    async with Simulator(exchanges=list(VENUES)) as simulator:
        await simulator.set_clock(frozen=True)
        yield simulator


@pytest_asyncio.fixture(loop_scope="module")
async def simulator(running: Simulator) -> Simulator:
    # A new hour, at a whole second: all windows are empty, and bans are over.
    for name in running.urls:
        await running.clear(name)
    state = await running.ask("GET", "/clock")
    await running.set_clock(advance_s=7200 - state["now_ms"] % 3_600_000 / 1000 + 0.001)
    await running.reset()
    return running


class Reply(NamedTuple):
    status: int
    headers: Any
    body: Any


async def get(simulator: Simulator, exchange: str, path: str, address: str = "127.0.0.1") -> Reply:
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(simulator.urls[exchange] + path) as answer,
    ):
        return Reply(answer.status, answer.headers, await answer.json(content_type=None))


async def get_many(simulator: Simulator, exchange: str, path: str, count: int) -> list[Reply]:
    replies: list[Reply] = []
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            async with session.get(simulator.urls[exchange] + path) as answer:
                replies.append(Reply(answer.status, answer.headers, await answer.json(content_type=None)))
    return replies


OKX_REFUSAL: dict[str, object] = {"code": "50011", "msg": "Too Many Requests", "data": []}
HTX_REFUSAL: dict[str, object] = {
    "status": "error",
    "err-code": "too-many-requests",
    "err-msg": "Too many requests, please try again later",
    "data": None,
}
COINBASE_REFUSAL = {
    "error": "rate_limit_exceeded",
    "error_details": "Too many requests",
    "message": "Too many requests",
}
KRAKEN_REFUSAL = {"error": ["EGeneral:Too many requests"]}
COINBASE_TICKER = "/api/v3/brokerage/market/products/BTC-USD/ticker?limit=1"


@pytest.mark.parametrize(
    ("exchange", "path", "amount", "window_s", "status", "body"),
    [
        ("okx", "/api/v5/market/ticker?instId=BTC-USDT", 20, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/market/tickers?instType=SPOT", 20, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/market/candles?instId=BTC-USDT&limit=1", 40, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/market/history-candles?instId=BTC-USDT&limit=1", 20, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/market/books?instId=BTC-USDT", 40, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/market/trades?instId=BTC-USDT&limit=1", 100, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/market/history-trades?instId=BTC-USDT&limit=1", 10, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/public/instruments?instType=SWAP", 20, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/public/time", 10, 2, 429, OKX_REFUSAL),
        ("okx", "/api/v5/system/status", 1, 5, 429, OKX_REFUSAL),
        ("htx", "/market/detail/merged?symbol=btcusdt", 10, 1, 429, HTX_REFUSAL),
        ("htx", "/v1/common/timestamp", 10, 1, 429, HTX_REFUSAL),
        ("coinbase", COINBASE_TICKER, 10, 1, 429, COINBASE_REFUSAL),
        ("kraken", "/0/public/Ticker?pair=XBTUSDT", 1, 1, 200, KRAKEN_REFUSAL),
        ("kraken", "/0/public/OHLC?pair=XBTUSDT", 1, 1, 200, KRAKEN_REFUSAL),
        ("kraken", "/0/public/Trades?pair=XBTUSDT&count=1", 1, 1, 200, KRAKEN_REFUSAL),
    ],
)
async def test_rolling_limits_are_exact(
    simulator: Simulator, exchange: str, path: str, amount: int, window_s: float, status: int, body: Any
) -> None:
    """The whole amount passes at once, and one more does not, until the window has ended."""
    replies = await get_many(simulator, exchange, path, amount + 1)
    assert all(reply.status == 200 and reply.body != body for reply in replies[:-1])
    assert (replies[-1].status, replies[-1].body) == (status, body)
    await simulator.set_clock(advance_s=window_s - 0.001)
    assert (await get(simulator, exchange, path)).body == body
    # Another address has a window of its own.
    assert (await get(simulator, exchange, path, "127.0.0.2")).body != body
    await simulator.set_clock(advance_s=0.001)
    assert (await get(simulator, exchange, path)).body != body
    counters = await simulator.counters()
    assert counters["violations"] == counters["exchanges"][exchange]["violations"] == 2
    assert counters["exchanges"][exchange]["requests"] == amount + 4
    assert counters["exchanges"][exchange]["clients"] == {"127.0.0.1": amount + 3, "127.0.0.2": 1}
    peaks = [bucket for bucket in counters["exchanges"][exchange]["buckets"].values() if bucket["violations"]]
    assert [(bucket["highest"], bucket["violations"]) for bucket in peaks] == [(amount + 1, 2)]


async def test_a_level_falls_all_the_time(simulator: Simulator) -> None:
    """Coinbase Exchange's fifteen pass at once, then one each time that a tenth of a second has gone."""
    path, refusal = "/products/BTC-USD/ticker", {"message": "Public rate limit exceeded"}
    replies = await get_many(simulator, "coinbaseexchange", path, 16)
    assert [reply.status for reply in replies] == [200] * 15 + [429]
    assert replies[-1].body == refusal
    for _ in range(3):
        await simulator.set_clock(advance_s=0.1)
        replies = await get_many(simulator, "coinbaseexchange", path, 2)
        assert [reply.status for reply in replies] == [200, 429]
    assert (await get(simulator, "coinbaseexchange", path, "127.0.0.2")).status == 200
    assert (await simulator.counters())["exchanges"]["coinbaseexchange"]["violations"] == 4


async def test_okx_counts_instruments_by_type_and_endpoints_apart(simulator: Simulator) -> None:
    replies = await get_many(simulator, "okx", "/api/v5/public/instruments?instType=SPOT", 20)
    replies += await get_many(simulator, "okx", "/api/v5/public/instruments?instType=SWAP", 20)
    replies += await get_many(simulator, "okx", "/api/v5/market/ticker?instId=BTC-USDT", 20)
    assert {reply.status for reply in replies} == {200}
    assert not any("limit" in header.lower() for reply in replies for header in reply.headers)


async def test_kraken_counts_candles_by_pair(simulator: Simulator) -> None:
    for path in ("OHLC?pair=XBTUSDT", "OHLC?pair=ETHUSDT", "Trades?pair=XBTUSDT", "Trades?pair=ETHUSDT", "Time"):
        assert (await get(simulator, "kraken", "/0/public/" + path)).body["error"] == []
    assert (await get(simulator, "kraken", "/0/public/OHLC?pair=ETHUSDT")).body == KRAKEN_REFUSAL


async def test_htx_and_coinbase_tell_what_is_left(simulator: Simulator) -> None:
    at_ms = (await simulator.ask("GET", "/clock"))["now_ms"]
    [first, *_, last] = await get_many(simulator, "htx", "/market/tickers", 10)
    assert first.headers["X-HB-RateLimit-Requests-Remain"] == "9"
    assert last.headers["X-HB-RateLimit-Requests-Remain"] == "0"
    assert last.headers["X-HB-RateLimit-Requests-Expire"] == str(at_ms + 1000)
    [first, *_, last] = await get_many(simulator, "coinbase", COINBASE_TICKER, 10)
    assert (first.headers["CB-RATELIMIT-LIMIT"], first.headers["CB-RATELIMIT-REMAINING"]) == ("10", "9")
    assert last.headers["CB-RATELIMIT-REMAINING"] == "0"
    assert int(last.headers["CB-RATELIMIT-RESET"]) == -(-(at_ms + 1000) // 1000)


async def test_binance_counts_weight_by_the_minute(simulator: Simulator) -> None:
    paths = {
        "/api/v3/ping": 1,
        "/api/v3/time": 1,
        "/api/v3/exchangeInfo": 20,
        "/api/v3/depth?symbol=BTCUSDT": 5,
        "/api/v3/depth?symbol=BTCUSDT&limit=500": 25,
        "/api/v3/depth?symbol=BTCUSDT&limit=1000": 50,
        "/api/v3/depth?symbol=BTCUSDT&limit=5000": 250,
        "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1": 2,
        "/api/v3/aggTrades?symbol=BTCUSDT&limit=1": 4,
        "/api/v3/trades?symbol=BTCUSDT&limit=1": 25,
        "/api/v3/historicalTrades?symbol=BTCUSDT&limit=1": 25,
        "/api/v3/avgPrice?symbol=BTCUSDT": 2,
        "/api/v3/ticker/24hr?symbol=BTCUSDT": 2,
        "/api/v3/ticker/24hr?symbols=%5B%22BTCUSDT%22,%22ETHUSDT%22%5D": 2,
        "/api/v3/ticker/24hr": 80,
        "/api/v3/ticker/price?symbol=BTCUSDT": 2,
        "/api/v3/ticker/price": 4,
        "/api/v3/ticker/bookTicker": 4,
        "/api/v3/ticker?symbols=%5B%22BTCUSDT%22,%22ETHUSDT%22%5D": 8,
    }
    used = 0
    for path, weight in paths.items():
        reply = await get(simulator, "binance", path)
        used += weight
        assert (path, reply.status, reply.headers["X-MBX-USED-WEIGHT-1M"]) == (path, 200, str(used))
    for prefix, used_by_both in (("/fapi/v1/", "1"), ("/dapi/v1/", "2")):
        reply = await get(simulator, "binance", prefix + "exchangeInfo")
        assert (reply.status, reply.headers["X-MBX-USED-WEIGHT-1M"]) == (200, used_by_both)

    # Fill the minute to the last unit, from its end: the next minute, a millisecond later, begins at nothing.
    await simulator.set_clock(advance_s=59.998)
    replies = await get_many(simulator, "binance", "/api/v3/depth?symbol=BTCUSDT&limit=5000", (6000 - used) // 250)
    replies += await get_many(simulator, "binance", "/api/v3/ping", (6000 - used) % 250)
    assert {reply.status for reply in replies} == {200}
    assert replies[-1].headers["X-MBX-USED-WEIGHT-1M"] == "6000"
    refused = await get(simulator, "binance", "/api/v3/ping")
    assert (refused.status, refused.body["code"], refused.headers["Retry-After"]) == (429, -1003, "1")
    assert refused.headers["X-MBX-USED-WEIGHT-1M"] == "6001"
    assert (await get(simulator, "binance", "/api/v3/ping", "127.0.0.2")).status == 200
    await simulator.set_clock(advance_s=0.001)
    fresh = await get(simulator, "binance", "/api/v3/ping")
    assert (fresh.status, fresh.headers["X-MBX-USED-WEIGHT-1M"]) == (200, "1")


async def fill_binance(simulator: Simulator) -> None:
    replies = await get_many(simulator, "binance", "/api/v3/depth?symbol=BTCUSDT&limit=5000", 24)
    assert {reply.status for reply in replies} == {200}


async def test_binance_bans_clients_that_go_on_and_longer_each_time(simulator: Simulator) -> None:
    for ban_s in (120, 240, 480):
        await fill_binance(simulator)
        replies = await get_many(simulator, "binance", "/api/v3/time", 6)
        assert [reply.status for reply in replies] == [429] * 5 + [418]
        assert replies[-1].headers["Retry-After"] == str(ban_s)
        assert replies[-1].body["code"] == -1003
        assert "IP banned until" in replies[-1].body["msg"]
        await simulator.set_clock(advance_s=ban_s - 1)
        banned = await get(simulator, "binance", "/api/v3/time")
        assert (banned.status, banned.headers["Retry-After"]) == (418, "1")
        assert (await get(simulator, "binance", "/api/v3/time", "127.0.0.2")).status == 200
        await simulator.set_clock(advance_s=1)
        assert (await get(simulator, "binance", "/api/v3/time")).status == 200
        await simulator.set_clock(advance_s=60)
    binance = (await simulator.counters())["exchanges"]["binance"]
    assert (binance["bans"], binance["refused_while_banned"], binance["violations"]) == (3, 3, 21)


async def test_kraken_locks_out_clients_that_go_on(simulator: Simulator) -> None:
    replies = await get_many(simulator, "kraken", "/0/public/Time", 8)
    errors = [reply.body["error"] for reply in replies]
    assert errors[0] == []
    assert errors[1:] == [["EGeneral:Too many requests"]] * 5 + [["EGeneral:Temporary lockout"]] * 2
    await simulator.set_clock(advance_s=60)
    assert (await get(simulator, "kraken", "/0/public/Time")).body["error"] == []


@pytest.mark.parametrize(
    ("exchange", "amount", "error"),
    [
        ("binance", 3000, ccxt.DDoSProtection),
        ("okx", 20, ccxt.RateLimitExceeded),
        # Not a subclass of RateLimitExceeded: ccxt has no entry for `too-many-requests`.
        ("htx", 10, ccxt.ExchangeError),
        ("coinbase", 10, ccxt.RateLimitExceeded),
        ("kraken", 1, ccxt.DDoSProtection),
    ],
)
async def test_what_ccxt_makes_of_a_refusal(
    simulator: Simulator, exchange: str, amount: int, error: type[Exception]
) -> None:
    config = {**ccxt_config(exchange, simulator.urls[exchange]), "enableRateLimit": False, "timeout_on_exit": 0}
    client: Any = getattr(ccxt, exchange)(config)
    try:
        await simulator.enforce_limits(False)
        await client.load_markets()
        await simulator.enforce_limits(True)
        await simulator.set_clock(advance_s=60)
        if exchange == "binance":
            await fill_binance(simulator)
        else:
            for _ in range(amount):
                await client.fetch_ticker("BTC/USDT")
        with pytest.raises(error) as raised:
            await client.fetch_ticker("BTC/USDT")
        assert raised.type is error
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("exchange", "path", "status", "part"),
    [
        ("binance", "/api/v3/klines?symbol=BTCUSDT&interval=7m", 400, "-1100"),
        ("binance", "/api/v3/klines?symbol=BTCUSDT&interval=1M&startTime=inf", 400, "-1100"),
        ("binance", "/api/v3/depth?symbol=BTCUSDT&limit=x", 400, "-1100"),
        ("binance", "/api/v3/ticker/24hr?symbols=BTCUSDT", 400, "-1100"),
        ("binance", "/api/v3/depth", 400, "-1100"),
        ("binance", "/api/v3/depth?symbol=NOPE", 400, "-1121"),
        ("okx", "/api/v5/market/candles?instId=BTC-USDT&bar=7m", 400, "51000"),
        ("okx", "/api/v5/market/ticker?instId=NOPE", 200, "51001"),
        ("htx", "/market/depth?symbol=btcusdt&depth=7", 200, "invalid depth"),
        ("htx", "/market/depth?symbol=nope", 200, "invalid symbol"),
        ("coinbase", "/api/v3/brokerage/market/products/BTC-USD/candles?granularity=ONE_HOUR", 400, "start"),
        ("coinbase", "/api/v3/brokerage/market/products/NOPE", 404, "NOT_FOUND"),
        ("kraken", "/0/public/OHLC?pair=XBTUSDT&interval=7", 200, "EGeneral:Invalid arguments"),
        ("kraken", "/0/public/Ticker?pair=NOPE", 200, "EQuery:Unknown asset pair"),
    ],
)
async def test_bad_input_is_refused_in_the_exchanges_own_way(
    simulator: Simulator, exchange: str, path: str, status: int, part: str
) -> None:
    reply = await get(simulator, exchange, path)
    assert reply.status == status
    assert part in str(reply.body)


async def test_unknown_paths_are_answered_counted_and_logged_once(simulator: Simulator) -> None:
    for exchange in simulator.urls:
        for _ in range(2):
            async with (
                aiohttp.ClientSession() as session,
                session.get(simulator.urls[exchange] + "/no/such/path") as answer,
            ):
                assert answer.status == 404
            # Kraken takes one request a second.
            await simulator.set_clock(advance_s=1)
        assert (await simulator.counters())["exchanges"][exchange]["endpoints"] == {"unknown": 2}
        assert simulator.log().count(f"unknown_path exchange={exchange} path=/no/such/path") == 1
