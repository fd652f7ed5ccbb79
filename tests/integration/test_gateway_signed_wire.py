"""Signed calls on the wire: what an exchange gets of them, and what becomes of those that are interrupted."""

import asyncio
import contextlib
import functools
import secrets
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.local import GatewayService, Services
from schemas.operator import pauses
from schemas.runtime import store
from tests.support.fleet import QUICK, wait_until
from tests.support.signed import send


class Exchange:
    """An exchange that shows the heads that came, and answers when it may.

    Attributes:
        answer: what it answers, whatever it is asked.
    """

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.may_answer = asyncio.Event()
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                await self.may_answer.wait()
                writer.write(self.answer)
        writer.close()


@contextlib.asynccontextmanager
async def listening(
    tmp_path: Path, vhost: str, redis_url: str, **gateway: Any
) -> AsyncGenerator[tuple[GatewayService, Path, Exchange]]:
    """A gateway before an exchange that a test has in its hand."""
    exchange = Exchange()
    async with await asyncio.start_server(exchange.on_connection, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        lane = {"ccxt": {"urls": {"api": {"public": url, "private": url}}}}
        config = {"lanes": {"coinbaseexchange": lane}, **QUICK, "gateway": {"signed": True, **gateway}}
        async with Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=0) as fleet:
            yield await fleet.add_gateway(env={"BOT_1": "of-the-fleet"}), fleet.config_file, exchange
        exchange.may_answer.set()


COINBASE = "GET", "https://api.exchange.coinbase.com/accounts", {"CB-ACCESS-KEY": "anna"}, ""


