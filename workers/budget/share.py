"""What one worker may send by itself while it can't ask Redis: its part of every limit.

The same rules as in the Lua library for all kinds of bucket, in this process alone. A share starts from full buckets:
what Redis granted up to `since_us` may have used them up. A call goes when it fits into all its buckets, in the order
of asking. A share that does not hold a call of cost one (a bucket of one call a second, and two workers) is not used,
and Redis keeps nothing aside for it (``shares.lua`` has the same rule). Pure: the clock is an argument, in microseconds
of Redis's.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from ..limits.costs import Bucket, Charge
from .rules import (
    LATE_PART,
    LEAST_MARGIN_US,
    MARGIN_PART,
    PARTS,
    SCALE,
    SHORT_US,
    UNANSWERED_US,
    amount_of,
    thousandths,
    window_us_of,
)

# How late a call may leave, as a part of its margin.
SPARE_PART: Final = 0.25
LEVELS: Final = ("decaying", "paced")
# How finely grants are added in Redis: parts of a window.
SLICES: Final = 50


class TooSmall(Exception):
    """The share never holds the call, however long one waits."""


class Addition(Struct, frozen=True):
    """What Redis is to add to one bucket: pairs of an instant and thousandths (decaying: the level then)."""

    key: str
    bucket: Bucket
    grants: list[int]


class _Count:
    """One bucket's count. Instants are whole microseconds, costs thousandths."""

    def __init__(self, amount: int, window: int, margin: int, since: int) -> None:
        self.amount = amount
        self.window = window
        self.margin = margin
        self.since = since
        self.last = 0
        self.granted = False

    def forget(self, now: int) -> None:
        """Drops what can't delay any call any more."""

    def fit(self, at: int, cost: int, cap: int) -> int:
        """The first instant from `at` on at which there is room."""
        raise NotImplementedError

    def take(self, at: int, cost: int) -> None:
        """Spends."""
        raise NotImplementedError

    def addition(self, now: int, error: int) -> list[int]:
        """What is still in a window at `now`, for Redis, whose clock may be ahead of ours by `error`."""
        raise NotImplementedError

    def arrived(self, at: int, cost: int, arrived: int, *, answered: bool) -> None:
        """A call granted for `at` arrived by `arrived`, or was not sent; without an answer it may arrive still."""

    def holds(self, at: int, now: int, cost: int) -> bool:
        """Whether a call at `at`, soon, uses no room of calls without an answer; `cost` is 0 where it was taken."""
        return True


class _Spent:
    """A call's part of a rolling window."""

    __slots__ = ("answered", "at", "cost")

    def __init__(self, at: int, cost: int, *, answered: bool) -> None:
        self.at = at
        self.cost = cost
        self.answered = answered


class _Rolling(_Count):
    def __init__(self, amount: int, window: int, margin: int, since: int) -> None:
        super().__init__(amount, window, margin, since)
        self._short = window <= SHORT_US and margin > 0
        self._grants: deque[_Spent] = deque()
        self._total = 0

    def _gone(self, one: _Spent, at: int, now: int) -> bool:
        return one.at + self.window + self.margin <= at and (one.answered or one.at + UNANSWERED_US <= now)

    def forget(self, now: int) -> None:
        while self._grants and self._gone(self._grants[0], now, now):
            self._total -= self._grants.popleft().cost

    def arrived(self, at: int, cost: int, arrived: int, *, answered: bool) -> None:
        if self._short and not answered:
            return
        for one in self._grants:
            if one.at == at and one.cost == cost and not (self._short and one.answered):
                one.answered = True
                if arrived - self.margin > at:
                    one.at = arrived - self.margin
                    self._grants = deque(sorted(self._grants, key=lambda one: one.at))
                    self.last = max(self.last, one.at)
                return

    def holds(self, at: int, now: int, cost: int) -> bool:
        left = sum(one.cost for one in self._grants if one.at <= at and not self._gone(one, at, now))
        return left + cost <= self.amount

    def fit(self, at: int, cost: int, cap: int) -> int:
        length = self.window + self.margin
        at = max(at, self.last, self.since + length)
        over = self._total + cost - cap
        for one in self._grants:
            if over <= 0:
                break
            over -= one.cost
            at = max(at, one.at + length)
        return at

    def take(self, at: int, cost: int) -> None:
        self._grants.append(_Spent(at, cost, answered=not self._short))
        self._total += cost
        self.last = at

    def addition(self, now: int, error: int) -> list[int]:
        slices: dict[int, tuple[int, int]] = {}
        for one in self._grants:
            if one.at + self.window + self.margin + error > now:
                slot = one.at * SLICES // self.window
                before = slices[slot][1] if slot in slices else 0
                slices[slot] = (one.at, before + one.cost)
        # How late each was is not kept: as late as may be.
        return [number for at, cost in slices.values() for number in (at + error + self.margin, cost)]


