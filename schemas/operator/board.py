"""What `top` shows at a moment, from pictures of the fleet. Pure: the clocks are arguments."""

import copy
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from .. import topology
from ..status import SharedAnswers
from .looking import why_not
from .picture import Counts, Picture
from .shapes import BucketView, LaneView, TopLane, TopShared, TopView

# Rates are of so long: steady enough to read, and soon true again after a change.
WINDOW_S: Final = 5.0
# Dispatchers say every two seconds what came of requests that may share answers.
SHARED_WINDOW_S: Final = 10.0
NOTHING: Final = Counts()

# How lanes can be sorted, by the names that are shown; the second word says whether the largest comes first.
SORTS: Final[Mapping[str, tuple[Callable[[TopLane], Any], bool]]] = {
    "lane": (lambda lane: lane.lane, False),
    "rate": (lambda lane: lane.ok_per_s, True),
    "errors": (lambda lane: lane.failed_per_s, True),
    "latency": (lambda lane: lane.latency_ms, True),
    "budget": (lambda lane: lane.used_part, True),
    "waiting": (lambda lane: lane.waiting + lane.queued, True),
}


class Board:
    """Rates from counts that only grow.

    Args:
        picture: counts what workers report.
        now_s: the monotonic clock.
    """

    def __init__(self, picture: Picture, now_s: float) -> None:
        self._picture = picture
        self._past: deque[tuple[float, dict[str, Counts]]] = deque([(now_s, {})])
        self._shared: deque[tuple[float, dict[str, SharedAnswers]]] = deque([(now_s, picture.shared())])

    def view(self, now_s: float, now_ms: int) -> TopView:
        """What there is to show now."""
        picture = self._picture
        picture.forget_silent(now_s)
        while len(self._past) > 1 and self._past[1][0] <= now_s - WINDOW_S:
            self._past.popleft()
        fullest: dict[str, BucketView] = {}
        for bucket in picture.bucket_views():
            if bucket.used_part > (fullest[bucket.lane].used_part if bucket.lane in fullest else 0.0):
                fullest[bucket.lane] = bucket
        lanes = [self._lane(lane, fullest.get(lane.lane), now_s) for lane in picture.lanes()]
        self._past.append((now_s, copy.deepcopy(dict(picture.counts))))
        of_lanes = {topology.work_name(lane.lane, bulk=bulk) for lane in lanes for bulk in (False, True)}
        queues = [each for each in picture.queues.values() if each.messages and each.name not in of_lanes]
        return TopView(
            now_ms,
            picture.rabbitmq,
            picture.redis,
            picture.dispatchers(),
            len(picture.reports),
            lanes,
            queues,
            self._sharing(now_s),
        )

    def _sharing(self, now_s: float) -> TopShared:
        """Rates of what became of requests that may share answers; a dispatcher that has just come counts from then."""
        while len(self._shared) > 1 and self._shared[1][0] <= now_s - SHARED_WINDOW_S:
            self._shared.popleft()
        begun_s, then = self._shared[0]
        passed_s, now = max(now_s - begun_s, 0.001), self._picture.shared()
        self._shared.append((now_s, now))

        def rate(name: str) -> float:
            counts = (getattr(each, name) - getattr(then.get(process, each), name) for process, each in now.items())
            return round(sum(max(int(count), 0) for count in counts) / passed_s, 1)

        return TopShared(rate("asked") + rate("alone"), rate("waited"), rate("cached"))

    def _lane(self, lane: LaneView, fullest: BucketView | None, now_s: float) -> TopLane:
        begun_s, then = self._past[0]
        passed_s = max(now_s - begun_s, 0.001)
        before, counts = then.get(lane.lane, NOTHING), self._picture.counts.get(lane.lane, NOTHING)
        ok = counts.ok - before.ok
        failed = counts.failed + counts.rejected - before.failed - before.rejected
        queued = [self._picture.queues.get(topology.work_name(lane.lane, bulk=bulk)) for bulk in (False, True)]
        return TopLane(
            lane.lane,
            lane.state,
            round(ok / passed_s, 1),
            round(failed / passed_s, 1),
            round((counts.throttled - before.throttled) / passed_s, 1),
            round((counts.exchange_ms - before.exchange_ms) / ok, 1) if ok else 0.0,
            lane.in_flight,
            lane.waiting,
            sum(each.messages for each in queued if each is not None),
            lane.share,
            fullest.bucket if fullest else "",
            fullest.used_part if fullest else 0.0,
            why_not(lane),
        )


def ordered(lanes: list[TopLane], sort: str, *, backwards: bool = False) -> list[TopLane]:
    """The lanes in one of the `SORTS`; equal ones by name."""
    key, largest_first = SORTS[sort]
    by_name = sorted(lanes, key=lambda lane: lane.lane)
    return sorted(by_name, key=key, reverse=largest_first is not backwards)
