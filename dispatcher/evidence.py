"""What speaks against a lane: failures in a row, a high error rate, slow answers, calls without an answer. Pure."""

import math
from collections.abc import Sequence
from typing import Final

from schemas.config import DispatcherConfig
from schemas.messages import EXCHANGE_FAILURES, ErrorCode
from schemas.reports import LaneReport

# Calls are counted over between a half and the whole of this time.
WINDOW_S: Final = 3.0
# An error rate of fewer calls than this takes nothing from a lane's share.
RATE_CALLS: Final = 30
# The error rate at which good calls exactly offset failures, as a part of the configured one. At a higher rate failures
# accumulate. The lane is set aside with so many of them, or so many for each call of the window if that is more.
BALANCED: Final = 0.75
LEFT_OVER: Final = 2.3
LEFT_OVER_PART: Final = 0.056
# "In maintenance" is believed after so many of these answers in a row.
MAINTENANCE_ROW: Final = 2
# After so long without a good answer, failures that look like the requests' own fault may be the lane's after all.
UNPROVEN_S: Final = 3.0
# The time constant with which slowness is averaged, and the number of calls that count as so much time.
SLOWNESS_S: Final = 1.0
SLOWNESS_CALLS: Final = 5
LEAST_SLOWNESS: Final = 0.01
# A lane with a lower latency than this is never slow.
SLOW_FROM_MS: Final = 50.0
# A call is overdue after so many latencies. So many overdue calls make a lane stalled, when no worker has had an answer
# for so many latencies.
OVERDUE_LATENCIES: Final = 2
STALLED_CALLS: Final = 3
STALLED_LATENCIES: Final = 4


class Window:
    """Good and bad calls of the last seconds, in two halves: the one that is being filled, and the one before it."""

    def __init__(self) -> None:
        self._halves = [(0, 0), (0, 0)]
        self._until_s = 0.0

    def add(self, good: int, bad: int, now_s: float) -> None:
        """Counts calls."""
        if now_s >= self._until_s:
            late = now_s >= self._until_s + WINDOW_S / 2
            self._halves = [(0, 0), (0, 0) if late else self._halves[0]]
            self._until_s = now_s + WINDOW_S / 2
        goods, bads = self._halves[0]
        self._halves[0] = goods + good, bads + bad

    def total(self) -> tuple[int, int]:
        """All calls, and the bad ones among them."""
        (good, bad), (older_good, older_bad) = self._halves
        return good + bad + older_good + older_bad, bad + older_bad


class Failures:
    """A lane's failed calls, beside its good ones.

    Attributes:
        row: failures of all workers since the exchange last answered a call.
    """

    def __init__(self) -> None:
        self.row = 0
        self._good_s = -math.inf  # when the last good answer was reported; the first report until then
        self._excused = False  # whether a failure was excused since
        self._row_maintenance = 0
        self._window = Window()
        self._left_over = 0.0

    def observe(self, report: LaneReport, ill: int, error_rate: float, now_s: float) -> None:
        """Takes in a worker's report.

        Args:
            report: of this lane.
            ill: the failures in it that speak against the lane.
            error_rate: the configured one.
            now_s: the clock.
        """
        if report.ok or self._good_s == -math.inf:
            self._good_s, self._excused = now_s, False
        self._excused = self._excused or report.excused > 0
        self._count_row(report, ill)
        self._window.add(report.ok, ill, now_s)
        self._weigh(report.ok, ill, error_rate)

    def _count_row(self, report: LaneReport, ill: int) -> None:
        maintenance = report.failed.get(ErrorCode.MAINTENANCE, 0)
        if report.ok or report.rejected or len(report.failed) > len(report.failed.keys() & EXCHANGE_FAILURES):
            # The exchange answered: the row is that of the failures since then.
            self.row = report.failures_in_a_row
            self._row_maintenance = min(self.row, maintenance)
        else:
            self.row += ill
            # Excused failures are not in the row.
            self._row_maintenance = min(self.row, self._row_maintenance + maintenance)

    def _weigh(self, good: int, ill: int, error_rate: float) -> None:
        """Offsets failures with good calls, and adds up what is left over.

        This is Page's cumulative sum test (Biometrika 41, 1954). It detects a higher rate in the fewest calls,
        however many good calls came before, and at any number of calls a second.
        """
        balanced = BALANCED * error_rate
        pardoned = good * balanced / (1 - balanced)
        # The order within the report is not known: half of the good calls are taken to be first, the others last.
        self._left_over = max(0.0, max(0.0, self._left_over - pardoned / 2) + ill - pardoned / 2)

    def forget(self) -> None:
        """The lane has come back: calls from before say nothing of it."""
        self._window = Window()
        self._left_over = 0.0

    def total(self) -> tuple[int, int]:
        """All calls of the last seconds, and the failed ones among them."""
        return self._window.total()

    def unproven(self, now_s: float) -> bool:
        """Whether only a probe can tell how the lane is: failures were excused, and no request is answered."""
        return self._excused and now_s >= self._good_s + UNPROVEN_S

    @property
    def in_maintenance(self) -> bool:
        """Whether the exchange says so, more than once in a row."""
        return self.row >= MAINTENANCE_ROW and self._row_maintenance == self.row

    @property
    def too_many(self) -> bool:
        """Whether the error rate is too high."""
        return self._left_over >= max(LEFT_OVER, LEFT_OVER_PART * self.total()[0])

    def part_left(self, config: DispatcherConfig) -> float:
        """The part of its share that the error rate leaves to a lane, 0 to 1."""
        calls, failures = self.total()
        return max(0.0, 1 - failures / calls / config.error_rate) if calls >= RATE_CALLS and failures > 1 else 1.0


