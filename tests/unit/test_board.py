"""What `top`, `lanes` and `budget` make of reports: rates over the last seconds, and lanes in an order."""

import io

import pytest
from rich.console import Console

from schemas.messages import ErrorCode
from schemas.operator.board import SORTS, Board, ordered
from schemas.operator.drawing import drawn
from schemas.operator.picture import SILENT_S, Picture
from schemas.operator.screen import Keys
from schemas.operator.shapes import TopShared
from schemas.reports import BucketReport, LaneReport, Report
from schemas.runtime.presence import Presence
from schemas.status import ConfigurationStatus, DispatcherStatus, ProcessStatus, SharedAnswers


def report(worker: str, *lanes: LaneReport, **unopened: str) -> Report:
    return Report(worker, 1_000, list(lanes), unopened=unopened)


def busy() -> LaneReport:
    bucket = BucketReport(used=0.5, effective=0.8, amount=100, window_s=10, granted=7, refused=1)
    failed = {ErrorCode.EXCHANGE_ERROR: 2}
    return LaneReport("okx", ok=10, failed=failed, rejected=1, throttled=4, exchange_ms=20.0, buckets={"of_20": bucket})


def test_rates_are_of_the_last_seconds() -> None:
    picture = Picture()
    board = Board(picture, 0.0)
    for second in range(1, 20):
        picture.observe(report("a", busy()), second, 0)
        board.view(second, 0)
    picture.observe(report("a", busy()), 20, 0)
    [lane] = board.view(20, 0).lanes
    assert (lane.ok_per_s, lane.failed_per_s, lane.throttled_per_s) == (10.0, 3.0, 4.0)
    assert lane.latency_ms == 20.0
    assert (lane.bucket, lane.used_part) == ("of_20", 0.5)
    view = board.view(20 + SILENT_S + 1, 0)
    # The worker reports no more: neither its lane nor its rates stay.
    assert (view.workers, view.lanes) == (0, [])


def dispatcher(name: str, **shared: int) -> DispatcherStatus:
    process = ProcessStatus("dispatcher", name, 0, "", ConfigurationStatus("", 0), True, 1)
    return DispatcherStatus(process, [], shared=SharedAnswers(**shared))


def test_rates_of_shared_answers_are_those_of_all_dispatchers() -> None:
    picture = Picture()
    picture.presence = Presence([dispatcher("a", asked=1_000, waited=5_000)], [])
    board = Board(picture, 0.0)
    assert board.view(1, 0).shared == TopShared()
    for second in range(2, 30):
        more = dispatcher("b", cached=100 * second) if second > 3 else dispatcher("b")
        one = dispatcher("a", asked=1_000 + second, waited=5_000 + 50 * second, alone=second)
        picture.presence = Presence([one, more], [])
        board.view(second, 0)
    view = board.view(29, 0)
    assert view.shared == TopShared(asked_per_s=2.0, waited_per_s=50.0, cached_per_s=100.0)
    screen = io.StringIO()
    Console(file=screen, width=100, height=20).print(drawn(view, "lane", False, 100, 20))
    assert "shared answers  2.0/s asked   50.0/s waited   100.0/s cached" in screen.getvalue()
    picture.presence = Presence([dispatcher("a", asked=1)], [])  # it was started again
    assert board.view(30, 0).shared.asked_per_s == 0


def test_buckets_are_those_of_all_workers() -> None:
    picture = Picture()
    lane = busy()
    picture.observe(report("a", lane), 0, 0)
    picture.observe(report("b", lane), 0, 0)
    [bucket] = picture.bucket_views()
    assert (bucket.used, bucket.capacity, bucket.amount) == (40.0, 80.0, 100.0)
    assert (bucket.granted, bucket.refused) == (14, 2)


def test_workers_come_and_go() -> None:
    picture = Picture()
    picture.observe(report("a", busy()), 0, 3_500)
    picture.observe(report("b", okx="no route"), 0, 1_000)
    assert picture.reports["a"].behind_ms == 2_500
    assert picture.unopened("okx") == {"b": "no route"}
    picture.observe(Report("a", 1, [], leaving=True), 1, 0)
    assert [lane.reason for lane in picture.lanes()] == ["it has not opened: no route"]
    picture.forget_silent(SILENT_S + 1)
    assert picture.reports == {}


def test_what_is_left_in_a_bucket_is_shown_until_all_lanes_are_listed_again() -> None:
    picture = Picture()
    picture.observe(report("a", busy()), 0, 0)
    picture.observe(Report("a", 1, [], whole=False), 0.2, 0)
    assert [each.bucket for each in picture.bucket_views()] == [*busy().buckets]
    assert sum(each.granted for each in picture.bucket_views()) == sum(each.granted for each in busy().buckets.values())
    picture.observe(report("a", LaneReport(busy().lane)), 1.2, 0)
    assert picture.bucket_views() == []


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_has_its_opposite(sort: str) -> None:
    picture = Picture()
    board = Board(picture, 0.0)
    lanes = [LaneReport(name, ok=number) for number, name in enumerate(("c", "a", "b"))]
    picture.observe(report("a", *lanes), 1, 0)
    shown = board.view(1, 0).lanes
    assert ordered(shown, "rate")[0].lane == "b"
    assert [each.lane for each in ordered(shown, "lane")] == ["a", "b", "c"]
    assert sorted(each.lane for each in ordered(shown, sort, backwards=True)) == ["a", "b", "c"]
    assert ordered(shown, "lane", backwards=True)[0].lane == "c"


async def test_keys() -> None:
    keys = Keys("lane")
    for _ in SORTS:
        keys.press("s")
    assert keys.sort == "lane"
    keys.press("r")
    assert keys.backwards
    keys.press("x")
    assert not keys.quit.is_set()
    for last in ("q", "\x03", ""):
        keys.quit.clear()
        keys.press(last)
        assert keys.quit.is_set()


def shown(width: int, height: int, lanes: int, **unopened: str) -> list[str]:
    """The lines of `top`'s screen."""
    picture = Picture()
    bucket = BucketReport(used=1.0, effective=1.0, amount=100, window_s=10, granted=7, refused=1)
    board = Board(picture, 0.0)
    reports = [LaneReport(f"exchange{number}", ok=1_000, buckets={"public": bucket}) for number in range(lanes)]
    picture.observe(report("a", *reports, **unopened), 1, 0)
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(drawn(board.view(1, 0), "rate", False, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", range(44, 200, 4))
@pytest.mark.parametrize("why", ["", "no route to api.kraken.com"])
def test_no_number_is_cut_off_in_any_width(width: int, why: str) -> None:
    lines = shown(width, 24, 5, **({"kraken": why} if why else {}))
    assert all(len(line) <= width for line in lines)
    [head] = [line for line in lines if line.startswith("lane")]
    assert "ok/s ▼" in head
    assert "…" not in head
    busy = [line for line in lines if line.startswith("exchange")]
    assert len(busy) == 5
    assert all("1000.0" in line and "100% public" in line for line in busy)
    if width >= 120:
        assert all(column in head for column in ("err/s", "no budget/s", "latency", "waiting"))


@pytest.mark.parametrize("lanes", [1, 16, 17, 40])
def test_lanes_that_have_no_room_are_counted(lanes: int) -> None:
    lines = shown(80, 24, lanes)
    assert len(lines) <= 24
    assert any("q quit" in line for line in lines)
    there = sum(line.startswith("exchange") for line in lines)
    assert there == lanes or any(f"and {lanes - there} lanes more" in line for line in lines)
