"""Enforces an exchange's limits exactly and counts every request that arrives."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal

import msgspec

from .clock import NS, Clock
from .limits import Bucket, Limits, Query

# What a counter that falls may be off by.
_ROUNDING = 1e-6
# A rolling window with more than this to spare is not worth reporting.
_NEAR_NS = NS // 10
# How many requests above a limit are listed one by one.
BROKEN_KEPT = 20


class Usage(msgspec.Struct, frozen=True):
    """How full one bucket is after a request; `resets_ns` is when room comes back (ns since the epoch)."""

    bucket: Bucket
    used: float
    resets_ns: int


class Verdict(msgspec.Struct, frozen=True):
    """What the limits say to a request. `retry_s` is when to come back, in seconds, where it is refused."""

    refusal: Literal["limit", "ban"] | None
    usages: tuple[Usage, ...]
    retry_s: float = 0.0

    def fullest(self) -> Usage | None:
        """The usage nearest to its limit."""
        return max(self.usages, key=lambda usage: usage.used / usage.bucket.amount, default=None)


class BucketCount(msgspec.Struct):
    """What `/counters` shows of one bucket, over all addresses."""

    amount: int
    window_s: float
    kind: str
    weight: int = 0
    """Weight accepted in all."""
    highest: float = 0
    """The most that was used, or asked for, within one window."""
    peak: float = 0.0
    """`highest` as a fraction of `amount`: above 1 the limit was broken."""
    violations: int = 0
    spare_ms: float | None = None
    """By how little a rolling window could have been longer without being broken; None: by 100 ms and more."""


class Broken(msgspec.Struct, frozen=True):
    """One request above a limit: when, which bucket and whose count of it, and what was asked of how much."""

    at_ms: float
    bucket: str
    per: str
    asked: float
    amount: int
    ages_ms: tuple[float, ...]
    """How long ago those arrived that fill a rolling window."""


class ExchangeCount(msgspec.Struct):
    """What `/counters` shows of one exchange."""

    requests: int = 0
    violations: int = 0
    refused_over_limit: int = 0
    refused_while_banned: int = 0
    bans: int = 0
    faults: int = 0
    """Requests that a fault answered, or hung, or cut off."""
    endpoints: Counter[str] = msgspec.field(default_factory=Counter[str])
    clients: Counter[str] = msgspec.field(default_factory=Counter[str])
    buckets: dict[str, BucketCount] = msgspec.field(default_factory=dict[str, BucketCount])
    broken: list[Broken] = msgspec.field(default_factory=list[Broken])
    """The first requests above a limit, each one in `violations` too."""


class _Rolling:
    """A log of what was accepted: within any span of the window's length its sum stays within the amount."""

    __slots__ = ("_amount", "_gone", "_log", "_window_ns", "used")

    def __init__(self, bucket: Bucket) -> None:
        self._amount = bucket.amount
        self._window_ns = round(bucket.window_s * NS)
        self._log: deque[tuple[int, int]] = deque()
        self._gone: deque[tuple[int, int]] = deque()
        self.used = 0

    def turn(self, now_ns: int) -> None:
        log, gone, oldest_ns = self._log, self._gone, now_ns - self._window_ns
        # Two requests exactly one window apart are not within one window.
        while log and log[0][0] <= oldest_ns:
            self.used -= log[0][1]
            gone.append(log.popleft())
        while gone and gone[0][0] <= oldest_ns - _NEAR_NS:
            gone.popleft()

    def spare_ns(self, now_ns: int, cost: int) -> int | None:
        """By how much longer the window could be with this request in it; None: by far."""
        within = self.used + cost
        for at_ns, spent in reversed(self._gone):
            within += spent
            if within > self._amount:
                return now_ns - self._window_ns - at_ns
        return None

    def add(self, now_ns: int, cost: int) -> None:
        self._log.append((now_ns, cost))
        self.used += cost

    def refuse(self, cost: int) -> None:
        """Nothing: a refused request takes no room in a rolling window."""

    def resets_ns(self, now_ns: int) -> int:
        return self._log[0][0] + self._window_ns if self._log else now_ns

    def ages_ms(self, now_ns: int) -> tuple[float, ...]:
        return tuple((now_ns - at_ns) / 1e6 for at_ns, _ in self._log)


