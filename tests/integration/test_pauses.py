"""What an exchange asks for when it has had enough holds for the whole fleet, and what follows is kept and shown.

How the rate comes back after a pause, and how a lowered limit does, is in test_budget.py, on a clock of its own.
"""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.messages import ErrorCode
from tests.integration.exchange_lanes import Answers, Lanes, call, lanes_on
from tests.integration.fleet import Heard, Stand, wait_until
from workers.exchanges import LaneExchange
from workers.verdict import NoBudget, judge

BTC: dict[str, Any] = {"symbol": "BTC/USDT"}
# How it says so, for how long it holds, and whether all of the exchange is meant or the endpoint alone.
SIGNALS: dict[str, tuple[str, int, dict[str, str], str, float, bool]] = {
    "Retry-After": ("binance", 429, {"Retry-After": "70"}, '{"code":-1003,"msg":"Too much"}', 70, True),
    "ban": ("binance", 418, {"Retry-After": "120"}, '{"code":-1003,"msg":"IP banned until 1"}', 120, True),
    "Bybit's 403": ("bybit", 403, {}, "403, access too frequent", 600, True),
    "Kraken's lockout": ("kraken", 200, {}, '{"error":["EGeneral:Temporary lockout"]}', 900, True),
    "OKX's 50011": ("okx", 429, {"Retry-After": "60"}, '{"code":"50011","msg":"Too Many Requests"}', 60, False),
}


@pytest.fixture
async def server() -> AsyncIterator[Answers]:
    async with Answers.serving() as answers:
        yield answers


@pytest.fixture
async def workers(redis_url: str) -> AsyncIterator[tuple[Lanes, Lanes]]:
    """Two workers with connections of their own."""
    async with lanes_on(redis_url) as one, lanes_on(redis_url) as two:
        yield one, two


async def refused(lane: LaneExchange, method: str) -> NoBudget:
    with pytest.raises(NoBudget) as raised:
        await lane.call(method, BTC, call(lane.exchange, max_wait_s=5))
    return raised.value


@pytest.mark.parametrize("signal", SIGNALS)
async def test_one_worker_s_refusal_pauses_all(
    server: Answers, workers: tuple[Lanes, Lanes], signal: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange, status, headers, body, pause_s, everything = SIGNALS[signal]
    server.answer = (status, headers, body)
    lane, other = (each.lane(exchange, server.settings(exchange))[0] for each in workers)
    attempt = call(exchange)
    with caplog.at_level(logging.WARNING), pytest.raises(Exception) as raised:
        await lane.call("fetch_ticker", BTC, attempt)
    verdict = judge(raised.value, attempt)
    assert verdict.code is ErrorCode.RATE_LIMITED
    assert verdict.pause_s == pause_s

    # For as long as it said nobody sends: not the one who was told, not the other, nothing else where all is meant.
    for each in (lane, other):
        for method in ("fetch_ticker", "fetch_order_book") if everything else ("fetch_ticker",):
            no = await refused(each, method)
            assert no.reason == "paused"
            assert pause_s - 10 < no.wait_s <= pause_s
    assert len(server.hits) == 1
    if not everything:
        with pytest.raises(Exception) as other_endpoint:
            await other.call("fetch_order_book", BTC, call(exchange))
        assert not isinstance(other_endpoint.value, NoBudget)

    # The limit was met within the table: the bucket holds less from now on, for a worker that starts only now too.
    learned, *_ = [record for record in caplog.records if record.getMessage() == "limit_learned"]
    late, budget = workers[1].lane(exchange, server.settings(exchange))
    await refused(late, "fetch_ticker")
    assert (await budget.usage())[str(learned.__dict__["bucket"]).partition(":")[0]].effective == 0.9


async def test_a_ban_is_seen_from_outside(stand: Stand, heard: Heard) -> None:
    """In reports and metrics, while it lasts, and what is left of it afterwards."""
    await stand.simulator.fault("binance", ban_s=4)

    async def paused() -> bool:
        answer = await stand.client.ask("fetch_ticker", BTC, exchanges=["binance", "okx"], strategy="failover")
        assert answer.result.lane == "okx"
        return heard.any("binance", lambda lane: lane.paused_until_ms > 0)

    await wait_until(paused, "a report of the pause")

    async def paused_s() -> float:
        return await stand.metric(stand.fleet.workers, "fleet_budget_paused_seconds", "spot", "binance")

    await wait_until(paused_s, "the pause in the metrics")

    def lowered() -> bool:
        said = (lane.buckets.get("spot") for (_, name), lane in heard.lanes.items() if name == "binance")
        return any(bucket is not None and bucket.effective < 1 for bucket in said)

    await wait_until(lowered, "a report of the lowered limit")
    assert any("limit_learned lane=binance bucket=spot" in worker.log.read_text() for worker in stand.fleet.workers)
    # Only the call that was told of the ban reached the exchange during it.
    assert await stand.violations() == 1
    await stand.simulator.reset()
