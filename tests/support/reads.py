"""The public reads that the fleet is made for, and how one sees that what came back is right."""

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

SYMBOL = "BTC/USDT"
BTC: dict[str, Any] = {"symbol": SYMBOL}
MINUTE_MS = 60_000
SINCE_MS = (int(time.time() * 1000) // MINUTE_MS - 30) * MINUTE_MS


def is_time(data: Any) -> bool:
    return bool(abs(data - time.time() * 1000) < 3_600_000)


def is_status(data: Any) -> bool:
    return bool(data["status"] == "ok")


def is_ticker(data: Any) -> bool:
    return bool(data["symbol"] == SYMBOL and data["last"] > 0)


def are_tickers(data: Any) -> bool:
    return len(data) > 1 and all(each["symbol"] == symbol for symbol, each in data.items())


def are_candles(data: Any) -> bool:
    opened = [candle[0] for candle in data]
    return opened[0] == SINCE_MS and len(data) == 10 and all(b - a == MINUTE_MS for a, b in pairwise(opened))


def are_trades(data: Any) -> bool:
    return 0 < len(data) <= 20 and all(trade["symbol"] == SYMBOL and trade["price"] > 0 for trade in data)


def is_book(data: Any) -> bool:
    bids, asks = [level[0] for level in data["bids"]], [level[0] for level in data["asks"]]
    return bids == sorted(bids, reverse=True) and asks == sorted(asks) and bids[0] < asks[0]


READS: dict[str, tuple[Mapping[str, object], Callable[[Any], bool]]] = {
    "fetch_time": ({}, is_time),
    "fetch_status": ({}, is_status),
    "fetch_ticker": (BTC, is_ticker),
    "fetch_tickers": ({}, are_tickers),
    "fetch_ohlcv": ({**BTC, "timeframe": "1m", "since": SINCE_MS, "limit": 10}, are_candles),
    "fetch_trades": ({**BTC, "limit": 20}, are_trades),
    "fetch_order_book": ({**BTC, "limit": 20}, is_book),
}
# What ccxt 4.5.90 does not know of an exchange.
LACKS = {("coinbase", "fetch_status"), ("coinbase", "fetch_l2_order_book")}


def is_something(data: Any) -> bool:
    return len(data) > 0


# What the simulator serves beside these.
MORE: dict[str, tuple[Mapping[str, object], Callable[[Any], bool]]] = {
    "load_markets": ({}, is_something),
    "fetch_markets": ({}, is_something),
    "fetch_currencies": ({}, is_something),
    "fetch_l2_order_book": (BTC, is_book),
    "fetch_bids_asks": ({}, is_something),
    "fetch_last_prices": ({}, is_something),
    "fetch_trading_limits": ({}, is_something),
    "fetch_deposit_withdraw_fees": ({}, is_something),
}
# Methods that not all of them answer; Binance and OKX give currencies to accounts only.
_ONLY_AT = {
    "fetch_currencies": {"htx", "coinbase", "kraken"},
    "fetch_bids_asks": {"binance"},
    "fetch_last_prices": {"binance"},
    "fetch_trading_limits": {"binance"},
    "fetch_deposit_withdraw_fees": {"htx"},
}


def served(exchange: str) -> dict[str, tuple[Mapping[str, object], Callable[[Any], bool]]]:
    """Every read that the simulator answers for this exchange without an account."""
    more = {method: read for method, read in MORE.items() if exchange in _ONLY_AT.get(method, {exchange})}
    return {method: read for method, read in (READS | more).items() if (exchange, method) not in LACKS}