class _Fixed:
    """A counter that starts again at each multiple of the window since the epoch."""

    __slots__ = ("_number", "_window_ns", "used")

    def __init__(self, bucket: Bucket) -> None:
        self._window_ns = round(bucket.window_s * NS)
        self._number = 0
        self.used = 0

    def turn(self, now_ns: int) -> None:
        number = now_ns // self._window_ns
        if number != self._number:
            self._number, self.used = number, 0

    def add(self, now_ns: int, cost: int) -> None:
        self.used += cost

    def refuse(self, cost: int) -> None:
        self.used += cost

    def resets_ns(self, now_ns: int) -> int:
        return (now_ns // self._window_ns + 1) * self._window_ns


class _Decaying:
    """A counter that falls steadily."""

    __slots__ = ("_at_ns", "_per_ns", "used")

    def __init__(self, bucket: Bucket) -> None:
        self._per_ns = bucket.amount / (bucket.window_s * NS)
        self._at_ns = 0
        self.used = 0.0

    def turn(self, now_ns: int) -> None:
        self.used = max(0.0, self.used - (now_ns - self._at_ns) * self._per_ns)
        self._at_ns = now_ns

    def add(self, now_ns: int, cost: int) -> None:
        self.used += cost

    def refuse(self, cost: int) -> None:
        """Nothing: a refused request takes no room."""

    def resets_ns(self, now_ns: int) -> int:
        return now_ns + round(self.used / self._per_ns)


_Window = _Rolling | _Fixed | _Decaying
_KINDS: dict[str, type[_Window]] = {"rolling": _Rolling, "fixed": _Fixed, "decaying": _Decaying}


class _Client:
    """What is remembered of one address, or of one account."""

    __slots__ = ("banned_until_ns", "bans", "strikes", "windows")

    def __init__(self) -> None:
        self.windows: dict[tuple[str, str], _Window] = {}
        self.strikes = 0
        self.bans = 0
        self.banned_until_ns = 0


class Ledger:
    """The limits of one exchange, per source address or account.

    Args:
        limits: the exchange's table.
        clock: the simulator's clock.
        ban_base_s: length of a first ban in seconds, in place of the table's.
        counted_as: what a parameter's value is counted as, where a bucket is kept per value of it.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        ban_base_s: float | None = None,
        counted_as: Callable[[str, str], str] = lambda _, value: value,
    ) -> None:
        self._limits = limits
        self._counted_as = counted_as
        self._ban = limits.ban
        if self._ban is not None and ban_base_s is not None:
            self._ban = self._ban._replace(base_s=ban_base_s)
        self._clock = clock
        self._clients: dict[str, _Client] = {}
        self._accounts: dict[str, _Client] = {}
        self._everyone_banned_until_ns = 0
        self.enforced = True
        """Whether refusals are answered as such; they are counted either way."""
        self.counts = ExchangeCount()

    def reset_counts(self) -> None:
        """Count from zero. Windows and bans stay: they are the exchange's memory, not ours."""
        self.counts = ExchangeCount()

    def ban_everyone(self, seconds: float) -> None:
        """Refuse every address for so long, even where limits are only counted; 0 ends it."""
        self._everyone_banned_until_ns = self._clock.now_ns() + round(seconds * NS)

    def forgive(self) -> None:
        """Lift all bans that clients earned, and forget their refusals; their windows stay."""
        for client in self._clients.values():
            client.strikes = client.bans = client.banned_until_ns = 0

    def charge(self, address: str, endpoint: str, known: bool, query: Query, account: str = "") -> Verdict:
        """Count a request and say whether it may pass; this instant is its arrival.

        Args:
            address: where it comes from.
            endpoint: what it asks.
            known: whether there is such an endpoint.
            query: its parameters.
            account: the account that signed it, if any; else the address is charged in its place.
        """
        now_ns = self._clock.now_ns()
        counts = self.counts
        counts.requests += 1
        counts.endpoints[endpoint if known else "unknown"] += 1
        counts.clients[address] += 1
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = _Client()

        usages: list[Usage] = []
        over = False
        costs: list[tuple[_Window, BucketCount, int, Bucket]] = []
        owner = self._accounts.setdefault(account, _Client()) if account else client
        for bucket, price in self._limits.of(endpoint):
            cost = price if isinstance(price, int) else price(query)
            key = (bucket.name, self._counted_as(bucket.per, query.get(bucket.per, "")) if bucket.per else "")
            windows = owner.windows if bucket.by_account else client.windows
            window = windows.get(key)
            if window is None:
                window = windows[key] = _KINDS[bucket.kind](bucket)
            window.turn(now_ns)
            count = counts.buckets.get(bucket.name)
            if count is None:
                count = counts.buckets[bucket.name] = BucketCount(bucket.amount, bucket.window_s, bucket.kind)
            asked = window.used + cost
            if asked > count.highest:
                count.highest, count.peak = asked, asked / bucket.amount
            if asked > bucket.amount + _ROUNDING:
                over = True
                count.violations += 1
                self._keep_broken(now_ns, key, asked, bucket.amount, window)
            elif isinstance(window, _Rolling) and (spare_ns := window.spare_ns(now_ns, cost)) is not None:
                count.spare_ms = min(spare_ns / 1e6, math.inf if count.spare_ms is None else count.spare_ms)
            costs.append((window, count, cost, bucket))

        banned_ns = max(client.banned_until_ns, self._everyone_banned_until_ns) - now_ns
        refused = over or banned_ns > 0
        for window, count, cost, bucket in costs:
            if refused:
                window.refuse(cost)
            else:
                window.add(now_ns, cost)
                count.weight += cost
            usages.append(Usage(bucket, window.used, window.resets_ns(now_ns)))
        if not refused:
            client.strikes = 0
            return Verdict(None, tuple(usages))
        return self._refuse(client, now_ns, banned_ns, tuple(usages))

    def _keep_broken(self, now_ns: int, key: tuple[str, str], asked: float, amount: int, window: _Window) -> None:
        if len(self.counts.broken) < BROKEN_KEPT:
            ages_ms = window.ages_ms(now_ns) if isinstance(window, _Rolling) else ()
            self.counts.broken.append(Broken(now_ns / 1e6, *key, asked, amount, ages_ms))

    def _refuse(self, client: _Client, now_ns: int, banned_ns: int, usages: tuple[Usage, ...]) -> Verdict:
        counts = self.counts
        counts.violations += 1
        if banned_ns > 0:
            counts.refused_while_banned += 1
            answered = self.enforced or now_ns < self._everyone_banned_until_ns
            return Verdict("ban" if answered else None, usages, banned_ns / NS)
        counts.refused_over_limit += 1
        if not self.enforced:
            return Verdict(None, usages)
        client.strikes += 1
        if self._ban is not None and client.strikes > self._ban.strikes:
            seconds = min(self._ban.base_s * 2**client.bans, self._ban.longest_s)
            client.bans += 1
            client.strikes = 0
            client.banned_until_ns = now_ns + round(seconds * NS)
            counts.bans += 1
            return Verdict("ban", usages, seconds)
        over = [usage.resets_ns for usage in usages if usage.used >= usage.bucket.amount]
        return Verdict("limit", usages, (max(over, default=now_ns) - now_ns) / NS)
