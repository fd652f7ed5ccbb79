"""The client while RabbitMQ is away, frozen or restarted: each call is answered or failed, and in time."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import aio_pika
import pytest

from deploy.servers import RabbitMQ
from schemas import Answer, DeadlineExceeded, Fleet, FleetSync, NotAllowed, Request
from schemas.client.errors import Internal
from tests.support.answering import DATA, answering, requested, result
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
        for _ in range(2):  # a copy is dropped
            await admin.default_exchange.publish(result("mine", "mine"), message.reply_to or "")
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
        await admin.default_exchange.publish(result("mine", "mine"), second.reply_to or "")
        (answered,) = await call
    assert answered.data == 5


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


async def test_a_queue_of_results_is_lost_in_the_middle_of_a_burst(vhost: str, rabbitmq: RabbitMQ) -> None:
    """Some wait to be written when the connection ends; nobody writes any more."""
    async with answering(vhost) as channel, Fleet(vhost) as fleet:
        calls = [asyncio.create_task(fleet.fetch_time(deadline=timedelta(minutes=5))) for _ in range(600)]
        lost = set[str]()
        for _ in range(5):
            own = await queues(rabbitmq, vhost) - lost
            for name in own:
                await channel.queue_delete(name)
            lost |= own
        assert await asyncio.gather(*calls) == [DATA] * 600
    assert len(lost) > 1


async def queues(rabbitmq: RabbitMQ, vhost: str) -> set[str]:
    """The clients' queues of results."""
    listed = await rabbitmq.ctl("list_queues", "-p", vhost.rpartition("/")[2], "name", "--no-table-headers")
    return {name for name in listed.split() if name.startswith("fleet.client.")}


async def test_calls_wait_for_memory_and_are_answered_or_failed_in_time(vhost: str, rabbitmq: RabbitMQ) -> None:
    async with answering(vhost), Fleet(vhost) as fleet:
        await rabbitmq.ctl("set_vm_memory_high_watermark", "0.000001")
        try:
            failed = await asyncio.gather(
                *(fleet.fetch_time(deadline=timedelta(seconds=0.5)) for _ in range(50)), return_exceptions=True
            )
            waiting = [asyncio.create_task(fleet.fetch_time(deadline=timedelta(minutes=5))) for _ in range(50)]
            await asyncio.sleep(0)
        finally:
            await rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
        assert all(isinstance(error, DeadlineExceeded) and "short of memory" in str(error) for error in failed), failed
        assert await asyncio.gather(*waiting) == [DATA] * 50


async def test_a_permission_that_is_taken_and_given_back(vhost: str, rabbitmq: RabbitMQ) -> None:
    name = vhost.rpartition("/")[2]

    async def may_write(what: str) -> None:
        await rabbitmq.ctl("set_permissions", "-p", name, "guest", ".*", what, ".*")

    async with answering(vhost):
        await may_write("^fleet.client.*")
        try:
            async with Fleet(vhost) as fleet:  # RabbitMQ remembers for a while what a channel was allowed
                for _ in range(2):
                    with pytest.raises(NotAllowed, match="refuses the request"):
                        await fleet.fetch_time()
                await may_write(".*")
                assert await fleet.fetch_time() == DATA
        finally:
            await may_write(".*")


async def test_what_another_program_puts_into_the_queue_of_results(
    vhost: str, admin: aio_pika.abc.AbstractChannel
) -> None:
    queue = await requested(admin)
    async with Fleet(vhost) as fleet:
        call = asyncio.create_task(fleet.ask(Request("fetch_time", id="mine")))
        message = await get(queue)
        for body in (b"", b"\xff\xfe", b"[]", b"{}", b'{"id": 5}', b"[" * 100_000):
            for correlation_id in ("other", "", "\ufeff"):
                for kind in ("", "application/json", "application/msgpack", "text/plain"):
                    garbage = aio_pika.Message(body, content_type=kind, correlation_id=correlation_id)
                    await admin.default_exchange.publish(garbage, message.reply_to or "")
        await admin.default_exchange.publish(result("mine", "mine"), message.reply_to or "")
        (answered,) = await call
        assert answered.data == DATA
        # What carries a request's own id and can't be read is told: a fleet of another version may have sent it.
        call = asyncio.create_task(fleet.ask(Request("fetch_time", id="again")))
        message = await get(queue)
        garbage = aio_pika.Message(b'{"id": 5}', correlation_id="again")
        await admin.default_exchange.publish(garbage, message.reply_to or "")
        (answered,) = await call
        with pytest.raises(Internal, match="newer version"):
            answered.get()
