"""How many worker processes the fleet could use, and what keeps it from using more. Pure: the clock is an argument.

A worker has two things to give: its part of a core, and places for attempts. Reports say how much of both is in use,
and how fast attempts end. What is in use is scaled to the attempts that could end: those that are asked for, as far as
their lanes' budgets allow. So nobody has to know beforehand what an attempt costs.

- Where a limit has no room, attempts wait for it in workers. These places are not work: they count for as long as a
  request is sent ahead of its turn, and no longer.
- Where every lane that is asked has spent its budget, no worker is wanted beyond those that run: the limits are in full
  use already.
- Bulk requests may wait. They count as they end, and not as they lie in their queues.

All dispatchers hear the same reports, and say about the same: take the most.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, get_args

from msgspec import Struct

from schemas import topology
from schemas.reports import Report

from .health import LaneHealth
from .load import UNMEASURED_MS

# Of a core, and of its places, so much of a worker is used on purpose: the rest is for what comes in bursts.
CORE_USED: Final = 0.7
PLACES_USED: Final = 0.8
# An attempt that no worker takes leaves its queue after this time. So where n lie there, n ÷ 5 a second find no worker.
QUEUED_S: Final = topology.LIVE_TTL_MS / 1000
# The most by which the number of workers grows at one look: what few attempts cost says little of many.
GROWTH_MOST: Final = 2.0
# A request is sent to a worker so long before its turn, and waits there (`router.LEAD_MS`).
AHEAD_S: Final = 1.0
# The time constant of all that is measured.
SMOOTH_S: Final = 5.0
# One worker fewer is wanted only where this part of one would be left over: a number that lies on the edge stays.
SPARE: Final = 0.15
# Lanes with a lower rate are not asked for.
ASKED_PER_S: Final = 0.05
# A worker that starts uses a whole core, to load ccxt and the markets. For so long it counts with what the others use.
WARM_MS: Final = 30_000

By = Literal["demand", "budget"]
BY: Final[tuple[By, ...]] = get_args(By)


class LaneDemand(Struct, frozen=True):
    """What is asked of one lane.

    Args:
        name: its name.
        rate_per_s: attempts that end, without those that were handed back unsent.
        queued: live attempts that no worker has taken.
        held: live attempts that workers hold.
        latency_s: the usual time at the exchange.
        budget_per_s: how many attempts its limits allow; infinite where that is not known.
        spent: it took no more within the last seconds: others waited for its limits, it was paused, or set aside.
        room: how many more places it would have with one more worker; infinite where that is not known.
    """

    name: str
    rate_per_s: float = 0.0
    queued: float = 0.0
    held: float = 0.0
    latency_s: float = 0.0
    budget_per_s: float = math.inf
    spent: bool = False
    room: float = math.inf

    @property
    def asked(self) -> bool:
        """Whether anything is asked of it."""
        return self.rate_per_s > ASKED_PER_S or self.queued >= 1 or self.held >= 1

    @property
    def could_per_s(self) -> float:
        """How many attempts could end: those that do, and those that find no worker, as far as the budget allows."""
        more = 0.0 if self.spent else self.queued / QUEUED_S
        return min(self.rate_per_s + more, self.budget_per_s)

    @property
    def places(self) -> float:
        """How many places that takes, in all workers together: no more than calls and a short wait for budget fill."""
        places = self.held * _growth(self.could_per_s, self.rate_per_s)
        return min(places, self.could_per_s * (self.latency_s + AHEAD_S))

    @property
    def workers(self) -> float:
        """How many workers have so many places for it, a part of them left free."""
        return self.places / (self.room * PLACES_USED)


class Wanted(Struct, frozen=True):
    """How many worker processes are wanted.

    Args:
        count: so many, at least one.
        by: what keeps it from being more: no more is asked (`demand`), or limits have no room (`budget`).
        why: the same for people.
    """

    count: int
    by: By
    why: str


def wanted(lanes: Sequence[LaneDemand], cores: float, workers: int, before: int = 1) -> Wanted:
    """Says how many worker processes could be used.

    Args:
        lanes: what is asked of each.
        cores: how many cores all workers use together.
        workers: how many there are.
        before: the last answer: a number on the edge stays as it was.
    """
    asked = [lane for lane in lanes if lane.asked]
    rate, could = sum(lane.rate_per_s for lane in asked), sum(lane.could_per_s for lane in asked)
    fullest = max(asked, key=lambda lane: lane.workers, default=None)
    by_core = cores * _growth(could, rate) / CORE_USED
    by_places = fullest.workers if fullest else 0.0
    number = max(by_core, by_places)
    count = max(1, math.ceil(number))
    if count < before:
        count = min(before, max(1, math.ceil(number + SPARE)))
    spent = [lane.name for lane in asked if lane.spent]
    if spent and len(spent) == len(asked):
        count = min(count, max(1, workers))
    for_what = f"{fullest.name}'s attempts in flight" if fullest and by_places > by_core else "CPU"
    by: By = "budget" if spent else "demand"
    left = f"no room in the budget of {', '.join(sorted(spent)[:5])}" if spent else "no more is asked"
    return Wanted(count, by, f"for {for_what}; not more, as there is {left}" if spent else f"for {for_what}; {left}")


def _growth(could: float, does: float) -> float:
    return min(GROWTH_MOST, could / does) if does > ASKED_PER_S else 1.0


class Demand:
    """What reports say of the workers' load, from look to look."""

    def __init__(self) -> None:
        self._ended: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._cores: dict[
            str, tuple[float, float | None]
        ] = {}  # by worker: when it reported, and what it uses of a core
        # By worker, how many attempts of one lane it holds, and which lanes it serves, where it says so.
        self._places: dict[str, tuple[int, list[str]]] = {}
        self._spent_s: dict[str, float] = {}  # by lane: when it last took no more
        self._looked_s = -math.inf
        self._last = Wanted(1, "demand", "")

    def observe(self, report: Report, now_s: float) -> None:
        """Takes in a worker's report."""
        for lane in report.lanes:
            ended = lane.ok + sum(lane.failed.values()) + lane.rejected + lane.uncalled
            if ended:
                self._ended[lane.lane] = self._ended.get(lane.lane, 0) + ended
        if report.leaving:
            self._cores.pop(report.worker, None)
            self._places.pop(report.worker, None)
            return
        if report.whole and report.places:
            self._places[report.worker] = report.places, [lane.lane for lane in report.lanes]
        reported_s, cores = self._cores.get(report.worker, (now_s, None))
        if report.sent_ms - report.started_ms >= WARM_MS:
            cores = report.busy if cores is None else cores + (report.busy - cores) * _followed(now_s - reported_s)
        self._cores[report.worker] = now_s, cores

    def full(self, lanes: Iterable[LaneHealth], places: int, now_s: float) -> list[str]:
        """The lanes whose queues may hold what workers have no places for.

        Args:
            lanes: what is known of the lanes.
            places: how many attempts of one lane a worker holds that does not say so.
            now_s: the monotonic clock.
        """
        held = self._held_at_most()
        return [
            lane.name
            for lane in lanes
            if lane.load.outstanding >= max(1.0, held.get(lane.name, lane.workers(now_s) * places) * PLACES_USED)
        ]

    def _held_at_most(self) -> dict[str, int]:
        """How many attempts all workers hold together at most, by the lanes that they serve."""
        held: dict[str, int] = {}
        for places, lanes in self._places.values():
            for lane in lanes:
                held[lane] = held.get(lane, 0) + places
        return held

    def look(
        self,
        lanes: Mapping[str, LaneHealth],
        queued: Mapping[str, int],
        places: int,
        silent_after_s: float,
        now_s: float,
        now_ms: int,
    ) -> Wanted:
        """Says how many workers are wanted now.

        Args:
            lanes: what is known of the lanes.
            queued: what lies in the queues of those that are full.
            places: how many attempts of one lane a worker holds that does not say so.
            silent_after_s: a worker that has not reported for this time is gone.
            now_s: the monotonic clock.
            now_ms: the wall clock.
        """
        self._cores = {name: seen for name, seen in self._cores.items() if seen[0] >= now_s - silent_after_s}
        demands = self.demands(lanes, queued, places, now_s, now_ms)
        warm = [cores for _, cores in self._cores.values() if cores is not None]
        cores = sum(warm) / len(warm) * len(self._cores) if warm else 0.0
        self._last = wanted(demands, cores, len(self._cores), self._last.count)
        return self._last

    def demands(
        self, lanes: Mapping[str, LaneHealth], queued: Mapping[str, int], places: int, now_s: float, now_ms: int
    ) -> list[LaneDemand]:
        """What is asked of each lane, since the last call; the arguments are those of `look`."""
        passed_s = max(0.001, now_s - self._looked_s)
        self._looked_s = now_s
        part = _followed(passed_s)
        self._rates = _smooth(self._rates, {name: self._ended.get(name, 0) / passed_s for name in lanes}, part)
        self._held = _smooth(self._held, {name: lane.load.outstanding for name, lane in lanes.items()}, part)
        self._ended.clear()
        self._places = {name: said for name, said in self._places.items() if name in self._cores}
        held, workers = self._held_at_most(), max(1, len(self._cores))
        return [
            LaneDemand(
                name,
                rate_per_s=self._rates[name],
                queued=queued.get(name, 0),
                held=self._held[name],
                latency_s=(lane.load.usual_ms or UNMEASURED_MS) / 1000,
                budget_per_s=1000 / lane.load.budget_ms if lane.load.budget_ms else math.inf,
                spent=self._spent(lane, now_s, now_ms),
                # Where each worker serves a part of the lanes, one more has a part of its places for this one.
                room=held[name] / workers if name in held else places,
            )
            for name, lane in lanes.items()
        ]

    def _spent(self, lane: LaneHealth, now_s: float, now_ms: int) -> bool:
        """Whether its limits had no room lately. A crowd in workers is no sign of that: they may be too few."""
        if not lane.serving or max(lane.paused_until_ms, lane.load.waiting.last_ms) > now_ms:
            self._spent_s[lane.name] = now_s
        return now_s - self._spent_s.get(lane.name, -math.inf) <= SMOOTH_S


def _followed(passed_s: float) -> float:
    return 1 - math.exp(-max(0.0, passed_s) / SMOOTH_S)


def _smooth(before: Mapping[str, float], now: Mapping[str, float], part: float) -> dict[str, float]:
    return {name: (old := before.get(name, 0.0)) + (value - old) * part for name, value in now.items()}
