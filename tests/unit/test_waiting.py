"""Lines for budget: who is refused, who waits, and when calls leave; with real routers and a limit in virtual time."""

import random
from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace

from dispatcher.pace import Pace
from dispatcher.told import Change
from dispatcher.waiting import LONGEST_MS, PLACES_KEPT, TOLD_MS, Waiting
from schemas.messages import Attempt, Bound, Request, Turn
from tests.support.virtual_day import day
from tests.support.virtual_fleet import Asked, Limit, VirtualFleet, false_refusals, late, most_in

NOW_MS = 1_000_000_000_000
SECONDS = 120
# A request is asked for so long before its turn, and may leave then: who came before may have to wait so much longer.
TOLERANCE_S = 1.5


def ask(
    fleet: VirtualFleet, *, crowd: int, every_s: int, per_s: float, deadlines_s: tuple[float, float], lane: str = "x"
) -> list[Asked]:
    """Crowds, and more requests evenly between them, with deadlines of all lengths."""
    instants = [number / per_s for number in range(int(SECONDS * per_s))]
    instants += [at_s for at_s in range(0, SECONDS, every_s) for _ in range(crowd)]
    draw = random.Random(1)
    asked = [fleet.ask(at_s, draw.uniform(*deadlines_s), lane) for at_s in sorted(instants)]
    fleet.run(SECONDS + deadlines_s[1] + 1)
    assert all(each.ended_s for each in asked)
    return asked


@pytest.mark.parametrize("dispatchers", [1, 3])
@pytest.mark.parametrize(
    ("amount", "window_s", "crowd", "every_s", "per_s", "deadlines_s"),
    [
        pytest.param(200, 10, 280, 20, 1.0, (16, 30), id="10 s windows, 15 a second of 20"),
        pytest.param(133, 30, 180, 60, 0.5, (50, 70), id="30 s windows, 3.5 a second of 4.4"),
    ],
)
def test_what_can_be_answered_is_not_refused(
    amount: int,
    window_s: float,
    crowd: int,
    every_s: int,
    per_s: float,
    deadlines_s: tuple[float, float],
    dispatchers: int,
) -> None:
    """Nothing leaves for most of a window after a crowd: a rate measured then says nothing."""
    fleet = VirtualFleet({"x": Limit(amount, window_s)}, dispatchers=dispatchers)
    asked = ask(fleet, crowd=crowd, every_s=every_s, per_s=per_s, deadlines_s=deadlines_s)
    assert all(each.ok for each in asked), Counter(each.why for each in asked)
    assert most_in(fleet.left_s["x"], window_s) <= amount


def test_an_exchange_that_answers_slowly_has_no_backlog() -> None:
    """What is out there has its budget, and may be answered at once."""
    fleet = VirtualFleet({"x": None}, latency_s=3.0)
    asked = ask(fleet, crowd=150, every_s=5, per_s=20, deadlines_s=(4.5, 8))
    assert all(each.ok for each in asked), Counter(each.why for each in asked)


@pytest.mark.parametrize(
    ("amount", "window_s", "crowd", "every_s", "per_s", "deadlines_s"),
    [
        pytest.param(50, 10, 150, 30, 5.0, (1, 40), id="10 s windows, twice too much"),
        pytest.param(1, 1, 0, 30, 1.5, (1, 30), id="one a second"),
        pytest.param(2, 2, 30, 60, 2.0, (1, 60), id="two in two seconds, and crowds"),
    ],
)
def test_what_is_too_much_is_refused_at_once_and_the_rest_is_answered_in_time(
    amount: int, window_s: float, crowd: int, every_s: int, per_s: float, deadlines_s: tuple[float, float]
) -> None:
    fleet = VirtualFleet({"x": Limit(amount, window_s)})
    asked = ask(fleet, crowd=crowd, every_s=every_s, per_s=per_s, deadlines_s=deadlines_s)
    refused = [each for each in asked if each.refused]
    assert refused
    assert not false_refusals(asked, TOLERANCE_S)
    assert not late(asked)
    assert all(each.ended_s - each.at_s < 0.1 for each in refused)
    assert most_in(fleet.left_s["x"], window_s) <= amount


