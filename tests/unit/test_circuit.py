"""Trials of a lane that is set aside, and its way back."""

import pytest
from msgspec.structs import replace

from dispatcher.circuit import State
from schemas.messages import Attempt, ErrorCode, Outcome, Request, Try
from schemas.reports import LaneReport, Named
from tests.support.lane_reports import CONFIG, DOWN, bad, erring, failing, mixed, new, ok


def asked(method: str = "fetch_ticker", *tries: Try) -> Attempt:
    return Attempt(Request(method, {"symbol": "ALGO/USDT"}, id="x"), "", 0, 0, tries=list(tries))


def test_what_fails_by_itself_is_no_trial_and_a_probe_is() -> None:
    health = failing()
    health.methods = frozenset({"fetch_time", "fetch_ticker"})
    assert health.due(1.0)
    assert health.tries(asked())
    refused = Try("okx", Outcome.FAILED, ErrorCode.BAD_RESPONSE)
    assert not health.tries(asked("fetch_ticker", refused))
    assert health.tries(asked("fetch_ticker", replace(refused, lane="htx")))
    assert health.tries(asked("fetch_ticker", replace(refused, code=DOWN)))
    health.observe("w1", LaneReport("okx", failing=[Named.of(asked())], failures_in_a_row=5), 1.0)
    assert not health.tries(asked())
    assert not health.tries(asked("fetch_order_book"))  # all that its caller asked failed
    assert health.tries(replace(asked("fetch_order_book"), reply_to="another's"))
    health.observe("w1", LaneReport("okx", failures_in_a_row=5, answered=[*Named.of(asked()).names]), 12.0)
    assert health.tries(asked())
    assert not health.sent(1.0, tries=False)
    assert health.probe_every_s(1.0) == CONFIG.trial_after_s
    assert health.sent(1.0)


def test_after_a_trial_that_said_nothing_the_next_is_a_probe() -> None:
    health = failing()
    health.methods = frozenset({"fetch_time", "fetch_ticker"})
    assert health.sent(1.0)
    health.observe("w1", LaneReport("okx", rejected=1, trials_void=1, failing=[Named.of(asked())]), 1.2)
    assert health.state(1.2) is State.OFFLINE
    assert not health.due(2.1)
    assert health.due(2.2)  # no longer gap: it was not the lane that failed
    assert not health.tries(asked("fetch_order_book"))
    assert health.probe_every_s(2.2) is not None
    assert health.sent(2.2)
    health.observe("w1", ok(), 2.4)
    assert health.serving


def test_where_the_question_alone_has_no_answer_a_request_finds_out() -> None:
    health = failing()
    health.methods = frozenset({"fetch_time", "fetch_ticker"})
    now_s, tried = 0.0, list[bool]()
    for row in range(6, 10):
        now_s = health.circuit.trial_at_s
        tried.append(health.tries(asked()))
        assert health.sent(now_s, probe=not tried[-1])
        failed = [Named.of(asked(), 1)] if tried[-1] else []
        health.observe("w1", replace(bad(1, row), failing=failed), now_s + 0.1)
    assert tried == [True, False, True, False]


def test_a_lane_that_has_no_question_for_a_probe_takes_what_comes() -> None:
    health = failing()
    health.methods = frozenset({"fetch_ticker"})
    health.observe("w1", LaneReport("okx", failing=[Named.of(asked())], failures_in_a_row=5), 1.0)
    assert health.tries(asked())


def test_offline_takes_one_trial_at_a_time_with_growing_gaps() -> None:
    health = failing()
    assert not health.due(0.9)
    assert health.due(1.0)
    assert health.sent(1.0)
    assert not health.due(1.1)
    health.observe("w1", bad(1, 6), 1.2)  # the trial failed: the gap doubles
    assert health.usable_in_s(1.2) == 2.0
    health.observe("w1", LaneReport("okx", failures_in_a_row=6), 3.0)
    assert not health.due(3.1)
    assert health.due(3.2)
    for at_s in (3.2, 10.0, 20.0):
        health.sent(at_s)
        health.observe("w1", bad(1, 7), at_s)
    assert health.usable_in_s(20.0) == CONFIG.trial_after_max_s


def test_what_was_under_way_before_does_not_count_as_a_failed_trial() -> None:
    health = failing()
    health.observe("w1", bad(7, 12), 0.2)
    health.observe("w2", bad(3, 3), 0.3)
    assert health.due(1.0)
    assert health.sent(1.0)
    health.observe("w1", bad(1, 13), 1.1)
    health.observe("w2", bad(1, 4), 1.2)
    assert health.usable_in_s(1.1) == 2.0


def test_a_trial_without_an_answer_is_alone() -> None:
    health = failing()
    assert health.sent(1.0)
    health.observe("w1", LaneReport("okx", failures_in_a_row=5, unanswered=1, silent_ms=1_900.0), 2.9)
    assert not health.due(2.9)
    health.observe("w1", bad(1, 6, ErrorCode.EXCHANGE_TIMEOUT, ago_s=2.0), 3.1)
    assert health.usable_in_s(3.1) == pytest.approx(2.0)


def test_a_trial_of_which_nothing_is_heard_is_followed_by_another() -> None:
    health = failing()
    assert health.sent(1.0)
    health.observe("w1", LaneReport("okx", failures_in_a_row=5), 3.0)
    assert health.sent(3.0)
    health.observe("w1", bad(1, 6, ErrorCode.EXCHANGE_TIMEOUT, ago_s=2.1), 3.1)  # the first
    assert health.usable_in_s(3.1) == pytest.approx(2.0)


