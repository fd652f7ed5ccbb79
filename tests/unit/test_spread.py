"""Which of the workers that are there serve a lane: the same by all their reckonings, and without a gap."""

import random
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Config, LaneConfig, LimitsConfig, WorkerConfig
from workers.limits.costs import load
from workers.limits.tables import shipped
from workers.part import ALL, Part
from workers.spread import Peer, Spread, counts

LANES = [f"okx.n{number}" for number in range(30)]
names = st.sets(st.sampled_from([f"host{number}-1" for number in range(12)]), min_size=1, max_size=8)


class Fleet:
    """Workers that open and close lanes as each thinks it should."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.counts: dict[str, int] = {}  # of lanes that have another number
        self.serve: dict[str, set[str]] = {}  # by worker
        self.parts: dict[str, Part] = {}

    def come(self, name: str, part: Part = ALL) -> None:
        self.serve[name], self.parts[name] = set(), part

    def go(self, name: str) -> None:
        del self.serve[name]

    def look(self, name: str, *, opens: bool = True) -> None:
        """One worker looks who is there and changes what it serves; what it has just opened others see later."""
        spread = Spread(name, self.parts[name], dict.fromkeys(LANES, self.count) | self.counts)
        peers = {
            other: Peer(self.parts[other], frozenset(lanes)) for other, lanes in self.serve.items() if other != name
        }
        spread.learn(peers, self.serve[name])
        wanted = set(spread.of(LANES))
        self.serve[name] = wanted if opens else wanted & self.serve[name]

    def settle(self) -> None:
        for _ in range(3):
            for name in self.serve:
                self.look(name)

    def of(self, lane: str) -> set[str]:
        return {name for name, lanes in self.serve.items() if lane in lanes}


def settled(workers: Collection[str], count: int = 2) -> Fleet:
    fleet = Fleet(count)
    for name in workers:
        fleet.come(name)
    fleet.settle()
    return fleet


@given(names, st.integers(1, 4))
def test_each_lane_has_so_many_workers_and_each_worker_its_share(workers: set[str], count: int) -> None:
    fleet = settled(workers, count)
    assert {len(fleet.of(lane)) for lane in LANES} == {min(count, len(workers))}


@given(names, st.dictionaries(st.sampled_from(LANES), st.integers(1, 9)))
def test_a_lane_that_can_use_more_workers_has_more(workers: set[str], numbers: dict[str, int]) -> None:
    fleet = settled(workers)
    before = {lane: fleet.of(lane) for lane in LANES}
    fleet.counts = numbers
    fleet.settle()
    for lane in LANES:
        assert len(fleet.of(lane)) == min(numbers.get(lane, 2), len(workers))
        assert fleet.of(lane) == before[lane] or lane in numbers
    fleet.counts = {}
    fleet.settle()
    assert before == {lane: fleet.of(lane) for lane in LANES}


def test_so_many_workers_serve_a_lane_as_its_limits_can_use_and_so_many_as_configured_at_least() -> None:
    buckets = {"weight": {"amount": 60_000, "window_s": 60, "kind": "fixed"}}
    limits = {"binanceus": LimitsConfig(buckets)}
    lanes = {name: LaneConfig(exchange=name) for name in ("kraken", "okx", "binanceus", "bitstamp")}
    assert counts(Config(lanes)) == {}
    found = counts(Config(lanes, worker=WorkerConfig(spread=2), limits=limits))
    assert found == {"kraken": 2, "okx": 4, "binanceus": 5, "bitstamp": 2}
    assert set(counts(Config(lanes, worker=WorkerConfig(spread=6))).values()) == {6}


EXAMPLES: list[tuple[str, dict[str, dict[str, Any]], float]] = [
    # One budget for all: a table of ours whose only bucket is a weight of 20 a second.
    ("binanceus", {}, 20.0),
    # None is known: ccxt's pace.
    ("bitstamp", {}, 20.0),
    # Each endpoint has its own; those for pairs alone have no bound of their own.
    ("bybit", {}, 120.0),
    ("bybit", {"ip": {"amount": 1_000, "window_s": 5}}, 200.0),
]


@pytest.mark.parametrize(("exchange", "buckets", "per_s"), EXAMPLES)
def test_what_limits_allow_at_most(exchange: str, buckets: dict[str, dict[str, Any]], per_s: float) -> None:
    assert load(exchange, 50, LimitsConfig(buckets)).most_per_s == pytest.approx(per_s, rel=0.05)


@pytest.mark.parametrize("exchange", shipped().limited)
def test_no_call_is_above_what_limits_allow_at_most(exchange: str) -> None:
    costs = load(exchange, 50)
    assert costs.most_per_s > 0
    for name, rules in costs.rules.items():
        paces_per_s = [
            costs.buckets[rule.bucket].amount / costs.buckets[rule.bucket].window_s / rule.dearest
            for rule in rules
            if not costs.buckets[rule.bucket].per and rule.per_ccxt_cost is None
        ]
        assert min(paces_per_s, default=0.0) <= costs.most_per_s * 1.001, name


def test_the_lanes_are_shared_out_evenly() -> None:
    shares = [len(lanes) for lanes in settled([f"host-{number}" for number in range(3)]).serve.values()]
    assert sum(shares) == 2 * len(LANES)
    assert all(15 <= share <= 25 for share in shares), shares


@given(names, st.data())
def test_only_the_lanes_move_that_the_new_one_gets_or_the_old_one_had(workers: set[str], data: st.DataObject) -> None:
    fleet = settled(workers)
    before = {lane: fleet.of(lane) for lane in LANES}
    fleet.come("new-1")
    fleet.settle()
    assert all(fleet.of(lane) == before[lane] for lane in LANES if lane not in fleet.serve["new-1"])
    gone = data.draw(st.sampled_from(sorted(workers)))
    had, before = fleet.serve[gone], {lane: fleet.of(lane) for lane in LANES}
    fleet.go(gone)
    fleet.settle()
    assert all(fleet.of(lane) == before[lane] for lane in LANES if lane not in had)


@given(names, names, st.randoms(use_true_random=False))
def test_a_lane_is_never_without_those_that_serve_it_until_others_have_it_open(
    workers: set[str], new: set[str], chance: random.Random
) -> None:
    """Whoever looks when, and however long the new ones need to open anything."""
    fleet = settled(workers)
    for name in new - workers:
        fleet.come(name)
    least = min(2, len(workers))
    for _ in range(30):
        name = chance.choice(sorted(fleet.serve))
        fleet.look(name, opens=name in workers or chance.random() < 0.3)
        assert all(len(fleet.of(lane)) >= least for lane in LANES)
    fleet.settle()
    assert {len(fleet.of(lane)) for lane in LANES} == {min(2, len(fleet.serve))}


def test_a_worker_that_may_not_serve_a_lane_does_not_count_for_it() -> None:
    fleet = Fleet(2)
    for number in range(6):
        fleet.come(f"host-{number}", Part(("okx.n1*",)))
    fleet.come("all-1")
    fleet.settle()
    assert fleet.of("okx.n2") == {"all-1"}
    assert len(fleet.of("okx.n1")) == 2


def test_without_a_number_every_worker_serves_its_part() -> None:
    spread = Spread("host-1", Part(("okx.n1*",)), {})
    spread.learn({"host-2": Peer(ALL, frozenset(LANES))}, ())
    assert spread.of(LANES) == [lane for lane in LANES if lane.startswith("okx.n1")]
