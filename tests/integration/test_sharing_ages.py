"""How old an answer may be that is shared, and whose it is no more: dispatchers on a real Redis."""

import asyncio

import pytest

from dispatcher.verdicts import Failed, Leads
from schemas import bars
from schemas.messages import ErrorCode, Request
from schemas.runtime.clock import clock_s
from schemas.runtime.results import now_ms
from tests.support.sharers import Dispatcher, data, ended, given
from workers.keeping import Keeping

pytestmark = pytest.mark.both_stores
# A dispatcher knows when a request came, by Redis's clock, only as closely as Redis answers.
UNSURE_S = 1.0


async def test_an_answer_that_is_too_old_is_asked_for_anew(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    keeping.put(ended(await one.leads(), 1, sent_s=clock_s() - 5))
    assert (await given(other.ask())).age_ms >= 5_000
    share = await one.leads(max_age_ms=4_000)
    waiting = other.ask(max_age_ms=0)
    await other.held(1)
    keeping.put(ended(share, 2))
    assert await data(await given(waiting)) == 2
    assert await data(await given(one.ask())) == 2
    await one.leads(max_age_ms=0)


async def test_who_allows_more_than_those_that_wait_gets_what_is_there(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    keeping.put(ended(await one.leads(), "old", sent_s=clock_s() - 5))
    await keeping.close()
    share = await one.leads(max_age_ms=0)
    waiting = other.ask(max_age_ms=0)
    await other.held(1)
    for _ in range(3):
        assert await data(await given(other.ask(max_age_ms=60_000))) == "old"
    assert not waiting.done()
    keeping.put(ended(share, "new"))
    assert await data(await given(waiting)) == "new"


async def test_an_answer_that_redis_took_late_is_nobody_s_who_came_after_it(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    share = await one.leads(max_age_ms=0)
    before = other.ask(max_age_ms=0)
    await other.held(1)
    await asyncio.sleep(UNSURE_S)
    there_s = clock_s()
    after = [each.ask(max_age_ms=0) for each in two]
    await one.held(1)
    await other.held(2)
    keeping.put(ended(share, "late", there_s=there_s))
    assert await data(await given(before)) == "late"
    leads, waits = await asyncio.wait(after, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    verdict = await leads.pop()
    assert isinstance(verdict, Leads)
    await asyncio.sleep(UNSURE_S)
    keeping.put(ended(verdict.share, "new"))
    assert await data(await given(waits.pop())) == "new"


async def test_so_is_an_error_that_redis_took_late(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    share = await one.leads()
    before = other.ask()
    await other.held(1)
    await asyncio.sleep(UNSURE_S)
    there_s = clock_s()
    after = other.ask()
    await other.held(2)
    keeping.put(ended(share, None, code=ErrorCode.MAINTENANCE, why="closed", there_s=there_s))
    assert await before == Failed(ErrorCode.MAINTENANCE, "closed")
    assert isinstance(await after, Leads)


async def test_a_late_answer_leaves_who_asks_by_now_alone(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    first = await one.leads(max_age_ms=0)
    there_s = clock_s()
    second = await other.ask(max_age_ms=0, within_ms=400)
    assert isinstance(second, Leads)
    waiting = one.ask(max_age_ms=0)
    await one.held(1)
    keeping.put(ended(first, "late", there_s=there_s))
    await keeping.close()
    await other.held(0)
    more = other.ask(max_age_ms=0)
    await other.held(1)
    keeping.put(ended(second.share, "new"))
    assert [await data(await given(task)) for task in (waiting, more)] == ["new", "new"]


CANDLES = Request("fetch_ohlcv", {"symbol": "BTC/USDT", "timeframe": "1M", "limit": 2}, max_age_ms="bar")


async def test_candles_are_shared_until_their_bar_closes(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    now = now_ms()
    last_ms, next_ms = bars.closes_ms("1M", now)
    rows = [[bars.closes_ms("1M", last_ms - 1)[0], 1.0], [last_ms, 2.0]]
    settled = now - last_ms > bars.SETTLES_MS and next_ms - now > 60_000
    assert settled, "the tests run just as a month begins"
    keeping.put(ended(await one.leads(request=CANDLES), rows, CANDLES))
    assert await data(await given(other.ask(request=CANDLES))) == rows
    assert await data(await given(other.ask(request=CANDLES, max_age_ms=60_000))) == rows


async def test_candles_of_a_bar_that_has_closed_since_are_asked_for_anew(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    seconds = Request("fetch_ohlcv", {"symbol": "BTC/USDT", "timeframe": "1s"}, max_age_ms="bar")
    share = await one.leads(request=seconds)
    keeping.put(ended(share, [], seconds, sent_s=clock_s() - 2))
    await keeping.close()
    await other.leads(request=seconds)
    assert await given(other.ask(request=seconds, max_age_ms=60_000))
