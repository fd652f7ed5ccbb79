"""Handlers and deliveries when aio-pika and RabbitMQ are at their worst."""

import asyncio

import pytest

from schemas import topology
from schemas.errors import BrokerLost
from schemas.runtime.deliveries import Delivery
from tests.support.broker import Handler, connected
from tests.support.fleet import wait_until
from tests.support.tcp_proxy import Proxy


@pytest.fixture
def handler() -> Handler:
    return Handler()


async def test_a_handler_outlives_its_connection_and_the_message_comes_again(
    through: str, proxy: Proxy, handler: Handler
) -> None:
    async with connected(through) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=10)
        await broker.publish(b"work", topology.RETURNED)
        await wait_until(lambda: handler.begun, "a delivery")
        proxy.cut()
        await wait_until(lambda: len(handler.begun) == 2, "the message again")
        assert handler.begun[1].redelivered
        assert not handler.done
        handler.go_on.set()
        await wait_until(lambda: len(handler.done) == 2, "both handlers end")
        # The first one's acknowledgement was void, the second one's counts: nothing is left.
        await broker.publish(b"next", topology.RETURNED)
        await wait_until(lambda: b"next" in handler.done, "the next message")
        assert handler.done == [b"work", b"work", b"next"]


async def test_it_holds_no_more_than_its_prefetch(vhost: str, handler: Handler) -> None:
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=3)
        await asyncio.gather(*(broker.publish(b"%d" % number, topology.RETURNED) for number in range(10)))
        await wait_until(lambda: len(handler.begun) == 3, "three deliveries")
        # A full round trip on the same connection later there is still no fourth.
        other = Handler()
        other.go_on.set()
        await broker.subscribe(None, other, prefetch=0, exchange=topology.REPORTS)
        await broker.publish(b"round trip", "", exchange=topology.REPORTS)
        await wait_until(lambda: other.done, "the round trip")
        assert len(handler.begun) == 3
        handler.go_on.set()
        await wait_until(lambda: len(handler.done) == 10, "the rest")


async def test_large_messages_wait_for_room_and_small_ones_do_not(
    vhost: str, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.runtime.broker.LARGE_HELD_BYTES", 100_000)
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=100)
        for number in range(10):
            await broker.publish(b"%d" % number + bytes(30_000), topology.RETURNED)
        await broker.publish(b"small", topology.RETURNED)
        await wait_until(lambda: b"small" in [each.body for each in handler.begun], "the small one")
        assert [each.body[:1] for each in handler.begun] == [b"0", b"1", b"2", b"s"]
        handler.begun[1].release()  # which counts elsewhere now
        await wait_until(lambda: len(handler.begun) == 5, "one more")
        handler.go_on.set()
        await wait_until(lambda: len(handler.done) == 11, "all in turn")


async def test_its_prefetch_can_be_changed_while_it_holds_some(vhost: str, handler: Handler) -> None:
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=2)
        for number in range(6):
            await broker.publish(b"%d" % number, topology.RETURNED)
        await wait_until(lambda: len(handler.begun) == 2, "two deliveries")
        await broker.resize(topology.RETURNED, 3)
        await wait_until(lambda: len(handler.begun) == 5, "three more: those it held do not count")
        handler.go_on.set()
        await wait_until(lambda: len(handler.done) == 6, "all")
        handler.go_on.clear()
        await broker.resize(topology.RETURNED, 1)
        for number in range(3):
            await broker.publish(b"more %d" % number, topology.RETURNED)
        await wait_until(lambda: len(handler.begun) == 7, "one delivery")
        await broker.publish(b"last", topology.RETURNED)
        assert len(handler.begun) == 7
        handler.go_on.set()
        await wait_until(lambda: len(handler.done) == 10, "all")


async def test_leaving_lets_handlers_finish_and_takes_no_more(vhost: str, handler: Handler) -> None:
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=5)
        await broker.publish(b"held", topology.RETURNED)
        await wait_until(lambda: handler.begun, "a delivery")
        await broker.stop_taking()
        await broker.publish(b"later", topology.RETURNED)
        draining = asyncio.create_task(broker.drain(grace_s=30))
        handler.go_on.set()
        await draining
        assert handler.done == [b"held"]
    again = Handler()
    again.go_on.set()
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, again, prefetch=5)
        await wait_until(lambda: again.done, "what came later")
        assert again.done == [b"later"]


