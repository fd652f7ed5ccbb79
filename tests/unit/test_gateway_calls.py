"""Which requests the gateway takes, and what it makes of them: everything else is refused before the fleet is asked."""

from typing import Any

import pytest

from schemas.gateway import admission, calls
from schemas.gateway.answers import Refusal
from schemas.gateway.signed import SignedCall

TIME = "/binance/api.binance.com/api/v3/time"
HOST = {"host": "127.0.0.1:8080"}


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (TIME, "https://api.binance.com/api/v3/time"),
        ("/okx/www.okx.com/api/v5/market/ticker?instId=BTC-USDT", None),
        ("/binance/api.binance.com/api/v3/klines?b=1&a=%2F%20x+y&a=2&empty=&x", None),
        ("/binance-sandbox/testnet.binance.vision/api/v3/time", None),
        ("/okx.eu1/www.okx.com/api/v5/public/time", None),
        ("/x/host.example:8443/a", None),
        ("/x/API.Example.com/a//b/?", None),
        ("/x/host.example/", None),
        ("/x/host.example", None),
    ],
)
def test_path_and_query_stay_to_the_letter(target: str, url: str | None) -> None:
    asked = calls.read(target, "GET", b"")
    assert isinstance(asked, calls.Asked), asked
    exchange, _, rest = target[1:].partition("/")
    assert (asked.exchange, asked.http.url) == (exchange, url or f"https://{rest}")
    assert (asked.http.method, asked.http.body) == ("GET", "")


def test_a_post_has_its_body() -> None:
    asked = calls.read("/hyperliquid/api.hyperliquid.xyz/info", "POST", '{"coin":"ü"}'.encode())
    assert isinstance(asked, calls.Asked)
    assert (asked.http.method, asked.http.body) == ("POST", '{"coin":"ü"}')


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/", "not_found"),
        ("/binance", "bad_call"),
        ("//binance/api.binance.com/x", "not_found"),
        ("//evil.example/x", "not_found"),
        ("/BINANCE/api.binance.com/x", "not_found"),
        ("/binance%2Fapi.binance.com/x", "not_found"),
        ("/../etc/passwd", "not_found"),
        ("/binance//api/v3/time", "bad_call"),
        ("/binance/[::1]/x", "bad_call"),
        ("/binance/user:password@api.binance.com/x", "bad_call"),
        ("/binance/api.binance.com:443@evil.example/x", "bad_call"),
        ("/binance/api.binance.com%40evil.example/x", "bad_call"),
        ("/binance/api.binance.com\\evil.example/x", "bad_call"),
        ("/binance/api.binance.com:99999999/x", "bad_call"),
        ("/binance/api.binance.com:http/x", "bad_call"),
        ("/binance/-a/x", "bad_call"),
        ("/binance/https:/api.binance.com/x", "bad_call"),
        ("/binance/api.binance.com/api/../../x", "bad_call"),
        ("/binance/api.binance.com/api/./x", "bad_call"),
        ("/binance/api.binance.com/api/%2e%2e/x", "bad_call"),
        ("/binance/api.binance.com/api/.%2E/x", "bad_call"),
        ("/binance/api.binance.com/api/%252e%252e/x", "bad_call"),
        ("/binance/api.binance.com/api/..;/x", "bad_call"),
        ("/binance/api.binance.com/api/..%00/x", "bad_call"),
        ("/binance/api.binance.com/api%2fx", "bad_call"),
        ("/binance/api.binance.com/a b", "bad_call"),
        ("/binance/api.binance.com/a\x7f", "bad_call"),
        ("/binance/api.binance.com/a\udcff", "bad_call"),
        ("/binance/api.binance.com/a#b", "bad_call"),
        ("/binance/api.binance.com/a?x=\r\nHost:evil", "bad_call"),
        ("/binance/api.binance.com/a?signature=1", "signed_call"),
        ("/binance/api.binance.com/a?x=1&apiKey=2", "signed_call"),
        ("/binance/api.binance.com/a?signature=", "signed_call"),
        (f"/binance/api.binance.com/{'a' * 8200}", "bad_call"),
    ],
)
def test_what_leads_elsewhere_is_refused(target: str, code: str) -> None:
    asked = calls.read(target, "GET", b"")
    assert isinstance(asked, Refusal), asked
    assert asked.code == code
    assert asked.message.isprintable()


