"""A lane's latency beside its own baseline, and how long it has been silent."""

import math
import random

import pytest

from workers.exchange.latency import FIRST, Answering


def usual(answering: Answering, latency_s: float = 0.1, *, method: str = "fetch_ticker", calls: int = FIRST) -> None:
    for _ in range(calls):
        answering.took(method, latency_s)
    answering.slowness()


def test_silence_counts_from_the_last_answer_while_calls_are_out() -> None:
    answering = Answering()
    assert answering.silent_s(5.0) == 0
    answering.sent(10.0)
    answering.sent(11.0)
    assert answering.silent_s(12.0) == 2.0
    answering.answered(12.5)
    answering.ended()
    assert (answering.unanswered, answering.silent_s(13.0)) == (1, 0.5)
    answering.ended()  # as with a connection that was refused: no answer, and nothing out
    assert answering.silent_s(99.0) == 0
    answering.sent(100.0)
    assert answering.silent_s(100.5) == 0.5


def test_nothing_is_slow_before_there_is_something_to_compare_with() -> None:
    answering = Answering()
    for _ in range(FIRST):
        answering.took("fetch_ticker", 0.1)
    assert answering.slowness() == 1.0
    answering.took("fetch_ohlcv", 9.0)
    assert answering.slowness() == 1.0


def test_slowness_is_the_geometric_mean_beside_each_method_s_own() -> None:
    answering = Answering()
    usual(answering, 0.1)
    usual(answering, 1.0, method="fetch_ohlcv")
    answering.took("fetch_ticker", 0.4)
    answering.took("fetch_ohlcv", 1.0)
    assert answering.slowness() == pytest.approx(2.0)
    assert answering.slowness() == 1.0


def test_what_is_usual_follows_slowly_and_unusual_calls_hardly() -> None:
    answering = Answering()
    usual(answering, 0.1)
    usual(answering, 0.2, calls=200)
    answering.took("fetch_ticker", 0.1 * 2 ** (1 - math.exp(-1)))
    assert answering.slowness() == pytest.approx(1.0, rel=0.01)

    slow = Answering()
    usual(slow, 0.1)
    usual(slow, 1.0, calls=200)
    slow.took("fetch_ticker", 0.1)
    assert slow.slowness() == pytest.approx(1 / 1.1, rel=0.03)


def test_a_latency_that_varies_as_ever_is_usual() -> None:
    chance = random.Random(4)
    answering = Answering()
    for _ in range(2000):
        answering.took("fetch_ticker", chance.lognormvariate(-2, 0.5))
    answering.slowness()
    for _ in range(500):
        answering.took("fetch_ticker", chance.lognormvariate(-2, 0.5))
    assert answering.slowness() == pytest.approx(1.0, abs=0.1)


def test_a_clock_that_did_not_move_is_a_latency_too() -> None:
    answering = Answering()
    usual(answering, 0.0)
    answering.took("fetch_ticker", 0.0)
    assert answering.slowness() == 1.0


def test_time_in_which_nobody_could_read_is_no_silence() -> None:
    def still_s(from_s: float, to_s: float) -> float:
        return max(0.0, min(to_s, 17.0) - max(from_s, 12.0))

    answering = Answering(still_s)
    answering.sent(10.0)
    assert answering.silent_s(12.0) == 2.0
    assert answering.silent_s(17.0) == 2.0
    assert answering.silent_s(18.5) == 3.5
    answering.answered(18.5)
    assert answering.silent_s(19.0) == 0.5
