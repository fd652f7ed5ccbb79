"""A cost by a parameter that no call of ccxt sends is an error: a slip in its name would leave calls too cheap."""

from typing import Final

import pytest

from tests.unit.test_settings import read, refusal
from workers.exchange.described import described
from workers.limits.costs import load
from workers.limits.tables import shipped


def case(exchange: str, key: str, case: str) -> str:
    """One case of ten times the cost, beside an endpoint's or the default's one rule."""
    rules = f"[{{ bucket = 'own', cases = [{{ cost = 10, {case} }}] }}]"
    place = f"default = {rules}" if key == "default" else f'endpoints."{key}" = {rules}'
    bucket = 'amount = 400\nwindow_s = 1\nkind = "rolling"'
    return f"[lanes.{exchange}]\n[limits.{exchange}]\n{place}\n[limits.{exchange}.buckets.own]\n{bucket}\n"


BARS: Final = 'bars = {{ since = "{}", until = "{}", bar = "{}", most = 100, per = 10 }}'


@pytest.mark.parametrize(
    ("exchange", "key", "param", "says"),
    [
        ("bitstamp", "public GET order_book/{pair}/", 'param = "pairr"', "sends no 'pairr' there"),
        ("bitstamp", "public GET ohlc/{pair}/", 'param = "limitt"', "'limitt' there; perhaps 'limit'"),
        ("bitstamp", "public GET *", 'param = "limitt"', "'limitt' there; perhaps 'limit'"),
        ("bitstamp", "default", 'param = "limitt"', "default[0].cases[0]: ccxt's bitstamp sends no 'limitt' there"),
        # ccxt's own names of arguments, where the exchange has others.
        ("kraken", "public GET Depth", 'param = "symbol"', "sends no 'symbol' there"),
        ("kraken", "public GET OHLC", 'param = "timeframe"', "sends no 'timeframe' there"),
        ("kraken", "public GET Depth", 'param = "limit"', "sends no 'limit' there"),
        # What other endpoints of the exchange are sent.
        ("kraken", "public GET Ticker", 'param = "interval"', "sends no 'interval' there"),
        ("hyperliquid", "public POST info", 'param = "req.coinn"', "sends no 'req.coinn' there"),
        (
            "hyperliquid",
            "public POST info",
            'param = "type", ' + BARS.format("req.startTime", "req.endTimes", "req.interval"),
            "sends no 'req.endTimes' there; perhaps 'endtime'",
        ),
    ],
)
def test_a_cost_by_a_parameter_that_no_call_sends_is_refused(exchange: str, key: str, param: str, says: str) -> None:
    assert says in refusal(case(exchange, key, param))
    # A producer may name it in its `params`.
    read(case(exchange, key, f"{param}, from_params = true"))


@pytest.mark.parametrize(
    ("exchange", "key", "param"),
    [
        ("bitstamp", "public GET ohlc/{pair}/", "limit"),
        ("bitstamp", "public GET ohlc/{pair}/", "LIMIT"),
        ("bitstamp", "public GET ticker/{pair}/", "pair"),  # stands in the path
        ("bitstamp", "public GET *", "pair"),
        ("kraken", "public GET Depth", "count"),
        ("gate", "private.spot GET open_orders", "currency_pair"),  # put there by a method that two methods call
        ("binance", "private GET myTrades", "orderId"),  # put there by a method that calls the method
    ],
)
def test_a_cost_by_a_parameter_that_ccxt_sends_is_taken(exchange: str, key: str, param: str) -> None:
    read(case(exchange, key, f'param = "{param}"'))


@pytest.mark.parametrize("exchange", shipped().limited)
def test_no_misspelt_parameter_of_a_table_goes_unnoticed(exchange: str) -> None:
    called = described(exchange).called
    for key, rules in load(exchange, 100).rules.items():
        named = {name for rule in rules for each in rule.cases if not each.from_params for name in each.reads}
        for name in named if called.at(key) else ():
            assert called.has(name, key)
            slips = {name + name[-1], name[:-2] + name[-2:][::-1], f"{name[:1]}_{name[1:]}"} - {name}
            assert not {slip for slip in slips if called.has(slip, key)}, key
