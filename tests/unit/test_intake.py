"""A body becomes an attempt with all defaults, or an error that says what to change."""

import datetime
import struct
from typing import Any

import msgspec
import pytest
from pamqp.commands import Basic

from dispatcher import intake
from schemas.errors import InvalidMessage
from schemas.messages import BODY_LIMIT_BYTES, JSON, MSGPACK, Attempt, ErrorCode

NOW_MS = 1_800_000_000_000
REQUEST = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}}


def take(body: bytes, *, allowed: tuple[str, ...] = (), **properties: Any) -> Attempt:
    envelope = intake.envelope(Basic.Properties(**properties), body, NOW_MS)
    attempt = intake.read(envelope, body, timeout_s=30)
    intake.check(attempt, allowed)
    return attempt


def refused(body: bytes, **properties: Any) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as raised:
        take(body, **properties)
    return raised.value


def test_an_account_s_read_names_the_account() -> None:
    read = {"method": "fetch_balance", "account": "main"}
    assert take(msgspec.json.encode(read)).request.account == "main"
    del read["account"]
    error = refused(msgspec.json.encode(read))
    assert error.code is ErrorCode.METHOD_NOT_ALLOWED
    assert "name one in 'account'" in error.message


def test_what_the_request_leaves_out_is_filled_in() -> None:
    attempt = take(msgspec.json.encode(REQUEST))
    assert attempt.deadline_ms == NOW_MS + 30_000
    assert (attempt.number, attempt.lane, attempt.tries, attempt.received_ms) == (0, "", [], NOW_MS)
    assert len(attempt.request.id) == 32
    assert attempt.request.id != take(msgspec.json.encode(REQUEST)).request.id


def test_a_fleet_may_allow_some_methods_only() -> None:
    assert take(msgspec.json.encode(REQUEST), allowed=("fetch_time", "fetch_ticker"))
    with pytest.raises(InvalidMessage, match="it runs fetch_ohlcv, fetch_time") as raised:
        take(msgspec.json.encode(REQUEST), allowed=("fetch_time", "fetch_ohlcv"))
    assert raised.value.code is ErrorCode.METHOD_NOT_ALLOWED


def test_the_properties_say_where_the_answer_goes() -> None:
    attempt = take(msgspec.json.encode(REQUEST), message_id="m", reply_to="r", correlation_id="c")
    assert (attempt.request.id, attempt.reply_to, attempt.correlation_id) == ("m", "r", "c")
    assert take(msgspec.json.encode({**REQUEST, "id": "b"}), message_id="m").request.id == "b"


@pytest.mark.parametrize(
    ("body", "content_type", "answered_in"),
    [
        (msgspec.json.encode(REQUEST), JSON, JSON),
        (msgspec.json.encode(REQUEST), "application/json; charset=utf-8", JSON),
        (b"\n " + msgspec.json.encode(REQUEST), "", JSON),
        (msgspec.msgpack.encode(REQUEST), MSGPACK, MSGPACK),
        (msgspec.msgpack.encode(REQUEST), "application/vnd.msgpack", MSGPACK),
        (msgspec.msgpack.encode(REQUEST), "", MSGPACK),
        (msgspec.msgpack.encode(REQUEST), "application/octet-stream", MSGPACK),
    ],
)
def test_the_encoding_is_the_content_type_s_else_the_body_s(body: bytes, content_type: str, answered_in: str) -> None:
    assert take(body, content_type=content_type).content_type == answered_in


@pytest.mark.parametrize("depth", range(1, 9))
def test_values_as_deep_as_ccxt_takes_them_pass(depth: int) -> None:
    value: object = 1
    for _ in range(depth):
        value = [value]
    assert take(msgspec.json.encode({"method": "fetch_ticker", "args": {"params": value}}))


def test_values_that_could_not_be_passed_on_are_refused() -> None:
    deep = b'{"method":"fetch_ticker","args":{"params":' + b"[" * 9 + b"]" * 9 + b"}}"
    huge = b'{"method":"fetch_ticker","args":{"params":{"a":[%d]}}}' % 2**64
    keys = msgspec.msgpack.encode({"method": "fetch_ticker", "args": {"params": {1: 2}}})
    endless = msgspec.msgpack.encode({"method": "fetch_ticker", "args": {"params": {"a": [float("nan")]}}})
    inexact = b'{"method":"fetch_ticker","args":{"params":{"orderId":9.1e15}}}'
    for body in (deep, huge, keys, endless, inexact):
        assert refused(body).code == ErrorCode.INVALID_ARGUMENTS
    assert take(b'{"method":"fetch_ticker","args":{"params":[%d,%d]}}' % (2**64 - 1, -(2**63)))


