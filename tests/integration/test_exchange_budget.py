"""How a lane's calls take budget: charged once, in order, bulk behind live, given back where they are not sent."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from schemas.config import LimitsConfig
from schemas.messages import EXCHANGE_FAILURES, ErrorCode
from tests.support.exchange_lanes import Answers, CountedBudget, Lanes, call
from tests.support.fleet import wait_until
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.exchange.call import Call
from workers.exchange.errors import NoBudget, judge
from workers.exchange.lane_exchange import LaneExchange

TICKER = '{"symbol":"BTCUSDT","lastPrice":"5","bidPrice":"4","askPrice":"6"}'
BITSTAMP_TICKER = '{"pair":"BTC/USDT","last":"5","timestamp":"1"}'
BTC: dict[str, Any] = {"symbol": "BTC/USDT"}


async def failed(
    lane: LaneExchange, attempt: Call, method: str = "fetch_ticker", args: dict[str, Any] = BTC
) -> ErrorCode:
    with pytest.raises(Exception) as raised:
        await lane.call(method, args, attempt)
    return judge(raised.value, attempt).code


async def test_ccxts_own_retries_are_charged(server: Answers, lanes: Lanes) -> None:
    server.answer = (503, {}, "{}")
    settings = server.settings("binance")
    settings["options"] = {"ticker/24hr": {"maxRetriesOnFailure": 2}}
    lane, budget = lanes.lane("binance", settings)
    attempt = call("binance")
    assert await failed(lane, attempt) is ErrorCode.EXCHANGE_UNAVAILABLE
    assert len(server.hits) == len(budget.granted) == attempt.http_calls == 3


async def test_ccxts_own_retry_waits_for_the_pause_its_first_try_caused(server: Answers, lanes: Lanes) -> None:
    server.answer = (429, {"Retry-After": "50"}, "{}")
    settings = server.settings("binance")
    settings["options"] = {"ticker/24hr": {"maxRetriesOnFailure": 2}}
    lane, _ = lanes.lane("binance", settings)
    assert await failed(lane, call("binance", max_wait_s=1)) is ErrorCode.PAUSED
    assert len(server.hits) == 1


@pytest.mark.parametrize("status", [429, 418])
async def test_a_refusal_whose_body_breaks_off_pauses_all_the_same(server: Answers, lanes: Lanes, status: int) -> None:
    server.answer, server.broken = (status, {"Retry-After": "50"}, '{"code":-1003'), True
    lane, _ = lanes.lane("binance", server.settings("binance"))
    first = call("binance")
    assert await failed(lane, first) is ErrorCode.RATE_LIMITED
    assert first.heard.pause is not None
    assert first.heard.pause.seconds > 45
    assert await failed(lane, call("binance", max_wait_s=1)) is ErrorCode.PAUSED
    assert len(server.hits) == 1


async def test_other_answers_whose_body_breaks_off_pause_nothing(server: Answers, lanes: Lanes) -> None:
    server.answer, server.broken = (503, {"Retry-After": "50"}, "{}"), True
    lane, _ = lanes.lane("binance", server.settings("binance"))
    for _ in range(2):
        attempt = call("binance")
        assert await failed(lane, attempt) in EXCHANGE_FAILURES
        assert attempt.heard.pause is None
    assert len(server.hits) == 2


async def test_an_exchange_without_a_table_gets_ccxts_own_pace(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {}, '{"last_trade":"5","bid":"4","ask":"6","timestamp":"1"}')
    lane, budget = lanes.lane("luno", server.settings("luno"))
    assert (await lane.call("fetch_ticker", BTC, call("luno")))["last"] == 5
    [charge] = budget.granted[0]
    assert (charge.bucket.kind, charge.bucket.source) == ("paced", "ccxt rateLimit")
    attempt = call("luno", max_wait_s=0)
    with pytest.raises(NoBudget) as raised:
        for _ in range(100):
            await lane.call("fetch_ticker", BTC, attempt)
    assert raised.value.reason == "budget"
    assert 0 < raised.value.wait_s < 1


async def test_no_budget_is_no_call(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {}, TICKER)
    lane, budget = lanes.lane("binance", server.settings("binance"))
    await budget.pause(30, "test")
    attempt = call("binance", max_wait_s=1, timeout_s=5)
    assert await failed(lane, attempt) is ErrorCode.PAUSED
    assert attempt.http_calls == len(server.hits) == 0


async def test_the_exchanges_own_count_is_taken_over(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {"X-MBX-USED-WEIGHT-1M": "3000"}, TICKER)
    lane, budget = lanes.lane("binance", server.settings("binance"))
    used = 0.0
    while used < 0.5:  # the second time, if a minute ended between the call and the question
        await lane.call("fetch_ticker", BTC, call("binance"))
        used = (await budget.usage())["spot"].used


async def test_a_count_that_the_exchange_itself_calls_wrong_is_not_taken_over(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {"X-MBX-USED-WEIGHT-1M": "2000"}, '[{"symbol":"BTCUSDT","bidPrice":"1","askPrice":"2"}]')
    lane, budget = lanes.lane("binanceusdm", server.settings("binanceusdm"))
    await lane.call("fetch_bids_asks", {}, call("binanceusdm"))
    used = (await budget.usage())["futures"].used
    assert 0 < used < 0.1


def one_bucket(*, amount: float, window_s: float) -> LimitsConfig:
    bucket = {"kind": "rolling", "amount": amount, "window_s": window_s}
    return LimitsConfig(buckets={"own": bucket}, endpoints={"public GET *": [{"bucket": "own"}]})


async def test_limits_of_the_configuration_are_kept(server: Answers, lanes: Lanes) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    limits = one_bucket(amount=2, window_s=60)
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"), limits=limits)
    for _ in range(2):
        await lane.call("fetch_ticker", BTC, call("bitstamp"))
    assert (await budget.usage())["own"].used == 1
    attempt = call("bitstamp", max_wait_s=1, timeout_s=5)
    assert await failed(lane, attempt) is ErrorCode.NO_BUDGET
    assert lane.tallies.take()["own"].refused == 1


async def test_bulk_calls_wait_for_room_one_after_another_and_live_ones_pass_them(
    lanes: Lanes, server: Answers
) -> None:
    """Waiting bulk calls hold no room, so no live call is behind them. They hardly ask Redis meanwhile."""
    server.answer = (200, {}, BITSTAMP_TICKER)
    limits = one_bucket(amount=10, window_s=1.0)
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"), limits=limits)
    attempts = [call("bitstamp", max_wait_s=30, bulk=True) for _ in range(40)]
    waiting = asyncio.gather(*(lane.call("fetch_ticker", BTC, attempt) for attempt in attempts))
    await wait_until(lambda: len(server.hits) > 10, "the second window has begun")
    live = call("bitstamp")
    await lane.call("fetch_ticker", BTC, live)
    assert not waiting.done()
    await waiting
    assert len(server.hits) == len(budget.granted) == 41
    # The first ones did not wait, and the last one waited for four windows: eight in each are not live ones'.
    assert min(attempt.waited_s for attempt in attempts) < 1
    assert max(attempt.waited_s for attempt in attempts) > 3
    assert live.waited_s < 1
    assert budget.asked < 200


async def test_a_lane_in_a_hurry_lets_no_bulk_call_wait(lanes: Lanes, server: Answers) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"), limits=one_bucket(amount=2, window_s=20))

    async def asks() -> BaseException | None:
        attempt = call("bitstamp", max_wait_s=30, bulk=True)
        ended = await asyncio.gather(lane.call("fetch_ticker", BTC, attempt), return_exceptions=True)
        return ended[0] if isinstance(ended[0], BaseException) else None

    assert await asks() is None
    waiting = asyncio.gather(*(asks() for _ in range(3)))
    await wait_until(lambda: budget.asked == 2, "one of them has been told to wait")
    lane.hurry()
    async with asyncio.timeout(5):
        assert all(isinstance(ended, NoBudget) for ended in await waiting)
        assert isinstance(await asks(), NoBudget)
    live = call("bitstamp")
    await lane.call("fetch_ticker", BTC, live)
    assert live.http_calls == 1


async def test_bulk_calls_that_wait_too_long_are_handed_back(lanes: Lanes, server: Answers) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    limits = one_bucket(amount=1, window_s=5.0)
    lane, _ = lanes.lane("bitstamp", server.settings("bitstamp"), limits=limits)
    attempts = [call("bitstamp", max_wait_s=0.5, bulk=True) for _ in range(3)]
    ended = await asyncio.gather(
        *(lane.call("fetch_ticker", BTC, attempt) for attempt in attempts), return_exceptions=True
    )
    assert [isinstance(each, NoBudget) for each in ended] == [False, True, True], ended
    assert len(server.hits) == 1


async def test_a_call_without_room_says_which_limit_has_none_and_when_it_has_some(
    lanes: Lanes, server: Answers
) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    lane, _ = lanes.lane("bitstamp", server.settings("bitstamp"), limits=one_bucket(amount=2, window_s=500))
    for _ in range(2):
        await lane.call("fetch_ticker", BTC, call("bitstamp"))
    with pytest.raises(NoBudget) as raised:
        await lane.call("fetch_ticker", BTC, call("bitstamp", max_wait_s=2))
    bound = lane.bound(raised.value)
    assert bound is not None
    assert bound.key == "own"
    assert not bound.apart
    assert bound.step_ms == pytest.approx(250_000, rel=0.01)  # and the margin for jitter
    with pytest.raises(NoBudget) as of_bulk:
        await lane.call("fetch_ticker", BTC, call("bitstamp", bulk=True))
    assert lane.bound(of_bulk.value) is None  # it has no place in line


async def test_a_call_whose_budget_would_come_too_late_for_an_answer_is_handed_back(
    lanes: Lanes, server: Answers
) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    lane, _ = lanes.lane("bitstamp", server.settings("bitstamp"), limits=one_bucket(amount=1, window_s=1.0))
    for _ in range(10):
        lane.answering.took("fetch_ticker", 30.0)
    await lane.call(
        "fetch_ticker", BTC, call("bitstamp", max_wait_s=5, timeout_s=25)
    )  # there is room: it may be answered faster
    with pytest.raises(NoBudget):
        await lane.call("fetch_ticker", BTC, call("bitstamp", max_wait_s=5, timeout_s=25))
    assert len(server.hits) == 1
    await lane.call("fetch_ticker", BTC, call("bitstamp", max_wait_s=5, timeout_s=60))


class LateOnce(CountedBudget):
    """Finds the first call too late, and then does what the test says."""

    def __init__(self, client: redis.asyncio.Redis, scope: str, then: Callable[[], object]) -> None:
        super().__init__(client, scope)
        self._then: Callable[[], object] | None = then

    def is_late(self, grant: Grant, now_s: float) -> bool:
        if self._then is None:
            return super().is_late(grant, now_s)
        then, self._then = self._then, None
        then()
        return True


@pytest.mark.parametrize("why", ["its time ended", "the lane is in a hurry"])
async def test_a_reservation_that_is_not_moved_is_given_back(lanes: Lanes, server: Answers, why: str) -> None:
    """The call was late at the last check, and paying again raises before the budget is asked."""
    attempt = call("bitstamp", bulk=why == "the lane is in a hurry")

    def then() -> None:
        if why == "its time ended":
            attempt.timeout_s = 0.0
        else:
            lane.hurry()

    budget = LateOnce(lanes.client, "bitstamp:default", then)
    limits = one_bucket(amount=2, window_s=500)
    lane = lanes.lane("bitstamp", server.settings("bitstamp"), budget=budget, limits=limits)[0]
    with pytest.raises((TimeoutError, NoBudget)):
        await lane.call("fetch_ticker", BTC, attempt)
    assert not server.hits

    async def all_free() -> bool:
        used = await budget.usage()
        assert used
        return all(use.used == 0 for use in used.values())

    await wait_until(all_free, "the reservation is back")


async def test_a_call_that_is_cancelled_as_it_waits_for_its_instant_gives_it_back(
    lanes: Lanes, server: Answers
) -> None:
    server.answer = (200, {}, BITSTAMP_TICKER)
    lane, budget = lanes.lane("bitstamp", server.settings("bitstamp"), limits=one_bucket(amount=1, window_s=500))
    await lane.call("fetch_ticker", BTC, call("bitstamp"))
    attempt = call("bitstamp", max_wait_s=1000, timeout_s=1000)
    waiting = asyncio.create_task(lane.call("fetch_ticker", BTC, attempt))

    async def wait_s() -> float:
        refusal = await Budget.reserve(budget, budget.granted[0], max_wait_s=0)
        assert isinstance(refusal, Refusal)
        return refusal.wait_s

    async def reserved() -> bool:
        return await wait_s() > 750

    async def given_back() -> bool:
        return await wait_s() <= 750

    await wait_until(reserved, "it has its instant, and the next one is a window later")
    waiting.cancel()
    await wait_until(given_back, "its instant is free")
    assert len(server.hits) == 1


async def test_a_call_that_would_go_to_another_exchange_is_not_sent(lanes: Lanes, server: Answers) -> None:
    """ccxt's Binance US asks Binance's futures for the open interest of a spot pair."""
    lane, budget = lanes.lane("binanceus", server.settings("binanceus"))
    attempt = call("binanceus")
    with pytest.raises(Exception, match="the exchange has no fapiPublic") as raised:
        await lane.call("fetch_open_interest", BTC, attempt)
    assert judge(raised.value, attempt).code is ErrorCode.NOT_SUPPORTED
    assert not budget.granted
    assert not server.hits
