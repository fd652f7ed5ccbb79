from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from dispatcher.strategies import Chooser

WEIGHTS = {"a": 3.0, "b": 1.0, "c": 1.0}


def test_weighted_shares_are_spread_out() -> None:
    chooser = Chooser(WEIGHTS)
    chosen = [chooser.choose("weighted_round_robin", ["a", "b", "c"]) for _ in range(10)]
    assert chosen == ["a", "b", "a", "c", "a"] * 2


def test_plain_shares_are_equal_whatever_the_weights() -> None:
    chooser = Chooser(WEIGHTS)
    chosen = [chooser.choose("round_robin", ["a", "b", "c"]) for _ in range(9)]
    assert chosen == ["a", "b", "c"] * 3
    assert all(one != other for one, other in pairwise(chosen))


def test_failover_is_the_order_given() -> None:
    chooser = Chooser(WEIGHTS)
    assert {chooser.choose("failover", ["b", "a"]) for _ in range(5)} == {"b"}


def test_a_single_candidate_owes_nobody() -> None:
    chooser = Chooser(WEIGHTS)
    for _ in range(100):
        assert chooser.choose("weighted_round_robin", ["c"]) == "c"
    assert Counter(chooser.choose("weighted_round_robin", ["a", "b"]) for _ in range(8)) == {"a": 6, "b": 2}


@given(some.dictionaries(some.sampled_from("abcdefgh"), some.integers(1, 20), min_size=2))
def test_after_one_round_everyone_had_exactly_its_weight(weights: dict[str, int]) -> None:
    chooser = Chooser({lane: float(weight) for lane, weight in weights.items()})
    lanes = list(weights)
    chosen = Counter(chooser.choose("weighted_round_robin", lanes) for _ in range(sum(weights.values())))
    assert chosen == weights


@given(some.lists(some.sets(some.sampled_from("abc"), min_size=1), max_size=200))
def test_nobody_is_ever_owed_much(candidates: list[set[str]]) -> None:
    """With any candidates, a lane's share stays within a few requests of what its weight earned."""
    chooser = Chooser(WEIGHTS)
    earned, had = Counter[str](), Counter[str]()
    for names in candidates:
        lanes = sorted(names)
        if len(lanes) > 1:
            for lane in lanes:
                earned[lane] += WEIGHTS[lane] / sum(WEIGHTS[other] for other in lanes)  # type: ignore[assignment]
            had[chooser.choose("weighted_round_robin", lanes)] += 1
    assert all(abs(earned[lane] - had[lane]) < 4 for lane in WEIGHTS)
