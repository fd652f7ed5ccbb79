"""The tables of limits: what they say, how wrong ones are refused, and whether they hold what ccxt really calls."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.errors import ConfigError
from workers.costs import LIMITS, Costs, load

TABLES = sorted(path.stem for path in LIMITS.glob("*.toml"))
PUBLIC = ("public",)


def cost_of(costs: Costs, path: str, params: Mapping[str, Any], ccxt_cost: float = 1.0) -> float:
    [charge] = costs.charges(PUBLIC, "GET", path, params, ccxt_cost)
    return charge.cost


def test_there_is_a_table_for_every_exchange_we_know() -> None:
    assert TABLES == ["binance", "coinbase", "htx", "kraken", "okx"]


@pytest.mark.parametrize(
    ("path", "params", "cost"),
    [
        ("depth", {"symbol": "BTCUSDT"}, 5),
        ("depth", {"symbol": "BTCUSDT", "limit": 100}, 5),
        ("depth", {"symbol": "BTCUSDT", "limit": 101}, 25),
        ("depth", {"symbol": "BTCUSDT", "limit": "1000"}, 50),
        ("depth", {"symbol": "BTCUSDT", "limit": 5000}, 250),
        ("depth", {"symbol": "BTCUSDT", "limit": "many"}, 250),
        ("depth", {"symbol": "BTCUSDT", "limit": "nan"}, 250),
        ("trades", {"symbol": "BTCUSDT"}, 25),
        ("historicalTrades", {"symbol": "BTCUSDT"}, 25),
        ("aggTrades", {"symbol": "BTCUSDT"}, 4),
        ("klines", {"symbol": "BTCUSDT"}, 2),
        ("exchangeInfo", {}, 20),
        ("ticker/24hr", {"symbol": "BTCUSDT"}, 2),
        ("ticker/24hr", {"symbols": '["A"]'}, 2),
        ("ticker/24hr", {"symbols": ["A"] * 20}, 2),
        ("ticker/24hr", {"symbols": "[" + ",".join(['"A"'] * 21) + "]"}, 40),
        ("ticker/24hr", {"symbols": ["A"] * 101}, 80),
        ("ticker/24hr", {}, 80),
        ("ticker", {"symbols": ["A"] * 3}, 12),
        ("ticker", {"symbols": ["A"] * 100}, 200),
        ("ticker/price", {}, 4),
    ],
)
def test_binance_weights(path: str, params: dict[str, Any], cost: float) -> None:
    # Source: binance-spot-api-docs, rest-api.md.
    assert cost_of(load("binance", 50), path, params) == cost


def test_ccxt_cost_counts_where_the_table_is_silent() -> None:
    costs = load("binance", 50)
    assert cost_of(costs, "somethingNew", {}, ccxt_cost=3) == 15
    assert cost_of(costs, "somethingNew", {}, ccxt_cost=0) > 0
    # More than a whole window can't wait for room for ever: it takes the window.
    assert cost_of(costs, "somethingNew", {}, ccxt_cost=1e6) == 6000


def test_same_path_in_two_apis() -> None:
    costs = load("binance", 50)
    [spot] = costs.charges(PUBLIC, "GET", "exchangeInfo", {}, 4)
    [futures] = costs.charges(("fapiPublic",), "GET", "exchangeInfo", {}, 1)
    assert (spot.key, futures.key) == ("spot", "um")


def test_counts_per_parameter_and_per_endpoint() -> None:
    kraken = load("kraken", 1000)
    [ohlc] = kraken.charges(PUBLIC, "GET", "OHLC", {"pair": "xbtusdt", "interval": 60}, 1.2)
    [trades] = kraken.charges(PUBLIC, "GET", "Trades", {"pair": "XBTUSDT"}, 1.2)
    [other] = kraken.charges(PUBLIC, "GET", "Trades", {"pair": "ETHUSDT"}, 1.2)
    assert ohlc.key == trades.key == "pair:XBTUSDT" != other.key
    okx = load("okx", 110)
    [spot] = okx.charges(PUBLIC, "GET", "public/instruments", {"instType": "SPOT"}, 1)
    [swap] = okx.charges(PUBLIC, "GET", "public/instruments", {"instType": "SWAP"}, 1)
    [ticker] = okx.charges(PUBLIC, "GET", "market/ticker", {}, 1)
    [tickers] = okx.charges(PUBLIC, "GET", "market/tickers", {}, 1)
    assert len({spot.key, swap.key, ticker.key, tickers.key}) == 4
    assert len(okx.charges(PUBLIC, "GET", "public/instruments", {"instType": "X" * 9999}, 1)[0].key) < 150


def test_a_call_may_be_charged_to_several_buckets() -> None:
    charges = load("coinbase", 34).charges(("v2", "public"), "GET", "time", {}, 10.6)
    assert [charge.bucket.name for charge in charges] == ["public", "v2"]


def test_no_charge_of_any_call_ccxt_knows_is_above_its_bucket() -> None:
    for exchange in TABLES:
        described: dict[str, Any] = getattr(ccxt, exchange)().describe()
        costs = load(exchange, described["rateLimit"])
        for api, method, path, ccxt_cost in endpoints(described["api"]):
            for charge in costs.charges(api, method, path, {}, ccxt_cost):
                assert 0 < charge.cost <= charge.bucket.amount or charge.bucket.kind == "paced", (exchange, path)


def endpoints(tree: Mapping[str, Any], api: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str, str, float]]:
    found: list[tuple[tuple[str, ...], str, str, float]] = []
    for name, below in tree.items():
        if name in {"get", "post", "put", "delete", "patch"}:
            entries = cast("dict[str, Any]", below) if isinstance(below, dict) else dict.fromkeys(below, 1)
            for path, entry in entries.items():
                cost: float = cast("dict[str, float]", entry)["cost"] if isinstance(entry, dict) else entry
                found.append((api, name.upper(), path, cost))
        else:
            found += endpoints(below, (*api, name))
    return found


@pytest.mark.parametrize("exchange", ccxt.exchanges)
def test_any_exchange_of_ccxt_has_a_budget(exchange: str) -> None:
    described: dict[str, Any] = getattr(ccxt, exchange)().describe()
    costs = load(exchange, described["rateLimit"])
    for charge in costs.charges(PUBLIC, "GET", "anything", {}, 1.0):
        assert charge.cost > 0
        assert charge.bucket.amount / charge.bucket.window_s <= 1000


def test_an_exchange_without_a_table_is_paced_as_ccxt_would() -> None:
    [charge] = load("nowhere", 200).charges(PUBLIC, "GET", "x", {}, 2.5)
    assert (charge.bucket.kind, charge.bucket.amount / charge.bucket.window_s, charge.cost) == ("paced", 5.0, 2.5)


class Sent(Exception):
    """A call reached ccxt's funnel."""


