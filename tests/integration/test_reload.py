"""The configuration changes under a running fleet: what is applied, what is refused, and attempts in flight."""

import asyncio
import hashlib
import os
import signal
import time
import tomllib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import tomli_w

from deploy.local import Service, Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from schemas import topology
from schemas.messages import Attempt, Request, encode
from tests.conftest import new_vhost
from tests.support.fleet import QUICK, Answer, Client, Stand, opened, wait_until

TICKER = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_fleet(
    rabbitmq: RabbitMQ, vhost_numbers: Iterator[int], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Redis, Simulator, Services]]:
    """Yield two dispatchers and two workers whose configuration may be changed."""
    folder = tmp_path_factory.mktemp("reload")
    url = await new_vhost(rabbitmq, vhost_numbers)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        simulator = await stack.enter_async_context(Simulator())
        # A call that a test holds back does not fail.
        own = {"broker": {**QUICK["broker"], "patience_s": 3.0}, "worker": {"http_timeout_s": 20.0}}
        config = {**simulated(simulator.urls), **QUICK, **own}
        fleet = Services(folder, config, broker_url=url, redis_url=redis.url, dispatchers=2)
        await stack.enter_async_context(fleet)
        await opened(fleet)
        yield url, redis, simulator, fleet
        await fleet.stop()
        assert [service.exit_code for service in (*fleet.dispatchers, *fleet.workers)] == [0] * 4


@pytest.fixture
async def changing(rabbitmq: RabbitMQ, own_fleet: tuple[str, Redis, Simulator, Services]) -> AsyncIterator[Stand]:
    """Yield that fleet, healthy; what a test changes is changed back."""
    url, redis, simulator, fleet = own_fleet
    before = fleet.config_file.read_bytes()
    async with Client.on(url) as client:
        stand = Stand(rabbitmq, url, redis, simulator, fleet, client)
        await stand.heal()
        yield stand
        fleet.config_file.unlink()
        fleet.config_file.write_bytes(before)
        for service in stand.services:
            service.send(signal.SIGHUP)  # looks at once
        await in_use(stand)
        await opened(fleet)
        await wait_until(lambda: stand.healthy(*fleet.lanes), "all lanes are healthy", timeout_s=60)
        if violations := await stand.violations():
            await simulator.reset()
        assert not violations


def change(stand: Stand, **sections: Mapping[str, Any] | None) -> None:
    """Writes the configuration with these keys of its sections in place of those there are; None removes a key."""
    path = stand.fleet.config_file
    config = tomllib.loads(path.read_text())
    for name, keys in sections.items():
        merged = {**config.get(name, {}), **(keys or {})}
        config[name] = {key: value for key, value in merged.items() if value is not None}
    path.write_text(tomli_w.dumps(config))


async def uses(service: Service, version: str) -> bool:
    configuration = (await service.status())["process"]["configuration"]
    return bool(configuration["version"] == version and not configuration["error"])


async def in_use(stand: Stand, services: list[Service] | None = None) -> None:
    """Returns when all use the file as it is."""
    version = hashlib.sha256(stand.fleet.config_file.read_bytes()).hexdigest()[:12]
    for service in services or stand.services:
        await wait_until(lambda service=service: uses(service, version), f"{service.name} uses {version}")  # type: ignore[misc]


async def refused(service: Service) -> str:
    """Why it does not use the file as it is."""
    return str((await service.status())["process"]["configuration"]["error"])


async def lanes_of(service: Service) -> set[str]:
    return {lane["lane"] for lane in (await service.status())["lanes"]}


async def ask_all(stand: Stand, count: int, **fields: object) -> list[Answer]:
    ids = [await stand.client.send({**TICKER, **fields}) for _ in range(count)]
    return [await stand.client.answer(each) for each in ids]


async def test_a_lane_goes_and_comes_back(changing: Stand) -> None:
    stand = changing
    okx = tomllib.loads(stand.fleet.config_file.read_text())["lanes"]["okx"]
    change(stand, lanes={"okx": None})
    await in_use(stand)
    for service in stand.services:
        assert "okx" not in await lanes_of(service)
        assert not [key for key in await service.metrics() if key[0] == "fleet_lane_healthy" and "okx" in key]
    answer = await stand.client.ask("fetch_time", exchanges=["okx"])
    assert answer.code == "unknown_exchange"
    assert all(answer.result.ok for answer in await ask_all(stand, 10))
    change(stand, lanes={"okx": okx})
    await in_use(stand)
    await wait_until(lambda: stand.healthy("okx"), "okx is back")
    assert (await stand.client.ask("fetch_time", exchanges=["okx"])).result.lane == "okx"


