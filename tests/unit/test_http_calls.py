"""Which HTTP calls are taken by their form, and what a request with one must look like."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import json
from pamqp.commands import Basic

from dispatcher import intake
from schemas import http_calls
from schemas.errors import InvalidMessage
from schemas.messages import Http, Request
from schemas.methods import HTTP

URL = "https://api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=1m"
REFUSED: dict[str, str] = {
    "file:///etc/passwd": "expected the whole address",
    "ftp://api.binance.com/api/v3/time": "expected the whole address",
    "gopher://127.0.0.1:6379/_FLUSHALL": "expected the whole address",
    "//api.binance.com/api/v3/time": "expected the whole address",
    "api.binance.com/api/v3/time": "expected the whole address",
    "https:///api/v3/time": "expected the whole address",
    "https://me:secret@api.binance.com/api/v3/time": "a user",
    "https://api.binance.com@10.0.0.1/api/v3/time": "a user",
    "https://api.binance.com:99999/api/v3/time": "is no URL",
    "https://[::1/api/v3/time": "is no URL",
    "https://api.binance.com/api/v3/time#x": "a fragment",
    "https://api.binance.com/api/v3/../private": "leads elsewhere",
    "https://api.binance.com/api/v3/./time": "leads elsewhere",
    "https://api.binance.com/api/v3/%2e%2e/private": "leads elsewhere",
    "https://api.binance.com/api/v3/%252e%252e/private": "leads elsewhere",
    "https://api.binance.com/api/v3/a%2Fb": "leads elsewhere",
    "https://api.binance.com/api/v3/a%5Cb": "leads elsewhere",
    "https://api.binance.com/api/v3/a%0d%0aHost:x": "leads elsewhere",
    "https://api.binance.com/api/v3/time;x=1": "leads elsewhere",
    "https://api.binance.com\\@10.0.0.1/": "percent-encode",
    "https://api.binance.com/api/v3/time\r\nHost: x": "percent-encode",
    "https://api.binance.com/api/v3/time?symbol=BTC USDT": "percent-encode",
    "https://api.bin\u0430nce.com/api/v3/time": "percent-encode",
    'https://api.binance.com/api/v3/ticker/price?symbols=["BTCUSDT"]': "percent-encode",
    URL + "&signature=0123": "signed",
    URL + "&AccessKeyId=0123": "signed",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_no_public_call_is_refused_by_its_form(url: str) -> None:
    reason = http_calls.refusal(Http(url))
    assert reason is not None
    assert REFUSED[url] in reason


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://127.0.0.1:8080/binance/api/v3/time",
        "https://www.okx.com/api/v5/market/ticker?instId=BTC-USDT",
        "https://api.exchange.coinbase.com/products/BTC-USD/book?level=2",
        "https://api.kraken.com/0/public/Ticker?pair=XBTUSD",
        "https://api-pub.bitfinex.com/v2/conf/pub:list:pair:exchange",
        "https://api.binance.com/api/v3/ticker/price?symbols=%5B%22BTCUSDT%22%5D",
        "https://api.bitget.com/api/v2/public/x?symbol=%E5%B8%81%E5%AE%89USDT",
    ],
)
def test_an_exchange_s_own_urls_are_taken(url: str) -> None:
    assert http_calls.refusal(Http(url)) is None


def test_only_a_post_has_a_body() -> None:
    assert http_calls.refusal(Http(URL, "POST", "{}")) is None
    assert http_calls.refusal(Http(URL, body="{}")) == "http.body: a GET has none"


@given(st.text(max_size=200))
@example("https://[")
@example("https://a:b:c/")
def test_any_text_is_refused_or_taken(text: str) -> None:
    reason = http_calls.refusal(Http("https://" + text))
    assert reason is None or reason


def read(body: dict[str, Any]) -> Request:
    encoded = json.encode(body)
    envelope = intake.envelope(Basic.Properties(content_type="application/json"), encoded, 1_700_000_000_000)
    attempt = intake.read(envelope, encoded, 10)
    intake.check(attempt, ())
    return attempt.request


def test_a_call_stands_in_place_of_a_method() -> None:
    request = read({"http": {"url": URL, "body": None}, "exchanges": ["binance"], "args": None, "method": None})
    assert (request.method, request.http) == (HTTP, Http(URL))
    other = read({"http": {"url": URL + "&limit=5"}, "exchanges": ["binance"]})
    assert request.kind == other.kind
    assert request.subject == other.subject == "http /api/v3/klines"
    assert request.digest != other.digest


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"http": {"url": URL}}, "exchanges: name the exchange"),
        ({"http": {"url": URL}, "exchanges": ["binance"], "method": "fetch_ohlcv"}, "http stands alone"),
        ({"http": {"url": URL}, "exchanges": ["binance"], "args": {"symbol": "BTC/USDT"}}, "http stands alone"),
        ({"http": {"url": URL}, "exchanges": ["binance"], "account": "main"}, "http stands alone"),
        ({"http": {"url": URL, "method": "DELETE"}, "exchanges": ["binance"]}, "Invalid enum value 'DELETE'"),
        ({"http": {"url": URL, "headers": {}}, "exchanges": ["binance"]}, "unknown field `headers`"),
        ({"http": {"url": ""}, "exchanges": ["binance"]}, "http.url"),
        ({"http": {}, "exchanges": ["binance"]}, "required field `url`"),
        ({"http": URL, "exchanges": ["binance"]}, "http"),
        ({"http": {"url": "https://x/" + "a" * 8192}, "exchanges": ["binance"]}, "http.url"),
        ({"http": {"url": "file:///etc/passwd"}, "exchanges": ["binance"]}, "expected the whole address"),
        ({"exchanges": ["binance"]}, "required field `method`"),
        ({"method": "http", "exchanges": ["binance"]}, "say which call in the request's field 'http'"),
    ],
)
def test_a_request_with_a_call_says_what_is_wrong_with_it(body: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidMessage, match=said.replace("[", r"\[")):
        read(body)
