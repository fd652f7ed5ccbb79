"""How each strategy shares requests out among lanes."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dispatcher.load import Load
from dispatcher.strategies import Choice, Chooser
from schemas.messages import Strategy

WEIGHTS = {"a": 3.0, "b": 1.0, "c": 1.0}


def lanes(weights: dict[str, float] = WEIGHTS) -> dict[str, Choice]:
    return {name: Choice(name, weight) for name, weight in weights.items()}


def chosen(chooser: Chooser, strategy: Strategy, among: list[Choice], count: int) -> list[str]:
    return [chooser.choose(strategy, among).name for _ in range(count)]


def test_weighted_shares_are_spread_out() -> None:
    assert chosen(Chooser(), "weighted_round_robin", [*lanes().values()], 10) == ["a", "b", "a", "c", "a"] * 2


def test_plain_shares_are_equal_whatever_the_weights() -> None:
    names = chosen(Chooser(), "round_robin", [*lanes().values()], 9)
    assert names == ["a", "b", "c"] * 3
    assert all(one != other for one, other in pairwise(names))


def test_failover_is_the_order_given() -> None:
    of = lanes()
    assert set(chosen(Chooser(), "failover", [of["b"], of["a"]], 5)) == {"b"}


def test_a_single_candidate_owes_nothing() -> None:
    of, chooser = lanes(), Chooser()
    chosen(chooser, "weighted_round_robin", [of["c"]], 100)
    assert Counter(chosen(chooser, "weighted_round_robin", [of["a"], of["b"]], 8)) == {"a": 6, "b": 2}


@given(some.dictionaries(some.sampled_from("abcdefgh"), some.integers(1, 20), min_size=2))
def test_after_one_round_everyone_had_exactly_its_weight(weights: dict[str, int]) -> None:
    of = lanes({lane: float(weight) for lane, weight in weights.items()})
    assert Counter(chosen(Chooser(), "weighted_round_robin", [*of.values()], sum(weights.values()))) == weights


@given(some.dictionaries(some.sampled_from("abcdefgh"), some.floats(0.1, 10), min_size=2), some.data())
def test_shares_converge_to_what_health_leaves_of_the_weights(weights: dict[str, float], data: some.DataObject) -> None:
    of = lanes(weights)
    for lane in of.values():
        lane.share *= data.draw(some.sampled_from([0.1, 0.5, 1.0]))
    whole = sum(lane.share for lane in of.values())
    had = Counter(chosen(Chooser(), "weighted_round_robin", [*of.values()], 2_000))
    assert all(abs(had[lane.name] / 2_000 - lane.share / whole) < 0.01 for lane in of.values())


@given(some.lists(some.sets(some.sampled_from("abc"), min_size=1), max_size=200))
def test_no_lane_is_ever_owed_much(candidates: list[set[str]]) -> None:
    """With any candidates, a lane's share stays within a few requests of what its weight earned."""
    of, chooser = lanes(), Chooser()
    earned, had = dict.fromkeys(WEIGHTS, 0.0), Counter[str]()
    for names in candidates:
        among = [of[name] for name in sorted(names)]
        if len(among) > 1:
            for lane in among:
                earned[lane.name] += lane.weight / sum(other.weight for other in among)
            had[chooser.choose("weighted_round_robin", among).name] += 1
    assert all(abs(earned[lane] - had[lane]) < 4 for lane in WEIGHTS)


def test_least_latency_never_takes_the_worst_and_mostly_the_better() -> None:
    of = lanes({"a": 1.0, "b": 1.0, "c": 1.0})
    of["a"].load, of["b"].load, of["c"].load = Load(20.0), Load(40.0), Load(400.0)
    had = Counter(chosen(Chooser(Random(1)), "least_latency", [*of.values()], 3_000))
    assert had["c"] == 0
    assert had["a"] / 3_000 == pytest.approx(2 / 3, abs=0.05)


def test_least_latency_minds_what_is_outstanding() -> None:
    of = lanes({"a": 1.0, "b": 1.0})
    of["a"].load, of["b"].load = Load(20.0), Load(40.0)
    had = Counter[str]()
    for _ in range(300):  # nobody answers yet
        lane = Chooser(Random(2)).choose("least_latency", [*of.values()])
        lane.load.sent()
        had[lane.name] += 1
    assert had["a"] == pytest.approx(200, abs=3)


@pytest.mark.parametrize("strategy", ["least_latency", "adaptive"])
def test_a_lane_that_comes_back_gets_little_at_first(strategy: Strategy) -> None:
    of = lanes({"a": 5.0, "b": 5.0})
    of["a"].load, of["b"].load = Load(30.0), Load(20.0)
    of["b"].share = 0.5
    assert set(chosen(Chooser(Random(3)), strategy, [*of.values()], 50)) == {"a"}


def test_adaptive_takes_what_will_answer_first() -> None:
    of = lanes({"fast": 1.0, "slow": 1.0})
    of["fast"].load, of["slow"].load = Load(20.0, budget_ms=50.0), Load(200.0, budget_ms=5.0)
    had = Counter[str]()
    for _ in range(100):  # all at once
        lane = Chooser().choose("adaptive", [*of.values()])
        lane.load.sent()
        had[lane.name] += 1
    # 20 + 50 f = 200 + 5 s and f + s = 100
    assert had["fast"] == pytest.approx(12, abs=1)


@settings(deadline=None)
@given(some.lists(some.floats(1, 500), min_size=2, max_size=6), some.sampled_from(["least_latency", "adaptive"]))
def test_under_load_no_lane_starves(latencies_ms: list[float], strategy: Strategy) -> None:
    """As long as nothing comes back, every lane gets its turn."""
    of = lanes({str(number): 1.0 for number in range(len(latencies_ms))})
    for lane, latency_ms in zip(of.values(), latencies_ms, strict=True):
        lane.load = Load(latency_ms, budget_ms=10.0)
    chooser, had = Chooser(Random(4)), Counter[str]()
    for _ in range(4_000):
        lane = chooser.choose(strategy, [*of.values()])
        lane.load.sent()
        had[lane.name] += 1
    assert len(had) == len(of)
