"""Second attempts: the first answer wins, the other is dropped, and no needless one is sent."""

import asyncio
from typing import Any

from dispatcher.hedges import KEPT_BYTES, Hedges
from schemas.messages import Attempt, Request, encode
from schemas.runtime import store
from schemas.runtime.once import Answered
from schemas.runtime.results import now_ms
from schemas.runtime.tasks import end_tasks
from tests.support.fleet import Stand, wait_until

BTC = {"symbol": "BTC/USDT"}
# All that tests ask of these two costs them about as little: OKX's time, once in 5 s, makes its lane look crowded.
TWO: dict[str, Any] = {"exchanges": ["htx", "binance"], "strategy": "failover"}
HOUR_MS = 3_600_000


async def hedges(stand: Stand) -> float:
    """Second attempts so far; one is counted when the broker has it, and may be answered before."""
    return await stand.metric(stand.fleet.dispatchers, "fleet_hedges_total")


async def test_a_slow_exchange_s_second_answers_and_the_first_is_dropped(stand: Stand) -> None:
    await stand.simulator.fault("htx", latency_ms=1_300)
    sent = await stand.client.send({"method": "fetch_ticker", "args": BTC, "hedge_ms": 100, **TWO})
    answer = await stand.client.answer(sent)
    assert answer.result.ok
    assert answer.result.exchange == "binance"
    await wait_until(lambda: hedges(stand), "the second attempt is counted")

    async def both_are_over() -> bool:
        return not await stand.metric(stand.fleet.workers, "fleet_attempts_in_flight", "htx")

    await wait_until(both_are_over, "htx has answered too")
    # Whatever it published came before.
    assert (await stand.client.ask("fetch_ticker", BTC, exchanges=["htx"])).result.ok
    assert len(stand.client.answers[sent]) == 1


async def test_a_quick_answer_needs_no_second(stand: Stand) -> None:
    before = await hedges(stand)
    for _ in range(5):
        answer = await stand.client.ask("fetch_ticker", BTC, hedge_ms=500, **TWO)
        assert answer.result.exchange == "htx"
    await stand.simulator.fault("htx", latency_ms=1_300)
    # Its timer is the last to run out.
    assert (await stand.client.ask("fetch_ticker", BTC, hedge_ms=500, **TWO)).result.exchange == "binance"

    async def one_more() -> bool:
        return await hedges(stand) == before + 1

    await wait_until(one_more, "one second attempt is counted, and no other")


async def test_a_second_that_fails_leaves_it_to_the_first(stand: Stand) -> None:
    await stand.simulator.fault("htx", latency_ms=600)
    await stand.simulator.fault("binance", down="refused")
    answer = await stand.client.ask("fetch_ticker", BTC, hedge_ms=100, **TWO)
    assert answer.result.ok
    assert answer.result.exchange == "htx"
    assert [item.lane for item in answer.result.attempts] == ["htx"]


async def test_both_fail_and_it_goes_its_way(stand: Stand) -> None:
    await stand.simulator.fault("htx", latency_ms=300, error_rate=1.0)
    await stand.simulator.fault("binance", down="refused")
    request = {"method": "fetch_ticker", "args": BTC, "hedge_ms": 50, "exchanges": ["htx", "binance", "kraken"]}
    sent = await stand.client.send({**request, "strategy": "failover"})
    assert (await stand.client.answer(sent)).result.exchange == "kraken"
    assert len(stand.client.answers[sent]) == 1


async def test_without_redis_it_is_answered_once_by_the_first(stand: Stand) -> None:
    await stand.simulator.fault("htx", latency_ms=800)
    stand.redis.freeze()
    sent = await stand.client.send({"method": "fetch_ticker", "args": BTC, "hedge_ms": 50, **TWO})
    answer = await stand.client.answer(sent, timeout_s=60)
    assert answer.result.ok, answer
    assert len(stand.client.answers[sent]) == 1


async def test_what_is_answered_is_kept_no_longer_however_late_its_second_was_to_come(stand: Stand) -> None:
    client = stand.client
    request = {"method": "fetch_ticker", "args": BTC, "deadline_ms": now_ms() + 2 * HOUR_MS, "hedge_ms": HOUR_MS}
    sent = [await client.send(request) for _ in range(500)]
    for each in sent:
        assert (await client.answer(each, timeout_s=120)).result.ok

    async def kept() -> float:
        return await stand.metric(stand.fleet.dispatchers, "fleet_hedges_kept")

    async def nothing() -> bool:
        return not await kept() and not await stand.metric(stand.fleet.dispatchers, "fleet_hedges_kept_bytes")

    await wait_until(nothing, "nothing is kept", timeout_s=90)
    # One whose deadline comes before is not kept at all; one that waits for its answer is.
    await stand.simulator.fault("htx", latency_ms=1_000)
    sent = [
        await client.send({**request, **TWO, "deadline_ms": now_ms() + late_ms}) for late_ms in (9_000, 2 * HOUR_MS)
    ]
    await wait_until(kept, "one is kept")
    assert await kept() == 1
    for each in sent:
        assert (await client.answer(each)).result.ok
    await wait_until(nothing, "nothing is kept", timeout_s=90)


async def test_what_waits_is_bounded_in_bytes(redis_url: str) -> None:
    client = store.connect(redis_url, timeout_s=1)
    answered = Answered(client)

    async def ask(_: Attempt) -> bool:
        return True

    kept, late_ms = Hedges(answered, ask), now_ms() + 2 * HOUR_MS
    watching = asyncio.create_task(kept.run())
    args = {"params": {"padding": "x" * 200_000}}
    attempts = [
        Attempt(Request("fetch_ticker", args, f"{number}", deadline_ms=late_ms, hedge_ms=HOUR_MS), "htx", 1, late_ms)
        for number in range(1_500)
    ]
    for each in attempts:
        kept.plan(each, encode(each))
    count = len(kept)
    assert 300 < count < 340
    assert kept.size_bytes <= KEPT_BYTES
    answered.note(attempts[0])
    await wait_until(lambda: len(kept) == count - 1, "the one that was answered is forgotten")
    for each in attempts:
        answered.note(each)
    await wait_until(lambda: not len(kept) and not kept.size_bytes, "all are forgotten", timeout_s=60)
    await end_tasks([watching])
    await kept.close()
    await client.aclose()
