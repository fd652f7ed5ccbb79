"""A publish returns when RabbitMQ has confirmed the message, and says what happened where it has not."""

import asyncio
import functools
import math
from typing import Any

import aio_pika
import pytest

from schemas import topology
from schemas.errors import BrokerLost, Refused, Silent, Unroutable
from schemas.runtime.amqp.publisher import OVERTAKEN_S
from tests.support.broker import Handler, connected
from tests.support.fleet import wait_until
from tests.support.tcp_proxy import Proxy


@pytest.fixture
def handler() -> Handler:
    return Handler()


async def test_a_publish_while_the_broker_is_frozen_is_lost_and_not_cancelled(through: str, proxy: Proxy) -> None:
    async with connected(through, timeout_s=0.3, patience_s=0.5) as broker:
        await broker.publish(b"before", topology.RETURNED)
        proxy.freeze()
        with pytest.raises(BrokerLost):
            await broker.publish(b"frozen", topology.RETURNED)
        proxy.thaw()


async def test_a_publish_waits_for_a_frozen_broker_and_is_not_sent_twice(
    through: str, proxy: Proxy, handler: Handler
) -> None:
    handler.go_on.set()
    async with connected(through, heartbeat_s=30, timeout_s=0.1) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=10)
        proxy.freeze()
        publishing = asyncio.create_task(broker.publish(b"frozen", topology.RETURNED))
        _, waits = await asyncio.wait({publishing}, timeout=0.5)  # several of the connection's time-outs
        assert waits
        proxy.thaw()
        await publishing
        await broker.publish(b"after", topology.RETURNED)
        await wait_until(lambda: b"after" in handler.done, "what was published after")
    assert handler.done == [b"frozen", b"after"]


async def test_a_publish_whose_connection_dies_is_sent_again(through: str, proxy: Proxy, handler: Handler) -> None:
    handler.go_on.set()
    async with connected(through) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=100)
        proxy.freeze()
        publishing = [asyncio.create_task(broker.publish(b"%d" % number, topology.RETURNED)) for number in range(20)]
        await asyncio.sleep(0)
        proxy.cut()
        proxy.thaw()
        await asyncio.gather(*publishing)
        await wait_until(lambda: len(set(handler.done)) == 20, "all messages")


async def test_a_publisher_can_be_cancelled(through: str, proxy: Proxy) -> None:
    async with connected(through) as broker:
        proxy.freeze()
        publishing = asyncio.create_task(broker.publish(b"frozen", topology.RETURNED))
        _, waits = await asyncio.wait({publishing}, timeout=0.1)
        assert waits
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        proxy.thaw()


async def test_what_no_queue_takes_raises_before_and_after_a_reconnect(through: str, proxy: Proxy) -> None:
    async with connected(through) as broker:
        for exchange, key in (("", "no.such.queue"), (topology.WORK, "no.such.lane")):
            with pytest.raises(Unroutable, match=key):
                await broker.publish(b"lost", key, exchange=exchange)
        proxy.cut()
        await broker.publish(b"back", topology.RETURNED)
        for _ in range(3):
            with pytest.raises(Unroutable):
                await broker.publish(b"lost", "no.such.queue")
        await broker.publish(b"nobody minds", "no.such.queue", mandatory=False)


async def test_an_exchange_that_is_not_there_does_not_end_the_connection_for_good(vhost: str) -> None:
    async with connected(vhost, patience_s=1.0) as broker:
        with pytest.raises((BrokerLost, Unroutable)):
            await broker.publish(b"lost", "key", exchange="no.such.exchange")
        await broker.publish(b"back", topology.RETURNED)


async def test_channels_for_other_commands_are_reused_unless_they_fail_or_overlap(through: str, proxy: Proxy) -> None:
    async with connected(through) as broker:
        async with broker.aside() as first, broker.aside() as second:
            assert first is not second
        for _ in range(5):
            async with broker.aside() as again:
                assert again in (first, second)
                await again.queue_declare(topology.RETURNED, passive=True)
        with pytest.raises(Unroutable):
            async with broker.aside() as bad:
                await bad.queue_declare("nobodys", passive=True)
        async with broker.aside() as good, broker.aside() as another:
            await asyncio.gather(*(each.queue_declare(topology.RETURNED, passive=True) for each in (good, another)))
        proxy.cut()
        with pytest.raises(BrokerLost):
            for _ in range(3):
                await broker.consumers(topology.RETURNED)

        async def back() -> bool:
            try:
                return await broker.consumers(topology.RETURNED) >= 0
            except BrokerLost:
                return False

        await wait_until(back, "acts aside on the next connection")


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(
    vhost: str, admin: aio_pika.abc.AbstractChannel
) -> None:
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    queue = await admin.declare_queue("tiny", durable=True, arguments=arguments)
    async with connected(vhost, patience_s=0.5) as broker:

        async def full() -> bool:  # quorum queues let a few more pass before they say so
            try:
                await broker.publish(b"more", "tiny", retry_refused=False)
            except Refused:
                return True
            return False

        await wait_until(full, "the queue is full")
        with pytest.raises(Refused, match="tiny"):
            await broker.publish(b"more", "tiny")
    async with connected(vhost) as broker:
        publishing = asyncio.create_task(broker.publish(b"patient", "tiny"))
        await queue.purge()
        await publishing


async def test_a_queue_has_time_to_confirm_after_rabbitmq_has_read_what_it_did_not_for_a_while(
    through: str, proxy: Proxy
) -> None:
    """It reads all of that together, and confirms the question first, which no queue takes."""
    loop = asyncio.get_running_loop()
    async with connected(through) as broker:
        publish = functools.partial(broker.publish, b"held back", topology.RETURNED, silent_after_s=0.1)
        await publish()  # the connection is up, and has a channel for this
        proxy.freeze()
        broker._publisher._answered_s = math.inf  # pyright: ignore[reportPrivateUsage]
        began_s = loop.time()
        with pytest.raises(Silent):
            await publish()
        assert loop.time() - began_s >= OVERTAKEN_S
        proxy.thaw()
