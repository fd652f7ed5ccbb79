"""What one decision of the router costs: ``--only routing``.

CPU time of `Router.decide`, which looks at every lane that a request may go to and chooses one; no I/O, no broker.
A request is for any exchange, comes back after two attempts that failed, or names every second exchange. Every lane is
healthy; two workers report all lanes between decisions, as often as at 1,000 requests a second, so that what is known
of the lanes' load changes as it does at work. What a report costs is a row of its own.
"""

import itertools
import statistics
import time
from collections.abc import Sequence
from typing import Final, get_args

from dispatcher.router import Decision, Router, Send
from schemas.config import Config, LaneConfig
from schemas.messages import Attempt, ErrorCode, LaneReport, Outcome, Report, Request, Strategy, Try

from .measure import Options, met

LANES: Final = (5, 200)
AIM_US: Final = {5: 50.0, 200: 100.0}
DECISIONS: Final = 2_000
DECISIONS_A_REPORT: Final = 200
REPORTS: Final = 50
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
NOW_MS: Final = 1_700_000_000_000
DEADLINE_MS: Final = 10_000
SYMBOL: Final = {"symbol": "BTC/USDT"}


async def run(options: Options) -> None:
    """Measures and prints."""
    table = options.table(
        f"One decision of the router (CPU us, medians of {options.rounds} rounds of {DECISIONS:,} decisions)",
        *("lanes, strategy", "fresh", "after 2 tries", "named", "aim", ""),
    )
    for lanes in LANES:
        for strategy in STRATEGIES:
            stand = _Stand(lanes, strategy)
            fresh = stand.decision_us(stand.fresh(), options.rounds)
            tried = stand.decision_us(stand.tried(), options.rounds)
            named = stand.decision_us(stand.named(), options.rounds)
            worst = max(fresh, tried, named)
            aim_us = AIM_US[lanes]
            table.row(f"{lanes}, {strategy}", fresh, tried, named, f"<= {aim_us:.0f}", met(worst <= aim_us))
    for lanes in LANES:
        stand = _Stand(lanes, "weighted_round_robin")
        table.row(f"{lanes}, taking in a report of all", stand.report_us(options.rounds), "", "", "", "")


class _Stand:
    """A router that knows healthy lanes, each of an exchange of its own, from two workers' reports."""

    def __init__(self, lanes: int, strategy: Strategy) -> None:
        self._names = [f"lane{number}" for number in range(lanes)]
        weights = itertools.cycle((1.0, 2.0, 5.0))
        self._router = Router(Config(lanes={name: LaneConfig(name, weight=next(weights)) for name in self._names}))
        self._strategy: Strategy = strategy
        self._now_s = 0.0
        reports = [
            LaneReport(name, ok=5, exchange_ms=20.0 + number % 60, in_flight=number % 4, budget_ms=50.0)
            for number, name in enumerate(self._names)
        ]
        self._reports = [Report(worker, NOW_MS, reports) for worker in ("one", "two")]
        able = [LaneReport(name, methods=["fetch_ticker", "fetch_time"]) for name in self._names]
        self._router.hear(Report("one", NOW_MS, able), self._now_s)
        self._hear()

    def _hear(self) -> None:
        self._now_s += 0.2
        for report in self._reports:
            self._router.hear(report, self._now_s)

    def fresh(self) -> Attempt:
        """A request for any exchange, as it came."""
        return self._attempt([])

    def tried(self) -> Attempt:
        """One that two lanes have failed."""
        failed = ErrorCode.EXCHANGE_UNAVAILABLE
        return self._attempt([], [Try(name, Outcome.FAILED, failed) for name in self._names[:2]])

    def named(self) -> Attempt:
        """One that names every second exchange."""
        return self._attempt(self._names[::2])

    def _attempt(self, exchanges: list[str], tries: Sequence[Try] = ()) -> Attempt:
        request = Request(
            "fetch_ticker", SYMBOL, "r", exchanges, strategy=self._strategy, deadline_ms=NOW_MS + DEADLINE_MS
        )
        return Attempt(request, "", len(tries), NOW_MS, tries=list(tries))

    def decision_us(self, attempt: Attempt, rounds: int) -> float:
        """The CPU time of one decision."""
        return statistics.median(self._decisions_us(attempt) for _ in range(rounds))

    def _decisions_us(self, attempt: Attempt) -> float:
        used_ns, decisions = 0, list[Decision]()
        for _ in range(DECISIONS // DECISIONS_A_REPORT):
            self._hear()
            before_ns = time.process_time_ns()
            for _ in range(DECISIONS_A_REPORT):
                decisions.append(self._router.decide(attempt, self._now_s, NOW_MS, rested=False))
            used_ns += time.process_time_ns() - before_ns
        assert all(isinstance(decision, Send) for decision in decisions)
        return used_ns / DECISIONS / 1000

    def report_us(self, rounds: int) -> float:
        """The CPU time of taking in one worker's report."""
        return statistics.median(self._reports_us() for _ in range(rounds))

    def _reports_us(self) -> float:
        before_ns = time.process_time_ns()
        for _ in range(REPORTS):
            self._hear()
        return (time.process_time_ns() - before_ns) / REPORTS / len(self._reports) / 1000
