"""The fleet's own messages that come back as requests are put aside once, and nothing circles."""

from collections.abc import AsyncIterator

import pytest
from msgspec import msgpack

from schemas.messages import BODY_LIMIT_BYTES, JSON, MSGPACK, DeadLetter, ErrorCode, Result, encode
from tests.support.fleet import Client, Stand, wait_until
from tests.unit.test_kinds import OWN

TICKER = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}}


@pytest.fixture
async def looped(stand: Stand) -> AsyncIterator[Stand]:
    """The fleet with every result back at its exchange of requests."""
    exchange = await stand.client.channel.get_exchange("fleet.requests", ensure=False)
    await exchange.bind("fleet.results", "#")
    yield stand
    await exchange.unbind("fleet.results", "#")


def buried_of(client: Client, request_id: str) -> int:
    """How many dead letters hold a message of this request: results of earlier tests' requests come back too."""
    return sum(isinstance(each, DeadLetter) and request_id.encode() in each.body for each in client.dead)


@pytest.mark.parametrize(
    "request_",
    [TICKER, {**TICKER, "exchanges": ["nowhere"]}, {"method": "create_order"}],
    ids=["data", "error", "write"],
)
@pytest.mark.parametrize("encoding", [JSON, MSGPACK])
async def test_a_result_that_comes_back_is_buried_and_answered_by_nothing(
    looped: Stand, request_: dict[str, object], encoding: str
) -> None:
    client = looped.client
    body = msgpack.encode(request_) if encoding == MSGPACK else request_
    sent = await client.send(body, reply_to=None, content_type=encoding)
    result = (await client.answer(sent)).result
    letter = await client.buried(encode(result, encoding))
    assert (letter.reason, letter.origin) == (ErrorCode.UNREADABLE, "fleet.requests")
    assert "a result of the fleet" in letter.message
    # Whatever it would have set off came before this one's answer.
    assert (await client.ask("fetch_ticker", TICKER["args"])).result.ok  # type: ignore[arg-type]
    assert len(client.answers[sent]) == 1
    assert buried_of(client, result.id) == 1


async def test_a_result_too_large_for_a_request_is_known_too(stand: Stand) -> None:
    body = encode(Result("large", ok=True, data=["x" * BODY_LIMIT_BYTES]), JSON)
    sent = await stand.client.send(body, reply_to=None)
    letter = await stand.client.buried(body[:BODY_LIMIT_BYTES])
    assert "a result of the fleet" in letter.message
    assert (await stand.client.ask("fetch_ticker", TICKER["args"])).result.ok  # type: ignore[arg-type]
    assert not stand.client.answers[sent]


@pytest.mark.parametrize("queue", ["fleet.requests", "fleet.requests.bulk"])
@pytest.mark.parametrize("kind", OWN)
async def test_any_message_of_the_fleet_among_the_requests_is_buried(stand: Stand, kind: str, queue: str) -> None:
    client = stand.client
    for number, message in enumerate(OWN[kind]):
        body = encode(message, MSGPACK)
        dead = len(client.dead)
        await client.publish(body, queue, content_type=MSGPACK, message_id=f"{kind} {number}")
        await wait_until(lambda: len(client.dead) > dead, "a dead letter")  # noqa: B023
        letter = await client.buried(body)
        assert (letter.reason, letter.origin) == (ErrorCode.UNREADABLE, queue)
        assert kind in letter.message


async def test_a_message_with_an_address_is_answered_with_an_error(stand: Stand) -> None:
    """A result has no address: this message comes from a program that takes results for requests, not from a loop."""
    body = encode(Result("mine", ok=True, data=1), JSON)
    answer = await stand.client.answer(await stand.client.send(body))
    assert answer.code == ErrorCode.UNREADABLE
    assert answer.result.error is not None
    assert "a result of the fleet" in answer.result.error.message
    await stand.client.buried(body)
