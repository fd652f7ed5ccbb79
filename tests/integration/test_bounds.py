"""Exchanges whose answers have no end: a worker's memory stays small, and all other requests are answered."""

import asyncio
import contextlib
import gzip
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from deploy.local import Services
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.messages import ErrorCode
from tests.support.fleet import QUICK, Client, opened, wait_until

MB: Final = 1_000_000
MIB: Final = 1024 * 1024
# What a worker may hold more at its worst than it did before: an answer of 16 MiB of the smallest lists, parsed, is the
# most; the answers that are refused take a tenth of it.
MOST_MIB: Final = 500
ZIPPED: Final = gzip.compress(b" " * 300 * MB, 1)
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
PAIRS: Final = b"[1,2]," * 10_000


async def stream(
    request: web.Request, size: int | None, piece: bytes, status: int = 200, length: int | None = None
) -> None:
    """A JSON list of so many bytes, or without an end, until the client is gone."""
    answer = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
    answer.content_length = length
    await answer.prepare(request)
    await answer.write(b"[")
    sent = 0
    while size is None or sent < size:
        await answer.write(piece)
        sent += len(piece)
    await answer.write(b"0]")


async def write(request: web.Request, start: bytes, piece: bytes, every_s: float = 0.0) -> None:
    """Bytes without an end that are no answer of aiohttp's, until the client is gone."""
    transport = request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.write(start)
    while not transport.is_closing():
        if transport.get_write_buffer_size() < MB:
            transport.write(piece)
        await asyncio.sleep(every_s)


