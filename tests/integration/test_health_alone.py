"""Health of lanes without requests, and of dispatchers that have just started."""

from pathlib import Path

from deploy.local import Services, simulated
from deploy.simulator.process import Simulator
from schemas.runtime.store import connect
from tests.support.fleet import QUICK, Client, Stand, opened, wait_until


async def state(stand: Stand, lane: str, state: str) -> bool:
    return bool(await stand.metric(stand.fleet.dispatchers[:1], "fleet_lane_state", lane, state))


async def test_probes_bring_back_a_lane_without_requests(stand: Stand) -> None:
    await stand.simulator.fault("okx", down="refused")
    sent = [await stand.client.send({"method": "fetch_time", "exchanges": ["okx"]}) for _ in range(6)]
    await wait_until(lambda: state(stand, "okx", "offline"), "okx is offline")
    await stand.simulator.clear("okx")
    for each in sent:
        assert (await stand.client.answer(each)).result.ok
    await wait_until(lambda: state(stand, "okx", "healthy"), "okx is back")


async def test_maintenance_is_seen_by_probes_alone_and_its_end_too(stand: Stand) -> None:
    await stand.simulator.fault("kraken", maintenance=True)
    await wait_until(lambda: state(stand, "kraken", "maintenance"), "kraken is in maintenance", timeout_s=60)
    await stand.simulator.clear("kraken")
    await wait_until(lambda: state(stand, "kraken", "healthy"), "kraken is back")
    assert await stand.metric(stand.fleet.dispatchers, "fleet_probes_total", "kraken") > 0


async def test_what_waits_for_a_lane_goes_elsewhere_when_it_has_no_worker_any_more(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    """A fleet of its own: what dead workers may still send is kept from the others for minutes."""
    async with Simulator(exchanges=["okx"]) as simulator:
        config = {**simulated(simulator.urls), **QUICK}
        fleet = Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1)
        async with fleet, Client.on(vhost) as client:
            (dispatcher,), (worker,) = fleet.dispatchers, fleet.workers
            await opened(fleet)
            assert (await client.ask("fetch_time")).result.ok
            worker.kill()
            sent = [await client.send({"method": "fetch_time"}) for _ in range(10)]

            def taken_back() -> bool:
                return "taken_back" in dispatcher.log.read_text(encoding="utf-8")

            await wait_until(taken_back, "the dispatcher has taken back what waited")
            worker.start()
            for each in sent:
                assert (await client.answer(each)).result.ok


async def test_a_dispatcher_that_starts_knows_what_the_last_one_knew(stand: Stand) -> None:
    await stand.simulator.fault("okx", down="refused")
    for _ in range(6):
        await stand.client.send({"method": "fetch_time", "exchanges": ["okx"]})
    (dispatcher,) = stand.fleet.dispatchers

    async def kept() -> bool:
        async with connect(stand.redis.url, timeout_s=1) as client:
            return "in a row" in str(await client.get("fleet:health"))

    await wait_until(kept, "the snapshot tells that okx is offline")
    await dispatcher.stop(grace_s=10)
    dispatcher.start()
    await wait_until(lambda: state(stand, "binance", "healthy"), "the new dispatcher hears of the lanes")
    assert await state(stand, "okx", "offline")
    assert "snapshot_loaded" in dispatcher.log.read_text(encoding="utf-8")
