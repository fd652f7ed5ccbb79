"""Connections break while lanes come and go: each queue that is wanted is consumed, with its size, and no other."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from deploy.servers import RabbitMQ
from schemas import topology
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Subscription
from schemas.runtime.tasks import end_tasks
from tests.support.broker import Handler, connected
from tests.support.fleet import wait_until
from tests.support.tcp_proxy import Proxy

LANES = ("a", "b", "c", "d", "e", "f")
QUEUES = [topology.work_name(lane, bulk=False) for lane in LANES]
FEW_CHANNELS = 30


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def few_channels(rabbitmq: RabbitMQ, vhost: str) -> AsyncIterator[str]:
    """A virtual host of a broker that allows few channels on the connections that are made meanwhile."""
    allow = "application:set_env(rabbit, channel_max, {})."
    await rabbitmq.eval(allow.format(FEW_CHANNELS))
    yield vhost
    await rabbitmq.eval(allow.format(2047))


async def until_attached(subscription: Subscription, before: object) -> None:
    await wait_until(lambda: subscription.channel is not before, "it is attached again", every_s=0)


async def only_these_consume(broker: Broker, handler: Handler, queues: list[str]) -> None:
    """Each of these queues brings what is put into it, and nobody consumes another one."""

    async def consumers() -> dict[str, int]:
        return {queue: await broker.consumers(queue) for queue in QUEUES}

    wanted = {queue: int(queue in queues) for queue in QUEUES}

    async def as_wanted() -> bool:
        return broker.connected and await consumers() == wanted

    await wait_until(as_wanted, f"consumers: {wanted}")
    for queue in queues:
        await broker.publish(queue.encode(), queue)
    await wait_until(lambda: {*queues} <= {body.decode() for body in handler.done}, "a message from each")


@pytest.mark.parametrize("removed", range(len(LANES)))
@pytest.mark.parametrize("attached", range(0, len(LANES), 2))
async def test_a_lane_that_is_removed_while_a_connection_comes_back(
    vhost: str, proxy: Proxy, handler: Handler, attached: int, removed: int
) -> None:
    handler.go_on.set()
    head, _, tail = vhost.rpartition(":")
    through = f"{head}:{proxy.port}/{tail.partition('/')[2]}"
    async with connected(through, lanes=LANES, timeout_s=5.0) as broker:
        made = [await broker.subscribe(queue, handler, prefetch=10) for queue in QUEUES]
        before = made[attached].channel
        proxy.delay_s = 0.005
        proxy.cut()
        await until_attached(made[attached], before)
        await broker.unsubscribe(QUEUES[removed])
        proxy.delay_s = 0.0
        await only_these_consume(broker, handler, [queue for queue in QUEUES if queue != QUEUES[removed]])


async def test_lanes_that_come_while_a_connection_comes_back(vhost: str, proxy: Proxy, handler: Handler) -> None:
    handler.go_on.set()
    head, _, tail = vhost.rpartition(":")
    through = f"{head}:{proxy.port}/{tail.partition('/')[2]}"
    async with connected(through, lanes=LANES, timeout_s=5.0) as broker:
        made = [await broker.subscribe(queue, handler, prefetch=10) for queue in QUEUES[:3]]
        before = made[0].channel
        proxy.delay_s = 0.005
        proxy.cut()
        await until_attached(made[0], before)
        for queue in QUEUES[3:]:
            await broker.subscribe(queue, handler, prefetch=10)
        proxy.delay_s = 0.0
        await only_these_consume(broker, handler, QUEUES)


@pytest.mark.parametrize("moment", range(3))
async def test_a_size_that_changes_while_a_connection_comes_back(
    vhost: str, proxy: Proxy, handler: Handler, moment: int
) -> None:
    head, _, tail = vhost.rpartition(":")
    through = f"{head}:{proxy.port}/{tail.partition('/')[2]}"
    async with connected(through, lanes=LANES, timeout_s=5.0) as broker:
        made = [await broker.subscribe(queue, handler, prefetch=10) for queue in QUEUES[:3]]
        before = made[moment].channel
        proxy.delay_s = 0.005
        proxy.cut()
        await until_attached(made[moment], before)
        await broker.resize(QUEUES[1], 2)
        proxy.delay_s = 0.0
        await wait_until(lambda: broker.connected, "it is connected")
        for number in range(5):
            await broker.publish(b"%d" % number, QUEUES[1])
        await broker.publish(b"last", QUEUES[2])
        await wait_until(lambda: any(each.body == b"last" for each in handler.begun), "what came last")
        await wait_until(lambda: len(handler.begun) >= 3, "two deliveries")
        assert {each.body for each in handler.begun} == {b"0", b"1", b"last"}
        handler.go_on.set()
        await wait_until(lambda: len(handler.done) == 6, "all")


async def test_a_stopped_consumer_that_is_resized_at_once_takes_no_more(vhost: str, handler: Handler) -> None:
    async with connected(vhost, lanes=LANES) as broker:
        subscription = await broker.subscribe(QUEUES[0], handler, prefetch=10)
        await asyncio.gather(
            broker.resize(QUEUES[0], 20), subscription.stop_taking(timeout_s=1.0), broker.resize(QUEUES[0], 30)
        )
        assert await broker.consumers(QUEUES[0]) == 0


async def test_more_queues_than_rabbitmq_allows_channels_take_more_connections(
    few_channels: str, proxy: Proxy, handler: Handler
) -> None:
    """RabbitMQ ends a connection with one channel too many, and every one that replaces it."""
    handler.go_on.set()
    lanes = tuple(f"lane{number}" for number in range(2 * FEW_CHANNELS))
    queues = [topology.work_name(lane, bulk=False) for lane in lanes]
    head, _, tail = few_channels.rpartition(":")
    through = f"{head}:{proxy.port}/{tail.partition('/')[2]}"
    async with connected(through, lanes=lanes, timeout_s=5.0) as broker:
        lasting = asyncio.create_task(broker.lasts())
        await asyncio.gather(*(broker.subscribe(queue, handler, prefetch=10) for queue in queues))
        assert broker.connects == 1
        await all_come(broker, handler, queues)

        proxy.cut()
        await wait_until(lambda: broker.connects == 2 and broker.connected, "all connections have come back")
        await all_come(broker, handler, queues)

        # What is free again is used again.
        for queue in queues[::2]:
            await broker.unsubscribe(queue)
        links = len(links_of(broker))
        for queue in queues[::2]:
            await broker.subscribe(queue, handler, prefetch=10)
        await all_come(broker, handler, queues)
        assert len(links_of(broker)) == links
        assert not lasting.done()
        await end_tasks([lasting])


def links_of(broker: Broker) -> list[object]:
    """Its connections that consume."""
    return [*broker._consumers.links]  # pyright: ignore[reportPrivateUsage]


async def all_come(broker: Broker, handler: Handler, queues: list[str]) -> None:
    """A message that is put into each queue comes."""
    handler.done.clear()
    await asyncio.gather(*(broker.publish(queue.encode(), queue) for queue in queues))
    await wait_until(lambda: {body.decode() for body in handler.done} >= {*queues}, "a message from each")


async def test_lanes_may_come_and_go_for_ever(few_channels: str, handler: Handler) -> None:
    handler.go_on.set()
    async with connected(few_channels, lanes=LANES) as broker:
        await broker.subscribe(QUEUES[0], handler, prefetch=1)
        for number in range(2 * FEW_CHANNELS):
            await broker.subscribe(QUEUES[(number + 1) % 2], handler, prefetch=1)
            await broker.unsubscribe(QUEUES[number % 2])
        await broker.publish(b"goes on", QUEUES[0])
        await wait_until(lambda: handler.done, "a message")
        assert broker.connects == 1
