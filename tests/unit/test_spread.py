import pytest

from workers.spread import ENOUGH, GENERATION_S, LEAST_US, SPARE_US, Spread


def feed(spread: Spread, trips_s: list[float], *, now_s: float = 0.0, endpoint: str = "a") -> None:
    for trip_s in trips_s:
        spread.answered(now_s, endpoint, trip_s)


def test_nothing_is_known_before_enough_calls() -> None:
    spread = Spread()
    feed(spread, [0.05] * (ENOUGH - 1))
    assert spread.margin_us() < 0
    feed(spread, [0.05])
    assert spread.margin_us() == LEAST_US


def test_it_is_the_longest_way_beyond_the_fastest() -> None:
    spread = Spread()
    feed(spread, [0.05, 0.08, *[0.05] * ENOUGH])
    assert 30_000 + SPARE_US <= spread.margin_us() <= 30_000 * 1.2 + SPARE_US


def test_an_endpoint_that_takes_longer_to_answer_is_no_longer_way() -> None:
    spread = Spread()
    feed(spread, [0.01] * ENOUGH)
    feed(spread, [0.4] * ENOUGH, endpoint="b")
    assert spread.margin_us() == LEAST_US


def test_of_lateness_only_what_is_usual_counts_as_the_rest_does_not_leave() -> None:
    spread = Spread()
    for number in range(1000):
        spread.left(500_000 if number % 100 == 0 else 20_000)
    feed(spread, [0.01] * ENOUGH)
    assert 20_000 <= spread.margin_us() <= 20_000 * 1.2 + SPARE_US + 100


def test_a_slow_hour_is_forgotten_two_generations_later() -> None:
    spread = Spread()
    feed(spread, [0.01, 0.2, *[0.01] * ENOUGH])
    for generation in (1, 2):
        assert spread.margin_us() > 150_000
        feed(spread, [0.01] * ENOUGH, now_s=generation * GENERATION_S)
    assert spread.margin_us() == LEAST_US


def test_a_route_that_became_longer_is_the_new_fastest_in_the_end() -> None:
    spread = Spread()
    feed(spread, [0.01] * ENOUGH)
    for now_s in range(10, 300):
        feed(spread, [0.05], now_s=float(now_s))
    assert spread.answered(300.0, "a", 0.05) == pytest.approx(0, abs=1)
