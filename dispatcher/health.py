"""A lane's health: a state machine over reports, with the clock as an argument.

::

    silent ──a worker reports──▶ healthy ──failures in a row──▶ offline ──a trial succeeds──▶ healthy
       ▲                            │                             │
       └───no report in time────────┴─────────────────────────────┘

`silent` is `offline` for want of a worker: it needs no trial, only a report. A lane that is offline because it failed
gets one request at a time to try it with, with growing gaps. A pause the exchange asked for is not ill health.
"""

import enum
from typing import Final

from schemas.config import DispatcherConfig
from schemas.messages import ILL, LaneReport

# Nobody knows when a worker comes: requests for a silent lane look again after this time.
SILENT_RECHECK_S: Final = 1.0


class State(enum.StrEnum):
    """A lane's state as logs, metrics and the status show it."""

    HEALTHY = "healthy"
    OFFLINE = "offline"


class LaneHealth:
    """What the dispatcher knows of one lane. All times are seconds of one monotonic clock but `paused_until_ms`."""

    def __init__(self, config: DispatcherConfig) -> None:
        self._config = config
        self._heard: dict[str, float] = {}  # worker -> when it last reported this lane
        self._row = 0
        self._failing = False
        self._trial_gap_s = config.trial_after_s
        self._trial_sent = False
        self.trial_at_s = 0.0
        self.paused_until_ms = 0
        self.methods: frozenset[str] | None = None
        self._no_budget_until_ms: dict[str, int] = {}

    def hear(self, worker: str, report: LaneReport, now_s: float) -> None:
        """Takes in a worker's report of this lane."""
        self._heard[worker] = now_s
        if report.methods is not None:
            self.methods = frozenset(report.methods)
        self.paused_until_ms = max(self.paused_until_ms, report.paused_until_ms)
        failed = sum(count for code, count in report.failed.items() if code in ILL)
        if report.ok or report.rejected or len(report.failed) > len(report.failed.keys() & ILL):
            # The exchange answered. Failures since then are all the row there is.
            self._row = report.failures_in_a_row
            if report.ok and self._failing and not report.failures_in_a_row:
                self._failing = self._trial_sent = False
                self._trial_gap_s = self._config.trial_after_s
        elif failed:
            self._row += failed
            if self._failing and self._trial_sent:  # others may still fail that were under way before
                self._trial_sent = False
                self._trial_gap_s = min(self._trial_gap_s * 2, self._config.trial_after_max_s)
                self.trial_at_s = now_s + self._trial_gap_s
        if not self._failing and self._row >= self._config.failures_in_a_row:
            self._failing = True
            self.trial_at_s = now_s + self._trial_gap_s

    def refused(self, method: str, until_ms: int) -> None:
        """A worker handed back an attempt unsent: no budget before this time."""
        self._no_budget_until_ms[method] = until_ms

    def has_budget(self, method: str, now_ms: int) -> bool:
        """Whether the last attempt of this kind found budget, as far as is known; another symbol may well find some."""
        return self._no_budget_until_ms.get(method, 0) <= now_ms

    def forget(self, worker: str) -> None:
        """A worker said that it leaves."""
        self._heard.pop(worker, None)

    def silent(self, now_s: float) -> bool:
        """Whether no worker serves the lane."""
        deadline_s = now_s - self._config.silent_after_s
        for worker in [worker for worker, heard_s in self._heard.items() if heard_s < deadline_s]:
            del self._heard[worker]
        return not self._heard

    def state(self, now_s: float) -> State:
        """The lane's state now."""
        return State.OFFLINE if self._failing or self.silent(now_s) else State.HEALTHY

    def takes(self, now_s: float) -> bool:
        """Whether a request may be sent there now: it is healthy, or a trial is due."""
        return not self.silent(now_s) and (not self._failing or now_s >= self.trial_at_s)

    def sent(self, now_s: float) -> bool:
        """A request was sent there. Says whether it is a trial; then the next one waits for its gap."""
        if self._failing:
            self._trial_sent = True
            self.trial_at_s = now_s + self._trial_gap_s
        return self._failing

    def usable_in_s(self, now_s: float) -> float:
        """How long until a request may be sent there, as far as is known."""
        if self.silent(now_s):
            return SILENT_RECHECK_S
        return max(0.0, self.trial_at_s - now_s) if self._failing else 0.0

    def reason(self, now_s: float) -> str:
        """Why it is not healthy, for logs and error messages."""
        if self.silent(now_s):
            return "no worker reports it"
        return f"{self._row} failures in a row" if self._failing else ""
