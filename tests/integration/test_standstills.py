"""A dispatcher stands still and goes on, as when its machine is paused: what it did not hear meanwhile says nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aio_pika.abc import AbstractIncomingMessage

from deploy.local import Service, Services, simulated
from deploy.simulator.process import Simulator
from schemas import topology
from schemas.config import DispatcherConfig
from schemas.reports import decode_report
from schemas.runtime.results import now_ms
from tests.support.fleet import QUICK, Answer, Client, wait_until
from tests.support.tcp_proxy import Proxy

OKX: dict[str, Any] = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}, "exchanges": ["okx"]}
PLACES = 5
OUTSTANDING = 40
SILENT_AFTER_S = DispatcherConfig().silent_after_s


@asynccontextmanager
async def slow_fleet(url: str, redis_url: str, folder: Path) -> AsyncGenerator[Services, None]:
    """A dispatcher and a worker with few places, on a slow exchange: most attempts lie in the lane's queues."""
    async with Simulator(exchanges=["okx"]) as simulator:
        config = {**simulated(simulator.urls), "broker": QUICK["broker"]}
        config["dispatcher"] = {"stalled_after_s": 10.0, "probe_every_s": 600.0}
        config["worker"] = {"in_flight": PLACES}
        services = Services(folder, config, broker_url=url, redis_url=redis_url, workers=1)
        async with services as fleet:
            await simulator.fault("okx", latency_ms=1_000)
            yield fleet


@pytest.fixture
async def fleet(vhost: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Yield a slow fleet."""
    async with slow_fleet(vhost, redis_url, tmp_path) as fleet:
        yield fleet


def states(dispatcher: Service) -> list[str]:
    """What its log says of the lane's state."""
    return [line for line in dispatcher.log.read_text(encoding="utf-8").splitlines() if "lane_state" in line]


async def wants_more(dispatcher: Service) -> bool:
    """Whether more than one worker could be used, as it says."""
    return int((await dispatcher.status())["workers_wanted"]) > 1


async def queued(client: Client) -> list[str]:
    """Sends bulk requests, until most of their attempts lie in the lane's queue; gives their ids."""
    bulk = [
        await client.send({**OKX, "priority": "bulk", "deadline_ms": now_ms() + 120_000}) for _ in range(OUTSTANDING)
    ]

    async def most() -> bool:
        found = await client.channel.declare_queue(topology.work_name("okx", bulk=True), passive=True)
        return (found.declaration_result.message_count or 0) > OUTSTANDING / 2

    await wait_until(most, "most attempts lie in the lane's queue")
    return bulk


@asynccontextmanager
async def busy(client: Client) -> AsyncGenerator[None, None]:
    """So many live requests are always outstanding."""

    async def ask() -> None:
        while True:
            sent = await client.send({**OKX, "deadline_ms": now_ms() + 120_000})
            await client.answer(sent, timeout_s=120)

    asking = [asyncio.create_task(ask()) for _ in range(OUTSTANDING)]
    try:
        yield
    finally:
        for each in asking:
            each.cancel()


@asynccontextmanager
async def still(dispatcher: Service, client: Client, *, reports: int) -> AsyncGenerator[None, None]:
    """The dispatcher stands still, until the worker has reported so often, five times a second, and to the end."""
    heard = Counter[str]()

    async def take(message: AbstractIncomingMessage) -> None:
        heard[decode_report(message.body).worker] += 1

    queue = await client.channel.declare_queue(exclusive=True)
    await queue.bind(topology.REPORTS)
    dispatcher.freeze()
    try:
        tag = await queue.consume(take, no_ack=True)
        await wait_until(lambda: max(heard.values(), default=0) >= reports, "the worker has reported", timeout_s=60)
        yield
    finally:
        dispatcher.thaw()
    await queue.cancel(tag)


def words(answer: Answer) -> str:
    """All that was said of a request."""
    said = [tried.message for tried in answer.result.attempts]
    return " ".join([*said, answer.result.error.message if answer.result.error else ""])


@pytest.mark.parametrize("reports", [15, 100], ids=["still connected", "cut off by RabbitMQ"])
async def test_a_dispatcher_that_stood_still_takes_no_lane_for_silent(
    fleet: Services, vhost: str, reports: int
) -> None:
    (dispatcher,) = fleet.dispatchers
    before = states(dispatcher)
    async with Client.on(vhost) as client:
        bulk = await queued(client)
        async with still(dispatcher, client, reports=reports):
            late = [await client.send({**OKX, "deadline_ms": now_ms() + 900}) for _ in range(20)]
        answers = [await client.answer(id_, timeout_s=120) for id_ in [*late, *bulk]]
        assert [answer for answer in answers if "offline" in words(answer) or "was set aside" in words(answer)] == []
        assert {answer.code for answer in answers[len(late) :]} == {None}
        assert "attempts_taken_back" not in dispatcher.log.read_text(encoding="utf-8")
        assert states(dispatcher) == before


async def test_a_dispatcher_without_rabbitmq_takes_no_lane_for_silent(
    vhost: str, through: str, proxy: Proxy, redis_url: str, tmp_path: Path
) -> None:
    async with slow_fleet(through, redis_url, tmp_path) as fleet, Client.on(vhost) as client:
        (dispatcher,) = fleet.dispatchers
        before = states(dispatcher)
        bulk = await queued(client)
        async with busy(client):
            await wait_until(lambda: wants_more(dispatcher), "one worker is not enough", timeout_s=60)
            proxy.freeze()
            proxy.cut()
            await asyncio.sleep(2 * SILENT_AFTER_S)
            assert await wants_more(dispatcher)
            proxy.thaw()
            answers = [await client.answer(id_, timeout_s=120) for id_ in bulk]
        assert {answer.code for answer in answers} == {None}
        assert "attempts_taken_back" not in dispatcher.log.read_text(encoding="utf-8")
        assert states(dispatcher) == before


async def test_a_dispatcher_that_stood_still_wants_no_fewer_workers(fleet: Services, vhost: str) -> None:
    (dispatcher,) = fleet.dispatchers
    async with Client.on(vhost) as client, busy(client):
        await wait_until(lambda: wants_more(dispatcher), "one worker is not enough", timeout_s=60)
        for _ in range(3):
            async with still(dispatcher, client, reports=15):
                pass
            assert all([await wants_more(dispatcher) for _ in range(200)])
