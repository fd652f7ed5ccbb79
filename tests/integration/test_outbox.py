"""Reply queues that take nothing: where their results go, and that no other client is harmed."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from deploy.servers import RabbitMQ
from schemas import topology
from schemas.config import BrokerConfig
from schemas.errors import BrokerLost
from schemas.messages import JSON
from schemas.runtime import outbox
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery
from schemas.runtime.outbox import Outbox
from schemas.runtime.results import Ready, now_ms
from tests.support.fleet import Client, Stand, wait_until

TICKER: dict[str, object] = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}, "exchanges": ["binance"]}
ETH = {"symbol": "ETH/USDT"}
# More than the slots of two workers for one lane, and than those of a dispatcher.
MANY = 450
MORE = 600
GOOD = 20


@asynccontextmanager
async def full(channel: AbstractChannel, name: str, **arguments: Any) -> AsyncGenerator[str, None]:
    """A queue that refuses all that comes."""
    queue = await channel.declare_queue(name, arguments={"x-overflow": "reject-publish", **arguments})
    await channel.default_exchange.publish(aio_pika.Message(b"full"), name)
    yield name
    await queue.delete(if_unused=False, if_empty=False)


@asynccontextmanager
async def silent(
    rabbitmq: RabbitMQ, channel: AbstractChannel, url: str, name: str, kind: str
) -> AsyncGenerator[str, None]:
    """A queue that confirms nothing: its process stands still, as in a cluster without a leader for it."""
    queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": kind})
    await rabbitmq.eval(_process_of(url, name, "sys:suspend"))
    try:
        yield name
    finally:
        await resume(rabbitmq, url, name)
        await queue.delete(if_unused=False, if_empty=False)


async def resume(rabbitmq: RabbitMQ, url: str, name: str) -> None:
    """The queue's process goes on."""
    await rabbitmq.eval(_process_of(url, name, "sys:resume"))


def _process_of(url: str, queue: str, call: str) -> str:
    resource = f'rabbit_misc:r(<<"{url.rpartition("/")[2]}">>, queue, <<"{queue}">>)'
    return f"{{ok, Queue}} = rabbit_amqqueue:lookup({resource}), {call}(amqqueue:get_pid(Queue))."


async def tickers(stand: Stand) -> int:
    """How many of them Binance has counted: probes ask other things meanwhile."""
    endpoints = (await stand.simulator.counters())["exchanges"]["binance"]["endpoints"]
    return sum(count for endpoint, count in endpoints.items() if "ticker" in endpoint)


async def ask_beside(stand: Stand, bad: list[str]) -> int:
    """Twenty good clients ask the same lane until the results of the bad one are out; says how often they asked."""
    asked, answers = 0, stand.client.answers
    async with AsyncExitStack() as stack:
        good = [await stack.enter_async_context(Client.on(stand.url, topology=False)) for _ in range(GOOD)]
        while not asked or not all(answers.get(each) for each in bad):
            # Other tests may have used up the exchange's minute: all are answered in the next one.
            request = {**TICKER, "args": ETH, "deadline_ms": now_ms() + 75_000}
            sent = [await each.send(request) for each in good]
            answered = [await each.answer(name, timeout_s=80) for each, name in zip(good, sent, strict=True)]
            assert all(each.result.ok for each in answered), answered
            asked += len(answered)
            await asyncio.sleep(0.3)  # a pace that the limit allows
    return asked


async def nothing_waits(stand: Stand) -> bool:
    workers = await stand.metric(stand.fleet.workers, "fleet_worker_results_waiting_bytes")
    return not workers + await stand.metric(stand.fleet.dispatchers, "fleet_dispatcher_results_waiting_bytes")


@pytest.mark.parametrize(("limit", "value"), [("x-max-length", 1), ("x-max-length-bytes", 4)])
async def test_a_full_reply_queue_harms_no_other_client_and_each_answer_is_bought_once(
    stand: Stand, limit: str, value: int
) -> None:
    client = stand.client
    async with full(client.channel, f"full {limit}", **{limit: value}) as name:
        before = await tickers(stand)
        bad = [await client.send(TICKER | {"deadline_ms": now_ms() + 600_000}, reply_to=name) for _ in range(MANY)]
        asked = await ask_beside(stand, bad)
    # The results are where they would be if the queue were gone, once each.
    assert Counter(len(client.answers[each]) for each in bad) == {1: MANY}
    assert {client.answers[each][0].key for each in bad} == {"binance.fetch_ticker.ok"}
    assert await tickers(stand) - before == MANY + asked
    assert await stand.metric(stand.fleet.workers, "fleet_worker_results_diverted_total", "refused") >= MANY
    await wait_until(lambda: nothing_waits(stand), "nothing waits any more")