async def zipped(request: web.Request) -> None:
    answer = web.Response(body=ZIPPED, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
    await answer.prepare(request)
    await answer.write_eof()


OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH: Final = OK + b"Content-Length: 1000\r\n\r\n["
CHUNK: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n5;"
Bomb: TypeAlias = Callable[[web.Request], Awaitable[None]]
LARGE: Final = {ErrorCode.TOO_LARGE}
# What aiohttp refuses to read: ccxt has an error of no meaning for it.
NO_HTTP: Final = {ErrorCode.BAD_RESPONSE, ErrorCode.EXCHANGE_UNAVAILABLE, ErrorCode.EXCHANGE_ERROR}
# What the exchange sends, and how an attempt at it ends.
BOMBS: Final[dict[str, tuple[Bomb, set[ErrorCode]]]] = {
    "100 MB": (lambda request: stream(request, 100 * MB, PAIRS), LARGE),
    "300 MB": (lambda request: stream(request, 300 * MB, PAIRS), LARGE),
    "no end": (lambda request: stream(request, None, PAIRS), LARGE),
    "60 MB of small lists": (lambda request: stream(request, 60 * MB, b"[]," * 10_000), LARGE),
    "a gzip bomb": (zipped, LARGE),
    "a length of a terabyte": (lambda request: stream(request, MB, PAIRS, length=10**12), LARGE),
    "an error page": (
        lambda request: stream(request, 100 * MB, b"<p>" * 20_000, 503),
        {ErrorCode.EXCHANGE_UNAVAILABLE},
    ),
    "100 Continue": (lambda request: write(request, b"", CONTINUE * 4000), {ErrorCode.BAD_RESPONSE}),
    "101 Switching Protocols": (lambda request: write(request, SWITCHING, b"x" * 50_000), {ErrorCode.BAD_RESPONSE}),
    "a header without an end": (lambda request: write(request, OK + b"X: ", b"x" * 50_000), NO_HTTP),
    "headers without an end": (lambda request: write(request, OK, b"X: y\r\n" * 5000), NO_HTTP),
    "an extension without an end": (lambda request: write(request, CHUNK, b"x" * 50_000), LARGE | NO_HTTP),
    "a trickle": (lambda request: write(request, LENGTH, b"1", 0.05), {ErrorCode.EXCHANGE_TIMEOUT}),
}


class Exchange:
    """The simulator's Binance, whose answers to reads of tickers and books are replaced by a bomb."""

    def __init__(self, simulator: str) -> None:
        self._simulator = simulator
        self.bomb: Bomb | None = None
        self.bombed = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.bomb is not None and re.search("ticker|depth", request.path):
            self.bombed += 1
            with contextlib.suppress(ConnectionError):
                await self.bomb(request)
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        async with aiohttp.ClientSession() as session, session.get(f"{self._simulator}{request.path_qs}") as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")


class Scene(msgspec.Struct, frozen=True):
    exchange: Exchange
    fleet: Services
    url: str

    @property
    def worker(self) -> Path:
        return Path("/proc") / str(self.fleet.workers[0].pid)

    def memory_mib(self, what: str) -> float:
        found = re.search(rf"{what}:\s+(\d+) kB", (self.worker / "status").read_text())
        assert found
        return int(found[1]) / 1024


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(
    rabbitmq: RabbitMQ, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """One worker, with a Binance that bombs and an HTX that is well."""
    await rabbitmq.ctl("add_vhost", "bounds")
    await rabbitmq.ctl("set_permissions", "-p", "bounds", "guest", ".*", ".*", ".*")
    url = f"{rabbitmq.url}bounds"
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(tmp_path_factory.mktemp("redis")))
        simulator = await stack.enter_async_context(Simulator(exchanges=["binance", "htx"]))
        exchange = Exchange(simulator.urls["binance"])
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", exchange.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls = {"binance": f"http://127.0.0.1:{runner.addresses[0][1]}", "htx": simulator.urls["htx"]}
        lanes = {name: {"ccxt": ccxt_config(name, at)} for name, at in urls.items()}
        config: dict[str, Any] = {**QUICK, "lanes": lanes}
        fleet = Services(
            tmp_path_factory.mktemp("fleet"), config, broker_url=url, redis_url=redis.url, dispatchers=1, workers=1
        )
        await stack.enter_async_context(fleet)
        await opened(fleet)
        yield Scene(exchange, fleet, url)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", BOMBS)
async def test_whatever_an_exchange_sends_the_others_are_answered(scene: Scene, name: str) -> None:
    bomb, codes = BOMBS[name]
    ticker = {"symbol": "BTC/USDT"}
    async with Client.on(scene.url) as client:

        async def well() -> bool:
            return (await client.ask("fetch_ticker", ticker, exchanges=["binance"])).result.ok

        await wait_until(well, "it is well")
        pid = scene.fleet.workers[0].pid
        (scene.worker / "clear_refs").write_text("5")  # the peak is measured from here
        before_mib = scene.memory_mib("VmRSS")
        scene.exchange.bomb, scene.exchange.bombed = bomb, 0
        # What is too large ends at once, unless the machine is busy; all else is tried until the deadline.
        within_s = 8 if codes == LARGE else 4
        asked = {"exchanges": ["binance"], "deadline_ms": int((time.time() + within_s) * 1000)}
        bombed = [client.ask("fetch_order_book", ticker, **asked) for _ in range(5)]
        bombing = asyncio.ensure_future(asyncio.gather(*bombed, client.ask("fetch_ticker", ticker, **asked)))
        try:
            await wait_until(lambda: scene.exchange.bombed, "the first one came")
            others: list[Any] = []
            while not bombing.done() or len(others) < 20:
                others.append(await client.ask("fetch_ticker", ticker, exchanges=["htx"]))
                await asyncio.sleep(0.02)
            ended = await bombing
        finally:
            bombing.cancel()
            scene.exchange.bomb = None
        assert all(answer.result.ok for answer in others), next(a for a in others if not a.result.ok)
        assert not any(answer.result.ok for answer in ended)
        sent = [item for answer in ended for item in answer.result.attempts if item.exchange_ms]
        # On a busy machine a call's time may end before what is wrong with its answer was read.
        assert {item.code for item in sent} <= codes | {ErrorCode.EXCHANGE_TIMEOUT}, sent
        assert sent
        if codes == LARGE:  # each was asked for once
            assert {answer.code for answer in ended} == LARGE, ended
        grown_mib = scene.memory_mib("VmHWM") - before_mib
        assert scene.fleet.workers[0].pid == pid
        assert grown_mib < MOST_MIB

        async def holds_nothing() -> bool:
            return (await scene.fleet.workers[0].metrics())[("fleet_answers_held_bytes",)] == 0

        await wait_until(holds_nothing, "what was held is given back")
