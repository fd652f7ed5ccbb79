"""Every process says in Redis how it is, and workers say in their reports what they are."""

import asyncio
from typing import Any

import pytest
import redis.asyncio as redis_client

from schemas.runtime import presence
from schemas.runtime.tasks import end_tasks
from schemas.status import ConfigurationStatus, DispatcherStatus, ProcessStatus
from schemas.version import VERSION
from tests.support.fleet import Heard, Stand, wait_until
from workers.exchange.charged import CCXT_VERSION


async def test_processes_say_how_they_are_and_are_forgotten(stand: Stand) -> None:
    async with redis_client.from_url(stand.redis.url) as client:
        any_client: Any = client

        async def all_there() -> bool:
            found = await presence.read(client)
            return len(found.dispatchers) == 1 and len(found.workers) == 2

        await wait_until(all_there, "all processes say how they are")
        found = await presence.read(client)
        assert {each.process.version for each in found.dispatchers} == {VERSION}
        assert {each.process.version for each in found.workers} == {VERSION}
        assert {lane.lane for lane in found.dispatchers[0].lanes} == set(stand.fleet.lanes)
        assert {each.process.name for each in found.workers} == {
            (await worker.status())["process"]["name"] for worker in stand.fleet.workers
        }
        for key in (presence.NAMES, *(presence.key_of(each.process.name) for each in found.workers)):
            assert await any_client.ttl(key) > 0

        gone = stand.fleet.workers[1]
        name = (await gone.status())["process"]["name"]
        await gone.stop(grace_s=20)
        assert name not in {each.process.name for each in (await presence.read(client)).workers}
        gone.start()
        await wait_until(all_there, "it is there again", timeout_s=60)


async def test_what_cannot_be_read_is_left_out(redis_url: str) -> None:
    async with redis_client.from_url(redis_url) as client:
        any_client: Any = client
        for name, body in {"a": b"\xff", "b": b'{"process": {"service": "workers"}}', "c": b"[]"}.items():
            await any_client.zadd(presence.NAMES, {name: 1})
            await any_client.set(presence.key_of(name), body)
        await any_client.zadd(presence.NAMES, {"dead": 1})
        assert await presence.read(client) == presence.Presence([], [])


async def test_reports_say_what_a_worker_is_and_what_its_buckets_hold(stand: Stand, heard: Heard) -> None:
    await stand.client.ask("fetch_time", exchanges=["okx"])
    await wait_until(lambda: heard.any("okx", lambda lane: bool(lane.buckets)), "its buckets are reported")
    buckets = [lane.buckets for (_, name), lane in heard.lanes.items() if name == "okx" and lane.buckets]
    assert all(each.amount > 0 and each.window_s > 0 for one in buckets for each in one.values())
    assert {(each.version, each.ccxt) for each in heard.reports.values()} == {(VERSION, CCXT_VERSION)}
    assert all(each.started_ms for each in heard.reports.values())


async def test_a_change_is_said_at_once(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "EVERY_S", 3600)
    changed, connects = asyncio.Event(), 0

    def status() -> DispatcherStatus:
        process = ProcessStatus("dispatcher", "a", 0, "", ConfigurationStatus("", 0), connected=True, connects=connects)
        return DispatcherStatus(process, [])

    async with redis_client.from_url(redis_url) as client:

        async def known() -> list[int]:
            return [each.process.connects for each in (await presence.read(client)).dispatchers]

        async def is_known() -> bool:
            return await known() == [connects]

        task = asyncio.create_task(presence.announce(client, status, changed))
        for connects in range(5):
            changed.set()
            await wait_until(is_known, f"{connects} is written")
        await end_tasks([task])
        assert await known() == []
