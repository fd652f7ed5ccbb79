"""A lost connection comes back, on whichever node; one that can't be made is given up, with the reason."""

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Any

import aio_pika
import aiormq
import pytest
from aiormq.exceptions import ChannelInvalidStateError

from deploy.processes import free_port
from deploy.servers import RabbitMQ
from schemas import topology
from schemas.errors import BrokerLost, ConfigError, TopologyError, Unroutable
from schemas.runtime.amqp.channels import Channels
from schemas.runtime.amqp.link import Link
from schemas.runtime.tasks import lost
from tests.support.broker import Handler, config, connected, port_of
from tests.support.fleet import wait_until
from tests.support.tcp_proxy import Proxy


@pytest.fixture
def handler() -> Handler:
    return Handler()


async def test_the_connection_comes_back_as_often_as_it_is_cut(through: str, proxy: Proxy, handler: Handler) -> None:
    handler.go_on.set()
    async with connected(through) as broker:
        await broker.subscribe(topology.RETURNED, handler, prefetch=10)
        for number in range(5):
            proxy.cut()
            await broker.publish(b"%d" % number, topology.RETURNED)
            await wait_until(lambda number=number: b"%d" % number in handler.done, "a message after the cut")  # type: ignore[misc]


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


async def test_a_queue_with_other_arguments_is_named(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    await admin.declare_queue(topology.RETURNED, durable=True, arguments={"x-queue-type": "classic"})
    with pytest.raises(TopologyError, match=topology.RETURNED):
        async with connected(vhost):
            pass


async def test_a_queue_that_was_declared_otherwise_is_consumed_again_when_it_is_mended(
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
            await wait_until(lambda: "reconnect_refused" in caplog.text, "a word about it")
        await admin.queue_delete(topology.RETURNED)

        async def arrives() -> bool:
            try:
                await broker.publish(b"again", topology.RETURNED)
            except Unroutable:
                return False
            return bool(handler.done)

        await wait_until(arrives, "a message through the mended queue", every_s=0.1)


async def test_a_wrong_password_is_reported_without_the_password(vhost: str) -> None:
    with pytest.raises(ConfigError) as raised:
        async with connected(vhost.replace("guest:guest@", "guest:s3cr3t@")):
            pass
    assert "127.0.0.1" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


async def test_a_missing_vhost_is_named(vhost: str) -> None:
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


async def test_a_broker_short_of_memory_is_reported_as_blocking_and_goes_on(
    rabbitmq: RabbitMQ, vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "schemas.runtime.amqp.alarm")
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
    assert [name for name in said if name in ("publishing_blocked", "publishing_unblocked")] == [
        "publishing_blocked",
        "publishing_unblocked",
    ]


async def test_errors_of_a_dead_connection_are_told_from_faults_of_our_own() -> None:
    # A bare Exception is what a connection without a reason rejects its publishes with (aiormq 7.2.4, base.py).
    for error in (Exception(), TimeoutError(), ConnectionResetError(), asyncio.CancelledError()):
        assert lost(error), error
    for error in (ValueError(), KeyError(), BrokerLost("our own")):
        assert not lost(error), error


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_whose_opening_is_cancelled_as_it_opens_is_closed(
    vhost: str, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Who asked for it is cancelled as it is open, and hears of either only so many turns of the loop later."""
    made: list[aiormq.Connection] = []
    connect: Any = aiormq.Connection.connect  # pyright: ignore[reportUnknownVariableType]  (its decorator is not typed)

    async def cancelled_then(self: aiormq.Connection, *args: Any) -> Any:
        opened = await connect(self, *args)
        made.append(self)
        starting.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        return opened

    async def nothing(_: Channels) -> None:
        pass

    monkeypatch.setattr(aiormq.Connection, "connect", cancelled_then)
    link = Link(config(vhost), "given up", nothing, confirms=False)
    starting = asyncio.create_task(link.start())
    await asyncio.wait([starting])
    await link.close()
    assert made[0].is_closed


@pytest.mark.parametrize("turns", range(4))
async def test_nobody_waits_for_a_connection_that_was_ended_in_the_middle_of_a_burst(vhost: str, turns: int) -> None:
    """Most publishes wait until there is room among what is to be written, and then nobody writes any more."""
    channels = Channels(await aio_pika.connect(vhost), 5, confirms=True, on_loss=lambda: None)
    channel = await channels.open()
    publishing = [
        asyncio.create_task(channel.basic_publish(b"", routing_key=topology.RETURNED, wait=False)) for _ in range(200)
    ]
    for _ in range(turns):
        await asyncio.sleep(0)
    await channels.end()
    ended = await asyncio.wait_for(asyncio.gather(*publishing, return_exceptions=True), 30)
    assert any(isinstance(error, ChannelInvalidStateError) for error in ended)
