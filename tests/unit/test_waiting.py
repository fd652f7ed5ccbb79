"""Requests in the waiting rooms count for the lanes that will take them, and for no others."""

import pytest

from dispatcher.router import End, Router, Send, Wait
from dispatcher.waiting import KNOWN_AFTER_S, RATE_S, Waiting
from schemas.config import Config, LaneConfig
from schemas.messages import Attempt, ErrorCode, Outcome, Request, Try
from schemas.reports import LaneReport, Report

NOW_MS = 1_000_000_000_000
KIND = "live fetch_ticker"
REPORT_S = 0.2


class Fleet:
    """A router that gets reports of lanes which end so many attempts a second, and the time that passes."""

    def __init__(self, **per_s: float) -> None:
        self.per_s = per_s
        self.now_s = 100.0
        self._owed = dict.fromkeys(per_s, 0.0)
        self.router = Router(Config(lanes={name: LaneConfig(exchange=name) for name in per_s}))
        self.observe()

    @property
    def now_ms(self) -> int:
        return NOW_MS + int(self.now_s * 1000)

    def observe(self, **fields: object) -> None:
        """A report of all lanes."""
        reports: list[LaneReport] = []
        for name, per_s in self.per_s.items():
            self._owed[name] += per_s * REPORT_S
            ended = int(self._owed[name])
            self._owed[name] -= ended
            known: dict[str, object] = {"ok": ended, "ended": {KIND: ended} if ended else {}}
            reports.append(LaneReport(name, **{**known, **fields}))  # type: ignore[arg-type]
        self.router.observe(Report("w", self.now_ms, reports), self.now_s)

    def asks(self, *lanes: str, method: str = "fetch_ticker", left_ms: int = 30_000, full: bool = False) -> object:
        """What becomes of a request; `full`: the lanes have just refused it for want of budget."""
        request = Request(method, id="1", exchanges=list(lanes), deadline_ms=self.now_ms + left_ms)
        refusal = [
            Try(name, Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=self.now_ms + 1_500)
            for name in lanes or self.per_s
            if full
        ]
        attempt = Attempt(request, "", 0, self.now_ms, tries=refusal)
        return self.router.decide(attempt, self.now_s, self.now_ms, rested=False)

    def crowded(self, count: int, *lanes: str, for_s: float = KNOWN_AFTER_S + 1) -> None:
        """For so long so many wait, each of which looks at the lanes again every second, spread evenly."""
        until_s = self.now_s + for_s
        while self.now_s < until_s:
            for _ in range(int(count * REPORT_S)):
                assert isinstance(self.asks(*lanes, left_ms=3_600_000, full=True), Wait)
            self.now_s += REPORT_S
            self.observe()


def overloaded(decision: object) -> bool:
    assert not isinstance(decision, Wait)
    return isinstance(decision, End) and "overloaded" in decision.message


def test_what_waits_makes_later_requests_too_late() -> None:
    fleet = Fleet(kraken=2.0)
    fleet.crowded(100)  # 50 s
    assert overloaded(fleet.asks(left_ms=30_000))
    assert not overloaded(fleet.asks(left_ms=70_000))
    # Another method may have room, and who has waited already is not cut off.
    assert not overloaded(fleet.asks(method="fetch_trades"))
    assert isinstance(fleet.asks(full=True), Wait)


def test_nothing_is_refused_before_it_is_known_how_fast_the_lane_is() -> None:
    fleet = Fleet(kraken=2.0)
    fleet.crowded(100, for_s=2)
    assert not overloaded(fleet.asks(left_ms=1_000))


def test_a_few_that_rest_say_nothing() -> None:
    fleet = Fleet(kraken=0.5)
    fleet.crowded(9, for_s=20)
    assert not overloaded(fleet.asks(left_ms=1_000))


def test_a_crowd_that_is_gone_counts_no_more() -> None:
    fleet = Fleet(kraken=2.0)
    fleet.crowded(100)
    for _ in range(6):
        fleet.now_s += REPORT_S
        fleet.observe()
    assert not overloaded(fleet.asks(left_ms=1_000))


def test_other_dispatchers_let_as_much_wait() -> None:
    fleet = Fleet(kraken=2.0)
    fleet.router.dispatchers = 3
    fleet.crowded(30)  # 15 s, and as much twice more
    assert overloaded(fleet.asks(left_ms=30_000))
    assert not overloaded(fleet.asks(left_ms=60_000))


def test_what_several_lanes_may_take_counts_for_each_by_how_fast_it_is() -> None:
    fleet = Fleet(binance=20.0, kraken=1.0)
    fleet.crowded(300, for_s=9)  # 14 s for both of them together
    assert overloaded(fleet.asks(left_ms=9_000))
    assert not overloaded(fleet.asks(left_ms=22_000))
    # A request for the slow one alone is not refused for what the fast one will take.
    assert not overloaded(fleet.asks("kraken", left_ms=22_000))


def test_what_waits_for_one_lane_does_not_keep_requests_from_another() -> None:
    fleet = Fleet(binance=20.0, kraken=1.0)
    fleet.crowded(100, "kraken")
    assert overloaded(fleet.asks("kraken"))
    decision = fleet.asks("kraken", "binance")
    assert isinstance(decision, Send)
    assert decision.lane == "binance"


@pytest.mark.parametrize("code", [None, ErrorCode.EXCHANGE_UNAVAILABLE])
def test_a_lane_that_something_else_holds_up_is_not_taken_for_slow(code: ErrorCode | None) -> None:
    fleet = Fleet(kraken=2.0)
    fleet.crowded(100)
    fields = {"paused_until_ms": 1} if code is None else {"ok": 0, "failed": {code: 5}, "failures_in_a_row": 5}
    for _ in range(2):
        fleet.observe(**fields)
    assert not fleet.router.health["kraken"].load.waiting.ms


def test_nothing_is_known_of_a_lane_without_workers() -> None:
    fleet = Fleet(kraken=2.0)
    fleet.crowded(100)
    assert overloaded(fleet.asks())
    fleet.now_s += 2  # without a report
    assert isinstance(fleet.asks(), Wait)


def test_a_lane_that_ends_nothing_is_not_known() -> None:
    fleet = Fleet(kraken=0.0)
    fleet.crowded(100)
    assert not overloaded(fleet.asks(left_ms=1_000))


def test_the_rate_is_that_of_the_last_seconds() -> None:
    waiting, now_s = Waiting(), 0.0
    for per_report, reports in ((10, 50), (1, int(2.1 * RATE_S / REPORT_S))):
        for _ in range(reports):
            now_s += REPORT_S
            waiting.put(KIND, 1.0, now_s + 1)
            waiting.observe(LaneReport("x", ended={KIND: per_report}), now_s, held_up=False)
    assert waiting.per_s(KIND) == pytest.approx(1 / REPORT_S, rel=0.05)
