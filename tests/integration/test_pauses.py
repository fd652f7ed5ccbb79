"""An exchange's pause holds for the whole fleet, and is kept and shown.

How the rate comes back after a pause, and how a lowered limit does, is in
test_budget_learned.py, on a clock of its own.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import pytest
import redis.asyncio as redis_client

from schemas.messages import ErrorCode
from schemas.operator import pauses
from schemas.runtime.results import now_ms
from tests.support.exchange_lanes import Answers, Lanes, call, lanes_on
from tests.support.fleet import Heard, Stand, wait_until
from workers.exchange.errors import NoBudget, judge
from workers.exchange.lane_exchange import LaneExchange

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

    said, *_ = [record.__dict__ for record in caplog.records if record.getMessage() == "exchange_paused"]
    source = "header Retry-After" if "Retry-After" in headers else "our backoff"
    assert (said["lane"], said["for_s"], said["source"]) == (exchange, pause_s, source)
    assert (said["what"] == "everything") == everything

    # The limit was met within the table: the bucket holds less from now on, for a worker that starts only now too.
    learned, *_ = [record for record in caplog.records if record.getMessage() == "limit_learned"]
    late, budget = workers[1].lane(exchange, server.settings(exchange))
    await refused(late, "fetch_ticker")
    await budget.paused()
    assert budget.pause_source == (source if everything else "")
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


@pytest.mark.parametrize("signal", ["Retry-After", "OKX's 50011"])
async def test_a_pause_that_is_lifted_is_over_for_all_and_is_not_set_again(
    server: Answers, workers: tuple[Lanes, Lanes], redis_url: str, signal: str
) -> None:
    exchange, status, headers, body, pause_s, everything = SIGNALS[signal]
    server.answer = (status, headers, body)
    lanes = [each.lane(exchange, server.settings(exchange)) for each in workers]
    with pytest.raises(Exception) as raised:
        await lanes[0][0].call("fetch_ticker", BTC, call(exchange))
    assert not isinstance(raised.value, NoBudget)
    async with redis_client.from_url(redis_url) as client:
        (held,) = await pauses.held(client, exchange)
        assert (bool(held.bucket), pause_s - 10 < held.left_s <= pause_s) == (not everything, True)
        assert held.reason.startswith(f"status {status}")
        assert held.source == "header Retry-After"
        assert await pauses.held(client, "kraken") == []
        assert [each.key for each in await pauses.lift(client, exchange)] == [held.key]
        assert await pauses.held(client) == []
        for _, budget in lanes:
            assert await budget.paused() == 0
        assert lanes[0][1].lifted_us == lanes[1][1].lifted_us > 0
        # A worker that Redis was away for tells its pauses again: not those that were lifted.
        ledger = lanes[0][1].ledger
        ledger.pauses.keep([held.key], held.left_s)
        ledger.lost()
        await ledger.meet()
        assert await pauses.held(client) == []
    server.answer = (200, {}, "{}")
    for lane, _ in lanes:
        with pytest.raises(Exception) as sent:  # its answer is no ticker, but the call went out
            await lane.call("fetch_ticker", BTC, call(exchange, max_wait_s=5))
        assert not isinstance(sent.value, NoBudget)


# What Retry-After says of the time, and how many calls are refused within the four seconds of a request.
NO_TIME = {
    "0": 2,
    "-1": 2,
    "past": 2,
    "99999999999": 2,
    "never": 2,
    "epoch": 1,
    "epoch in ms": 1,
    "date": 1,
    "600": 1,
}


@pytest.mark.parametrize("said", NO_TIME)
async def test_whatever_retry_after_says_calls_stop(stand: Stand, said: str) -> None:
    """Also where it names no time to come: the backoff grows then as it does without the header."""
    values = {
        "past": formatdate(time.time() - 60, usegmt=True),
        "date": formatdate(time.time() + 60, usegmt=True),
        "epoch": str(int(time.time()) + 60),
        "epoch in ms": str(now_ms() + 60_000),
    }
    headers = {"Retry-After": values.get(said, said)}
    await stand.simulator.fault("coinbase", said={"ticker": {"status": 429, "headers": headers, "body": "{}"}})
    before = await refusals(stand, "coinbase")
    deadline_ms = now_ms() + 4_000
    answer = await stand.client.ask("fetch_ticker", BTC, exchanges=["coinbase"], deadline_ms=deadline_ms)
    assert 1 <= await refusals(stand, "coinbase") - before <= NO_TIME[said]
    error = answer.result.error
    assert error is not None
    assert error.code is ErrorCode.DEADLINE_EXCEEDED
    # Also straight after the refusal, before any report of the pause.
    assert "coinbase is paused for" in error.message


async def refusals(stand: Stand, exchange: str) -> int:
    return int((await stand.simulator.counters())["exchanges"][exchange]["faults"])


@pytest.mark.parametrize("correction_us", [-10_000_000, 10_000_000])
async def test_pauses_are_shown_and_lifted_by_the_clock_that_budgets_go_by(
    server: Answers, workers: tuple[Lanes, Lanes], redis_url: str, correction_us: int
) -> None:
    """Redis's clock was set while the fleet ran, and what it shows is corrected."""
    budgets = [each.lane("binance", server.settings("binance"))[1] for each in workers]
    async with redis_client.from_url(redis_url) as client:
        await client.set("fleet:{binance}:set", f"{correction_us}:ab:0", ex=3600)
        await budgets[0].pause(60, "enough")
        (held,) = await pauses.held(client)
        assert 50 < held.left_s <= 60
        await pauses.lift(client, "binance")
        assert await pauses.held(client) == []
        for budget in budgets:
            assert await budget.paused() == 0


async def test_an_operator_lifts_a_pause(stand: Stand) -> None:
    """By the command line; dispatchers send there again."""
    refusal = {"status": 429, "headers": {"Retry-After": "300"}, "body": '{"err-code":"too-many-requests"}'}
    await stand.simulator.fault("htx", said={"market": refusal})
    answer = await stand.client.ask("fetch_ticker", BTC, exchanges=["htx"], deadline_ms=now_ms() + 3000)
    assert not answer.result.ok
    await stand.simulator.clear("htx")

    async def pause(*words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemas", "pause", *words, "--redis-url", stand.redis.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    async def shown() -> bool:
        return " s left by header Retry-After: status 429" in (await pause("list", "htx"))[1]

    # The deadline may pass before the refused call is back.
    await wait_until(shown, "the list shows the pause", every_s=0.2)
    shared = "; paused: htx (exchanges on one host share pauses)\n"
    assert await pause("list", "tokocrypto") == (0, f"0 pauses{shared}")
    assert await pause("lift", "tokocrypto", "--yes") == (1, f"no pause of tokocrypto{shared}")
    assert await pause("lift", "huobi-sandbox", "--yes") == (1, f"no pause of htx-sandbox{shared}")
    assert (await pause("lift", "*", "--yes"))[0] == 2
    code, said = await pause("lift", "huobi", "--yes")
    assert code == 0
    assert "lifted: {htx}:" in said
    answer = await stand.client.ask("fetch_ticker", BTC, exchanges=["htx"], deadline_ms=now_ms() + 20_000)
    assert answer.result.ok, answer
    assert await pause("lift", "htx", "--yes") == (1, "no pause of htx\n")
    assert await pause("list") == (0, "0 pauses\n")
