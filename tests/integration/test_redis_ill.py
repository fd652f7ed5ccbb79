"""A Redis that is neither usable nor away: it answers errors, its connections die, its clock is set.

For the budgets each of these is a loss, or nothing at all: workers go on with their shares, no limit is broken, and
they share again when it is over. `test_redis_lost.py` has the same for a Redis that is dead.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from deploy.servers import Redis
from schemas.runtime import store
from tests.support.fleet import Stand, opened, wait_until
from tests.support.redis_faults import ERRORS, answering, losses, set_clock
from tests.support.spenders import on_their_own, spenders, whole
from tests.support.stores import STORES
from tests.support.tcp_proxy import Proxy

# What the losses are counted as.
KIND = {
    "NOPERM": "NoPermissionError",
    "OOM": "OutOfMemoryError",
    "READONLY": "ReadOnlyError",
    "NOAUTH": "AuthenticationError",
    "unknown": "InvalidResponse",
}


@pytest.mark.parametrize("errors", [ERRORS[first : first + 3] for first in range(0, len(ERRORS), 3)], ids=", ".join)
async def test_whatever_is_no_answer_is_a_loss(tmp_path: Path, errors: Sequence[str]) -> None:
    """Three at the same time, each on a Redis of its own: most of it is waiting."""

    async def lost(error: str) -> None:
        async with Redis(tmp_path / error) as server, spenders(server.url, server.url) as workers:
            before = losses(KIND.get(error, error))
            async with answering(server, error):
                assert await on_their_own(workers, time.time()) >= 0.5, error
                assert losses(KIND.get(error, error)) > before, error
            await whole(workers)

    async with asyncio.TaskGroup() as group:
        for error in errors:
            group.create_task(lost(error), name=error)


@asynccontextmanager
async def cut_every(proxy: Proxy, seconds: float) -> AsyncGenerator[None]:
    """Connections of this proxy die again and again."""

    async def cut() -> None:
        while True:
            await asyncio.sleep(seconds)
            proxy.cut()

    cutting = asyncio.create_task(cut())
    try:
        yield
    finally:
        cutting.cancel()


async def test_a_redis_that_flaps_is_as_good_as_a_dead_one(redis_server: Redis) -> None:
    async with Proxy.before(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with spenders(url, url) as workers:
            async with cut_every(proxy, 0.7):
                assert await on_their_own(workers, 0.0) >= 0.5
            await whole(workers)


@pytest.mark.parametrize("store", STORES)
async def test_a_clock_that_is_set_stops_no_worker_and_breaks_no_limit(
    tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By each of four steps at the same time, each on a server of its own."""

    async def twice(step_s: float) -> None:
        async with Redis(tmp_path / f"{step_s}", STORES[store]) as server, spenders(server.url, server.url) as workers:
            by_us = 0
            for _ in range(2):
                before_us, by_us = by_us, by_us + int(step_s * 1e6)
                await set_clock(server.url, by_us, before_us)
                await whole(workers)

    steps_s = (10.0, -10.0, 0.5, -0.5)
    async with asyncio.TaskGroup() as group:
        for step_s in steps_s:
            group.create_task(twice(step_s))
    noticed_s = [getattr(record, "by_s", 0.0) for record in caplog.records if record.message == "redis_clock_set"]
    assert {round(by_s * 2) / 2 for by_s in noticed_s} >= {*steps_s}


@pytest.mark.parametrize("error", ["MISCONF", "NOPERM"])
async def test_a_fleet_goes_on_and_starts_while_redis_answers_errors(stand: Stand, error: str) -> None:
    async def shared() -> bool:
        seen = await stand.metric(stand.fleet.workers, "fleet_budget_shared", "okx")
        return seen == len(stand.fleet.workers)

    async def ask() -> bool:
        answer = await stand.client.ask(
            "fetch_order_book", {"symbol": "BTC/USDT"}, exchanges=["okx"], deadline_ms=int(time.time() * 1000) + 3000
        )
        return answer.result.ok

    await wait_until(ask, "an answer")
    await wait_until(shared, "all share")
    async with answering(stand.redis, error):
        await wait_until(ask, "an answer from a share", timeout_s=60)
        late = [stand.fleet.dispatchers[0], stand.fleet.workers[0]]
        for service in late:
            await service.stop(grace_s=40)
            assert service.exit_code == 0
            service.start()
            await wait_until(service.metrics, f"{service.name} has started")
        assert all(service.running for service in stand.services)
    await opened(stand.fleet)
    await wait_until(shared, "all share again", timeout_s=60)
    await wait_until(ask, "an answer", timeout_s=60)
    assert all(service.running for service in stand.services)


async def reset_just_before_a_command(turns: int) -> None:
    """Redis resets the connection so many turns of the loop before the next command is written to it."""
    server_side: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_side.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(b"+PONG\r\n" * data.count(b"*"))

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        client = store.connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", timeout_s=10)
        await client.ping()
        for writer in server_side:
            no_linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
            writer.transport.abort()
        for _ in range(turns):
            await asyncio.sleep(0)
        with contextlib.suppress(*store.AWAY):
            await client.ping()
        await client.aclose()


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_is_reset_at_any_moment_is_a_loss_in_the_loop_of_the_services(turns: int) -> None:
    await asyncio.to_thread(uvloop.run, reset_just_before_a_command(turns))
