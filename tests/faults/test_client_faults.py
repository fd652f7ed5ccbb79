"""The client while RabbitMQ is away, frozen or restarted: each call is answered or failed, and in time."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import aio_pika
import pytest

from schemas import Answer, DeadlineExceeded, Fleet, FleetSync, Request
from tests.support.fleet import Stand, wait_until
from tests.support.tcp_proxy import Proxy

CALLS = 1_000


def requests(number: int) -> Iterator[Request]:
    for each in range(number):
        yield Request("fetch_time", exchanges=["binance", "okx", "htx", "coinbase", "kraken"], id=f"restart-{each}")


async def test_every_call_of_a_map_is_answered_over_a_restart(stand: Stand) -> None:
    answers: list[Answer] = []

    async def ask() -> None:
        async with Fleet(stand.url) as fleet:
            async for answer in fleet.map(requests(CALLS), concurrency=200):
                answers.append(answer)  # noqa: PERF401 (as they come)

    asking = asyncio.create_task(ask())
    await wait_until(lambda: len(answers) > CALLS // 5, "some are answered", timeout_s=60)
    await stand.rabbitmq.stop()
    held = len(answers)
    await stand.rabbitmq.start()
    await asyncio.wait_for(asking, 300)
    assert held < CALLS
    assert Counter(answer.request.id for answer in answers) == Counter(request.id for request in requests(CALLS))
    assert not [answer.error for answer in answers if not answer.ok]


async def test_what_was_confirmed_is_answered_after_a_lost_connection(
    vhost: str, through: str, proxy: Proxy, admin: aio_pika.abc.AbstractChannel
) -> None:
    """The queue of results is still there: nothing is published again."""
    queue = await requested(admin)
    async with Fleet(through) as fleet:
        call = asyncio.create_task(fleet.ask(Request("fetch_time", id="mine")))
        message = await get(queue)
        await asyncio.sleep(0.2)  # for the confirm
        proxy.cut()
        body = b'{"id": "mine", "ok": true, "method": "fetch_time", "exchange": "okx", "data": 5}'
        answer = aio_pika.Message(body, content_type="application/json", correlation_id="mine", delivery_mode=2)
        for _ in range(2):  # a copy is dropped
            await admin.default_exchange.publish(answer, message.reply_to or "")
        (answered,) = await call
        assert answered.data == 5
        assert ((await queue.declare()).message_count or 0) == 0


async def test_a_lost_queue_of_results_has_all_published_again(
    through: str, proxy: Proxy, admin: aio_pika.abc.AbstractChannel
) -> None:
    queue = await requested(admin)
    async with Fleet(through) as fleet:
        call = asyncio.create_task(fleet.ask(Request("fetch_time", id="mine")))
        first = await get(queue)
        await admin.queue_delete(first.reply_to or "")
        second = await get(queue)
        assert second.message_id == "mine"
        assert second.body == first.body
        assert second.reply_to != first.reply_to
        body = b'{"id": "mine", "ok": true, "method": "fetch_time", "exchange": "okx", "data": 5}'
        message = aio_pika.Message(body, content_type="application/json", correlation_id="mine")
        await admin.default_exchange.publish(message, second.reply_to or "")
        (answered,) = await call
    assert answered.data == 5


async def requested(admin: aio_pika.abc.AbstractChannel) -> aio_pika.abc.AbstractQueue:
    """The queue of requests, which no dispatcher reads."""
    exchange = await admin.declare_exchange("fleet.requests", "fanout", durable=True)
    queue = await admin.declare_queue("fleet.requests", durable=True)
    await queue.bind(exchange)
    return queue


async def get(queue: aio_pika.abc.AbstractQueue) -> aio_pika.abc.AbstractIncomingMessage:
    async with asyncio.timeout(60):
        async with queue.iterator() as messages:
            message = await anext(messages)
            await message.ack()
            return message


@pytest.mark.parametrize("how", ["frozen", "cut off"])
async def test_no_call_outlives_its_deadline(proxy: Proxy, through: str, how: str) -> None:
    async with Fleet(through) as fleet:
        proxy.freeze()
        if how == "cut off":
            proxy.cut()
        calls = [fleet.fetch_time(deadline=timedelta(seconds=0.3)) for _ in range(20)]
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
        assert all(isinstance(error, DeadlineExceeded) for error in ended), ended
        assert "RabbitMQ" in str(ended[0])
        proxy.thaw()


async def test_blocking_over_a_frozen_connection(through: str, proxy: Proxy) -> None:
    def ask(fleet: FleetSync) -> None:
        with pytest.raises(DeadlineExceeded):
            fleet.fetch_time(deadline=timedelta(seconds=0.3))

    fleet = await asyncio.to_thread(FleetSync(through).__enter__)
    proxy.freeze()
    await asyncio.to_thread(ask, fleet)
    proxy.thaw()
    await asyncio.to_thread(fleet.close)
