import pytest
from msgspec.structs import replace

from dispatcher.circuit import State
from dispatcher.health import LaneHealth
from schemas.config import DispatcherConfig
from schemas.messages import Attempt, ErrorCode, Outcome, Request, Try
from schemas.reports import LaneReport, Named

CONFIG = DispatcherConfig(failures_in_a_row=5, silent_after_s=1.5, trial_after_s=1.0, trial_after_max_s=4.0)
DOWN = ErrorCode.EXCHANGE_UNAVAILABLE


def new() -> LaneHealth:
    return LaneHealth("okx", 2.0, CONFIG)


def ok(count: int = 1, row: int = 0, latency_ms: float = 100.0, slowness: float = 1.0) -> LaneReport:
    return LaneReport("okx", ok=count, failures_in_a_row=row, exchange_ms=latency_ms, slowness=slowness)


def bad(count: int, row: int, code: ErrorCode = DOWN, ago_s: float = 0.0) -> LaneReport:
    return LaneReport("okx", failed={code: count}, failures_in_a_row=row, failed_ago_ms=ago_s * 1000)


def mixed(good: int, failed: int) -> LaneReport:
    return LaneReport("okx", ok=good, failed={DOWN: failed}, failures_in_a_row=1, exchange_ms=100.0)


def failing() -> LaneHealth:
    health = new()
    health.observe("w1", bad(5, 5), 0.0)
    assert health.state(0.0) is State.OFFLINE
    return health


def erring() -> LaneHealth:
    health = new()
    health.observe("w1", mixed(7, 3), 0.0)
    assert health.state(0.0) is State.DEGRADED
    return health


def test_without_reports_a_lane_is_offline_and_the_first_one_brings_it() -> None:
    health = new()
    assert health.state(0.0) is State.OFFLINE
    assert health.silent(0.0)
    health.observe("w1", LaneReport("okx"), 0.0)
    assert health.state(1.0) is State.HEALTHY
    assert health.share == 2.0  # a lane that was silent only needs no slow start
    assert health.state(1.6) is State.OFFLINE
    assert health.reason(1.6) == "no worker reports it"


def test_a_leaving_worker_counts_no_more() -> None:
    health = new()
    health.observe("w1", LaneReport("okx"), 0.0)
    health.observe("w2", LaneReport("okx"), 0.0)
    health.forget("w1")
    assert health.state(0.0) is State.HEALTHY
    health.forget("w2")
    assert health.state(0.0) is State.OFFLINE


def test_failures_in_a_row_over_all_workers_set_it_offline() -> None:
    health = new()
    health.observe("w1", bad(2, 2), 0.0)
    assert health.state(0.0) is State.HEALTHY
    health.observe("w2", bad(3, 3), 0.1)
    assert health.state(0.1) is State.OFFLINE
    assert not health.serving
    assert health.reason(0.1) == "5 failures in a row"


def test_an_answer_in_between_breaks_the_row() -> None:
    health = new()
    health.observe("w1", bad(4, 4), 0.0)
    health.observe("w1", ok(1, row=2), 0.2)
    health.observe("w1", bad(2, 4), 0.4)
    assert health.state(0.4) is State.DEGRADED  # it fails too often, but it is there


def test_rejected_requests_are_answers() -> None:
    health = new()
    health.observe("w1", bad(4, 4), 0.0)
    health.observe("w1", LaneReport("okx", rejected=1), 0.2)
    health.observe("w1", bad(4, 4), 0.4)
    assert health.state(0.4) is State.DEGRADED


def test_a_client_s_bad_requests_say_nothing_of_the_exchange() -> None:
    health = new()
    for step in range(50):
        report = LaneReport("okx", ok=1, rejected=20, failed={ErrorCode.EXCHANGE_ERROR: 9}, excused=9, exchange_ms=80.0)
        health.observe("w1", report, step / 5)
    assert health.state(10.0) is State.HEALTHY
    assert health.share == 2.0


def test_attempts_without_a_call_say_nothing_at_all() -> None:
    """Neither that it is ill, nor that it is well."""
    health = new()
    health.observe("w1", LaneReport("okx", uncalled=50), 0.0)
    assert health.state(0.0) is State.HEALTHY
    for step in range(5):
        health.observe("w1", bad(1, step + 1), step / 5)
        health.observe("w1", LaneReport("okx", uncalled=50, failures_in_a_row=step + 1), step / 5 + 0.1)
    assert health.state(1.0) is State.OFFLINE