async def test_a_lane_that_comes_serves_its_first_request(changing: Stand) -> None:
    stand = changing
    change(stand, lanes={"okx.other": {**lane_of(stand, "okx"), "local_addr": "127.0.0.2"}})
    await in_use(stand)
    await wait_until(lambda: stand.healthy("okx.other"), "it is healthy")
    result = (await stand.client.ask("fetch_time", exchanges=["okx.other"])).result
    assert (result.ok, result.lane) == (True, "okx.other"), result
    assert not [item for item in result.attempts if item.outcome == "failed"], result.attempts


async def test_what_waits_for_a_removed_lane_goes_to_others_and_its_queue_goes(changing: Stand) -> None:
    stand = changing
    change(stand, lanes={"okx": None})
    await in_use(stand, stand.fleet.workers)
    # A dispatcher that does not know yet sends two more.
    now_ms = int(time.time() * 1000)
    for correlation_id, priority in (("live", "live"), ("bulk", "bulk")):
        request = Request("fetch_time", exchanges=["okx", "binance"], deadline_ms=now_ms + 60_000, priority=priority)  # type: ignore[arg-type]
        attempt = Attempt(request, "okx", 1, now_ms, stand.client.reply_to, correlation_id, "application/json")
        await stand.client.publish(encode(attempt), topology.work_name("okx", bulk=priority == "bulk"))
        result = (await stand.client.answer(correlation_id)).result
        assert (result.ok, result.lane) == (True, "binance"), result
    await in_use(stand)

    async def gone() -> bool:
        listed = await stand.rabbitmq.ctl("list_queues", "--vhost", stand.url.rpartition("/")[2], "name")
        return "fleet.work.okx" not in listed

    await wait_until(gone, "the lane's queues are deleted", every_s=1, timeout_s=60)


async def test_attempts_under_way_end_on_the_lane_they_began_on(changing: Stand) -> None:
    stand = changing
    await stand.simulator.fault("okx", held=True)
    ids = [await stand.client.send({**TICKER, "exchanges": ["okx"]}) for _ in range(6)]

    async def held() -> bool:
        # A probe may be there too.
        return await stand.metric(stand.fleet.workers, "fleet_attempts_in_flight", "okx") >= 6

    await wait_until(held, "all are with workers")
    change(stand, lanes={"okx": {**lane_of(stand, "okx"), "live_reserve": 0.1}}, worker={"in_flight": 500})
    await in_use(stand)
    await stand.simulator.clear("okx")
    answers = [await stand.client.answer(each) for each in ids]
    for answer in answers:
        assert answer.result.ok
        sent = [item for item in answer.result.attempts if item.outcome != "throttled"]
        assert len(sent) == 1, answer.result.attempts
    assert (await stand.client.ask("fetch_time", exchanges=["okx"])).result.ok


def lane_of(stand: Stand, name: str) -> dict[str, Any]:
    return dict(tomllib.loads(stand.fleet.config_file.read_text())["lanes"][name])


async def test_weights_and_the_strategy_change(changing: Stand) -> None:
    stand = changing
    change(stand, lanes={"binance": {**lane_of(stand, "binance"), "weight": 3.0}})
    await in_use(stand)
    lanes = Counter(answer.result.lane for answer in await ask_all(stand, 24, exchanges=["htx", "binance"]))
    assert abs(lanes["binance"] - 18) <= 2, lanes  # each of two dispatchers may be one off
    change(stand, dispatcher={"strategy": "failover"})
    await in_use(stand)
    lanes = Counter(answer.result.lane for answer in await ask_all(stand, 10, exchanges=["binance", "okx"]))
    assert lanes == {"binance": 10}


