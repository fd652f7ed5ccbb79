"""The door to RabbitMQ against what aio-pika and the broker do at their worst."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aio_pika
import pytest

from deploy.processes import free_port
from deploy.servers import RabbitMQ
from schemas import topology
from schemas.config import BrokerConfig
from schemas.errors import BrokerLost, ConfigError, Refused, TopologyError, Unroutable
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery, lost
from tests.support.fleet import wait_until
from tests.support.tcp_proxy import Proxy

QUICK = {"heartbeat_s": 2, "timeout_s": 1.0, "patience_s": 10.0}


def config(*urls: str, **changes: float) -> BrokerConfig:
    return BrokerConfig(urls=urls, **{**QUICK, **changes})  # type: ignore[arg-type]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@asynccontextmanager
async def connected(*urls: str, lanes: tuple[str, ...] = (), **changes: float) -> AsyncGenerator[Broker, None]:
    broker = Broker(config(*urls, **changes), "test", list(lanes))
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


@pytest.fixture
async def proxy(vhost: str) -> AsyncIterator[Proxy]:
    async with Proxy.before(port_of(vhost)) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy, vhost: str) -> str:
    """The vhost's URL through the proxy."""
    head, _, tail = vhost.rpartition(":")
    return f"{head}:{proxy.port}/{tail.partition('/')[2]}"


@pytest.fixture
async def admin(vhost: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(vhost) as connection:
        yield await connection.channel()


class Handler:
    """Takes deliveries, finishes each when it is let, and acknowledges."""

    def __init__(self) -> None:
        self.begun: list[Delivery] = []
        self.done: list[bytes] = []
        self.go_on = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.begun.append(delivery)
        await self.go_on.wait()
        self.done.append(delivery.body)
        await delivery.ack()


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


async def test_the_connection_comes_back_as_often_as_it_is_cut(through: str, proxy: Proxy, handler: Handler) -> None:
    handler.go_on.set()
    async with connected(through) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=10)
        for number in range(5):
            proxy.cut()
            await broker.publish(b"%d" % number, topology.RETURNED)
            await wait_until(lambda number=number: b"%d" % number in handler.done, "a message after the cut")  # type: ignore[misc]


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


async def test_who_is_cancelled_while_publishing_is_cancelled(through: str, proxy: Proxy) -> None:
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


async def test_a_deleted_queue_is_declared_and_consumed_again(
    vhost: str, handler: Handler, admin: aio_pika.abc.AbstractChannel
) -> None:
    handler.go_on.set()
    async with connected(vhost, lanes=("okx",)) as broker:
        await broker.subscribe("fleet.work.okx", handler, prefetch=10)
        await admin.queue_delete("fleet.work.okx")

        async def arrives() -> bool:
            try:
                await broker.publish(b"again", "okx", exchange=topology.WORK)
            except Unroutable:
                return False
            return bool(handler.done)

        await wait_until(arrives, "a message through the new queue", every_s=0.1)


async def test_a_queue_of_our_own_comes_back_with_the_connection(through: str, proxy: Proxy, handler: Handler) -> None:
    handler.go_on.set()
    async with connected(through) as broker:
        await broker.subscribe(None, handler, prefetch=0, exchange=topology.REPORTS)
        for number in range(2):

            async def arrives(body: bytes = b"%d" % number) -> bool:
                await broker.publish(body, "", exchange=topology.REPORTS, persistent=False, mandatory=False)
                return body in handler.done

            await wait_until(arrives, "a report")
            proxy.cut()


async def test_acts_aside_share_a_channel_unless_one_goes_wrong_or_they_overlap(through: str, proxy: Proxy) -> None:
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


async def test_a_queue_with_other_arguments_is_named(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    await admin.declare_queue(topology.RETURNED, durable=True, arguments={"x-queue-type": "classic"})
    with pytest.raises(TopologyError, match=topology.RETURNED):
        async with connected(vhost):
            pass


async def test_a_queue_that_changes_under_us_is_taken_back_when_it_is_mended(
    vhost: str, handler: Handler, admin: aio_pika.abc.AbstractChannel, caplog: pytest.LogCaptureFixture
) -> None:
    handler.go_on.set()
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=10)
        with caplog.at_level(logging.ERROR):
            for _ in range(50):  # a race with the door, which declares it anew
                await admin.queue_delete(topology.RETURNED)
                try:
                    await admin.declare_queue(topology.RETURNED, durable=True)
                    break
                except aio_pika.exceptions.ChannelPreconditionFailed:
                    await admin.reopen()
            await wait_until(lambda: "broker_does_not_take_us_back" in caplog.text, "a word about it")
        await admin.queue_delete(topology.RETURNED)

        async def arrives() -> bool:
            try:
                await broker.publish(b"again", topology.RETURNED)
            except Unroutable:
                return False
            return bool(handler.done)

        await wait_until(arrives, "a message through the mended queue", every_s=0.1)


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