def test_arguments_go_on_as_whole_numbers_without_what_is_null() -> None:
    undefined = msgspec.msgpack.Ext(0, b"\0")  # as msgpackr writes it
    args = {"symbol": "BTC/USDT", "since": 1.7e12, "limit": 5.0, "timeframe": None, "x": undefined}
    params = {"until": 1.7e12, "price": 0.5, "type": None, "list": [1.0, None, {"a": None, "b": -0.0}]}
    taken = take(msgspec.msgpack.encode({"method": "fetch_ohlcv", "args": {**args, "params": params}, "id": undefined}))
    said = taken.request.args
    assert said.pop("params") == {"until": 1_700_000_000_000, "price": 0.5, "list": [1, None, {"b": 0}]}
    assert said == {"symbol": "BTC/USDT", "since": 1_700_000_000_000, "limit": 5}
    assert {type(said["since"]), type(said["limit"])} == {int}


def single(value: float) -> bytes:
    """A float of 32 bits in MessagePack."""
    return b"\xca" + struct.pack(">f", value)


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (("deadline_ms",), ErrorCode.INVALID_REQUEST),
        (("args", "since"), ErrorCode.INVALID_ARGUMENTS),
        (("args", "params", "until"), ErrorCode.INVALID_ARGUMENTS),
        (("args", "params", "ids", None), ErrorCode.INVALID_ARGUMENTS),
    ],
)
def test_a_number_that_a_float_of_32_bits_rounds_is_refused(at: tuple[str | None, ...], code: ErrorCode) -> None:
    tree: Any = 5_000_000_000
    for name in reversed(at):
        tree = [tree] if name is None else {name: tree}
    body = msgspec.msgpack.encode({**REQUEST, **tree})
    meant = msgspec.msgpack.encode(5_000_000_000)
    assert body.count(meant) == 1
    error = refused(body.replace(meant, single(NOW_MS + 30_000)), content_type=MSGPACK)
    assert error.code is code
    assert f"{[name for name in at if name][-1]} is a float of 32 bits" in error.message
    assert "double" in error.message
    if at[0] == "args":
        take(body.replace(meant, single(500)), content_type=MSGPACK)
        take(body.replace(meant, single(0.1)), content_type=MSGPACK)


def test_a_text_with_the_mark_of_a_float_of_32_bits_is_a_text() -> None:
    note = b"\xa5\xca\xb0\xca\xb0\xca".decode(errors="ignore") + "\u02b0" * 40
    assert take(msgspec.msgpack.encode({**REQUEST, "args": {"symbol": note}})).request.args == {"symbol": note}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"BTC/USDT", "bytes (bin)"),
        (datetime.datetime(2027, 1, 15, tzinfo=datetime.UTC), "a timestamp of MessagePack: send Unix milliseconds"),
        (msgspec.msgpack.Ext(5, b"x"), "an extension type of MessagePack"),
    ],
)
def test_what_only_messagepack_has_is_refused_in_arguments(value: Any, says: str) -> None:
    for args in ({"since": value}, {"params": {"x": value}}, {"symbols": [value]}, {"params": {"x": [{"y": value}]}}):
        error = refused(msgspec.msgpack.encode({**REQUEST, "args": args}), content_type=MSGPACK)
        assert error.code is ErrorCode.INVALID_ARGUMENTS
        assert f"{next(iter(args))} holds {says}" in error.message


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
@pytest.mark.parametrize("empty", [[], {}])
def test_what_is_empty_may_be_a_list_or_a_table(content_type: str, empty: Any) -> None:
    encode = msgspec.msgpack.encode if content_type == MSGPACK else msgspec.json.encode
    read = take(encode({"method": "fetch_time", "args": empty, "exchanges": empty}), content_type=content_type).request
    assert (read.args, read.exchanges) == ({}, [])
    args = {"symbols": empty, "codes": empty, "params": empty}
    read = take(encode({"method": "fetch_tickers", "args": args}), content_type=content_type).request
    assert read.args == {"symbols": [], "codes": [], "params": {}}


@pytest.mark.parametrize("content_type", [JSON, MSGPACK, ""])
def test_what_is_refused_keeps_its_id_and_method(content_type: str) -> None:
    encode = msgspec.msgpack.encode if content_type == MSGPACK else msgspec.json.encode
    wrongs: list[dict[str, Any]] = [
        *({"symbol": "X"}, {"args": ["X"]}, {"args": {"limit": 1e300}}, {"exchanges": "okx"}, {"id": 7}),
    ]
    for wrong in wrongs:
        body = encode({"id": "t-1", **REQUEST, **wrong})
        envelope = intake.envelope(Basic.Properties(content_type=content_type, message_id="m"), body, NOW_MS)
        with pytest.raises(InvalidMessage):
            intake.read(envelope, body, timeout_s=30)
        said = intake.named(envelope, body).request
        assert (said.id, said.method) == ("7" if "id" in wrong else "t-1", "fetch_ticker")
    envelope = intake.envelope(Basic.Properties(content_type=content_type, message_id="m"), b"?", NOW_MS)
    assert (intake.named(envelope, b"?").request.id, intake.named(envelope, b"?").request.method) == ("m", "")


