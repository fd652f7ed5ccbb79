"""One caller's bad symbols, some of which worked before, on an otherwise idle lane: other callers are served soon."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.health import LaneHealth
from dispatcher.suspects import KEPT, KEPT_S, Suspects
from schemas.config import DispatcherConfig
from schemas.messages import Attempt, ErrorCode, Request
from schemas.reports import LaneReport, Named
from workers.exchange.blame import Blame

CONFIG = DispatcherConfig()
DOWN = ErrorCode.EXCHANGE_UNAVAILABLE
TICK_S = 0.2  # of the reports
PROBE = Attempt(Request("fetch_time"), "okx", 1, 0, probe=True)
# The longest gap, and up to three good trials, each heard of with the next reports.
BACK_S = CONFIG.trial_after_max_s + 3 * (CONFIG.trial_after_s + 2 * TICK_S)


def asked(symbol: str, caller: str = "bad") -> Attempt:
    return Attempt(Request("fetch_ticker", {"symbol": symbol}), "okx", 1, 0, reply_to=caller)


class Worker:
    """What a worker sees of the lane, and reports, in seconds of the test's own clock."""

    def __init__(self) -> None:
        self._blame = Blame()
        self._row = 0
        self._clear()

    def _clear(self) -> None:
        self._ok = self._trials_ok = self._failed = self._excused = 0
        self._failing, self._answered = list[Named](), list[str]()

    def run(self, attempt: Attempt, now_s: float, *, trial: bool, ok: bool) -> None:
        if ok:
            self._ok += 1
            self._trials_ok += trial
            self._row = 0
            self._blame.answered(attempt.request, now_s)
            self._answered += [] if attempt.probe else Named.of(attempt).names
            return
        against = self._blame.failed(attempt.request, now_s) or attempt.probe
        self._failed += 1
        self._excused += not against
        self._row += against
        self._failing += [] if attempt.probe else [Named.of(attempt, int(against))]

    def report(self) -> LaneReport:
        report = LaneReport(
            "okx",
            ok=self._ok,
            trials_ok=self._trials_ok,
            failed={DOWN: self._failed} if self._failed else {},
            excused=self._excused,
            failing=self._failing,
            answered=self._answered,
            failures_in_a_row=self._row,
            exchange_ms=50.0 if self._ok else 0.0,
            methods=["fetch_ticker", "fetch_time"],
        )
        self._clear()
        return report


class Lane:
    """A lane of which some symbols fail, and its workers; ticks of a report each."""

    def __init__(self, workers: int, seed: int, failing: frozenset[str], *, probes_fail: bool = False) -> None:
        self._workers = [Worker() for _ in range(workers)]
        self._draw = Random(seed)
        self._failing = failing
        self._probes_fail = probes_fail
        self.health = LaneHealth("okx", 1.0, CONFIG)
        self.now_s = 0.0
        self.tick()

    def _run(self, attempt: Attempt, *, trial: bool, broken: bool) -> bool:
        symbol = attempt.request.args.get("symbol")
        ok = not (broken and (symbol in self._failing or (attempt.probe and self._probes_fail)))
        self._draw.choice(self._workers).run(attempt, self.now_s, trial=trial, ok=ok)
        return ok

    def ask(self, attempt: Attempt, *, broken: bool = True) -> bool | None:
        """Asks the lane as the router would; None where it takes nothing now."""
        health = self.health
        due = health.due(self.now_s) and health.tries(attempt)
        if not (health.serving or due or health.last_resort(self.now_s)):
            return None
        return self._run(attempt, trial=health.sent(self.now_s, tries=due or health.serving), broken=broken)

    def tick(self) -> None:
        """A probe if one is due, and every worker's report."""
        if self.health.methods and self.health.probe_every_s(self.now_s) is not None:
            self._run(PROBE, trial=self.health.sent(self.now_s, probe=True), broken=True)
        self.now_s += TICK_S
        for number, worker in enumerate(self._workers):
            self.health.observe(f"w{number}", worker.report(), self.now_s)