def test_maintenance_is_believed_also_where_some_of_it_was_excused() -> None:
    """As an outage begins others were answered just now: a second failure of the same request is its own trouble."""
    health = new()
    health.observe("w1", ok(), 0.0)
    health.observe("w1", replace(bad(3, 2, ErrorCode.MAINTENANCE), excused=1), 0.2)
    assert health.state(0.2) is State.MAINTENANCE
    # Another failure among them is no maintenance, however many were excused.
    health = new()
    health.observe("w1", ok(), 0.0)
    health.observe("w1", replace(bad(3, 2, ErrorCode.MAINTENANCE), excused=2), 0.2)
    health.observe("w1", bad(1, 2), 0.4)
    assert health.state(0.4) is not State.MAINTENANCE


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


def test_where_all_fails_by_itself_a_probe_finds_out() -> None:
    health = new()
    health.observe("w1", LaneReport("okx"), 0.0)
    odd = LaneReport("okx", failed={ErrorCode.EXCHANGE_ERROR: 3}, excused=3)
    for step in range(16):
        health.observe("w1", odd, step / 5)
        health.sent(step / 5)
    assert health.serving
    assert health.probe_every_s(2.9) is None
    assert health.probe_every_s(3.1) == CONFIG.trial_after_s
    health.observe("w1", replace(odd, ok=1), 3.2)  # the probe went well
    assert health.probe_every_s(3.3) is None


def test_some_errors_among_many_answers_degrade_it() -> None:
    health = erring()
    assert not health.serving
    assert health.last_resort(0.0)
    assert health.reason(0.0) == "3 of 10 calls failed"


def calls_until_aside(every: int, gap_s: float) -> int | None:
    """How many calls after a hundred good ones it stands aside, if each `every`-th fails; None if not within 300."""
    health = new()
    for call in range(100):
        health.observe("w1", ok(), call * gap_s)
    for call in range(1, 301):
        fails = call % every == 0
        health.observe("w1", bad(1, 1) if fails else ok(), (100 + call) * gap_s)
        if not health.serving:
            return call
    return None


def test_an_error_rate_is_noticed_within_a_few_calls_at_any_pace() -> None:
    for gap_s in (0.1, 0.5):
        assert [calls_until_aside(every, gap_s) for every in (1, 2, 3, 5)] == [3, 6, 12, 30]
        assert calls_until_aside(7, gap_s) is None


def test_a_lane_with_many_calls_is_judged_by_more_of_them() -> None:
    assert [calls_until_aside(every, gap_s=0.01) for every in (1, 2, 3)] == [5, 16, 33]
    assert calls_until_aside(7, gap_s=0.01) is None


def test_few_calls_say_nothing_of_a_rate() -> None:
    health = new()
    health.observe("w1", mixed(4, 2), 0.0)
    assert health.state(0.0) is State.HEALTHY


def test_errors_are_forgotten() -> None:
    health = new()
    health.observe("w1", mixed(4, 2), 0.0)
    for step in range(10):
        health.observe("w1", mixed(5, 0), 3.0 + step)
    assert health.state(13.0) is State.HEALTHY
    assert health.share == 2.0


def test_a_few_errors_take_from_its_share_only() -> None:
    health = new()
    health.observe("w1", mixed(36, 4), 0.0)
    assert health.serving
    assert health.share == pytest.approx(1.0)


def test_ten_times_its_own_latency_degrades_it_within_seconds() -> None:
    health = new()
    for step in range(10):
        health.observe("w1", ok(4), step / 5)
    at_s = 2.0
    while health.serving and at_s < 10:
        health.observe("w1", ok(4, latency_ms=1_000.0, slowness=10.0), at_s)
        at_s += 0.2
    assert 0.5 < at_s - 2.0 < 2.0
    assert "times slower than it was" in health.reason(at_s)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_slowness_is_noticed_as_fast_with_many_workers(workers: int) -> None:
    """Eight answers a second, by turns; each worker reports five times a second, mostly that it had none."""
    health = new()
    for answer in range(80):
        health.observe(f"w{answer % workers}", ok(), answer / 8)
    for report in range(100 * workers):
        at_s = 10 + report / 5 / workers
        answers = int(at_s * 8) > int((at_s - 1 / 5 / workers) * 8)
        slow = ok(latency_ms=1_000.0, slowness=10.0) if answers else LaneReport("okx")
        health.observe(f"w{report % workers}", slow, at_s)
        if not health.serving:
            assert 1.0 < at_s - 10 < 1.8
            return
    raise AssertionError("it was not noticed")


