"""Requests of one id and deadline: each is answered, and a copy of one that was answered is not."""

import asyncio
import time
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from msgspec import json

from schemas.messages import Result
from tests.support.fleet import Stand, wait_until

BTC = {"symbol": "BTC/USDT"}


def rounded_ms() -> int:
    """A minute from now or a little later, the same for a while."""
    return (int(time.time()) // 60 + 2) * 60_000


def poll(name: str, deadline_ms: int, **fields: object) -> dict[str, object]:
    """A request of a client that takes a constant id and rounds the deadline."""
    return {"method": "fetch_ticker", "args": BTC, "id": name, "deadline_ms": deadline_ms, **fields}


async def marked(stand: Stand) -> None:
    """Returns when the marks of all answered requests are in Redis."""
    name = stand.client.new_id()
    request = poll(name, rounded_ms())
    await stand.client.answer(await stand.client.send(request, correlation_id=name))

    async def dropped() -> bool:
        before = len(stand.client.answers[name])
        await stand.client.send(request, correlation_id=name, type="again")
        await stand.client.ask("fetch_ticker", BTC)
        await wait_until(stand.idle, "nothing is under way")
        return len(stand.client.answers[name]) == before

    await wait_until(dropped, "a copy is dropped", every_s=0.1)


# What makes the fleet look a request up.
LOOKED_UP: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "published again": ({}, {"type": "again"}),
    "hedged": ({"hedge_ms": 5_000}, {}),
    "both": ({"hedge_ms": 5_000}, {"type": "again"}),
}


@pytest.mark.parametrize("why", LOOKED_UP)
async def test_two_producers_with_one_id_are_both_answered(stand: Stand, why: str) -> None:
    fields, properties = LOOKED_UP[why]
    client, name, deadline_ms = stand.client, stand.client.new_id(), rounded_ms()
    other = await client.channel.declare_queue(exclusive=True)
    got: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await other.consume(got.put, no_ack=True)
    await client.answer(await client.send(poll(name, deadline_ms, **fields), correlation_id=name))
    await marked(stand)
    # One differs in its address alone, one in its correlation id alone, one in what it asks.
    await client.send(poll(name, deadline_ms, **fields), correlation_id=name, reply_to=other.name, **properties)
    result = json.decode((await asyncio.wait_for(got.get(), 30)).body, type=Result)
    assert (result.id, result.ok) == (name, True)
    sent = await client.send(poll(name, deadline_ms, **fields), **properties)
    assert (await client.answer(sent)).result.ok
    eth = poll(name, deadline_ms, args={"symbol": "ETH/USDT"}, **fields)
    await client.send(eth, correlation_id=name, **properties)
    await wait_until(lambda: len(client.answers[name]) == 2, "the second answer")
    assert client.answers[name][1].result.data["symbol"] == "ETH/USDT"


async def test_a_client_that_polls_with_one_id_and_a_rounded_deadline_is_answered_each_time(stand: Stand) -> None:
    """The polls are alike to the byte, and their marks are looked up, as they are hedged."""
    client, name = stand.client, stand.client.new_id()
    request = poll(name, rounded_ms(), hedge_ms=5_000)
    for count in range(1, 4):
        await client.send(request, correlation_id=name)
        await wait_until(lambda: len(client.answers[name]) == count, f"answer {count}")  # noqa: B023
        await marked(stand)
    assert all(answer.result.ok for answer in client.answers[name])


@pytest.mark.parametrize("address", ["exclusive", "direct"])
async def test_a_client_that_lost_its_address_publishes_again_and_is_answered(stand: Stand, address: str) -> None:
    name, deadline_ms = stand.client.new_id(), rounded_ms()
    await marked(stand)
    for _ in range(2):
        # The answer to the first came: its mark is there when the second is asked for.
        async with await aio_pika.connect(stand.url) as connection:
            channel = await connection.channel()
            got: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            if address == "direct":
                replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
            else:
                replies = await channel.declare_queue(exclusive=True)
            await replies.consume(got.put, no_ack=True)
            message = aio_pika.Message(
                json.encode(poll(name, deadline_ms)), reply_to=replies.name, correlation_id=name, type="again"
            )
            await channel.default_exchange.publish(message, "fleet.requests")
            assert json.decode((await asyncio.wait_for(got.get(), 30)).body, type=Result).ok
        await marked(stand)


@pytest.mark.parametrize("address", ["named", "none"])
async def test_a_client_whose_address_stays_is_answered_once(stand: Stand, address: str) -> None:
    client, name = stand.client, stand.client.new_id()
    request, properties = poll(name, rounded_ms()), {"correlation_id": name}
    if address == "none":
        properties["reply_to"] = ""
    await client.answer(await client.send(request, **properties))
    await marked(stand)
    await client.send(request, type="again", **properties)
    await marked(stand)
    assert len(client.answers[name]) == 1
    # Not as a copy it is a request like any other.
    await client.send(request, **properties)
    await wait_until(lambda: len(client.answers[name]) == 2, "the second answer")
