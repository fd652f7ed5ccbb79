"""Equal questions have one key, and different ones never the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert, json

from schemas.config import LaneConfig
from schemas.messages import Http, Request
from schemas.sharing import answer_key, lease_key, plain_url, question, source

SCALARS = st.one_of(
    st.booleans(), st.integers(-5, 5), st.floats(0.1, 0.9), st.sampled_from(["", "1", "BTC/USDT", "true"])
)
VALUES: Any = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "until"]), inner, max_size=3)
    ),
    max_leaves=6,
)
REQUESTS = st.builds(
    Request,
    st.sampled_from(["fetch_ticker", "fetch_ohlcv"]),
    st.dictionaries(st.sampled_from(["symbol", "limit", "params", "symbols"]), VALUES, max_size=3),
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in value and type; the order of tables does not matter."""
    return type(one) is type(other) and repr(plain(one)) == repr(plain(other))


def plain(value: Any) -> Any:
    """A value whose tables are lists of pairs, in order."""
    table: dict[str, Any] = value
    if isinstance(value, dict):
        return {name: plain(table[name]) for name in sorted(table)}
    items: list[Any] = value
    return [plain(each) for each in items] if isinstance(value, list) else value


@given(REQUESTS, REQUESTS)
def test_only_equal_questions_have_one_name(one: Request, other: Request) -> None:
    args = [
        {name: value for name, value in each.args.items() if (name, value) != ("params", {})} for each in (one, other)
    ]
    equal = one.method == other.method and same(*args)
    assert (question(one) == question(other)) is equal


@given(REQUESTS, st.randoms())
def test_the_order_of_tables_does_not_matter(request: Request, order: Any) -> None:
    def shuffled(value: Any) -> Any:
        table: dict[str, Any] = value
        if isinstance(value, dict):
            names = list(table)
            order.shuffle(names)
            return {name: shuffled(table[name]) for name in names}
        items: list[Any] = value
        return [shuffled(each) for each in items] if isinstance(value, list) else value

    assert question(Request(request.method, shuffled(request.args))) == question(request)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            Request("fetch_ticker", {"symbol": "BTC/USDT"}),
            Request("fetch_ticker", {"symbol": "BTC/USDT", "params": {}}),
        ),
        (
            Request("fetch_ticker", {"symbol": "A"}, id="1", priority="bulk", hedge_ms=5, max_age_ms=1, deadline_ms=9),
            Request("fetch_ticker", {"symbol": "A"}, id="2", strategy="failover", max_age_ms=2, exchanges=["okx"]),
        ),
        (Request(http=Http("https://A.example:443/b?y=1&x=2")), Request(http=Http("HTTPS://a.example/b?x=2&y=1"))),
        (Request(http=Http("https://a.example")), Request(http=Http("https://a.example/"))),
    ],
)
def test_how_and_when_it_is_asked_is_no_part_of_a_question(one: Request, other: Request) -> None:
    assert question(one) == question(other)


CALL = Http("https://a.example/b?x=1&x=2")


@pytest.mark.parametrize(
    "other",
    [
        Http("http://a.example/b?x=1&x=2"),
        Http("https://a.example/B?x=1&x=2"),
        Http("https://a.example:8443/b?x=1&x=2"),
        Http("https://b.example/b?x=1&x=2"),
        Http("https://a.example/b?x=2&x=1"),
        Http("https://a.example/b?x=1"),
        Http("https://a.example/b?X=1&x=2"),
        Http("https://a.example/b?x=1%26x=2"),
        Http("https://a.example/b", "POST", "x=1&x=2"),
        Http("https://a.example/b?x=1&x=2", "POST"),
    ],
)
def test_other_calls_are_other_questions(other: Http) -> None:
    assert question(Request(http=other)) != question(Request(http=CALL))


def test_a_url_has_one_spelling() -> None:
    assert plain_url(Http("HTTPS://API.Example:443/v3?b=2&a=1&b=1")) == "https://api.example/v3?a=1&b=2&b=1"


def test_a_call_is_never_taken_for_a_read() -> None:
    assert question(Request("http", {"url": CALL.url})) != question(Request(http=CALL))


READ, RAW = Request("fetch_ticker"), Request(http=CALL)


@pytest.mark.parametrize(
    ("settings", "same_reads", "same_calls"),
    [
        ({"weight": 5, "local_addr": "127.0.0.2", "live_reserve": 0.5}, True, True),
        ({"ccxt": {"options": {"defaultType": "swap"}}}, False, True),
        ({"ccxt": {"hostname": "other.example"}}, False, False),
        ({"ccxt": {"urls": {"api": {"public": "https://other.example"}}}}, False, False),
        ({"ccxt": {"options": {"versions": {"public": {"GET": {"ticker": "v9"}}}}}}, False, False),
        ({"ccxt": {"headers": {"a": "b"}}}, False, True),
        ({"sandbox": True}, False, False),
        ({"exchange": "okx"}, False, False),
        ({"account": "main"}, True, True),
    ],
)
def test_a_source_is_an_exchange_with_its_settings(
    settings: dict[str, Any], same_reads: bool, same_calls: bool
) -> None:
    plain = LaneConfig(exchange="binance")
    other = convert({"exchange": "binance", **settings}, LaneConfig)
    assert (source(plain, READ) == source(other, READ)) is same_reads
    assert (source(plain, RAW) == source(other, RAW)) is same_calls


def test_a_live_request_never_waits_for_a_bulk_one() -> None:
    assert lease_key("q", ["a", "b"], bulk=False) == lease_key("q", ["b", "a"], bulk=False)
    assert lease_key("q", ["a", "b"], bulk=False) != lease_key("q", ["a", "b"], bulk=True)
    assert lease_key("q", ["a"], bulk=False) != lease_key("q", ["a", "b"], bulk=False)
    assert answer_key("q", "a") != answer_key("q", "b")


def test_a_question_survives_the_way_through_the_fleet() -> None:
    request = Request("fetch_ohlcv", {"symbol": "BTC/USDT", "limit": 5, "params": {"until": 2**53, "x": [0.5, None]}})
    assert question(json.decode(json.encode(request), type=Request)) == question(request)
