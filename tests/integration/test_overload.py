"""More requests than a lane may serve, or a dispatcher can take at once: which are refused, and which pass."""

import asyncio
from typing import Any

from schemas import topology
from schemas.runtime.results import now_ms
from tests.support.fleet import Stand, wait_until

# Kraken answers one of them a second, and a worker holds those of the next two seconds: all others wait in rooms.
CROWD = 16


async def test_requests_that_come_too_late_are_refused_at_once(stand: Stand) -> None:
    ticker: dict[str, Any] = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}}
    crowd = [
        await stand.client.send({**ticker, "exchanges": ["kraken"], "deadline_ms": now_ms() + 180_000})
        for _ in range(CROWD)
    ]
    (dispatcher,) = stand.fleet.dispatchers

    async def waits() -> bool:
        lanes = {lane["lane"]: lane for lane in (await dispatcher.status())["lanes"]}
        return bool(lanes["kraken"]["waiting"] > CROWD / 2)

    await wait_until(waits, "most of them wait")

    async def refused() -> bool:
        late = await stand.client.ask(**ticker, exchanges=["kraken"], deadline_ms=now_ms() + 5_000)
        assert late.result.ok or late.code == "deadline_exceeded", late
        return late.result.error is not None and "overloaded: queueing delay" in late.result.error.message

    await wait_until(refused, "one is refused")
    # Others have room, and those that were there before are answered.
    anywhere = await stand.client.ask(**ticker, deadline_ms=now_ms() + 10_000)
    assert anywhere.result.ok, anywhere
    for sent in crowd:
        answer = await stand.client.answer(sent, timeout_s=120)
        assert answer.result.ok, answer


async def test_a_live_request_goes_past_thousands_of_bulk_ones(stand: Stand) -> None:
    (dispatcher,), client = stand.fleet.dispatchers, stand.client
    dispatcher.freeze()
    try:
        # Refused by the dispatcher itself, so that all there is to do is to take them.
        bulk = {"method": "fetch_time", "exchanges": ["nowhere"], "priority": "bulk"}
        crowd = await asyncio.gather(*(client.send(bulk, to_exchange=topology.BULK_REQUESTS) for _ in range(2_000)))
        live = await client.send({"method": "fetch_time"})
    finally:
        dispatcher.thaw()
    assert (await client.answer(live)).result.ok
    assert sum(sent in client.answers for sent in crowd) < len(crowd) / 2
    for sent in crowd:
        assert (await client.answer(sent)).code == "unknown_exchange"
