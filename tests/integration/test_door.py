"""The HTTP port of real services: what it says of a fleet that is healthy, failing, or cut off."""

from contextlib import AsyncExitStack
from pathlib import Path

from deploy.local import Service, Services, simulated
from tests.support.fleet import QUICK, Stand, opened, wait_until
from tests.support.tcp_proxy import Proxy


async def test_a_fleet_that_is_well_says_so(stand: Stand) -> None:
    for service in stand.services:
        assert await service.ask("healthz") == (200, "ok\n")
        assert await service.ask("readyz") == (200, "ok\n")
        assert (await service.ask("nothing"))[0] == 404
        assert await service.metrics()


async def test_the_dispatchers_status_tells_each_lane(stand: Stand) -> None:
    [dispatcher] = stand.fleet.dispatchers
    status = await dispatcher.status()
    assert status["process"]["unready"] == ""
    assert status["process"]["connected"]
    assert len(status["process"]["configuration"]["version"]) == 12
    lanes = {lane["lane"]: lane for lane in status["lanes"]}
    assert set(lanes) == set(stand.fleet.lanes)

    async def well() -> bool:
        seen = (await dispatcher.status())["lanes"]
        return {(lane["state"], lane["reason"], lane["workers"], lane["share"]) for lane in seen} == {
            ("healthy", "", 2, 1.0)
        }

    # A machine that was busy a moment ago makes a lane look slow, which costs it a part of its share.
    await wait_until(well, "every lane has its whole share")
    await stand.simulator.fault("okx", down="refused")

    async def aside() -> bool:
        await stand.client.ask("fetch_ticker", {"symbol": "BTC/USDT"}, exchanges=["okx", "binance"])
        [lane] = [lane for lane in (await dispatcher.status())["lanes"] if lane["lane"] == "okx"]
        return lane["state"] != "healthy" and lane["reason"] and lane["trial_in_s"] is not None and not lane["share"]

    await wait_until(aside, "okx stands aside, with a reason and a trial")
    [lane] = [lane for lane in (await dispatcher.status())["lanes"] if lane["lane"] == "okx"]
    assert lane["since_ms"] > lanes["okx"]["since_ms"]


async def test_the_workers_status_tells_each_lane(stand: Stand) -> None:
    for worker in stand.fleet.workers:
        status = await worker.status()
        assert status["process"]["unready"] == ""
        assert status["redis"]
        assert status["ccxt"].count(".") == 2
        assert {lane["lane"] for lane in status["lanes"]} == set(stand.fleet.lanes)
        for lane in status["lanes"]:
            assert lane["open"]
            assert lane["markets"] > 0
            assert lane["methods"] > 0
            assert lane["budget"] == "shared"
    stand.redis.freeze()
    for worker in stand.fleet.workers:
        await wait_until(lambda worker=worker: on_its_own(worker), "it says that Redis is away")  # type: ignore[misc]


async def on_its_own(worker: Service) -> bool:
    status = await worker.status()
    return not status["redis"] and all(lane["budget"] != "shared" for lane in status["lanes"])


async def test_a_service_that_is_cut_off_is_not_ready_and_ends_at_last(
    tmp_path: Path, stand: Stand, vhost: str
) -> None:
    port = vhost.rpartition(":")[2].partition("/")[0]
    config = {**simulated(stand.simulator.urls), **QUICK, "broker": {**QUICK["broker"], "give_up_s": 3.0}}
    async with AsyncExitStack() as proxy_stack, AsyncExitStack() as stack:
        proxy = await proxy_stack.enter_async_context(Proxy.before(int(port)))
        url = vhost.replace(f":{port}/", f":{proxy.port}/")
        fleet = Services(tmp_path, config, broker_url=url, redis_url=stand.redis.url, workers=1)
        await stack.enter_async_context(fleet)
        await opened(fleet)
        services = [*fleet.dispatchers, *fleet.workers]
        assert [await service.ask("readyz") for service in services] == [(200, "ok\n")] * 2
        await proxy_stack.aclose()  # nobody listens there any more
        for service in services:
            await wait_until(lambda service=service: unready(service), f"{service.name} is not ready")  # type: ignore[misc]
        await wait_until(lambda: not any(service.running for service in services), "both have ended")
        for service in services:
            assert service.exit_code == 1
            last = service.tail().splitlines()[-1]
            assert f": no connection to RabbitMQ at 127.0.0.1:{proxy.port}" in last


async def unready(service: Service) -> bool:
    return (await service.ask("readyz"))[0] == 503
