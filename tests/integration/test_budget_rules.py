"""Every decision of the Lua library against a brute-force count, on a real Redis, with a clock that the test moves.

The model keeps every grant ever made and tries every instant at which anything could change; the script must find the
same instant. That it was never above the amount in any window is then counted once more, apart from the model.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.runtime.store import connect
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.jitter import ENOUGH
from workers.budget.ledger import Ledger
from workers.budget.rules import LEAST_MARGIN_US
from workers.limits.costs import Bucket, Charge, Kind

NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}')) end\n"
# Redis drops keys by its own clock: far enough ahead that it drops none, the test drops them by the test's clock.
START_US = 4_000_000_000_000_000
SCALE = 1000
RESERVE = 0.2
# Keys that live by Redis's own time, and are written whatever the answer is.
REDIS_TIMED = (b":epoch", b":spread")


@dataclass(frozen=True)
class Step:
    """What happens: time passes, then a call is asked for, and then the exchange says something of it or not."""

    pass_us: int
    costs: dict[int, float]
    max_wait_us: int
    bulk: bool
    pause_us: int
    counted: int | None
    limited: bool
    spread_us: int


@dataclass
class Count:
    """One bucket of the model: everything ever granted from it, and what was learned of it."""

    bucket: Bucket
    grants: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    spent: int = 0
    ratio: int = 1000
    lowered: int = 0
    times: int = 0
    strangers: dict[int, int] = field(default_factory=dict[int, int])
    rate: int = 0
    heard: int = 0
    told: int = -1
    counted: int = 0
    answered: int = 0
    sure: bool = False
    eased: int = 0

    def __post_init__(self) -> None:
        self.full = self.amount = self.cap = int(self.bucket.amount * SCALE)
        self.length = self.window = int(self.bucket.window_s * 1e6)
        self.margin = self.table_margin = int(self.bucket.margin_ms * 1000)

    def forgotten(self) -> None:
        """Nothing of it is in Redis any more; the next grant's rank counts from there."""
        self.spent = sum(c for _, c in self.grants)

    @property
    def last(self) -> int:
        return self.grants[-1][0] if self.grants else 0

    def risen(self, now: int) -> int:
        """Each time within a day it rises half as fast as the time before."""
        a_minute = 10 / (1 << min(max(self.times - 1, 0), 6))
        return min(1000, self.ratio + math.floor((now - self.lowered) * a_minute / 60_000_000))

    def learned(self, now: int) -> int:
        return max(300, self.risen(now))

    def most(self, now: int) -> int:
        return max(self.strangers.get(now // self.length - back, 0) for back in (0, 1))

    def now_holds(self, at: int, paused: int, cost: int, bulk: bool) -> None:
        """Sets amount, window and cap to what holds for a call that can be granted from `at` on."""
        ratio = self.risen(at)
        if paused:
            ramp = max(1_000_000, min(4 * self.length, 60_000_000))
            ratio = ratio * min(1000, 500 + 500 * max(0, at - paused) // ramp) // 1000
        self.amount, self.window = self.full * max(300, ratio) // 1000, self.length
        least = min(cost, self.full)
        if self.bucket.kind == "rolling":
            self.amount = max(self.amount - self.most(at), -(-self.full // 4))
            if self.amount < least:
                self.window, self.amount = -(-self.length * least // self.amount), least
        elif self.bucket.kind == "fixed":
            self.amount = max(self.amount, least)
            if self.heard < at - 2 * self.length:
                self.rate = 0
        self.cap = max(int(self.full * (1 - RESERVE)), min(cost, self.full)) if bulk else self.full
        if self.amount < self.full:
            self.cap = max(self.cap * self.amount // self.full, min(cost, self.amount))

    def expected(self, start: int) -> int:
        left = max(0, start + self.length - max(self.heard, start))
        return min(self.full // 2, math.ceil(self.rate * 1.1 * left / self.length))

    def rise(self, cost: int) -> int:
        return -(-cost * self.window // self.amount)

    @property
    def gap(self) -> int:
        """What is kept free beside a rolling window: all calls of this test were reported."""
        return min(self.margin, LEAST_MARGIN_US)

    def instants(self, since: int, cost: int) -> set[int]:
        """When room may appear."""
        if self.bucket.kind == "rolling":
            return {at + self.window + self.gap for at, _ in self.grants}
        if self.bucket.kind == "fixed":
            first = since // self.window
            return {(first + n) * self.window + self.margin for n in range(40)}
        room = self.cap * self.window // self.amount - self.margin
        return {self.empty + min(self.rise(cost), room + self.margin) - room}

    empty: int = 0

    def apart(self, earliest: int, cost: int) -> int:
        """Calls that wait for room are granted apart from each other."""
        if self.bucket.kind != "rolling" or self.has_room(earliest, cost):
            return earliest
        return self.last + self.window * cost // (2 * self.amount)

    def has_room(self, at: int, cost: int) -> bool:
        return cost + sum(c for t, c in self.grants if t > at - self.window - self.gap) <= self.cap

    def takes(self, at: int, cost: int) -> bool:
        if at < self.last:
            return False
        if self.bucket.kind == "rolling":
            return self.has_room(at, cost)
        if self.bucket.kind == "fixed":
            start = at // self.window * self.window
            inside = self.margin <= at - start <= self.window - self.margin
            counted = sum(c for t, c in self.grants if t >= start)
            if counted:  # What strangers have taken is remembered from the first of ours on.
                counted += self.strangers.get(start // self.length, 0)
            return inside and (counted == 0 or counted + self.expected(start) + cost <= self.cap)
        room = self.cap * self.window // self.amount - self.margin
        return self.empty - at + min(self.rise(cost), room + self.margin) <= room

    def take(self, at: int, cost: int) -> int:
        """The grant's rank."""
        self.grants.append((at, cost))
        self.empty = max(self.empty, at) + self.rise(cost)
        if self.bucket.kind == "rolling":
            return sum(c for _, c in self.grants) - self.spent
        if self.bucket.kind == "fixed":
            return sum(c for t, c in self.grants if t // self.window == at // self.window)
        return 0

    def observe(self, counted: int, at: int, cost: int, now: int, spread_us: int) -> None:
        """The exchange has counted so much."""
        if self.bucket.kind == "rolling" and now - at <= self.length:
            since = at - self.length - max(self.table_margin, spread_us)
            ours = sum(c for t, c in self.grants if since < t <= at)
            span = now // self.length
            others = min(max(0, counted - ours), self.full // 2)
            self.strangers[span] = max(others, self.strangers.get(span, 0))
        if self.bucket.kind == "fixed" and at // self.length == now // self.length:
            self.observe_fixed(counted, cost, now)

    def observe_fixed(self, counted: int, cost: int, now: int) -> None:
        index, gone = now // self.length, now % self.length
        sure = self.sure and self.heard >= now - 2 * self.length
        if self.heard < now - 2 * self.length:
            self.rate = 0
        same = self.told == index
        self.told, self.counted = index, max(counted, self.counted if same else 0)
        self.answered = cost + (self.answered if same else 0)
        spent = sum(c for t, c in self.grants if t // self.length == index)
        least, most = max(0, self.counted - spent), max(0, self.counted - self.answered)
        others = most
        if sure:
            before = self.strangers.get(index, 0) + self.rate * min(gone, now - self.heard) // self.length
            others = max(least, min(before, most))
        self.strangers[index] = others
        under_way, noise = spent - self.answered, self.full * 0.01
        certain = sure or under_way == 0 or others > noise
        rate = math.ceil(others * self.length / max(gone, self.length / 20)) if certain else 0
        if not sure or rate >= self.rate:
            self.rate = rate
        elif others == most and gone >= self.length / 20:
            self.rate -= (self.rate - rate) * (now - max(self.eased, now - gone)) // self.length
            self.eased = now
        self.sure, self.heard = sure or (under_way <= noise and gone >= self.length / 20), now

    def explained(self, now: int) -> bool:
        if self.bucket.kind == "rolling":
            return self.most(now) > self.full * 0.01
        if self.bucket.kind == "fixed":
            rate = 0 if self.heard < now - 2 * self.length else self.rate
            return max(self.strangers.get(self.last // self.length, 0), rate) > self.full * 0.01
        return False

    def limit(self, at: int, now: int) -> None:
        """The exchange says that it was too many."""
        if at > self.lowered and not self.explained(now):
            self.ratio, self.lowered, self.times = max(300, self.risen(now) * 900 // 1000), now, self.times + 1

    def check(self) -> None:
        """No window, wherever it lies, holds more than the amount; and grants are in order."""
        times = [at for at, _ in self.grants]
        assert times == sorted(times)
        if self.bucket.kind == "rolling":
            for start in times:
                assert sum(c for t, c in self.grants if start <= t < start + self.length) <= self.full
        elif self.bucket.kind == "fixed":
            for number in {at // self.length for at in times}:
                assert sum(c for t, c in self.grants if t // self.length == number) <= self.full
        elif self.bucket.kind == "decaying":
            for start in range(len(times)):
                for end in range(start, len(times)):
                    # Whatever the level was before, what came in less what left in between can't be more than fits.
                    spent = sum(-(-cost * self.length // self.full) for _, cost in self.grants[start : end + 1])
                    assert spent - (times[end] - times[start]) <= self.length


@dataclass
class Spreads:
    """How far calls spread, by what all workers measured."""

    largest: dict[int, int] = field(default_factory=dict[int, int])
    unknown: int = 0

    def told(self, mine: int | None, now: int) -> None:
        span = now // 10_000_000
        self.largest[span] = max(self.largest.get(span, 0), mine or 0)
        if mine is None and self.unknown < now + 5_000_000:
            self.unknown = now + 10_000_000

    def margin(self, count: Count, now: int) -> int:
        span = now // 10_000_000
        largest = max(self.largest.get(span, 0), self.largest.get(span - 1, 0))
        measured = min(largest, count.length // 5)
        if count.table_margin == 0:
            return 0
        if self.unknown > now or largest == 0 or count.bucket.kind == "fixed":
            return max(count.table_margin, measured)
        return measured


def plan(counts: list[Count], costs: dict[int, int], now: int, pause: int) -> int:
    """The earliest instant that suits every bucket, by trying them all."""
    floor = max(now, pause, *(counts[number].last for number in costs))
    floor = max(floor, *(counts[number].apart(max(now, pause), cost) for number, cost in costs.items()))
    instants = {floor}
    # A fixed window may be the first that suits far behind the floor: behind the debt of another bucket.
    for number in sorted(costs, key=lambda number: counts[number].bucket.kind == "fixed"):
        for since in tuple(instants):
            instants |= counts[number].instants(since, costs[number])
    return min(
        at for at in instants if at >= floor and all(counts[number].takes(at, cost) for number, cost in costs.items())
    )


KINDS: tuple[Kind, ...] = ("rolling", "fixed", "decaying", "paced")


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    return Bucket(
        name="b",
        kind=draw(st.sampled_from(KINDS)),
        amount=draw(st.integers(1, 6)),
        window_s=draw(st.sampled_from([0.2, 1.0, 1.5])),
        margin_ms=draw(st.sampled_from([0, 50])),
        source="",
    )


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Bucket], list[Step]]:
    chosen = draw(st.lists(buckets(), min_size=1, max_size=2))
    steps: list[Step] = []
    for _ in range(draw(st.integers(10, 40))):
        numbers = draw(st.sets(st.sampled_from(range(len(chosen))), min_size=1))
        costs: dict[int, float] = {}
        for number in numbers:
            top = chosen[number].amount * (3 if chosen[number].kind == "paced" else 1)
            costs[number] = draw(st.one_of(st.just(1.0), st.floats(0.001, top), st.just(top)))
        steps.append(
            Step(
                pass_us=draw(st.one_of(st.just(0), st.integers(0, 100_000), st.integers(0, 1_500_000))),
                costs=costs,
                max_wait_us=draw(st.sampled_from([0, 100_000, 2_000_000, 60_000_000, 60_000_000])),
                bulk=draw(st.sampled_from([False, False, False, True])),
                pause_us=draw(st.sampled_from([0] * 8 + [500_000])),
                counted=draw(st.one_of(st.none(), st.none(), st.integers(0, 9 * SCALE))),
                limited=draw(st.sampled_from([False] * 8 + [True])),
                spread_us=draw(st.sampled_from([0] * 12 + [15_000, 80_000])),
            )
        )
    return chosen, steps


async def expire(client: Any, now: int) -> None:
    """Drop what Redis would have dropped by now, and check that it will drop everything some day."""
    async for key in client.scan_iter("fleet:*"):
        at_ms = await client.pexpiretime(key)
        assert at_ms > 0, f"{key!r} stays for ever"
        if at_ms * 1000 <= now and not key.endswith(REDIS_TIMED):
            await client.delete(key)


async def dump(client: Any) -> dict[bytes, bytes | None]:
    return {key: await client.dump(key) async for key in client.scan_iter("fleet:*") if not key.endswith(REDIS_TIMED)}


@settings(
    max_examples=settings().max_examples * 3 // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(run=runs())
async def test_every_grant_is_the_earliest_that_is_never_above_any_limit(
    redis_url: str, run: tuple[list[Bucket], list[Step]]
) -> None:
    chosen, steps = run
    client: Any = connect(redis_url, timeout_s=5)
    try:
        await client.flushdb()
        budget = Budget(Ledger(client, "x:1.2.3.4", clock=TEST_CLOCK, live_reserve=RESERVE))
        counts = [Count(bucket) for bucket in chosen]
        spreads = Spreads()
        now, pause = START_US, 0
        for step in steps:
            now += step.pass_us
            await client.set(NOW_KEY, now)
            await expire(client, now)
            for number, count in enumerate(counts):
                if not await client.exists(f"fleet:{{x}}:1.2.3.4:b{number}"):
                    count.forgotten()
            if step.pause_us:
                await budget.pause(step.pause_us / 1e6, "test")
                pause = max(pause, now + step.pause_us)
            if step.spread_us:
                for trip_us in (0, *[step.spread_us] * ENOUGH):
                    budget.spread.answered(0.0, "endpoint", trip_us / 1e6)
            charges = [Charge(chosen[number], cost, f"b{number}") for number, cost in step.costs.items()]
            costs = {number: -int(-(cost * SCALE - 1e-6) // 1) for number, cost in step.costs.items()}
            spreads.told(budget.spread.margin_us(), now)
            for number, cost in costs.items():
                counts[number].now_holds(max(now, pause), pause, cost, step.bulk)
                counts[number].margin = spreads.margin(counts[number], now)
            expected = plan(counts, costs, now, pause)
            refused = expected - now > (0 if step.bulk else step.max_wait_us)
            before = await dump(client) if refused else {}
            answer = await budget.reserve(charges, max_wait_s=step.max_wait_us / 1e6, bulk=step.bulk)
            if refused:
                assert isinstance(answer, Refusal)
                assert answer.earliest_ms == -(-expected // 1000)
                assert await dump(client) == before
                continue
            assert isinstance(answer, Grant)
            await budget.arrived(charges, answer, 0)
            assert (answer.delay_us, answer.at_us) == (expected - now, expected)
            assert list(answer.ranks) == [counts[number].take(expected, cost) for number, cost in costs.items()]
            if step.counted is not None and expected == now:
                for charge, rank, number in zip(charges, answer.ranks, costs, strict=True):
                    span_s = charge.bucket.window_s
                    await budget.observe(charge, rank, answer, step.counted / SCALE, late_us=0, span_s=span_s)
                    counts[number].observe(step.counted, expected, costs[number], now, budget.spread.worst_us() or 0)
            if step.limited and len(costs) == 1:
                await budget.limited(charges, answer)
                for number in costs:
                    counts[number].limit(expected, now)
        for count in counts:
            count.check()
        used = await budget.usage()
        assert all(0 <= use.used <= 1 and 0.3 <= use.effective <= 1 for use in used.values())
    finally:
        await client.aclose()
