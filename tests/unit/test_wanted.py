"""How many workers are wanted: what they use, scaled to what could end, and never more than the budgets allow."""

import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.health import LaneHealth
from dispatcher.wanted import GROWTH_MOST, WARM_MS, Demand, LaneDemand, Wanted, wanted
from schemas.config import DispatcherConfig
from schemas.messages import Bound, ErrorCode, Request
from schemas.reports import LaneReport, Report

PLACES = 100
asked_of = functools.partial(LaneDemand, room=PLACES)
BUSY = asked_of("okx", rate_per_s=50, held=10, latency_s=0.2, budget_per_s=500)
# At its limit: all places are taken by what waits for budget.
SPENT = LaneDemand(
    "okx", room=PLACES, rate_per_s=10, queued=5_000, held=100, latency_s=0.2, budget_per_s=10, spent=True
)
FULL = asked_of("htx", rate_per_s=100, queued=2_000, held=100, latency_s=1.0, budget_per_s=1_000)


@pytest.mark.parametrize(
    ("lanes", "cores", "workers", "before", "count", "by"),
    [
        ([], 0.0, 0, 1, 1, "demand"),  # with no worker at all: one, to open the lanes
        ([asked_of("okx")], 0.2, 4, 1, 1, "demand"),  # idle ones use a little
        ([BUSY], 0.3, 1, 1, 1, "demand"),
        ([BUSY], 0.8, 1, 1, 2, "demand"),  # one is too full of work
        ([BUSY], 2.7, 3, 3, 4, "demand"),
        ([BUSY], 2.7, 4, 4, 4, "demand"),
        ([BUSY], 1.3, 4, 4, 3, "demand"),  # 1.86, and the edge of 2 is too near
        ([BUSY], 1.2, 4, 4, 2, "demand"),
        ([FULL], 0.1, 1, 1, 3, "demand"),  # places: twice as much at most, of which a fifth stays free
        ([FULL], 0.1, 2, 2, 3, "demand"),
        ([SPENT], 0.1, 1, 1, 1, "budget"),  # 5,000 requests behind a spent limit call for nobody
        ([SPENT], 0.9, 1, 1, 1, "budget"),
        ([SPENT], 0.9, 3, 3, 2, "budget"),
        ([SPENT, FULL], 0.2, 1, 1, 3, "budget"),
        # Its places are full of what waits for budget, and no line was seen yet.
        (
            [asked_of("okx", rate_per_s=10, queued=900, held=100, budget_per_s=12)],
            0.2,
            1,
            1,
            1,
            "demand",
        ),
        ([asked_of("okx", held=100, queued=900)], 0.1, 1, 1, 2, "demand"),  # none ends: it hangs
        (
            [asked_of("okx", rate_per_s=200, held=90, budget_per_s=100)],
            0.9,
            1,
            1,
            1,
            "demand",
        ),  # a burst
    ],
)
def test_so_many_are_wanted(
    lanes: list[LaneDemand], cores: float, workers: int, before: int, count: int, by: str
) -> None:
    found = wanted(lanes, cores, workers, before)
    assert (found.count, found.by) == (count, by), found


def test_it_says_what_for_and_why_not_more() -> None:
    assert wanted([BUSY], 0.8, 1).why == "for CPU; no more is asked"
    told = wanted([SPENT, FULL], 0.2, 1).why
    assert told == "for htx's attempts in flight; not more, as there is no room in the budget of okx"


amounts = st.floats(0, 1e6)
demands = st.builds(
    LaneDemand,
    st.sampled_from(["okx", "htx", "kraken"]),
    rate_per_s=amounts,
    queued=st.floats(0, 50_000),
    held=st.floats(0, 10_000),
    latency_s=st.floats(0, 30),
    budget_per_s=st.floats(0.001, 1e6) | st.just(math.inf),
    spent=st.booleans(),
    room=st.floats(0.1, 1_000),
)
some = st.lists(demands, max_size=4)
numbers = st.integers(0, 50)


@given(some, st.floats(0, 50), numbers, st.integers(1, 50))
def test_it_is_never_more_than_the_budgets_and_the_growth_allow(
    lanes: list[LaneDemand], cores: float, workers: int, before: int
) -> None:
    found = wanted(lanes, cores, workers, before)
    assert found.count >= 1
    held = max((lane.held / lane.room for lane in lanes if lane.asked), default=0.0)
    most = max(cores * GROWTH_MOST / 0.7, held * GROWTH_MOST / 0.8)
    assert found.count <= math.ceil(most) + 1
    asked = [lane for lane in lanes if lane.asked]
    if asked and all(lane.spent for lane in asked):
        assert found.count <= max(1, workers)
        assert found.by == "budget"
    for lane in asked:
        assert lane.could_per_s <= lane.budget_per_s
        assert lane.places <= lane.budget_per_s * (lane.latency_s + 1.0)


@given(some, st.floats(0, 50), numbers)
def test_the_answer_given_again_stays_as_it_is(lanes: list[LaneDemand], cores: float, workers: int) -> None:
    first = wanted(lanes, cores, workers)
    assert wanted(lanes, cores, workers, first.count) == first


@given(demands, st.floats(0, 1_000), st.floats(0, 10))
def test_what_waits_for_a_spent_budget_changes_nothing(lane: LaneDemand, more: float, cores: float) -> None:
    def behind(queued: float) -> Wanted:
        return wanted([replace(lane, spent=True, held=5.0, queued=queued)], cores, 2)

    assert behind(lane.queued + more) == behind(lane.queued)


