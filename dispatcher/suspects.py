"""What failed on a lane and was not answered since: no trials of it, and no evidence twice. Pure.

A lane may go offline over some symbols that one caller asks for, where nobody else asks it anything. When it comes back
and answers others, failures of the same requests, symbols and callers are no news: they would else send it away again
and again. One answer makes them count again, so a lane that fails now and then is noticed as before.
"""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec.structs import replace

from schemas.messages import Attempt
from schemas.reports import LaneReport, Named

# What failed is remembered for so long after it failed last, and so many names of requests, symbols and callers.
KEPT_S: Final = 60.0
KEPT: Final = 1_000


class _Failing(NamedTuple):
    """When a request, a symbol or a caller was first and last heard to fail, with no answer in between."""

    since_s: float
    last_s: float


class Suspects:
    """The suspects of one lane, as all its workers report them. All times in seconds of one monotonic clock.

    Attributes:
        answered_s: when a request last brought data. A probe is none: a lane may answer nothing else.
    """

    def __init__(self) -> None:
        self._failing: dict[str, _Failing] = {}  # what failed last comes last
        self.answered_s = -math.inf

    def knows(self, attempt: Attempt) -> bool:
        """Whether this request, what it is about, or all that its caller asked failed and was not answered since."""
        return bool(self._failing) and not self._failing.keys().isdisjoint(Named.of(attempt).names)

    def hear(self, report: LaneReport, back_s: float, trial_sent_s: float, now_s: float) -> tuple[LaneReport, int]:
        """Takes in a worker's report.

        Args:
            report: of this lane.
            back_s: when the lane came back last.
            trial_sent_s: when the trial was sent that is under way, infinite where none is; no suspect is a trial.
            now_s: the clock.

        Returns:
            The report, in which failures are excused of suspects from before the lane came back, if others were
            answered since; and how many of the failures left in it are of suspects that can't be the trial.
        """
        self._hear_answers(report.answered, now_s)
        repeats = self._repeats(report, min(back_s, self.answered_s))
        of_no_trial = self._repeats(report, trial_sent_s) - repeats
        self._hear_failures(report.failing, now_s)
        if repeats:
            row = max(0, report.failures_in_a_row - repeats)
            report = replace(report, excused=report.excused + repeats, failures_in_a_row=row)
        return report, max(0, of_no_trial)

    def _hear_answers(self, answered: Iterable[str], now_s: float) -> None:
        for name in answered:
            self.answered_s = now_s
            self._failing.pop(name, None)

    def _repeats(self, report: LaneReport, before_s: float) -> int:
        return sum(each.against for each in report.failing if self._since_s(each) < before_s)

    def _hear_failures(self, failing: Iterable[Named], now_s: float) -> None:
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
