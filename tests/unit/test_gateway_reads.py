"""The gateway's reads: what a query means, and that OpenAPI tells the same."""

import json
from typing import Any

import pytest

from schemas.gateway import answers, openapi, reads
from schemas.gateway.answers import Refusal
from schemas.messages import Request
from schemas.methods import PRIVATE_READS, PUBLIC_READS


def asked(target: str, body: bytes = b"") -> Request:
    found = reads.read(f"/v1/{target}", body)
    assert isinstance(found, Request), found
    return found


def refused(target: str, body: bytes = b"") -> Refusal:
    found = reads.read(f"/v1/{target}", body)
    assert isinstance(found, Refusal), found
    return found


@pytest.mark.parametrize(
    ("target", "args"),
    [
        ("fetch_time", {}),
        ("fetch_time/", {}),
        ("fetch_ticker?symbol=BTC/USDT", {"symbol": "BTC/USDT"}),
        ("fetch_ticker?symbol=BTC%2FUSDT%3AUSDT", {"symbol": "BTC/USDT:USDT"}),
        ("fetch_tickers?symbols=BTC/USDT,ETH/USDT", {"symbols": ["BTC/USDT", "ETH/USDT"]}),
        ('fetch_tickers?symbols=["BTC/USDT"]', {"symbols": ["BTC/USDT"]}),
        ("fetch_tickers?symbols=", {}),
        (
            "fetch_ohlcv?symbol=A/B&timeframe=1m&since=1760000000000&limit=5",
            {"symbol": "A/B", "timeframe": "1m", "since": 1_760_000_000_000, "limit": 5},
        ),
        ('fetch_trades?symbol=A/B&params={"a":[1,true]}', {"symbol": "A/B", "params": {"a": [1, True]}}),
        ("load_markets?reload=true", {"reload": True}),
    ],
)
def test_a_query_is_read_by_the_types_of_ccxt_s_arguments(target: str, args: dict[str, Any]) -> None:
    assert asked(target).args == args


def test_what_the_fleet_takes_beside_them() -> None:
    how = "exchanges=okx,binance&exchanges_mode=all&strategy=failover&priority=bulk&hedge_ms=50&max_age_ms=1000"
    request = asked(f"fetch_ticker?symbol=A/B&{how}")
    assert request == Request(
        "fetch_ticker",
        {"symbol": "A/B"},
        exchanges=["okx", "binance"],
        exchanges_mode="all",
        strategy="failover",
        priority="bulk",
        hedge_ms=50,
        max_age_ms=1000,
    )
    assert asked("fetch_ohlcv?symbol=A/B&timeframe=1m&max_age_ms=bar").max_age_ms == "bar"


def test_a_body_has_the_same_names() -> None:
    body = b'{"symbol": "A/B", "limit": 5, "exchanges": ["okx"]}'
    assert asked("fetch_trades", body) == Request("fetch_trades", {"symbol": "A/B", "limit": 5}, exchanges=["okx"])


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("", 404, "not a read"),
        ("fetch_tikcer", 404, "is 'fetch_ticker' meant?"),
        ("fetchTicker", 404, "snake_case"),
        ("create_order", 404, "not a read"),
        ("fetch_convert_quote", 404, "creates a quote"),
        ("http", 404, "no method"),
        ("fetch_balance", 403, "reads an account"),
        ("fetch_ticker?symbol=A&account=main", 400, "account: "),
        ("fetch_ticker?symbl=A", 400, "is 'symbol' meant?"),
        ("fetch_ticker?symbol=A&symbol=B", 400, "twice"),
        ("fetch_ohlcv?symbol=A&limit=x", 400, "limit: expected a whole number, not 'x'"),
        ("fetch_ohlcv?symbol=A&limit=1.5", 400, "limit: expected a whole number"),
        ("fetch_ohlcv?symbol=A&limit=true", 400, "limit: expected a whole number"),
        ("load_markets?reload=1", 400, "reload: expected true or false"),
        ("fetch_tickers?symbols=[", 400, "symbols: expected a list"),
        ("fetch_trades?symbol=A&params=[]", 400, "params: expected a JSON object"),
        ("fetch_ticker?symbol=A&hedge_ms=0", 400, "hedge_ms: "),
        ("fetch_ticker?symbol=A&max_age_ms=old", 400, "max_age_ms: "),
        ("fetch_ticker?symbol=A&priority=now", 400, "expected one of live, bulk"),
        ("fetch_ticker?" + "&".join(f"a{number}=1" for number in range(100)), 400, "query"),
        ("fetch_ticker?symbol", 400, "query"),
    ],
)
def test_what_can_not_be_asked(target: str, status: int, said: str) -> None:
    refusal = refused(target)
    assert refusal.status == status
    assert said in refusal.message


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"1", b'"x"', b"\xff", b'{"symbol": "A", "nothing": 1}', b'{"account": "a"}']
)
def test_bodies_that_can_not_be_read(body: bytes) -> None:
    assert refused("fetch_trades", body).status == 400


@pytest.mark.parametrize("method", sorted(PRIVATE_READS))
def test_an_account_is_never_read(method: str) -> None:
    assert refused(method).code == "signed_call"


DOCUMENT = openapi.document()


def test_openapi_has_every_public_read_and_nothing_else() -> None:
    assert set(DOCUMENT["paths"]) == {f"/v1/{method}" for method in PUBLIC_READS}
    assert json.loads(openapi.page(openapi.SCHEMA_PATH)[1]) == json.loads(json.dumps(DOCUMENT))  # type: ignore[index]


def resolved(reference: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in reference:
        return reference
    found: Any = DOCUMENT
    for part in reference["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


@pytest.mark.parametrize("method", sorted(PUBLIC_READS))
def test_openapi_tells_of_a_read_what_is_taken(method: str) -> None:
    operation = DOCUMENT["paths"][f"/v1/{method}"]["get"]
    parameters = [resolved(each) for each in operation["parameters"]]
    queried = [each["name"] for each in parameters if each["in"] == "query"]
    assert queried == [*reads.arguments(method), *reads.HOW]
    statuses = {"200", *map(str, answers.STATUSES.values()), *map(str, answers.OWN.values())}
    assert set(operation["responses"]) == statuses
    assert all(resolved(each)["description"] for each in operation["responses"].values())


def test_every_reference_leads_somewhere() -> None:
    found = set[str]()

    def look(value: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in value:
            found.add(value["$ref"])
            assert resolved(value)
        return value

    json.loads(json.dumps(DOCUMENT), object_hook=look)
    assert len(found) > 40


def test_pages() -> None:
    assert [openapi.page(path) is None for path in ("/", "/v1", "/v1/", "/v1/x", "/x")] == [
        False,
        False,
        False,
        True,
        True,
    ]
    (kind, text) = openapi.page("/v1/") or ("", "")
    assert kind.startswith("text/html")
    assert "fetch_ticker" in text
