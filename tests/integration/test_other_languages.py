"""Requests as programs in other languages write them: what is taken, and what a refusal still says."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas import jsonschema
from schemas.messages import JSON, MSGPACK, ErrorCode, Request
from tests.support import node
from tests.support.fleet import Stand, wait_until
from tests.unit.test_encodings import taken

NODE = Path(__file__).parents[1] / "node"
TICKER: dict[str, Any] = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}}


def request(**fields: object) -> bytes:
    return msgspec.json.encode({**TICKER, **fields})


@pytest.mark.parametrize("wrong", [{"symbol": "X"}, {"args": ["X"]}, {"deadline_ms": "soon"}, {"hedge_ms": 0}], ids=str)
@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
async def test_a_refused_request_is_known_by_its_id(stand: Stand, content_type: str, wrong: dict[str, Any]) -> None:
    encode = msgspec.msgpack.encode if content_type == MSGPACK else msgspec.json.encode
    sent = await stand.client.send(encode({**TICKER, "id": "t-1", **wrong}), content_type=content_type)
    answer = await stand.client.answer(sent)
    assert (answer.result.id, answer.result.method, answer.code) == ("t-1", "fetch_ticker", ErrorCode.INVALID_REQUEST)


# What is taken though a strict decoder would refuse it.
TAKEN: dict[str, tuple[bytes, str | None]] = {
    "a byte order mark": (b"\xef\xbb\xbf" + request(), JSON),
    "a byte order mark and no content type": (b"\xef\xbb\xbf" + request(), None),
    "every field null": (
        request(**dict.fromkeys(("id", "exchanges", "exchanges_mode", "strategy", "priority", "deadline_ms"))),
        JSON,
    ),
    "whole numbers as floats": (
        b'{"method":"fetch_ohlcv","args":{"symbol":"BTC/USDT","since":1.7e12,"limit":2.0,"timeframe":null,'
        b'"params":{"until":4.1e12,"x":null}},"deadline_ms":4.1e12,"hedge_ms":6e4}',
        JSON,
    ),
    "whole numbers as floats in MessagePack": (
        msgspec.msgpack.encode(
            {
                "method": "fetch_ohlcv",
                "args": {"symbol": "BTC/USDT", "since": 1.7e12, "limit": 2.0, "params": None},
                "deadline_ms": 4.1e12,
                "account": None,
            }
        ),
        None,
    ),
}


@pytest.mark.parametrize("case", TAKEN)
async def test_what_other_languages_write_is_taken(stand: Stand, case: str) -> None:
    body, content_type = TAKEN[case]
    answer = await stand.client.answer(await stand.client.send(body, content_type=content_type))
    assert answer.result.ok, answer
    assert answer.content_type == (MSGPACK if body[0] & 0xF0 == 0x80 else JSON)


async def test_of_a_request_to_all_only_the_unknown_exchange_has_an_error(stand: Stand) -> None:
    names = ["okx", "mtgox", "kraken"]
    sent = await stand.client.send({**TICKER, "exchanges": names, "exchanges_mode": "all"})
    await wait_until(lambda: len(stand.client.answers[sent]) == len(names), "an answer of each")
    results = {answer.result.exchange: answer.result for answer in stand.client.answers[sent]}
    assert {name: result.ok for name, result in results.items()} == {"okx": True, "mtgox": False, "kraken": True}
    assert {result.results for result in results.values()} == {3}
    assert (error := results["mtgox"].error) is not None
    assert error.code is ErrorCode.UNKNOWN_EXCHANGE


# What JavaScript makes, see `tests/node/mistakes.js`: the code of its answer, and what the answer names.
OF_NODE: dict[str, tuple[ErrorCode | None, str]] = {
    "JSON": (None, ""),
    "large numbers by msgpackr": (None, ""),
    "large numbers by @msgpack/msgpack": (None, ""),
    "large numbers by @msgpack/msgpack, all as floats": (None, ""),
    "null and undefined in JSON": (None, ""),
    "null and undefined by msgpackr": (None, ""),
    "null and undefined by @msgpack/msgpack": (None, ""),
    "a limit of NaN in JSON, which is null": (None, ""),
    "a byte order mark": (None, ""),
    "a byte order mark without a type": (None, ""),
    "a limit of NaN": (ErrorCode.INVALID_ARGUMENTS, "limit is no number: nan"),
    "UTF-16": (ErrorCode.UNREADABLE, "UTF-16"),
    "UTF-16 with a mark": (ErrorCode.UNREADABLE, "UTF-16"),
    "gzip": (ErrorCode.UNREADABLE, "gzip"),
    "deflate": (ErrorCode.UNREADABLE, "zlib"),
    "brotli": (ErrorCode.UNREADABLE, "content_encoding is 'br'"),
    "base64": (ErrorCode.UNREADABLE, "base64"),
    "JSON twice": (ErrorCode.UNREADABLE, "encoded twice"),
    "JSON called MessagePack": (ErrorCode.UNREADABLE, "is JSON, but its content_type says MessagePack"),
    "MessagePack called JSON": (ErrorCode.UNREADABLE, "is MessagePack, but its content_type says JSON"),
    "a list": (ErrorCode.UNREADABLE, "list"),
    "a comma at the end": (ErrorCode.UNREADABLE, "no comma before a closing }"),
    "a comment": (ErrorCode.UNREADABLE, "no comments"),
    "undefined in a text": (ErrorCode.UNREADABLE, "no undefined"),
    "two requests": (ErrorCode.UNREADABLE, "several objects"),
    "two requests by msgpackr": (ErrorCode.UNREADABLE, "several objects"),
    "texts as bytes": (ErrorCode.INVALID_REQUEST, "packed as str"),
    "a symbol as bytes": (ErrorCode.INVALID_ARGUMENTS, "symbol holds bytes"),
    "floats of 32 bits": (ErrorCode.INVALID_REQUEST, "deadline_ms is a float of 32 bits"),
    "a date in args by msgpackr": (ErrorCode.INVALID_ARGUMENTS, "since holds a timestamp"),
    "an empty list of arguments": (None, ""),
    "nothing": (ErrorCode.UNREADABLE, "empty"),
    "an id that is a number": (ErrorCode.INVALID_REQUEST, "$.id"),
    "an argument beside args": (ErrorCode.INVALID_REQUEST, "symbol belongs into args"),
    "camelCase": (ErrorCode.METHOD_NOT_ALLOWED, "is 'fetch_ticker' meant?"),
    "camelCase of a field": (ErrorCode.INVALID_REQUEST, "is deadline_ms meant?"),
    "a date": (ErrorCode.INVALID_REQUEST, "$.deadline_ms"),
    "a date by msgpackr": (ErrorCode.INVALID_REQUEST, "$.deadline_ms"),
    "a duration": (ErrorCode.DEADLINE_EXCEEDED, "duration"),
    "seconds": (ErrorCode.INVALID_ARGUMENTS, "seconds"),
    "microseconds": (ErrorCode.INVALID_ARGUMENTS, "microseconds"),
    "a number too large for a float": (ErrorCode.INVALID_ARGUMENTS, "2^53"),
    "an exchange in the symbol": (ErrorCode.BAD_SYMBOL, "BTC/USDT"),
    "an exchange in capitals": (ErrorCode.UNKNOWN_EXCHANGE, "is 'okx' meant?"),
}
# What of these can't be read far enough to find the id.
NAMELESS = {"gzip", "deflate", "brotli", "a list", "nothing"}
ANSWERED_IN_MSGPACK = {
    *("large numbers by msgpackr", "large numbers by @msgpack/msgpack", "null and undefined by msgpackr"),
    *("large numbers by @msgpack/msgpack, all as floats", "null and undefined by @msgpack/msgpack", "a limit of NaN"),
    *("JSON called MessagePack", "a date by msgpackr", "a number too large for a float", "two requests by msgpackr"),
    *("texts as bytes", "a symbol as bytes", "floats of 32 bits", "a date in args by msgpackr"),
}


async def test_what_javascript_makes_is_taken_or_told_what_is_wrong(stand: Stand) -> None:
    printed = await node.run(NODE / "mistakes.js", url=stand.url)
    said: dict[str, dict[str, Any]] = {line["case"]: line for line in map(msgspec.json.decode, printed.splitlines())}
    assert said.keys() == OF_NODE.keys()
    for case, (code, names) in OF_NODE.items():
        answer = said[case]
        error: dict[str, Any] = answer.get("error") or {"code": None, "message": ""}
        assert error["code"] == code, (case, answer)
        assert names in error["message"], (case, answer)
        assert answer["contentType"] == (MSGPACK if case in ANSWERED_IN_MSGPACK else JSON), case
        assert answer["id"] == ("" if case in NAMELESS else "7" if case == "an id that is a number" else "js"), case
        assert bool(answer["method"]) is (case not in NAMELESS), case


VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 5.0, 5.5, 3_600_000, 3_600_001, 4.1e12, 2**53 - 1, 2**53, -(2**53), 1e300),
    *("", "x", "live", "all", "failover", "x" * 128, "é" * 128, "x" * 129, "x" * 255, "x" * 256),
    *([], ["okx"], [""], [None], ["okx"] * 129, {}, {"symbol": None}),
)


async def test_a_validator_of_javascript_reads_the_schema_as_our_decoder_does() -> None:
    fields = ["method", *jsonschema.schema(Request)["properties"], "symbol"]
    trees = [{"method": "fetch_ticker", field: value} for field in fields for value in VALUES]
    trees += [{field: value} for field in fields[2:] for value in VALUES]
    # A schema counts characters, AMQP the bytes of an id.
    bodies = [msgspec.json.encode(tree) for tree in trees if len(str(tree.get("id", "")).encode()) < 256]
    bodies += [msgspec.json.encode({"method": "fetch_ticker", "id": "x" * 256})]
    lines = [body.decode() for body in bodies]
    printed = await node.run(NODE / "schema.js", str(jsonschema.path(Request)), given=lines)
    verdicts = [msgspec.json.decode(line) for line in printed.splitlines()]
    assert verdicts == [taken(body, JSON) for body in bodies]
    assert {True, False} <= set(verdicts)