async def test_headers_come_to_the_letter_and_without_a_caller_s_token(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    tokens = {"bot-1": {"env": "BOT_1"}}
    async with listening(tmp_path, vhost, redis_url, tokens=tokens) as (gateway, _, exchange):
        exchange.may_answer.set()
        both = {"X-Fleet-Token": "of-the-fleet", "Authorization": "Bearer of-the-fleet"}
        theirs = {"User-Agent": "a bot", "CB-VERSION": "2026-01-01"}  # ccxt's class has both too
        assert (await send(gateway, COINBASE, "coinbaseexchange", **both, **theirs))[0] == 200
        (head,) = exchange.heads
        names = [line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line]
        assert "user-agent: a bot\r\n" in head
        assert "cb-version: 2026-01-01\r\n" in head
        assert len(set(names)) == len(names)
        assert "of-the-fleet" not in head
        of_exchange = {"X-Fleet-Token": "of-the-fleet", "Authorization": "Bearer of-the-exchange"}
        assert (await send(gateway, COINBASE, "coinbaseexchange", **of_exchange))[0] == 200
        assert "authorization: Bearer of-the-exchange\r\n" in exchange.heads[1]


REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 50\r\nContent-Length: 2\r\n\r\n{}"
BANNED = b'HTTP/1.1 418 Teapot\r\nContent-Length: 43\r\n\r\n{"message":"banned, retry after 00:40:00 "}'


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"


async def hung_up_once_it_was_sent(gateway: GatewayService, exchange: Exchange, wait: str = "9") -> None:
    """A signed call that was sent, and whose caller has gone, as the gateway knows by now."""
    asking = asyncio.create_task(send(gateway, COINBASE, "coinbaseexchange", Prefer=f"wait={wait}"))
    await wait_until(lambda: exchange.heads, "the call is sent")
    asking.cancel()

    async def has_gone() -> bool:
        return not (await gateway.metrics())["fleet_gateway_connections",]

    await wait_until(has_gone, "the gateway knows that its caller has gone")


async def paused(redis_url: str) -> list[pauses.Pause]:
    async with store.connect(redis_url, timeout_s=5) as client:
        return await pauses.held(client, "coinbaseexchange")


async def counted(gateway: GatewayService, end: str) -> float:
    return (await gateway.metrics()).get(("fleet_gateway_signed_total", "anyone", end, "coinbaseexchange"), 0)


async def under_way(gateway: GatewayService) -> float:
    return (await gateway.metrics()).get(("fleet_gateway_in_flight", "anyone"), 0)


async def test_a_call_whose_caller_hangs_up_before_it_is_sent_never_is(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    async with listening(tmp_path, vhost, redis_url, max_wait_s=600) as (gateway, _, exchange):
        exchange.answer = REFUSAL
        exchange.may_answer.set()
        assert (await send(gateway, COINBASE, "coinbaseexchange"))[0] == 429
        asking = asyncio.create_task(send(gateway, COINBASE, "coinbaseexchange", Prefer="wait=300"))
        await wait_until(functools.partial(under_way, gateway), "it waits for the pause to end")
        asking.cancel()
        await wait_until(functools.partial(counted, gateway, "not_sent"), "its end is counted")
        async with store.connect(redis_url, timeout_s=5) as client:
            assert await pauses.lift(client, "coinbaseexchange")

        async def is_answered() -> bool:
            return (await send(gateway, COINBASE, "coinbaseexchange"))[0] == 429

        await wait_until(is_answered, "a call after it is sent")
        assert len(exchange.heads) == 2


@pytest.mark.parametrize(("answer", "source"), [(REFUSAL, "retry-after"), (BANNED, "text")])
async def test_a_refusal_pauses_the_fleet_though_its_caller_has_gone(
    vhost: str, redis_url: str, tmp_path: Path, answer: bytes, source: str
) -> None:
    async with listening(tmp_path, vhost, redis_url) as (gateway, _, exchange):
        exchange.answer = answer
        await hung_up_once_it_was_sent(gateway, exchange)
        assert await under_way(gateway) == 1
        assert not await paused(redis_url)
        exchange.may_answer.set()
        await wait_until(functools.partial(paused, redis_url), "the fleet is paused")
        assert {source in each.source.lower() for each in await paused(redis_url)} == {True}
        status, headers, _ = await send(gateway, COINBASE, "coinbaseexchange", Prefer="wait=1")
        assert (status, headers["X-Fleet-Error"]) == (503, "paused")
        assert await under_way(gateway) == 0
        assert await counted(gateway, "unknown") == 1
        assert len(exchange.heads) == 1


async def test_a_call_whose_caller_hangs_up_once_it_is_sent_counts_as_unknown(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    async with listening(tmp_path, vhost, redis_url) as (gateway, _, exchange):
        await hung_up_once_it_was_sent(gateway, exchange)
        exchange.may_answer.set()
        await wait_until(functools.partial(counted, gateway, "unknown"), "its end is counted")
        assert "its caller hung up before the answer" in gateway.log.read_text(encoding="utf-8")
        assert await under_way(gateway) == 0
        assert not await paused(redis_url)
        assert (await send(gateway, COINBASE, "coinbaseexchange"))[0] == 200
        assert len(exchange.heads) == 2


async def test_whoever_hangs_up_has_his_call_under_way_until_it_is_over(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    """Or a caller might have any number of them."""
    async with listening(tmp_path, vhost, redis_url, in_flight=1) as (gateway, _, exchange):
        await hung_up_once_it_was_sent(gateway, exchange)
        status, headers, _ = await send(gateway, COINBASE, "coinbaseexchange", Prefer="wait=1")
        assert (status, headers["X-Fleet-Error"]) == (503, "busy")
        exchange.may_answer.set()
        assert (await send(gateway, COINBASE, "coinbaseexchange"))[0] == 200


async def test_a_gateway_that_stops_waits_for_what_a_caller_left_behind(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    async with listening(tmp_path, vhost, redis_url, grace_s=60) as (gateway, _, exchange):
        exchange.answer = REFUSAL
        await hung_up_once_it_was_sent(gateway, exchange, wait="60")
        gateway.send(signal.SIGTERM)

        async def is_deaf() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            except ConnectionError:
                return True
            writer.close()
            return False

        await wait_until(is_deaf, "it takes no more connections")
        exchange.may_answer.set()
        await wait_until(lambda: gateway.exit_code is not None, "it has ended")
        assert gateway.exit_code == 0, gateway.tail()
        assert await paused(redis_url)


async def test_a_gateway_that_stops_waits_no_longer_than_its_grace(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with listening(tmp_path, vhost, redis_url, grace_s=0.2, max_wait_s=600) as (gateway, _, exchange):
        await hung_up_once_it_was_sent(gateway, exchange, wait="600")
        still_there = asyncio.create_task(send(gateway, COINBASE, "coinbaseexchange", Prefer="wait=600"))
        await wait_until(lambda: len(exchange.heads) == 2, "a second call is sent")
        gateway.send(signal.SIGTERM)
        await wait_until(lambda: gateway.exit_code is not None, "it has ended")
        assert gateway.exit_code == 0, gateway.tail()
        with pytest.raises(aiohttp.ClientConnectionError):
            await still_there


async def test_all_accounts_are_one_of_those_that_share_a_limit(vhost: str, redis_url: str, tmp_path: Path) -> None:
    """Or a caller with many keys would make the parts smaller that workers have while Redis is away."""
    async with listening(tmp_path, vhost, redis_url) as (gateway, _, exchange):
        exchange.may_answer.set()
        method, url, _, body = COINBASE
        for number in range(8):
            call = method, url, {"CB-ACCESS-KEY": f"key {number}"}, body
            assert (await send(gateway, call, "coinbaseexchange"))[0] == 200
        assert len(exchange.heads) == 8
        any_client: Any
        async with store.connect(redis_url, timeout_s=5) as any_client:
            (key,) = [key async for key in any_client.scan_iter("fleet:{coinbaseexchange}:*:members")]
            assert len([name for name in await any_client.hkeys(key) if name != b"gen"]) == 1


async def test_a_change_of_protocol_is_no_answer(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with listening(tmp_path, vhost, redis_url) as (gateway, _, exchange):
        exchange.may_answer.set()
        well, exchange.answer = exchange.answer, SWITCHING
        status, headers, text = await send(gateway, COINBASE, "coinbaseexchange")
        assert (status, headers["X-Fleet-Error"]) == (502, "outcome_unknown")
        assert "status 101" in text
        exchange.answer = well
        assert (await send(gateway, COINBASE, "coinbaseexchange"))[0] == 200


async def test_what_is_under_way_when_it_is_switched_off_is_not_sent(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    async with listening(tmp_path, vhost, redis_url) as (gateway, config, exchange):
        exchange.may_answer.set()
        method, url, signed, _ = COINBASE
        target = url.replace("https://", "/coinbaseexchange/")
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        head = f"DELETE {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nCB-ACCESS-KEY: anna\r\n\r\na="
        writer.write(head.encode())
        assert (await send(gateway, COINBASE, "coinbaseexchange"))[0] == 200
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace("signed = true", "signed = false"), encoding="utf-8")

        async def is_off() -> bool:
            return (await send(gateway, (method, url, signed, ""), "coinbaseexchange"))[0] == 403

        await wait_until(is_off, "signed calls are refused")
        sent = len(exchange.heads)
        writer.write(b"1")
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 503")
        assert "X-Fleet-Error: leaving" in answer
        assert len(exchange.heads) == sent
        writer.close()
        await writer.wait_closed()


async def test_a_signed_call_whose_answer_has_no_room_may_have_been_made(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    """Two large answers come at once, and the first is not read: the other is not told as one that was not sent."""
    body = secrets.token_urlsafe(9 * 1024 * 1024).encode()
    names = {"small": 1, "large": 16}
    for name in names:
        (tmp_path / name).write_text(name, encoding="utf-8")
    tokens = {name: {"file": str(tmp_path / name), "weight": weight} for name, weight in names.items()}
    async with listening(tmp_path / "fleet", vhost, redis_url, tokens=tokens) as (gateway, _, exchange):
        exchange.answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        told = b"X-Fleet-Token: small\r\nCB-ACCESS-KEY: anna\r\nConnection: close\r\nPrefer: wait=60\r\n\r\n"
        request = b"GET /coinbaseexchange/api.exchange.coinbase.com/accounts HTTP/1.1\r\nHost: localhost\r\n" + told
        both = [await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024) for _ in range(2)]
        for _, writer in both:
            writer.write(request)
        await wait_until(lambda: len(exchange.heads) == 2, "both are sent")
        exchange.may_answer.set()
        heads = sorted([await reader.readuntil(b"\r\n\r\n") for reader, _ in both])
        assert [head.split()[1] for head in heads] == [b"200", b"502"]
        assert b"X-Fleet-Error: outcome_unknown" in heads[1]
        for _, writer in both:
            writer.close()