class _Fixed(_Count):
    def __init__(self, amount: int, window: int, margin: int, since: int, offset: int, error: int) -> None:
        super().__init__(amount, window, margin, since)
        self._offset = offset
        self.error = error
        self._index: int = (since + offset) // window
        self._spent = amount

    def fit(self, at: int, cost: int, cap: int) -> int:
        at = max(at, self.last)
        index = max((at + self._offset) // self.window, self._index)
        late = at + self.error > (index + 1) * self.window - self._offset - self.margin
        if late or (index == self._index and self._spent + cost > cap):
            index += 1
        return max(at, index * self.window - self._offset + self.margin)

    def take(self, at: int, cost: int) -> None:
        index = (at + self._offset) // self.window
        self._spent = cost if index != self._index else self._spent + cost
        self._index, self.last = index, at

    def addition(self, now: int, error: int) -> list[int]:
        return [self.last, self._spent] if (self._index + 1) * self.window - self._offset > now else []


class _Decaying(_Count):
    def __init__(self, amount: int, window: int, margin: int, since: int, whole: int) -> None:
        super().__init__(amount, window, margin, since)
        self._empty = since + window
        self._whole = whole

    def _rise(self, cost: int) -> int:
        return -(-cost * self.window // self.amount)

    def arrived(self, at: int, cost: int, arrived: int, *, answered: bool) -> None:
        # Until then the level has fallen without the call, and not below zero: by so much less has it fallen.
        later = arrived - self.margin - at
        if later > 0:
            rise = self._rise(cost)
            self._empty = max(self._empty + min(rise, later), at + later + rise)

    def fit(self, at: int, cost: int, cap: int) -> int:
        room = cap * self.window // self.amount - self.margin
        return max(
            at, self.last, self.since + self.window, self._empty + min(self._rise(cost), room + self.margin) - room
        )

    def take(self, at: int, cost: int) -> None:
        self._empty = max(self._empty, at) + self._rise(cost)
        self.last = at

    def addition(self, now: int, error: int) -> list[int]:
        # What was granted ahead can't leave before it came: added as what is left after the last one.
        left = self._empty + error - max(now, self.last + error)
        return [self.last + error, math.ceil(left * self._whole / self.window)] if left > 0 else []


class Share:
    """A part of all limits of one scope, for one worker.

    Args:
        parts: of `PARTS`.
        lasts_us: for how long it may be used.
        since_us: until then others may have used all of every limit.
        offset_us: how far the exchange's clock is ahead of Redis's.
        far_us: how far calls may spread (`Spread`); None where it is not known.
        reserve: the part of every bucket that bulk calls leave alone.
        effective: by bucket, the part of its table's amount that it may hold.
    """

    def __init__(
        self,
        parts: int,
        *,
        lasts_us: int,
        since_us: int,
        offset_us: int,
        far_us: int | None,
        reserve: float,
        effective: Mapping[str, float],
    ) -> None:
        self.parts = parts
        self._lasts = lasts_us
        self.since_us = since_us
        self._offset = offset_us
        self._far = far_us
        self._reserve = reserve
        self._effective = dict(effective)
        self._counts: dict[str, tuple[Bucket, _Count]] = {}
        self.last_us = 0

    def plan(self, charges: Sequence[tuple[str, Charge]], now_us: int, *, error_us: int, bulk: bool) -> int:
        """Return the earliest instant at which a call fits into all its buckets; takes nothing.

        Args:
            charges: the keys of its counts, and what it costs.
            now_us: Redis's clock, at the earliest.
            error_us: how much later it may be.
            bulk: leave the reserve.

        Raises:
            TooSmall: it never fits.
        """
        at = now_us
        asked: list[tuple[_Count, int, int]] = []
        for key, charge in charges:
            count, cost = self._count(key, charge.bucket), thousandths(charge.cost)
            count.forget(now_us)
            if isinstance(count, _Fixed):
                count.error = error_us
            if self.parts == PARTS:  # A single worker has the whole limit, and the rules that hold with Redis.
                never = cost > count.amount and charge.bucket.kind != "paced"
            else:
                never = max(cost, SCALE) > count.amount
            if never:
                raise TooSmall(charge.bucket.name)
            cap = count.amount
            if bulk:
                cap = max(math.floor(cap * (1 - self._reserve)), min(cost, cap))
            asked.append((count, cost, cap))
        for _ in range(64):  # Fixed windows push each other on, past one another's guards.
            before = at
            for count, cost, cap in asked:
                at = count.fit(at, cost, cap)
            if at == before:
                return at
        raise TooSmall(charges[0][1].bucket.name)

    def take(self, charges: Sequence[tuple[str, Charge]], at_us: int) -> None:
        """Spend what `plan` has found to fit."""
        for key, charge in charges:
            count = self._count(key, charge.bucket)
            count.take(at_us, thousandths(charge.cost))
            count.granted = True
        self.last_us = max(self.last_us, at_us)

    def arrived(
        self, charges: Sequence[tuple[str, Charge]], at_us: int, arrived_us: int, *, answered: bool = True
    ) -> None:
        """Take in by when a call arrived that was granted for `at_us`.

        Args:
            charges: as for `plan`.
            at_us: its instant.
            arrived_us: by when; `at_us` itself where it was not sent.
            answered: False where it got no answer: in short windows its room stays taken as if nothing was known.
        """
        for key, charge in charges:
            if known := self._counts.get(key):
                known[1].arrived(at_us, thousandths(charge.cost), arrived_us, answered=answered)

    def holds(self, charges: Sequence[tuple[str, Charge]], at_us: int, now_us: int, *, taken: bool) -> bool:
        """Whether a call may leave now for `at_us`: it uses no room of calls that were late, or have no answer yet.

        Args:
            charges: as for `plan`.
            at_us: its instant.
            now_us: Redis's clock.
            taken: it has been taken already.
        """
        return all(
            self._count(key, charge.bucket).holds(at_us, now_us, 0 if taken else thousandths(charge.cost))
            for key, charge in charges
        )

    def margin_us(self, charges: Sequence[Charge]) -> float:
        """How late a call may arrive."""
        return min((margin for charge in charges if (margin := margin_us(charge.bucket, self._far))), default=math.inf)

    def spare_us(self, charges: Sequence[Charge]) -> float:
        """How late a call may leave: a part of its margin, and where a level has none, as in the Lua library."""
        levels = [one.bucket for one in charges if one.bucket.kind in LEVELS and not one.bucket.margin_ms]
        least = min((one.window_s * 1e6 / one.amount * LATE_PART for one in levels), default=math.inf)
        return min(self.margin_us(charges) * SPARE_PART, max(LEAST_MARGIN_US, least))

    def additions(self, now_us: int, *, error_us: int) -> list[Addition]:
        """What Redis has to add to its buckets before it grants this share again."""
        additions = [
            Addition(key, bucket, count.addition(now_us, error_us))
            for key, (bucket, count) in self._counts.items()
            if count.granted
        ]
        return [one for one in additions if one.grants]

    @property
    def longest_us(self) -> int:
        """The longest window of a bucket that was asked for and may be granted in this share's time."""
        return max((count.window for _, count in self._counts.values() if count.window < self._lasts), default=0)

    def _count(self, key: str, bucket: Bucket) -> _Count:
        if key not in self._counts:
            if len(self._counts) >= 10_000:  # Pairs and instruments come from requests.
                raise TooSmall(bucket.name)
            self._counts[key] = (bucket, self._begin(bucket))
        return self._counts[key][1]

    def _begin(self, bucket: Bucket) -> _Count:
        # Rounded as in the Lua library, so that what is set aside there is never less.
        whole = amount_of(bucket) * self.parts // PARTS
        amount = math.floor(whole * self._effective.get(bucket.name, 1.0))
        window, margin = window_us_of(bucket), margin_us(bucket, self._far)
        if bucket.kind == "rolling":
            return _Rolling(amount, window, margin, self.since_us)
        if bucket.kind == "fixed":
            return _Fixed(amount, window, margin, self.since_us, self._offset, 0)
        return _Decaying(max(amount, 1), window, margin, self.since_us, whole)


def margin_us(bucket: Bucket, far_us: int | None) -> int:
    """How far apart from a window's ends calls stay, as in the Lua library; `far_us` is None where not measured."""
    least = math.ceil(bucket.margin_ms * 1000)
    if not least or far_us is None:
        return least
    measured = min(far_us, math.floor(bucket.window_s * 1e6 * MARGIN_PART))
    return max(least, measured) if bucket.kind == "fixed" else measured