async def test_errors_for_a_full_reply_queue_fill_no_dispatcher(stand: Stand) -> None:
    client = stand.client
    async with full(client.channel, "full of errors", **{"x-max-length": 1}) as name:
        bad = [await client.send(TICKER | {"exchanges": ["nowhere"]}, reply_to=name) for _ in range(MORE)]
        await ask_beside(stand, bad)
    assert {answer.code for each in bad for answer in client.answers[each]} == {"unknown_exchange"}


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_a_silent_reply_queue_harms_no_other_client(stand: Stand, kind: str) -> None:
    client, name = stand.client, f"silent {kind}"
    async with silent(stand.rabbitmq, client.channel, stand.url, name, kind):
        before = await tickers(stand)
        bad = [await client.send(TICKER | {"deadline_ms": now_ms() + 600_000}, reply_to=name) for _ in range(MANY)]
        asked = await ask_beside(stand, bad)
        assert await tickers(stand) - before == MANY + asked
        assert await stand.metric(stand.fleet.workers, "fleet_worker_results_diverted_total", "silent")


class World:
    """An outbox on a broker of its own. What lies in `fleet.returned` is answered through it.

    Attributes:
        diverted: why results went to `fleet.results`.
        begun: the bodies of all messages that came.
        done: the bodies of those that are settled.
    """

    def __init__(self, broker: Broker, admin: AbstractChannel) -> None:
        self.broker = broker
        self.admin = admin
        self.diverted: list[str] = []
        self.outbox = Outbox(broker, self.diverted.append)
        self.begun: list[bytes] = []
        self.done: list[bytes] = []

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str, *, patience_s: float = 60.0) -> AsyncGenerator["World", None]:
        """One whose publications are given up after so long."""
        broker = Broker(BrokerConfig(urls=(url,), patience_s=patience_s), "test", [])
        async with await aio_pika.connect(url) as connection:
            world = cls(broker, await connection.channel())
            await broker.start()
            try:
                yield world
            finally:
                await broker.close()

    async def serve(self, prefetch: int) -> None:
        """Answers from now on."""
        await self.broker.subscribe(topology.RETURNED, self._answer, prefetch=prefetch)

    async def ask(self, reply_to: str, *bodies: bytes) -> None:
        """Messages whose answers, the same, go there."""
        for body in bodies:
            message = aio_pika.Message(body, reply_to=reply_to, delivery_mode=2)
            await self.admin.default_exchange.publish(message, topology.RETURNED)

    async def lies_in(self, name: str) -> list[bytes]:
        """What is in a queue, which is empty then."""
        queue = await self.admin.get_queue(name)
        bodies: list[bytes] = []
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            bodies.append(message.body)
        return bodies

    async def consumers(self) -> int:
        """How many consumers it has."""
        return await self.broker.consumers(topology.RETURNED)

    async def _answer(self, delivery: Delivery) -> None:
        self.begun.append(delivery.body)
        reply_to = delivery.properties.reply_to or ""
        await self.outbox.put(Ready("id", reply_to, "none.fetch_time.ok", delivery.body, JSON, ""), delivery)
        await delivery.ack()
        self.done.append(delivery.body)


async def test_a_queue_that_has_room_in_time_gets_its_results(vhost: str) -> None:
    async with World.at(vhost) as world, full(world.admin, "full", **{"x-max-length": 1}) as name:
        await world.serve(10)
        await world.ask(name, b"mine")
        await wait_until(lambda: world.begun, "it waits")
        await (await world.admin.get_queue(name)).purge()
        await wait_until(lambda: world.done, "it is out")
        assert await world.lies_in(name) == [b"mine"]
        assert not world.diverted


