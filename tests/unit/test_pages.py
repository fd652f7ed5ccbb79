"""Pages that ccxt fetches side by side belong to one attempt: what they wait for, hold and are told is each its own."""

import asyncio

import pytest

from schemas.config import WorkerConfig
from workers.exchange.bounds import MIB, Bounds
from workers.exchange.call import CALL, Call


async def test_all_pages_that_wait_for_room_go_on_when_it_comes() -> None:
    bounds = Bounds(WorkerConfig())
    other, mine = bounds.holding("okx", "fetch_markets"), bounds.holding("binance", "fetch_markets")
    await other.book()
    await other.take(64 * MIB - 1)
    pages = [asyncio.create_task(mine.book()) for _ in range(4)]
    await asyncio.sleep(0)
    assert not any(page.done() for page in pages)
    pages.pop(1).cancel()  # one gives up, and the others wait on
    await asyncio.sleep(0)
    other.close()
    async with asyncio.timeout(5):
        await asyncio.gather(*pages)
    assert mine.booked
    mine.close()
    assert not bounds.held


async def test_what_other_pages_read_while_one_waits_for_room_is_counted() -> None:
    bounds = Bounds(WorkerConfig())
    other, mine = bounds.holding("okx", "fetch_tickers"), bounds.holding("binance", "fetch_markets")
    await other.take(63 * MIB)
    pages = [asyncio.create_task(mine.take(MIB)) for _ in range(3)]
    await asyncio.sleep(0)
    other.close()
    assert await asyncio.gather(*pages)
    assert mine.held == bounds.held == 3 * MIB
    mine.close()
    assert not bounds.held


async def test_pages_that_were_not_sent_end_with_their_attempt_and_the_last_one_gives_its_room_back() -> None:
    bounds, answered = Bounds(WorkerConfig()), asyncio.Event()
    call = Call("binance", holding=bounds.holding("binance", "fetch_markets"))

    async def page(*, sent: bool, again: bool = False) -> None:
        with call.page():
            if sent:
                call.leaves()
            await answered.wait()
            await call.holding.take(2 * MIB)
            if again:
                call.returns()

    token = CALL.set(call)
    try:
        out, waits = asyncio.create_task(page(sent=True)), asyncio.create_task(page(sent=False))
        stale = asyncio.create_task(page(sent=True, again=True))
        await asyncio.sleep(0)
        call.over()
        with pytest.raises(asyncio.CancelledError):
            await waits
        answered.set()
        await out
        with pytest.raises(asyncio.CancelledError):
            await stale  # nor is one sent again
        with pytest.raises(asyncio.CancelledError):
            await page(sent=False)  # nor does one begin
    finally:
        CALL.reset(token)
    assert not bounds.held
    # What they held is the estimate for the next call of the kind.
    await (again := bounds.holding("binance", "fetch_markets")).book()
    assert again.booked == 4 * MIB