@pytest.mark.parametrize(
    "body", [b"symbol=BTCUSDT&signature=1", b'{"api_key": "x", "nonce": 1}', b' {"a": 1, "sign": ""}', b"key&apiKey="]
)
def test_a_body_with_a_key_or_a_signature_is_refused(body: bytes) -> None:
    asked = calls.read("/cex/trade.cex.io/api/spot/rest/get_my_orders", "POST", body)
    assert isinstance(asked, Refusal)
    assert asked.code == "signed_call"


@pytest.mark.parametrize("body", [b"", b"{}", b"{", b"[1]", b'{"coin": "signature"}', b'{"a": {"sign": 1}}', b"a=sign"])
def test_other_bodies_are_taken(body: bytes) -> None:
    assert isinstance(calls.read(TIME, "POST", body), calls.Asked)


def signed(verb: str = "POST", target: str = TIME, body: bytes = b"", *ours: str, **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()} | HOST
    return calls.read_signed(target, verb, given, list(given), body, ours=ours)


def test_a_signed_call_has_the_headers_that_are_the_exchange_s() -> None:
    call = signed(
        "DELETE",
        "/binance/api.binance.com/api/v3/order?symbol=A%20&signature=1",
        b"a=1",
        "authorization",
        x_mbx_apikey="k",
        content_type="application/json",
        user_agent="bot",
        authorization="Bearer of the fleet",
        connection="keep-alive, X-Hop",
        x_hop="1",
        x_fleet_token="t",
        cookie="c",
        prefer="wait=3",
        origin="http://localhost",
        accept_encoding="br",
        expect="100-continue",
        sec_fetch_site="none",
        x_forwarded_for="10.0.0.1",
    )
    assert isinstance(call, SignedCall)
    assert call.headers == {"x-mbx-apikey": "k", "content-type": "application/json", "user-agent": "bot"}
    assert (call.method, call.body) == ("DELETE", "a=1")
    assert call.url == "https://api.binance.com/api/v3/order?symbol=A%20&signature=1"
    assert "signature" not in repr(call)
    assert "order" not in repr(call)


@pytest.mark.parametrize(
    ("call", "is_signed"),
    [
        (signed("GET"), False),
        (signed("POST", TIME, b'{"coin": "x"}'), False),
        (signed("GET", user_agent="x", authorization="Bearer eyJ"), True),
        (signed("GET", ok_access_key="x"), True),
        (signed("GET", TIME + "?signature=1"), True),
        (signed("POST", TIME, b"apiKey=1"), True),
        (signed("PUT"), True),
        (signed("DELETE"), True),
        (signed("PATCH"), True),
    ],
)
def test_what_shows_that_a_call_is_signed(call: Any, is_signed: bool) -> None:
    assert calls.is_signed(call) is is_signed


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x_a": "caf\u00e9"}, "more in it than ASCII"),
        ({"x_a": "a\x01b"}, "more in it than ASCII"),
        ({"content_type": "multipart/form-data"}, "one part"),
    ],
)
def test_headers_that_are_not_sent_on(headers: dict[str, str], said: str) -> None:
    refusal = signed("POST", TIME, b"", **headers)
    assert isinstance(refusal, Refusal)
    assert said in refusal.message


def test_a_header_that_stands_there_twice_is_refused() -> None:
    headers = {**HOST, "x-mbx-apikey": "b"}
    refusal = calls.read_signed(TIME, "POST", headers, [*headers, "x-mbx-apikey"], b"", ours=())
    assert isinstance(refusal, Refusal)
    assert "x-mbx-apikey stands there twice" in refusal.message


@pytest.mark.parametrize("verb", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_what_is_taken_where_signed_calls_are(verb: str) -> None:
    headers = {**HOST, "x-mbx-apikey": "x"}
    assert admission.refusal(verb, TIME, headers, list(headers), signed=True) is None
    for other in ("HEAD", "OPTIONS", "TRACE", "CONNECT"):
        refusal = admission.refusal(other, TIME, headers, list(headers), signed=True)
        assert refusal is not None
        assert refusal.status == 405


def test_a_body_that_is_no_text_is_refused() -> None:
    assert isinstance(calls.read(TIME, "POST", b"\xff"), Refusal)


@pytest.mark.parametrize(
    "name",
    "X-MBX-APIKEY OK-ACCESS-KEY ok-access-sign API-Key API-Sign KC-API-PASSPHRASE KC-API-SIGN X-BAPI-API-KEY "
    "X-BAPI-SIGN "
    "CB-ACCESS-KEY AccessKeyId BITVAVO-ACCESS-SIGNATURE Key Sign SIGNATURE X-LA-DIGEST bfx-signature X-TXC-APIKEY "
    "TAPI-MAC Authent X-API-Token x-phemex-access-token access_key".split(),
)
def test_headers_with_keys_are_refused(name: str) -> None:
    refusal = admission.refusal("GET", TIME, {**HOST, name.lower(): "x"}, ["host", name])
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "signed_call")
    assert name in refusal.message


