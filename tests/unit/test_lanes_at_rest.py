"""Lanes at rest: workers leave them out of most reports, and dispatchers and commands know of them all the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.circuit import State
from dispatcher.report_reader import ReportReader
from dispatcher.router import GONE_S, Router
from schemas.messages import Attempt, ErrorCode, Outcome, Request, Try, encode
from schemas.operator.picture import Picture
from schemas.reports import BucketReport, LaneReport, Report, decode_report
from tests.support.lane_reports import CONFIG, bad, failing, new, ok
from tests.support.routers import WEIGHTS, config
from workers.budget.grants import Use
from workers.budget.tally import Tallies
from workers.exchange.latency import Answering
from workers.reports import METHODS_EVERY, LanePause, Reports

BEFORE_S = CONFIG.silent_after_s - 0.1


@pytest.fixture
def reports() -> Reports:
    """Yield the reports of a worker with two lanes that have been reported once."""
    reports, lanes = Reports(), ["okx", "kraken"]
    for lane in lanes:
        reports.add_lane(lane, ["fetch_time"], Answering(), Tallies(lane))
        assert reports.wants_look(lane, paused=False)
    assert reports.whole()
    assert named(reports.make({lane: {} for lane in lanes}, {}, {}, {}, {}, whole=True)) == lanes
    assert not reports.whole()
    return reports


def made(
    reports: Reports,
    *,
    whole: bool = False,
    used: float | None = None,
    pause: LanePause | None = None,
    own_part: float | None = None,
) -> list[LaneReport]:
    """The next report; `used`, `pause` and `own_part` are OKX's. Without `used` Redis was not asked."""
    uses = {} if used is None else {"okx": {"of_20": Use(used, 1.0)} if used else {}}
    own_parts = {} if own_part is None else {"okx": own_part}
    return reports.make(uses, {"okx": pause} if pause else {}, {}, own_parts, {}, whole=whole)


def named(lanes: list[LaneReport]) -> list[str]:
    return [each.lane for each in lanes]


def test_a_lane_at_rest_is_left_out_until_something_happens(reports: Reports) -> None:
    assert not reports.wants_look("okx", paused=False)
    assert made(reports) == []
    reports.begin("okx", bulk=False)
    assert reports.wants_look("okx", paused=False)
    for _ in range(2):  # as long as it holds an attempt
        assert [(each.lane, each.in_flight) for each in made(reports)] == [("okx", 1)]
    attempt = Attempt(request=Request(method="fetch_time", id="1"), lane="okx", number=0, received_ms=0)
    reports.end(Try("okx", Outcome.OK, exchange_ms=5.0), attempt, 1, 0.0)
    reports.leave("okx", bulk=False)
    assert [(each.lane, each.ok, each.in_flight) for each in made(reports)] == [("okx", 1, 0)]
    assert not reports.wants_look("okx", paused=False)
    assert made(reports) == []
    reports.list_all()
    assert reports.wants_look("okx", paused=False)  # until all that it did has left its window
    assert not reports.wants_look("kraken", paused=False)
    assert named(made(reports, whole=True, used=0.0)) == ["okx", "kraken"]
    reports.list_all()
    assert not reports.wants_look("okx", paused=False)
    assert reports.wants_look("okx", paused=True)  # who else would see its end?


def test_a_lane_whose_budget_is_in_use_is_not_at_rest(reports: Reports) -> None:
    for used in (0.5, 0.5, 0.1):
        assert named(made(reports, used=used)) == ["okx"]
        assert made(reports) == []
        reports.list_all()
        assert reports.wants_look("okx", paused=False)
    assert named(made(reports, used=0.0)) == ["okx"]
    assert not reports.wants_look("okx", paused=False)
    assert made(reports) == []


def test_a_new_state_is_told_at_once(reports: Reports) -> None:
    pause = LanePause(5_000, "header")
    assert named(made(reports, pause=pause)) == ["okx"]
    assert made(reports, pause=pause) == []
    assert [each.own_part for each in made(reports, pause=pause, own_part=0.5)] == [0.5]
    assert made(reports, pause=pause, own_part=0.5) == []
    assert [each.paused_until_ms for each in made(reports, own_part=0.5)] == [0]


def test_all_are_listed_again_when_the_last_report_was_lost_or_a_lane_has_gone(reports: Reports) -> None:
    reports.list_all()
    assert reports.whole()
    assert named(made(reports, whole=True)) == ["okx", "kraken"]
    reports.drop_lane("okx")
    assert reports.whole()
    assert named(made(reports, whole=True)) == ["kraken"]


