"""What one decision of the router costs: ``--only routing``.

CPU time of `Router.decide`, which looks at every lane that a request may go to and chooses one; no I/O, no broker.
A request is for any exchange, comes back after two attempts that failed, names every second exchange, or names 200
symbols, others each time. Every lane is healthy; two workers report all lanes between decisions, as often as at 1,000
requests a second, so that what is known of the lanes' load changes as it does at work. Lanes list 2,000 symbols each,
no two of 5 the same ones, ten of 200. What a report costs is a row of its own, so is taking in what a lane lists, and
so are requests that join a line in which others wait.
"""

import itertools
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final, get_args

from dispatcher.listings import Content, LaneKnowledge
from dispatcher.router import Decision, Router, Send, Wait
from schemas.config import Config, LaneConfig
from schemas.messages import Attempt, Bound, ErrorCode, Outcome, Request, Strategy, Try, decode_attempt, encode
from schemas.reports import LaneReport, Report
from schemas.runtime.listings import Knowledge, Listing

from .measure import Options, met

LANES: Final = (5, 200)
AIM_US: Final = {5: 50.0, 200: 100.0}
DECISIONS: Final = 2_000
DECISIONS_A_REPORT: Final = 200
REPORTS: Final = 50
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
NOW_MS: Final = 1_700_000_000_000
DEADLINE_MS: Final = 10_000
LISTED: Final = 2_000
CONTENTS: Final = {5: 5, 200: 20}
NAMED: Final = 200
WAITING: Final = 10_000
CALLERS: Final = (1, 2_000)
SYMBOL: Final = {"symbol": "C0/USDT"}


async def run(options: Options) -> None:
    """Measures and prints."""
    table = options.table(
        f"One decision of the router (CPU us, medians of {options.rounds} rounds of {DECISIONS:,} decisions)",
        *("lanes, strategy", "fresh", "after 2 tries", "named", f"{NAMED} symbols", "aim", ""),
    )
    for lanes in LANES:
        for strategy in STRATEGIES:
            stand = _Stand(lanes, strategy)
            kinds = [stand.fresh()], [stand.tried()], [stand.named()], stand.many()
            took_us = [stand.decision_us(kind, options.rounds) for kind in kinds]
            aim_us = AIM_US[lanes]
            table.row(f"{lanes}, {strategy}", *took_us, f"<= {aim_us:.0f}", met(max(took_us) <= aim_us))
    for lanes in LANES:
        stand = _Stand(lanes, "weighted_round_robin")
        table.row(f"{lanes}, taking in a report of all", stand.report_us(options.rounds), *[""] * 5)
    table.row("what a lane lists", _learned_us(options.rounds), *[""] * 5)
    for callers in CALLERS:
        table.row(f"a line of {WAITING:,} of {callers:,} callers", _joined_us(options.rounds, callers), *[""] * 5)


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
        contents = CONTENTS[lanes]
        able = [
            LaneReport(name, methods=["fetch_ticker", "fetch_tickers"], knowledge=f"content{number % contents}")
            for number, name in enumerate(self._names)
        ]
        self._router.observe(Report("one", NOW_MS, able), self._now_s)
        for number in range(contents):
            self._router.knowledge.learn(f"content{number}", _known(number))
        self._hear()

    def _hear(self) -> None:
        self._now_s += 0.2
        for report in self._reports:
            self._router.observe(report, self._now_s)

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

    def many(self) -> list[Attempt]:
        """For any exchange, each of other symbols that all of them list."""
        draw = random.Random(1)
        return [
            self._attempt([], args={"symbols": [f"C{number}/USDT" for number in draw.sample(range(LISTED), NAMED)]})
            for _ in range(DECISIONS_A_REPORT)
        ]

    def _attempt(self, exchanges: list[str], tries: Sequence[Try] = (), args: dict[str, Any] = SYMBOL) -> Attempt:
        method = "fetch_tickers" if "symbols" in args else "fetch_ticker"
        deadline_ms = NOW_MS + DEADLINE_MS
        request = Request(method, args, "r", exchanges, strategy=self._strategy, deadline_ms=deadline_ms)
        return Attempt(request, "", len(tries), NOW_MS, tries=list(tries))

    def decision_us(self, attempts: Sequence[Attempt], rounds: int) -> float:
        """The CPU time of one decision, of these by turns."""
        bodies = [encode(attempt) for attempt in attempts]
        return statistics.median(self._decisions_us(bodies) for _ in range(rounds))

    def _decisions_us(self, bodies: Sequence[bytes]) -> float:
        used_ns, decisions, turn = 0, list[Decision](), itertools.cycle(bodies)
        for _ in range(DECISIONS // DECISIONS_A_REPORT):
            self._hear()
            # Each is new, as at work: Python remembers the hash of a text that it has looked up.
            attempts = [decode_attempt(next(turn)) for _ in range(DECISIONS_A_REPORT)]
            before_ns = time.process_time_ns()
            for attempt in attempts:
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


def _known(number: int) -> Content:
    """A content that is like no other; all list the same symbols."""
    pairs = range(LISTED)
    listings = [Listing(f"C{pair}/USDT", f"{number}C{pair}USDT", "USDT", "spot") for pair in pairs]
    return Content(Knowledge(f"exchange{number}", listings, ["1m", "1h"]))


def _learned_us(rounds: int) -> float:
    """The CPU time of taking in a content, beside 20 others."""
    lanes, known = LaneKnowledge(), _known(0)
    for number in range(20):
        lanes.learn(f"content{number}", _known(number))
    took_us: list[float] = []
    for number in range(rounds):
        before_ns = time.process_time_ns()
        lanes.learn(f"more{number}", known)
        took_us.append((time.process_time_ns() - before_ns) / 1000)
    return statistics.median(took_us)


def _joined_us(rounds: int, callers: int) -> float:
    """The CPU time of a decision on a request that joins a line in which so many callers wait."""
    router = Router(Config(lanes={"lane": LaneConfig("lane")}))
    router.observe(Report("one", NOW_MS, [LaneReport("lane", ok=5, exchange_ms=20.0, budget_ms=50.0)]), 0.0)
    request = Request("fetch_ticker", SYMBOL, "r", deadline_ms=NOW_MS + 3_600_000)
    router.health["lane"].refused(request, NOW_MS + 5_000, Bound("all", NOW_MS + 5_000, 50.0), NOW_MS)
    draw, took_us = random.Random(1), list[float]()
    for _ in range(1 + rounds):
        count = WAITING if not took_us else DECISIONS
        attempts = [Attempt(request, "", 0, NOW_MS, f"caller {draw.randrange(callers)}") for _ in range(count)]
        before_ns = time.process_time_ns()
        decisions = [router.decide(attempt, 0.0, NOW_MS, rested=False) for attempt in attempts]
        took_us.append((time.process_time_ns() - before_ns) / count / 1000)
        assert all(isinstance(decision, Wait) for decision in decisions)
    return statistics.median(took_us[1:])
