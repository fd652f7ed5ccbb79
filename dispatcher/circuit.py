"""The circuit breaker of one lane: when it is set aside, and how trials bring it back. Pure: the clock is an argument.

::

    serving ── it fails, is slow, or does not answer ──▶ aside: degraded, offline, maintenance
       ▲                                                   │  a trial is due
       └──── slow start ◀── enough good trials ◀───────────┘  after growing gaps

In the usual words: a lane that serves is a closed circuit, one that is set aside an open one, and a trial in flight
makes it half-open. A trial is one real request, or a probe if no suitable request comes. A `degraded` lane (some
errors, slow, no answers) also takes requests that have no other lane. One that is `offline` (nothing but failures) or
in `maintenance` takes only trials.
"""

import enum
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from schemas.config import DispatcherConfig
from schemas.messages import EXCHANGE_FAILURES, Attempt, ErrorCode
from schemas.reports import LaneReport

from .evidence import SLOW_FROM_MS, Evidence
from .load import Load
from .suspects import Suspects

# Failures with these codes may be the request's own fault.
_DOUBTFUL: Final = frozenset({ErrorCode.EXCHANGE_ERROR, ErrorCode.BAD_RESPONSE, ErrorCode.RESTRICTED})
# A lane that fails again during its slow start needs one more good trial in a row the next time, up to this number.
TRIALS_NEEDED_MAX: Final = 3
# Between two good trials in a row the gap is this part of the shortest one.
GOOD_GAP_PART: Final = 0.5