MARKETS = {
    "binance": {"spot": "BTCUSDT", "linear": "BTCUSDT", "inverse": "BTCUSD_PERP"},
    "okx": {"spot": "BTC-USDT", "linear": "BTC-USDT-SWAP", "inverse": "BTC-USD-SWAP"},
    "htx": {"spot": "btcusdt", "linear": "BTC-USDT", "inverse": "BTC-USD"},
    "coinbase": {"spot": "BTC-USDT"},
    "kraken": {"spot": "XBTUSDT"},
}
SYMBOLS = {"spot": "BTC/USDT", "linear": "BTC/USDT:USDT", "inverse": "BTC/USD:BTC"}
METHODS = (
    "fetch_time fetch_status fetch_ticker fetch_tickers fetch_ohlcv fetch_trades fetch_order_book fetch_markets"
    " fetch_currencies fetch_bids_asks fetch_last_prices fetch_funding_rate fetch_funding_rates fetch_funding_interval"
    " fetch_funding_rate_history fetch_open_interest fetch_open_interests fetch_open_interest_history fetch_mark_price"
    " fetch_mark_prices fetch_mark_ohlcv fetch_index_ohlcv fetch_premium_index_ohlcv fetch_option"
).split()


def market(exchange: Any, kind: str, market_id: str) -> dict[str, Any]:
    symbol = SYMBOLS[kind]
    base, _, quote = symbol.partition(":")[0].partition("/")
    settle = symbol.partition(":")[2] or None
    spot = kind == "spot"
    known: dict[str, Any] = exchange.safe_market_structure()
    return known | {
        "id": market_id,
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "settle": settle,
        "baseId": base,
        "quoteId": quote,
        "settleId": settle,
        "type": "spot" if spot else "swap",
        "subType": None if spot else kind,
        "spot": spot,
        "swap": not spot,
        "future": False,
        "option": False,
        "contract": not spot,
        "linear": None if spot else kind == "linear",
        "inverse": None if spot else kind == "inverse",
        "contractSize": None if spot else 1,
        "active": True,
        "info": {"instFamily": "BTC-USD", "uly": "BTC-USD"},
    }