class Slowness:
    """A lane's latency relative to its own baseline, averaged."""

    def __init__(self) -> None:
        self._log = 0.0
        self._answered_s = -math.inf

    @property
    def times(self) -> float:
        """The recent geometric mean."""
        return math.exp(self._log)

    def observe(self, report: LaneReport, now_s: float) -> None:
        """Takes in a worker's report."""
        if not report.ok:
            return
        # The time since any worker reported an answer: of many workers most report none.
        passed = min((now_s - self._answered_s) / SLOWNESS_S, report.ok / SLOWNESS_CALLS)
        self._answered_s = now_s
        self._log += (1 - math.exp(-passed)) * (math.log(max(report.slowness, LEAST_SLOWNESS)) - self._log)


class Evidence:
    """All that speaks against a lane, from the reports of its workers.

    Attributes:
        failures: its failed calls.
    """

    def __init__(self) -> None:
        self.failures = Failures()
        self._slowness = Slowness()
        self._answered_s = -math.inf

    def observe(self, report: LaneReport, ill: int, error_rate: float, now_s: float) -> None:
        """Takes in a worker's report; arguments as in `Failures.observe`."""
        if report.ok or report.rejected or report.failed.keys() - {ErrorCode.EXCHANGE_TIMEOUT}:
            self._answered_s = now_s
        self.failures.observe(report, ill, error_rate, now_s)
        self._slowness.observe(report, now_s)

    def forget(self) -> None:
        """The lane has come back: its calls from before say nothing of it."""
        self.failures.forget()
        self._slowness = Slowness()

    def slowness(self, latency_ms: float) -> float:
        """Latency relative to the lane's own baseline; 1 for a lane that is fast anyway."""
        return self._slowness.times if latency_ms >= SLOW_FROM_MS else 1.0

    def stalled(self, reports: Sequence[LaneReport], expected_ms: float, stalled_after_s: float, now_s: float) -> str:
        """Why the lane counts as stalled, for people: several calls are overdue, and no worker had an answer; or empty.

        Args:
            reports: the last report of each worker.
            expected_ms: how long its calls are taken to need.
            stalled_after_s: the shortest silence that counts.
            now_s: the clock.
        """
        overdue = [each for each in reports if each.unanswered and each.silent_ms >= OVERDUE_LATENCIES * expected_ms]
        unanswered = sum(report.unanswered for report in overdue)
        if unanswered < STALLED_CALLS:
            return ""
        silent_ms = min((now_s - self._answered_s) * 1000, max(report.silent_ms for report in overdue))
        if silent_ms < max(stalled_after_s * 1000, STALLED_LATENCIES * expected_ms):
            return ""
        return f"{unanswered} calls have no answer, none came for {silent_ms / 1000:.1f} s"