class State(enum.StrEnum):
    """A lane's state as logs, metrics and the status show it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    MAINTENANCE = "maintenance"


class Counted(NamedTuple):
    """A report, and which of its failures count.

    Args:
        report: the report; repeated failures of suspects are excused in it.
        ill: how many failures speak against the lane.
        of_trial: how many of them may be of the trial in flight.
    """

    report: LaneReport
    ill: int
    of_trial: int


class Circuit:
    """The circuit breaker of one lane. All times are seconds of one monotonic clock.

    Args:
        config: the thresholds.

    Attributes:
        aside: the state in which the lane is set aside; None while it serves.
        why: the reason, for people; empty while it serves.
        trial_at_s: when its next trial is due; meaningful only while it is set aside.
        trial_gap_s: the gap after the next trial that fails, before it is doubled.
    """

    def __init__(self, config: DispatcherConfig) -> None:
        self._config = config
        self.aside: State | None = None
        self.why = ""
        self.trial_at_s = 0.0
        self.trial_gap_s = config.trial_after_s
        self._was = State.DEGRADED  # the state in which it was set aside last
        self._back_s = -math.inf
        self._sent_s = math.inf  # when the trial in flight was sent; infinite without one
        self._probing = False  # the trial in flight is a probe
        self._suspects_try = False  # a probe failed as a trial: the lane may answer everything but the probe's question
        self._suspects = Suspects()
        self._needed = self._left = 1  # good trials in a row

    def configure(self, config: DispatcherConfig) -> None:
        """Takes other thresholds; the state stays."""
        self._config = config

    def restore(self, aside: State | None, why: str, trial_at_s: float, trial_gap_s: float) -> None:
        """Takes the state that another dispatcher has saved."""
        self.aside, self.why = aside, why
        self._was = aside or self._was
        self.trial_at_s, self.trial_gap_s = trial_at_s, trial_gap_s

    def count(self, report: LaneReport, now_s: float, *, probes: bool) -> Counted:
        """Finds out which failures of a report count.

        Args:
            report: a worker's.
            now_s: the clock.
            probes: whether the lane has a method that a probe can ask for.
        """
        trial_sent_s = -math.inf if self._suspects_try or not probes else self._sent_s
        report, of_no_trial = self._suspects.observe(report, self._back_s, trial_sent_s, now_s)
        ill = sum(count for code, count in report.failed.items() if code in EXCHANGE_FAILURES) - report.excused
        sent_s = now_s - report.failed_ago_ms / 1000
        # Calls that were sent before the lane came back say nothing new, and neither do those before a trial.
        if sent_s < self._back_s:
            ill = 0
        since_trial = 0 if sent_s < self._sent_s < math.inf else ill
        return Counted(report, ill, since_trial - of_no_trial)

    def decide(
        self, counted: Counted, evidence: Evidence, load: Load, reports: Sequence[LaneReport], now_s: float
    ) -> bool:
        """Takes in a report that `evidence` has taken in before; returns whether the lane has just come back.

        Args:
            counted: the report.
            evidence: what speaks against the lane now.
            load: says how long its answers take.
            reports: the last report of each worker.
            now_s: the clock.
        """
        if self.aside:
            return self._judge_trial(counted, evidence.failures.row, now_s)
        if verdict := self._verdict(evidence, load, reports, now_s):
            self._set_aside(*verdict, now_s)
        elif not self.ramping(now_s):
            self.trial_gap_s = self._config.trial_after_s
            self._needed = 1
        return False

    def _verdict(
        self, evidence: Evidence, load: Load, reports: Sequence[LaneReport], now_s: float
    ) -> tuple[State, str] | None:
        """The state in which it should be set aside, with the reason."""
        config, failures = self._config, evidence.failures
        if failures.in_maintenance:
            return State.MAINTENANCE, "the exchange says that it is in maintenance"
        if failures.row >= config.failures_in_a_row:
            return State.OFFLINE, f"{failures.row} failures in a row"
        calls, failed = failures.total()
        if failed and self.ramping(now_s) and failed >= config.error_rate / 2 * calls:
            return self._was, f"{failed} of {calls} calls failed after it came back"
        if failures.too_many:
            return State.DEGRADED, f"{failed} of {calls} calls failed"
        slowness = evidence.slowness(load.latency_ms)
        if slowness >= config.slow_times:
            return State.DEGRADED, f"{slowness:.1f} times slower than it was"
        stalled = evidence.stalled(reports, load.expected_ms, config.stalled_after_s, now_s)
        return (State.DEGRADED, stalled) if stalled else None

    def _set_aside(self, state: State, why: str, now_s: float) -> None:
        self.aside = self._was = state
        self.why = why
        self._sent_s = math.inf
        self._suspects_try = False
        self.trial_at_s = now_s + self.trial_gap_s
        if self.ramping(now_s):  # its good trial was luck
            self._needed = min(self._needed + 1, TRIALS_NEEDED_MAX)
            self._lengthen_gap(now_s)
        self._left = self._needed

    def _lengthen_gap(self, now_s: float) -> None:
        self.trial_gap_s = min(self.trial_gap_s * 2, self._config.trial_after_max_s)
        self.trial_at_s = now_s + self.trial_gap_s

    def _judge_trial(self, counted: Counted, row: int, now_s: float) -> bool:
        """Takes in a report while the lane is set aside; returns whether that brings it back."""
        report = counted.report
        trying = self._sent_s < math.inf
        if self.aside is State.DEGRADED:
            if row >= self._config.failures_in_a_row:  # it got worse
                self.aside = self._was = State.OFFLINE
                self.why = f"{row} failures in a row"
            elif not trying and not report.trials_ok:
                return False  # only a trial says anything new, this dispatcher's or another's
        slow = report.slowness >= self._config.slow_times and report.exchange_ms >= SLOW_FROM_MS
        unbroken = report.trials_ok or not report.failures_in_a_row
        if report.ok and unbroken and counted.of_trial <= 0 and not slow:
            return self._good_trial(now_s)
        if not trying:
            return False
        if counted.of_trial > 0 or (report.ok and slow):
            self._sent_s = math.inf
            self._left = self._needed
            self._lengthen_gap(now_s)
            self._suspects_try = self._probing
        elif (report.throttled or report.trials_void) and not report.ok:
            # The trial found no budget, or failed by the request's own fault. That says nothing of the lane, so the
            # next one comes after the shortest gap.
            self._sent_s = math.inf
            self.trial_at_s = now_s + self._config.trial_after_s
            self._suspects_try = self._probing and report.trials_void > 0
        return False

    def _good_trial(self, now_s: float) -> bool:
        self._sent_s = math.inf
        self._suspects_try = False
        self._left -= 1
        if self._left:
            self.trial_at_s = now_s + self._config.trial_after_s * GOOD_GAP_PART
            return False
        self.aside, self.why = None, ""
        self._back_s = now_s
        return True

    def ramping(self, now_s: float) -> bool:
        """Whether it is in its slow start."""
        return now_s < self._back_s + self._config.slow_start_s

    def ramp(self, now_s: float) -> float:
        """The part of its share that the slow start leaves, from 0; 1 and more once it is over."""
        return ((now_s - self._back_s) / self._config.slow_start_s) ** 2

    def due(self, now_s: float) -> bool:
        """Whether it is set aside and a trial is due."""
        return self.aside is not None and now_s >= self.trial_at_s

    def tries(self, attempt: Attempt, lane: str) -> bool:
        """Whether an attempt may be a trial of this lane: one that may fail by its own fault would show nothing."""
        doubtful = any(item.lane == lane and item.code in _DOUBTFUL for item in attempt.tries)
        return not doubtful and (self._suspects_try or not self._suspects.knows(attempt))

    def sent(self, now_s: float, *, probe: bool, timeout_s: float) -> bool:
        """An attempt was sent that may be a trial, and ends after `timeout_s` then; returns whether it is one."""
        if not self.due(now_s):
            return False
        self._probing = probe
        self._sent_s = min(self._sent_s, now_s)
        # One at a time: its end may be known only after its whole time-out.
        self.trial_at_s = now_s + max(self.trial_gap_s, timeout_s)
        return True

    def opens_in_s(self, now_s: float) -> float:
        """The time until it takes an attempt that has no other lane."""
        if self.aside in (None, State.DEGRADED):
            return 0.0
        trial_in_s = max(0.0, self.trial_at_s - now_s)
        # A trial in flight may bring it back before the next one is due.
        return trial_in_s if self._sent_s == math.inf else min(trial_in_s, self._config.trial_after_s)
