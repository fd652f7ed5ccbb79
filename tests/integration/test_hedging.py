"""Second attempts: the first answer wins, the other is dropped, and none is asked that is not needed."""

from typing import Any

from tests.integration.fleet import Stand, wait_until

BTC = {"symbol": "BTC/USDT"}
# All that tests ask of these two costs them about as little: OKX's time, once in 5 s, makes its lane look crowded.
TWO: dict[str, Any] = {"exchanges": ["htx", "binance"], "strategy": "failover"}


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
