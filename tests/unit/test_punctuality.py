from workers.punctuality import LEAD_LIMIT_US, Punctuality

# Redis's clock is 1,000 s behind ours in these tests.
AHEAD_S = 1_000.0


def redis_us(ours_s: float) -> float:
    return (ours_s - AHEAD_S) * 1e6


def test_an_instant_is_late_by_the_fastest_answer_at_most() -> None:
    clock = Punctuality()
    for now_s, way_s in ((2_000.0, 0.050), (2_001.0, 0.001), (2_002.0, 0.080)):
        clock.answered(now_s, redis_us(now_s - way_s), asked=now_s - 2 * way_s)
    assert abs(clock.due(redis_us(2_010.0), not_before=0.0) - 2_010.001) < 1e-6


def test_lateness_counts_from_when_an_instant_was_here_at_the_earliest() -> None:
    clock = Punctuality()
    for now_s, question_s, answer_s in ((2_000.0, 0.004, 0.050), (2_001.0, 0.030, 0.020)):
        clock.answered(now_s, redis_us(now_s - answer_s), asked=now_s - answer_s - question_s)
    assert abs(clock.earliest(redis_us(2_010.0)) - (2_010.0 - 0.004)) < 1e-6
    assert abs(clock.due(redis_us(2_010.0), not_before=0.0) - 2_010.020) < 1e-6


def test_it_is_never_before_what_was_granted_counted_from_the_question() -> None:
    clock = Punctuality()
    clock.answered(2_000.0, redis_us(2_000.0), asked=2_000.0)
    assert clock.due(redis_us(2_001.0), not_before=2_001.5) == 2_001.5


def test_a_clock_that_was_set_is_believed_again_after_two_spans() -> None:
    clock = Punctuality()
    clock.answered(2_000.0, redis_us(2_000.0), asked=2_000.0)
    for now_s in (2_011.0, 2_022.0):
        clock.answered(now_s, redis_us(now_s - 5.0), asked=now_s)  # set back by 5 s
    assert abs(clock.due(redis_us(2_030.0), not_before=0.0) - 2_035.0) < 1e-6


def test_who_is_late_asks_further_ahead_and_forgets_it_slowly() -> None:
    clock = Punctuality()
    assert clock.lead_us() == 0
    clock.woke(20_000)
    assert clock.lead_us() == 20_000
    for _ in range(300):
        clock.woke(0)
    assert clock.lead_us() == 0
    clock.woke(10_000_000)
    assert clock.lead_us() == LEAD_LIMIT_US
