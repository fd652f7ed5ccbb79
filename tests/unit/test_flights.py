"""What will do for a request that takes another one's answer, and how long it waits for it."""

import asyncio
from typing import Any, Literal

from pamqp.commands import Basic

from dispatcher.flights import HELD_S, Flight, Waiter, owner_of
from schemas.messages import JSON, MSGPACK, Attempt, ErrorCode, Request
from schemas.runtime.answers import Answer, Lease, Look, Seen, State
from schemas.runtime.clock import clock_s
from schemas.runtime.results import now_ms

SECOND_US = 1_000_000
NOW_US = 1_800_000_000 * SECOND_US


class Message:
    """A delivery as far as it matters here."""

    body = b""
    properties = Basic.Properties()


def attempt(max_age_ms: int | Literal["bar"] = 1_000, *, within_ms: int = 10_000, **fields: Any) -> Attempt:
    request = Request("fetch_ohlcv", {}, "one", deadline_ms=now_ms() + within_ms, max_age_ms=max_age_ms)
    return Attempt(request, "", 0, now_ms(), **fields)


def waiter(*of: Any, **how: Any) -> Waiter:
    message: Any = Message()
    return Waiter(attempt(*of, **how), message)


def flight(*waiters: Waiter) -> Flight:
    made = Flight("lease", ["answer"])
    made.set_clock(NOW_US, clock_s())
    for each in waiters:
        made.waiters[each] = None
    return made


def answer(age_s: float, *, there_us: int = 0, till_us: int = 0) -> Answer:
    return Answer(NOW_US - round(age_s * SECOND_US), there_us, till_us, b"")


async def test_an_answer_will_do_up_to_its_age() -> None:
    one = waiter(1_000)
    of = flight(one)
    assert of.takes(one, answer(1.0), NOW_US)
    assert not of.takes(one, answer(1.000001), NOW_US)
    assert not of.takes(one, answer(-0.1), NOW_US), "it is from the future: Redis's clock was set"


async def test_what_was_under_way_when_it_came_will_do() -> None:
    one = waiter(0)
    of = flight(one)
    of.set_clock(NOW_US, one.joined_s)
    assert of.takes(one, answer(5, there_us=NOW_US), NOW_US + SECOND_US)
    assert not of.takes(one, answer(5, there_us=NOW_US - 1), NOW_US + SECOND_US), "it was there before"


async def test_an_error_is_one_s_who_came_before_it_was_there() -> None:
    one = waiter(0)
    of = flight(one)
    of.set_clock(NOW_US, one.joined_s)
    late = ErrorCode.DEADLINE_EXCEEDED
    for code, after_us, more_ms, ends in (
        (ErrorCode.BAD_SYMBOL, 0, 0, True),
        (ErrorCode.BAD_SYMBOL, -1, 0, False),
        (late, 0, 0, True),
        (late, 0, -1, False),
        (late, -1, 0, False),
    ):
        look, lease = Look(State.FAILED, "i", 0), Lease("i", "somebody")
        until_ms = one.attempt.deadline_ms + more_ms
        seen = Seen(NOW_US, look, lease, None, code, "why", NOW_US + after_us, until_ms)
        assert of.fails(one, seen) is ends


async def test_an_error_is_one_s_whose_lanes_the_other_could_use_too() -> None:
    message: Any = Message()
    one = Waiter(attempt(), message, ["okx.a", "okx.b"])
    of = flight(one)
    look, lease = Look(State.FAILED, "i", 0), Lease("i", "somebody")
    for code, encoding, lanes, ends in (
        (ErrorCode.RESTRICTED, MSGPACK, {"okx.a", "okx.b"}, True),
        (ErrorCode.RESTRICTED, MSGPACK, {"okx.a", "okx.b", "htx"}, True),
        (ErrorCode.RESTRICTED, MSGPACK, {"okx.b"}, False),
        (ErrorCode.RESTRICTED, MSGPACK, set[str](), False),
        (ErrorCode.TOO_LARGE, JSON, {"okx.a", "okx.b"}, True),
        (ErrorCode.TOO_LARGE, MSGPACK, {"okx.a", "okx.b"}, False),
    ):
        seen = Seen(NOW_US, look, lease, None, code, "why", NOW_US + SECOND_US, 0, encoding, frozenset(lanes))
        assert of.fails(one, seen) is ends


async def test_a_refusal_is_one_s_who_came_before_it_was_there() -> None:
    """However old an answer may be that would do: it may hold for a moment only."""
    one = waiter(60_000)
    of = flight(one)
    of.set_clock(NOW_US, one.joined_s)
    for after_us, takes in ((0, True), (-1, False)):
        refusal = Answer(NOW_US - SECOND_US, NOW_US + after_us, 0, b"", refusal=True)
        assert of.takes(one, refusal, NOW_US + SECOND_US) is takes


async def test_candles_will_do_if_their_bar_had_not_closed_when_it_came() -> None:
    one = waiter("bar")
    of = flight(one)
    of.set_clock(NOW_US, one.joined_s)
    assert of.takes(one, answer(3_000, till_us=NOW_US + 1), NOW_US)
    assert of.takes(one, answer(3_000, till_us=NOW_US + 1), NOW_US + SECOND_US)
    for there_us in (0, NOW_US + SECOND_US):  # also of one that was under way
        assert not of.takes(one, answer(1, there_us=there_us, till_us=NOW_US), NOW_US)


async def test_one_that_comes_later_is_later_by_redis_s_clock() -> None:
    one = waiter("bar")
    of = flight(one)
    of.set_clock(NOW_US, one.joined_s - 2)
    assert of.came_us(one) == NOW_US + 2 * SECOND_US
    of.set_clock(NOW_US, one.joined_s + 2)
    assert of.came_us(one) == NOW_US - 2 * SECOND_US


async def test_patience_is_half_of_the_time_since_another_one_leads() -> None:
    one = waiter(within_ms=10_000)
    of = flight(one)
    assert round(of.patient_until_s(one) - one.joined_s, 1) == 5.0
    of.led(Lease("first", "somebody"))
    at_s = of.patient_until_s(one)
    await asyncio.sleep(0.01)
    of.led(Lease("first", "somebody"))
    assert of.patient_until_s(one) == at_s
    of.led(Lease("second", "somebody"))
    assert of.patient_until_s(one) > at_s
    late = waiter(within_ms=10**9)
    assert of.due(late) == late.joined_s + HELD_S
    assert of.patient_until_s(waiter(within_ms=-5_000)) <= clock_s()


async def test_a_turn_that_is_much_sooner_is_worth_a_call() -> None:
    of = flight(waiter())
    of.led(Lease("first", "somebody"))
    assert not of.overtakes(0, 0), "its turn is not known"
    of.looked = Look(State.ASKS, "first", 0, 31_001)
    assert of.turn_ms == 31_001
    for own_ms, sooner in ((-5, True), (0, True), (15_000, True), (15_001, False), (40_000, False)):
        assert of.overtakes(own_ms, 0) is sooner
    assert not of.overtakes(30_002, 30_002), "it comes soon"
    of.led(Lease("second", "somebody"))
    assert of.turn_ms == 0, "that was another's"


async def test_a_copy_has_its_request_s_name() -> None:
    first = attempt(reply_to="a", digest="d")
    assert owner_of(first) == owner_of(attempt(reply_to="a", digest="d", taken="again", copy=True))
    assert owner_of(first) != owner_of(attempt(reply_to="b", digest="d"))
    assert owner_of(first) != owner_of(attempt(reply_to="a", digest="e"))
