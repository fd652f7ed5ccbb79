"""What a program says becomes the request that ccxt's own call would be."""

import asyncio
import inspect
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.client import asking
from schemas.client.asking import How, Mode
from schemas.client.blocking import FleetSync
from schemas.client.blocking_reads import BlockingReads
from schemas.client.fleet import Fleet
from schemas.client.post import Letter
from schemas.client.reads import Reads
from schemas.client.results import Answer
from schemas.encodings import decode_request
from schemas.errors import ConfigError
from schemas.messages import BODY_LIMIT_BYTES, MSGPACK, ErrorCode, Request, encode
from schemas.methods import PRIVATE_READS, PUBLIC_READS
from tests.support import client_code
from workers.exchange import arguments

METHODS = sorted(PUBLIC_READS | PRIVATE_READS)
TEXTS = st.text("BTCUSD/:-1hé", min_size=1, max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "since": st.integers(0, 2**53),
    "limit": st.integers(1, 1000),
    "amount": st.floats(0, 1e9),
    "reload": st.booleans(),
    "symbols": st.lists(TEXTS, max_size=3),
    "codes": st.lists(TEXTS, max_size=3),
    "params": st.dictionaries(TEXTS, st.integers(0, 9) | TEXTS, max_size=3),
}


class Said(Reads):
    """Returns the request in place of asking."""

    async def read(self, method: str, args: Mapping[str, Any], mode: Mode, how: How) -> Any:
        return asking.request_of(method, args, mode=mode, **how)


class SaidBlocking(BlockingReads):
    def read(self, method: str, args: Mapping[str, Any], mode: Mode, how: How) -> Any:
        return asking.request_of(method, args, mode=mode, **how)


@given(data=st.data(), method=st.sampled_from(METHODS))
def test_arguments_mean_what_they_mean_in_ccxt(data: st.DataObject, method: str) -> None:
    taken, _ = client_code.signature(method)
    needed = [name for name, each in taken.parameters.items() if each.default is each.empty]
    places = data.draw(st.integers(0, len(taken.parameters)))
    positional = [data.draw(VALUES.get(name, TEXTS)) for name in list(taken.parameters)[:places]]
    rest = list(taken.parameters)[places:]
    named = {name: data.draw(VALUES.get(name, TEXTS)) for name in rest if name in needed or data.draw(st.booleans())}
    bound = taken.bind(*positional, **named)
    bound.apply_defaults()
    meant = {name: value for name, value in bound.arguments.items() if value is not None}
    if not meant["params"]:
        del meant["params"]
    if meant.get("reload") is False:
        del meant["reload"]

    request: Request = asyncio.run(getattr(Said(), method)(*positional, **named))
    assert (request.method, request.args) == (method, meant)
    assert getattr(SaidBlocking(), method)(*positional, **named) == request


@pytest.mark.parametrize("kind", [Reads, BlockingReads])
def test_names_and_order_are_ccxt_s(kind: type) -> None:
    for method in METHODS:
        theirs = [(each.name, each.default) for each in client_code.signature(method)[0].parameters.values()]
        ours: list[tuple[str, Any]] = [
            (each.name, {} if each.name == "params" else each.default)
            for each in inspect.signature(getattr(kind, method)).parameters.values()
            if each.kind is each.POSITIONAL_OR_KEYWORD and each.name != "self"
        ]
        assert ours == theirs, method


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_takes_what_a_read_says_by_default(method: str) -> None:
    taken, _ = client_code.signature(method)
    needed = [name for name, each in taken.parameters.items() if each.default is each.empty]
    request: Request = getattr(SaidBlocking(), method)(*("BTC/USDT" for _ in needed))
    has = next(kind for name in ["Exchange", *ccxt.exchanges] if hasattr(kind := getattr(ccxt, name), method))
    assert set(request.args) <= set(arguments.takes(getattr(has, method)))


def test_a_misspelt_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="exchange"):
        SaidBlocking().fetch_time(exchange="okx")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportUnknownMemberType]


@pytest.mark.parametrize(
    ("how", "field", "value"),
    [
        ({}, "exchanges", []),
        ({"exchanges": "okx"}, "exchanges", ["okx"]),
        ({"exchanges": ("okx", "binance")}, "exchanges", ["okx", "binance"]),
        ({"mode": "all"}, "exchanges_mode", "all"),
        ({"strategy": "failover"}, "strategy", "failover"),
        ({"priority": "bulk"}, "priority", "bulk"),
        ({"hedge": timedelta(seconds=0.25)}, "hedge_ms", 250),
        ({"account": "main"}, "account", "main"),
        ({"max_age": timedelta(seconds=1.5)}, "max_age_ms", 1500),
        ({"max_age": timedelta(0)}, "max_age_ms", 0),
        ({"max_age": "bar"}, "max_age_ms", "bar"),
        ({"max_age": None}, "max_age_ms", None),
        ({"id": "mine"}, "id", "mine"),
        ({"deadline": datetime(2100, 1, 1, tzinfo=UTC)}, "deadline_ms", 4102444800000),
        ({"deadline": datetime(2100, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))}, "deadline_ms", 4102444800000),
        ({}, "deadline_ms", None),
    ],
)
def test_what_the_fleet_adds(how: dict[str, Any], field: str, value: object) -> None:
    request = asking.request_of("fetch_ticker", {"symbol": "BTC/USDT"}, **how)
    assert getattr(request, field) == value
    assert decode_request(MSGPACK, encode(request)) == request