async def test_methods_are_allowed_and_forbidden(changing: Stand) -> None:
    stand = changing
    change(stand, dispatcher={"methods": ["fetch_time"]})
    await in_use(stand)
    assert (await stand.client.ask("fetch_ticker", {"symbol": "BTC/USDT"})).code == "method_not_allowed"
    assert (await stand.client.ask("fetch_time")).result.ok


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\x00rubbish", "not TOML"),
        (b"[lanes]\n", "lanes: "),
        (b"[lanes.okx]\nweight = 'heavy'\n", "lanes.okx.weight: "),
        (b"[lanes.okx]\n[broker]\nheartbeat_s = 7\n", "broker can't change while this process runs"),
    ],
)
async def test_a_wrong_file_is_refused_whole(changing: Stand, text: bytes, says: str) -> None:
    stand = changing
    before = {service.name: (await service.status())["process"]["configuration"] for service in stand.services}
    good = stand.fleet.config_file.read_bytes()
    stand.fleet.config_file.write_bytes(text)
    for service in stand.services:
        await wait_until(lambda service=service: refused(service), f"{service.name} refuses it")  # type: ignore[misc]
        configuration = (await service.status())["process"]["configuration"]
        assert says in configuration["error"]
        assert configuration["error_ms"] > configuration["loaded_ms"]
        assert configuration["version"] == before[service.name]["version"]
        assert await lanes_of(service) == set(stand.fleet.lanes)
    assert (await stand.client.ask("fetch_time")).result.ok
    stand.fleet.config_file.write_bytes(good)
    await in_use(stand)


async def test_an_exchange_that_ccxt_does_not_have_is_refused_by_workers(changing: Stand) -> None:
    stand = changing
    change(stand, lanes={"mtgox": {}, "okx": None})
    for worker in stand.fleet.workers:
        await wait_until(lambda worker=worker: refused(worker), f"{worker.name} refuses it")  # type: ignore[misc]
        assert "expected an exchange id of ccxt, not 'mtgox'" in await refused(worker)
        assert "okx" in await lanes_of(worker)


async def test_sighup_has_it_looked_at_again(changing: Stand) -> None:
    stand = changing
    stand.fleet.config_file.write_bytes(b"rubbish")
    for service in stand.services:
        await wait_until(lambda service=service: refused(service), "it is refused")  # type: ignore[misc]
        told = service.log.read_text().count("configuration_refused")
        os.kill(service.pid, signal.SIGHUP)
        await wait_until(
            lambda service=service, told=told: service.log.read_text().count("configuration_refused") > told,  # type: ignore[misc]
            f"{service.name} tells it again",
        )
        assert service.running


async def test_a_configmap_s_symlinks_are_swapped(changing: Stand) -> None:
    """As kubelet does: ``fleet.toml`` leads to ``..data/fleet.toml``, and ``..data`` is replaced by a rename."""
    stand = changing
    path = stand.fleet.config_file
    lane = lane_of(stand, "okx")

    def put(version: str, text: str) -> None:
        folder = path.with_name(f"..{version}")
        folder.mkdir()
        (folder / "fleet.toml").write_text(text)
        link = path.with_name("..data_tmp")
        link.symlink_to(folder.name)
        link.rename(path.with_name("..data"))

    put("2026_1", path.read_text())
    path.unlink()
    path.symlink_to(Path("..data", "fleet.toml"))
    await in_use(stand)
    config = tomllib.loads(path.read_text())
    config["lanes"]["okx"] = {**lane, "weight": 7.0}
    put("2026_2", tomli_w.dumps(config))
    await in_use(stand)
    [weight] = [
        lane["weight"] for lane in (await stand.fleet.dispatchers[0].status())["lanes"] if lane["lane"] == "okx"
    ]
    assert weight == 7


async def test_many_changes_in_a_row_leave_one_good_fleet(changing: Stand) -> None:
    stand = changing
    lane = lane_of(stand, "okx")
    running = asyncio.create_task(ask_all(stand, 60, exchanges=["okx", "binance"]))
    for number in range(5):
        change(stand, lanes={"okx": {**lane, "live_reserve": 0.1 + number / 100}})
        await in_use(stand, stand.fleet.workers[:1])
        change(stand, lanes={"okx": None})
        await in_use(stand, stand.fleet.workers[:1])
    change(stand, lanes={"okx": lane})
    await in_use(stand)
    assert all(answer.result.ok for answer in await running)
    await wait_until(lambda: stand.healthy("okx"), "okx is back")
    assert (await stand.client.ask("fetch_time", exchanges=["okx"])).result.ok
    for worker in stand.fleet.workers:
        [seen] = [each for each in (await worker.status())["lanes"] if each["lane"] == "okx"]
        assert seen["in_flight"] == 0