def test_one_answer_after_a_long_silence_is_no_slowness() -> None:
    health = new()
    health.observe("w1", ok(), 0.0)
    for at_s in (60.0, 120.0):
        health.observe("w1", ok(latency_ms=5_000.0, slowness=50.0), at_s)
        assert health.serving


def test_twice_its_own_latency_is_no_matter_and_four_times_takes_from_its_share() -> None:
    shares: dict[float, float] = {}
    for slowness in (2.0, 4.0):
        health = new()
        for step in range(50):
            health.observe("w1", ok(4, latency_ms=200.0, slowness=slowness), step / 5)
        assert health.serving
        shares[slowness] = health.share
    assert shares == {2.0: pytest.approx(2.0), 4.0: pytest.approx(0.5, rel=0.01)}
    assert health.state(9.8) is State.DEGRADED


def test_a_fast_lane_is_never_slow() -> None:
    health = new()
    for step in range(50):
        health.observe("w1", ok(4, latency_ms=30.0, slowness=30.0), step / 5)
    assert health.state(9.8) is State.HEALTHY
    assert health.share == 2.0


def test_no_answer_to_several_calls_degrades_it_before_any_of_them_fails() -> None:
    health = new()
    health.observe("w1", ok(), 0.0)
    health.observe("w1", LaneReport("okx", in_flight=3, unanswered=3, silent_ms=390.0), 0.2)
    assert health.serving
    health.observe("w1", LaneReport("okx", in_flight=4, unanswered=4, silent_ms=700.0), 0.7)
    assert health.state(0.7) is State.DEGRADED
    assert health.reason(0.7) == "4 calls have no answer, none came for 0.7 s"


def test_a_slow_lane_has_more_time_before_it_counts_as_stalled() -> None:
    health = new()
    health.observe("w1", ok(latency_ms=2_000.0), 0.0)
    health.observe("w1", LaneReport("okx", unanswered=9, silent_ms=4_000.0), 4.0)
    assert health.serving


def test_another_worker_s_answers_show_that_it_lives() -> None:
    health = new()
    health.observe("w1", ok(), 0.0)
    health.observe("w2", LaneReport("okx", unanswered=5, silent_ms=900.0), 0.1)
    assert health.serving
    health.observe("w2", LaneReport("okx", unanswered=5, silent_ms=1_200.0), 0.4)
    assert health.state(0.4) is State.DEGRADED


def test_a_worker_s_first_call_to_a_stalled_lane_is_no_sign_of_life() -> None:
    health = new()
    health.observe("w1", ok(), 0.0)
    for worker, silent_ms in (("w1", 500.0), ("w2", 250.0), ("w3", 220.0)):
        assert health.serving
        health.observe(worker, LaneReport("okx", unanswered=1, silent_ms=silent_ms), 0.5)
    health.observe("w4", LaneReport("okx", unanswered=1, silent_ms=5.0), 0.5)
    assert health.reason(0.5) == "3 calls have no answer, none came for 0.5 s"


def test_calls_that_just_left_say_nothing_yet() -> None:
    health = new()
    health.observe("w1", ok(), 0.0)
    for number in range(1, 6):
        health.observe(f"w{number}", LaneReport("okx", unanswered=1, silent_ms=900.0 if number == 1 else 90.0), 1.0)
    assert health.serving


def test_failures_that_came_fast_are_answers() -> None:
    health = new()
    health.observe("w1", bad(1, 1), 1.0)
    health.observe("w2", LaneReport("okx", unanswered=5, silent_ms=900.0), 1.1)
    assert health.serving
    health.observe("w1", bad(1, 2, ErrorCode.EXCHANGE_TIMEOUT), 1.5)
    health.observe("w2", LaneReport("okx", unanswered=5, silent_ms=1_300.0), 1.5)
    assert not health.serving


def test_maintenance_is_believed_when_said_twice() -> None:
    health = new()
    health.observe("w1", bad(1, 1, ErrorCode.MAINTENANCE), 0.0)
    assert health.serving
    health.observe("w1", bad(1, 2, ErrorCode.MAINTENANCE), 0.2)
    assert health.state(0.2) is State.MAINTENANCE
    assert not health.last_resort(0.2)


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


def test_methods_stay_known_between_the_reports_that_bring_them() -> None:
    health = new()
    health.observe("w1", LaneReport("okx", methods=["fetch_ticker"]), 0.0)
    health.observe("w1", LaneReport("okx"), 0.2)
    assert health.methods == frozenset({"fetch_ticker"})


