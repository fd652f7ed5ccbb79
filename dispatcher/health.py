"""A lane's health: a state machine over reports, with the clock as an argument.

::

                   no report in time
    offline ◀───────────────────────────── healthy ◀──slow start── a trial succeeds
    (silent) ────a worker reports it─────▶    │                           ▲
                                              │ it fails, is slow,        │
                                              ▼ or does not answer        │
                                   aside: degraded, offline, maintenance ─┘

A lane that stands aside gets a trial now and then, with growing gaps: one real request that finds out. A `degraded`
one (some errors, slow, no answers) also takes what has no other lane; one that is `offline` (nothing but failures) or
in `maintenance` does not. Below that its share falls with its errors and its latency, judged against its own past.
`offline` for want of a worker needs no trial, only a report. A pause the exchange asked for is not ill health, and
neither are requests that it rejects.
"""

import enum
import math
from typing import Final

from msgspec import Struct

from schemas.config import DispatcherConfig
from schemas.messages import ILL, Attempt, ErrorCode, Request
from schemas.reports import LaneReport

from .evidence import Failures, Slowness
from .strategies import Choice
from .suspects import Suspects
from .waiting import Waiting

# What a probe asks: the cheapest that an exchange answers; its status also says whether it is in maintenance.
QUESTIONS: Final = ("fetch_status", "fetch_time")
# What failed so may be the request's own trouble.
_DOUBTFUL: Final = frozenset({ErrorCode.EXCHANGE_ERROR, ErrorCode.BAD_RESPONSE, ErrorCode.RESTRICTED})
# Nobody knows when a worker comes: requests for a silent lane look again after this time.
SILENT_RECHECK_S: Final = 1.0
# A lane is stalled when so many calls have no answer where twice its latency has passed since they left, and no worker
# had one for four times its latency.
STALLED_CALLS: Final = 3
DUE_LATENCIES: Final = 2
STALLED_LATENCIES: Final = 4
# Faster answers than these are never slow.
SLOW_FROM_MS: Final = 50.0
# A lane that is slower than ever by less than this keeps its whole share.
SLOW_FREE: Final = 2.0
LATENCY_FALL_S: Final = 10.0
# A lane that is not aside keeps at least this part of its share: it must be seen to be judged.
LEAST_PART: Final = 0.1
# A lane that fails again while it comes back needs one more good trial in a row the next time, up to this number.
TRIALS_NEEDED_MAX: Final = 3
# After a good one of several trials the next comes in this part of the shortest gap.
GOOD_GAP_PART: Final = 0.5
# A lane is crowded when the budget for what is with it takes so much longer to come back than an answer takes.
CROWDED_MS: Final = 1_000.0
# So long after a pause was lifted a worker may not have seen it.
LIFT_SPREADS_S: Final = 3.0
# How fast a lane works off a backlog is known after so long in which its workers held at least so many attempts.
RATE_S: Final = 3.0
BUSY_ATTEMPTS: Final = 20
# Own attempts that no report can show yet are counted so long.
UNREPORTED_S: Final = 0.2


