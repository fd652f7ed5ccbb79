"""Workers that serve a part of the lanes, and what everything says of a lane that none of them serves."""

import signal
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import tomli_w

from deploy.local import Service, Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from schemas.operator import output, shapes
from schemas.status import NOT_SERVED
from tests.conftest import new_vhost
from tests.support.commands import Done, command
from tests.support.fleet import QUICK, Client, wait_until

BTC = {"symbol": "BTC/USDT"}


@pytest.fixture
async def parts(
    rabbitmq: RabbitMQ, vhost_numbers: Iterator[int], tmp_path: Path
) -> AsyncIterator[tuple[str, str, Services]]:
    """Yield the URLs of RabbitMQ and Redis, and a fleet of one dispatcher whose worker serves OKX and Binance alone."""
    url = await new_vhost(rabbitmq, vhost_numbers)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(tmp_path / "redis"))
        simulator = await stack.enter_async_context(Simulator(exchanges=["binance", "okx", "kraken"]))
        config = {**simulated(simulator.urls), **QUICK}
        fleet = Services(tmp_path, config, broker_url=url, redis_url=redis.url, workers=0)
        await stack.enter_async_context(fleet)
        fleet.add_worker("--lanes", "okx,bin*")
        await fleet.ready(["okx", "binance"])
        yield url, redis.url, fleet


async def lanes_of(worker: Service) -> list[str]:
    return sorted(each["lane"] for each in (await worker.status()).get("lanes", ()))


async def test_a_worker_serves_its_part_and_all_say_so_of_the_rest(parts: tuple[str, str, Services]) -> None:
    url, redis_url, fleet = parts

    async def run(*words: str) -> Done:
        return await command(*words, broker_url=url, redis_url=redis_url)

    (worker,) = fleet.workers
    assert await lanes_of(worker) == ["binance", "okx"]
    assert (await worker.ask("readyz"))[0] == 200
    async with Client.on(url) as client:
        for lane in ("okx", "binance"):
            assert (await client.ask("fetch_ticker", BTC, exchanges=[lane])).result.ok
        answer = await client.ask("fetch_ticker", BTC, exchanges=["kraken"], deadline_ms=int(time.time() * 1000) + 2000)
        assert answer.code == "deadline_exceeded"
        assert NOT_SERVED in str(answer.result.error)

    views = {each.lane: each for each in msgspec.convert((await run("lanes", "--json")).json, list[shapes.LaneView])}
    assert {name: view.workers for name, view in views.items()} == {"binance": 1, "okx": 1, "kraken": 0}
    assert views["kraken"].reason == NOT_SERVED
    doctor = await run("doctor")
    assert doctor.code == output.WRONG
    assert any("lane kraken" in line and NOT_SERVED in line for line in doctor.out.splitlines()), doctor.out
    status = msgspec.convert((await run("status", "--json")).json, shapes.StatusView)
    assert [(each.lanes, each.unopened) for each in status.workers] == [(2, {})]

    other = fleet.add_worker("--lanes", "kraken", "--processes", "2")
    await fleet.ready(["kraken"])
    assert {lane["lane"] for each in (await other.status())["workers"] for lane in each["status"]["lanes"]} == {
        "kraken"
    }
    async with Client.on(url) as client:
        assert (await client.ask("fetch_ticker", BTC, exchanges=["kraken"])).result.ok


async def test_lanes_go_though_a_pattern_is_left_without_any(parts: tuple[str, str, Services]) -> None:
    _, _, fleet = parts
    (worker,) = fleet.workers
    config = tomllib.loads(fleet.config_file.read_text())
    kept = dict(config["lanes"])

    async def change(*lanes: str) -> None:
        config["lanes"] = {name: kept[name] for name in lanes}
        fleet.config_file.write_text(tomli_w.dumps(config))
        worker.send(signal.SIGHUP)

        async def done() -> bool:
            return await lanes_of(worker) == sorted({"okx", "binance"} & set(lanes))

        await wait_until(done, f"it serves what is left of {lanes}")

    await change("okx", "kraken")
    assert "lanes_unmatched patterns=bin*" in worker.log.read_text()
    assert (await worker.ask("readyz"))[0] == 200
    await change("kraken")
    status, said = await worker.ask("readyz")
    assert (status, said) == (503, "no lane fits --lanes okx,bin*\n")
    await change("okx", "binance", "kraken")
    await fleet.ready(["okx", "binance"])


@pytest.mark.parametrize("more", [[], ["--processes", "2"]])
async def test_a_pattern_that_no_lane_fits_keeps_it_from_starting(
    parts: tuple[str, str, Services], more: list[str]
) -> None:
    _, _, fleet = parts
    worker = fleet.add_worker("--lanes", "okx,mtgox*", *more)
    assert await worker.wait(timeout_s=60) == 1
    assert "workers: --lanes mtgox*: fits no lane; there are binance, okx, kraken" in worker.log.read_text()
