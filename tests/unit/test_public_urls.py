"""A URL is taken for the endpoint that ccxt would have called: the same costs, for every class of ccxt."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, cast

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
from ccxt.base.errors import NotSupported  # pyright: ignore[reportMissingTypeStubs]
from ccxt.base.types import Entry  # pyright: ignore[reportMissingTypeStubs]

from schemas.messages import Http
from schemas.methods import PUBLIC_READS
from workers.exchange.public_urls import Endpoint, PublicUrls, endpoints, read_by_post
from workers.limits import costs, wire
from workers.limits.costs import Charge, Costs
from workers.limits.tables import shipped

# POSTs that ccxt makes on the way of a public read, signs without keys, and that write.
WRITE = {("hyperliquid", "private POST exchange"), ("lighter", "public POST sendTx")}
# Words in the paths of endpoints that write.
WRITING = re.compile(
    r"(?i)(^|[/_-])(add|amend|approve|auth|borrow|buy|cancel|close|create|debug|delete|deposit|edit|execute|login|orders?"
    r"|place|redeem|register|repay|sell|send\w*|set|sign\w*|start|stake|submit|subscribe|token|transfer|tx|update"
    r"|upload\w*|withdraw\w*)($|[/_-])"
)
READING = re.compile(r"get[_-]")
QUERY = {"symbol": "BTCUSDT", "limit": "5"}


def urls(exchange: Any, limits: Costs, usual: Any | None = None) -> PublicUrls:
    return PublicUrls(exchange, usual, limits)


def charges(exchange: Any, limits: Costs, endpoint: Endpoint, signed: Any) -> list[Charge]:
    sent = wire.read(endpoint.path, signed)
    params = wire.for_ccxt({name: values[0] for name, values in sent.items() if values}, sent, endpoint.config)
    ccxt_cost = exchange.calculate_rate_limiter_cost(
        endpoint.api, endpoint.method, endpoint.path, params, endpoint.config
    )
    return limits.charges(endpoint.apis, endpoint.method, endpoint.path, sent, ccxt_cost)


@pytest.mark.parametrize("name", ccxt.exchanges)
def test_every_public_url_of_a_class_costs_what_ccxt_s_own_call_would(name: str) -> None:
    exchange: Any = getattr(ccxt, name)()
    exchange.timeout_on_exit = 0
    limits = costs.load(name, float(exchange.rateLimit), None)
    found, tried = urls(exchange, limits), 0
    for endpoint in endpoints(exchange):
        taken = dict.fromkeys(re.findall(r"\{([\w-]+)\}", endpoint.path), "BTC-USDT")
        try:
            signed = exchange.sign(endpoint.path, endpoint.api, endpoint.method, {**taken, **QUERY})
        except Exception:  # it wants a key
            continue
        tried += 1
        verb: Any = endpoint.method
        of_url = found.find(Http(signed["url"], verb, signed["body"] or ""))
        assert of_url.call.url == signed["url"]
        expected = charges(exchange, limits, endpoint, signed)
        assert charges(exchange, limits, of_url.endpoint, signed) == expected, (endpoint.key, of_url.endpoint.key)
    assert tried


@pytest.mark.parametrize("name", ccxt.exchanges)
def test_the_posts_that_only_read_are_endpoints_of_ccxt_without_keys_and_none_of_them_writes(name: str) -> None:
    exchange: Any = getattr(ccxt, name)()
    exchange.timeout_on_exit = 0
    listed = set(read_by_post(name))
    for endpoint in endpoints(exchange):
        if endpoint.method == "POST":
            assert exchange.sign(endpoint.path, endpoint.api, "POST", dict.fromkeys(taken(endpoint), "usdt"))
            word = WRITING.search(endpoint.path)
            assert word is None or READING.match(endpoint.path), endpoint.key
            listed.remove(endpoint.key)
        else:
            assert endpoint.method == "GET"
    assert not listed or shipped().limits_of(name) != name


@pytest.mark.parametrize("name", ccxt.exchanges)
def test_every_post_of_a_public_read_is_listed(name: str) -> None:
    kind: Any = getattr(ccxt, name)
    exchange = kind()
    exchange.timeout_on_exit = 0
    for endpoint in reached(kind, [method for method in PUBLIC_READS if has(exchange, method)]):
        if endpoint.method != "GET" and (name, endpoint.key) not in WRITE and is_signed(exchange, endpoint):
            assert endpoint.key in read_by_post(name), "read what it does, and list it or name it in WRITE"


def taken(endpoint: Endpoint) -> list[str]:
    return re.findall(r"\{([\w-]+)\}", endpoint.path)


def has(exchange: Any, method: str) -> bool:
    bare = method.replace("_", "")
    return method == "load_markets" or any(found and name.lower() == bare for name, found in exchange.has.items())


def reached(kind: Any, methods: list[str]) -> Iterator[Endpoint]:
    """The endpoints that a class's methods name, and those that these call in turn."""
    waiting, seen = list(methods), set[str]()
    while waiting:
        name = waiting.pop()
        found = getattr(kind, name, None)
        if name in seen or found is None:
            continue
        seen.add(name)
        if isinstance(found, Entry):
            entry = cast("Any", found)
            yield Endpoint(entry.path, entry.api, entry.method, entry.config)
        elif inspect.isfunction(found) and found.__module__ != "ccxt.async_support.base.exchange":
            waiting += re.findall(r"self\.(\w+)", inspect.getsource(found))