async def test_a_queue_that_was_passed_over_gets_its_results_again(vhost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World.at(vhost) as world, full(world.admin, "full", **{"x-max-length": 1}) as name:
        await world.serve(10)
        await world.ask(name, b"no room")
        await wait_until(lambda: world.done, "it is in fleet.results")
        await world.ask(name, b"at once")
        await wait_until(lambda: len(world.done) == 2, "so is the next one")
        assert world.diverted == ["refused", "refused"]
        assert await world.lies_in(topology.RESULTS) == [b"no room", b"at once"]
        await (await world.admin.get_queue(name)).purge()

        async def taken() -> bool:
            await world.ask(name, b"again")
            return b"again" in await world.lies_in(name)

        await wait_until(taken, "one comes to it again", every_s=0.2)


async def test_a_silent_queue_gets_results_again_when_it_has_confirmed_what_it_got(
    rabbitmq: RabbitMQ, vhost: str
) -> None:
    async with World.at(vhost) as world:
        await world.serve(10)
        async with silent(rabbitmq, world.admin, vhost, "silent", "quorum") as name:
            await world.ask(name, b"first")
            others = await world.admin.declare_queue("others", exclusive=True)

            async def out() -> bool:
                await world.ask(others.name, b"other")  # what RabbitMQ confirms meanwhile
                return b"first" in world.done

            await wait_until(out, "it is in fleet.results", every_s=0.2)
            await world.ask(name, b"second")
            await wait_until(lambda: b"second" in world.done, "so is the next one, at once")
            assert world.diverted == ["silent", "silent"]
            assert await world.lies_in(topology.RESULTS) == [b"first", b"second"]
            await resume(rabbitmq, vhost, name)

            async def taken() -> bool:
                await world.ask(name, b"third")
                return b"third" in await world.lies_in(name)

            await wait_until(taken, "one comes to it again", every_s=0.2)


async def test_a_queue_that_is_gone_is_looked_for_each_time(vhost: str) -> None:
    async with World.at(vhost) as world:
        await world.serve(10)
        await world.ask("mine", b"nobody")
        await wait_until(lambda: world.done, "it is out")
        await world.admin.declare_queue("mine", exclusive=True)
        await world.ask("mine", b"somebody")
        await wait_until(lambda: len(world.done) == 2, "it is out")
        assert await world.lies_in(topology.RESULTS) == [b"nobody"]
        assert await world.lies_in("mine") == [b"somebody"]
        assert not world.diverted


async def test_what_is_on_its_way_out_holds_no_slot_and_is_unsettled(vhost: str) -> None:
    bodies = [b"%d" % number for number in range(100)]
    async with World.at(vhost) as world, full(world.admin, "full", **{"x-max-length": 1}) as name:
        await world.ask(name, *bodies)
        await world.serve(8)
        await wait_until(lambda: len(world.begun) - len(world.done) > 50, "many more are held than its prefetch")
        await wait_until(lambda: len(world.done) == len(bodies), "all are out")
        assert Counter(world.begun) == Counter(await world.lies_in(topology.RESULTS)) == Counter(bodies)

        async def one_consumer() -> bool:
            return await world.consumers() == 1

        await wait_until(one_consumer, "the consumers that made up for them are gone", timeout_s=60)


@pytest.mark.parametrize(("bound", "most"), [("ROOM_COUNT", 10), ("ROOM_BYTES", 10 * 2 * 1_000)])
async def test_while_rabbitmq_takes_nothing_what_waits_is_bounded_and_kept(
    rabbitmq: RabbitMQ,
    vhost: str,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    most: int,
) -> None:
    monkeypatch.setattr(outbox, bound, most)
    prefetch, bodies = 20, [b"%d" % number + b"." * 990 for number in range(100, 160)]
    async with World.at(vhost, patience_s=1.0) as world:
        await world.admin.declare_queue("mine", exclusive=True)
        await world.ask("mine", *bodies)
        await rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            await world.serve(prefetch)
            await wait_until(lambda: len(world.begun) >= prefetch + 8, "no more are taken")
            with pytest.raises(BrokerLost):  # all other publications are given up by now
                await world.broker.publish(b"", "", exchange=topology.REPORTS, mandatory=False)
            assert world.outbox.count <= 10
            assert world.outbox.size_bytes <= 20_000
            assert len(world.begun) <= prefetch + 10 + 8
            assert not world.done
        finally:
            await rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
        await wait_until(lambda: len(world.done) == len(bodies), "all are out")
        # Nothing was given back, and what RabbitMQ held back was not taken for a queue that takes nothing.
        assert Counter(world.begun) == Counter(await world.lies_in("mine")) == Counter(bodies)
        assert not world.diverted


async def test_results_wait_for_fleet_results_and_it_is_declared_again(vhost: str) -> None:
    async with World.at(vhost) as world:
        await (await world.admin.get_queue(topology.RESULTS)).delete(if_unused=False, if_empty=False)
        await world.serve(10)
        await world.ask("", b"one", b"two")
        await wait_until(lambda: len(world.done) == 2, "they are out")
        assert sorted(await world.lies_in(topology.RESULTS)) == [b"one", b"two"]
        assert len(world.begun) == 2