@pytest.mark.parametrize("dispatchers", [2, 3])
@pytest.mark.parametrize(
    ("amount", "window_s", "per_s"),
    [
        pytest.param(5, 1, 4.85, id="1 s windows, nearly all"),
        pytest.param(5, 1, 10, id="1 s windows, twice too much"),
        pytest.param(50, 10, 10, id="10 s windows, twice too much"),
        pytest.param(133, 30, 8.9, id="30 s windows, twice too much"),
        pytest.param(300, 60, 10, id="60 s windows, twice too much"),
    ],
)
def test_several_dispatchers_refuse_hardly_more_than_one(
    amount: int, window_s: float, per_s: float, dispatchers: int
) -> None:
    """Their lines differ, as it is chance which of them a request meets; so it asks others before it is refused."""
    alone, asked = (
        ask(
            VirtualFleet({"x": Limit(amount, window_s)}, dispatchers=number),
            crowd=0,
            every_s=SECONDS,
            per_s=per_s,
            deadlines_s=(1, 40),
        )
        for number in (1, dispatchers)
    )
    assert len(false_refusals(asked, TOLERANCE_S)) <= 0.015 * len(asked)
    assert len(late(asked)) <= 0.005 * len(asked)
    assert sum(each.ok for each in asked) >= 0.98 * sum(each.ok for each in alone)


def test_a_day_of_mixed_load() -> None:
    """A short one; `python -m tests.support.virtual_day` runs all of it."""
    for dispatchers, of_one_instant in ((1, 0.0), (2, 0.002)):
        rows = day(0.25, dispatchers)
        assert not any(row.false for row in rows), rows
        assert sum(row.of_one_instant for row in rows) <= of_one_instant * sum(row.asked for row in rows), rows
        for row in rows:
            assert row.answered + row.refused + row.late == row.asked
            assert row.late <= 0.002 * row.asked, row


def test_those_that_wait_longer_than_they_can_reserve_leave_evenly_and_in_order() -> None:
    """They do not come back together when the window ends, and each comes back about once."""
    fleet = VirtualFleet({"x": Limit(133, 30)})
    asked = [fleet.ask(0.0, 300, "x") for _ in range(600)]
    fleet.run(300)
    assert all(each.ok for each in asked)
    left_s = [at_s for at_s in fleet.left_s["x"] if at_s >= 30]
    assert most_in(left_s, 5.0) <= 2 * 5 * 133 / 30
    assert left_s[-1] < 30 * 600 / 133 + 2  # and nothing of the limit is wasted
    assert sum(each.returned for each in asked) <= len(asked)
    ended_s = [each.ended_s for each in asked if each.returned]
    assert all(after > before - TOLERANCE_S for before, after in pairwise(ended_s))


@pytest.mark.parametrize("dispatchers", [1, 3])
def test_those_that_are_refused_for_a_pause_take_no_places_in_line(dispatchers: int) -> None:
    """Or those that come after it would be refused for a line in which nobody waits."""
    fleet = VirtualFleet({"x": Limit(50, 10)}, dispatchers=dispatchers)
    before = [fleet.ask(number / 10, 100, "x") for number in range(100)]  # twice what the limit has
    fleet.pause("x", 10, 500)
    during = [fleet.ask(10 + number / 10, 200, "x") for number in range(1000)]
    fleet.lift(120)
    after = [fleet.ask(121 + number, 20, "x") for number in range(60)]
    fleet.run(300)
    assert all(each.ended_s for each in (*before, *during, *after))
    assert {each.why.partition(" for ")[0].partition(":")[2] for each in during if not each.ok} <= {" x is paused"}, (
        Counter(each.why for each in during)
    )
    assert all(each.ok for each in after), Counter(each.why for each in after)


def one(request: Request, caller: str = "") -> Attempt:
    """Such a request on its way."""
    return Attempt(replace(request, deadline_ms=NOW_MS + 600_000), "", 0, NOW_MS, caller)