def test_methods_are_in_some_of_the_reports_of_all_lanes(reports: Reports) -> None:
    told = [made(reports, whole=True)[0].methods is not None for _ in range(2 * METHODS_EVERY)]
    assert told.count(True) == 2
    reports.add_lane("binance", [], Answering(), Tallies("binance"))
    assert all(each.methods is not None for each in made(reports, whole=True))


def test_a_lane_that_is_not_listed_is_still_served() -> None:
    health = new()
    health.observe("w1", ok(), 0.0)
    health.observe("w1", LaneReport("okx"), 0.2)
    for number in range(1, 11):
        health.beat("w1", number * BEFORE_S)
    last_s = 10 * BEFORE_S
    assert health.state(last_s) is State.HEALTHY
    assert health.workers(last_s) == 1
    assert health.silent(last_s + CONFIG.silent_after_s + 0.1)


def test_the_beat_of_one_that_never_listed_it_says_nothing() -> None:
    health = new()
    health.beat("w1", 0.0)
    assert health.silent(0.1)


def test_time_goes_on_for_a_lane_that_is_not_listed() -> None:
    """In its slow start, and after attempts that no report shows any more."""
    health = failing()
    assert health.sent(CONFIG.trial_after_s)
    health.observe("w1", LaneReport("okx", ok=1, trials_ok=1, exchange_ms=100.0), CONFIG.trial_after_s + 0.2)
    assert health.state(CONFIG.trial_after_s + 0.2) is State.HEALTHY
    before, now_s = health.share, CONFIG.trial_after_s + 0.2
    while now_s < CONFIG.trial_after_s + CONFIG.slow_start_s + 1.0:
        now_s += 0.2
        health.beat("w1", now_s)
    assert health.share > before
    assert health.share == pytest.approx(health.weight)

    health.sent(now_s)
    assert health.load.outstanding == 1
    health.beat("w1", now_s + 0.2)
    health.beat("w1", now_s + 0.5)
    assert health.load.outstanding == 0


def test_what_was_counted_once_is_not_counted_again() -> None:
    """Where the report got lost that said of nothing more, the last one that came is of failures."""
    health = new()
    health.observe("w1", bad(2, 2), 0.0)
    health.load.sent()
    for number in range(1, 20):
        health.beat("w1", number * 0.2)
    assert health.state(3.8) is State.HEALTHY


def test_the_state_at_rest_has_no_counts() -> None:
    full = LaneReport(
        "okx",
        ok=1,
        failed={ErrorCode.INTERNAL: 1},
        failures_in_a_row=2,
        in_flight=3,
        buckets={"of_20": BucketReport(used=0.5)},
        paused_until_ms=4,
        paused_by="header",
        lifted_ms=5,
        budget_ms=6.0,
        own_part=0.5,
        methods=["fetch_time"],
    )
    assert full.at_rest() == LaneReport(
        "okx", failures_in_a_row=2, paused_until_ms=4, paused_by="header", lifted_ms=5, budget_ms=6.0, own_part=0.5
    )


def told(
    router: Router, now_s: float, *lanes: str, whole: bool = True, worker: str = "w1", leaving: bool = False
) -> None:
    router.observe(Report(worker, 0, [LaneReport(each) for each in lanes], leaving=leaving, whole=whole), now_s)


def silent(router: Router, now_s: float) -> set[str]:
    return {name for name, health in router.health.items() if health.silent(now_s)}


def test_a_router_keeps_the_lanes_of_a_worker_until_it_lists_others() -> None:
    router = Router(config(WEIGHTS))
    told(router, 0.0, "okx", "binance")
    for number in range(1, 6):
        told(router, number * BEFORE_S, "okx", whole=False)
    last_s = 5 * BEFORE_S
    assert silent(router, last_s) == {"kraken.eu", "kraken.us"}
    told(router, last_s, "okx")
    for number in (1, 2):
        told(router, last_s + number * BEFORE_S, whole=False)
    last_s += 2 * BEFORE_S
    assert silent(router, last_s) == {"binance", "kraken.eu", "kraken.us"}
    told(router, last_s, "okx", leaving=True)
    told(router, last_s, whole=False)
    assert "okx" in silent(router, last_s + BEFORE_S)


def read_from(reader: ReportReader, worker: str, *lanes: LaneReport, **fields: Any) -> Report:
    report = Report(worker, 5, list(lanes), **fields)
    found = reader.read(encode(report))
    assert found == report
    return found