async def test_what_comes_after_all_is_not_handled_by_who_leaves(
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


async def test_who_leaves_a_broker_that_went_silent_leaves_all_the_same(
    proxy: Proxy, through: str, handler: Handler
) -> None:
    """aiormq cancels all that waits on a connection that died of silence, as if somebody had cancelled them."""
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


async def test_a_wrong_password_is_said_without_the_password(vhost: str) -> None:
    with pytest.raises(ConfigError) as raised:
        async with connected(vhost.replace("guest:guest@", "guest:s3cr3t@")):
            pass
    assert "127.0.0.1" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


async def test_a_vhost_that_is_not_there_is_said(vhost: str) -> None:
    with pytest.raises((ConfigError, BrokerLost), match="at 127"):
        async with connected(f"{vhost}-not-there", patience_s=0.5):
            pass


async def test_a_broker_that_is_not_there_is_given_up_after_a_while() -> None:
    port = free_port()
    with pytest.raises(BrokerLost, match=str(port)):
        async with connected(f"amqp://guest:guest@127.0.0.1:{port}/", patience_s=0.5):
            pass


async def test_a_broker_that_accepts_and_says_nothing_is_given_up_after_a_while(through: str, proxy: Proxy) -> None:
    proxy.freeze()
    with pytest.raises(BrokerLost):
        async with connected(through, timeout_s=0.3, patience_s=0.5):
            pass
    proxy.thaw()


async def test_a_connection_that_does_not_come_back_is_given_up_after_a_while(vhost: str) -> None:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy.before(port_of(vhost)))
        async with connected(f"amqp://guest:guest@127.0.0.1:{proxy.port}/", give_up_s=0.5) as broker:
            await stack.aclose()  # nobody listens there any more
            await wait_until(lambda: not broker.connected, "the loss is noticed")
            with pytest.raises(BrokerLost, match=str(proxy.port)):
                await broker.lasts()


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


async def test_who_is_busy_does_not_starve(vhost: str, handler: Handler) -> None:
    async with connected(vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=1)
        for _ in range(2):
            await broker.publish(b"work", topology.RETURNED)
        await wait_until(lambda: handler.begun, "a delivery")
        assert await broker.starving(quiet_s=0) == []
        handler.go_on.set()


async def test_the_first_url_that_answers_is_used(vhost: str, handler: Handler) -> None:
    handler.go_on.set()
    async with connected(f"amqp://guest:guest@127.0.0.1:{free_port()}/", vhost) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=1)
        await broker.publish(b"here", topology.RETURNED)
        await wait_until(lambda: handler.done, "a message")


async def test_processes_do_not_all_try_the_same_node_first(vhost: str) -> None:
    async with Proxy.before(port_of(vhost)) as one, Proxy.before(port_of(vhost)) as other:
        urls = [vhost.replace(f":{port_of(vhost)}/", f":{proxy.port}/") for proxy in (one, other)]
        for _ in range(20):  # two connections each: once in 500 billion times all of them take the same one
            async with connected(*urls):
                pass
        assert one.accepted
        assert other.accepted


async def test_when_one_node_goes_the_other_takes_over(vhost: str, through: str, proxy: Proxy) -> None:
    async with connected(through, vhost) as broker:
        await broker.publish(b"through the first", topology.RETURNED)
        proxy.freeze()
        proxy.cut()
        for _ in range(3):
            await broker.publish(b"through the other", topology.RETURNED)
        proxy.thaw()


async def test_a_broker_short_of_memory_is_said_to_block_us_and_goes_on(
    rabbitmq: RabbitMQ, vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "schemas.runtime.broker")
    async with connected(vhost) as broker:
        await broker.publish(b"before", topology.RETURNED)
        assert not broker.blocked
        await rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            publishing = asyncio.create_task(broker.publish(b"held back", topology.RETURNED))
            await wait_until(lambda: broker.blocked, "the alarm is heeded")
            assert not publishing.done()
        finally:
            await rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
        await publishing
        await wait_until(lambda: not broker.blocked, "the alarm is over")
    said = [record.message for record in caplog.records]
    assert [name for name in said if name in ("broker_blocks_us", "broker_takes_again")] == [
        "broker_blocks_us",
        "broker_takes_again",
    ]


async def test_what_aiormq_raises_of_a_dead_connection_is_told_from_faults_of_ours() -> None:
    # A bare Exception is what a connection without a reason rejects its publishes with (aiormq 7.2.4, base.py).
    for error in (Exception(), TimeoutError(), ConnectionResetError(), asyncio.CancelledError()):
        assert lost(error), error
    for error in (ValueError(), KeyError(), BrokerLost("our own")):
        assert not lost(error), error