def test_other_methods_and_bulk_requests_are_not_in_line() -> None:
    waiting, ticker, trades = Waiting(), Request("fetch_ticker"), Request("fetch_trades")
    waiting.refused(ticker, Bound("all", NOW_MS + 5_000, 100.0), NOW_MS)
    assert waiting.delay_ms(one(ticker), NOW_MS) == 5_000
    for other in (trades, Request("fetch_ticker", priority="bulk")):
        assert not waiting.delay_ms(one(other), NOW_MS)
        assert not waiting.has_line(other, NOW_MS)
    waiting.refused(trades, Bound("all", NOW_MS, 300.0), NOW_MS)  # of the same bucket, and dearer
    assert waiting.book(one(trades), "x", NOW_MS) == Turn("x", "all", NOW_MS + 5_000, 300.0)
    assert waiting.delay_ms(one(ticker), NOW_MS) == 5_300


def test_pairs_that_are_counted_apart_wait_apart() -> None:
    waiting = Waiting()
    btc, eth = (Request("fetch_trades", {"symbol": symbol}) for symbol in ("BTC/USD", "ETH/USD"))
    waiting.refused(btc, Bound("trades:BTC", NOW_MS + 5_000, 1_000.0, apart=True), NOW_MS)
    assert not waiting.delay_ms(one(eth), NOW_MS)
    assert waiting.book(one(eth), "x", NOW_MS) is None
    waiting.refused(eth, Bound("pairs", NOW_MS + 9_000, 200.0), NOW_MS)  # all pairs together
    assert waiting.delay_ms(one(btc), NOW_MS) == 9_000
    assert waiting.last_ms == NOW_MS + 9_000


def test_a_dispatcher_that_has_just_started_learns_the_line_from_those_that_pass() -> None:
    ticker, first, second = Request("fetch_ticker"), Waiting(), Waiting()
    second.dispatchers = 2
    first.refused(ticker, Bound("all", NOW_MS + 5_000, 100.0), NOW_MS)
    turns = [first.book(one(ticker), "x", NOW_MS) for _ in range(10)]
    assert turns[-1]
    second.saw(one(ticker), turns[-1], NOW_MS)
    assert second.delay_ms(one(ticker), NOW_MS) == first.delay_ms(one(ticker), NOW_MS) == 6_000


def test_a_dispatcher_that_has_just_started_takes_the_line_for_those_that_pass() -> None:
    """Not for that of all callers: others would be refused for it."""
    ticker, waiting = Request("fetch_ticker"), Waiting()
    waiting.saw(one(ticker, "many"), Turn("x", "all", NOW_MS + 60_000, 100.0), NOW_MS)
    assert waiting.delay_ms(one(ticker, "many"), NOW_MS) == 60_100
    assert waiting.delay_ms(one(ticker, "other"), NOW_MS) == 100


def test_a_turn_that_is_later_by_chance_makes_the_line_no_longer() -> None:
    """Else all lines would become as long as the longest, and nobody would use the room between."""
    ticker, waiting = Request("fetch_ticker"), Waiting()
    waiting.dispatchers = 2
    waiting.refused(ticker, Bound("all", NOW_MS + 5_000, 100.0), NOW_MS)
    waiting.saw(one(ticker), Turn("x", "all", NOW_MS + 6_000, 100.0), NOW_MS)
    assert waiting.delay_ms(one(ticker), NOW_MS) == 5_000
    waiting.saw(one(ticker), Turn("x", "all", NOW_MS + 15_000, 100.0), NOW_MS)
    assert waiting.delay_ms(one(ticker), NOW_MS) == 15_100


def test_one_that_found_no_room_in_its_turn_does_not_go_to_the_end() -> None:
    ticker, waiting = one(Request("fetch_ticker")), Waiting()
    waiting.refused(ticker.request, Bound("all", NOW_MS + 5_000, 100.0), NOW_MS)
    turns = [waiting.book(ticker, "x", NOW_MS) for _ in range(10)]
    assert turns[0]
    later = waiting.again(ticker, turns[0], Bound("all", NOW_MS + 5_500, 100.0))
    assert later.at_ms == NOW_MS + 5_500
    assert waiting.delay_ms(ticker, NOW_MS) == 6_100  # one more is before those that come now
    waiting.give_back(later, NOW_MS)
    assert waiting.delay_ms(ticker, NOW_MS) == 6_000


