"""Redis's clock as seen from ours, which are 1,000 s apart in these tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.budget.redis_clock import DRIFT, STOOD_STILL_US, RedisClock

AHEAD_S = 1_000.0


def redis_us(ours_s: float) -> int:
    return round((ours_s - AHEAD_S) * 1e6)


def heard(*answers: tuple[float, float, float]) -> RedisClock:
    """A clock with some answers: when each was given, by our clock, and how long the question and the answer took."""
    clock = RedisClock()
    for at_s, question_s, answer_s in answers:
        clock.answered(at_s + answer_s, redis_us(at_s), asked_s=at_s - question_s)
    return clock


def test_an_instant_is_late_by_the_fastest_answer_and_early_by_the_fastest_question() -> None:
    clock = heard((2_000.0, 0.004, 0.050), (2_001.0, 0.030, 0.020), (2_002.0, 0.080, 0.080))
    assert clock.due(redis_us(2_002.0)) == pytest.approx(2_002.020, abs=1.1 * DRIFT)
    assert clock.earliest(redis_us(2_002.0)) == pytest.approx(2_002.0 - 0.004, abs=2.1 * DRIFT)


def test_how_much_later_an_answer_came_than_the_fastest() -> None:
    clock = heard((2_000.0, 0.001, 0.001))
    assert clock.answered(2_000.301, redis_us(2_000.0), asked_s=1_999.0) == pytest.approx(0.3)


def test_a_clock_that_was_set_is_believed_at_once() -> None:
    clock = heard((2_000.0, 0.001, 0.001))
    clock.answered(2_010.0, redis_us(2_005.0), asked_s=2_010.0)  # set back by 5 s
    assert clock.due(redis_us(2_005.0)) == 2_010.0


@given(
    rate=st.floats(1 - DRIFT * 0.99, 1 + DRIFT * 0.99),
    answers=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    later_s=st.floats(-30, 300),
)
def test_the_truth_is_never_outside(rate: float, answers: list[tuple[float, float, float]], later_s: float) -> None:
    """However clocks drift and late answers are. When an instant is due agrees with what the clock shows then."""
    clock, now_s = RedisClock(), 2_000.0

    def true_us(ours_s: float) -> int:
        return round((ours_s - 2_000.0) * rate * 1e6) + 10**15

    for pass_s, question_s, answer_s in answers:
        now_s += pass_s + question_s + answer_s
        clock.answered(now_s, true_us(now_s - answer_s), asked_s=now_s - answer_s - question_s)
        earliest, latest = clock.shows(now_s + later_s)
        assert earliest - 2 <= true_us(now_s + later_s) <= latest + 2
        at_us = true_us(now_s + later_s)
        assert clock.earliest(at_us) - 2e-6 <= now_s + later_s <= clock.due(at_us) + 2e-6
        assert clock.shows(clock.due(at_us))[0] == pytest.approx(at_us, abs=2)


@given(
    lagging_s=st.floats(0, 300),
    answers=st.lists(st.tuples(st.floats(0, 10), st.floats(0, 0.1), st.booleans()), min_size=1, max_size=10),
    apart_us=st.integers(0, 5_000_000),
)
def test_while_it_is_held_no_two_instants_come_closer(
    lagging_s: float, answers: list[tuple[float, float, bool]], apart_us: int
) -> None:
    """Whatever answers come between them, also from a clock that was corrected by what was not known of it."""
    clock, now_s = heard((2_000.0, 0.05, 0.05)), 2_000.05 + lagging_s
    clock.held = True
    at_us = clock.shows(now_s)[0]
    left_s = clock.due(at_us)
    for pass_s, trip_s, corrected in answers:
        now_s += pass_s
        take = clock.corrected if corrected else clock.answered
        take(now_s, redis_us(now_s - trip_s), asked_s=now_s - trip_s)
        assert clock.due(at_us + apart_us) - left_s >= apart_us / 1e6 - 1e-6


def test_a_worker_that_stood_still_takes_over_the_time_also_while_it_is_held() -> None:
    clock = heard((2_000.0, 0.001, 0.001))
    clock.held = True
    now_s = 2_001.0 + STOOD_STILL_US / 1e6
    clock.corrected(2_001.0, redis_us(now_s), asked_s=2_000.999)
    assert clock.shows(2_001.0)[0] == redis_us(now_s)


def test_a_clock_that_never_answered_is_unknown() -> None:
    with pytest.raises(ValueError, match="not answered"):
        RedisClock().shows(0.0)
