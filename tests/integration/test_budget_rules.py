"""The script's every decision against a brute-force count, on a real Redis, with a clock that the test moves.

The model keeps every grant ever made and tries every instant at which anything could change; the script must find the
same instant. That it was never above the amount in any window is then counted once more, apart from the model.
"""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.budget import Budget, Grant, Refusal, connect
from workers.costs import Bucket, Charge, Kind

NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}')) end\n"
# Redis drops keys by its own clock: far enough ahead that it drops none, the test drops them by the test's clock.
START_US = 4_000_000_000_000_000
SCALE = 1000
RESERVE = 0.2


@dataclass(frozen=True)
class Step:
    """What happens: time passes, then a call is asked for."""

    pass_us: int
    costs: dict[int, float]
    max_wait_us: int
    bulk: bool
    pause_us: int


@dataclass
class Count:
    """One bucket of the model: everything ever granted from it."""

    bucket: Bucket
    grants: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def __post_init__(self) -> None:
        self.amount = int(self.bucket.amount * SCALE)
        self.window = int(self.bucket.window_s * 1e6)
        self.margin = int(self.bucket.margin_ms * 1000)

    @property
    def last(self) -> int:
        return self.grants[-1][0] if self.grants else 0

    def cap(self, cost: int, bulk: bool) -> int:
        return max(int(self.amount * (1 - RESERVE)), min(cost, self.amount)) if bulk else self.amount

    def rise(self, cost: int) -> int:
        return -(-cost * self.window // self.amount)

    def empty_at(self) -> int:
        empty = 0
        for at, cost in self.grants:
            empty = max(empty, at) + self.rise(cost)
        return empty

    def instants(self, since: int, cost: int, cap: int) -> set[int]:
        """When room may appear."""
        if self.bucket.kind == "rolling":
            return {at + self.window + self.margin for at, _ in self.grants}
        if self.bucket.kind == "fixed":
            first = since // self.window
            return {(first + n) * self.window + self.margin for n in range(40)}
        room = cap * self.window // self.amount - self.margin
        return {self.empty_at() + min(self.rise(cost), room) - room}

    def takes(self, at: int, cost: int, cap: int) -> bool:
        if at < self.last:
            return False
        if self.bucket.kind == "rolling":
            return cost + sum(c for t, c in self.grants if t > at - self.window - self.margin) <= cap
        if self.bucket.kind == "fixed":
            start = at // self.window * self.window
            inside = self.margin <= at - start <= self.window - self.margin
            return inside and cost + sum(c for t, c in self.grants if t >= start) <= cap
        room = cap * self.window // self.amount - self.margin
        return max(0, self.empty_at() - at) + min(self.rise(cost), room) <= room

    def check(self) -> None:
        """No window, wherever it lies, holds more than the amount; and grants are in order."""
        times = [at for at, _ in self.grants]
        assert times == sorted(times)
        if self.bucket.kind == "rolling":
            for start in times:
                assert sum(c for t, c in self.grants if start <= t < start + self.window + self.margin) <= self.amount
        elif self.bucket.kind == "fixed":
            for number in {at // self.window for at in times}:
                assert sum(c for t, c in self.grants if t // self.window == number) <= self.amount
        elif self.bucket.kind == "decaying":
            for start in range(len(times)):
                for end in range(start, len(times)):
                    # Whatever the level was before, what came in less what left in between can't be more than fits.
                    spent = sum(self.rise(cost) for _, cost in self.grants[start : end + 1])
                    assert spent - (times[end] - times[start]) <= self.window


def plan(counts: list[Count], costs: dict[int, int], now: int, pause: int, bulk: bool) -> int:
    """The earliest instant that suits every bucket, by trying them all."""
    floor = max(now, pause, *(counts[number].last for number in costs))
    instants = {floor}
    for number, cost in costs.items():
        instants |= counts[number].instants(floor, cost, counts[number].cap(cost, bulk))
    return min(
        at
        for at in instants
        if at >= floor
        and all(counts[number].takes(at, cost, counts[number].cap(cost, bulk)) for number, cost in costs.items())
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
            )
        )
    return chosen, steps


async def expire(client: Any, now: int) -> None:
    """Drop what Redis would have dropped by now, and check that it will drop everything some day."""
    async for key in client.scan_iter("fleet:*"):
        at_ms = await client.pexpiretime(key)
        assert at_ms > 0, f"{key!r} stays for ever"
        if at_ms * 1000 <= now and not key.endswith(b":epoch"):  # That one's time is Redis's own.
            await client.delete(key)


async def dump(client: Any) -> dict[bytes, bytes | None]:
    return {key: await client.dump(key) async for key in client.scan_iter("fleet:*") if not key.endswith(b":epoch")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run=runs())
async def test_every_grant_is_the_earliest_that_is_never_above_any_limit(
    redis_url: str, run: tuple[list[Bucket], list[Step]]
) -> None:
    chosen, steps = run
    client: Any = connect(redis_url, timeout_s=5)
    try:
        await client.flushdb()
        budget = Budget(client, "x:1.2.3.4", clock=TEST_CLOCK, live_reserve=RESERVE)
        counts = [Count(bucket) for bucket in chosen]
        now, pause = START_US, 0
        for step in steps:
            now += step.pass_us
            await client.set(NOW_KEY, now)
            await expire(client, now)
            if step.pause_us:
                await budget.pause(step.pause_us / 1e6, "test")
                pause = max(pause, now + step.pause_us)
            charges = [Charge(chosen[number], cost, f"b{number}") for number, cost in step.costs.items()]
            costs = {number: -int(-(cost * SCALE - 1e-6) // 1) for number, cost in step.costs.items()}
            expected = plan(counts, costs, now, pause, step.bulk)
            refused = expected - now > (0 if step.bulk else step.max_wait_us)
            before = await dump(client) if refused else {}
            answer = await budget.reserve(charges, max_wait_s=step.max_wait_us / 1e6, bulk=step.bulk)
            if refused:
                assert isinstance(answer, Refusal)
                assert answer.earliest_ms == -(-expected // 1000)
                assert await dump(client) == before
            else:
                assert answer == Grant(expected - now, expected)
                for number, cost in costs.items():
                    counts[number].grants.append((expected, cost))
        for count in counts:
            count.check()
        used = await budget.usage()
        assert all(0 <= part <= 1 for part in used.values())
    finally:
        await client.aclose()