@pytest.mark.parametrize(
    ("deadline_ms", "code"),
    [
        (NOW_MS, ErrorCode.DEADLINE_EXCEEDED),
        (NOW_MS // 1000, ErrorCode.DEADLINE_EXCEEDED),
        (30_000, ErrorCode.DEADLINE_EXCEEDED),
        (0, ErrorCode.DEADLINE_EXCEEDED),
        (-1, ErrorCode.DEADLINE_EXCEEDED),
        (NOW_MS * 1000, ErrorCode.INVALID_REQUEST),
        (NOW_MS * 10**6, ErrorCode.INVALID_REQUEST),
        (float(NOW_MS * 1000), ErrorCode.INVALID_REQUEST),
        (NOW_MS / 1000, ErrorCode.DEADLINE_EXCEEDED),
    ],
)
def test_a_deadline_that_is_none_is_refused(deadline_ms: float, code: ErrorCode) -> None:
    assert refused(msgspec.json.encode({**REQUEST, "deadline_ms": deadline_ms})).code == code


def test_size_and_id_have_their_limits() -> None:
    assert refused(b" " * (BODY_LIMIT_BYTES + 1)).code == ErrorCode.TOO_LARGE
    assert refused(b" " * BODY_LIMIT_BYTES).code == ErrorCode.UNREADABLE
    assert refused(msgspec.json.encode({**REQUEST, "id": "é" * 128})).code == ErrorCode.INVALID_REQUEST
    assert take(msgspec.json.encode({**REQUEST, "id": "é" * 127})).request.id == "é" * 127


def test_what_is_no_request_keeps_what_its_properties_say() -> None:
    envelope = intake.envelope(Basic.Properties(message_id="m", content_type=JSON), b"{", NOW_MS)
    assert (envelope.request.id, envelope.request.method, envelope.content_type) == ("m", "", JSON)


@pytest.mark.parametrize("name", ["x", "exchanges_", "é"])
def test_an_error_is_short_whatever_a_field_is_called(name: str) -> None:
    assert len(refused(msgspec.json.encode({**REQUEST, name * 20_000: 1})).message) < 1000


CANDLES = {"method": "fetch_ohlcv", "args": {"symbol": "BTC/USDT", "timeframe": "1h"}}
CALL = {"http": {"url": "https://api.binance.com/api/v3/time"}, "exchanges": ["binance"]}


@pytest.mark.parametrize("request_", [REQUEST, CANDLES, CALL])
@pytest.mark.parametrize("age", [0, 1, 5000.0, 86_400_000])
def test_a_request_may_say_how_old_an_answer_may_be(request_: dict[str, Any], age: float) -> None:
    taken = take(msgspec.json.encode({**request_, "max_age_ms": age})).request
    assert taken.max_age_ms == age
    assert type(taken.max_age_ms) is int


@pytest.mark.parametrize(
    "method", ["fetch_ohlcv", "fetch_mark_ohlcv", "fetch_index_ohlcv", "fetch_premium_index_ohlcv"]
)
def test_candles_may_be_good_for_a_bar(method: str) -> None:
    assert take(msgspec.json.encode({**CANDLES, "method": method, "max_age_ms": "bar"})).request.max_age_ms == "bar"


WRONG_AGES: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({**REQUEST, "max_age_ms": -1}, "Expected `int` >= 0"),
    "a part": (
        {**REQUEST, "max_age_ms": 1.5},
        "got `float` - at `$.max_age_ms`; max_age_ms is a duration in milliseconds",
    ),
    "a bool": ({**REQUEST, "max_age_ms": True}, "got `bool`"),
    "a text": ({**REQUEST, "max_age_ms": "5000"}, "Invalid enum value '5000' - at `$.max_age_ms`"),
    "more than a day": ({**REQUEST, "max_age_ms": 86_400_001}, "Expected `int` <= 86400000"),
    "huge": ({**REQUEST, "max_age_ms": 10**30}, "Expected `int` <= 86400000"),
    "a list": ({**REQUEST, "max_age_ms": [5]}, "got `array`"),
    "another name": ({**REQUEST, "max_age": 5}, "is max_age_ms meant?"),
    "no candles": (
        {**REQUEST, "max_age_ms": "bar"},
        '"bar" is for candles (fetch_ohlcv and the like); give fetch_ticker',
    ),
    "a call": ({**CALL, "max_age_ms": "bar"}, "give an HTTP call a number"),
    "no timeframe": ({**CANDLES, "args": {"symbol": "BTC/USDT"}, "max_age_ms": "bar"}, "needs the argument timeframe"),
    "odd bars": ({**CANDLES, "args": {"symbol": "X", "timeframe": "15"}, "max_age_ms": "bar"}, "knows no bars of '15'"),
    "an account": ({**REQUEST, "max_age_ms": 5, "account": "main"}, "what an account reads is not shared"),
}


@pytest.mark.parametrize("wrong", WRONG_AGES)
def test_an_age_that_can_t_be_meant_is_refused_with_the_reason(wrong: str) -> None:
    request, words = WRONG_AGES[wrong]
    error = refused(msgspec.json.encode(request))
    assert error.code is ErrorCode.INVALID_REQUEST
    assert words in error.message
