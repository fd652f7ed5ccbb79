"""The strategies: each chooses one of the lanes that could take a request. Pure, but for the state that they keep."""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from schemas.messages import Strategy

from .load import Load


class Choice:
    """A lane as the strategies see it.

    Args:
        name: the lane's name.
        weight: its configured share beside the other lanes' weights.

    Attributes:
        share: `weight` less what its health takes from it now.
        load: what is in flight there, and how long until one more is answered.
    """

    # These are read for each lane of each request. Slots take a quarter less CPU where there are hundreds of lanes.
    __slots__ = ("credit", "even_credit", "load", "name", "share", "weight")

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.weight = weight
        self.share = weight
        self.load = Load()
        # What it has earned of requests and not been given yet, by its weight and evenly. Different requests may have
        # different candidates, so each lane keeps its own.
        self.credit = 0.0
        self.even_credit = 0.0


C = TypeVar("C", bound=Choice)


class Chooser:
    """Chooses one of several lanes.

    - ``weighted_round_robin`` is smooth: weights 3 and 1 give a a b a, not a a a b (as nginx's upstream module does).
    - ``round_robin`` is the same with equal weights, less what health takes from a share.
    - ``failover`` takes the first in the order given.
    - ``least_latency`` draws two lanes and takes the one with less latency times load: close to the best of all,
      without a herd on the best (Mitzenmacher 2001, "The power of two choices"; the peak EWMA is Finagle's).
    - ``adaptive`` takes the lane that will probably answer first (`Load.answers_in_ms`).

    Args:
        random: draws; given by tests.
    """

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or Random()
        self._strategies: dict[Strategy, Callable[[Sequence[Choice]], Choice]] = {
            "weighted_round_robin": _weighted,
            "round_robin": _even,
            "failover": lambda lanes: lanes[0],
            "least_latency": self._least_latency,
            "adaptive": _adaptive,
        }

    def choose(self, strategy: Strategy, lanes: Sequence[C]) -> C:
        """The lane for the next request.

        Args:
            strategy: how to choose.
            lanes: the candidates in the order of preference; at least one.
        """
        if len(lanes) == 1:
            return lanes[0]
        return self._strategies[strategy](lanes)  # type: ignore[return-value]  # one of those given

    def _least_latency(self, lanes: Sequence[Choice]) -> Choice:
        first = int(self._random.random() * len(lanes))
        second = int(self._random.random() * (len(lanes) - 1))
        one, other = lanes[first], lanes[second + (second >= first)]
        # A lane with half of its share, in its slow start or for its errors, counts as twice as slow.
        one_ms, other_ms = one.load.busyness_ms, other.load.busyness_ms
        return one if one_ms * other.share * one.weight <= other_ms * one.share * other.weight else other


def _weighted(lanes: Sequence[Choice]) -> Choice:
    """Each lane earns its share as credit; the one with most credit is chosen and pays what all have earned."""
    earned, richest = 0.0, lanes[0]
    for lane in lanes:
        lane.credit += lane.share
        earned += lane.share
        if lane.credit > richest.credit:
            richest = lane
    richest.credit -= earned
    return richest


def _even(lanes: Sequence[Choice]) -> Choice:
    earned, richest = 0.0, lanes[0]
    for lane in lanes:
        part = lane.share / lane.weight
        lane.even_credit += part
        earned += part
        if lane.even_credit > richest.even_credit:
            richest = lane
    richest.even_credit -= earned
    return richest


def _adaptive(lanes: Sequence[Choice]) -> Choice:
    """The lane that will probably answer first; one with half of its share counts as twice as slow."""
    best, least_ms = lanes[0], math.inf
    for lane in lanes:  # a loop: half the time of `min` with a key
        if (ms := lane.load.answers_in_ms * lane.weight / lane.share) < least_ms:
            best, least_ms = lane, ms
    return best
