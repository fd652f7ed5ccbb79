"""What lanes list, from a simulator through workers and Redis to the dispatcher's choice."""

import asyncio
from pathlib import Path
from typing import Any

import redis.asyncio

from deploy.local import Services, simulated
from deploy.simulator.process import Simulator
from schemas.messages import ErrorCode
from tests.support.fleet import QUICK, Client, wait_until

SOL = {"symbol": "SOL/USDT"}


async def test_each_lane_is_asked_for_what_it_lists_alone(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with Simulator(exchanges=["okx", "htx"]) as simulator, redis.asyncio.from_url(redis_url) as store:
        await simulator.fault("htx", unlisted=["SOL"])
        config = {**simulated(simulator.urls), **QUICK, "worker": {"renew_every_s": 2.0}}
        async with (
            Services(tmp_path, config, broker_url=vhost, redis_url=redis_url) as fleet,
            Client.on(vhost) as client,
        ):
            await wait_until(lambda: _refused_at_once(client, 1), "the dispatcher knows what the lanes list")
            sent = [await client.send({"method": "fetch_ticker", "args": SOL}) for _ in range(10)]
            for one in sent:
                result = (await client.answer(one)).result
                assert {item.lane for item in result.attempts} == {"okx"}, result
            # To all exchanges: one result each from those that list it.
            everywhere: dict[str, Any] = {"method": "fetch_ticker", "args": SOL, "exchanges_mode": "all"}
            answer = await client.answer(await client.send(everywhere))
            assert (answer.result.lane, answer.result.results) == ("okx", 1)

            # A dispatcher that starts while Redis is empty goes by the methods, and is told later.
            await store.delete(*await _keys(store))
            fleet.add_dispatcher()
            await fleet.ready(fleet.lanes)
            await fleet.dispatchers[0].stop(grace_s=20)
            assert (await client.ask("fetch_ticker", SOL)).result.ok
            await wait_until(lambda: _keys(store), "the workers put it there again")
            await wait_until(lambda: _refused_at_once(client, 5), "the new dispatcher knows what the lanes list")
        assert not (await simulator.counters())["violations"]


async def _keys(store: redis.asyncio.Redis) -> list[Any]:
    found: Any = await store.keys("fleet:knowledge:*")
    return list(found)


async def _refused_at_once(client: Client, times: int) -> bool:
    """Whether every dispatcher refuses requests for unlisted symbols without an attempt."""
    # New ones each time: those that the lanes have refused are known from that.
    names = [f"NO{client.new_id().rpartition('-')[2]}/SUCH" for _ in range(times)]
    sent = [await client.send({"method": "fetch_ticker", "args": {"symbol": name}}) for name in names]
    answers = await asyncio.gather(*(client.answer(one) for one in sent))
    assert {answer.code for answer in answers} == {ErrorCode.BAD_SYMBOL}
    return not any(answer.result.attempts for answer in answers)
