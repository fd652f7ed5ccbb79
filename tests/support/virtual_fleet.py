"""A fleet in virtual time: the real routers, a worker and a limit in twenty lines, delay queues, and no I/O.

Hours of load run in seconds, and what becomes of each request can be compared with what was possible.
"""

import heapq
import itertools
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.router import End, Router, Send, Wait
from dispatcher.told import Change
from schemas import topology
from schemas.config import Config, LaneConfig, WorkerConfig
from schemas.messages import Attempt, Bound, ErrorCode, Outcome, Request, Try
from schemas.reports import LaneReport, Report

NOW_MS: Final = 1_000_000_000_000
REPORT_S: Final = 0.2
HOP_S: Final = 0.003
# As in the dispatcher, which collects for a moment what it tells.
TOLD_S: Final = 0.015
TICKER: Final = "fetch_ticker"
MAX_WAIT_S: Final = WorkerConfig().max_wait_s
# As in rolling.lua: calls that wait for room anyway are granted apart by this part of the mean distance.
APART: Final = 0.5
# So many points say how room comes.
ROOMS: Final = 16


class Limit:
    """A rolling window, as the budget grants it.

    Args:
        amount: what it allows.
        window_s: in which time.
        costs: what a call costs, by method; 1 where it is not named.
    """

    def __init__(self, amount: int, window_s: float, costs: Mapping[str, int] | None = None) -> None:
        self.amount = amount
        self.window_s = window_s
        self.costs = costs or {}
        self.granted_s: list[float] = []  # an instant for each 1 of the amount

    def step_s(self, method: str) -> float:
        """How far apart such calls are on average if they use all of it."""
        return self.costs.get(method, 1) * self.window_s / self.amount

    def earliest_s(self, method: str, now_s: float) -> float:
        """When the next such call has room."""
        at_s = max([now_s, *self.granted_s[-1:]])
        first = self.amount + 1 - self.costs.get(method, 1)
        if len(self.granted_s) >= first:
            free_s = self.granted_s[-first] + self.window_s
            if free_s > now_s:
                at_s = max(at_s, free_s, self.granted_s[-1] + APART * self.step_s(method))
        return at_s

    def rooms(self, method: str) -> list[tuple[int, int]]:
        """How room for such calls comes within a window, as the budget says it."""
        cost = self.costs.get(method, 1)
        most = self.amount // cost

        def room_ms(calls: int) -> int:
            place = len(self.granted_s) - self.amount + calls * cost - 1
            return NOW_MS + int((self.granted_s[place] + self.window_s) * 1000) if place >= 0 else 0

        known = {1: room_ms(1), most: room_ms(most)}
        while len(known) < min(ROOMS, most):
            pairs = [(before, after) for before, after in pairwise(sorted(known)) if after - before > 1]
            before, after = max(pairs, key=lambda pair: known[pair[1]] - known[pair[0]])
            known[(before + after) // 2] = room_ms((before + after) // 2)
        return [(known[calls], calls) for calls in sorted(known)]

    def grant(self, method: str, at_s: float) -> None:
        """Such a call leaves then."""
        self.granted_s += [at_s] * self.costs.get(method, 1)


class Asked(Struct):
    """A request: when it was asked, until when, and what became of it."""

    lanes: Sequence[str]
    at_s: float
    deadline_s: float
    method: str = TICKER
    caller: str = ""
    ended_s: float = 0.0
    ok: bool = False
    why: str = ""
    returned: int = 0

    @property
    def refused(self) -> bool:
        """Whether it was refused for the line before it."""
        return "overloaded" in self.why


class VirtualFleet:
    """Dispatchers, and one worker with a lane for each limit.

    Args:
        limits: of each lane; None for none.
        dispatchers: how many.
        latency_s: how late an exchange answers.
        tell: dispatchers tell each other what they do to lines.
    """

    def __init__(
        self, limits: dict[str, Limit | None], *, dispatchers: int = 1, latency_s: float = 0.05, tell: bool = True
    ) -> None:
        self.limits = limits
        self.latency_s = latency_s
        self.now_s = 0.0
        self.left_s: dict[str, list[float]] = {name: [] for name in limits}
        self.paused_until_s = dict.fromkeys(limits, 0.0)
        self._lifted_ms = 0
        self._held = dict.fromkeys(limits, 0)
        self._out = dict.fromkeys(limits, 0)
        self._ok = dict.fromkeys(limits, 0)
        config = Config(lanes={name: LaneConfig(exchange=name) for name in limits})
        self._changes: list[tuple[str, Change]] = []
        self.routers = [Router(config, self._note) for _ in range(dispatchers)]
        for router in self.routers:
            router.set_dispatchers(dispatchers, dispatchers - 1 if tell else 0)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._random = random.Random(1)
        self._takers = random.Random(1)
        self._tell = tell
        self._report()

    @property
    def now_ms(self) -> int:
        """The wall clock."""
        return NOW_MS + int(self.now_s * 1000)

    def after(self, wait_s: float, act: Callable[..., None], *args: Any) -> None:
        """Lets something happen."""
        heapq.heappush(self._events, (self.now_s + wait_s, next(self._numbers), act, args))

    def ask(self, at_s: float, left_s: float, *lanes: str, method: str = TICKER, caller: str = "") -> Asked:
        """One request will come then, with so much time."""
        asked = Asked(lanes, at_s, at_s + left_s, method, caller)
        self.after(at_s - self.now_s, self._come, asked)
        return asked

    def pause(self, lane: str, from_s: float, for_s: float) -> None:
        """The exchange will ask for silence."""
        self.after(from_s - self.now_s, self.paused_until_s.__setitem__, lane, from_s + for_s)

    def lift(self, at_s: float) -> None:
        """An operator will end all pauses."""
        self.after(at_s - self.now_s, self._lift)

    def _lift(self) -> None:
        self.paused_until_s = dict.fromkeys(self.limits, 0.0)
        self._lifted_ms = self.now_ms

    def _paused_until_ms(self, lane: str) -> int:
        until_s = self.paused_until_s[lane]
        return NOW_MS + int(until_s * 1000) if until_s > self.now_s else 0

    def run(self, until_s: float) -> None:
        """Lets the time pass."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, act, args = heapq.heappop(self._events)
            act(*args)
        self.now_s = until_s

    def _report(self) -> None:
        lanes = [
            LaneReport(
                name,
                ok=self._ok[name],
                exchange_ms=self.latency_s * 1000 if self._ok[name] else 0.0,
                in_flight=self._held[name],
                unanswered=self._out[name],
                budget_ms=limit.step_s(TICKER) * 1000 if limit else 0.0,
                paused_until_ms=self._paused_until_ms(name),
                lifted_ms=self._lifted_ms,
            )
            for name, limit in self.limits.items()
        ]
        self._ok = dict.fromkeys(self.limits, 0)
        for router in self.routers:
            router.observe(Report("w", self.now_ms, lanes), self.now_s)
        self.after(REPORT_S, self._report)

    def _come(self, asked: Asked) -> None:
        request = Request(asked.method, exchanges=list(asked.lanes), deadline_ms=NOW_MS + int(asked.deadline_s * 1e3))
        self._decide(Attempt(request, "", 0, self.now_ms, asked.caller), asked, rested=False)

    def _decide(self, attempt: Attempt, asked: Asked, *, rested: bool) -> None:
        router = self._takers.choice(self.routers)  # whichever has a hand free
        if attempt.tries and attempt.tries[-1].code is ErrorCode.NO_BUDGET and not rested:
            last = attempt.tries[-1]
            attempt = router.refused(attempt, last.lane, last.retry_at_ms or 0, self.now_ms)
        decision = router.decide(attempt, self.now_s, self.now_ms, rested=rested)
        changes, self._changes = self._changes, []
        if changes and self._tell:
            self.after(TOLD_S, self._told, router, changes)
        if isinstance(decision, Send):
            sent = replace(attempt, lane=decision.lane, max_wait_ms=decision.max_wait_ms, bound=None)
            self.after(HOP_S, self._take, replace(sent, turn=decision.turn), asked)
        elif isinstance(decision, Wait):
            waits = replace(attempt, lane="", turn=decision.turn)
            late_s = self._random.uniform(0.0, 0.05)
            self.after(topology.delay_for(decision.wait_ms) / 1000 + late_s, self._back, waits, asked)
        else:
            assert isinstance(decision, End)
            asked.ended_s, asked.why = self.now_s, decision.message

    def _note(self, lane: str, change: Change) -> None:
        self._changes.append((lane, change))

    def _told(self, teller: Router, changes: Sequence[tuple[str, Change]]) -> None:
        for router in self.routers:
            if router is not teller:
                router.take_changes(changes, self.now_ms)

    def _back(self, attempt: Attempt, asked: Asked) -> None:
        self._decide(attempt, asked, rested=True)

    def _decide_again(self, attempt: Attempt, asked: Asked) -> None:
        self._decide(attempt, asked, rested=False)

    def _take(self, attempt: Attempt, asked: Asked) -> None:
        lane, limit = attempt.lane, self.limits[attempt.lane]
        if until_ms := self._paused_until_ms(lane):
            item = Try(lane, Outcome.THROTTLED, ErrorCode.PAUSED, retry_at_ms=until_ms)
            self.after(HOP_S, self._decide_again, attempt.handed_back(item), asked)
            return
        at_s = limit.earliest_s(asked.method, self.now_s) if limit else self.now_s
        most_s = MAX_WAIT_S if attempt.max_wait_ms is None else attempt.max_wait_ms / 1000
        if limit and at_s - self.now_s > max(0.0, min(most_s, asked.deadline_s - self.now_s - self.latency_s)):
            at_ms = NOW_MS + int(at_s * 1000)
            item = Try(lane, Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=at_ms)
            asked.returned += 1
            back = attempt.handed_back(
                item, Bound("all", at_ms, limit.step_s(asked.method) * 1000, rooms=limit.rooms(asked.method))
            )
            self.after(HOP_S, self._decide_again, back, asked)
            return
        if limit:
            limit.grant(asked.method, at_s)
        self._held[lane] += 1
        self.after(at_s - self.now_s, self._leave, lane, asked)

    def _leave(self, lane: str, asked: Asked) -> None:
        self._out[lane] += 1
        self.left_s[lane].append(self.now_s)
        self.after(self.latency_s, self._answer, lane, asked)

    def _answer(self, lane: str, asked: Asked) -> None:
        self._held[lane] -= 1
        self._out[lane] -= 1
        self._ok[lane] += 1
        asked.ended_s, asked.ok = self.now_s, self.now_s <= asked.deadline_s
        asked.why = "" if asked.ok else "cut off"


def false_refusals(asked: Sequence[Asked], tolerance_s: float, *, one_instant: bool = True) -> list[Asked]:
    """The refused requests that could have been answered: one that came after was, before their deadlines.

    Only such are compared as ask for the same, of one caller: a cheaper call finds room where a dearer one does not.
    Those of one instant came in their order, or, without `one_instant`, are not compared.
    """
    found: list[Asked] = []
    for kind in {_kind(each) for each in asked}:
        found += _false([each for each in asked if _kind(each) == kind], tolerance_s, one_instant=one_instant)
    return found


def _kind(asked: Asked) -> Sequence[str]:
    return *asked.lanes, asked.method, asked.caller


def _false(asked: Sequence[Asked], tolerance_s: float, *, one_instant: bool) -> list[Asked]:
    found: list[Asked] = []
    earliest_s = earliest_after_s = after_s = float("inf")
    in_order = sorted(asked, key=lambda each: each.at_s)  # those of one instant stay in order
    for each in reversed(in_order):
        if each.at_s < after_s:
            after_s, earliest_after_s = each.at_s, earliest_s
        if each.ok:
            earliest_s = min(earliest_s, each.ended_s)
        elif each.refused and (earliest_s if one_instant else earliest_after_s) < each.deadline_s - tolerance_s:
            found.append(each)
    return found


def late(asked: Sequence[Asked]) -> list[Asked]:
    """The requests that were neither refused nor answered in time."""
    return [each for each in asked if not each.ok and not each.refused]


def most_in(instants: Sequence[float], window_s: float) -> int:
    """The most of these instants, in order, that any window of this length holds."""
    return max(
        (number - bisect_right(instants, at - window_s + 1e-6) + 1 for number, at in enumerate(instants)), default=0
    )
