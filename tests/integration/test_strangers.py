"""Strangers on our address, at a simulator that forgives nothing: they and we together stay within the limit."""

import asyncio
import time

import aiohttp

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from tests.support.exchange_lanes import Lanes, call
from workers.exchange.errors import NoBudget

AMOUNT, WINDOW_S, PRICE = 6000, 60, 2
PART, GONE = 0.3, 0.75
# Weight of one of ours: few calls fill the minute.
OURS = 80


async def test_a_stranger_takes_its_part_and_nobody_is_refused(lanes: Lanes) -> None:
    """It takes 30 % of a minute, evenly. We ask for everything, and what it will still take is left to it.

    The simulator's clock is moved to where a quarter of its minute is left, so that nobody waits for a minute.
    """
    async with Simulator(exchanges=["binance"]) as simulator, aiohttp.ClientSession() as session:
        url = simulator.urls["binance"]
        gone_s = time.time() % WINDOW_S
        # Now three quarters of a minute are over: what is left of it can be waited for.
        await simulator.set_clock(advance_s=(GONE * WINDOW_S - gone_s) % WINDOW_S)
        ends_s = time.monotonic() + (1 - GONE) * WINDOW_S
        lane, budget = lanes.lane("binance", ccxt_config("binance", url))
        statuses: set[int] = set()

        async def take(path: str) -> None:
            async with session.get(f"{url}/api/v3/{path}") as answer:
                statuses.add(answer.status)

        async def take_evenly() -> None:
            while time.monotonic() < ends_s - 1:
                await take("klines?symbol=BTCUSDT&interval=1m")
                await asyncio.sleep(PRICE / (AMOUNT * PART / WINDOW_S))

        for _ in range(int(AMOUNT * PART * GONE / OURS)):  # what it took of this minute so far, in few calls
            await take("ticker/24hr")
        stranger = asyncio.create_task(take_evenly())
        await lane.open()
        calls = 0
        while not stranger.done():
            try:
                await lane.call("fetch_tickers", {}, call("binance", max_wait_s=0))
                calls += 1
            except NoBudget:
                await asyncio.sleep(0.05)
        await stranger
        counters = await simulator.counters()
        assert counters["violations"] == 0
        assert statuses == {200}
        # What is left to it shrinks with the minute; all else is used.
        assert counters["exchanges"]["binance"]["buckets"]["weight"]["weight"] > AMOUNT * 0.8
        assert calls * OURS > AMOUNT * 0.5
        assert (await budget.usage())["spot"].effective == 1
