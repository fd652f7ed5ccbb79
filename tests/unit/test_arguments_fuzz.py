"""Whatever a request's `params` hold: calls go to the exchange's own hosts, with ccxt's own headers."""

import contextlib
import copy
from typing import Any, Final
from urllib.parse import urlsplit

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidMessage
from workers.exchange.arguments import check, path_keys, takes

EXCHANGES: Final = ("binance", "okx", "htx", "coinbase", "kraken", "bybit", "gate", "kucoin")
METHODS: Final = ("fetch_ticker", "fetch_order_book", "fetch_ohlcv", "fetch_trades")
CANARY: Final = "canary.example"
# What a request could want to change: where a call goes, how, as whom.
STATE: Final = tuple(
    "urls hostname headers proxy proxyUrl proxy_url httpProxy http_proxy httpsProxy https_proxy socksProxy socks_proxy"
    " userAgent apiKey secret password uid token timeout verify enableRateLimit sandbox isSandboxModeEnabled".split()
)
KEYS = st.one_of(
    st.sampled_from(
        [*STATE, "url", "path", "api", "method", "body", "options", "fetch", "sign", "__class__", "reload"]
    ),
    st.sampled_from(["paginate", "type", "subType", "limit", "until", "instId", "symbol", "product_id", "pair"]),
    st.text(max_size=12),
)
VALUES = st.recursive(
    st.sampled_from(
        [f"https://{CANARY}/", CANARY, f"@{CANARY}", f"//{CANARY}", f"../../{CANARY}", f"x\r\nX-A: {CANARY}"]
    )
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


class Sent(Exception):
    """Ends a call where it would leave."""


def make(name: str) -> tuple[Any, list[tuple[str, Any]]]:
    """An exchange with one market, and what it would have sent."""
    exchange: Any = getattr(ccxt, name)({"enableRateLimit": False})
    sent: list[tuple[str, Any]] = []

    def fetch(url: str, _method: str = "GET", headers: Any = None, _body: Any = None) -> None:
        sent.append((url, headers))
        raise Sent

    exchange.fetch = fetch
    market = {"id": "BTCUSDT", "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "baseId": "BTC", "quoteId": "USDT"}
    kind = {"type": "spot", "spot": True, "swap": False, "future": False, "option": False, "contract": False}
    exchange.set_markets([exchange.safe_market_structure({**market, **kind, "active": True})])
    return exchange, sent


MADE: Final = {name: make(name) for name in EXCHANGES}


@pytest.mark.parametrize("name", EXCHANGES)
@pytest.mark.parametrize("method", METHODS)
def test_calls_would_leave(name: str, method: str) -> None:
    exchange, sent = MADE[name]
    sent.clear()
    with pytest.raises(Sent):
        getattr(exchange, method)("BTC/USDT")
    assert sent


@pytest.mark.parametrize("name", EXCHANGES)
@settings(max_examples=settings().max_examples * 4 // 5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(method=st.sampled_from(METHODS), params=st.dictionaries(KEYS, VALUES, max_size=4))
def test_params_reach_the_query_and_nothing_else(name: str, method: str, params: dict[str, Any]) -> None:
    exchange, sent = MADE[name]
    function = getattr(exchange, method)
    args = {"symbol": "BTC/USDT", "params": params}
    try:
        check(method, takes(function), args, path_keys(exchange.api))
    except InvalidMessage:
        return
    before = {key: copy.deepcopy(getattr(exchange, key, None)) for key in STATE}
    sent.clear()
    with contextlib.suppress(Exception):  # ccxt may refuse it in any way; what counts is what would have left
        function(**copy.deepcopy(args))
    assert {key: getattr(exchange, key, None) for key in STATE} == before
    # Some are meant to be in the path: a product's id, the end of KuCoin's `level2_20`.
    meant = [str(value) for key, value in params.items() if key in path_keys(exchange.api)]
    for url, headers in sent:
        parts = urlsplit(url)
        assert parts.scheme == "https"
        assert CANARY not in parts.netloc, url
        path = parts.path
        for value in meant:
            path = path.replace(value, "")
        assert CANARY not in path, url
        assert CANARY not in str(headers), headers


def test_a_parameter_in_a_path_holds_no_path() -> None:
    exchange, _ = MADE["coinbase"]
    accepted, in_path = takes(exchange.fetch_ticker), path_keys(exchange.api)
    check("fetch_ticker", accepted, {"symbol": "BTC/USDT", "params": {"product_id": "BTC-USD"}}, in_path)
    for value in ("BTC-USD/candles", ".", ""):
        with pytest.raises(InvalidMessage, match="part of a path"):
            check("fetch_ticker", accepted, {"symbol": "BTC/USDT", "params": {"product_id": value}}, in_path)