@settings(deadline=None)
@given(
    symbols=st.integers(1, 12),
    workers=st.integers(1, 4),
    per_tick=st.integers(1, 12),
    alone_s=st.integers(1, 20),
    seed=st.integers(0, 2**16),
    probes_fail=st.booleans(),
)
def test_a_caller_s_bad_symbols_hold_others_up_for_one_gap_at_most(
    symbols: int, workers: int, per_tick: int, alone_s: int, seed: int, probes_fail: bool
) -> None:
    """Whatever the order, also where a probe always fails; once others were answered the lane stays."""
    bad = [f"BAD{number}/USDT" for number in range(symbols)]
    lane, draw = Lane(workers, seed, frozenset(bad), probes_fail=probes_fail), Random(seed)
    for symbol in bad * 3:  # they worked before
        assert lane.ask(asked(symbol), broken=False)
        lane.tick()
    while lane.now_s < alone_s:
        for _ in range(per_tick):
            lane.ask(asked(draw.choice(bad)))
        lane.tick()
    begun_s = answered_s = lane.now_s
    longest_s = 0.0
    while lane.now_s < begun_s + 30:
        good = lane.ask(asked("BTC/USDT", "good"))
        assert good is not False
        longest_s = max(longest_s, lane.now_s - answered_s)
        if good:
            answered_s = lane.now_s
        for _ in range(per_tick):
            lane.ask(asked(draw.choice(bad)))
        lane.tick()
    assert longest_s < BACK_S
    assert lane.health.serving


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("part", [0.3, 1.0])
def test_a_lane_that_fails_again_after_it_came_back_is_noticed_as_the_first_time(workers: int, part: float) -> None:
    """Of the same callers and symbols, which were answered meanwhile."""
    took: list[float] = []
    for seed in range(40):
        draw = Random(seed)
        symbols = [f"S{number}/USDT" for number in range(5)]
        lane = Lane(workers, seed, frozenset(symbols))

        def pass_time(lane: Lane, broken_part: float, for_s: float, draw: Random, symbols: list[str]) -> float | None:
            begun_s = lane.now_s
            while lane.now_s < begun_s + for_s:
                for _ in range(2):
                    caller = draw.choice(("a", "b", "c"))
                    lane.ask(asked(draw.choice(symbols), caller), broken=draw.random() < broken_part)
                lane.tick()
                if broken_part and not lane.health.serving:
                    return lane.now_s - begun_s
            return None

        pass_time(lane, 0.0, 10, draw, symbols)
        times = list[float]()
        for _ in range(2):
            noticed_s = pass_time(lane, part, 30, draw, symbols)
            assert noticed_s is not None
            times.append(noticed_s)
            pass_time(lane, 0.0, 20, draw, symbols)
            assert lane.health.serving
        took.append(times[1] - times[0])
    took.sort()
    assert abs(took[len(took) // 2]) <= 1.0, took


def failing(*named: Named) -> LaneReport:
    return LaneReport("okx", failing=[*named], failures_in_a_row=sum(each.against for each in named))


def test_what_was_answered_is_no_suspect_and_the_others_are_forgotten_in_time() -> None:
    suspects, one, other = Suspects(), asked("A", "x"), asked("B", "y")
    never = math.inf
    suspects.observe(failing(Named.of(one, 1), Named.of(other, 1)), -never, never, 1.0)
    assert suspects.knows(one)
    assert suspects.knows(asked("C", "x"))  # all that this caller asked failed
    assert not suspects.knows(asked("C", "z"))
    suspects.observe(LaneReport("okx", answered=[*Named.of(one).names]), -never, never, 2.0)
    assert not suspects.knows(one)
    assert suspects.knows(other)
    again = failing(Named.of(one, 2), Named.of(other, 3))
    # It came back since: what another was answered after is excused, and none of it was a trial sent since.
    report, of_no_trial = suspects.observe(again, 2.0, -never, 2.1)
    assert (report.excused, report.failures_in_a_row, of_no_trial) == (3, 2, 0)
    report, of_no_trial = suspects.observe(again, -never, 2.5, 3.0)
    assert (report.excused, report.failures_in_a_row, of_no_trial) == (0, 5, 5)
    suspects.observe(LaneReport("okx"), -never, never, 3.0 + KEPT_S)
    assert not suspects.knows(other)


def test_where_no_other_is_answered_the_same_requests_are_evidence() -> None:
    """A probe may be all that a lane answers."""
    suspects, one = Suspects(), asked("A")
    suspects.observe(failing(Named.of(one, 1)), -math.inf, math.inf, 1.0)
    report, _ = suspects.observe(replace(failing(Named.of(one, 1)), ok=1), 2.0, math.inf, 3.0)
    assert (report.excused, report.failures_in_a_row) == (0, 1)


def test_what_is_kept_is_bounded() -> None:
    suspects = Suspects()
    suspects.observe(failing(*(Named.of(asked(f"A{number}")) for number in range(2 * KEPT))), -math.inf, math.inf, 1.0)
    assert len(suspects._failing) == KEPT  # pyright: ignore[reportPrivateUsage]
