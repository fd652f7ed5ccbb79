"""Callers of one gateway that ask for more than it holds: each delays only itself, and what it holds has a bound.

The fleet is the test's own here: it answers what it is asked for at once, or never.
"""

import asyncio
import base64
import functools
import os
import socket
import zlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from deploy.local import GatewayService, Services
from schemas.gateway.bodies import READER_BYTES, ROOM_BYTES
from schemas.messages import Request
from tests.support.answering import answering
from tests.support.fleet import QUICK, wait_until
from tests.support.gateways import memory_bytes, said

MIB = 1024 * 1024
LARGE_BYTES = 8 * MIB
CALLERS = ("bot-1", "bot-2")


def packed(data: bytes) -> dict[str, Any]:
    """An exchange's long answer, as a worker passes it on."""
    held = base64.b64encode(zlib.compress(data, 0, wbits=31)).decode()
    return {"status": 200, "headers": {"content-type": "text/plain"}, "body_gzip": held}


def answered(asked: list[str], request: Request) -> dict[str, Any] | None:
    """What the fleet says: other bytes each time below /large/, equal ones below /same/, and nothing below /never/."""
    assert request.http is not None
    asked.append(request.http.path)
    kind = request.http.path.split("/")[1]
    if kind == "large":
        return packed(os.urandom(LARGE_BYTES))
    if kind == "same":
        return packed(b"".join(number.to_bytes(4, "big") for number in range(LARGE_BYTES // 4)))
    return None if kind == "never" else {"status": 200, "headers": {}, "body": "{}"}


class Crowd(Struct):
    """A gateway, and what asks it.

    Args:
        gateway: the gateway.
        session: asks it, and reads what comes.
        config: its configuration's file.
        asked: paths of what the fleet was asked for.
    """

    gateway: GatewayService
    session: aiohttp.ClientSession
    config: Path
    asked: list[str]

    def request(self, path: str, caller: str, wait_s: int = 60, *, closes: bool = False) -> bytes:
        """A request as it goes over the wire."""
        more = "Connection: close\r\n" if closes else ""
        told = f"Host: localhost\r\nX-Fleet-Token: of-{caller}\r\nPrefer: wait={wait_s}\r\n{more}\r\n"
        return f"GET /okx/www.okx.com{path} HTTP/1.1\r\n{told}".encode()

    async def unread(self, path: str, caller: str) -> socket.socket:
        """A connection that asks for something, and reads the first bytes of its answer alone."""
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", self.gateway.port))
        await loop.sock_sendall(connection, self.request(path, caller))
        assert await loop.sock_recv(connection, 12) == b"HTTP/1.1 200"
        return connection

    async def get(self, path: str, caller: str, wait_s: int = 60) -> tuple[int, str | None, int]:
        """Asks for something, and reads it: status, error, and the body's length."""
        headers = {"X-Fleet-Token": f"of-{caller}", "Prefer": f"wait={wait_s}"}
        async with self.session.get(f"{self.gateway.url}/okx/www.okx.com{path}", headers=headers) as answer:
            return answer.status, answer.headers.get("X-Fleet-Error"), len(await answer.read())

    async def seen(self, name: str, *labels: str) -> float:
        """A metric of the gateway."""
        return (await self.gateway.metrics()).get((f"fleet_gateway_{name}", *labels), 0)


@asynccontextmanager
async def crowd(
    vhost: str, redis_url: str, tmp_path: Path, weights: Mapping[str, int] | None = None, **more: Any
) -> AsyncGenerator[Crowd]:
    """A gateway with callers, before a fleet of the test's own."""
    tokens = {name: {"env": name, "weight": weight} for name, weight in (weights or dict.fromkeys(CALLERS, 1)).items()}
    config: dict[str, Any] = {"lanes": {"okx": {}}, **QUICK, "gateway": {"tokens": tokens, "max_wait_s": 600, **more}}
    services = Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, dispatchers=0, workers=0)
    async with services as fleet, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asked: list[str] = []
        async with answering(vhost, functools.partial(answered, asked)):
            gateway = await fleet.add_gateway(env={name: f"of-{name}" for name in tokens})
            yield Crowd(gateway, session, fleet.config_file, asked)


async def test_answers_that_are_not_read_have_a_bound_for_each_caller(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    async with crowd(vhost, redis_url, tmp_path) as crowded:
        for caller in CALLERS:  # what comes once has come
            assert await crowded.get("/large/first", caller) == (200, None, LARGE_BYTES)
        before_bytes = memory_bytes(crowded.gateway)
        part_bytes = ROOM_BYTES // 2
        fits = part_bytes // (LARGE_BYTES + READER_BYTES)
        with ExitStack() as unread:
            for number in range(fits):
                unread.enter_context(await crowded.unread(f"/large/{number}", "bot-1"))
            held_bytes = await crowded.seen("sending_bytes", "bot-1")
            assert part_bytes - LARGE_BYTES < held_bytes <= part_bytes
            more = [crowded.get(f"/large/more-{number}", "bot-1", wait_s=10) for number in range(3)]
            others = [crowded.get(f"/large/other-{number}", "bot-2") for number in range(3)]
            found = await asyncio.gather(*more, *others, crowded.get("/short", "bot-1"))
            assert [each[:2] for each in found[:3]] == [(503, "busy")] * 3
            assert found[3:6] == [(200, None, LARGE_BYTES)] * 3
            assert found[6] == (200, None, 2)
            assert await crowded.seen("sending_bytes", "bot-1") == held_bytes
            assert memory_bytes(crowded.gateway) - before_bytes < ROOM_BYTES + 64 * MIB

        async def is_free() -> bool:
            return not await crowded.seen("sending_bytes", "bot-1")

        await wait_until(is_free, "nothing is held any more")
        assert await crowded.get("/large/last", "bot-1") == (200, None, LARGE_BYTES)


async def test_equal_answers_are_held_once(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with crowd(vhost, redis_url, tmp_path) as crowded:
        with ExitStack() as unread:
            for _ in range(30):
                unread.enter_context(await crowded.unread("/same/list", "bot-1"))
            held_bytes = await crowded.seen("sending_bytes", "bot-1")
            assert LARGE_BYTES < held_bytes < LARGE_BYTES + MIB + 30 * READER_BYTES


async def test_without_room_nothing_is_asked(vhost: str, redis_url: str, tmp_path: Path) -> None:
    """One answer is more than this caller's part: it is held alone, and what waits for it costs no call."""
    async with crowd(vhost, redis_url, tmp_path, {"small": 1, "large": 16}) as crowded:
        with await crowded.unread("/large/alone", "small"):
            assert (await crowded.get("/short/refused", "small", wait_s=2))[:2] == (503, "busy")
            waits = asyncio.create_task(crowded.get("/short/waits", "small"))
            assert await crowded.get("/large/other", "large") == (200, None, LARGE_BYTES)
            assert crowded.asked == ["/large/alone", "/large/other"]
        assert await waits == (200, None, 2)
        assert crowded.asked == ["/large/alone", "/large/other", "/short/waits"]


async def test_in_flight_may_change_while_requests_are_under_way(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with crowd(vhost, redis_url, tmp_path, in_flight=2) as crowded:

        async def under_way(count: int) -> bool:
            return await crowded.seen("in_flight", "bot-1") == count

        async def changed(before: int, after: int) -> None:
            text = crowded.config.read_text(encoding="utf-8")
            crowded.config.write_text(text.replace(f"in_flight = {before}", f"in_flight = {after}"), encoding="utf-8")

        first = [asyncio.create_task(crowded.get("/never/first", "bot-1", wait_s=600)) for _ in range(2)]
        await wait_until(functools.partial(under_way, 2), "two are under way")
        waits = asyncio.create_task(crowded.get("/short/waits", "bot-1", wait_s=600))
        assert (await crowded.get("/short/refused", "bot-1", wait_s=1))[:2] == (503, "busy")
        await changed(2, 3)
        assert await waits == (200, None, 2)  # which came before the change
        more = [asyncio.create_task(crowded.get("/never/more", "bot-1", wait_s=600)) for _ in range(12)]
        await wait_until(functools.partial(under_way, 3), "three are under way")
        for each in first:
            each.cancel()
        await wait_until(lambda: crowded.asked.count("/never/more") >= 3, "others have their places")
        assert (await crowded.get("/short/refused", "bot-1", wait_s=1))[:2] == (503, "busy")
        assert await under_way(3)
        await changed(3, 5)
        await wait_until(functools.partial(under_way, 5), "five are under way")
        assert (await crowded.get("/short/refused", "bot-1", wait_s=1))[:2] == (503, "busy")
        assert await under_way(5)
        assert await crowded.get("/short/other", "bot-2") == (200, None, 2)
        for each in more:
            each.cancel()
        await wait_until(functools.partial(under_way, 0), "none is under way")
        assert await crowded.get("/short/last", "bot-1") == (200, None, 2)


async def test_a_caller_that_takes_all_connections_loses_its_own(vhost: str, redis_url: str, tmp_path: Path) -> None:
    """Those of requests that wait for a place, and those that do not read; never those of what was asked."""
    async with crowd(vhost, redis_url, tmp_path, in_flight=8, connections=40) as crowded:

        async def is_full(under_way: int) -> bool:
            counts = await crowded.seen("connections"), await crowded.seen("in_flight", "bot-1")
            return counts == (40, under_way)

        async def is_empty() -> bool:
            return not await crowded.seen("connections")

        async def others() -> None:
            cut = await crowded.seen("connections_cut_total", "too many")
            for number in range(50):  # each by a connection of its own
                (answer,) = await said(crowded.gateway.port, crowded.request(f"/short/{number}", "bot-2", closes=True))
                assert answer.status == 200
            assert await crowded.seen("connections_cut_total", "too many") > cut

        with ExitStack() as held:
            for number in range(60):
                connection = held.enter_context(closing(socket.create_connection(("127.0.0.1", crowded.gateway.port))))
                connection.sendall(crowded.request(f"/never/{number}", "bot-1"))
            await wait_until(functools.partial(is_full, 8), "all connections are taken")
            await others()
            assert await crowded.seen("in_flight", "bot-1") == 8
        await wait_until(is_empty, "they are gone")
        with ExitStack() as unread:
            for _ in range(40):
                unread.enter_context(await crowded.unread("/same/list", "bot-1"))
            await others()
