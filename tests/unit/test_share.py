"""A worker's share against a brute-force count: never above its part in any window, and no later than needed."""

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.budget.rules import PARTS, SCALE
from workers.budget.share import Share, TooSmall
from workers.limits.costs import Bucket, Charge, Kind

START_US = 1_800_000_000_000_000
KINDS: tuple[Kind, ...] = ("rolling", "fixed", "decaying", "paced")


def bucket(
    amount: float, window_s: float = 1.0, *, kind: Kind = "rolling", margin_ms: float = 0, name: str = "b"
) -> Bucket:
    return Bucket(name=name, amount=amount, window_s=window_s, kind=kind, margin_ms=margin_ms, source="")


def share(parts: int = PARTS // 2, *, since_us: int = START_US, reserve: float = 0.2, offset_us: int = 0) -> Share:
    return Share(
        parts,
        lasts_us=300_000_000,
        since_us=since_us,
        offset_us=offset_us,
        far_us=None,
        reserve=reserve,
        effective={"learned": 0.5},
    )


def ask(share: Share, charges: list[Charge], now_us: int, *, wait_us: int = 0, bulk: bool = False) -> int | None:
    keyed = [(charge.key, charge) for charge in charges]
    at = share.plan(keyed, now_us, error_us=0, bulk=bulk)
    if at > now_us + wait_us:
        return None
    share.take(keyed, at)
    return at


@dataclass
class Count:
    """Everything granted from one bucket, and what may be: a part of it. Until `since` all of it may have been."""

    bucket: Bucket
    parts: int
    grants: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def __post_init__(self) -> None:
        self.amount = int(self.bucket.amount * SCALE) * self.parts // PARTS
        self.window = int(self.bucket.window_s * 1e6)
        self.margin = int(self.bucket.margin_ms * 1000)

    def takes(self, at: int, cost: int) -> bool:
        """Whether a call fits at an instant, the bucket being full at the start."""
        length = self.window + self.margin
        if self.grants and at < self.grants[-1][0]:
            return False
        if self.bucket.kind == "rolling":
            inside = sum(spent for before, spent in self.grants if before > at - length)
            return at >= START_US + length and inside + cost <= self.amount
        if self.bucket.kind == "fixed":
            first = at // self.window * self.window
            inside = sum(spent for before, spent in self.grants if before >= first)
            return (
                first > START_US
                and first + self.margin <= at <= first + self.window - self.margin
                and inside + cost <= self.amount
            )
        empty = START_US + self.window
        for before, spent in self.grants:
            empty = max(empty, before) - (-spent * self.window // self.amount)
        room, rise = self.window - self.margin, -(-cost * self.window // self.amount)
        return at >= START_US + self.window and empty - at + min(rise, room + self.margin) <= room


@given(
    chosen=st.lists(
        st.builds(
            bucket,
            st.integers(2, 9),
            st.sampled_from([0.5, 1.0, 1.5]),
            kind=st.sampled_from(KINDS),
            margin_ms=st.sampled_from([0, 50]),
        ),
        min_size=1,
        max_size=2,
    ),
    parts=st.sampled_from([PARTS, PARTS // 2]),
    steps=st.lists(
        st.tuples(
            st.integers(0, 700_000), st.sampled_from([0, 100_000, 3_000_000]), st.sets(st.integers(0, 1), min_size=1)
        ),
        max_size=40,
    ),
)
def test_each_call_is_granted_at_the_first_instant_that_is_within_the_part(
    chosen: list[Bucket], parts: int, steps: list[tuple[int, int, set[int]]]
) -> None:
    mine, counts = share(parts), [Count(one, parts) for one in chosen]
    now = START_US
    for pass_us, wait_us, which in steps:
        now += pass_us
        numbers = [number for number in which if number < len(chosen)] or [0]
        at = ask(mine, [Charge(chosen[number], 1.0, f"b{number}") for number in numbers], now, wait_us=wait_us)
        last = now + wait_us if at is None else at
        if at is not None:
            assert all(counts[number].takes(at, SCALE) for number in numbers)
        # Nothing before it fits: room appears only where a window ends or a level has fallen.
        for earlier in range(now, last, 9_973):
            assert not all(counts[number].takes(earlier, SCALE) for number in numbers)
        for number in numbers if at is not None else ():
            assert at is not None
            counts[number].grants.append((at, SCALE))


@dataclass(order=True)
class Call:
    """One that was granted `at`; `late_us` later it arrives, and its answer comes after that, or never."""

    at: int
    late_us: int = field(compare=False)
    answer_us: int | None = field(compare=False)


@given(
    amount=st.integers(1, 4),
    margin_ms=st.sampled_from([10, 50]),
    steps=st.lists(
        st.tuples(
            st.integers(0, 400_000),
            st.sampled_from([0, 0, 0, 5_000, 30_000, 100_000, 700_000, 1_300_000]),
            st.sampled_from([1_000, 1_000, 100_000, None]),
        ),
        max_size=60,
    ),
)
def test_arrivals_stay_within_the_limit_whichever_call_is_late(
    amount: int, margin_ms: int, steps: list[tuple[int, int, int | None]]
) -> None:
    limit = bucket(amount, margin_ms=margin_ms)
    mine, keyed = share(PARTS), [("b", Charge(limit, 1.0, "b"))]
    arrivals, soon = list[int](), 20_000
    # What is to happen: a call asks, is looked at again shortly before it leaves, is heard of.
    happens = list[tuple[int, int, str, Call]]()
    now = START_US + 2_000_000
    for number, (pass_us, late_us, answer_us) in enumerate(steps):
        now += pass_us
        heapq.heappush(happens, (now, number, "asks", Call(now, late_us, answer_us)))
    number = len(steps)
    while happens:
        now, _, what, call = heapq.heappop(happens)
        if what == "asks":
            call.at = mine.plan(keyed, now, error_us=0, bulk=False)
            if call.at > now + soon:
                mine.take(keyed, call.at)
                what, then = "leaves", call.at - soon
            elif mine.holds(keyed, call.at, now, taken=False):
                mine.take(keyed, call.at)
                what, then = "leaves", call.at
            else:
                continue
        elif what == "heard":
            mine.arrived(keyed, call.at, call.at + call.late_us)
            continue
        elif not mine.holds(keyed, call.at, now, taken=True):
            mine.arrived(keyed, call.at, call.at)
            continue
        else:
            arrivals.append(call.at + call.late_us)
            if call.answer_us is None:
                continue
            what, then = "heard", call.at + call.late_us + call.answer_us
        number += 1
        heapq.heappush(happens, (then, number, what, call))
    arrivals.sort()
    for index, at in enumerate(arrivals[amount:]):
        assert at >= arrivals[index] + 1_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_sent_in_the_first_window(kind: Kind) -> None:
    at = ask(share(), [Charge(bucket(10, kind=kind), 1.0, "b")], START_US, wait_us=10_000_000)
    assert at is not None
    assert START_US + 1_000_000 <= at <= START_US + 2_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_share_never_holds_is_refused_at_once(kind: Kind) -> None:
    mine = share()
    with pytest.raises(TooSmall):
        ask(mine, [Charge(bucket(10, kind=kind), 6.0, "b")], START_US)
    # Nothing is kept aside for parts that hold no call of cost one, so that they hold nothing at all.
    with pytest.raises(TooSmall):
        ask(mine, [Charge(bucket(1, kind=kind, name="one"), 0.1, "one")], START_US)


def test_a_single_worker_has_the_whole_limit_even_of_a_bucket_of_one() -> None:
    mine = share(PARTS)
    paced = [Charge(bucket(1, kind="paced"), 3.0, "b")]
    first = ask(mine, paced, START_US, wait_us=10_000_000)
    second = ask(mine, paced, START_US, wait_us=10_000_000)
    assert first == START_US + 1_000_000
    assert second == first + 3_000_000


def test_bulk_leaves_the_reserve() -> None:
    mine, calls, now = share(), [Charge(bucket(20), 1.0, "b")], START_US + 1_000_000
    assert [ask(mine, calls, now, bulk=True) for _ in range(9)].count(None) == 1
    assert [ask(mine, calls, now) for _ in range(3)].count(None) == 1


def test_a_bucket_that_has_learned_to_hold_less_is_shared_as_such() -> None:
    mine, calls = share(), [Charge(bucket(20, name="learned"), 1.0, "learned")]
    assert [ask(mine, calls, START_US + 1_000_000) for _ in range(20)].count(None) == 15


def test_the_first_to_ask_is_first_and_a_refusal_takes_nothing() -> None:
    mine, one, both = share(), bucket(10), bucket(4, 3.0)
    calls = [Charge(one, 1.0, "one"), Charge(both, 2.0, "both")]
    now = START_US + 3_000_000
    assert ask(mine, calls, now) == now
    assert ask(mine, calls, now) is None
    assert ask(mine, calls, now, wait_us=3_000_000) == now + 3_000_000
    # A call of one bucket alone comes behind those that wait for it.
    assert ask(mine, calls[:1], now, wait_us=3_000_000) == now + 3_000_000


def test_redis_gets_all_that_still_stands_in_a_window() -> None:
    mine, now = share(PARTS // 2), START_US + 60_000_000
    kinds = {kind: Charge(bucket(1000, 60, kind=kind, name=kind), 1.0, kind) for kind in KINDS}
    for kind, charge in kinds.items():
        for number in range(200):
            assert ask(mine, [charge], now + number * 100_000) is not None, kind
    now += 20_000_000
    told = {one.key: one.grants for one in mine.additions(now, error_us=7)}
    assert sum(told["rolling"][1::2]) == 200 * SCALE
    assert len(told["rolling"]) <= 2 * 51
    assert told["rolling"][0::2] == sorted(told["rolling"][0::2])
    assert told["fixed"][1] == 200 * SCALE
    # 200 came in 20 s, and 500 leave a minute.
    assert told["decaying"][1] in range(33 * SCALE, 35 * SCALE)
    assert mine.additions(now + 100_000_000, error_us=7) == []
