"""What a worker freezes is not kept when it is no longer used: neither old markets nor closed lanes."""

import gc
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.support.exchange_lanes import Answers, Lanes, call, lanes_on
from tests.support.listed import TICKER, binance, lists
from workers import heap
from workers.exchange.lane_exchange import LaneExchange

COINS = 200
ROUNDS = 8


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """What a test freezes is thawed for the others."""
    yield
    gc.unfreeze()


@pytest.fixture
async def server() -> AsyncIterator[Answers]:
    async with Answers.serving() as answers:
        answers.answer = (200, {}, TICKER)
        answers.by_path["time"] = '{"serverTime":1800000000000}'
        yield answers


@pytest.fixture
async def workers(redis_url: str) -> AsyncIterator[list[Lanes]]:
    """Yield two workers' lanes: one reads the markets, the other takes them from Redis."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(lanes_on(redis_url)) for _ in range(2)]


def others(server: Answers, number: int) -> None:
    """Has the exchange list other coins each time, and Bitcoin always."""
    lists(server, "BTC", *(f"C{number}X{each}" for each in range(COINS)))


async def ask(lane: LaneExchange) -> None:
    """One answer, and one error that has gone through many frames."""
    await lane.call("fetch_ticker", {"symbol": "BTC/USDT"}, call("binance"))
    with pytest.raises(Exception, match="NO/PE"):
        await lane.call("fetch_ticker", {"symbol": "NO/PE"}, call("binance"))


async def test_old_markets_go_though_they_were_frozen(server: Answers, workers: list[Lanes]) -> None:
    others(server, 0)
    lanes = [binance(worker, server) for worker in workers]
    for lane in lanes:
        await lane.open()
    counted: list[int] = []
    for number in range(ROUNDS):
        others(server, number + 1)
        for lane in lanes:
            await lane.open(max_age_s=0 if lane is lanes[0] else 0.5)
            await ask(lane)
        counted.append(heap.freeze()[0])
    # The markets of a round are thousands of objects.
    assert max(counted[2:]) - min(counted[2:]) < COINS, counted


async def test_a_closed_lane_goes_though_it_was_frozen(server: Answers, workers: list[Lanes]) -> None:
    others(server, 0)
    egress = workers[0].egress()
    counted: list[int] = []
    for _ in range(ROUNDS):
        lane = binance(workers[0], server, egress=egress)
        await lane.open(max_age_s=math.inf)
        await ask(lane)
        heap.freeze()
        await lane.close()
        workers[0].forget(lane)
        del lane
        counted.append(heap.freeze()[0])
    # A lane has hundreds of objects.
    assert max(counted[2:]) - min(counted[2:]) < 30 * ROUNDS, counted
