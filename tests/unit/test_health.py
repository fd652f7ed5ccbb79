from dispatcher.health import LaneHealth, State
from schemas.config import DispatcherConfig
from schemas.messages import ErrorCode, LaneReport

CONFIG = DispatcherConfig(failures_in_a_row=5, silent_after_s=1.5, trial_after_s=1.0, trial_after_max_s=4.0)
DOWN = ErrorCode.EXCHANGE_UNAVAILABLE


def ok(count: int = 1, row: int = 0) -> LaneReport:
    return LaneReport("okx", ok=count, failures_in_a_row=row)


def bad(count: int, row: int) -> LaneReport:
    return LaneReport("okx", failed={DOWN: count}, failures_in_a_row=row)


def failing() -> LaneHealth:
    health = LaneHealth(CONFIG)
    health.hear("w1", bad(5, 5), 0.0)
    assert health.state(0.0) is State.OFFLINE
    return health


def test_without_reports_a_lane_is_offline_and_the_first_one_brings_it() -> None:
    health = LaneHealth(CONFIG)
    assert health.state(0.0) is State.OFFLINE
    assert not health.takes(0.0)
    health.hear("w1", LaneReport("okx"), 0.0)
    assert health.state(1.0) is State.HEALTHY
    assert health.state(1.6) is State.OFFLINE
    assert health.reason(1.6) == "no worker reports it"


def test_a_leaving_worker_counts_no_more() -> None:
    health = LaneHealth(CONFIG)
    health.hear("w1", LaneReport("okx"), 0.0)
    health.forget("w1")
    assert health.state(0.0) is State.OFFLINE


def test_failures_in_a_row_over_all_workers_set_it_offline() -> None:
    health = LaneHealth(CONFIG)
    health.hear("w1", bad(3, 3), 0.0)
    assert health.state(0.0) is State.HEALTHY
    health.hear("w2", bad(2, 2), 0.1)
    assert health.state(0.1) is State.OFFLINE


def test_an_answer_in_between_breaks_the_row() -> None:
    health = LaneHealth(CONFIG)
    health.hear("w1", bad(4, 4), 0.0)
    health.hear("w1", ok(1, row=2), 0.2)
    health.hear("w1", bad(2, 4), 0.4)
    assert health.state(0.4) is State.HEALTHY


def test_rejected_requests_are_answers() -> None:
    health = LaneHealth(CONFIG)
    health.hear("w1", bad(4, 4), 0.0)
    health.hear("w1", LaneReport("okx", rejected=1), 0.2)
    health.hear("w1", bad(4, 4), 0.4)
    assert health.state(0.4) is State.HEALTHY


def test_offline_takes_one_trial_at_a_time_with_growing_gaps() -> None:
    health = failing()
    assert not health.takes(0.9)
    assert health.takes(1.0)
    health.sent(1.0)
    assert not health.takes(1.1)
    health.hear("w1", bad(1, 6), 1.2)  # the trial failed: the gap doubles
    assert health.usable_in_s(1.2) == 2.0
    health.hear("w1", LaneReport("okx", failures_in_a_row=6), 3.0)
    assert not health.takes(3.1)
    assert health.takes(3.2)
    for at_s in (3.2, 10.0, 20.0):
        health.sent(at_s)
        health.hear("w1", bad(1, 7), at_s)
    assert health.usable_in_s(20.0) == CONFIG.trial_after_max_s


def test_what_was_under_way_before_does_not_count_as_a_failed_trial() -> None:
    health = failing()
    health.hear("w1", bad(7, 12), 0.2)
    health.hear("w2", bad(3, 3), 0.3)
    assert health.takes(1.0)
    assert health.sent(1.0)
    health.hear("w1", bad(1, 13), 1.1)
    health.hear("w2", bad(1, 4), 1.2)
    assert health.usable_in_s(1.1) == 2.0


def test_a_good_trial_brings_it_back() -> None:
    health = failing()
    health.sent(1.0)
    health.hear("w1", ok(), 1.2)
    assert health.state(1.2) is State.HEALTHY
    assert health.takes(1.2)


def test_methods_stay_known_between_the_reports_that_bring_them() -> None:
    health = LaneHealth(CONFIG)
    health.hear("w1", LaneReport("okx", methods=["fetch_ticker"]), 0.0)
    health.hear("w1", LaneReport("okx"), 0.2)
    assert health.methods == frozenset({"fetch_ticker"})
