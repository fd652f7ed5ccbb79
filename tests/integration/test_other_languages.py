"""Requests as programs in other languages write them: what is taken, and what a refusal still says."""

from typing import Any

import msgspec
import pytest

from schemas.messages import JSON, MSGPACK, ErrorCode
from tests.support.fleet import Stand, wait_until

TICKER: dict[str, Any] = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}}


def request(**fields: object) -> bytes:
    return msgspec.json.encode({**TICKER, **fields})


@pytest.mark.parametrize("wrong", [{"symbol": "X"}, {"args": []}, {"deadline_ms": "soon"}, {"hedge_ms": 0}], ids=str)
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
