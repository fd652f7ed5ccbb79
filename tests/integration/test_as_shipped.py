"""The shipped configuration, unchanged, with the exchanges' real names: stand-ins serve these over TLS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from deploy.local import Services
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from deploy.standin import NAMES, StandIns
from schemas.messages import ErrorCode, Outcome
from schemas.runtime import modules
from schemas.runtime.store import connect
from tests.support.fleet import Client, Stand, opened, wait_until
from tests.support.reads import BTC, served


@pytest.fixture
async def shipped(
    rabbitmq: RabbitMQ, vhost: str, redis_url: str, redis_server: Redis, tmp_path: Path
) -> AsyncIterator[Stand]:
    """Yield a dispatcher and two workers that have opened all lanes of the shipped file; no limit is broken."""
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator())
        urls = {name: simulator.urls[exchange] for name, exchange in NAMES.items()}
        stand_ins = await stack.enter_async_context(StandIns(tmp_path / "stand-ins", urls))
        fleet = Services(tmp_path, modules.FLEET_TOML, broker_url=vhost, redis_url=redis_url, stand_ins=stand_ins)
        await stack.enter_async_context(fleet)
        await opened(fleet)
        client = await stack.enter_async_context(Client.on(vhost))
        stand = Stand(rabbitmq, vhost, redis_server, simulator, fleet, client)
        yield stand
        assert not await stand.violations(), await stand.broken()


async def test_all_lanes_open_and_answer_every_read(shipped: Stand, redis_url: str) -> None:
    lanes = shipped.fleet.lanes
    assert lanes == list(NAMES.values())
    for worker in shipped.fleet.workers:
        told = (await worker.status())["lanes"]
        assert all(lane["open"] and lane["markets"] and not lane["error"] for lane in told), told

    sent = {
        (lane, method): await shipped.client.send({"method": method, "args": args, "exchanges": [lane]})
        for lane in lanes
        for method, (args, _) in served(lane).items()
    }
    for (lane, method), correlation_id in sent.items():
        result = (await shipped.client.answer(correlation_id, timeout_s=60)).result
        assert result.ok, (lane, method, result)
        assert result.lane == lane
        assert served(lane)[method][1](result.data), (lane, method, str(result.data)[:500])
    await every_key_names_its_exchange(redis_url, lanes)


async def every_key_names_its_exchange(redis_url: str, lanes: list[str]) -> None:
    """Each key in Redis belongs to one exchange, to one request, or to the whole fleet."""
    async with connect(redis_url, timeout_s=5) as client:
        found: Any = await client.keys("*")
    of_the_fleet = (
        "fleet:processes",
        "fleet:health",
        "fleet:knowledge:",
        "fleet:answered:",
        "fleet:claimed:",
        "fleet:probe:",
        "fleet:status:",
        "fleet:{x}:met",  # by the fixture, for tests with exchanges of their own
        "fleet:{coinbaseexchange}:met",
    )
    keys = [key.decode() for key in found if not key.decode().startswith(of_the_fleet)]
    kinds = {lane: {key.split(":")[2] for key in keys if key.startswith(f"fleet:{{{lane}}}:")} for lane in lanes}
    assert sum(key.startswith(tuple(f"fleet:{{{lane}}}:" for lane in lanes)) for key in keys) == len(keys), keys
    assert all({"markets", "default"} <= kind for kind in kinds.values()), kinds


async def test_each_exchange_that_falls_is_stood_in_for_by_the_next(shipped: Stand) -> None:
    lanes = shipped.fleet.lanes
    for lane, other in zip(lanes, lanes[1:] + lanes[:1], strict=True):
        await shipped.simulator.fault(lane, down="refused")
        request: dict[str, Any] = {"exchanges": [lane, other], "strategy": "failover"}
        answer = await shipped.client.ask("fetch_ticker", BTC, **request)
        assert answer.result.ok, answer
        assert [(each.lane, each.outcome, each.code) for each in answer.result.attempts] == [
            (lane, Outcome.FAILED, ErrorCode.EXCHANGE_UNAVAILABLE),
            (other, Outcome.OK, None),
        ]

        async def set_aside(lane: str = lane) -> bool:
            asked = [shipped.client.ask("fetch_ticker", BTC, exchanges=lanes) for _ in range(5)]
            assert all(answer.result.ok for answer in await asyncio.gather(*asked))
            return not await shipped.healthy(lane)

        await wait_until(set_aside, f"{lane} is set aside")
        await shipped.heal()
