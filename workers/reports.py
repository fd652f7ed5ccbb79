"""A worker's reports of its lanes to all dispatchers, every 200 ms: a heartbeat, and the counts since the last one.

Once a second a report lists all lanes. Those between leave out lanes at rest: of hundreds of lanes most are, and each
that is listed costs the worker and every dispatcher some time.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from schemas.messages import EXCHANGE_FAILURES, Attempt, ErrorCode, Outcome, Try
from schemas.reports import BucketReport, LaneReport, Named
from schemas.runtime.clock import clock_s
from schemas.runtime.standstill import DECIDES_S

from . import metrics
from .budget.grants import Use
from .budget.tally import Tallies, Tally
from .exchange.blame import Blame
from .exchange.latency import Answering

# How often all lanes are listed: more often than a dispatcher takes one for silent (`dispatcher.silent_after_s`).
WHOLE_EVERY_S: Final = 1.0
# The lanes' methods are in every so many-th of these reports: a dispatcher that starts learns them within 12 s
# where it does not find them in Redis. They are nine tenths of what a report of lanes at rest holds.
METHODS_EVERY: Final = 10
# How often Redis is asked of a lane at rest: others say themselves what they do there.
LOOK_EVERY_S: Final = 20.0
# The weight of one attempt in the mean budget of an attempt.
_BUDGET_WEIGHT: Final = 1 / 20
# A time-out after less than this is due to the request's deadline, not to the exchange.
_FAIR_MS: Final = 1_000.0
# The most failed requests that a report names, and the most names of answered ones.
_NAMED: Final = 50
_NAMES: Final = 100


class LanePause(Struct, frozen=True):
    """A pause of a whole lane: until when, Unix milliseconds, and where its length is from."""

    until_ms: int
    source: str


NO_PAUSE: Final = LanePause(0, "")


class Busy:
    """How much of a core this process uses."""

    def __init__(self) -> None:
        self._before = time.process_time(), time.monotonic()

    def since_last(self) -> float:
        """The part of a core that it has used since the last call."""
        (used_s, at_s), self._before = self._before, (time.process_time(), time.monotonic())
        passed_s = self._before[1] - at_s
        return round((self._before[0] - used_s) / passed_s, 3) if passed_s > 0 else 0.0


class LaneCount(Struct):
    """What a worker counts of one lane until the next report."""

    ok: int = 0
    trials_ok: int = 0
    trials_void: int = 0
    failed: Counter[ErrorCode] = field(default_factory=Counter[ErrorCode])
    rejected: int = 0
    uncalled: int = 0
    excused: int = 0
    failing: dict[tuple[str, str], Named] = field(default_factory=dict[tuple[str, str], Named])
    answered: dict[str, None] = field(default_factory=dict[str, None])
    throttled: int = 0
    answered_ms: float = 0.0
    failed_sent_s: float = 0.0
    row: int = 0
    in_flight: int = 0
    bulk: int = 0


class LaneKnown(Struct):
    """What a worker knows of one lane as long as it serves it.

    Args:
        methods: the lane's ccxt methods.
        answering: how its exchange answers.
        tallies: its budget's counts.
        budget_ms: the mean budget of a recent attempt, 0 before the first.
        blame: finds out which failures of the connection speak against the lane.
        rest: its state when it was last reported, if it was at rest then.
        look_s: when Redis is to be asked of it though it is at rest.
    """

    methods: Sequence[str]
    answering: Answering
    tallies: Tallies
    budget_ms: float = 0.0
    blame: Blame = field(default_factory=Blame)
    rest: tuple[object, ...] | None = None
    look_s: float = 0.0

    def speaks_against(self, item: Try, attempt: Attempt, now_s: float, *, of_connection: bool) -> bool:
        """Whether a failure speaks against the lane; a probe's always does."""
        blamed = of_connection and self.blame.failed(attempt.request, now_s)
        in_a_hurry = item.code is ErrorCode.EXCHANGE_TIMEOUT and item.exchange_ms < _FAIR_MS
        return attempt.probe or (blamed and not in_a_hurry)

    def took(self, budget_ms: float) -> None:
        """Counts the budget of an attempt."""
        self.budget_ms += (budget_ms - self.budget_ms) * (_BUDGET_WEIGHT if self.budget_ms else 1.0)


