"""A worker that stood still, as on a paused machine: its exchanges are not to blame for what it did not read."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy.local import Service, Services, simulated
from deploy.simulator.process import Simulator
from schemas import topology
from schemas.config import WorkerConfig
from schemas.messages import Attempt, ErrorCode, Outcome, Request
from schemas.reports import LaneReport, decode_report
from schemas.runtime import results
from schemas.runtime.clock import clock_s
from schemas.runtime.standstill import Standstills
from schemas.runtime.tasks import end_tasks
from tests.support.exchange_lanes import Answers, CountedBudget, Lanes
from tests.support.fleet import QUICK, Client, opened, wait_until
from workers import attempts
from workers.budget.jitter import ENOUGH
from workers.direct.address import Place, take
from workers.exchange.clock import SigningClock
from workers.exchange.latency import FIRST

TIMEOUT_S = 4.0
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT")


class Fleet(NamedTuple):
    """One worker and one dispatcher, which takes no lane for silent here, and what the worker reports of OKX."""

    simulator: Simulator
    services: Services
    client: Client
    reports: list[LaneReport]

    @property
    def worker(self) -> Service:
        return self.services.workers[0]

    async def arrived(self) -> int:
        """How many calls OKX has got."""
        endpoints: dict[str, int] = (await self.simulator.counters())["exchanges"]["okx"]["endpoints"]
        return sum(endpoints.values())

    async def ask(self, latency_ms: int, *, still_s: float = 0.0) -> None:
        """Asks OKX for a ticker of each symbol at once; perhaps the worker stands still before the first answer."""
        await self.simulator.fault("okx", latency_ms=latency_ms)
        before = await self.arrived()
        requests: list[dict[str, Any]] = [
            {"method": "fetch_ticker", "args": {"symbol": symbol}, "exchanges": ["okx"]} for symbol in SYMBOLS
        ]
        sent = [await self.client.send(request) for request in requests]
        if still_s:
            await wait_until(lambda: self._all_out(before), "all calls are out", every_s=0.005)
            self.worker.freeze()
            time.sleep(still_s)  # noqa: ASYNC251 (nothing else is to happen)
            self.worker.thaw()
        for each in sent:
            answer = await self.client.answer(each)
            assert answer.result.ok, answer

    async def _all_out(self, before: int) -> bool:
        return await self.arrived() >= before + len(SYMBOLS)

    def set_aside(self) -> list[str]:
        """What the dispatcher's log says of its lane after it was healthy."""
        log = self.services.dispatchers[0].log.read_text(encoding="utf-8")
        states = [line for line in log.splitlines() if "lane_state" in line]
        return states[next(number for number, line in enumerate(states) if "state=healthy" in line) + 1 :]


@pytest.fixture
async def fleet(vhost: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with Simulator(exchanges=["okx"]) as simulator:
        config: dict[str, Any] = {**simulated(simulator.urls), **QUICK}
        config["dispatcher"] = {**config["dispatcher"], "silent_after_s": 30.0}
        config["worker"] = {**config["worker"], "http_timeout_s": TIMEOUT_S}
        services = Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1)
        async with services, Client.on(vhost) as client:
            await opened(services)
            reports: list[LaneReport] = []

            async def take(message: Any) -> None:
                reports.extend(decode_report(message.body).lanes)

            queue = await client.channel.declare_queue(exclusive=True)
            await queue.bind(topology.REPORTS)
            await queue.consume(take, no_ack=True)
            yield Fleet(simulator, services, client, reports)


async def test_calls_whose_time_passed_meanwhile_speak_against_nobody_and_are_made_again(fleet: Fleet) -> None:
    for latency_ms in (300, 300, 300, 1_000):  # four times slower all at once would be news
        await fleet.ask(latency_ms)
    assert not fleet.set_aside()
    await fleet.ask(1_000, still_s=TIMEOUT_S + 1)
    assert not fleet.set_aside()
    assert not [each for each in fleet.reports if each.failed or each.excused or each.failing]
    seen = await fleet.worker.metrics()
    assert seen["fleet_attempts_total", "expired", "okx", "throttled"] > 0, "no time-out passed"


async def test_answers_that_are_read_late_are_not_slow(fleet: Fleet) -> None:
    for _ in range(2 * FIRST // len(SYMBOLS)):
        await fleet.ask(300)
    await fleet.ask(300, still_s=TIMEOUT_S - 1.0)
    await fleet.ask(300)
    assert not fleet.set_aside()
    assert max(each.slowness for each in fleet.reports) < 4
    # What a report says that leaves before anything is read.
    assert max(each.silent_ms for each in fleet.reports) < 1_000


@pytest.fixture
async def standstills() -> AsyncIterator[Standstills]:
    """Yield those of this process."""
    standstills = Standstills()
    ticking = asyncio.create_task(standstills.run())
    yield standstills
    await end_tasks([ticking])


@pytest.mark.parametrize("busy_s", [0.0, 2.0])
async def test_a_call_whose_time_passes_while_the_loop_is_busy_is_not_the_exchange_s_failure(
    lanes: Lanes,
    server: Answers,
    standstills: Standstills,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    busy_s: float,
) -> None:
    """Nor is it an attempt that hung, however long that was."""
    monkeypatch.setattr(attempts, "HUNG_AFTER_S", 0.5)
    budget = CountedBudget(lanes.client, "okx:default", still_s=standstills.still_s)
    lane, _ = lanes.lane("okx", server.settings("okx"), budget=budget)
    server.held_path = "/"
    now_ms = results.now_ms()
    request = Request("fetch_time", {}, "x", deadline_ms=now_ms + 60_000)
    running = asyncio.create_task(
        attempts.run(lane, Attempt(request, "okx", 1, now_ms, timeout_ms=1_200.0), WorkerConfig())
    )
    await wait_until(lambda: server.hits, "it is sent")
    time.sleep(busy_s)  # noqa: ASYNC251
    ended = await running
    server.held_path = ""
    seen = ended.item.outcome, ended.item.code, ended.of_connection
    if busy_s:
        assert seen == (Outcome.THROTTLED, ErrorCode.EXPIRED, False)
        assert "stood still" in ended.item.message
        assert ended.item.exchange_ms < 1_000
    else:
        assert seen == (Outcome.FAILED, ErrorCode.EXCHANGE_TIMEOUT, True)
        assert ended.item.exchange_ms > 1_000
    assert ended.http_calls == 1
    assert "attempt_hung" not in caplog.text


async def test_an_exchange_s_time_that_was_read_long_after_it_was_told_is_asked_for_again(
    standstills: Standstills,
) -> None:
    clock, asked = SigningClock("okx", standstills.still_s), list[int]()

    async def fetch_time() -> int:
        """The exchange's clock is right; the first answer is read at once, and its body's end 2 s later."""
        told_ms = time.time_ns() // 1_000_000
        if not asked:
            time.sleep(2.0)  # noqa: ASYNC251
        asked.append(told_ms)
        return told_ms

    await clock.measure(fetch_time, lambda: 0.0, since_s=clock_s())
    assert len(asked) == 2
    assert abs(clock.ahead_s) < 1.0


async def test_a_gateway_or_a_program_s_own_ccxt_knows_of_its_standstills_too(redis_url: str) -> None:
    address = take(Place(redis_url, "okx:default", ""))
    try:
        await address.open()
        await asyncio.sleep(0)
        time.sleep(1.0)  # noqa: ASYNC251
        spread = address.budget.ledger.spread
        for _ in range(ENOUGH):
            assert spread.answered(clock_s(), "a", 1.0) >= 1_000_000
        assert spread.margin_us() is None
    finally:
        await address.leave()