def is_signed(exchange: Any, endpoint: Endpoint) -> bool:
    try:
        return bool(exchange.sign(endpoint.path, endpoint.api, endpoint.method, dict.fromkeys(taken(endpoint), "usdt")))
    except Exception:  # it wants a key
        return False


def binance(**settings: Any) -> tuple[Any, Costs]:
    kind: Any = ccxt.binance
    exchange = kind(settings)
    return exchange, costs.load("binance", float(exchange.rateLimit), None)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.binance.com/api/v3/order",  # an account's
        "https://api.binance.com/sapi/v1/account/status",  # wants a key
        "https://api.binance.com/api/v3/nothing",
        "https://api.binance.com/api/v3/klines/",
        "http://api.binance.com/api/v3/klines",
        "https://api.binance.com:8443/api/v3/klines",
        "https://api.binance.com.evil.example/api/v3/klines",
        "https://10.0.0.1/api/v3/klines",
        "https://169.254.169.254/latest/meta-data",
        "http://localhost:15672/api/queues",
        "https://www.okx.com/api/v5/market/ticker",
    ],
)
def test_what_is_none_of_the_public_api_is_refused(url: str) -> None:
    exchange, limits = binance()
    with pytest.raises(NotSupported, match=r"^binance has no public "):
        urls(exchange, limits).find(Http(url))


def test_what_wants_no_key_is_public_whatever_its_api_is_called() -> None:
    exchange, limits = binance()
    found = urls(exchange, limits).find(Http("https://api.binance.com/sapi/v1/system/status"))
    assert found.endpoint.key == "sapi GET system/status"
    aster = ccxt.aster()
    found = urls(aster, costs.load("aster", float(aster.rateLimit), None)).find(
        Http("https://sapi.asterdex.com/api/v1/klines?symbol=BTCUSDT")
    )
    assert found.endpoint.key == "sapiPublic GET v1/klines"


def test_a_post_is_none_of_the_public_api_unless_its_table_names_it() -> None:
    exchange, limits = binance()
    with pytest.raises(NotSupported, match="no POST /api/v3/klines that is known to read only"):
        urls(exchange, limits).find(Http("https://api.binance.com/api/v3/klines", "POST"))


def test_a_lane_that_leads_elsewhere_takes_the_usual_urls_there() -> None:
    exchange, limits = binance(urls={"api": {"public": "http://127.0.0.1:9/binance/api/v3"}})
    found = urls(exchange, limits, ccxt.binance()).find(
        Http("https://API.binance.com/api/v3/klines?symbols=%5B%22BTCUSDT%22%5D&empty=&limit=5")
    )
    assert found.endpoint.key == "public GET klines"
    assert found.call.url == "http://127.0.0.1:9/binance/api/v3/klines?symbols=%5B%22BTCUSDT%22%5D&empty=&limit=5"


def test_what_a_path_takes_goes_into_the_lane_s_own() -> None:
    coinbase = ccxt.coinbase({"urls": {"api": {"rest": "http://127.0.0.1:9/coinbase"}}})
    limits = costs.load("coinbase", float(coinbase.rateLimit), None)
    found = urls(coinbase, limits, ccxt.coinbase()).find(
        Http("https://api.coinbase.com/api/v3/brokerage/market/products/BTC%2DUSD/ticker?limit=5")
    )
    assert found.call.url == "http://127.0.0.1:9/coinbase/api/v3/brokerage/market/products/BTC%2DUSD/ticker?limit=5"
