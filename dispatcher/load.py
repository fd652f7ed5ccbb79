"""The load of one lane: what is in flight or waits for it, and how long until it serves one more attempt. Pure.

That time is estimated here and nowhere else, in two ways:

- `queueing_ms` is measured: what is ahead, over the rate at which it has been worked off. It is known only while a lane
  has had more to do than its limits allow for some seconds. Requests that it makes too late are refused at once.
- `answers_in_ms` is predicted: the budget that the attempts in flight take, plus the latency. It is known at once, also
  for a burst that no report shows yet. Strategies compare lanes by it, and a `crowded` lane is passed over.
"""

import math
from typing import Final

from schemas.reports import LaneReport

from .waiting import Waiting

# Assumed latency before the first measurement: slower than most, so that new lanes get measured little by little.
UNKNOWN_LATENCY_MS: Final = 100.0
# The time constant with which a falling latency is followed; a rise counts at once.
LATENCY_FALL_S: Final = 10.0
# A lane is crowded when the budget of its attempts in flight comes back so much later than an answer.
CROWDED_MS: Final = 1_000.0
# The rate at which a backlog is worked off is known after so long with at least so many attempts in flight.
RATE_S: Final = 3.0
BUSY_ATTEMPTS: Final = 20
# Attempts that were sent count as in flight for so long before reports show them.
UNREPORTED_S: Final = 0.2


class Load:
    """The load of one lane. Kinds are those of `Request.kind`.

    Args:
        latency_ms: its latency, 0 before the first measurement.
        budget_ms: as below.

    Attributes:
        outstanding: attempts in flight: those that workers report, and those sent since.
        latency_ms: a peak EWMA of the latency: it follows a rise at once and a fall slowly.
        budget_ms: how much time of its tightest limit one attempt takes; 0 where unknown.
        answers_in_ms: the predicted time until one more attempt is answered.
        crowded: the budget of what is in flight takes long to come back. Workers refuse such a crowd only later, and
            without this the last of several lanes that has not refused yet would get all of it.
        backlog_ms: the measured time until what is in flight has ended; 0 where there is no backlog, or its rate is
            not known.
        waiting: what waits for the lane in the delay queues.
        no_budget_until_ms: by kind, until when there is no budget (Unix milliseconds), as the last attempt found.
    """

    __slots__ = (
        "_busy_from_s",
        "_ended_at_s",
        "_ended_per_s",
        "_unreported",
        "_unreported_until_s",
        "answers_in_ms",
        "backlog_ms",
        "budget_ms",
        "crowded",
        "latency_ms",
        "no_budget_until_ms",
        "outstanding",
        "waiting",
    )

    def __init__(self, latency_ms: float = 0.0, budget_ms: float = 0.0) -> None:
        self.outstanding = 0
        self.backlog_ms = 0.0
        self.waiting = Waiting()
        self.no_budget_until_ms: dict[str, int] = {}
        self._unreported = 0
        self._unreported_until_s = 0.0
        self._ended_per_s = 0.0
        self._ended_at_s = -math.inf
        self._busy_from_s = math.inf
        self.learn(latency_ms, budget_ms)

    def learn(self, latency_ms: float, budget_ms: float) -> None:
        """Takes another process's figures, or those of a lane that has just come back."""
        self.latency_ms = latency_ms
        self.budget_ms = budget_ms
        self._predict()

    def observe(self, report: LaneReport, in_flight: int, passed_s: float, now_s: float, *, held_up: bool) -> None:
        """Takes in a worker's report.

        Args:
            report: of this lane.
            in_flight: live attempts that all workers hold, by their last reports.
            passed_s: the time since the last report of any worker.
            now_s: the clock.
            held_up: the lane is set aside or paused, so that how much ends says nothing of its limits.
        """
        if now_s >= self._unreported_until_s:
            self._unreported, self._unreported_until_s = 0, now_s + UNREPORTED_S
        self.outstanding = in_flight + self._unreported
        if report.budget_ms:
            self.budget_ms = report.budget_ms
        fall = math.exp(-passed_s / LATENCY_FALL_S)
        self.latency_ms = max(report.exchange_ms, report.exchange_ms + (self.latency_ms - report.exchange_ms) * fall)
        self._measure(report, passed_s, now_s, busy=in_flight >= BUSY_ATTEMPTS and not held_up)
        self.waiting.observe(report, now_s, held_up=held_up)
        self._predict()

    def _measure(self, report: LaneReport, passed_s: float, now_s: float, *, busy: bool) -> None:
        """Follows the rate at which attempts end; it is that of the limits only while the lane is busy."""
        ended = report.ok + report.rejected + report.uncalled + sum(report.failed.values())
        followed = 1 - math.exp(-passed_s / RATE_S)
        if passed_s:
            self._ended_per_s += followed * (ended / passed_s - self._ended_per_s)
        if ended:
            self._ended_at_s = now_s
        # While nothing ends the rate falls towards 0, and a time divided by it would grow without end.
        stuck = now_s > self._ended_at_s + RATE_S
        if stuck or not busy:
            self._busy_from_s = now_s + RATE_S
        known = now_s >= self._busy_from_s
        self.backlog_ms = self.outstanding / self._ended_per_s * 1000 if known else 0.0

    def sent(self) -> None:
        """A live attempt was sent; reports show it a little later."""
        self._unreported += 1
        self.outstanding += 1
        self._predict()

    def _predict(self) -> None:
        drained_ms = self.outstanding * self.budget_ms
        self.answers_in_ms = drained_ms + (self.latency_ms or UNKNOWN_LATENCY_MS)
        self.crowded = drained_ms > self.latency_ms + CROWDED_MS

    def refused(self, kind: str, until_ms: int) -> None:
        """A worker returned an attempt of this kind unsent: there is no budget for it before this time."""
        self.no_budget_until_ms[kind] = until_ms

    def funded(self, kind: str, now_ms: int) -> bool:
        """Whether there is budget for this kind, as far as is known; another symbol of it may find some anyway."""
        return self.no_budget_until_ms.get(kind, 0) <= now_ms and not self.crowded

    def queueing_ms(self, kind: str) -> float:
        """The measured time until what is ahead of one more of this kind has ended; 0 where that is not known."""
        return self.backlog_ms + self.waiting.ms.get(kind, 0.0)

    @property
    def busyness_ms(self) -> float:
        """Latency times the attempts in flight with one more, which is what `least_latency` compares."""
        return (self.outstanding + 1) * (self.latency_ms or UNKNOWN_LATENCY_MS)
