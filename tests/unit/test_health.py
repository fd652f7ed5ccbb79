"""What a lane's workers report, and what that makes of the lane."""

import pytest
from msgspec.structs import replace

from dispatcher.circuit import State
from schemas.messages import ErrorCode
from schemas.reports import LaneReport
from tests.support.lane_reports import CONFIG, bad, erring, failing, mixed, new, ok


def test_without_reports_a_lane_is_offline_and_the_first_one_brings_it() -> None:
    health = new()
    assert health.state(0.0) is State.OFFLINE
    assert health.silent(0.0)
    health.observe("w1", LaneReport("okx"), 0.0)
    assert health.state(1.0) is State.HEALTHY
    assert health.share == 2.0  # a lane that was silent only needs no slow start
    assert health.state(1.6) is State.OFFLINE
    assert health.reason(1.6) == "no worker reports it"


def test_a_lane_that_no_worker_could_open_says_why() -> None:
    health = new()
    health.not_open("w1", "", 0.0)
    assert health.reason(0.1) == "it has not opened: its markets are being read"
    health.not_open("w2", "connection refused", 0.2)
    assert (health.unopened(0.3), health.state(0.3)) == ("connection refused", State.OFFLINE)
    health.observe("w3", LaneReport("okx"), 0.4)  # a worker serves it: what others could not do matters no more
    assert (health.unopened(0.5), health.reason(0.5)) == (None, "")
    assert health.reason(2.0) == "no worker reports it"


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
    """Neither that it fails, nor that it is healthy."""
    health = new()
    health.observe("w1", LaneReport("okx", uncalled=50), 0.0)
    assert health.state(0.0) is State.HEALTHY
    for step in range(5):
        health.observe("w1", bad(1, step + 1), step / 5)
        health.observe("w1", LaneReport("okx", uncalled=50, failures_in_a_row=step + 1), step / 5 + 0.1)
    assert health.state(1.0) is State.OFFLINE


def test_maintenance_is_believed_also_where_some_of_it_was_excused() -> None:
    """As an outage begins, others have just been answered: a second failure of one request is its own trouble."""
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
    """How many calls after a hundred good ones it is set aside, if each `every`-th fails; None if not within 300."""
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
    """Eight answers a second, from the workers by turns. Each reports five times a second, mostly that it had none."""
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


@pytest.mark.parametrize(("answers", "stalls_s"), [(0, 2.0), (20, 8.0)])
def test_a_lane_that_was_not_asked_for_a_minute_or_never_has_as_much_time(answers: int, stalls_s: float) -> None:
    """What is known of its latency must not fade while nothing is asked. Before the first answer nothing is known."""
    health = new()
    health.observe("w1", LaneReport("okx"), 0.0)
    for number in range(answers):
        health.observe("w1", ok(latency_ms=2_000.0), number / 5)
    for number in range(300):
        health.observe("w1", LaneReport("okx"), 4.0 + number / 5)
    for silent_s in (0.4, 1.0, stalls_s - 0.2, stalls_s):
        assert health.serving
        health.observe("w1", LaneReport("okx", in_flight=4, unanswered=4, silent_ms=silent_s * 1000), 64.0 + silent_s)
    assert health.state(64.0 + stalls_s) is State.DEGRADED


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
    health.observe("w1", ok(), 0.0)
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


def test_a_lane_without_requests_is_probed_and_one_set_aside_when_its_trial_is_due() -> None:
    health = new()
    health.observe("w1", ok(), 0.0)
    assert health.probe_every_s(9.0) is None
    assert health.probe_every_s(10.0) == CONFIG.probe_every_s
    health.sent(10.0)
    assert health.probe_every_s(10.1) is None
    health.observe("w1", bad(5, 5), 10.2)
    assert health.probe_every_s(11.0) is None
    assert health.probe_every_s(11.3) == CONFIG.trial_after_s


def test_a_lane_that_nobody_asks_is_probed_ever_more_seldom() -> None:
    health, now_s, gaps_s = new(), 0.0, list[float]()
    health.observe("w1", ok(), 0.0)
    for _ in range(4):
        before_s = now_s
        while (every_s := health.probe_every_s(now_s)) is None:
            now_s += 0.5
            health.observe("w1", LaneReport("okx"), now_s)
        assert now_s - before_s == every_s
        gaps_s.append(every_s)
        health.sent(now_s, probe=True)
    assert gaps_s == [10.0, 20.0, 20.0, 20.0]
    health.observe("w1", bad(1, 1), now_s)
    assert health.probe_every_s(now_s + 9.9) is None
    assert health.probe_every_s(now_s + 10.0) is not None
    health.sent(now_s, probe=True)
    health.sent(now_s)
    assert health.probe_every_s(now_s + 10.0) is not None


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


def test_the_next_dispatcher_gets_a_latency_that_has_not_faded() -> None:
    health, other = new(), new()
    for number in range(20):
        health.observe("w1", ok(latency_ms=300.0), number / 5)
    health.observe("w1", LaneReport("okx"), 34.0)
    assert health.load.latency_ms < 30.0
    other.remember(health.memory(34.0, 1_000_000), 100.0, 1_000_000)
    assert other.load.usual_ms == pytest.approx(300.0)


def test_other_settings_keep_what_is_known() -> None:
    health = failing()
    health.configure(5.0, CONFIG)
    assert health.state(0.0) is State.OFFLINE
    health.sent(1.0)
    health.observe("w1", ok(), 1.2)
    health.observe("w1", ok(), 6.0)
    assert health.share == 5.0


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
