"""Workers come and go as the dispatchers say, under a load that changes: none is lost, and none comes for nothing."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy.local import Services, simulated
from deploy.simulator.process import Simulator
from dispatcher.wanted import PLACES_USED
from schemas.runtime.results import now_ms
from tests.support.autoscaler import Autoscaler
from tests.support.fleet import QUICK, Answer, Client, wait_until

BTC = {"symbol": "BTC/USDT"}
BUDGET_PER_S = 10  # of Coinbase
LATENCY_S = 2.0
PLACES = 12


def useful(answers: list[Answer]) -> int:
    """How many workers have places for what the limit lets be under way: calls, as long as they take here, and a second
    before that."""
    took_s = sorted(
        tried.exchange_ms / 1000 for answer in answers for tried in answer.result.attempts if tried.exchange_ms
    )
    usual_s = took_s[len(took_s) * 9 // 10]
    return math.ceil(BUDGET_PER_S * (usual_s + 1.0) / (PLACES * PLACES_USED))


class Load:
    """Asks for tickers, at a rate that may change."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.per_s = 2.0
        self.patience_ms = 60_000
        self.sent: list[str] = []  # by their correlation ids

    async def run(self) -> None:
        due_s = time.monotonic()
        while True:
            request = {"method": "fetch_ticker", "args": BTC, "deadline_ms": now_ms() + self.patience_ms}
            self.sent.append(await self._client.send(request))
            due_s = max(due_s + 1 / self.per_s, time.monotonic() - 1.0)
            await asyncio.sleep(due_s - time.monotonic())


@pytest.fixture
async def fleet(vhost: str, redis_url: str, tmp_path: Path) -> AsyncIterator[tuple[Services, Simulator]]:
    """Yield two dispatchers and a worker with few places, and a slow exchange."""
    async with Simulator(exchanges=["coinbase"]) as simulator:
        await simulator.fault("coinbase", latency_ms=LATENCY_S * 1000)
        config = {**simulated(simulator.urls), **QUICK}
        config["dispatcher"] = {**QUICK["dispatcher"], "stalled_after_s": 10.0, "probe_every_s": 600.0}
        config["worker"] = {"in_flight": PLACES, "http_timeout_s": 10.0}
        services = Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, dispatchers=2, workers=1)
        async with services as fleet:
            yield fleet, simulator


def after(seconds: float) -> Callable[[], bool]:
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() >= end_s


async def test_workers_come_and_go_with_what_the_budget_can_use(fleet: tuple[Services, Simulator], vhost: str) -> None:
    services, simulator = fleet
    async with Client.on(vhost) as client:
        load = Load(client)
        asking = asyncio.create_task(load.run())
        scaler = Autoscaler(services, most=12, every_s=1.0, up=4, down=15)
        try:
            await scaler.run(lambda: len(load.sent) > 24)
            assert set(scaler.counts) == {1}, "\n".join(scaler.said)
            load.per_s = 6.0  # three times as much, which the limit allows
            await wait_for_more(scaler, 2)
            before_the_crowd = len(load.sent)
            load.per_s, load.patience_ms = 25.0, 8_000  # more than it allows: nobody can help there
            await scaler.run(after(12))
            load.per_s, load.patience_ms = 1.0, 60_000
            async with asyncio.timeout(120):
                await scaler.run(lambda: len(scaler.running) == 1)
        finally:
            asking.cancel()
        steps = [later - earlier for earlier, later in itertools.pairwise(scaler.counts) if later != earlier]
        turns = [rises for rises, _ in itertools.groupby(steps, key=lambda step: step > 0)]
        assert turns == [True, False], "\n".join(scaler.said)  # up, then down: no flapping
        assert any("no room in the budget of coinbase" in said for said in scaler.said)
        answers = [await client.answer(sent, timeout_s=90) for sent in load.sent]
        assert 2 <= max(scaler.counts) <= useful(answers), "\n".join(scaler.said)
        assert [answer for answer in answers[:before_the_crowd] if answer.code] == []
        assert {answer.code for answer in answers} == {None, "deadline_exceeded"}  # of the crowd
        assert all(len(client.answers[sent]) == 1 for sent in load.sent)
        gone = [worker for worker in services.workers if worker not in scaler.running]
        await wait_until(lambda: not any(worker.running for worker in gone), "those that were told to stop have ended")
        assert {worker.exit_code for worker in gone} == {0}
    assert (await simulator.counters())["violations"] == 0


async def wait_for_more(scaler: Autoscaler, count: int) -> None:
    """Lets it scale until so many run, and then for some seconds more."""
    async with asyncio.timeout(90):
        await scaler.run(lambda: len(scaler.running) >= count)
    await scaler.run(after(6))
