"""The load of one lane: what is in flight or waits for it, and how long until it serves one more attempt. Pure.

That time is estimated here and nowhere else, in two ways:

- `delay_ms` is known. Where a limit has no room in time, requests wait in line for it, and workers say how fast the
  line moves (`waiting.py`). A request that would be too late by it is refused at once.
- `answers_in_ms` is predicted: the time in which the budget of the attempts in flight comes back, plus the latency. It
  covers a burst that no report shows yet. Strategies compare lanes by it, and a `crowded` lane is passed over.

Calls that are out at the exchange count in neither. They have their budget, and an exchange that answers slowly may
answer many at once.
"""

import math
from typing import Final

from schemas.messages import Attempt, Bound, Request
from schemas.reports import LaneReport

from .waiting import Waiting

# Assumed latency before the first measurement: slower than most, so that few requests measure a new lane.
UNKNOWN_LATENCY_MS: Final = 100.0
# How long calls in flight are taken to need before the first measurement: far exchanges take that long.
UNMEASURED_MS: Final = 500.0
# The time constant with which a falling latency is followed; a rise counts at once.
LATENCY_FALL_S: Final = 10.0
# A lane is crowded when the budget of its attempts in flight takes so much longer to come back than an answer.
CROWDED_MS: Final = 1_000.0
# Attempts that were sent count as in flight for so long before reports show them.
UNREPORTED_S: Final = 0.2
# Half a place is kept before each turn for a call without one, as a probe's, and never longer than this. In a virtual
# day of 785,000 requests a whole place refused 205 that could have been answered, half of one 27. With no place kept
# 127 came late, with half of one 81.
SPARE_MOST_MS: Final = 400.0


class Load:
    """The load of one lane. Kinds are those of `Request.kind`.

    Args:
        latency_ms: its latency, 0 before the first measurement.
        budget_ms: how much time of its tightest limit one attempt takes, as far as is known.

    Attributes:
        outstanding: attempts in flight: those that workers report, and those sent since.
        latency_ms: a peak EWMA of the latency: it follows a rise at once and a fall slowly.
        usual_ms: an EWMA of the latency that follows both slowly.
        budget_ms: how much time of its tightest limit one attempt takes; 0 where unknown.
        answers_in_ms: the predicted time until one more attempt is answered.
        crowded: the budget of what is in flight takes long to come back. Workers refuse such a crowd only later, and
            without this the last of several lanes that has not refused yet would get all of it.
        waiting: what waits for the lane in the delay queues.
        no_budget_until_ms: by kind, until when there is no budget (Unix milliseconds), as the last attempt found.
    """

    __slots__ = (
        "_out",
        "_unreported",
        "_unreported_until_s",
        "answers_in_ms",
        "budget_ms",
        "crowded",
        "latency_ms",
        "no_budget_until_ms",
        "outstanding",
        "usual_ms",
        "waiting",
    )

    def __init__(self, latency_ms: float = 0.0, budget_ms: float = 0.0) -> None:
        self.outstanding = 0
        self.waiting = Waiting()
        self.no_budget_until_ms: dict[str, int] = {}
        self._out = 0
        self._unreported = 0
        self._unreported_until_s = 0.0
        self.learn(latency_ms, budget_ms)

    def learn(self, latency_ms: float, budget_ms: float) -> None:
        """Takes another process's figures, or those of a lane that has just come back."""
        self.latency_ms = self.usual_ms = latency_ms
        self.budget_ms = budget_ms
        self._predict()

    def observe(self, report: LaneReport, in_flight: int, out: int, passed_s: float, now_s: float) -> None:
        """Takes in a worker's report.

        Args:
            report: of this lane.
            in_flight: live attempts that all workers hold, by their last reports.
            out: HTTP calls that have been sent and not answered, by the same.
            passed_s: the time since the last report of any worker.
            now_s: the clock.
        """
        if now_s >= self._unreported_until_s:
            self._unreported, self._unreported_until_s = 0, now_s + UNREPORTED_S
        self.outstanding, self._out = in_flight + self._unreported, min(out, in_flight)
        if report.budget_ms:
            self.budget_ms = report.budget_ms
        fall = math.exp(-passed_s / LATENCY_FALL_S)
        self.latency_ms = max(report.exchange_ms, report.exchange_ms + (self.latency_ms - report.exchange_ms) * fall)
        if report.exchange_ms:
            followed = 1 - fall if self.usual_ms else 1.0
            self.usual_ms += followed * (report.exchange_ms - self.usual_ms)
        self.waiting.observe(now_s)
        self._predict()

    @property
    def busy(self) -> bool:
        """Whether anything is in flight or waits for it."""
        return bool(self.outstanding or self.waiting.count)

    def sent(self) -> None:
        """A live attempt was sent. It counts as in flight until reports show it."""
        self._unreported += 1
        self.outstanding += 1
        self._predict()

    def _predict(self) -> None:
        drained_ms = max(0, self.outstanding - self._out) * self.budget_ms
        self.answers_in_ms = drained_ms + (self.latency_ms or UNKNOWN_LATENCY_MS)
        self.crowded = drained_ms > self.latency_ms + CROWDED_MS

    def refused(self, request: Request, until_ms: int, bound: Bound | None, now_ms: int) -> None:
        """A worker returned such a request unsent: there is no budget for it before this time.

        Args:
            request: the request.
            until_ms: the time.
            bound: the limit that has no room, where it is known.
            now_ms: the clock of both.
        """
        self.no_budget_until_ms[request.kind] = until_ms
        if bound is not None and not request.bulk:
            self.waiting.refused(request, bound, now_ms)

    def funded(self, request: Request, now_ms: int) -> bool:
        """Whether there is budget for such a request, as far as is known. There may be some for another symbol."""
        return (
            self.no_budget_until_ms.get(request.kind, 0) <= now_ms
            and not self.crowded
            and not self.waiting.has_line(request, now_ms)
        )

    def delay_ms(self, attempt: Attempt, now_ms: int) -> float:
        """The time until one more such request of its caller would be answered; 0 where none waits."""
        delay_ms = self.waiting.delay_ms(attempt, now_ms)
        spare_ms = min(self.waiting.step_ms(attempt, now_ms) / 2, SPARE_MOST_MS)
        return delay_ms + spare_ms + self.usual_ms if delay_ms else 0.0

    @property
    def expected_ms(self) -> float:
        """How long calls in flight are taken to need. Unlike `latency_ms` it does not fall while nothing is asked."""
        return max(self.latency_ms, self.usual_ms) or UNMEASURED_MS

    @property
    def busyness_ms(self) -> float:
        """Latency times the attempts in flight with one more: what `least_latency` compares."""
        return (self.outstanding + 1) * (self.latency_ms or UNKNOWN_LATENCY_MS)
