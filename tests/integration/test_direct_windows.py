"""Where an exchange's fixed windows begin is measured by programs of their own, also where no worker is there."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import ccxt as blocking  # pyright: ignore[reportMissingTypeStubs]
import pytest
import redis.asyncio as redis_client

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from tests.support.fleet import wait_until
from tests.support.redis_faults import set_clock
from workers.budget.keys import Keys
from workers.budget.rules import CLOCK_DUE_S, CLOCK_TTL_S
from workers.direct import charged, purse

CLOCK = Keys("binance:default").clock
AHEAD_S = 20.0


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(exchanges=["binance"]) as running:
        yield running


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Any]:
    async with redis_client.from_url(redis_url) as client:
        await client.delete(CLOCK)
        yield client


@pytest.fixture
async def program(simulator: Simulator, store: Any, redis_url: str) -> AsyncIterator[Any]:
    settings = ccxt_config("binance", simulator.urls["binance"])
    kind: Any = blocking.binance
    made: Any = charged(kind({**settings, "timeout": 20_000}), redis_url)
    yield made
    await asyncio.to_thread(made.close)


async def ahead_s(store: Any) -> float:
    found = await store.get(CLOCK)
    return int(found.partition(b":")[0]) / 1e6


async def test_it_is_measured_again_before_it_lapses(
    simulator: Simulator, store: Any, program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purse, "CLOCK_DUE_S", CLOCK_TTL_S)
    await asyncio.to_thread(program.fetch_time)
    assert await ahead_s(store) == pytest.approx(0.0, abs=2)
    await simulator.set_clock(advance_s=AHEAD_S)
    await asyncio.to_thread(program.fetch_time)
    assert await ahead_s(store) == pytest.approx(AHEAD_S, abs=2)


async def test_it_is_measured_by_the_next_call_where_the_first_could_not(
    simulator: Simulator, store: Any, program: Any
) -> None:
    await simulator.fault("binance", error_rate=1.0)
    with pytest.raises(blocking.BaseError):
        await asyncio.to_thread(program.fetch_time)
    assert await store.get(CLOCK) is None
    await simulator.clear("binance")
    await simulator.set_clock(advance_s=AHEAD_S)
    await asyncio.to_thread(program.fetch_time)
    assert await ahead_s(store) == pytest.approx(AHEAD_S, abs=2)


async def test_it_is_measured_again_after_redis_s_clock_was_corrected(store: Any, program: Any, redis_url: str) -> None:
    await asyncio.to_thread(program.fetch_time)
    assert await store.pttl(CLOCK) > CLOCK_DUE_S * 1000
    try:
        await set_clock(redis_url, 10_000_000)

        async def is_corrected() -> bool:
            return not str((await store.get("fleet:{binance}:set") or b"0:").decode()).startswith("0:")

        await wait_until(is_corrected, "the clock is corrected")
        assert await store.pttl(CLOCK) < CLOCK_DUE_S * 1000
        await asyncio.to_thread(program.fetch_time)
        assert await store.pttl(CLOCK) > CLOCK_DUE_S * 1000
    finally:
        await set_clock(redis_url, 0, 10_000_000)
        await store.flushdb()
