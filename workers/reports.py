"""What a worker tells all dispatchers of its lanes, every 200 ms: its heartbeat, and what it saw since the last one."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from schemas.messages import ILL, Attempt, BucketReport, ErrorCode, LaneReport, Outcome, Request, Try

from . import metrics
from .answering import Answering
from .budget import Use
from .tally import Tallies, Tally

# A dispatcher that starts learns what the lanes can do within so many reports.
METHODS_EVERY: Final = 25
# How much one attempt counts in the mean of what attempts take.
_BUDGET_WEIGHT: Final = 1 / 20
# An answer that did not come in less than this speaks of the request's deadline, not of the exchange.
_FAIR_MS: Final = 1_000.0
# A request that ends in an error of the exchange counts against it once in so long, however often it is repeated.
_REPEATED_S: Final = 10.0
_ERRORS_KEPT: Final = 100


class LaneCount(Struct):
    """What a worker counts of one lane until the next report."""

    ok: int = 0
    trials_ok: int = 0
    failed: Counter[ErrorCode] = field(default_factory=Counter[ErrorCode])
    rejected: int = 0
    excused: int = 0
    throttled: int = 0
    ended: Counter[str] = field(default_factory=Counter[str])
    answered_ms: float = 0.0
    failed_sent_s: float = 0.0
    row: int = 0
    in_flight: int = 0
    bulk: int = 0


class LaneKnown(Struct):
    """What a worker knows of one lane over its whole life.

    Args:
        methods: what the lane can do.
        answering: how its exchange answers.
        tallies: what its budget did.
        budget_ms: the mean of what an attempt took lately, 0 before the first.
        errors_until_s: requests that ended in an error of the exchange, and until when that counts no more.
    """

    methods: Sequence[str]
    answering: Answering
    tallies: Tallies
    budget_ms: float = 0.0
    errors_until_s: dict[str, float] = {}

    def excused(self, item: Try, request: Request, now_s: float) -> bool:
        """Whether a failure says nothing of the exchange: one client must not set a lane aside by what it asks."""
        if item.code is ErrorCode.EXCHANGE_TIMEOUT:
            return item.exchange_ms < _FAIR_MS
        if item.code is not ErrorCode.EXCHANGE_ERROR:
            return False
        self.errors_until_s = {key: until_s for key, until_s in self.errors_until_s.items() if until_s > now_s}
        key = f"{request.method} {sorted(request.args.items(), key=str)}"
        repeated = key in self.errors_until_s
        if not repeated and len(self.errors_until_s) < _ERRORS_KEPT:
            self.errors_until_s[key] = now_s + _REPEATED_S
        return repeated

    def took(self, budget_ms: float) -> None:
        """An attempt took so much budget."""
        self.budget_ms += (budget_ms - self.budget_ms) * (_BUDGET_WEIGHT if self.budget_ms else 1.0)


class Reports:
    """Counts attempts by lane and makes the reports."""

    def __init__(self) -> None:
        self._lanes: dict[str, LaneCount] = {}
        self._known: dict[str, LaneKnown] = {}
        self._open: set[str] = set()
        self._made = 0

    def add_lane(self, lane: str, methods: Sequence[str], answering: Answering, tallies: Tallies) -> None:
        """Reports this lane from now on."""
        self._open.add(lane)
        self._lanes.setdefault(lane, LaneCount())
        self._known[lane] = LaneKnown(methods, answering, tallies)
        self._made = 0

    def drop_lane(self, lane: str) -> None:
        """Reports this lane no more; its last attempts may still end."""
        self._open.discard(lane)

    def in_flight(self) -> dict[str, int]:
        """Attempts that are held, by the lanes that are reported."""
        return {name: count.in_flight for name, count in self._lanes.items() if name in self._open}

    def begin(self, lane: str, *, bulk: bool) -> None:
        """An attempt is held."""
        self._lanes[lane].in_flight += 1
        self._lanes[lane].bulk += bulk
        metrics.IN_FLIGHT.labels(lane).inc()

    def end(self, item: Try, attempt: Attempt, http_calls: int, budget_ms: float) -> None:
        """An attempt ended.

        Args:
            item: how.
            attempt: what was asked.
            http_calls: how many HTTP calls it sent.
            budget_ms: in which time the budget that it took comes back.
        """
        lane, count, known = item.lane, self._lanes[item.lane], self._known[item.lane]
        request = attempt.request
        metrics.ATTEMPTS.labels(lane, item.outcome, item.code or "none").inc()
        metrics.HTTP_CALLS.labels(lane).inc(http_calls)
        metrics.WAITED.labels(lane).observe(item.waited_ms / 1000)
        if http_calls:
            metrics.EXCHANGE.labels(lane).observe(item.exchange_ms / 1000)
            count.ended[request.kind] += 1
            if not attempt.probe:  # one is no example of what attempts take
                known.took(budget_ms)
        match item.outcome:
            case Outcome.OK:
                count.ok += 1
                count.trials_ok += attempt.trial
                if http_calls:
                    known.answering.took(request.method, item.exchange_ms / http_calls / 1000)
                count.answered_ms += item.exchange_ms
                count.row = 0
            case Outcome.FAILED:
                assert item.code is not None
                count.failed[item.code] += 1
                now_s = time.monotonic()
                if item.code not in ILL:
                    count.row = 0
                elif known.excused(item, request, now_s):
                    count.excused += 1
                else:
                    count.row += 1
                    count.failed_sent_s = max(count.failed_sent_s, now_s - item.exchange_ms / 1000)
            case Outcome.REJECTED:
                count.rejected += 1
                if http_calls:
                    count.row = 0
            case Outcome.THROTTLED:
                count.throttled += 1

    def leave(self, lane: str, *, bulk: bool) -> None:
        """An attempt is held no more, however it went."""
        self._lanes[lane].in_flight -= 1
        self._lanes[lane].bulk -= bulk
        metrics.IN_FLIGHT.labels(lane).dec()

    def make(
        self,
        uses: Mapping[str, Mapping[str, Use]],
        paused_until_ms: Mapping[str, int],
        own_parts: Mapping[str, float],
        knowledge: Mapping[str, str],
    ) -> list[LaneReport]:
        """The lanes' reports since the last call; all but the digests of `knowledge` comes from the budgets."""
        with_methods = self._made % METHODS_EVERY == 0
        self._made += 1
        now_s = time.monotonic()
        reports: list[LaneReport] = []
        for lane, count in self._lanes.items():
            if lane not in self._open:
                continue
            known = self._known[lane]
            reports.append(
                LaneReport(
                    lane,
                    ok=count.ok,
                    trials_ok=count.trials_ok,
                    failed=dict(count.failed),
                    rejected=count.rejected,
                    excused=count.excused,
                    failed_ago_ms=round((now_s - count.failed_sent_s) * 1000, 3) if count.failed_sent_s else 0.0,
                    throttled=count.throttled,
                    ended=dict(count.ended),
                    failures_in_a_row=count.row,
                    in_flight=count.in_flight - count.bulk,
                    exchange_ms=round(count.answered_ms / count.ok, 3) if count.ok else 0.0,
                    buckets=_buckets(known.tallies.take(), uses.get(lane, {})),
                    paused_until_ms=paused_until_ms.get(lane, 0),
                    own_part=own_parts.get(lane),
                    budget_ms=round(known.budget_ms, 3),
                    unanswered=known.answering.unanswered,
                    silent_ms=round(known.answering.silent_s(now_s) * 1000, 3),
                    slowness=round(known.answering.slowness(), 3),
                    methods=list(known.methods) if with_methods else None,
                    knowledge=knowledge.get(lane, "") if with_methods else "",
                )
            )
            self._lanes[lane] = LaneCount(row=count.row, in_flight=count.in_flight, bulk=count.bulk)
        return reports


def _buckets(tallies: Mapping[str, Tally], uses: Mapping[str, Use]) -> dict[str, BucketReport]:
    """What there is to say of each bucket; those that hold nothing and did nothing say nothing."""
    buckets: dict[str, BucketReport] = {}
    for name in {**uses, **tallies}:
        tally, use = tallies.get(name, Tally()), uses.get(name, Use(0.0, 1.0))
        said = BucketReport(
            used=use.used,
            effective=use.effective,
            paused_ms=math.ceil(use.paused_s * 1000),
            granted=round(tally.granted, 3),
            waited_ms=round(tally.waited_ms, 3),
            refused=tally.refused,
        )
        if said != BucketReport():
            buckets[name] = said
    return buckets
