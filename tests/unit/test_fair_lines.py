"""Callers who wait for one limit: each gets his share of it, whatever the others ask for, and nothing is wasted."""

import heapq
import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from dispatcher.callers import Callers
from dispatcher.line import Line
from tests.support.virtual_fleet import TICKER, Asked, Limit, VirtualFleet, late, most_in

NOW_MS: Final = 1_000_000_000_000
LEAD_MS: Final = 1_000
METHODS: Final = (TICKER, "fetch_trades", "fetch_ohlcv", "fetch_order_book")


def answered(asked: Sequence[Asked]) -> int:
    return sum(each.ok for each in asked)


@pytest.mark.parametrize("dispatchers", [1, 2])
@pytest.mark.parametrize("callers", [1, 5])
def test_a_patient_crowd_of_one_caller_refuses_nobody_else(callers: int, dispatchers: int) -> None:
    """1,500 requests that have ten minutes, and then 250 of others who have 20 s each."""
    fleet = VirtualFleet({"x": Limit(133, 30)}, dispatchers=dispatchers)
    crowd = [fleet.ask(0.0, 600, "x", caller="crowd") for _ in range(1_500)]
    # The first window is full for 30 s: nobody can do anything about that.
    others = [fleet.ask(15 + number * 0.48, 20, "x", caller=f"other {number % callers}") for number in range(250)]
    fleet.run(700)
    assert answered(others) >= 0.98 * len(others)
    assert answered(crowd) == len(crowd)
    assert bisect_right(fleet.left_s["x"], 350) >= 0.99 * 133 * 350 / 30  # and nothing of the limit is wasted
    assert most_in(fleet.left_s["x"], 30) <= 133


def test_thousands_of_callers_with_one_request_each_are_served_in_order() -> None:
    fleet = VirtualFleet({"x": Limit(100, 10)})
    asked = [fleet.ask(number / 50, 300, "x", caller=f"{number}") for number in range(2_000)]
    fleet.run(300)
    assert answered(asked) == len(asked)
    assert fleet.left_s["x"][-1] < 201
    assert all(abs(each.ended_s - number / 10) < 12 for number, each in enumerate(asked))


class Demand(Struct, frozen=True):
    """What a caller asks for: so many a second, or as many at once every ten seconds; with which time, in which way."""

    per_s: float
    left_s: float
    at_once: bool
    methods: int


DEMANDS: Final = st.builds(
    Demand, st.floats(1.0, 8.0), st.sampled_from([3.0, 12.0, 30.0, 200.0]), st.booleans(), st.integers(1, len(METHODS))
)


def ask(fleet: VirtualFleet, demand: Demand, seconds: float, caller: str) -> list[Asked]:
    draw = random.Random(caller)
    instants = [number / demand.per_s for number in range(int(seconds * demand.per_s))]
    return [
        fleet.ask(
            at_s // 10 * 10 if demand.at_once else at_s,
            demand.left_s,
            "x",
            method=draw.choice(METHODS[: demand.methods]),
            caller=caller,
        )
        for at_s in instants
    ]


@settings(deadline=None, max_examples=25)
@given(st.lists(DEMANDS, min_size=1, max_size=4), st.floats(0.3, 2.0), st.integers(1, 2))
@example([Demand(2.0, 3.0, False, 1), Demand(1.5, 3.0, False, 1)], 1.0, 1)
def test_each_gets_his_share_whatever_others_send(others: list[Demand], asks: float, dispatchers: int) -> None:
    """A share of a limit's time: calls of several kinds take one or three of its 40 in ten seconds.

    Who stays within his share gets what he asks for. Who asks for more has turns close together while nobody else
    waits. When a crowd comes he has to yield them, and for some it is too late then to ask again.
    """
    fleet = VirtualFleet({"x": Limit(40, 10, {"fetch_ohlcv": 3})}, dispatchers=dispatchers)
    share_s = 4 / (len(others) + 1)
    mine = ask(fleet, Demand(share_s * asks, 25, False, 1), 90, "me")
    for number, demand in enumerate(others):
        ask(fleet, demand, 90, f"other {number}")
    fleet.run(400)
    during = [each for each in mine if each.at_s >= 20]
    least = 0.9 if asks <= 1.0 else 0.7
    assert answered(during) >= least * 70 * share_s * min(1.0, asks) - 3


