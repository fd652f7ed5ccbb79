"""Health of lanes that nobody asks anything, and of dispatchers that have just started."""

from schemas.store import connect
from tests.integration.fleet import Stand, wait_until


async def state(stand: Stand, lane: str, state: str) -> bool:
    return bool(await stand.metric(stand.fleet.dispatchers[:1], "fleet_lane_state", lane, state))


async def test_probes_bring_back_a_lane_that_nobody_asks(stand: Stand) -> None:
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


async def test_what_waits_for_a_lane_goes_elsewhere_when_it_has_no_worker_any_more(stand: Stand) -> None:
    """Its queue would give it back only after five seconds; the bulk queue, of these, after ten minutes."""
    for worker in stand.fleet.workers:
        worker.kill()
    request = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}, "priority": "bulk"}
    sent = [await stand.client.send(request) for _ in range(10)]
    await wait_until(lambda: state(stand, "okx", "offline"), "okx is offline")
    for worker in stand.fleet.workers:
        worker.start()
    for each in sent:
        assert (await stand.client.answer(each)).result.ok
    (dispatcher,) = stand.fleet.dispatchers
    assert "taken_back" in dispatcher.log.read_text(encoding="utf-8")


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
