"""Signed calls on the wire: what an exchange gets of them, and what becomes of those that are interrupted."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from deploy.local import GatewayService, Services
from tests.support.fleet import QUICK, wait_until
from tests.support.signed import send


@contextlib.asynccontextmanager
async def listening(
    tmp_path: Path, vhost: str, redis_url: str, **gateway: Any
) -> AsyncGenerator[tuple[GatewayService, Path, list[str], asyncio.Event]]:
    """A gateway before an exchange that shows the heads that came, and answers when it may."""
    heads, may_answer = list[str](), asyncio.Event()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head.decode())
                await may_answer.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(on_connection, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        lane = {"ccxt": {"urls": {"api": {"public": url, "private": url}}}}
        config = {"lanes": {"coinbaseexchange": lane}, **QUICK, "gateway": {"signed": True, **gateway}}
        async with Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=0) as fleet:
            yield await fleet.add_gateway(env={"BOT_1": "of-the-fleet"}), fleet.config_file, heads, may_answer


COINBASE = "GET", "https://api.exchange.coinbase.com/accounts", {"CB-ACCESS-KEY": "anna"}, ""


async def test_headers_come_to_the_letter_and_without_a_caller_s_token(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    tokens = {"bot-1": {"env": "BOT_1"}}
    async with listening(tmp_path, vhost, redis_url, tokens=tokens) as (gateway, _, heads, may_answer):
        may_answer.set()
        both = {"X-Fleet-Token": "of-the-fleet", "Authorization": "Bearer of-the-fleet"}
        theirs = {"User-Agent": "a bot", "CB-VERSION": "2026-01-01"}  # ccxt's class has both too
        assert (await send(gateway, COINBASE, "coinbaseexchange", **both, **theirs))[0] == 200
        (head,) = heads
        names = [line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line]
        assert "user-agent: a bot\r\n" in head
        assert "cb-version: 2026-01-01\r\n" in head
        assert len(set(names)) == len(names)
        assert "of-the-fleet" not in head
        of_exchange = {"X-Fleet-Token": "of-the-fleet", "Authorization": "Bearer of-the-exchange"}
        assert (await send(gateway, COINBASE, "coinbaseexchange", **of_exchange))[0] == 200
        assert "authorization: Bearer of-the-exchange\r\n" in heads[1]


async def test_a_call_whose_caller_hangs_up_once_it_is_sent_counts_as_unknown(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    async with listening(tmp_path, vhost, redis_url) as (gateway, _, heads, may_answer):
        asking = asyncio.create_task(send(gateway, COINBASE, "coinbaseexchange"))

        async def is_sent() -> bool:
            return bool(heads)

        await wait_until(is_sent, "the call is sent")
        asking.cancel()

        async def is_noted() -> bool:
            seen = await gateway.metrics()
            return seen.get(("fleet_gateway_signed_total", "anyone", "unknown", "coinbaseexchange")) == 1

        await wait_until(is_noted, "its end is counted")
        assert "its caller hung up before the answer" in gateway.log.read_text(encoding="utf-8")
        may_answer.set()
        assert len(heads) == 1


async def test_what_is_under_way_when_it_is_switched_off_is_not_sent(
    vhost: str, redis_url: str, tmp_path: Path
) -> None:
    async with listening(tmp_path, vhost, redis_url) as (gateway, config, heads, may_answer):
        may_answer.set()
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
        sent = len(heads)
        writer.write(b"1")
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 503")
        assert "X-Fleet-Error: leaving" in answer
        assert len(heads) == sent
        writer.close()
        await writer.wait_closed()
