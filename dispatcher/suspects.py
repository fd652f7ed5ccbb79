"""Suspects: requests, symbols and callers that failed on a lane and were not answered since. Pure.

They are not sent as trials, and they are evidence only once. A lane may go offline over some symbols of one caller
while nobody else uses it. When it is back and answers others, further failures of the same suspects say nothing new. If
they counted, they would set it aside again and again. One answer clears a suspect, so a lane that fails now and then is
still noticed.
"""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec.structs import replace

from schemas.messages import Attempt
from schemas.reports import LaneReport, Named

# A suspect is kept for so long after its last failure, and so many of them at most.
KEPT_S: Final = 60.0
KEPT: Final = 1_000


class _Failing(NamedTuple):
    """When the first and the last failure of a suspect were reported, with no answer in between."""

    since_s: float
    last_s: float


class Suspects:
    """The suspects of one lane, as all its workers report them. All times in seconds of one monotonic clock.

    Attributes:
        answered_s: when a request last brought data. A probe does not count: it may be all that the lane answers.
    """

    def __init__(self) -> None:
        self._failing: dict[str, _Failing] = {}  # in the order of their last failures
        self.answered_s = -math.inf

    def knows(self, attempt: Attempt) -> bool:
        """Whether this request, its subject or its caller is a suspect."""
        return bool(self._failing) and not self._failing.keys().isdisjoint(Named.of(attempt).names)

    def observe(self, report: LaneReport, back_s: float, trial_sent_s: float, now_s: float) -> tuple[LaneReport, int]:
        """Takes in a worker's report.

        Args:
            report: of this lane.
            back_s: when the lane came back last.
            trial_sent_s: when the trial in flight was sent; infinite without one. No suspect is a trial.
            now_s: the clock.

        Returns:
            The report, in which failures of suspects from before the lane came back are excused, if others were
            answered since; and how many of the failures left in it can't be the trial's, as they are of suspects.
        """
        self._clear(report.answered, now_s)
        repeats = self._repeats(report, min(back_s, self.answered_s))
        of_no_trial = self._repeats(report, trial_sent_s) - repeats
        self._suspect(report.failing, now_s)
        if repeats:
            row = max(0, report.failures_in_a_row - repeats)
            report = replace(report, excused=report.excused + repeats, failures_in_a_row=row)
        return report, max(0, of_no_trial)

    def _clear(self, answered: Iterable[str], now_s: float) -> None:
        for name in answered:
            self.answered_s = now_s
            self._failing.pop(name, None)

    def _repeats(self, report: LaneReport, before_s: float) -> int:
        return sum(each.against for each in report.failing if self._since_s(each) < before_s)

    def _suspect(self, failing: Iterable[Named], now_s: float) -> None:
        for each in failing:
            for name in each.names:
                known = self._failing.pop(name, None)
                self._failing[name] = _Failing(now_s if known is None else known.since_s, now_s)
        while self._failing:
            oldest = next(iter(self._failing))
            if len(self._failing) <= KEPT and self._failing[oldest].last_s > now_s - KEPT_S:
                return
            del self._failing[oldest]

    def _since_s(self, named: Named) -> float:
        known = [self._failing[name].since_s for name in named.names if name in self._failing]
        return min(known, default=math.inf)
