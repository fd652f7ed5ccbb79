"""What calls cost by the tables of limits, and how wrong tables are refused."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.config import LimitsConfig
from schemas.errors import ConfigError
from workers.exchange.described import described
from workers.limits.costs import Costs, load
from workers.limits.effect import Called, check_limits
from workers.limits.tables import Tables, shipped
from workers.limits.wire import Sent, read

TABLES = shipped().limited
PUBLIC = ("public",)


def called(exchange: str) -> Called:
    return described(exchange).called


def sent(params: Mapping[str, Any]) -> Sent:
    """As such a call says it on the wire."""
    return read("x", {"url": f"https://x/x?{urlencode(params)}"})


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (base64.b64encode(b'{"Limit":5,"to":{"a":"b"}}'), {"limit": ["5"], "to": ['{"a":"b"}'], "to.a": ["b"]}),
        ("eyJ=5", {"eyj": ["5"]}),  # a producer's own name, which only begins like one
    ],
)
def test_a_body_in_base64_is_read(body: bytes | str, sent: Mapping[str, list[str]]) -> None:
    assert read("x", {"url": "https://x/x", "body": body}) == sent


def cost_of(costs: Costs, path: str, params: Mapping[str, Any], ccxt_cost: float = 1.0) -> float:
    [charge] = costs.charges(PUBLIC, "GET", path, sent(params), ccxt_cost)
    return charge.cost


def test_there_is_a_table_for_every_exchange_we_know() -> None:
    assert {"binance", "bybit", "coinbase", "gate", "htx", "kraken", "kucoin", "okx"} <= set(TABLES)


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
        ("ticker/24hr", {"symbols": "[" + ",".join(['"A"'] * 20) + "]"}, 2),
        ("ticker/24hr", {"symbols": "[" + ",".join(['"A"'] * 21) + "]"}, 40),
        ("ticker/24hr", {"symbols": "[" + ",".join(['"A"'] * 101) + "]"}, 80),
        ("ticker/24hr", {}, 80),
        ("ticker", {"symbols": '["A","B","C"]'}, 12),
        ("ticker", {"symbols": "[" + ",".join(['"A"'] * 100) + "]"}, 200),
        ("ticker/price", {}, 4),
        # What can't be told, or what the exchange may read otherwise, counts as the dearest.
        ("depth", {"symbol": "BTCUSDT", "limit": 0}, 250),
        ("depth", {"symbol": "BTCUSDT", "limit": -5}, 250),
        ("depth", {"symbol": "BTCUSDT", "limit": "1e2"}, 250),
        ("depth", {"symbol": "BTCUSDT", "limit": "1_0"}, 250),
        ("depth", {"symbol": "BTCUSDT", "limit": ""}, 250),
        ("depth", {"symbol": "BTCUSDT", "LIMIT": 5000}, 250),
        ("depth", {"symbol": "BTCUSDT", "limit": 5, "Limit": 5}, 250),
        ("depth", {"symbol": "BTCUSDT", "limit[0]": 5}, 250),
        ("ticker/24hr", {"symbol": ""}, 80),
        ("ticker/24hr", {"symbol": " "}, 80),
        ("ticker/24hr", {"symbols": "[]"}, 80),
        ("ticker/24hr", {"symbols": ["A"]}, 80),
        ("ticker/24hr", {"symbols": "A,B"}, 80),
        ("ticker/24hr", {"symbol": "A", "symbols": "[" + ",".join(['"A"'] * 101) + "]"}, 80),
        ("ticker/price", {"symbol": "A", "symbols": '["A","B"]'}, 4),
        ("ticker", {"symbol": "A", "symbols": '["A","B","C"]'}, 12),
    ],
)
def test_binance_weights(path: str, params: dict[str, Any], cost: float) -> None:
    # Source: binance-spot-api-docs, rest-api.md.
    assert cost_of(load("binance", 50), path, params) == cost


@pytest.mark.parametrize("api", ["fapiPublic", "dapiPublic"])
@pytest.mark.parametrize(
    ("path", "params", "cost"),
    [
        ("klines", {"symbol": "BTCUSDT", "interval": "1h"}, 5),
        ("klines", {"interval": "1h", "limit": 99}, 1),
        ("klines", {"interval": "1h", "limit": 100}, 2),
        ("indexPriceKlines", {"interval": "1h", "limit": 499}, 2),
        ("markPriceKlines", {"interval": "1h", "limit": 500}, 5),
        ("premiumIndexKlines", {"interval": "1h", "limit": 1000}, 5),
        ("klines", {"interval": "1h", "limit": 1500}, 10),
        ("depth", {"symbol": "BTCUSDT"}, 10),
        ("depth", {"symbol": "BTCUSDT", "limit": 5}, 2),
        ("depth", {"symbol": "BTCUSDT", "limit": 100}, 5),
        ("depth", {"symbol": "BTCUSDT", "limit": 1000}, 20),
        ("aggTrades", {"symbol": "BTCUSDT"}, 20),
        ("ticker/24hr", {}, 40),
        ("ticker/24hr", {"symbol": "BTCUSDT"}, 1),
        ("ticker/bookTicker", {}, 5),
    ],
)
def test_binance_futures_weights(api: str, path: str, params: dict[str, Any], cost: float) -> None:
    # Source: developers.binance.com, USD-M and COIN-M futures, market data. They share one count.
    [charge] = load("binance", 50).charges((api,), "GET", path, sent(params), 1)
    assert (charge.key, charge.cost) == ("futures", cost)


def test_binance_funding_rates_share_a_limit_of_their_own() -> None:
    costs = load("binance", 50)
    keys = {
        tuple(charge.key for charge in costs.charges((api,), "GET", path, {}, 1))
        for api in ("fapiPublic", "dapiPublic")
        for path in ("fundingRate", "fundingInfo")
    }
    assert keys == {("futures", "funding")}


@pytest.mark.parametrize(
    ("api", "path", "params", "cost"),
    [
        ("public", "market/candles", {}, 3),
        ("public", "market/allTickers", {}, 15),
        ("public", "market/orderbook/level{level}_{limit}", {"level": 2, "limit": 20}, 2),
        ("public", "market/orderbook/level{level}_{limit}", {"level": 2, "limit": 100}, 2),
        # Half of what ccxt charges, which counts futures in other units.
        ("futuresPublic", "kline/query", {}, 3),
        ("futuresPublic", "allTickers", {}, 5),
        ("uta", "market/kline", {}, 3),
    ],
)
def test_kucoin_weights(api: str, path: str, params: dict[str, Any], cost: float) -> None:
    # Source: kucoin.com/docs-new, api-rate-limit-weight of each endpoint.
    [charge] = load("kucoin", 7.5).charges((api,), "GET", path, sent(params), 99)
    assert (charge.key, charge.cost) == ("public", cost)


HOUR_MS = 3_600_000
CANDLES = {"req.startTime": 0, "req.endTime": 499 * HOUR_MS, "req.interval": "1h"}


@pytest.mark.parametrize(
    ("params", "cost"),
    [
        ({"type": "l2Book"}, 2),
        ({"type": "meta"}, 20),
        ({"type": "fundingHistory"}, 45),
        ({"type": "userRole"}, 60),
        ({"type": "candleSnapshot", **CANDLES}, 29),
        ({"type": "candleSnapshot", **CANDLES, "req.interval": "1d"}, 21),
        ({"type": "candleSnapshot", **CANDLES, "req.interval": "1m"}, 104),
        # What can't be read may be the most: 5,000 candles, or a type that nobody knows.
        ({"type": "candleSnapshot"}, 104),
        ({"type": "candleSnapshot", **CANDLES, "req.endTime": ""}, 104),
        ({"type": "candleSnapshot", **CANDLES, "req.startTime": "soon"}, 104),
        ({"type": "candleSnapshot", **CANDLES, "req.startTime": 500 * HOUR_MS}, 104),
        ({"type": "candleSnapshot", **CANDLES, "req.interval": "1x"}, 104),
        ({"type": "newType"}, 120),
        ({"type": "L2BOOK"}, 120),
        ({"type": ""}, 120),
        ({}, 120),
    ],
)
def test_hyperliquid_weights(params: dict[str, Any], cost: float) -> None:
    # Source: hyperliquid.gitbook.io, rate limits and user limits: one more for each 60 candles and each 20 items.
    [charge] = load("hyperliquid", 50).charges(PUBLIC, "POST", "info", sent(params), 99)
    assert (charge.key, charge.cost) == ("weight", cost)


def test_gate_counts_each_endpoint_and_bybit_all_of_them_together() -> None:
    gate, bybit = load("gate", 50), load("bybit", 20)
    calls = [("futures", "{settle}/tickers"), ("futures", "{settle}/trades"), ("spot", "tickers"), ("spot", "trades")]
    keys = {gate.charges(("public", api), "GET", path, {}, 1)[0].key for api, path in calls}
    assert len(keys) == 4
    paths = ("v5/market/tickers", "v5/market/kline", "v5/market/anything")
    assert {bybit.charges(PUBLIC, "GET", path, {}, 5)[0].key for path in paths} == {"ip"}
    # Who passes 600 in 5 s is locked out for 10 minutes.
    assert bybit.buckets["ip"].amount <= 600 * 0.98


def test_the_table_knows_what_it_names_and_apis_whose_paths_all_cost_the_same() -> None:
    binance, bybit = load("binance", 50), load("bybit", 20)
    assert binance.knows(PUBLIC, "GET", "klines")
    assert not binance.knows(PUBLIC, "GET", "somethingNew")
    assert not binance.knows(("nowhere",), "GET", "klines")
    assert bybit.knows(PUBLIC, "GET", "somethingNew")


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
    assert (spot.key, futures.key) == ("spot", "futures")


BTC_USD: dict[str, Any] = {
    "id": "XXBTZUSD",
    "symbol": "BTC/USD",
    "type": "spot",
    "base": "BTC",
    "baseId": "XXBT",
    "quote": "USD",
    "quoteId": "ZUSD",
    "info": {"altname": "XBTUSD", "wsname": "XBT/USD"},
}
ETH_USDT: dict[str, Any] = {"id": "ETHUSDT", "symbol": "ETH/USDT", "info": {"altname": "ETHUSDT"}}


@pytest.mark.parametrize("name", ["XXBTZUSD", "XBTUSD", "XBT/USD", "BTC/USD", "BTCUSD", "xbtusd", " XBTUSD"])
def test_all_names_of_a_pair_are_one_count(name: str) -> None:
    names = load("kraken", 1000).names([ETH_USDT, BTC_USD])
    for path in ("OHLC", "Trades"):
        charges = load("kraken", 1000).charges(PUBLIC, "GET", path, sent({"pair": name, "interval": 60}), 1.2, names)
        assert [charge.key for charge in charges] == ["pair:XXBTZUSD", "pairs"]


def test_pairs_count_apart_and_what_is_not_listed_together() -> None:
    kraken = load("kraken", 1000)
    names = kraken.names([ETH_USDT, BTC_USD])
    keys = {
        kraken.charges(PUBLIC, "GET", "OHLC", read("OHLC", {"url": f"https://x/0/public/OHLC?{query}"}), 1, names)[
            0
        ].key
        for query in ["", "pair=", "pair=A1", "pair=%5B%27XBTUSD%27%5D", "pair[0]=XBTUSD", "pair=XBTUSD&pair=ETHUSDT"]
    }
    assert keys == {"pair:"}
    assert kraken.charges(PUBLIC, "GET", "OHLC", sent({"pair": "ETHUSDT"}), 1, names)[0].key == "pair:ETHUSDT"


def test_an_id_wins_over_what_another_market_could_be_called() -> None:
    spot: dict[str, Any] = {
        "id": "1",
        "symbol": "BTC/USDT",
        "type": "spot",
        "base": "BTC",
        "quote": "USDT",
        "info": None,
    }
    other = {"id": "BTC-USDT", "symbol": "BTC/USDT:USDT", "type": "swap", "info": {"instFamily": "BTC-USDC"}}
    for markets in ([spot, other], [other, spot]):
        names = load("okx", 100).names(markets)
        assert [names.of([name]) for name in ("BTC-USDT", "btcusdt", "BTC-USDC")] == ["BTC-USDT", "1", "BTC-USDC"]


@pytest.mark.parametrize("exchange", TABLES)
def test_what_counts_per_parameter_is_bounded_for_all_its_values(exchange: str) -> None:
    costs = load(exchange, 100)
    for api, method, path in (key.split(" ") for key in costs.rules):
        charges = costs.charges(tuple(api.split(".")), method, path, {}, 1)
        assert not any(charge.bucket.per for charge in charges) or any(not charge.bucket.per for charge in charges)


def test_each_endpoint_counts_alone_where_the_table_says_so() -> None:
    okx = load("okx", 110)
    [ticker] = okx.charges(PUBLIC, "GET", "market/ticker", {}, 1)
    [tickers] = okx.charges(PUBLIC, "GET", "market/tickers", {}, 1)
    [spot] = okx.charges(PUBLIC, "GET", "public/instruments", sent({"instType": "SPOT"}), 1)
    [odd] = okx.charges(PUBLIC, "GET", "public/instruments", sent({"instType": "X" * 9999}), 1)
    assert len({spot.key, ticker.key, tickers.key}) == 3
    assert spot.key == odd.key


def test_a_call_may_be_charged_to_several_buckets() -> None:
    charges = load("coinbase", 34).charges(("v2", "public"), "GET", "time", {}, 10.6)
    assert [charge.bucket.name for charge in charges] == ["public", "v2"]


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
        ("at_most = 5", 'at_most = 5, equals = ["5"]', ['"public GET y"[0].cases[0].equals', "neither"]),
        (
            "at_most = 5",
            'each = true, bars = { since = "s", until = "u", bar = "b", most = 9, per = 3 }',
            ["cases[0].bars", "each"],
        ),
        (
            "at_most = 5, cost = 1",
            'cost = 9, bars = { since = "s", until = "u", bar = "b", most = 9, per = 3 }',
            ['"public GET y"[0].cost', "12 can never be spent"],
        ),
        ("at_most = 5", "atmost = 5", ['endpoints."public GET y"[0].cases', "atmost", "at_most"]),
        ('[[default]]\nbucket = "a"', '[[default]]\nbucket = "b"', ["default[0].bucket", "expected one of a"]),
        (
            'kind = "rolling"',
            'kind = "rolling"\nper = ["pair"]',
            ['endpoints."public GET y"[0].bucket', "second rule", "bucket a has a count for each pair"],
        ),
        ("public GET y", "public y", ['endpoints."public y"', "METHOD"]),
        ('exchange = "x"', 'exchange = "z"', ["exchange", "'x'"]),
        ("checked = 2026-11-22", 'checked = "soon"', ["checked"]),
        ("[[default]]", "[[defaults]]", ["default"]),
        ('"public GET y" = [{', '"public GET y" = []\n"public GET z" = [{', ['"public GET y"', "at least one rule"]),
        ('"public GET y" = [{', '"public GET y" = [{ bucket = "a" }, {', ['"public GET y"', "each bucket once"]),
        (
            "checked = 2026-11-22",
            'checked = 2026-11-22\nmisreported = ["public GET z"]',
            ["misreported[0]", "'public GET z'"],
        ),
        ("amount = 10", "amount = ", ["not TOML"]),
        (
            'kind = "rolling"\nsource = "s"\n[[default]]\nbucket = "a"',
            'kind = "fixed"\nsource = "s"\n[buckets.b]\namount = 1\nwindow_s = 1\nkind = "fixed"\nsource = "s"\n'
            '[[default]]\nbucket = "a"\n[[default]]\nbucket = "b"',
            ["default", "at most one", "fixed"],
        ),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path: Path, old: str, new: str, where: list[str]) -> None:
    file = tmp_path / "x.toml"
    file.write_text(GOOD)
    load("x", 100, tables=Tables(tmp_path))
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load("x", 100, tables=Tables(tmp_path))
    for part in [str(file), *where]:
        assert part in str(caught.value)


def test_the_configuration_wins_over_the_table_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(GOOD)
    table = load("x", 100, tables=Tables(tmp_path))
    own = LimitsConfig(
        buckets={"a": {"amount": 40}, "mine": {"amount": 3, "window_s": 1, "kind": "rolling"}},
        endpoints={"public GET z": [{"bucket": "mine", "cost": 2}]},
    )
    costs = load("x", 100, tables=Tables(tmp_path), own=own)
    assert (costs.buckets["a"].amount, costs.buckets["a"].window_s) == (40, table.buckets["a"].window_s)
    assert cost_of(costs, "y", {}) == cost_of(table, "y", {}) == 2
    [mine] = costs.charges(PUBLIC, "GET", "z", {}, 1)
    assert (mine.bucket.name, mine.bucket.source, mine.cost) == ("mine", "configuration", 2)
    own = LimitsConfig(default=[{"bucket": "a", "cost": 9}])
    assert cost_of(load("x", 100, tables=Tables(tmp_path), own=own), "unknown", {}) == 9


def test_an_exchange_without_a_table_gets_one_from_the_configuration() -> None:
    bucket = {"amount": 50, "window_s": 1, "kind": "rolling"}
    rules = {"public GET *": [{"bucket": "second"}]}
    costs = load("nowhere", 200, own=LimitsConfig(buckets={"second": bucket}, endpoints=rules))
    [known] = costs.charges(PUBLIC, "GET", "x", {}, 2.5)
    assert (known.bucket.name, known.cost) == ("second", 1)
    [silent] = costs.charges(("private",), "GET", "x", {}, 2.5)
    assert (silent.bucket.name, silent.bucket.kind, silent.cost) == ("all", "paced", 2.5)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (LimitsConfig(buckets={"a": {"amuont": 9}}), "limits.x.buckets.a: Object contains unknown field `amuont`"),
        (LimitsConfig(buckets={"a": {"amount": 0}}), "limits.x.buckets.a.amount: "),
        (LimitsConfig(buckets={"b": {"amount": 5}}), "limits.x.buckets.b: "),
        (LimitsConfig(buckets={"B:": {"amount": 5, "window_s": 1, "kind": "fixed"}}), "limits.x.buckets.B:: "),
        (LimitsConfig(buckets={"a": {"amount": 1}}), "at most 1, the amount of bucket a"),
        (LimitsConfig(default=[]), "limits.x.default: expected at least one rule"),
        (LimitsConfig(default=[{"bucket": "c"}]), "limits.x.default[0].bucket: expected one of a"),
        (LimitsConfig(endpoints={"y": [{"bucket": "a"}]}), 'limits.x.endpoints."y": expected "<api>'),
        (LimitsConfig(endpoints={"public GET y": [{"bucket": "a", "cost": 11}]}), 'limits.x.endpoints."public GET y"'),
    ],
)
def test_wrong_limits_say_where_in_the_configuration(tmp_path: Path, own: LimitsConfig, says: str) -> None:
    (tmp_path / "x.toml").write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load("x", 100, tables=Tables(tmp_path), own=own)
    assert says in str(caught.value)


def test_limits_that_would_have_no_effect_are_refused() -> None:
    check_limits({"binance": LimitsConfig(), "kraken": LimitsConfig()}, ["binanceusdm", "kraken"], called)
    with pytest.raises(ConfigError, match=r"limits\.binanceusdm: expected binance"):
        check_limits({"binanceusdm": LimitsConfig()}, ["binanceusdm"], called)
    with pytest.raises(ConfigError, match=r"limits\.bitgte: expected the exchange of a lane: one of bitget, okx"):
        check_limits({"bitgte": LimitsConfig()}, ["okx", "bitget"], called)
