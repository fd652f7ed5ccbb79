"""Unmodified ccxt classes against the simulator: every public method, and prices that agree with each other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
import pytest_asyncio

from deploy.simulator.board import COINS
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXCHANGES = ("binance", "okx", "htx", "coinbase", "kraken", "coinbaseexchange")
FRAMES_S = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "1d": 86_400}
DEFAULT_LOADS = {"binance": 3, "okx": 5, "htx": 5, "coinbase": 5, "kraken": 2, "coinbaseexchange": 2}
# What makes each class ask for spot markets alone, and how many requests are left.
RESTRICTED: dict[str, tuple[dict[str, Any], int]] = {
    "binance": ({"options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False}}, 1),
    "okx": ({"options": {"fetchMarkets": {"types": ["spot"]}}}, 1),
    "htx": ({"options": {"fetchMarkets": {"types": {"spot": True, "linear": False, "inverse": False}}}}, 1),
    "coinbase": ({}, 2),
    "kraken": ({}, 1),
    "coinbaseexchange": ({}, 1),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[Simulator]:
    # Time stands still, so that what is asked one after another must agree exactly; limits have their own tests.
    async with Simulator(seed=3, exchanges=EXCHANGES, arguments=["--no-limits"]) as running:
        await running.set_clock(frozen=True)
        yield running


@asynccontextmanager
async def client(simulator: Simulator, name: str, **overrides: Any) -> AsyncGenerator[Any]:
    config = {**ccxt_config(name, simulator.urls[name]), "enableRateLimit": False, "timeout_on_exit": 0, **overrides}
    exchange = getattr(ccxt, name)(config)
    try:
        yield exchange
    finally:
        await exchange.close()


async def requests(simulator: Simulator, name: str) -> int:
    count: int = (await simulator.counters())["exchanges"][name]["requests"]
    return count


async def now_ms(simulator: Simulator) -> int:
    state: dict[str, int] = await simulator.ask("GET", "/clock")
    return state["now_ms"]


@pytest.mark.parametrize("name", EXCHANGES)
async def test_markets_load_by_default_and_restricted(simulator: Simulator, name: str) -> None:
    await simulator.reset()
    async with client(simulator, name) as exchange:
        markets = await exchange.load_markets()
        spot = {symbol for symbol, market in markets.items() if market["spot"] and market["active"]}
        assert spot >= {f"{coin.code}/USDT" for coin in COINS}
        if name in {"coinbase", "kraken", "coinbaseexchange"}:
            assert spot >= {f"{coin.code}/USD" for coin in COINS}
        assert len(COINS) >= 20
        assert all(markets[symbol]["precision"]["price"] > 0 for symbol in spot)
        assert await requests(simulator, name) == DEFAULT_LOADS[name]
    await simulator.reset()
    overrides, expected = RESTRICTED[name]
    async with client(simulator, name, **overrides, has={"fetchCurrencies": False}) as exchange:
        restricted = await exchange.load_markets()
        assert {symbol for symbol, market in restricted.items() if market["spot"]} == spot
        assert await requests(simulator, name) == expected
    counters = await simulator.counters()
    assert "unknown" not in counters["exchanges"][name]["endpoints"]


@pytest.mark.parametrize("name", EXCHANGES)
async def test_time_and_status(simulator: Simulator, name: str) -> None:
    async with client(simulator, name) as exchange:
        at_ms = await exchange.fetch_time()
        # Coinbase and Kraken tell whole seconds.
        assert at_ms in {await now_ms(simulator), await now_ms(simulator) // 1000 * 1000}
        if exchange.has["fetchStatus"]:
            assert (await exchange.fetch_status())["status"] == "ok"


@pytest.mark.parametrize("name", EXCHANGES)
async def test_tickers_books_candles_and_trades_agree(simulator: Simulator, name: str) -> None:
    async with client(simulator, name) as exchange:
        await exchange.load_markets()
        everything = await exchange.fetch_tickers()
        two = await exchange.fetch_tickers(["ETH/USDT", "BTC/USDT"])
        assert set(two) == {"ETH/USDT", "BTC/USDT"}
        assert set(everything) >= {f"{coin.code}/USDT" for coin in COINS}
        for symbol in [f"{coin.code}/USDT" for coin in COINS]:
            ticker = await exchange.fetch_ticker(symbol)
            last = ticker["last"]
            assert last == everything[symbol]["last"]
            assert ticker["bid"] < last < ticker["ask"]
            if ticker["high"] is not None:
                assert ticker["low"] <= last <= ticker["high"]
            opened_ms, opening, high, low, close, volume = (await exchange.fetch_ohlcv(symbol, "1m", limit=2))[-1]
            assert opened_ms == await now_ms(simulator) // 60_000 * 60_000
            assert low <= opening <= high
            assert low <= last == close <= high
            assert volume > 0
            book = await exchange.fetch_order_book(symbol, 10)
            # ccxt asks Coinbase Exchange for its 50 levels, whatever is wanted.
            assert len(book["bids"]) == len(book["asks"]) == (50 if name == "coinbaseexchange" else 10)
            assert all(left[0] > right[0] for left, right in pairwise(book["bids"]))
            assert all(left[0] < right[0] for left, right in pairwise(book["asks"]))
            assert book["bids"][0][0] == ticker["bid"]
            assert book["asks"][0][0] == ticker["ask"]


@pytest.mark.parametrize("name", EXCHANGES)
async def test_candles_honour_since_and_limit_and_add_up(simulator: Simulator, name: str) -> None:
    async with client(simulator, name) as exchange:
        await exchange.load_markets()
        at_ms = await now_ms(simulator) // 1000 * 1000  # ccxt asks some exchanges for whole seconds
        for frame, length_s in FRAMES_S.items():
            if (name, frame) == ("coinbaseexchange", "30m"):
                continue  # it has none
            assert frame in exchange.timeframes
            step_ms = length_s * 1000
            since = at_ms - 40 * step_ms
            if name == "coinbaseexchange":
                since -= since % step_ms  # between two candles ccxt asks it for one less
            rows = await exchange.fetch_ohlcv("ETH/USDT", frame, since, 7)
            assert [row[0] for row in rows] == [-(-since // step_ms) * step_ms + i * step_ms for i in range(7)]
            again = await exchange.fetch_ohlcv("ETH/USDT", frame, since, 7)
            assert again == rows
            assert all(left[4] == right[1] for left, right in pairwise(rows))
            newest = await exchange.fetch_ohlcv("ETH/USDT", frame, None, 5)
            assert at_ms // step_ms * step_ms <= newest[-1][0] <= await now_ms(simulator)
        hour_ms = at_ms // 3_600_000 * 3_600_000 - 3_600_000
        [hour] = await exchange.fetch_ohlcv("ETH/USDT", "1h", hour_ms, 1)
        minutes = await exchange.fetch_ohlcv("ETH/USDT", "1m", hour_ms, 60)
        assert [row[0] for row in minutes] == [hour_ms + i * 60_000 for i in range(60)]
        assert hour[1:5] == [
            minutes[0][1],
            max(row[2] for row in minutes),
            min(row[3] for row in minutes),
            minutes[-1][4],
        ]
        assert hour[5] == pytest.approx(sum(row[5] for row in minutes))  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize("name", EXCHANGES)
async def test_trades_lie_in_their_candles(simulator: Simulator, name: str) -> None:
    async with client(simulator, name) as exchange:
        await exchange.load_markets()
        at_ms = await now_ms(simulator)
        trades = await exchange.fetch_trades("SOL/USDT", None, 400)
        assert len(trades) == 400
        candles = {row[0]: row for row in await exchange.fetch_ohlcv("SOL/USDT", "1m", None, 10)}
        for trade in trades:
            candle = candles[trade["timestamp"] // 60_000 * 60_000]
            assert candle[3] <= trade["price"] <= candle[2]
            assert trade["amount"] > 0
            assert trade["side"] in {"buy", "sell"}
        assert len({trade["id"] for trade in trades}) == 400
        assert len({trade["side"] for trade in trades}) == 2
        assert trades[-1]["price"] == (await exchange.fetch_ticker("SOL/USDT"))["last"]
        since = at_ms - 20_000
        params = {"until": at_ms} if name == "coinbase" else {}
        some = await exchange.fetch_trades("SOL/USDT", since, 100, params)
        assert some
        # Coinbase is asked in whole seconds.
        assert all(since // 1000 * 1000 <= trade["timestamp"] <= at_ms for trade in some)
        assert [trade["timestamp"] for trade in some] == sorted(trade["timestamp"] for trade in some)
        assert some == await exchange.fetch_trades("SOL/USDT", since, 100, params)


async def test_exchanges_differ_by_a_few_basis_points_and_time_moves_prices(simulator: Simulator) -> None:
    lasts: dict[str, dict[str, float]] = {}
    for name in EXCHANGES:
        async with client(simulator, name) as exchange:
            tickers = await exchange.fetch_tickers()
            lasts[name] = {symbol: ticker["last"] for symbol, ticker in tickers.items() if symbol.endswith("/USDT")}
    for coin in COINS:
        prices = [found[f"{coin.code}/USDT"] for found in lasts.values()]
        assert max(prices) / min(prices) < 1.001
        assert len(set(prices)) > 1
    await simulator.set_clock(advance_s=61)
    async with client(simulator, "okx") as exchange:
        tickers = await exchange.fetch_tickers()
        moved = [symbol for symbol, last in lasts["okx"].items() if tickers[symbol]["last"] != last]
        assert len(moved) > len(COINS) / 2


async def test_the_same_seed_gives_the_same_history() -> None:
    since = 1_700_000_000_000
    histories: list[Any] = []
    for seed in (5, 5, 6):
        async with (
            Simulator(seed=seed, exchanges=["binance"]) as running,
            client(running, "binance", options={"fetchMarkets": {"types": ["spot"]}}) as exchange,
        ):
            histories.append(await exchange.fetch_ohlcv("BTC/USDT", "15m", since, 50))
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("binance", ccxt.BadSymbol),
        ("okx", ccxt.BadSymbol),
        ("htx", ccxt.BadSymbol),
        ("coinbase", ccxt.ExchangeError),
        ("kraken", ccxt.ExchangeError),
        ("coinbaseexchange", ccxt.ExchangeError),
    ],
)
async def test_a_pair_that_is_not_listed_is_refused_as_there(
    simulator: Simulator, name: str, error: type[Exception]
) -> None:
    # The market's own id is replaced, for ccxt would not send a symbol that it does not know.
    async with client(simulator, name) as exchange:
        await exchange.load_markets()
        exchange.markets["BTC/USDT"]["id"] = "NO-PAIR"
        with pytest.raises(error):
            await exchange.fetch_order_book("BTC/USDT")
