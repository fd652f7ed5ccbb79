"""How old an answer of the gateway may be: by the words of a URL's path, and for candles by when a bar closed."""

from urllib.parse import urlsplit

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.gateway.ages import MOST_MS, SETTLES_MS, max_age_ms
from schemas.gateway.kinds import kind_of
from schemas.gateway_config import MaxAgeConfig
from workers.exchange.public_urls import endpoints, keyless_url

HOUR_MS = 3_600_000
# 12 minutes and 34.567 s after a full hour.
NOW_MS = 1_760_000_000_000 // HOUR_MS * HOUR_MS + 12 * 60_000 + 34_567
POLICY = MaxAgeConfig()
KINDS = {
    "tickers": [
        "binance /api/v3/ticker/24hr",
        "binance /api/v3/ticker/bookTicker",
        "okx /api/v5/market/tickers",
        "htx /market/detail/merged",
        "htx /market/tickers",
        "kraken /0/public/Ticker",
        "coinbase /api/v3/brokerage/market/products",
        "coinbase /api/v3/brokerage/market/products/BTC-USD/ticker",
        "kucoin /api/v1/market/allTickers",
    ],
    "books": [
        "binance /api/v3/depth",
        "okx /api/v5/market/books",
        "htx /market/depth",
        "kraken /0/public/Depth",
        "kucoin /api/v1/market/orderbook/level2_20",
        "gate /api/v4/spot/order_book",
    ],
    "trades": ["binance /api/v3/aggTrades", "okx /api/v5/market/history-trades", "kraken /0/public/Trades"],
    "candles": [
        "binance /api/v3/klines",
        "binance /fapi/v1/markPriceKlines",
        "okx /api/v5/market/history-candles",
        "htx /market/history/kline",
        "coinbase /api/v3/brokerage/market/products/BTC-USD/candles",
        "kraken /0/public/OHLC",
        "bitfinex /v2/candles/trade:1m:tBTCUSD/hist",
        "gate /api/v4/spot/candlesticks",
    ],
    "markets": [
        "binance /api/v3/exchangeInfo",
        "okx /api/v5/public/instruments",
        "htx /v1/common/symbols",
        "htx /v2/reference/currencies",
        "kraken /0/public/AssetPairs",
        "bybit /v5/market/instruments-info",
    ],
    "other": [
        "binance /api/v3/time",
        "binance /fapi/v1/fundingRate",
        "okx /api/v5/public/funding-rate",
        "bitget /api/v2/mix/market/current-fund-rate",
        "gate /api/v4/futures/usdt/contracts",
        "htx /market/x",
        "kraken /0/public/SystemStatus",
        "x /",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str) -> None:
    told = {path: kind_of(path.partition(" ")[2]) for path in KINDS[kind]}
    assert told == dict.fromkeys(told, kind)


def test_only_what_lists_markets_may_be_minutes_old() -> None:
    """Of all exchanges: nothing that has prices, rates or the like is taken for a list."""
    found: set[str] = set()
    for name in ccxt.exchanges:
        exchange = getattr(ccxt, name)()
        for endpoint in endpoints(exchange):
            if (signed := keyless_url(exchange, endpoint)) and kind_of(path := urlsplit(signed).path) == "markets":
                found.add(path.rstrip("/").rpartition("/")[2].lower().replace("-", "").replace("_", ""))
    assert found <= {
        *("exchangeinfo", "instruments", "instrumentsinfo", "getinstruments", "symbols", "assetpairs", "assets"),
        *("currencies", "currencys", "currencypairs"),
    }


def age_ms(exchange: str, path: str, query: str = "", now_ms: int = NOW_MS) -> int:
    return max_age_ms(POLICY, exchange, path, query, now_ms)


def test_by_the_configuration() -> None:
    assert age_ms("binance", "/api/v3/ticker/price") == 1_000
    assert age_ms("binance", "/api/v3/exchangeInfo") == 300_000
    assert age_ms("binance", "/api/v3/depth") == 0
    assert max_age_ms(MaxAgeConfig(candles=3.5), "okx", "/api/v5/market/candles", "bar=1m", NOW_MS) == 3_500


@pytest.mark.parametrize(
    ("exchange", "query", "since_close_ms"),
    [
        ("binance", "interval=1m", 34_567),
        ("binance", "interval=5m", 2 * 60_000 + 34_567),
        ("binance", "interval=1h", 12 * 60_000 + 34_567),
        ("binance", "interval=1d", 12 * 60_000 + 34_567),
        ("binance", "interval=1M", 12 * 60_000 + 34_567),
        ("okx", "bar=15m", 12 * 60_000 + 34_567),
        ("okx", "bar=1Dutc", 12 * 60_000 + 34_567),
        ("htx", "period=5min", 2 * 60_000 + 34_567),
        ("htx", "period=1day", 12 * 60_000 + 34_567),
        ("coinbase", "granularity=FIVE_MINUTE", 2 * 60_000 + 34_567),
        ("coinbase", "granularity=ONE_HOUR", 12 * 60_000 + 34_567),
        ("coinbaseexchange", "granularity=300", 2 * 60_000 + 34_567),
        ("kraken", "interval=5", 2 * 60_000 + 34_567),
        ("bybit", "interval=60", 12 * 60_000 + 34_567),
        ("somewhere", "interval=5", 4_567),
    ],
)
def test_an_answer_since_the_last_close_has_all_finished_bars(exchange: str, query: str, since_close_ms: int) -> None:
    assert age_ms(exchange, "/x/klines", query) == since_close_ms - SETTLES_MS


def test_right_after_a_close_an_answer_may_lack_the_last_bar_for_a_moment_only() -> None:
    close_ms = NOW_MS // 60_000 * 60_000
    ages = [age_ms("binance", "/api/v3/klines", "interval=1m", close_ms + after) for after in (0, 1_500, 2_000, 9_000)]
    assert ages == [0, 1_500, 0, 7_000]


@pytest.mark.parametrize("query", ["", "interval=", "interval=fast", "interval=0", "interval=99999m", "x=1m", "%00=1"])
def test_what_says_no_interval_is_not_kept(query: str) -> None:
    assert age_ms("binance", "/api/v3/klines", query) == 0


@pytest.mark.parametrize(
    ("exchange", "query", "finished"),
    [
        ("binance", f"interval=1m&endTime={NOW_MS - 120_000}", True),
        ("binance", f"interval=1m&endTime={NOW_MS - 30_000}", False),
        ("binance", f"interval=1d&endTime={NOW_MS - 120_000}", False),
        ("binance", f"interval=1m&startTime={NOW_MS - 10**9}", False),
        ("coinbase", f"granularity=ONE_HOUR&end={NOW_MS // 1000 - 9_000}", True),
        ("coinbase", f"granularity=ONE_HOUR&end={NOW_MS // 1000 - 3_000}", False),
        ("okx", f"bar=1H&after={NOW_MS - 9_000_000}", True),
        ("okx", f"bar=1H&before={NOW_MS - 9_000_000}", False),
        ("bitget", f"bar=1H&after={NOW_MS - 9_000_000}", False),
        ("x", "interval=1h&end=2024-01-01T00:00:00Z", True),
        ("x", "interval=1h&end=2024-01-01", False),
        ("x", f"interval=1h&end={'9' * 30}", False),
    ],
)
def test_what_ended_long_ago_never_changes(exchange: str, query: str, finished: bool) -> None:
    assert (age_ms(exchange, "/x/candles", query) == MOST_MS) is finished