def test_what_every_program_sends_is_taken() -> None:
    names = (
        "Accept Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Type Cookie Prefer "
        "Referer User-Agent Via X-Forwarded-For X-Fleet-Token X-Request-Id Sec-Ch-Ua Sec-Fetch-Mode Traceparent "
        "If-None-Match"
    )
    headers = dict.fromkeys(names.lower().split(), "x") | HOST
    assert admission.refusal("GET", TIME, headers, list(headers)) is None


@pytest.mark.parametrize(
    ("verb", "target", "headers", "status"),
    [
        ("HEAD", TIME, HOST, 405),
        ("PUT", TIME, HOST, 405),
        ("DELETE", TIME, HOST, 405),
        ("OPTIONS", TIME, HOST, 405),
        ("TRACE", TIME, HOST, 405),
        ("CONNECT", "api.binance.com:443", HOST, 405),
        ("PRI", "*", HOST, 405),
        ("GET", "http://api.binance.com/api/v3/time", HOST, 400),
        ("GET", "*", HOST, 400),
        ("GET", TIME, {}, 400),
        ("GET", TIME, {**HOST, "upgrade": "h2c"}, 400),
        ("GET", TIME, {**HOST, "content-length": "5"}, 400),
        ("GET", TIME, {**HOST, "transfer-encoding": "chunked"}, 400),
        ("POST", TIME, {**HOST, "content-encoding": "gzip"}, 400),
        ("GET", TIME, {**HOST, "origin": "https://evil.example"}, 403),
        ("GET", TIME, {**HOST, "origin": "null"}, 403),
        ("GET", TIME, {**HOST, "sec-fetch-site": "cross-site"}, 403),
        ("GET", TIME, {**HOST, "sec-fetch-site": "same-site"}, 403),
    ],
)
def test_who_may_not_ask(verb: str, target: str, headers: dict[str, str], status: int) -> None:
    refusal = admission.refusal(verb, target, headers, list(headers))
    assert refusal is not None
    assert refusal.status == status
    assert ("Allow" in refusal.all_headers(as_json=False)) is (status == 405)


@pytest.mark.parametrize(
    "own", [{"sec-fetch-site": "none"}, {"sec-fetch-site": "same-origin"}, {"origin": "http://127.0.0.1:8080"}]
)
def test_the_gateway_s_own_page_may_ask(own: dict[str, str]) -> None:
    assert admission.refusal("GET", TIME, {**HOST, **own}, ["host", *own]) is None


def test_two_hosts_are_refused() -> None:
    assert admission.refusal("GET", TIME, HOST, ["host", "host"]) is not None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.0.0.2", "[::1]:8080", "Gate.lan.", "gate.lan:80"]
)
def test_names_of_this_gateway(host: str) -> None:
    assert admission.of_host(host, ["gate.lan"]) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "[::",
        "127.0.0.1@evil",
        "a b",
    ],
)
def test_names_that_a_page_may_have_lead_here_are_refused(host: str) -> None:
    refusal = admission.of_host(host, ["gate.lan"])
    assert refusal is not None
    assert refusal.status == 403


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, ""),
        ({"authorization": "Bearer a.b"}, "a.b"),
        ({"authorization": "bearer  a"}, "a"),
        ({"authorization": "Basic a"}, ""),
        ({"x-fleet-token": "t", "authorization": "Bearer theirs"}, "t"),
    ],
)
def test_tokens(headers: dict[str, str], token: str) -> None:
    assert admission.token_of(headers) == token


def test_an_authorization_of_an_exchange_is_refused_where_no_tokens_are() -> None:
    assert admission.of_authorization({"authorization": "Bearer something"}) is None
    for said in ("Bearer eyJhbGciOi.x.y", "Basic abc", "HMAC-SHA256 x"):
        assert admission.of_authorization({"authorization": said}) is not None


@pytest.mark.parametrize(
    ("prefer", "wanted_s"),
    [
        ("", 9),
        ("wait=3", 3),
        ("respond-async, wait=2.5; x", 2.5),
        ('Wait="4"', 4),
        ("wait=1000", 60),
        *((said, 9) for said in ("wait=", "wait=0", "wait=-1", "wait=nan", "wait=x", "waiting=3")),
    ],
)
def test_how_long_a_caller_waits(prefer: str, wanted_s: float) -> None:
    assert admission.wait_s({"prefer": prefer}, 9, 60) == wanted_s
