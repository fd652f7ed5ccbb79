"""Any message in any queue ends in an error result or a dead letter that says why, and no service fails."""

import base64
import struct
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest
from msgspec.structs import replace

from schemas.messages import BODY_LIMIT_BYTES, Attempt, ErrorCode, Outcome, Request, Try, encode
from schemas.reports import Report
from schemas.runtime import properties
from schemas.runtime.once import Answered
from schemas.runtime.store import connect
from tests.support.fleet import Client, Stand, wait_until

properties.read_leniently()  # this client must see what the fleet put aside
NOW_MS = int(time.time() * 1000)
MSGPACK = "application/msgpack"


def request(**fields: object) -> bytes:
    return msgspec.json.encode({"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}, **fields})


def packed(**fields: object) -> bytes:
    return msgspec.msgpack.encode({"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}, **fields})


def with_args(method: str = "fetch_ticker", **args: object) -> bytes:
    return request(method=method, args=args)


class Raw(str):
    """A property with bytes that are no UTF-8, as clients in other languages may send."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return b"caf\xe9"


class Instant(datetime):
    """A timestamp in nanoseconds where AMQP means seconds."""

    def timestamp(self) -> float:
        return 1.8e18


@pytest.fixture(autouse=True)
async def nobody_stumbles(stand: Stand) -> AsyncIterator[None]:
    """After every test: a good request is answered, no handler failed, and no connection was lost."""
    read = {service.name: len(service.log.read_bytes()) for service in stand.services}
    pids = [service.pid for service in stand.services]
    yield
    answer = await stand.client.ask("fetch_ticker", {"symbol": "BTC/USDT"})
    assert answer.result.ok, answer
    assert [service.pid for service in stand.services if service.running] == pids
    for service in stand.services:
        said = service.log.read_bytes()[read[service.name] :].decode()
        assert "handler_failed" not in said
        assert "message_requeued" not in said
        assert " connected " not in said


# What can't be read at all: it lies in fleet.dead too.
UNREADABLE: dict[str, tuple[bytes, str | None]] = {
    "text": (b"give me the price", None),
    "text as JSON": (b"give me the price", "application/json"),
    "text as MessagePack": (b"give me the price", MSGPACK),
    "empty": (b"", None),
    "empty JSON": (b"", "application/json"),
    "empty MessagePack": (b"", MSGPACK),
    "cut short": (request()[:-3], "application/json"),
    "MessagePack cut short": (packed()[:-3], MSGPACK),
    "JSON called MessagePack": (request(), MSGPACK),
    "MessagePack called JSON": (packed(), "application/json"),
    "two documents": (request() + request(), "application/json"),
    "NaN": (b'{"method":"fetch_ticker","args":{"limit":NaN}}', "application/json"),
    "no UTF-8": (b'{"method":"fetch_\xff\xfe"}', "application/json"),
    "half a surrogate": (b'{"method":"fetch_ticker","id":"\\ud800"}', "application/json"),
    "null bytes": (b"\x00" * 100, "application/octet-stream"),
    "noise": (bytes(range(256)), None),
    "deep JSON": (b'{"args":' * 20_000 + b"}" * 20_000, "application/json"),
    "deep list": (b'{"method":"fetch_ticker","args":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}", "application/json"),
    "deep MessagePack": (b"\x82\xa6method\xacfetch_ticker\xa4args\x81\xa1a" + b"\x91" * 50_000 + b"\x01", MSGPACK),
    "compressed": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "application/json"),
    "UTF-16": (request().decode().encode("utf-16"), None),
    "JSON in base64": (base64.b64encode(request()), None),
}
# What of these has a method that can be read all the same.
READABLE: Final = {"JSON called MessagePack", "NaN", "MessagePack called JSON", "UTF-16", "JSON in base64"}
READABLE.update(("cut short", "MessagePack cut short", "two documents"))


@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_cannot_be_read_is_put_aside_and_answered(stand: Stand, case: str) -> None:
    body, content_type = UNREADABLE[case]
    answer = await stand.client.answer(await stand.client.send(body, content_type=content_type, message_id="m-7"))
    assert answer.code == ErrorCode.UNREADABLE
    method = "fetch_ticker" if case in READABLE else ""
    assert (answer.result.id, answer.result.method, answer.result.attempts) == ("m-7", method, [])
    assert answer.content_type == (MSGPACK if content_type == MSGPACK else "application/json")
    dead = await stand.client.buried(body)
    assert (dead.reason, dead.origin) == (ErrorCode.UNREADABLE, "fleet.requests")
    assert dead.message


async def test_what_cannot_be_read_and_has_no_address_is_put_aside_alone(stand: Stand) -> None:
    body = b"nobody knows who sent this"
    sent = await stand.client.send(body, reply_to=None, content_type=None)
    await stand.client.buried(body)
    assert not stand.client.answers[sent]


# Body, code, and what the message must name so that one can mend it.
REFUSED: dict[str, tuple[bytes, ErrorCode, str]] = {
    "a list": (b"[]", ErrorCode.UNREADABLE, "object"),
    "a text": (b'"fetch_ticker"', ErrorCode.UNREADABLE, "object"),
    "nothing in it": (b"{}", ErrorCode.INVALID_REQUEST, "method"),
    "unknown field": (request(symbol="BTC/USDT"), ErrorCode.INVALID_REQUEST, "symbol"),
    "method is a number": (request(method=5), ErrorCode.INVALID_REQUEST, "$.method"),
    "method is empty": (request(method=""), ErrorCode.INVALID_REQUEST, "$.method"),
    "method is endless": (request(method="fetch_" * 100), ErrorCode.INVALID_REQUEST, "$.method"),
    "args are a list": (request(args=["BTC/USDT"]), ErrorCode.INVALID_REQUEST, "$.args"),
    "args are null": (request(args=None), ErrorCode.INVALID_ARGUMENTS, "symbol"),
    "method is null": (request(method=None), ErrorCode.INVALID_REQUEST, "$.method"),
    "an unknown field is null": (request(symbol=None), ErrorCode.INVALID_REQUEST, "symbol belongs into args"),
    "id is a number": (request(id=5), ErrorCode.INVALID_REQUEST, "$.id"),
    "id is endless": (request(id="x" * 256), ErrorCode.INVALID_REQUEST, "$.id"),
    "id is too long for AMQP": (request(id="é" * 128), ErrorCode.INVALID_REQUEST, "id"),
    "exchanges is a text": (request(exchanges="okx"), ErrorCode.INVALID_REQUEST, "$.exchanges"),
    "exchanges are numbers": (request(exchanges=[1]), ErrorCode.INVALID_REQUEST, "$.exchanges"),
    "10,000 exchanges": (request(exchanges=["okx"] * 10_000), ErrorCode.INVALID_REQUEST, "$.exchanges"),
    "unknown strategy": (request(strategy="best"), ErrorCode.INVALID_REQUEST, "$.strategy"),
    "unknown priority": (request(priority="urgent"), ErrorCode.INVALID_REQUEST, "$.priority"),
    "deadline is a text": (request(deadline_ms="soon"), ErrorCode.INVALID_REQUEST, "$.deadline_ms"),
    "deadline is a fraction": (request(deadline_ms=NOW_MS + 0.5), ErrorCode.INVALID_REQUEST, "$.deadline_ms"),
    "deadline is huge": (
        request()[:-1] + b',"deadline_ms":1' + b"0" * 40 + b"}",
        ErrorCode.INVALID_REQUEST,
        "deadline_ms",
    ),
    "deadline in nanoseconds": (request(deadline_ms=NOW_MS * 10**6), ErrorCode.INVALID_REQUEST, "deadline_ms"),
    "deadline past": (request(deadline_ms=NOW_MS - 1), ErrorCode.DEADLINE_EXCEEDED, "passed"),
    "deadline is a duration": (request(deadline_ms=5_000), ErrorCode.DEADLINE_EXCEEDED, "duration"),
    "deadline in seconds": (request(deadline_ms=NOW_MS // 1000), ErrorCode.DEADLINE_EXCEEDED, "milliseconds"),
    "deadline below zero": (request(deadline_ms=-1), ErrorCode.DEADLINE_EXCEEDED, "milliseconds"),
    "unknown exchange": (request(exchanges=["mtgox"]), ErrorCode.UNKNOWN_EXCHANGE, "mtgox"),
    "exchange with a null byte": (request(exchanges=["okx\0"]), ErrorCode.UNKNOWN_EXCHANGE, "okx"),
    "one of two is unknown": (request(exchanges=["okx", "mtgox"]), ErrorCode.UNKNOWN_EXCHANGE, "mtgox"),
    "a write": (request(method="create_order"), ErrorCode.METHOD_NOT_ALLOWED, "create_order"),
    "a write that reads like a read": (request(method="fetch_convert_quote"), ErrorCode.METHOD_NOT_ALLOWED, "quote"),
    "camelCase": (request(method="fetchTicker"), ErrorCode.METHOD_NOT_ALLOWED, "snake_case"),
    "an account read": (request(method="fetch_balance"), ErrorCode.METHOD_NOT_ALLOWED, "account"),
    "a websocket read": (request(method="fetch_ticker_ws"), ErrorCode.METHOD_NOT_ALLOWED, "fetch_ticker_ws"),
    "ccxt's insides": (request(method="__class__"), ErrorCode.METHOD_NOT_ALLOWED, "__class__"),
    "a read nobody has": (request(method="fetch_everything"), ErrorCode.METHOD_NOT_ALLOWED, "fetch_everything"),
    "a method with a null byte": (request(method="fetch_ticker\0"), ErrorCode.METHOD_NOT_ALLOWED, "fetch_ticker"),
    "an exchange lacks the method": (
        request(method="fetch_funding_rate", exchanges=["coinbase"]),
        ErrorCode.NOT_SUPPORTED,
        "coinbase",
    ),
    "unknown argument": (with_args(symbl="BTC/USDT"), ErrorCode.INVALID_ARGUMENTS, "symbl"),
    "missing argument": (with_args(), ErrorCode.INVALID_ARGUMENTS, "symbol"),
    "symbol is a number": (with_args(symbol=5), ErrorCode.INVALID_ARGUMENTS, "symbol"),
    "symbol is a list": (with_args(symbol=["BTC/USDT"]), ErrorCode.INVALID_ARGUMENTS, "symbol"),
    "symbol leads elsewhere": (with_args(symbol="../time"), ErrorCode.INVALID_ARGUMENTS, "symbol"),
    "symbols is a text": (with_args("fetch_tickers", symbols="BTC/USDT"), ErrorCode.INVALID_ARGUMENTS, "symbols"),
    "since is a date": (
        with_args("fetch_ohlcv", symbol="BTC/USDT", since="2026-01-01"),
        ErrorCode.INVALID_ARGUMENTS,
        "since",
    ),
    "since is in seconds": (
        with_args("fetch_ohlcv", symbol="BTC/USDT", since=NOW_MS // 1000),
        ErrorCode.INVALID_ARGUMENTS,
        "seconds",
    ),
    "since is in microseconds": (
        with_args("fetch_ohlcv", symbol="BTC/USDT", since=NOW_MS * 1000),
        ErrorCode.INVALID_ARGUMENTS,
        "microseconds",
    ),
    "until is in seconds": (
        with_args("fetch_ohlcv", symbol="BTC/USDT", params={"until": NOW_MS // 1000}),
        ErrorCode.INVALID_ARGUMENTS,
        "params.until",
    ),
    "until is in microseconds, as text": (
        with_args("fetch_ohlcv", symbol="BTC/USDT", params={"until": str(NOW_MS * 1000)}),
        ErrorCode.INVALID_ARGUMENTS,
        "params.until",
    ),
    "since is below zero": (
        with_args("fetch_ohlcv", symbol="BTC/USDT", since=-1),
        ErrorCode.INVALID_ARGUMENTS,
        "since",
    ),
    "limit is zero": (with_args("fetch_ohlcv", symbol="BTC/USDT", limit=0), ErrorCode.INVALID_ARGUMENTS, "limit"),
    "limit is a text": (with_args("fetch_ohlcv", symbol="BTC/USDT", limit="5"), ErrorCode.INVALID_ARGUMENTS, "limit"),
    "limit is huge": (
        b'{"method":"fetch_ohlcv","args":{"symbol":"BTC/USDT","limit":1' + b"0" * 40 + b"}}",
        ErrorCode.INVALID_ARGUMENTS,
        "limit",
    ),
    "params is a text": (with_args(symbol="BTC/USDT", params="x"), ErrorCode.INVALID_ARGUMENTS, "params"),
    "params that paginate": (
        with_args("fetch_ohlcv", symbol="BTC/USDT", params={"paginate": True}),
        ErrorCode.INVALID_ARGUMENTS,
        "paginate",
    ),
    "params with a table": (
        with_args(symbol="BTC/USDT", params={"a": {"b": 1}}),
        ErrorCode.INVALID_ARGUMENTS,
        "params.a",
    ),
    "a number beyond 64 bits": (
        b'{"method":"fetch_ticker","args":{"symbol":"BTC/USDT","params":{"a":[1' + b"0" * 40 + b"]}}}",
        ErrorCode.INVALID_ARGUMENTS,
        "64 bits",
    ),
    "unknown symbol": (with_args(symbol="NO/SUCH"), ErrorCode.BAD_SYMBOL, "NO/SUCH"),
    "a chart's symbol": (with_args(symbol="binance:BTCUSDT"), ErrorCode.BAD_SYMBOL, "BTC/USDT"),
    "an exchange in capitals": (request(exchanges=["OKX"]), ErrorCode.UNKNOWN_EXCHANGE, "is 'okx' meant?"),
    "camelCase, and what is meant": (
        request(method="fetchTicker"),
        ErrorCode.METHOD_NOT_ALLOWED,
        "'fetch_ticker' meant",
    ),
    "unknown timeframe": (
        with_args("fetch_ohlcv", symbol="BTC/USDT", timeframe="7m"),
        ErrorCode.NOT_SUPPORTED,
        "timeframe",
    ),
    "too large": (request(id="x", args={"symbol": "x" * BODY_LIMIT_BYTES}), ErrorCode.TOO_LARGE, str(BODY_LIMIT_BYTES)),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_bad_request_is_answered_with_what_to_change(stand: Stand, case: str) -> None:
    body, code, named = REFUSED[case]
    answer = await stand.client.answer(await stand.client.send(body))
    error = answer.result.error
    assert error is not None
    assert (str(error.code), answer.result.ok, answer.result.data) == (str(code), False, None)
    assert answer.result.method or b'"method":"' not in body or "method is" in case
    assert named in error.message
    # What a person shall read: one line, not a page.
    assert len(error.message) < 1000


async def test_two_equal_keys_do_no_harm(stand: Stand) -> None:
    body = b'{"method":"create_order","method":"fetch_ticker","args":{"symbol":"NO/SUCH"},"args":{"symbol":"BTC/USDT"}}'
    answer = await stand.client.answer(await stand.client.send(body))
    assert answer.result.ok, answer


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        msgspec.msgpack.Ext(5, b"x"),
        datetime(2026, 1, 1, tzinfo=UTC),
        float("nan"),
        float("inf"),
        {1: 2},
        -(2**63),
    ],
    ids=lambda value: "Ext" if isinstance(value, msgspec.msgpack.Ext) else repr(value),
)
async def test_values_that_json_does_not_have(stand: Stand, value: Any) -> None:
    body = msgspec.msgpack.encode({"method": "fetch_ticker", "args": {"symbol": value}})
    answer = await stand.client.answer(await stand.client.send(body, content_type=MSGPACK))
    assert answer.code == ErrorCode.INVALID_ARGUMENTS


@pytest.mark.parametrize("depth", [8, 9, 200, 960, 980, 3000])
@pytest.mark.parametrize("content_type", ["application/json", MSGPACK])
async def test_any_depth_is_answered(stand: Stand, depth: int, content_type: str) -> None:
    value = b"[" * depth + b"]" * depth if content_type != MSGPACK else b"\x91" * depth + b"\x01"
    head = b'{"method":"fetch_ticker","args":{"symbol":' if content_type != MSGPACK else packed()[:-9]
    body = head + value + (b"}}" if content_type != MSGPACK else b"")
    answer = await stand.client.answer(await stand.client.send(body, content_type=content_type))
    assert answer.code in (ErrorCode.UNREADABLE, ErrorCode.INVALID_ARGUMENTS)


@pytest.mark.parametrize("text", ["\0", "a\0b", "\n", "💥" * 50, "x" * 255, "'\"\\{}%s{0}", "\u202e"], ids=ascii)
async def test_an_id_comes_back_as_it_was(stand: Stand, text: str) -> None:
    answer = await stand.client.answer(await stand.client.send(request(id=text)))
    assert (answer.result.id, answer.result.ok) == (text, True)
    # Without a correlation id it becomes one.
    await stand.client.send(request(id=text), correlation_id=None)
    assert (await stand.client.answer(text)).result.ok


@pytest.mark.parametrize("text", ["x" * 255, "é" * 127, "\0"], ids=["long", "long in bytes", "null"])
async def test_properties_as_long_as_amqp_allows(stand: Stand, text: str) -> None:
    sent = await stand.client.send(request(), message_id=text, correlation_id=text, app_id=text, type=text)
    answer = await stand.client.answer(sent)
    assert (answer.result.id, answer.result.ok) == (text, True)
    await stand.client.send(b"no request", message_id=text, correlation_id="l", reply_to=text)
    assert (await stand.client.answer("l")).code == ErrorCode.UNREADABLE


@pytest.mark.parametrize(
    "properties",
    [
        {"message_id": Raw("x")},
        {"reply_to": Raw("x")},
        {"content_type": Raw("x")},
        {"content_encoding": "gzip"},
        {"timestamp": Instant(2026, 1, 1, tzinfo=UTC)},
        {"headers": {"x": [None, {"y": 2**62}]}},
        {"headers": {Raw("x"): 1}},
        {"headers": {"x-last-death-reason": "expired", "x-first-death-reason": "rejected"}},
        {"priority": 255},
        {"expiration": 60},
        {"type": "\0", "app_id": "\n"},
    ],
    ids=str,
)
async def test_strange_properties_do_no_harm(stand: Stand, properties: dict[str, Any]) -> None:
    sent = await stand.client.send(request(exchanges=["okx"]), **properties)
    answer = await stand.client.answer(sent)
    assert answer.result.ok, answer
    assert answer.key == ("okx.fetch_ticker.ok" if "reply_to" in properties else None)


OWN_QUEUES = (
    *("fleet.requests", "fleet.requests.bulk", "fleet.work.okx", "fleet.work.okx.bulk", "fleet.work.mtgox"),
    *("fleet.returned", "fleet.delay.250ms", "fleet.delay.60s", "fleet.dead"),
)


@pytest.mark.parametrize("reply_to", OWN_QUEUES)
async def test_an_address_that_is_a_queue_of_the_fleet_is_refused(stand: Stand, reply_to: str) -> None:
    sent = await stand.client.send(request(id=f"answered to {reply_to}"), reply_to=reply_to)
    answer = await stand.client.answer(sent)
    assert (answer.code, answer.key) == (ErrorCode.INVALID_REQUEST, "none.fetch_ticker.error")
    assert answer.result.error is not None
    assert reply_to in answer.result.error.message
    # What can't be read has no answer then, as without an address.
    body = b"not for " + reply_to.encode()
    sent = await stand.client.send(body, reply_to=reply_to)
    assert (await stand.client.buried(body)).reason == ErrorCode.UNREADABLE
    assert (await stand.client.ask("fetch_ticker", {"symbol": "BTC/USDT"})).result.ok
    assert not stand.client.answers[sent]
    assert not any(isinstance(letter, bytes) for letter in stand.client.dead)


GARBAGE = {
    "noise": b"\xc1 garbage",
    "empty": b"",
    "JSON": request(),
    "deep": b"\x91" * 50_000 + b"\x01",
    "a request where an attempt should be": packed(),
    "text that is no UTF-8": b"\x82\xa4lane\xa2\xff\xfe\xa6worker\xa2\xff\xfe",
}


@pytest.mark.parametrize("case", GARBAGE)
@pytest.mark.parametrize("queue", ["fleet.work.okx", "fleet.work.kraken.bulk", "fleet.returned", "fleet.delay.250ms"])
async def test_garbage_in_the_fleet_s_own_queues_is_put_aside(stand: Stand, queue: str, case: str) -> None:
    body = GARBAGE[case] + queue.encode()
    await stand.client.publish(body, queue)
    dead = await stand.client.buried(body)
    assert dead.reason == ErrorCode.UNREADABLE
    assert dead.origin == ("fleet.returned" if queue == "fleet.delay.250ms" else queue)


@pytest.mark.parametrize("case", GARBAGE)
async def test_garbage_among_the_reports_is_passed_over(stand: Stand, case: str) -> None:
    dispatcher = stand.fleet.dispatchers[0]
    already = dispatcher.log.read_text().count("report_unreadable")
    await stand.client.publish(GARBAGE[case], "", to_exchange="fleet.reports")
    await wait_until(lambda: dispatcher.log.read_text().count("report_unreadable") > already, "a word about the report")


async def test_a_report_of_unknown_lanes_is_passed_over(stand: Stand) -> None:
    report = {"worker": "stranger", "sent_ms": 1, "lanes": [{"lane": "mtgox", "ok": 5}], "leaving": True}
    await stand.client.publish(msgspec.msgpack.encode(report), "", to_exchange="fleet.reports")
    assert msgspec.convert(report, Report).leaving


@pytest.mark.parametrize("queue", ["fleet.work.okx", "fleet.returned"])
@pytest.mark.parametrize("lane", ["okx", "mtgox", ""])
async def test_an_attempt_that_lacks_what_the_dispatcher_fills_in_is_ended(stand: Stand, queue: str, lane: str) -> None:
    attempt = Attempt(
        Request("fetch_ticker", {"symbol": "BTC/USDT"}, id="lacks"),
        lane,
        1,
        NOW_MS,
        reply_to=stand.client.reply_to,
        correlation_id=stand.client.new_id(),
    )
    await stand.client.publish(encode(attempt), queue)
    dead = await stand.client.buried(encode(attempt))
    assert dead.reason == ErrorCode.UNREADABLE
    assert "deadline_ms" in dead.message


async def test_unknown_lanes_do_not_show_in_the_metrics(stand: Stand) -> None:
    failed = Try("mtgox", Outcome.FAILED, ErrorCode.EXCHANGE_ERROR)
    for queue in ("fleet.returned", "fleet.work.okx"):
        request = Request(
            "fetch_ticker", {"symbol": "BTC/USDT"}, id=queue, deadline_ms=NOW_MS + 3_600_000, hedge_ms=9999
        )
        attempt = Attempt(
            request, "mtgox", 2, NOW_MS, tries=[failed], reply_to=stand.client.reply_to, correlation_id=queue
        )
        await stand.client.publish(encode(attempt), queue)
        assert (await stand.client.answer(queue)).result.ok
    before = await stand.metric(stand.fleet.workers, "fleet_copies_dropped_total", "okx")
    async with connect(stand.redis.url, timeout_s=5) as client:
        marks = Answered(client)

        async def noted() -> bool:
            return await marks.answered([marks.mark(attempt)]) == [True]

        await wait_until(noted, "the mark of its answer is written")
    await stand.client.publish(encode(replace(attempt, received_ms=1)), "fleet.work.okx")

    async def dropped() -> bool:
        return await stand.metric(stand.fleet.workers, "fleet_copies_dropped_total", "okx") > before

    await wait_until(dropped, "the copy is dropped")
    for service in stand.services:
        assert not [name for name in await service.metrics() if "mtgox" in name]


async def test_a_flood_of_bad_requests_does_not_hold_up_good_ones(stand: Stand) -> None:
    bad = [await stand.client.send(struct.pack(">I", number) * 50, content_type=None) for number in range(300)]
    good = await stand.client.ask("fetch_ticker", {"symbol": "BTC/USDT"})
    assert good.result.ok, good
    for one in bad:
        assert (await stand.client.answer(one)).code in (ErrorCode.UNREADABLE, ErrorCode.INVALID_REQUEST)


async def test_a_client_that_leaves_before_its_answer_loses_nothing(stand: Stand) -> None:
    await stand.simulator.fault("okx", latency_ms=500)
    async with Client.on(stand.url) as other:
        sent = await other.send(request(exchanges=["okx"]))
    answer = await stand.client.answer(sent)
    assert answer.result.ok, answer
    assert answer.key == "okx.fetch_ticker.ok"
