"""How far calls spread, as one process measures it and as all workers share it."""

import pytest

from workers.budget.jitter import (
    ENOUGH,
    FASTEST_S,
    GENERATION_CALLS,
    GENERATION_S,
    SPARE_US,
    SURE_CALLS,
    SURE_CALLS_HERE,
    Spread,
)
from workers.budget.rules import LEAST_MARGIN_US


def feed(spread: Spread, trips_s: list[float], *, now_s: float = 0.0, endpoint: str = "a", late_us: float = 0) -> None:
    for trip_s in trips_s:
        spread.answered(now_s, endpoint, trip_s, late_us)


def test_nothing_is_known_before_enough_calls() -> None:
    spread = Spread()
    feed(spread, [0.05] * (ENOUGH - 1))
    assert (spread.margin_us(), spread.worst_us()) == (None, None)
    feed(spread, [0.05])
    assert spread.margin_us() == LEAST_MARGIN_US
    assert spread.worst_us() == pytest.approx(50_000 + SPARE_US)  # its trips may all have been slow


def test_the_usual_is_the_margin_and_the_worst_is_for_shares() -> None:
    spread = Spread()
    spread.take_fleet(0, {"a": 0.05})
    feed(spread, [0.05, 0.08, 0.08, 0.25, *[0.05] * (ENOUGH * 2)])
    assert spread.margin_us() == LEAST_MARGIN_US
    feed(spread, [0.08] * 20)
    assert 30_000 <= (spread.margin_us() or 0) <= 30_000 * 1.2
    assert spread.worst_us() == pytest.approx(200_000 + SPARE_US)


def test_an_endpoint_that_takes_longer_to_answer_is_no_longer_way() -> None:
    spread = Spread()
    feed(spread, [0.01] * ENOUGH * 10)
    # Only of its first calls nobody can tell.
    for _ in range(SURE_CALLS_HERE - 1):
        assert spread.answered(GENERATION_S, "b", 0.4) == pytest.approx(390_000)
    assert spread.answered(2 * GENERATION_S - 1, "b", 0.4) == pytest.approx(390_000)
    assert spread.answered(2 * GENERATION_S, "b", 0.4) == pytest.approx(0)
    feed(spread, [0.4] * ENOUGH * 10, endpoint="b", now_s=2 * GENERATION_S)
    assert spread.margin_us() == LEAST_MARGIN_US


def test_a_late_departure_counts_as_well_as_a_long_way() -> None:
    spread = Spread()
    feed(spread, [0.01] * SURE_CALLS)
    assert spread.answered(GENERATION_S, "a", 0.03, 15_000) == pytest.approx(35_000)
    feed(spread, [0.03] * ENOUGH, late_us=15_000)
    assert 35_000 <= (spread.margin_us() or 0) <= 35_000 * 1.2


def test_as_long_as_little_is_known_a_call_may_have_arrived_as_late_as_its_answer() -> None:
    spread = Spread()
    for _ in range(SURE_CALLS):
        assert spread.answered(0.0, "a", 0.08, 15_000) == pytest.approx(95_000)
    assert spread.answered(GENERATION_S - 1, "a", 0.08, 15_000) == pytest.approx(95_000)
    assert spread.answered(GENERATION_S, "a", 0.08, 15_000) == pytest.approx(15_000)


def test_the_fastest_is_the_whole_fleet_s() -> None:
    old, fresh = Spread(), Spread()
    feed(old, [0.01] * SURE_CALLS_HERE)
    assert old.faster(GENERATION_S - 1) == {}
    assert old.faster(GENERATION_S) == {"a": 0.01, "": 0.01}
    fresh.take_fleet(7, old.faster(GENERATION_S))
    assert fresh.answered(0.0, "a", 0.03, 15_000) == pytest.approx(35_000)
    assert fresh.answered(0.0, "b", 0.04) == pytest.approx(30_000)
    feed(fresh, [0.03, 0.008, *[0.03] * SURE_CALLS_HERE])
    assert fresh.answered(0.0, "a", 0.03) == pytest.approx(22_000)  # it is the fastest itself
    assert fresh.faster(GENERATION_S) == {"a": 0.008, "": 0.008}
    fresh.take_fleet(7, {"a": 0.008, "": 0.005})
    assert fresh.faster(GENERATION_S) == {}


def test_fastest_trips_that_redis_forgot_are_published_again_by_workers_that_know_them() -> None:
    """The worker that made these trips may be gone, and all others may be slow."""
    spread = Spread()
    spread.take_fleet(7, {"a": 0.008, "": 0.001})
    feed(spread, [0.02] * SURE_CALLS_HERE)
    for _ in range(2):
        spread.take_fleet(7, {"a": 0.02})
        assert spread.answered(GENERATION_S, "a", 0.03) == pytest.approx(22_000)
        assert spread.answered(GENERATION_S, "b", 0.03) == pytest.approx(29_000)
        assert spread.faster(GENERATION_S) == {"a": 0.008, "": 0.001}
    spread.take_fleet(7, {"a": 0.008, "": 0.001})
    assert spread.faster(GENERATION_S) == {}
    spread.take_fleet(8, {"a": 0.02})  # these are over
    assert spread.faster(GENERATION_S) == {"": 0.02}
    assert spread.answered(GENERATION_S, "a", 0.03) == pytest.approx(10_000)


def test_an_endpoint_is_its_own_measure_only_after_many_calls() -> None:
    """On a busy machine all trips that a process has seen may have been slow."""
    spread = Spread()
    feed(spread, [0.002], endpoint="b")
    feed(spread, [0.017] * (SURE_CALLS_HERE - 2))
    assert spread.answered(GENERATION_S, "a", 0.018) == pytest.approx(16_000)
    assert spread.answered(GENERATION_S, "a", 0.018) == pytest.approx(1_000)


def test_a_slow_start_is_forgotten_two_generations_later() -> None:
    spread = Spread()
    feed(spread, [0.01, *[0.2] * ENOUGH, *[0.01] * GENERATION_CALLS])
    for generation in (1, 2):
        assert (spread.margin_us() or 0) > 150_000
        feed(spread, [0.01] * GENERATION_CALLS, now_s=generation * GENERATION_S)
    assert spread.margin_us() == LEAST_MARGIN_US
    assert spread.worst_us() == LEAST_MARGIN_US


def test_a_route_that_became_longer_is_the_new_fastest_in_the_end() -> None:
    spread = Spread()
    feed(spread, [0.01] * ENOUGH)
    for second in range(10, int(3 * FASTEST_S)):
        feed(spread, [0.05], now_s=float(second))
    assert spread.answered(3 * FASTEST_S, "a", 0.05) == pytest.approx(0, abs=1)


def test_trips_during_a_standstill_are_reported_late_and_say_nothing_of_what_is_usual() -> None:
    def still_s(from_s: float, to_s: float) -> float:
        return max(0.0, min(to_s, 105.0) - max(from_s, 103.0))

    spread, usual = Spread(still_s), [0.01] * SURE_CALLS_HERE
    feed(spread, usual)
    before = spread.margin_us(), spread.worst_us()
    for _ in range(ENOUGH):
        assert spread.answered(105.01, "a", 2.02) == pytest.approx(2_010_000)
    assert (spread.margin_us(), spread.worst_us()) == before
    feed(spread, [2.02] * ENOUGH, now_s=120.0)  # awake
    assert (spread.margin_us() or 0) > 1_000_000
