"""What a router does with lines for budget: who waits, who passes, who is refused."""

import pytest
from msgspec.structs import replace

from dispatcher.router import End, Router, Send, Wait
from schemas.messages import Bound, ErrorCode, Outcome, Request, Try, Turn
from schemas.reports import LaneReport
from tests.support.routers import NOW_MS, attempt, decide, heard, lane_of, new


@pytest.fixture
def router() -> Router:
    return new()


BOUND = Bound("all", NOW_MS + 5_000, 100.0)


def has_line(router: Router, *lanes: str, bound: Bound = BOUND) -> None:
    for name in lanes:
        router.health[name].refused(Request("fetch_ticker"), bound.at_ms, bound, NOW_MS)


def test_what_the_line_would_make_too_late_is_refused_at_once_and_nothing_else(router: Router) -> None:
    has_line(router, "kraken.eu", "kraken.us", bound=Bound("all", NOW_MS + 40_000, 100.0))
    end = decide(router, attempt("kraken"))
    assert isinstance(end, End)
    assert end.code is ErrorCode.DEADLINE_EXCEEDED
    assert "overloaded: queueing delay 40." in end.message
    waits = decide(router, attempt("kraken", left_ms=60_000))
    assert waits == Wait(39_000, Turn("kraken.eu", "all", NOW_MS + 40_000, 100.0))
    assert lane_of(decide(router, attempt("kraken", "okx"))) == "okx"
    # One that has its turn is not cut off, and comes before all that are in line.
    assert isinstance(waits, Wait)
    later, waited = NOW_MS + 39_000, replace(attempt("kraken", left_ms=60_000), turn=waits.turn)
    assert decide(router, waited, now_ms=later, rested=True) == Send("kraken.eu", False, None, 10_500, waits.turn)
    assert isinstance(decide(router, attempt("kraken", left_ms=60_000), now_ms=later - 100), Wait)


def test_one_that_is_late_by_chance_asks_other_dispatchers_before_it_is_refused(router: Router) -> None:
    """Of 50 turns the number differs: another's line may be some seconds shorter."""
    has_line(router, "okx")
    asks = replace(attempt("okx", left_ms=4_000), received_ms=NOW_MS)
    assert isinstance(decide(router, asks), End)
    router.set_dispatchers(2)
    assert decide(router, asks) == Wait(250)
    assert isinstance(decide(router, replace(asks, received_ms=NOW_MS - 3_000), rested=True), End)
    far = replace(attempt("okx", left_ms=1_500), received_ms=NOW_MS)
    assert isinstance(decide(router, far), End)
    other = new()
    has_line(other, "okx", bound=Bound("all", NOW_MS + 3_000, 100.0))
    decision = decide(other, asks, now_ms=NOW_MS + 250, rested=True)
    assert decision == Wait(1_750, Turn("okx", "all", NOW_MS + 3_000, 100.0))


def test_one_that_has_a_turn_waits_for_it_and_takes_no_other(router: Router) -> None:
    has_line(router, "okx")
    waits = decide(router, attempt("okx"))
    assert isinstance(waits, Wait)
    waited = replace(attempt("okx"), turn=waits.turn)
    for now_ms in (NOW_MS, NOW_MS + 1_000, NOW_MS + 3_000):
        again = decide(router, waited, now_ms=now_ms, rested=True)
        assert isinstance(again, Wait)
        assert again.turn == waits.turn
    assert decide(router, attempt("okx")) == Wait(4_100, Turn("okx", "all", NOW_MS + 5_100, 100.0))


def test_one_that_finds_another_lane_gives_its_turn_back(router: Router) -> None:
    has_line(router, "okx")
    turn = Turn("okx", "all", NOW_MS + 5_000, 100.0)
    assert decide(router, attempt("okx")) == Wait(4_000, turn)
    assert lane_of(decide(router, replace(attempt("okx", "binance"), turn=turn), rested=True)) == "binance"
    assert decide(router, attempt("okx")) == Wait(4_000, turn)


def test_one_that_was_refused_in_its_turn_is_asked_for_again_before_those_behind_it(router: Router) -> None:
    has_line(router, "okx")
    for _ in range(100):
        assert isinstance(decide(router, attempt("okx")), Wait)
    turn, now_ms = Turn("okx", "all", NOW_MS + 5_000, 100.0), NOW_MS + 4_500
    bound = Bound("all", now_ms + 2_500, 100.0)
    held = Try("okx", Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=bound.at_ms)
    back = router.refused(replace(attempt("okx"), turn=turn).handed_back(held, bound), "okx", bound.at_ms, now_ms)
    decision = decide(router, back, now_ms=now_ms)
    assert decision == Wait(1_250, Turn("okx", "all", bound.at_ms, 100.0))


def test_one_that_its_queue_refused_in_its_turn_rests(router: Router) -> None:
    has_line(router, "okx")
    turn = Turn("okx", "all", NOW_MS + 500, 100.0)
    held = Try("okx", Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=NOW_MS + 1_000)
    assert decide(router, replace(attempt("okx"), turn=turn).handed_back(held)) == Wait(1_000, turn)


def test_one_that_could_not_wait_for_room_close_by_does_not_go_round(router: Router) -> None:
    """Its worker had no time for an answer after it: asked at once, it would say so again and again."""
    turn, bound = Turn("okx", "all", NOW_MS + 300, 100.0), Bound("all", NOW_MS + 400, 100.0)
    held = Try("okx", Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=bound.at_ms)
    back = router.refused(replace(attempt("okx"), turn=turn).handed_back(held, bound), "okx", bound.at_ms, NOW_MS)
    assert decide(router, back) == Wait(400, back.turn)
    heard(router, LaneReport("okx", ok=1, exchange_ms=3_000.0), now_s=0.1)
    late = replace(attempt("okx", left_ms=3_200), turn=turn).handed_back(held, bound)
    assert isinstance(decide(router, late), End)


def test_calls_that_are_out_at_a_slow_exchange_are_no_backlog(router: Router) -> None:
    for step in range(1, 50):
        heard(router, LaneReport("okx", ok=1, in_flight=1_000, unanswered=1_000, budget_ms=50.0), now_s=step / 5)
    assert not router.health["okx"].load.crowded
    assert isinstance(decide(router, attempt("okx", left_ms=1_000), now_s=10.0), Send)