@pytest.mark.parametrize("exchange_id", TABLES)
async def test_tables_know_every_endpoint_that_ccxt_calls_for_market_data(exchange_id: str) -> None:
    calls: list[tuple[str, tuple[str, ...], str, str, dict[str, Any], float]] = []

    class Recorder(getattr(ccxt, exchange_id)):  # type: ignore[misc]
        method = ""
        answer: Any = None

        async def fetch2(
            self,
            path: str,
            api: Any = PUBLIC,
            method: str = "GET",
            params: dict[str, Any] | None = None,
            config: dict[str, Any] | None = None,
        ) -> Any:
            cost = self.calculate_rate_limiter_cost(api, method, path, params or {}, config or {})
            calls.append((self.method, tuple(api), method, path, dict(params or {}), cost))
            if self.answer is None:
                raise Sent
            return self.answer

    exchange: Any = Recorder()
    try:
        exchange.set_markets([market(exchange, kind, name) for kind, name in MARKETS[exchange_id].items()])
        for name in METHODS:
            exchange.method = name
            function = getattr(exchange, name)
            for kind in MARKETS[exchange_id]:
                for since, limit in ((None, None), (1_700_000_000_000, 300), (None, 1000)):
                    known = {
                        "symbol": SYMBOLS[kind],
                        "symbols": [SYMBOLS[kind]],
                        "since": since,
                        "limit": limit,
                        "timeframe": "1h",
                    }
                    taken = inspect.signature(function).parameters
                    arguments = {key: value for key, value in known.items() if key in taken}
                    # Nothing, then an empty answer: some methods only make their second call after a first answer.
                    for exchange.answer in (None, {"data": [], "result": {}}):
                        # Whatever ccxt makes of the answer, the calls it made stand.
                        await ignore(function(**arguments))
    finally:
        await exchange.close()

    costs = load(exchange_id, exchange.rateLimit)
    families = {name for name, *_ in calls}
    assert {
        "fetch_ticker",
        "fetch_ohlcv",
        "fetch_trades",
        "fetch_order_book",
        "fetch_markets",
        "fetch_time",
    } <= families
    everyday = set(METHODS[:9])
    for name, api, method, path, params, ccxt_cost in calls:
        if "private" not in ".".join(api).lower():
            known_path = costs.knows(api, method, path) or (name not in everyday and costs.knows(api, method, "*"))
            assert known_path, f"{name}: {'.'.join(api)} {method} {path}"
        for charge in costs.charges(api, method, path, params, ccxt_cost):
            assert 0 < charge.cost <= charge.bucket.amount or charge.bucket.kind == "paced"


async def ignore(call: Any) -> None:
    try:
        await call
    except Exception:
        return


GOOD = """
exchange = "x"
checked = 2026-11-22
[buckets.a]
amount = 10
window_s = 1
kind = "rolling"
source = "s"
[[default]]
bucket = "a"
[endpoints]
"public GET y" = [{ bucket = "a", cost = 2, cases = [{ param = "limit", at_most = 5, cost = 1 }] }]
"""


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("amount = 10", "amuont = 10", ["buckets.a", "amuont", "amount", "window_s"]),
        ("amount = 10", "amount = -1", ["buckets.a.amount"]),
        ("amount = 10", 'amount = "10"', ["buckets.a.amount", "float"]),
        ('"rolling"', '"sliding"', ["buckets.a.kind", "sliding"]),
        ('"rolling"', '"fixed"\nmargin_ms = 500', ["buckets.a.margin_ms", "half of window_s"]),
        ("cost = 2", "cost = 11", ['endpoints."public GET y"[0].cost', "11", "at most 10", "bucket a"]),
        ("at_most = 5, cost = 1", "at_most = 5, cost = 12", ['endpoints."public GET y"[0].cost', "12"]),
        ("at_most = 5", "atmost = 5", ['endpoints."public GET y"[0].cases', "atmost", "at_most"]),
        ('[[default]]\nbucket = "a"', '[[default]]\nbucket = "b"', ["default[0].bucket", "expected one of a"]),
        ("public GET y", "public y", ['endpoints."public y"', "METHOD"]),
        ('exchange = "x"', 'exchange = "z"', ["exchange", "'x'"]),
        ("checked = 2026-11-22", 'checked = "soon"', ["checked"]),
        ("[[default]]", "[[defaults]]", ["default"]),
        ('"public GET y" = [{', '"public GET y" = []\n"public GET z" = [{', ['"public GET y"', "at least one rule"]),
        ('"public GET y" = [{', '"public GET y" = [{ bucket = "a" }, {', ['"public GET y"', "each bucket once"]),
        ("amount = 10", "amount = ", ["not TOML"]),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path: Path, old: str, new: str, where: list[str]) -> None:
    file = tmp_path / "x.toml"
    file.write_text(GOOD)
    load("x", 100, folder=tmp_path)
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load("x", 100, folder=tmp_path)
    for part in [str(file), *where]:
        assert part in str(caught.value)