def test_a_trial_that_found_no_budget_is_followed_by_another_without_a_longer_gap() -> None:
    health = failing()
    assert health.sent(1.0)
    health.observe("w1", LaneReport("okx", failures_in_a_row=5, throttled=1), 1.1)
    assert health.usable_in_s(1.1) == pytest.approx(CONFIG.trial_after_s)
    assert health.sent(2.1)
    health.observe("w1", ok(), 2.2)
    assert health.state(2.2) is State.HEALTHY


def test_another_dispatcher_s_good_trial_brings_a_degraded_lane_back_too() -> None:
    health = new()
    health.observe("w1", mixed(10, 10), 0.0)
    health.observe("w1", ok(), 0.5)  # was under way before
    assert health.state(0.5) is State.DEGRADED
    health.observe("w1", replace(ok(), trials_ok=1), 0.7)
    assert health.state(0.7) is State.HEALTHY


def test_a_trial_is_not_judged_by_what_was_sent_before_it() -> None:
    health = failing()
    assert health.sent(1.0)
    health.observe("w2", bad(1, 6, ago_s=0.5), 1.2)
    assert health.circuit.trial_at_s == pytest.approx(3.0)  # it goes on
    health.observe("w1", bad(1, 7, ago_s=0.2), 1.3)
    assert health.usable_in_s(1.3) == pytest.approx(2.0)


def test_what_was_sent_before_it_came_back_does_not_set_it_aside_again() -> None:
    """Another dispatcher's trial, which had no answer."""
    health = failing()
    health.sent(1.0)
    health.observe("w1", ok(), 1.2)
    health.observe("w2", bad(1, 1, ErrorCode.EXCHANGE_TIMEOUT, ago_s=2.0), 2.5)
    assert health.serving
    health.observe("w2", bad(1, 2, ago_s=0.1), 2.6)
    assert not health.serving


def test_a_good_trial_brings_it_back_by_a_slow_start() -> None:
    health = failing()
    health.sent(1.0)
    health.observe("w1", ok(), 1.2)
    assert health.state(1.2) is State.HEALTHY
    shares: list[float] = []
    for step in range(17):
        health.observe("w1", ok(), 1.2 + step / 5)
        shares.append(health.share)
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.2)
    assert shares[-1] == 2.0


def test_one_failure_in_the_slow_start_sets_it_aside_again_for_longer() -> None:
    health = erring()
    assert health.sent(1.0)
    health.observe("w1", ok(), 1.2)
    assert health.serving
    health.observe("w1", mixed(2, 1), 1.4)
    assert health.state(1.4) is State.DEGRADED
    health.observe("w1", LaneReport("okx"), 3.0)
    assert not health.due(3.3)
    assert health.due(3.5)


def test_the_next_time_it_needs_two_good_trials_in_a_row() -> None:
    health = erring()
    health.sent(1.0)
    health.observe("w1", ok(), 1.2)
    health.observe("w1", mixed(2, 1), 1.4)
    health.observe("w1", LaneReport("okx"), 3.0)
    assert health.sent(3.5)
    health.observe("w1", ok(), 3.6)
    assert not health.serving
    health.observe("w1", ok(), 4.0)  # no trial
    assert not health.due(4.0)
    assert health.sent(4.2)
    health.observe("w1", ok(), 4.3)
    assert health.serving


def test_after_the_slow_start_the_gaps_are_short_again() -> None:
    health = erring()
    health.sent(1.0)
    health.observe("w1", bad(1, 1), 1.2)
    health.sent(3.2)
    for at_s in (3.4, 5.0, 6.5):
        health.observe("w1", ok(), at_s)
    health.observe("w1", bad(5, 5), 7.0)
    assert health.usable_in_s(7.0) == CONFIG.trial_after_s


def test_what_a_degraded_lane_answers_without_a_trial_says_nothing() -> None:
    health = erring()
    assert not health.sent(0.1)
    health.observe("w1", ok(5), 0.2)
    assert not health.serving


def test_a_trial_that_is_still_slow_does_not_bring_it_back() -> None:
    health = new()
    at_s = 0.0
    while health.serving:
        health.observe("w1", ok(4, latency_ms=1_000.0, slowness=10.0), at_s)
        at_s += 0.2
    health.sent(at_s + 1.0)
    health.observe("w1", ok(1, latency_ms=900.0, slowness=9.0), at_s + 2.0)
    assert not health.serving
    health.sent(at_s + 4.0)
    health.observe("w1", ok(1, latency_ms=110.0, slowness=1.1), at_s + 4.2)
    assert health.serving


def test_a_degraded_lane_that_fails_on_is_offline() -> None:
    health = erring()
    health.observe("w1", bad(4, 5), 0.2)
    assert health.state(0.2) is State.OFFLINE
    assert not health.last_resort(0.2)


def test_after_a_request_s_trial_failed_the_next_one_is_a_probe() -> None:
    """Otherwise the failing requests of one caller would use up every trial."""
    health = failing()
    health.observe("w1", LaneReport("okx", methods=["fetch_ticker", "fetch_time"]), 0.1)
    attempt = Attempt(Request("fetch_ticker", {"symbol": "BAD/USDT"}, "1", deadline_ms=1), "", 0, 0)
    assert health.due(1.1)
    assert health.tries(attempt)
    assert health.sent(1.1)
    health.observe("w1", replace(bad(1, 6), failing=[Named.of(attempt, 1)]), 1.2)
    health.observe("w1", LaneReport("okx"), 3.2)
    assert health.due(3.3)
    assert not health.tries(attempt)
    assert health.probe_every_s(3.3) is not None
    assert health.sent(3.3)  # the probe
    health.observe("w1", ok(), 3.4)
    assert health.serving