class State(enum.StrEnum):
    """A lane's state as logs, metrics and the status show it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    MAINTENANCE = "maintenance"


class Memory(Struct, frozen=True):
    """What the next dispatcher may know of a lane, with times that another process can read.

    Args:
        aside: the state in which it stands aside, None if it serves.
        why: why it does.
        trial_at_ms: when its next trial is due, Unix milliseconds.
        trial_gap_s: the time between its trials now.
        latency_ms: how long it takes to answer.
        budget_ms: how much time of its tightest limit one attempt takes.
        paused_until_ms: the exchange asked for silence until then.
        methods: what it can do, None if no worker said.
    """

    aside: State | None
    why: str
    trial_at_ms: int
    trial_gap_s: float
    latency_ms: float
    budget_ms: float
    paused_until_ms: int
    methods: list[str] | None


class LaneHealth(Choice):
    """What the dispatcher knows of one lane. All times are seconds of one monotonic clock but `paused_until_ms`.

    Args:
        name: the lane's name.
        weight: its configured weight.
        config: the thresholds.

    Attributes:
        serving: it takes its share; otherwise it stands aside or no worker has reported it yet.
        silent_at_s: without another report no worker serves it from then on.
        trial_at_s: when it stands aside: the next trial is due then.
        methods: what it can do; None until a worker said.
        waiting: what waits for it in the delay rooms.
        no_budget_until_ms: kinds of requests (`Request.kind`) of which an attempt found no budget, and until when.
        open_from_ms: from then on (Unix milliseconds) it takes any request at once, until its next report; infinite
            where that needs a closer look (`takes`). It saves the router that look at each of hundreds of lanes.
    """

    def __init__(self, name: str, weight: float, config: DispatcherConfig) -> None:
        super().__init__(name, weight)
        self._config = config
        self._heard: dict[str, tuple[float, LaneReport]] = {}
        self._last_heard_s = 0.0
        self._last_asked_s = self._answered_s = -math.inf
        self._in_flight = 0
        self._ended_per_s = 0.0
        self._ended_at_s = -math.inf
        self.waiting = Waiting()
        self._busy_from_s = math.inf
        self._failures = Failures()
        self._slowness = Slowness()
        self._well = True
        self._aside: State | None = None
        self._why = ""
        self._was = State.DEGRADED
        self._back_s = -math.inf
        self._trial_gap_s = config.trial_after_s
        self._trial_sent_s = math.inf  # of the trial under way
        self._suspects = Suspects()
        self._probing = False  # the trial under way is a probe
        self._suspects_try = False  # a probe's trial failed: its question may be all that has no answer
        self._trials_needed = self._trials_left = 1
        self._unreported = 0
        self._unreported_until_s = 0.0
        self.serving = True
        self.silent_at_s = -math.inf
        self.trial_at_s = 0.0
        self.paused_until_ms = 0
        self._lifted_ms, self._lifted_s = 0, -math.inf
        self.methods: frozenset[str] | None = None
        self.no_budget_until_ms: dict[str, int] = {}
        self.open_from_ms = math.inf

    def configure(self, weight: float, config: DispatcherConfig) -> None:
        """Takes other settings; what is known of the lane stays."""
        self._config = config
        self.weight = weight
        self._weigh(self._last_heard_s)

    def hear(self, worker: str, report: LaneReport, now_s: float) -> None:
        """Takes in a worker's report of this lane."""
        self._heard[worker] = now_s, report
        passed_s = max(0.0, now_s - self._last_heard_s)
        self._last_heard_s = now_s
        self.silent_at_s = now_s + self._config.silent_after_s
        if report.ok or report.failed or report.rejected:
            self._last_asked_s = now_s
        if report.ok or report.rejected or report.failed.keys() - {ErrorCode.EXCHANGE_TIMEOUT}:
            self._answered_s = now_s
        if report.methods is not None:
            self.methods = frozenset(report.methods)
        self._follow_pause(report, now_s)
        self._count_load(now_s, report, passed_s)
        trial_sent_s = -math.inf if self._suspects_try or not self._questions else self._trial_sent_s
        report, of_no_trial = self._suspects.hear(report, self._back_s, trial_sent_s, now_s)
        ill = sum(count for code, count in report.failed.items() if code in ILL) - report.excused
        failed_sent_s = now_s - report.failed_ago_ms / 1000
        if failed_sent_s < self._back_s:
            ill = 0  # what was sent before it came back says nothing new
        self._failures.hear(report, ill, self._config.error_rate, now_s)
        self._slowness.hear(report, now_s)
        self._follow_latency(report, passed_s)
        if self._aside:
            if failed_sent_s < self._trial_sent_s < math.inf:
                ill = 0  # nor does what was sent before the trial
            self._judge_trial(report, ill - of_no_trial, now_s)
        elif verdict := self._verdict(now_s):
            self._stand_aside(*verdict, now_s)
        elif not self._ramping(now_s):
            self._trial_gap_s = self._config.trial_after_s
            self._trials_needed = 1
        self._weigh(now_s)

    def _count_load(self, now_s: float, report: LaneReport, passed_s: float) -> None:
        deadline_s = now_s - self._config.silent_after_s
        for worker in [worker for worker, (heard_s, _) in self._heard.items() if heard_s < deadline_s]:
            del self._heard[worker]
        self._in_flight = sum(known.in_flight for _, known in self._heard.values())
        if now_s >= self._unreported_until_s:
            self._unreported, self._unreported_until_s = 0, now_s + UNREPORTED_S
        self.outstanding = self._in_flight + self._unreported
        if report.budget_ms:
            self.budget_ms = report.budget_ms
        self._count_backlog(now_s, report, passed_s)

    def _count_backlog(self, now_s: float, report: LaneReport, passed_s: float) -> None:
        """How fast it works shows only while it has enough to do, and nothing but its limits holds it up."""
        ended = report.ok + report.rejected + report.uncalled + sum(report.failed.values())
        followed = 1 - math.exp(-passed_s / RATE_S)
        if passed_s:
            self._ended_per_s += followed * (ended / passed_s - self._ended_per_s)
        if ended:
            self._ended_at_s = now_s
        # While nothing ends the mean only shrinks, and what is divided by it grows without end.
        stuck = now_s > self._ended_at_s + RATE_S
        if stuck or self._in_flight < BUSY_ATTEMPTS or self._aside or report.paused_until_ms:
            self._busy_from_s = now_s + RATE_S
        known = now_s >= self._busy_from_s
        self.backlog_ms = self.outstanding / self._ended_per_s * 1000 if known else 0.0
        self.waiting.hear(report, now_s, held_up=self._aside is not None or report.paused_until_ms > 0)
        self.waiting_ms = self.waiting.ms

    def _follow_latency(self, report: LaneReport, passed_s: float) -> None:
        fall = math.exp(-passed_s / LATENCY_FALL_S)
        self.latency_ms = max(report.exchange_ms, report.exchange_ms + (self.latency_ms - report.exchange_ms) * fall)

    @property
    def slowness(self) -> float:
        """How many times slower it answers than it used to; 1 where that is no matter."""
        return self._slowness.times if self.latency_ms >= SLOW_FROM_MS else 1.0

    def _verdict(self, now_s: float) -> tuple[State, str] | None:
        """Why it should stand aside."""
        config, failures = self._config, self._failures
        if failures.in_maintenance:
            return State.MAINTENANCE, "the exchange says that it is in maintenance"
        if failures.row >= config.failures_in_a_row:
            return State.OFFLINE, f"{failures.row} failures in a row"
        calls, failed = failures.total()
        if failed and self._ramping(now_s) and failed >= config.error_rate / 2 * calls:
            return self._was, f"{failed} of {calls} calls failed after it came back"
        if failures.too_many:
            return State.DEGRADED, f"{failed} of {calls} calls failed"
        if self.slowness >= config.slow_times:
            return State.DEGRADED, f"{self.slowness:.1f} times slower than it was"
        return self._stalled(now_s)

    def _stalled(self, now_s: float) -> tuple[State, str] | None:
        """Whether several calls should have had an answer by now, and none has come to any worker for long enough."""
        due_ms = DUE_LATENCIES * self.latency_ms
        waiting = [report for _, report in self._heard.values() if report.unanswered and report.silent_ms >= due_ms]
        unanswered = sum(report.unanswered for report in waiting)
        if unanswered < STALLED_CALLS:
            return None
        silent_ms = min((now_s - self._answered_s) * 1000, max(report.silent_ms for report in waiting))
        if silent_ms < max(self._config.stalled_after_s * 1000, STALLED_LATENCIES * self.latency_ms):
            return None
        return State.DEGRADED, f"{unanswered} calls have no answer, none came for {silent_ms / 1000:.1f} s"

    def _stand_aside(self, state: State, why: str, now_s: float) -> None:
        self._aside = self._was = state
        self._why = why
        self._trial_sent_s = math.inf
        self._suspects_try = False
        self.trial_at_s = now_s + self._trial_gap_s
        if self._ramping(now_s):  # one good trial was luck
            self._trials_needed = min(self._trials_needed + 1, TRIALS_NEEDED_MAX)
            self._lengthen_gap(now_s)
        self._trials_left = self._trials_needed

    def _ramping(self, now_s: float) -> bool:
        return now_s < self._back_s + self._config.slow_start_s

    def _lengthen_gap(self, now_s: float) -> None:
        self._trial_gap_s = min(self._trial_gap_s * 2, self._config.trial_after_max_s)
        self.trial_at_s = now_s + self._trial_gap_s

    def _judge_trial(self, report: LaneReport, ill: int, now_s: float) -> None:
        if self._aside is State.DEGRADED:
            if self._failures.row >= self._config.failures_in_a_row:  # it got worse
                self._aside = self._was = State.OFFLINE
                self._why = f"{self._failures.row} failures in a row"
            elif self._trial_sent_s == math.inf and not report.trials_ok:
                return  # what was under way before says nothing new; another dispatcher's good trial does
        slow = report.slowness >= self._config.slow_times and report.exchange_ms >= SLOW_FROM_MS
        unbroken = report.trials_ok or not report.failures_in_a_row
        if report.ok and unbroken and ill <= 0 and not slow:
            self._trial_sent_s = math.inf
            self._suspects_try = False
            self._trials_left -= 1
            if self._trials_left:
                self.trial_at_s = now_s + self._config.trial_after_s * GOOD_GAP_PART
                return
            self._aside, self._why = None, ""
            self._back_s = now_s
            self._failures.forget()
            self._slowness = Slowness()
            self.latency_ms = report.exchange_ms
        elif (ill > 0 or (report.ok and slow)) and self._trial_sent_s < math.inf:
            self._trial_sent_s = math.inf
            self._trials_left = self._trials_needed
            self._lengthen_gap(now_s)
            self._suspects_try = self._probing
        elif (report.throttled or report.trials_void) and self._trial_sent_s < math.inf and not report.ok:
            # It found no budget, or failed by itself, so it says nothing: another one may, before its time is up.
            self._trial_sent_s = math.inf
            self.trial_at_s = now_s + self._config.trial_after_s
            self._suspects_try = self._probing and report.trials_void > 0

    def _weigh(self, now_s: float) -> None:
        self.serving = self._aside is None
        part = max(LEAST_PART, self._failures.part_left(self._config)) * min(1.0, (SLOW_FREE / self.slowness) ** 2)
        ramp = ((now_s - self._back_s) / self._config.slow_start_s) ** 2
        self._well = part >= 0.5
        self.share = self.weight * max(LEAST_PART, part) * min(1.0, max(LEAST_PART, ramp))
        if self._aside or self.backlog_ms or self.waiting_ms or self.crowded:
            self.open_from_ms = math.inf
        else:
            self.open_from_ms = max(self.paused_until_ms, *self.no_budget_until_ms.values(), 0)

    def refused(self, request: Request, until_ms: int) -> None:
        """A worker handed back an attempt unsent: no budget before this time."""
        self.no_budget_until_ms[request.kind] = until_ms
        self.open_from_ms = max(self.open_from_ms, until_ms)

    @property
    def crowded(self) -> bool:
        """Whether what is with it needs more budget than comes back soon, before any worker says so.

        What is sent there at once is refused only later, and the last of several lanes of which no refusal is known yet
        would get all of a crowd.
        """
        return self.outstanding * self.budget_ms > self.latency_ms + CROWDED_MS

    def before_ms(self, kind: str) -> float:
        """How long what is with it, and waits for it, will take before one more of this kind; 0 where not known."""
        return self.backlog_ms + self.waiting_ms.get(kind, 0.0)

    def funded(self, kind: str, now_ms: int) -> bool:
        """Whether the last attempt of this kind found budget, and it is not crowded; another symbol may find some."""
        return self.no_budget_until_ms.get(kind, 0) <= now_ms and not self.crowded

    def takes(self, kind: str, left_ms: float, now_s: float, now_ms: int) -> bool:
        """Whether it takes its share of these requests now, those that must be answered in so long."""
        return (
            self.serving
            and not self.silent(now_s)
            and self.paused_until_ms <= now_ms
            and self.funded(kind, now_ms)
            and self.before_ms(kind) <= left_ms
        )

    def _follow_pause(self, report: LaneReport, now_s: float) -> None:
        """Keeps the longest pause of all reports. Right after one was lifted, reports that do not know yet are void."""
        if report.lifted_ms > self._lifted_ms:
            self._lifted_ms, self._lifted_s = report.lifted_ms, now_s
            self.paused_until_ms = report.paused_until_ms
        elif report.lifted_ms == self._lifted_ms or now_s > self._lifted_s + LIFT_SPREADS_S:
            self.paused_until_ms = max(self.paused_until_ms, report.paused_until_ms)

    def forget(self, worker: str) -> None:
        """A worker said that it leaves."""
        self._heard.pop(worker, None)
        last_s = max((heard_s for heard_s, _ in self._heard.values()), default=-math.inf)
        self.silent_at_s = last_s + self._config.silent_after_s

    def silent(self, now_s: float) -> bool:
        """Whether no worker serves the lane."""
        return now_s > self.silent_at_s

    def workers(self, now_s: float) -> int:
        """How many workers serve the lane."""
        return sum(heard_s >= now_s - self._config.silent_after_s for heard_s, _ in self._heard.values())

    def state(self, now_s: float) -> State:
        """The lane's state now."""
        if self.silent(now_s):
            return State.OFFLINE
        return self._aside or (State.HEALTHY if self._well else State.DEGRADED)

    def due(self, now_s: float) -> bool:
        """Whether it stands aside and a trial is due."""
        return self._aside is not None and now_s >= self.trial_at_s and not self.silent(now_s)

    def tries(self, attempt: Attempt) -> bool:
        """Whether a trial that is due may be this one: not one that fails by itself, wherever the lane's trouble is."""
        if not self._questions:
            return True  # nobody else can find out
        doubtful = any(item.lane == self.name and item.code in _DOUBTFUL for item in attempt.tries)
        return not doubtful and (self._suspects_try or not self._suspects.knows(attempt))

    @property
    def _questions(self) -> bool:
        """Whether a probe has something to ask."""
        return self.methods is not None and not self.methods.isdisjoint(QUESTIONS)

    def last_resort(self, now_s: float) -> bool:
        """Whether it stands aside but takes what has no other lane."""
        return self._aside is State.DEGRADED and not self.silent(now_s)

    def sent(self, now_s: float, *, bulk: bool = False, tries: bool = True, probe: bool = False) -> bool:
        """A request or a probe was sent there. Says whether it is a trial, if it `tries`; then the next one waits."""
        if not bulk:
            self._unreported += 1
            self.outstanding += 1
            if self.crowded:
                self.open_from_ms = math.inf
        self._last_asked_s = now_s
        if self._aside is None or now_s < self.trial_at_s or not tries:
            return False
        self._probing = probe
        self._trial_sent_s = min(self._trial_sent_s, now_s)
        # One at a time: how it ended may be known only when its time is up.
        self.trial_at_s = now_s + max(self._trial_gap_s, self._config.trial_timeout_s)
        return True

    def probe_every_s(self, now_s: float) -> float | None:
        """How often it should be asked how it is, if a probe is due; None if not."""
        if self._aside:
            return self._config.trial_after_s if now_s >= self.trial_at_s else None
        if self.unproven(now_s):
            return self._config.trial_after_s
        every_s = self._config.probe_every_s
        return every_s if now_s >= self._last_asked_s + every_s else None

    def unproven(self, now_s: float) -> bool:
        """Whether requests fail there by themselves and none is answered, so that only a probe can tell how it is."""
        return self._failures.unproven(now_s)

    def memory(self, now_s: float, now_ms: int) -> Memory:
        """What the next dispatcher may know of it."""
        return Memory(
            aside=self._aside,
            why=self._why,
            trial_at_ms=now_ms + int(max(0.0, self.trial_at_s - now_s) * 1000),
            trial_gap_s=self._trial_gap_s,
            latency_ms=self.latency_ms,
            budget_ms=self.budget_ms,
            paused_until_ms=self.paused_until_ms,
            methods=None if self.methods is None else sorted(self.methods),
        )

    def remember(self, memory: Memory, now_s: float, now_ms: int) -> None:
        """Takes in what another dispatcher knew. Workers must report it all the same before it is asked anything."""
        self._aside = memory.aside
        self._was = memory.aside or self._was
        self._why = memory.why
        self.trial_at_s = now_s + (memory.trial_at_ms - now_ms) / 1000
        self._trial_gap_s = memory.trial_gap_s
        self.latency_ms = memory.latency_ms
        self.budget_ms = memory.budget_ms
        self.paused_until_ms = memory.paused_until_ms
        self.methods = None if memory.methods is None else frozenset(memory.methods)
        self._weigh(now_s)

    def usable_in_s(self, now_s: float) -> float:
        """How long until a request may be sent there, as far as is known."""
        if self.silent(now_s):
            return SILENT_RECHECK_S
        if self._aside in (None, State.DEGRADED):
            return 0.0
        trial_in_s = max(0.0, self.trial_at_s - now_s)
        # A trial that is under way may bring it back before the next one would be due.
        return trial_in_s if self._trial_sent_s == math.inf else min(trial_in_s, self._config.trial_after_s)

    def reason(self, now_s: float) -> str:
        """Why it is not healthy, for logs and error messages."""
        if self.silent(now_s):
            return "no worker reports it"
        if self._aside:
            return self._why
        if self._well:
            return ""
        calls, failures = self._failures.total()
        return f"{failures} of {calls} calls failed, {self.slowness:.1f} times slower than it was"