def test_turns_come_when_there_is_room_where_a_window_was_filled_in_parts() -> None:
    """Five calls at one time and five 20 s later: so room comes a minute later, and the step is six seconds."""
    ticker, waiting = one(Request("fetch_ticker")), Waiting()
    rooms = [(NOW_MS + 5_000, 1), (NOW_MS + 5_000, 5), (NOW_MS + 45_000, 6), (NOW_MS + 45_000, 10)]
    waiting.refused(ticker.request, Bound("all", NOW_MS + 5_000, 6_000.0, rooms=rooms), NOW_MS)
    turns = [waiting.book(ticker, "x", NOW_MS) for _ in range(12)]
    after_s = [(turn.at_ms - NOW_MS) / 1000 for turn in turns if turn]
    assert after_s == [5, 11, 17, 23, 29, 45, 51, 57, 63, 69, 75, 81]
    waiting.refused(ticker.request, Bound("all", NOW_MS + 6_000, 6_000.0, rooms=[(NOW_MS + 900_000, 2)]), NOW_MS)
    assert waiting.delay_ms(ticker, NOW_MS) == 87_000  # that is known better by now


POINTS = st.lists(st.tuples(st.integers(0, 100_000), st.integers(2, 60)), max_size=10)


@given(POINTS, st.floats(0, 100_000), st.floats(0, 50_000))
def test_a_pace_is_the_same_there_and_back_and_never_faster_than_the_clock(
    points: list[tuple[int, int]], from_ms: float, by_ms: float
) -> None:
    calls = sorted({count for _, count in points})
    rooms = list(zip(sorted(at_ms for at_ms, _ in points), calls, strict=False))
    pace = Pace(1_000, 500, rooms)
    later_ms = pace.later_ms(from_ms, by_ms)
    assert later_ms >= from_ms + by_ms - 0.01
    assert pace.later_ms(later_ms, -by_ms) == pytest.approx(from_ms, abs=0.01)
    assert pace.between_ms(from_ms, later_ms) == pytest.approx(by_ms, abs=0.01)
    for at_ms, count in rooms:
        assert pace.later_ms(1_000, 500 * (count - 1)) >= at_ms - 0.01


def test_a_limit_that_says_nothing_of_how_room_comes_is_read_as_before() -> None:
    assert msgpack.decode(msgpack.encode({"key": "all", "at_ms": 5, "step_ms": 1.0}), type=Bound) == Bound(
        "all", 5, 1.0
    )


class Pair:
    """Two dispatchers that tell each other what they do, as late as the test wants."""

    def __init__(self) -> None:
        self.waiting = [Waiting(), Waiting()]
        self.told: list[tuple[int, Change]] = []
        for number, each in enumerate(self.waiting):
            each.dispatchers, each.tellers = 2, 1
            each.tell = partial(self.note, 1 - number)

    def note(self, to: int, change: Change) -> None:
        self.told.append((to, msgpack.decode(msgpack.encode(change), type=Change)))

    def deliver(self, now_ms: int, count: int = 1_000_000) -> None:
        due, self.told = self.told[:count], self.told[count:]
        for to, change in due:
            self.waiting[to].take(change, now_ms)


DONE = st.tuples(st.sampled_from(["room", "book", "book", "book", "back"]), st.integers(0, 1), st.integers(0, 5))


@given(st.lists(DONE, max_size=40))
def test_dispatchers_that_tell_each_other_know_the_same_line(done: list[tuple[str, int, int]]) -> None:
    ticker, pair, turns, now_ms = Request("fetch_ticker"), Pair(), list[Turn](), NOW_MS
    for what, who, passed in done:
        now_ms += 10 * passed
        pair.deliver(now_ms, passed)
        waiting = pair.waiting[who]
        if what == "room":
            waiting.refused(ticker, Bound("all", NOW_MS + 60_000, 100.0), now_ms)
        elif what == "back" and turns:
            pair.deliver(now_ms)  # a request comes back from a delay queue, and so later than what was told of it
            waiting.give_back(turns.pop(), now_ms)
        elif what == "book" and (turn := waiting.book(one(ticker), "x", now_ms)):
            turns.append(turn)
    pair.waiting[0].refused(ticker, Bound("all", NOW_MS + 60_000, 100.0), now_ms)
    pair.deliver(now_ms)
    now_ms += TOLD_MS + 1
    first, second = (each.delay_ms(one(ticker), now_ms) for each in pair.waiting)
    assert first == second