def test_what_is_outstanding_is_what_workers_hold_and_what_was_sent_since() -> None:
    health = new()
    health.observe("w1", LaneReport("okx", in_flight=3), 0.0)
    health.observe("w2", LaneReport("okx", in_flight=2), 0.1)
    health.sent(0.1)
    assert health.load.outstanding == 6
    health.observe("w1", LaneReport("okx", in_flight=4), 0.3)
    assert health.load.outstanding == 6
    health.observe("w1", LaneReport("okx", in_flight=1), 2.0)  # w2 is gone
    assert health.load.outstanding == 1


def test_what_nobody_asks_is_probed_and_what_stands_aside_when_its_trial_is_due() -> None:
    health = new()
    health.observe("w1", ok(), 0.0)
    assert health.probe_every_s(9.0) is None
    assert health.probe_every_s(10.0) == CONFIG.probe_every_s
    health.sent(10.0)
    assert health.probe_every_s(10.1) is None
    health.observe("w1", bad(5, 5), 10.2)
    assert health.probe_every_s(11.0) is None
    assert health.probe_every_s(11.3) == CONFIG.trial_after_s


def test_the_next_dispatcher_knows_what_this_one_knew() -> None:
    health, other = failing(), new()
    health.observe("w1", LaneReport("okx", methods=["fetch_ticker"], paused_until_ms=77, budget_ms=5.0), 0.5)
    other.remember(health.memory(0.5, 1_000_000), 100.0, 1_000_000)
    assert other.silent(100.0)  # until a worker reports it
    other.observe("w1", LaneReport("okx", failures_in_a_row=5), 100.0)
    assert other.state(100.0) is State.OFFLINE
    assert other.reason(100.0) == "5 failures in a row"
    assert (other.methods, other.paused_until_ms, other.load.budget_ms) == (frozenset({"fetch_ticker"}), 77, 5.0)
    assert not other.due(100.4)
    assert other.due(100.5)


def test_other_settings_keep_what_is_known() -> None:
    health = failing()
    health.configure(5.0, CONFIG)
    assert health.state(0.0) is State.OFFLINE
    health.sent(1.0)
    health.observe("w1", ok(), 1.2)
    health.observe("w1", ok(), 6.0)
    assert health.share == 5.0


@pytest.mark.parametrize("silence_s", [1, 2.8, 3.4, 10, 60, 600])
def test_no_backlog_is_told_by_a_rate_that_is_not_known_any_more(silence_s: float) -> None:
    """A mean that nothing is added to only shrinks: what was told by it grew to years."""
    health = new()
    health.observe("w1", LaneReport("okx"), 0.0)
    for tick in range(1, 50):
        health.observe("w1", LaneReport("okx", ok=10, in_flight=200, exchange_ms=100.0), tick / 5)
    assert health.load.queueing_ms("live fetch_ticker") == pytest.approx(4_000, rel=0.2)
    for tick in range(50, 50 + int(5 * silence_s)):
        health.observe("w1", LaneReport("okx", in_flight=200), tick / 5)
        assert health.load.queueing_ms("live fetch_ticker") < 4_000 * 3
    assert bool(health.load.queueing_ms("live fetch_ticker")) is (silence_s < 3)
    health.observe("w1", LaneReport("okx", ok=10, in_flight=200, exchange_ms=100.0), 10 + silence_s)
    assert health.load.queueing_ms("live fetch_ticker") < 20_000


def test_a_pause_that_was_lifted_is_over_though_some_workers_have_not_seen_it() -> None:
    health = new()
    paused = LaneReport("okx", paused_until_ms=900_000)
    health.observe("w1", paused, 0.0)
    health.observe("w2", paused, 0.1)
    health.observe("w1", replace(paused, paused_until_ms=0, lifted_ms=5_000), 0.2)
    assert health.paused_until_ms == 0
    health.observe("w2", paused, 0.3)
    assert health.paused_until_ms == 0
    # The next pause counts, from whoever tells it.
    health.observe("w1", LaneReport("okx", paused_until_ms=20_000, lifted_ms=5_000), 0.4)
    assert health.paused_until_ms == 20_000
    health.observe("w3", LaneReport("okx", paused_until_ms=30_000), 5.0)  # it started when the mark was gone
    assert health.paused_until_ms == 30_000


def test_after_a_request_s_trial_failed_the_next_one_is_a_probe() -> None:
    """One caller's requests, of which each fails, would else take every trial from those that would succeed."""
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
