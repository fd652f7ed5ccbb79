"""A signed call is taken for the endpoint that ccxt would have called: the same costs, and the account of its key."""

import re
from collections import defaultdict
from typing import Any

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
from ccxt.base.errors import NotSupported  # pyright: ignore[reportMissingTypeStubs]

from workers.exchange import signed_urls
from workers.exchange.public_urls import Endpoint, all_endpoints
from workers.exchange.signed_urls import Place, SignedUrls
from workers.limits import costs, wire
from workers.limits.costs import Charge, Costs
from workers.limits.paced import BY_CCXT

# What a key's place looks like, of every exchange that has some.
PLACES = {
    "binance": Place("header", "x-mbx-apikey"),
    "okx": Place("header", "ok-access-key"),
    "kraken": Place("header", "api-key"),
    "htx": Place("parameter", "accesskeyid"),
    "coinbase": Place("token", "authorization", "sub"),
    "upbit": Place("token", "authorization", "access_key"),
    "deribit": Place("part", "authorization", "id="),
    "cryptocom": Place("parameter", "api_key"),
    "gemini": Place("header", "x-gemini-apikey"),
}


def instance(name: str) -> Any:
    made: Any = getattr(ccxt, name)({"enableRateLimit": False})
    made.timeout_on_exit = 0
    return made


def charges(exchange: Any, limits: Costs, endpoint: Endpoint, signed: Any) -> list[Charge]:
    sent = wire.read(endpoint.path, signed)
    params = wire.for_ccxt(wire.as_params(sent), sent, endpoint.config)
    ccxt_cost = exchange.calculate_rate_limiter_cost(
        endpoint.api, endpoint.method, endpoint.path, params, endpoint.config
    )
    return limits.charges(endpoint.apis, endpoint.method, endpoint.path, sent, ccxt_cost)


@pytest.mark.parametrize("name", ccxt.exchanges)
def test_every_call_that_a_class_can_sign_costs_what_ccxt_s_own_would(name: str) -> None:
    """Where several have one URL, what one of them costs: one with a key, that the table knows, the dearest."""
    exchange = instance(name)
    limits = costs.load(name, float(exchange.rateLimit), None)
    found = SignedUrls(exchange, instance(name), limits)
    private, same = 0, defaultdict[tuple[str, str], list[list[Charge]]](list)
    calls = [(endpoint, signed) for endpoint in all_endpoints(exchange) if (signed := sign(exchange, endpoint))]
    for endpoint, signed in calls:
        cost = charges(exchange, limits, endpoint, signed)
        same[endpoint.method, signed["url"].partition("?")[0]].append(cost)
    for endpoint, signed in calls:
        of_url = found.find(endpoint.method, signed["url"])
        assert of_url.url == signed["url"]
        cost, others = (
            charges(exchange, limits, of_url.endpoint, signed),
            same[endpoint.method, signed["url"].partition("?")[0]],
        )
        assert cost in others, (endpoint.key, of_url.endpoint.key)
        if all(charge.bucket.source == BY_CCXT for each in others for charge in each):
            assert cost == max(others, key=lambda each: each[0].cost)
        said: dict[str, str] = signed["headers"] or {}
        headers = {key.lower(): value for key, value in said.items()}
        if of_url.place is not None:
            private += 1
            key = of_url.place.key_of(headers, wire.read(of_url.endpoint.path, signed))
            assert key == signed_urls.KEY or "public" in endpoint.key.casefold()
    if name in PLACES:
        assert private


@pytest.mark.parametrize("name", PLACES)
def test_where_a_key_is(name: str) -> None:
    exchange = instance(name)
    found = SignedUrls(exchange, None, costs.load(name, float(exchange.rateLimit), None))
    places = set[Place]()
    for endpoint in all_endpoints(exchange):
        if "private" in endpoint.key and (signed := sign(exchange, endpoint)):
            place = found.find(endpoint.method, signed["url"]).place
            places |= set() if place is None else {place}
    assert PLACES[name] in places


def sign(exchange: Any, endpoint: Endpoint) -> Any:
    try:
        return exchange.sign(endpoint.path, endpoint.api, endpoint.method, dict.fromkeys(taken(endpoint), "1"))
    except Exception:  # it wants more than stand-ins
        return None


def taken(endpoint: Endpoint) -> list[str]:
    return re.findall(r"\{([\w-]+)\}", endpoint.path)


def test_how_a_key_is_read() -> None:
    assert Place("header", "api-key").key_of({"api-key": "k"}, {}) == "k"
    assert Place("header", "api-key").key_of({}, {}) == ""
    assert Place("parameter", "accesskeyid").key_of({}, {"accesskeyid": ["k"]}) == "k"
    assert Place("parameter", "accesskeyid").key_of({}, {"accesskeyid": ["k", "other"]}) == ""
    part = Place("part", "authorization", "id=")
    assert part.key_of({"authorization": "deri-hmac-sha256 id=k,ts=1,sig=2"}, {}) == "k"
    assert part.key_of({"authorization": "deri-hmac-sha256 xid=k"}, {}) == ""
    token = Place("token", "authorization", "sub")
    assert token.key_of({"authorization": "Bearer e30.eyJzdWIiOiJrIn0.x"}, {}) == "k"
    for wrong in ("", "Bearer", "Bearer a.b.c", "Bearer a.W10.c", "Bearer a.eyJ.c", "a.b"):
        assert token.key_of({"authorization": wrong}, {}) == ""


def test_other_hosts_and_paths_are_no_endpoints() -> None:
    exchange = instance("binance")
    found = SignedUrls(exchange, None, costs.load("binance", float(exchange.rateLimit), None))
    for method, url, said in (
        ("POST", "https://evil.example/api/v3/order", "has no API at https://evil.example"),
        ("POST", "https://api.binance.com.evil.example/api/v3/order", "has no API at"),
        ("POST", "http://api.binance.com/api/v3/order", "has no API at http://api.binance.com"),
        ("POST", "https://api.binance.com:8443/api/v3/order", "has no API at"),
        ("PATCH", "https://api.binance.com/api/v3/order", "has no PATCH /api/v3/order in ccxt"),
        ("GET", "https://api.binance.com/api/v3/secret", "has no GET /api/v3/secret in ccxt"),
    ):
        with pytest.raises(NotSupported, match=re.escape(said)):
            found.find(method, url)
    order = found.find("DELETE", "https://api.binance.com/api/v3/order?symbol=A&x=%20")
    assert order.url == "https://api.binance.com/api/v3/order?symbol=A&x=%20"
    assert order.endpoint.key == "private DELETE order"