class Reports:
    """Counts attempts by lane and makes the reports.

    Attributes:
        changed: set as lanes come and go.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, LaneCount] = {}
        self._known: dict[str, LaneKnown] = {}
        self._open: set[str] = set()
        self._made = 0  # reports of all lanes
        self._whole_s = -math.inf  # when the last of them was made
        self.changed = asyncio.Event()

    def add_lane(self, lane: str, methods: Sequence[str], answering: Answering, tallies: Tallies) -> None:
        """Reports this lane from now on."""
        self._open.add(lane)
        metrics.meet(lane)
        self._lanes.setdefault(lane, LaneCount())
        self._known[lane] = LaneKnown(methods, answering, tallies)
        self._made = 0
        self.list_all()
        self.changed.set()

    def drop_lane(self, lane: str) -> None:
        """Reports this lane no more; its last attempts may still end."""
        self._open.discard(lane)
        self.list_all()
        self.changed.set()

    def list_all(self) -> None:
        """The next report lists all lanes: the last one may not have reached the dispatchers."""
        self._whole_s = -math.inf

    def whole(self) -> bool:
        """Whether the next report is to list all lanes."""
        return clock_s() >= self._whole_s + WHOLE_EVERY_S

    def wants_look(self, lane: str, *, paused: bool) -> bool:
        """Whether Redis is to be asked how full a lane's buckets are, for the next report.

        At once where something happened. Later only with all lanes, until all has left its window; and seldom of a lane
        at rest, but the end of its pause nobody else may see.
        """
        if not self._idle(lane):
            return True
        known = self._known[lane]
        return self.whole() and (known.rest is None or paused or clock_s() >= known.look_s)

    def _idle(self, lane: str) -> bool:
        count, known = self._lanes[lane], self._known[lane]
        if count.in_flight or known.answering.unanswered or known.tallies:
            return False
        return count == LaneCount(row=count.row)

    def in_flight(self) -> dict[str, int]:
        """How many attempts are held, by the lanes that are reported."""
        return {name: count.in_flight for name, count in self._lanes.items() if name in self._open}

    def begin(self, lane: str, *, bulk: bool) -> None:
        """Counts an attempt that is held from now on."""
        self._lanes[lane].in_flight += 1
        self._lanes[lane].bulk += bulk
        metrics.IN_FLIGHT.labels(lane).inc()

    def end(
        self,
        item: Try,
        attempt: Attempt,
        http_calls: int,
        budget_ms: float,
        *,
        of_connection: bool = False,
        still_s: float = 0.0,
    ) -> None:
        """Counts an attempt that has ended.

        Args:
            item: how it ended.
            attempt: the attempt.
            http_calls: how many HTTP calls it sent.
            budget_ms: how long the budget that it took takes to come back.
            of_connection: it failed for a reason that has nothing to do with what was asked (`Verdict.of_connection`).
            still_s: for how long this process stood still meanwhile (`Seen.still_s`).
        """
        lane, count, known = item.lane, self._lanes[item.lane], self._known[item.lane]
        request = attempt.request
        metrics.ATTEMPTS.labels(lane, item.outcome, item.code or "none").inc()
        metrics.HTTP_CALLS.labels(lane).inc(http_calls)
        metrics.WAITED.labels(lane).observe(item.waited_ms / 1000)
        if item.outcome is Outcome.THROTTLED:
            count.throttled += 1
            return
        if not http_calls:  # the exchange was not called
            count.uncalled += 1
            _void(count, attempt)
            return
        metrics.EXCHANGE.labels(lane).observe(item.exchange_ms / 1000)
        if not attempt.probe:  # a probe costs less than most attempts
            known.took(budget_ms)
        match item.outcome:
            case Outcome.OK:
                count.ok += 1
                count.trials_ok += attempt.trial
                if still_s < DECIDES_S:
                    known.answering.took(request.method, item.exchange_ms / http_calls / 1000)
                known.blame.answered(request, clock_s())
                if not attempt.probe and len(count.answered) < _NAMES:
                    count.answered.update(dict.fromkeys(Named.of(attempt).names))
                count.answered_ms += item.exchange_ms
                count.row = 0
            case Outcome.FAILED:
                took_s = item.exchange_ms / 1000 + still_s
                self._fail(item, attempt, count, known, took_s, of_connection=of_connection)
            case Outcome.REJECTED:
                count.rejected += 1
                _void(count, attempt)
                count.row = 0

    @staticmethod
    def _fail(
        item: Try, attempt: Attempt, count: LaneCount, known: LaneKnown, took_s: float, *, of_connection: bool
    ) -> None:
        assert item.code is not None
        count.failed[item.code] += 1
        if item.code not in EXCHANGE_FAILURES:
            count.row = 0
            _void(count, attempt)
            return
        now_s = clock_s()
        if known.speaks_against(item, attempt, now_s, of_connection=of_connection):
            count.row += 1
            if not attempt.probe:
                _name(count.failing, attempt, against=1)
            count.failed_sent_s = max(count.failed_sent_s, now_s - took_s)
        else:
            count.excused += 1
            _void(count, attempt)

    def leave(self, lane: str, *, bulk: bool) -> None:
        """Counts an attempt that is held no more, however it went."""
        self._lanes[lane].in_flight -= 1
        self._lanes[lane].bulk -= bulk
        metrics.IN_FLIGHT.labels(lane).dec()

    def make(
        self,
        uses: Mapping[str, Mapping[str, Use]],
        pauses: Mapping[str, LanePause],
        lifted_ms: Mapping[str, int],
        own_parts: Mapping[str, float],
        knowledge: Mapping[str, str],
        *,
        whole: bool,
    ) -> list[LaneReport]:
        """The lanes' reports since the last call.

        Args:
            uses: by lane and bucket, how full the buckets are; of the lanes that Redis was asked of.
            pauses: by lane, a pause of the whole lane.
            lifted_ms: by lane, when an operator last ended a pause.
            own_parts: by lane, the part of every limit that this worker uses by itself; absent while all share it.
            knowledge: by lane, the digest of what it lists.
            whole: whether lanes are listed that are at rest and were so before.
        """
        with_methods = whole and self._made % METHODS_EVERY == 0
        now_s = clock_s()
        if whole:
            self._made += 1
            self._whole_s = now_s
        reports: list[LaneReport] = []
        for lane, count in self._lanes.items():
            if lane not in self._open:
                continue
            known, idle = self._known[lane], self._idle(lane)
            if lane in uses:
                known.look_s = now_s + LOOK_EVERY_S * random.uniform(0.75, 1.25)
            elif idle and not whole and known.rest is None:
                continue  # what it did is reported, and has not left its window yet
            pause = pauses.get(lane, NO_PAUSE)
            state = (count.row, pause, lifted_ms.get(lane, 0), own_parts.get(lane))
            buckets = _buckets(known.tallies.take(), uses.get(lane, {}))
            if idle and not whole and not buckets and known.rest == state:
                continue
            if lane in uses or known.rest is not None:
                known.rest = state if idle and not buckets else None
            reports.append(
                _report(
                    lane,
                    count,
                    known,
                    now_s,
                    buckets=buckets,
                    pause=pause,
                    lifted_ms=lifted_ms.get(lane, 0),
                    own_part=own_parts.get(lane),
                    methods=list(known.methods) if with_methods else None,
                    knowledge=knowledge.get(lane, "") if with_methods else "",
                )
            )
            self._lanes[lane] = LaneCount(row=count.row, in_flight=count.in_flight, bulk=count.bulk)
        return reports


def _report(
    lane: str, count: LaneCount, known: LaneKnown, now_s: float, *, pause: LanePause, **state: Any
) -> LaneReport:
    """What was counted of a lane, and its state."""
    return LaneReport(
        lane,
        ok=count.ok,
        trials_ok=count.trials_ok,
        trials_void=count.trials_void,
        failed=dict(count.failed),
        rejected=count.rejected,
        uncalled=count.uncalled,
        excused=count.excused,
        failing=list(count.failing.values()),
        answered=list(count.answered),
        failed_ago_ms=round((now_s - count.failed_sent_s) * 1000, 3) if count.failed_sent_s else 0.0,
        throttled=count.throttled,
        failures_in_a_row=count.row,
        in_flight=count.in_flight - count.bulk,
        exchange_ms=round(count.answered_ms / count.ok, 3) if count.ok else 0.0,
        paused_until_ms=pause.until_ms,
        paused_by=pause.source,
        budget_ms=round(known.budget_ms, 3),
        unanswered=known.answering.unanswered,
        silent_ms=round(known.answering.silent_s(now_s) * 1000, 3),
        slowness=round(known.answering.slowness(), 3),
        **state,
    )


def _void(count: LaneCount, attempt: Attempt) -> None:
    """Counts an attempt that says nothing of the lane, and names it: its like should not be sent as a trial."""
    count.trials_void += attempt.trial
    if not attempt.probe:
        _name(count.failing, attempt)


def _name(named: dict[tuple[str, str], Named], attempt: Attempt, *, against: int = 0) -> None:
    """Names the attempt's request in the next report."""
    name = Named.of(attempt, against)
    key = name.digest, name.caller
    if (known := named.get(key)) is not None:
        named[key] = replace(known, against=known.against + against)
    elif len(named) < _NAMED:
        named[key] = name


def _buckets(tallies: Mapping[str, Tally], uses: Mapping[str, Use]) -> dict[str, BucketReport]:
    """The reports of all buckets but those that hold nothing and did nothing."""
    buckets: dict[str, BucketReport] = {}
    for name in {**uses, **tallies}:
        tally, use = tallies.get(name, Tally()), uses.get(name, Use(0.0, 1.0))
        report = BucketReport(
            used=use.used,
            effective=use.effective,
            paused_ms=math.ceil(use.paused_s * 1000),
            granted=round(tally.granted, 3),
            waited_ms=round(tally.waited_ms, 3),
            refused=tally.refused,
        )
        if report != BucketReport():
            buckets[name] = replace(report, amount=use.amount, window_s=use.window_s)
    return buckets