def test_the_same_lanes_are_read_once() -> None:
    reader, lanes = ReportReader(), (LaneReport("okx"), LaneReport("kraken", budget_ms=5.0))
    first = read_from(reader, "w1", *lanes)
    assert read_from(reader, "w1", *lanes, busy=0.5).lanes is first.lanes
    assert read_from(reader, "w2", *lanes).lanes is not first.lanes
    with_methods = read_from(reader, "w1", LaneReport("okx", methods=["fetch_time"]), lanes[1])
    assert read_from(reader, "w1", LaneReport("okx", methods=["fetch_time"]), lanes[1]).lanes is not with_methods.lanes
    assert read_from(reader, "w1", *lanes).lanes is first.lanes
    read_from(reader, "w1", LaneReport("okx", ok=1), whole=False)
    other = read_from(reader, "w1", lanes[0])
    assert read_from(reader, "w1", *lanes).lanes is not first.lanes
    assert read_from(reader, "w1", lanes[0]).lanes is not other.lanes
    read_from(reader, "w1", *lanes, leaving=True)
    for number in range(1000):
        read_from(reader, f"x{number}", *lanes)
    assert len(reader._last) < 1000  # pyright: ignore[reportPrivateUsage]


WORKERS = st.sampled_from(["w1", "w2"])
STEPS = st.one_of(
    *[st.tuples(st.just("whole"), WORKERS, st.sampled_from([["okx"], ["okx", "binance"]]))] * 4,
    st.tuples(st.sampled_from(["news", "methods"]), WORKERS, st.just("okx")),
    st.tuples(st.sampled_from(["nothing", "leaves", "configure"]), WORKERS, st.none()),
)


@given(st.lists(st.tuples(STEPS, st.sampled_from([0.2, 0.2, 2.0])), min_size=10, max_size=40))
def test_lists_that_are_read_once_say_what_they_said_each_time(steps: list[tuple[Any, float]]) -> None:
    """A router that sees the very same list again knows what one knows that reads each report by itself."""
    once, anew, reader, now_s = Router(config(WEIGHTS)), Router(config(WEIGHTS)), ReportReader(), 0.0
    for (what, worker, lanes), passed_s in steps:
        now_s += passed_s
        if what == "configure":
            once.configure(config(WEIGHTS))
            anew.configure(config(WEIGHTS))
            continue
        said: list[LaneReport] = []
        match what:
            case "whole":
                said = [LaneReport(each) for each in lanes]
            case "news":
                said = [LaneReport(lanes, ok=1, exchange_ms=5.0)]
            case "methods":
                said = [LaneReport(each, methods=["fetch_time"] if each == lanes else None) for each in WEIGHTS]
            case _:
                pass
        body = encode(Report(worker, 0, said, leaving=what == "leaves", whole=what in ("whole", "methods", "leaves")))
        once.observe(reader.read(body), now_s)
        anew.observe(decode_report(body), now_s)
        for name, health in once.health.items():
            other = anew.health[name]
            for moment_s in (now_s, now_s + BEFORE_S, now_s + CONFIG.silent_after_s + 0.01):
                assert health.workers(moment_s) == other.workers(moment_s)
                assert health.state(moment_s) is other.state(moment_s)
            assert (health.methods, health.share) == (other.methods, other.share)


def test_a_router_forgets_workers_that_are_gone() -> None:
    router = Router(config(WEIGHTS))
    for number in range(100):
        told(router, number * (GONE_S / 10), "okx", worker=f"w{number}")
    assert len(router._served) <= 12  # pyright: ignore[reportPrivateUsage]


def test_a_picture_has_all_lanes_of_a_worker_that_lists_some() -> None:
    picture = Picture()
    picture.observe(Report("w1", 0, [LaneReport("okx", in_flight=2), LaneReport("kraken", in_flight=1)]), 0.0, 0.0)
    picture.observe(Report("w1", 0, [LaneReport("okx", in_flight=5)], whole=False), 0.2, 0.0)
    (said,) = picture.reports.values()
    assert {each.lane: each.in_flight for each in said.report.lanes} == {"okx": 5, "kraken": 0}
    assert picture.lane_names() == ["okx", "kraken"]
    picture.observe(Report("w1", 0, [LaneReport("okx")]), 0.4, 0.0)
    assert [each.lane for each in picture.reports["w1"].report.lanes] == ["okx"]