class Told:
    """A lane, and what its workers report once a second."""

    def __init__(self) -> None:
        self.lane = LaneHealth("okx", 1.0, DispatcherConfig())
        self.demand = Demand()
        self.now_s = 0.0

    def hear(self, lane: LaneReport, *, busy: float, workers: int = 1, age_ms: int = 2 * WARM_MS) -> None:
        for number in range(workers):
            report = Report(f"w-{number}", age_ms, [lane], busy=busy)
            self.lane.observe(report.worker, lane, self.now_s)
            self.demand.observe(report, self.now_s)

    def look(self, queued: int = 0) -> Wanted:
        now_ms = int(self.now_s * 1000)
        return self.demand.look({"okx": self.lane}, {"okx": queued}, PLACES, 1.5, self.now_s, now_ms)

    def pass_s(
        self, seconds: int, lane: LaneReport, *, busy: float, workers: int = 1, age_ms: int = 2 * WARM_MS
    ) -> Wanted:
        found = self.look()
        for _ in range(seconds):
            self.now_s += 1
            self.hear(lane, busy=busy, workers=workers, age_ms=age_ms)
            found = self.look()
        return found


OK = LaneReport("okx", ok=50, in_flight=20, exchange_ms=100.0, budget_ms=5.0)


def test_workers_that_are_full_of_work_call_for_more() -> None:
    told = Told()
    assert told.pass_s(30, OK, busy=0.3).count == 1
    assert told.pass_s(30, OK, busy=0.95).count == 2
    assert told.pass_s(30, OK, busy=0.5, workers=2).count == 2
    assert told.pass_s(60, OK, busy=0.2, workers=2).count == 1


def test_a_worker_that_loads_ccxt_calls_for_no_other() -> None:
    told = Told()
    assert told.pass_s(20, OK, busy=1.0, age_ms=5_000).count == 1
    assert told.pass_s(20, OK, busy=0.2, age_ms=2 * WARM_MS).count == 1


def test_one_that_left_and_one_that_fell_silent_count_no_more() -> None:
    told = Told()
    assert told.pass_s(30, OK, busy=0.9, workers=3).count == 4
    told.demand.observe(Report("w-2", 2 * WARM_MS, [], leaving=True), told.now_s)
    told.now_s += 5
    assert told.look().count == 1


def test_a_lane_whose_places_are_taken_is_looked_into() -> None:
    told = Told()
    told.pass_s(3, OK, busy=0.1)
    assert told.demand.full([told.lane], PLACES, told.now_s) == []
    told.pass_s(1, LaneReport("okx", ok=50, in_flight=90), busy=0.1)
    assert told.demand.full([told.lane], PLACES, told.now_s) == ["okx"]


def test_workers_that_serve_a_part_of_the_lanes_have_the_places_that_they_say() -> None:
    """The configuration's would be PLACES. Each holds 400 of its one lane, and together that is twice what is held."""
    told = Told()
    held = LaneReport("okx", ok=400, in_flight=180, exchange_ms=400.0, budget_ms=1.0)
    for _ in range(30):
        told.now_s += 1
        for number in range(2):
            report = Report(f"w-{number}", 2 * WARM_MS, [held], busy=0.1, places=400)
            told.lane.observe(report.worker, held, told.now_s)
            told.demand.observe(report, told.now_s)
        assert told.demand.full([told.lane], PLACES, told.now_s) == []
        assert told.look().count <= 2
    # Two more, which serve others: one more worker of this kind would be half a worker for this lane.
    for number in (2, 3):
        told.demand.observe(Report(f"w-{number}", 2 * WARM_MS, [LaneReport("htx")], busy=0.1, places=400), told.now_s)
    (lane,) = told.demand.demands({"okx": told.lane}, {}, PLACES, told.now_s, 0)
    assert lane.room == 200


def test_a_line_for_budget_is_a_spent_budget_and_stays_so_for_seconds() -> None:
    told = Told()
    full = LaneReport("okx", ok=50, in_flight=100, exchange_ms=100.0, budget_ms=5.0)
    assert told.pass_s(30, full, busy=0.1).by == "demand"
    assert told.look(queued=5_000).count > 1
    ticker = Request("fetch_ticker", deadline_ms=10**12)
    now_ms = int(told.now_s * 1000)
    told.lane.refused(ticker, now_ms + 3_000, Bound("ip", now_ms + 3_000, 100.0), now_ms)
    told.now_s += 1
    told.hear(full, busy=0.1)
    assert told.look(queued=5_000) == Wanted(
        1, "budget", "for okx's attempts in flight; not more, as there is no room in the budget of okx"
    )
    told.now_s += 1
    assert told.look(queued=5_000).by == "budget"
    assert told.pass_s(12, full, busy=0.1).by == "demand"


def test_failures_and_refusals_are_work_too_and_what_is_handed_back_is_not() -> None:
    told = Told()
    failing = LaneReport(
        "okx", failed={ErrorCode.RATE_LIMITED: 30}, rejected=20, uncalled=10, throttled=500, in_flight=90
    )
    told.pass_s(30, failing, busy=0.1)
    demand = asked_of("okx", rate_per_s=60.0, held=90.0, latency_s=0.5)
    assert told.look(queued=10).count == wanted([demand], 0.1, 1).count == 2