def test_a_request_is_sent_with_an_id_of_its_own_and_a_deadline() -> None:
    ids, bare = asking.Ids(), Request("fetch_time")
    first, second = (asking.sent(bare, ids, datetime(2100, 1, 1, tzinfo=UTC)) for _ in range(2))
    assert first.deadline_ms == 4102444800000
    assert first.id != second.id
    whole = Request("fetch_time", id="mine", deadline_ms=4102444800001)
    assert asking.sent(whole, ids, timedelta(seconds=1)) is whole


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"since": 2**64}, ErrorCode.INVALID_ARGUMENTS),
        ({"symbol": "\ud800"}, ErrorCode.INVALID_ARGUMENTS),
        ({"params": {"x": "x" * BODY_LIMIT_BYTES}}, ErrorCode.TOO_LARGE),
    ],
)
def test_what_can_t_be_sent_is_an_error_at_once(args: dict[str, Any], code: ErrorCode) -> None:
    answer = asking.encoded(asking.request_of("fetch_ticker", args, id="mine"))
    assert not isinstance(answer, bytes)
    assert answer.error is not None
    assert (answer.id, answer.error.code) == ("mine", code)


def _mapped(*words: Any, **options: Any) -> None:
    asking.check_map(*words, **{"concurrency": 1, "deadline": timedelta(1), **options})


NAMED: dict[str, tuple[Any, str]] = {
    "deadline": (lambda: asking.request_of("fetch_time", deadline=5), "deadline: expected a timedelta, as in"),  # type: ignore[arg-type]
    "hedge": (lambda: asking.request_of("fetch_time", hedge=1), "hedge: expected a timedelta"),  # type: ignore[arg-type]
    "max_age": (lambda: asking.request_of("fetch_time", max_age=5), "max_age: expected a timedelta, as in"),  # type: ignore[arg-type]
    "max_age's word": (lambda: asking.request_of("fetch_time", max_age="candle"), 'or "bar" for candles'),  # type: ignore[arg-type]
    "exchanges": (lambda: asking.request_of("fetch_time", exchanges=5), "exchanges: expected a name, or a list"),  # type: ignore[arg-type]
    "args": (lambda: asking.request_of("fetch_ticker", ["BTC/USDT"]), "args: expected a table, as {"),  # type: ignore[arg-type]
    "method": (lambda: asking.request_of(5), "method: expected a text"),  # type: ignore[arg-type]
    "id": (lambda: asking.request_of("fetch_time", id=5), "id: expected a text, not 5"),  # type: ignore[arg-type]
    "one of many": (lambda: asking.sent({"method": "fetch_time"}, asking.Ids(), timedelta(1)), "a Request, as in"),  # type: ignore[arg-type]
    "one for many": (lambda: _mapped(Request("fetch_time")), "requests: expected a list of Requests"),
    "a text for many": (lambda: _mapped("fetch_time"), "requests: expected a list"),
    "none for many": (lambda: _mapped(None), "requests: expected a list"),
    "concurrency": (lambda: _mapped([], concurrency="5"), "concurrency: expected a whole number"),
    "map's deadline": (lambda: _mapped([], deadline=60), "deadline: expected a timedelta"),
    "url": (lambda: Fleet(5672), "url: expected a text like amqp://"),  # type: ignore[arg-type]
    "patience": (lambda: Fleet(patience=5), "patience: expected a timedelta"),  # type: ignore[arg-type]
    "the client's deadline": (lambda: FleetSync(deadline=5), "deadline: expected a timedelta"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("wrong", NAMED)
def test_a_value_of_another_type_is_an_error_that_names_it(wrong: str) -> None:
    make, words = NAMED[wrong]
    with pytest.raises(TypeError, match=re.escape(words)):
        make()


def test_concurrency_has_a_least() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        _mapped([], concurrency=0)


@pytest.mark.parametrize(
    ("name", "says"), [("exchange", "is 'exchanges' meant"), ("dedline", "is 'deadline' meant"), ("zzz", "it takes")]
)
def test_a_misspelt_option_names_the_read_and_what_may_be_meant(name: str, says: str) -> None:
    with pytest.raises(TypeError, match=rf"fetch_ticker\(\).*'{name}'.*{says}"):
        asking.check_names("fetch_ticker", {name: "okx"})
    with pytest.raises(TypeError, match=r"http\(\).*'account'"):
        asking.check_names("http", {"account": "main"}, asking.HTTP_NAMES)


@pytest.mark.parametrize("url", ["http://x", "localhost:5672", "127.0.0.1"])
def test_what_is_no_url_is_told_what_one_is(url: str) -> None:
    with pytest.raises(ConfigError, match="expected a URL like amqp://user:password@host:5672/"):
        Fleet(url)


@pytest.mark.parametrize("id", ["x" * 256, "é" * 128])
def test_an_id_that_is_too_long_is_an_error_at_once(id: str) -> None:
    answer = asking.encoded(Request("fetch_time", id=id))
    assert not isinstance(answer, bytes)
    assert answer.error is not None
    assert answer.error.code is ErrorCode.INVALID_REQUEST
    assert isinstance(asking.encoded(Request("fetch_time", id=id[1:])), bytes)


async def test_a_second_answer_from_another_exchange_is_a_copy() -> None:
    """Over a restart of RabbitMQ two may come at once, before who asked has taken the first."""
    request = Request("fetch_time", id="mine", deadline_ms=4_000_000_000_000)
    letter = Letter(request, b"")
    for exchange in ("okx", "kraken"):
        letter.take(Answer("mine", True, "fetch_time", exchange=exchange, data=1, request=request))
    assert list(letter.answers) == ["okx"]