async def test_a_message_that_still_comes_to_a_leaving_consumer_is_not_handled(
    proxy: Proxy, through: str, vhost: str, handler: Handler
) -> None:
    handler.go_on.set()
    async with connected(through) as broker, connected(vhost) as other:
        await broker.subscribe(topology.RETURNED, handler, prefetch=5)
        proxy.freeze()
        await other.publish(b"later", topology.RETURNED)
        await broker.stop_taking()  # the broker does not hear of it, and has sent it already
        proxy.thaw()
        await broker.drain(grace_s=1)
        await wait_until(lambda: broker.connected, "it is connected")
        assert not handler.begun
        await broker.close()
        again = Handler()
        again.go_on.set()
        await other.subscribe(topology.RETURNED, again, prefetch=5)
        await wait_until(lambda: again.done == [b"later"], "another handles it")
        assert not handler.begun


async def test_a_broker_that_went_silent_keeps_no_consumer_from_leaving(
    proxy: Proxy, through: str, handler: Handler
) -> None:
    """aiormq cancels whatever waits on a connection that missed its heartbeats."""
    async with connected(through, timeout_s=30.0) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=5)
        proxy.freeze()
        await asyncio.gather(broker.resize(topology.RETURNED, 7), broker.stop_taking())
        proxy.thaw()


async def test_a_handler_that_outlasts_the_grace_is_cancelled_and_its_message_comes_again(
    vhost: str, handler: Handler
) -> None:
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=5)
        await broker.publish(b"held", topology.RETURNED)
        await wait_until(lambda: handler.begun, "a delivery")
        await broker.stop_taking()
        await broker.drain(grace_s=0.01)
        assert not handler.done
    again = Handler()
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, again, prefetch=5)
        await wait_until(lambda: again.begun, "the message again")
        assert (again.begun[0].body, again.begun[0].redelivered) == (b"held", True)
        await broker.stop_taking()
        await broker.drain(grace_s=0.01)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), BrokerLost("no confirm"), asyncio.CancelledError()])
async def test_a_handler_that_fails_gives_its_message_back(vhost: str, error: BaseException) -> None:
    seen: list[bytes] = []

    async def fails_once(delivery: Delivery) -> None:
        seen.append(delivery.body)
        if len(seen) == 1:
            raise error
        await delivery.ack()

    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, fails_once, prefetch=1)
        await broker.publish(b"work", topology.RETURNED)
        await broker.publish(b"next", topology.RETURNED)
        await wait_until(lambda: b"next" in seen, "the next message")
        assert seen.count(b"work") == 2


async def test_what_always_fails_ends_in_the_dead_letters(vhost: str, handler: Handler) -> None:
    async def fails(_: Delivery) -> None:
        raise RuntimeError("a bug")

    handler.go_on.set()
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, fails, prefetch=1)
        await broker.subscribe(topology.DEAD, handler, prefetch=1)
        await broker.publish(b"kills", topology.RETURNED)
        await wait_until(lambda: handler.done, "the dead letter")
        assert handler.begun[0].death_reason == "delivery_limit"


async def test_a_consumer_that_gets_nothing_while_messages_wait_is_found(
    through: str, proxy: Proxy, handler: Handler
) -> None:
    handler.go_on.set()
    async with connected(through, heartbeat_s=60) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=10)
        await broker.publish(b"one", topology.RETURNED)
        await wait_until(lambda: handler.done, "a message")
        assert await broker.starving(quiet_s=0) == []  # nothing waits
        proxy.freeze(1)  # the connection that consumes
        for _ in range(11):  # the broker thinks that it has delivered ten
            await broker.publish(b"more", topology.RETURNED)
        assert await broker.starving(quiet_s=60) == []
        assert await broker.starving(quiet_s=0.01) == [topology.RETURNED]
        proxy.thaw()
        await wait_until(lambda: len(handler.done) == 12, "all messages")
        assert await broker.starving(quiet_s=0) == []


async def test_a_busy_consumer_is_not_taken_for_a_starving_one(vhost: str, handler: Handler) -> None:
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=1)
        for _ in range(2):
            await broker.publish(b"work", topology.RETURNED)
        await wait_until(lambda: handler.begun, "a delivery")
        assert await broker.starving(quiet_s=0) == []
        handler.go_on.set()
