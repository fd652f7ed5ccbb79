"""Which of the workers that are there serve a lane: the same by all their reckonings, and without a gap."""

import random
from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from workers.part import ALL, Part
from workers.spread import Peer, Spread

LANES = [f"okx.n{number}" for number in range(30)]
names = st.sets(st.sampled_from([f"host{number}-1" for number in range(12)]), min_size=1, max_size=8)


class Fleet:
    """Workers that open and close lanes as each thinks it should."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.serve: dict[str, set[str]] = {}  # by worker
        self.parts: dict[str, Part] = {}

    def come(self, name: str, part: Part = ALL) -> None:
        self.serve[name], self.parts[name] = set(), part

    def go(self, name: str) -> None:
        del self.serve[name]

    def look(self, name: str, *, opens: bool = True) -> None:
        """One worker looks who is there and changes what it serves; what it has just opened others see later."""
        spread = Spread(name, self.parts[name], self.count)
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
    spread = Spread("host-1", Part(("okx.n1*",)), 0)
    spread.learn({"host-2": Peer(ALL, frozenset(LANES))}, ())
    assert spread.of(LANES) == [lane for lane in LANES if lane.startswith("okx.n1")]