def test_a_crowd_at_two_dispatchers_gets_turns_one_behind_the_other() -> None:
    ticker, pair = one(Request("fetch_ticker")), Pair()
    pair.waiting[0].refused(ticker.request, Bound("all", NOW_MS + 5_000, 100.0), NOW_MS)
    pair.deliver(NOW_MS)
    turns = [pair.waiting[0].book(ticker, "x", NOW_MS) for _ in range(4)]
    assert [turn.at_ms - NOW_MS for turn in turns if turn] == [5_000, 5_200, 5_400, 5_600]  # the other one may give
    pair.deliver(NOW_MS)
    # It gave none: those between are free, and known to be.
    later = pair.waiting[1].book(ticker, "x", NOW_MS + TOLD_MS + 1)
    assert later
    assert later.at_ms - NOW_MS == 5_400
    assert pair.waiting[0].delay_ms(ticker, NOW_MS + 200) == 5_200


def test_one_that_would_be_too_late_asks_again_while_others_may_not_have_told_yet() -> None:
    ticker, pair = one(Request("fetch_ticker")), Pair()
    pair.waiting[0].refused(ticker.request, Bound("all", NOW_MS + 5_000, 100.0), NOW_MS)
    for _ in range(10):
        pair.waiting[0].book(ticker, "x", NOW_MS)
    attempt = replace(ticker, received_ms=NOW_MS, request=replace(ticker.request, deadline_ms=NOW_MS + 60_000))
    assert pair.waiting[0].shorter_elsewhere_ms(attempt, NOW_MS) == 1_000
    assert pair.waiting[0].delay_ms(attempt, NOW_MS) == 7_000
    later_ms = NOW_MS + TOLD_MS + 1
    assert pair.waiting[0].shorter_elsewhere_ms(attempt, later_ms) == 0
    assert pair.waiting[0].delay_ms(attempt, later_ms) == 6_000 - TOLD_MS - 1


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Change,
            st.sampled_from(["all", "other"]),
            st.sampled_from(["room", "book", "again", "come", "back"]),
            st.floats(-1e15, 1e15),
            st.sampled_from(["", "anna"]),
            st.floats(-1e15, 1e15),
            st.floats(-1e15, 1e15),
            st.none() | st.builds(Bound, st.just("all"), st.integers(-(2**50), 2**50), st.floats(-1e15, 1e15)),
        ),
        max_size=20,
    )
)
def test_whatever_is_told_the_line_is_no_longer_than_any_window(told: list[Change]) -> None:
    ticker, waiting = Request("fetch_ticker"), Waiting()
    waiting.dispatchers, waiting.tellers = 2, 1
    waiting.refused(ticker, Bound("all", NOW_MS + 5_000, 100.0), NOW_MS)
    for change in told:
        waiting.take(change, NOW_MS)
    assert 0 <= waiting.delay_ms(one(ticker), NOW_MS) <= 2 * LONGEST_MS


SAID = st.tuples(st.integers(-(2**50), 2**50), st.floats(-1e15, 1e15), st.booleans())


@settings(deadline=None)
@given(st.lists(SAID, max_size=20), st.lists(st.tuples(st.integers(-(2**50), 2**50), st.integers(-(2**50), 2**50))))
def test_whatever_a_message_says_the_line_is_no_longer_than_any_window(
    said: list[tuple[int, float, bool]], rooms: list[tuple[int, int]]
) -> None:
    ticker, waiting = Request("fetch_ticker"), Waiting()
    waiting.dispatchers = 3
    for at_ms, step_ms, apart in said:
        waiting.refused(ticker, Bound("all", at_ms, step_ms, apart, rooms), NOW_MS)
        waiting.saw(one(ticker), Turn("x", "all", at_ms, step_ms, apart), NOW_MS)
    assert 0 <= waiting.delay_ms(one(ticker), NOW_MS) <= LONGEST_MS


def test_lines_that_are_over_are_forgotten() -> None:
    waiting = Waiting()
    for number in range(3 * PLACES_KEPT):
        request = Request("fetch_trades", {"symbol": f"C{number}/USDT"})
        now_ms = NOW_MS + number
        waiting.refused(request, Bound(f"trades:{number}", now_ms + 100, 1.0, apart=True), now_ms)
    assert len(waiting._places) <= PLACES_KEPT + 1  # pyright: ignore[reportPrivateUsage]