@pytest.mark.parametrize("dispatchers", [1, 2, 3])
@pytest.mark.parametrize("costs", [{}, {"fetch_ohlcv": 3}], ids=["one cost", "two costs"])
def test_crowds_that_come_at_one_instant_waste_little(costs: dict[str, int], dispatchers: int) -> None:
    """Each dispatcher gives turns to its part of them before it can be told of the others."""
    limit = Limit(400, 10, costs)
    fleet = VirtualFleet({"x": limit}, dispatchers=dispatchers)
    for number, left_s in enumerate([200.0, 30.0]):
        ask(fleet, Demand(60, left_s, True, len(METHODS) if costs else 1), 90, f"crowd {number}")
    ask(fleet, Demand(30, 25, False, 1), 90, "steady")
    fleet.run(400)
    used = [20 <= at_s < 90 for at_s in limit.granted_s]
    assert sum(used) >= 0.95 * 40 * 70


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.integers(1, 300)), min_size=1, max_size=400))
def test_there_are_never_more_turns_than_the_limit_has_calls(asked: list[tuple[int, int, int]]) -> None:
    """Whoever asks, at which tenth of a second, and with how many seconds left: a call takes half a second."""
    line, gap_ms, turns = Line(), 500.0, list[float]()
    coming: list[tuple[float, int, str, float, float | None]] = []
    for number, (at, who, left_s) in enumerate(asked):
        at_ms = NOW_MS + 100.0 * at
        heapq.heappush(coming, (at_ms, number, f"{who}", at_ms + 1000 * left_s, None))
    line.refused(NOW_MS + 3_000)
    while coming:
        now_ms, number, caller, deadline_ms, turn_ms = heapq.heappop(coming)
        if turn_ms is None:
            line.next_ms = max(line.next_ms, now_ms)
            if line.turn_ms(caller, gap_ms, now_ms) > deadline_ms:
                continue
            next_ms: float | None = line.book(caller, gap_ms, now_ms)
        else:
            next_ms = line.come(caller, turn_ms, gap_ms, deadline_ms, now_ms)
        if next_ms is None:
            continue
        if next_ms == turn_ms:
            turns.append(next_ms)
        else:
            heapq.heappush(coming, (max(now_ms, next_ms - LEAD_MS), number, caller, deadline_ms, next_ms))
    turns.sort()
    for seconds in (20, 60, 120):
        for number, at_ms in enumerate(turns):
            assert bisect_right(turns, at_ms + 1000 * seconds) - number <= 2 * seconds + 6


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["book", "again", "come"]), st.integers(0, 500)), max_size=300))
def test_one_caller_alone_has_one_turn_after_the_other(done: list[tuple[str, int]]) -> None:
    line, now_ms, gap_ms, turns = Line(), NOW_MS, 250.0, list[float]()
    line.refused(NOW_MS + 5_000)
    next_ms, again_ms = NOW_MS + 5_000.0, 0.0
    for what, passed_ms in done:
        now_ms += passed_ms
        if what == "book" or not turns:
            next_ms = line.next_ms = max(line.next_ms, now_ms)
            turns.append(line.book("me", gap_ms, now_ms))
            assert turns[-1] == next_ms
            next_ms += gap_ms
        elif what == "again":
            again_ms = max(again_ms + gap_ms, now_ms + 1_000)
            next_ms = max(next_ms + gap_ms, again_ms)
            assert line.again("me", gap_ms, now_ms + 1_000) == again_ms
        else:
            assert line.come("me", turns[0], gap_ms, now_ms + 1_000, now_ms) == turns[0]
            del turns[0]
        assert line.next_ms == next_ms


def test_callers_who_are_gone_are_forgotten() -> None:
    callers = Callers()
    for number in range(10_000):
        now_ms = NOW_MS + 50 * number
        callers.observe(now_ms)
        callers.book(f"{number}", now_ms + 5_000, 50.0)
        callers.went(f"{number}", now_ms, 50.0)
    assert callers.count < 300
    callers.observe(NOW_MS + 10_000_000)
    assert callers.count == 0
    assert not callers.overtakes_ms("me", 50.0)
    assert not any(vars(callers)[name] for name in ("_booked_ms", "_ticks", "_there_until_ms", "_due_ms"))


def test_what_comes_too_late_by_its_share_is_refused_at_once() -> None:
    """The others' deadlines are no reason: a caller is refused for his own line."""
    fleet = VirtualFleet({"x": Limit(50, 10)})
    mine = [fleet.ask(1.0, 20, "x", caller="me") for _ in range(200)]
    others = [fleet.ask(0.0, 100, "x", caller="other") for _ in range(400)]
    fleet.run(150)
    refused = [each for each in mine if each.refused]
    assert refused
    assert sum(each.ended_s - each.at_s < 0.1 for each in refused) >= 0.9 * len(refused)
    assert not late([*mine, *others])
