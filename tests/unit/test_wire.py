"""What calls are charged, against every way to read what real ccxt classes send for a producer's `params`."""

import copy
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidMessage
from workers.exchange.arguments import check, path_keys, takes
from workers.limits.costs import Costs, load
from workers.limits.tables import LIMITS, shipped
from workers.limits.wire import read

# What an exchange might read as its default, its most, or as one thing or another.
NUMBERS: Final = st.one_of(
    st.integers(-1, 6000),
    st.integers(0, 6000).map(str),
    st.sampled_from(["", " ", "0", "1e3", "1_000", "+5", " 5", "5 ", "0x10", "５", "05", "5.0", "nan", "inf", "many"]),
    st.floats(0, 6000),
)
LISTS: Final = st.integers(0, 120).map(lambda count: "[" + ",".join(f'"S{number}"' for number in range(count)) + "]")
TEXTS: Final = st.one_of(
    st.sampled_from(["BTCUSDT", "btcusdt", "", " ", "A,B", "A&limit=5000", "X"]), st.text(max_size=5)
)
VALUES: Final = st.one_of(NUMBERS, LISTS, TEXTS, st.none(), st.booleans(), st.lists(TEXTS, max_size=3))


TABLES: Final[Mapping[str, Mapping[str, Any]]] = {
    name: tomllib.loads((LIMITS / f"{name}.toml").read_text(encoding="utf-8"))["endpoints"]
    for name in shipped().limited
}


def conditional() -> Iterator[tuple[str, str]]:
    """Every exchange and tabled endpoint whose charge depends on a call's parameters."""
    for exchange, table in TABLES.items():
        costs = load(exchange, 100)
        for key in table:
            api, method, path = key.split(" ")
            if costs.depends(tuple(api.split(".")), method, path):
                yield exchange, key


RULES: Final = list(conditional())
COSTS: Final[Mapping[str, Costs]] = {exchange: load(exchange, 100) for exchange, _ in RULES}
KEYS: Final = {"apiKey": "k", "secret": "c2VjcmV0", "password": "p"}
MADE: Final[Mapping[str, Any]] = {exchange: getattr(ccxt, exchange)(KEYS) for exchange, _ in RULES}


TIMES: Final = ("since", "until", "bar")


def number_of(text: str) -> float | None:
    """As lenient as an exchange may be."""
    try:
        return float(text)
    except ValueError:
        return None


def in_body(body: str) -> list[tuple[str, str]]:
    """A body's parameters, whichever way it is written."""
    if not body.startswith("{"):
        return parse_qsl(body)
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in json.loads(body).items()]


def readings(rule: Mapping[str, Any], query: list[tuple[str, str]]) -> Iterator[float]:
    """The costs if the first or the last of several values counts, and if empty values count as absent or not."""
    for pairs in (query, query[::-1]):
        for empty in (True, False):
            given = {name: value for name, value in pairs if empty or value.strip()}
            yield reading(rule, given)


def returned(bars: Mapping[str, Any], given: Mapping[str, str]) -> float:
    """How many bars a stretch of hours holds, both ends included; the most where it can't be told."""
    start, end = number_of(given.get(bars["since"], "")), number_of(given.get(bars["until"], ""))
    if start is None or end is None or given.get(bars["bar"]) != "1h":
        return float(bars["most"])
    return max(0.0, min((end - start) / 3.6e6 + 1, float(bars["most"])))


def reading(rule: Mapping[str, Any], given: Mapping[str, str]) -> float:
    """The table's words, read one by one: the first case whose parameter is there and small enough."""
    for case in rule.get("cases", ()):
        text = given.get(case["param"])
        if text is None:
            continue
        if "equals" in case:
            if text in case["equals"]:
                return float(
                    case["cost"]
                    + (math.ceil(returned(case["bars"], given) / case["bars"]["per"]) if "bars" in case else 0)
                )
            continue
        count = text.count(",") + 1 if text.startswith("[") else number_of(text)
        if case.get("each"):
            return float(min(rule["cost"], case["cost"] * (count or 1)))
        if "at_most" not in case or (count is not None and 0 < count <= case["at_most"]):
            return float(case["cost"])
    return float(rule.get("cost", 1))


@pytest.mark.parametrize(("exchange", "key"), RULES)
@settings(max_examples=settings().max_examples // 3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_params_make_a_call_cheaper_than_the_exchange_may_read_it(
    exchange: str, key: str, data: st.DataObject
) -> None:
    api, method, path = key.split(" ")
    instance, costs = MADE[exchange], COSTS[exchange]
    rules = TABLES[exchange][key]
    cases = [case for rule in rules for case in rule.get("cases", ())]
    bars = [case["bars"] for case in cases if "bars" in case]
    names = sorted(
        {case["param"] for case in cases}.union(path_keys(path), (each[key] for each in bars for key in TIMES))
    )
    others = [*(name.upper() for name in names), *(f"{name}[0]" for name in names), *(f" {name}" for name in names)]
    # ccxt sets some of them; a producer's own come on top.
    params = data.draw(st.fixed_dictionaries({name: st.just("1") for name in path_keys(path)}))
    own = data.draw(
        st.dictionaries(st.sampled_from([*names, *others, "x"]) if names else st.just("x"), VALUES, max_size=4)
    )
    try:
        check("fetch_x", takes(instance.fetch_ticker), {"symbol": "X", "params": own}, path_keys(path), costs.written)
    except InvalidMessage:
        return
    request = instance.sign(path, api.split("."), method, copy.deepcopy({**params, **own}))
    sent = read(path, request)
    charges = {charge.bucket.name: charge for charge in costs.charges(tuple(api.split(".")), method, path, sent, 1)}
    url, body = str(request["url"]), str(request["body"] or "")
    query: list[tuple[str, str]] = [*parse_qsl(urlsplit(url).query, keep_blank_values=True), *in_body(body)]
    query += [(name, value) for name in path_keys(path) for value in sent.get(name, ())]
    for rule in rules:
        assert charges[rule["bucket"]].cost >= max(readings(rule, query)), (request["url"], rule)


def test_some_rules_depend_on_what_calls_say() -> None:
    assert len(RULES) > 40
    assert {"binance", "binanceus", "hyperliquid", "kraken", "okx"} <= {exchange for exchange, _ in RULES}


def test_a_body_and_a_path_are_read_too() -> None:
    request = {
        "url": "https://x/api/v1/market/orderbook/level2_100?symbol=A%2FB&symbol=C",
        "body": '{"limit":5,"b":true}',
    }
    found = read("market/orderbook/level{level}_{limit}", request)
    assert found == {"symbol": ["A/B", "C"], "limit": ["5", "100"], "b": ["true"], "level": ["2"]}
    assert read("x", {"url": "https://x/x", "body": "a=1&B=2"}) == {"a": ["1"], "b": ["2"]}
    assert read("x", {"url": "https://x/x", "body": "[1,2]"}) == {}
    assert read("y/{id}", {"url": "https://x/x", "body": None}) == {"id": []}
    inner = read("x", {"url": "https://x/x", "body": '{"type":"a","req":{"endTime":9,"of":{"Coin":"B"}}}'})
    assert (inner["type"], inner["req.endtime"], inner["req.of.coin"]) == (["a"], ["9"], ["B"])
