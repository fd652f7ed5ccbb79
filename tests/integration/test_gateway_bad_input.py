"""What an attacker sends to the gateway: smuggled requests, other hosts, endless headers, connections without end.

Each is refused or cut off, nothing of it reaches an exchange, and others are answered meanwhile.
"""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.local import GatewayService
from tests.support import gateways
from tests.support.fleet import Stand, wait_until
from tests.support.gateways import said

TIME = b"/kraken/api.kraken.com/0/public/Time"
HOST = b"Host: 127.0.0.1\r\n"
END = b"Connection: close\r\n\r\n"
GOOD = b"GET " + TIME + b" HTTP/1.1\r\n" + HOST + END
# A second request, hidden in what the first one sends as its body. The fleet itself never asks for trades.
HIDDEN = b"GET /kraken/api.kraken.com/0/public/Trades?pair=XBTUSD HTTP/1.1\r\n" + HOST + END
# Kraken's own, which has no limit for a single call.
PREFIX = b"GET " + TIME + b" HTTP/1.1\r\n" + HOST


@pytest.fixture
async def gateway(stand: Stand) -> AsyncGenerator[GatewayService]:
    """Yield a gateway, which others still use when an attacker is gone."""
    async with gateways.beside(stand) as running:
        yield running
        assert [each.status for each in await said(running.port, GOOD)] == [200]


async def calls(stand: Stand) -> int:
    """How many calls all exchanges have had of the kind that only a hidden request makes."""
    counters = await stand.simulator.counters()
    return sum(
        count
        for exchange in counters["exchanges"].values()
        for endpoint, count in exchange["endpoints"].items()
        if "Trades" in endpoint
    )


REFUSED: dict[str, tuple[bytes, int]] = {
    "two lengths": (PREFIX + b"Content-Length: 0\r\nContent-Length: 5\r\n" + END + b"12345", 400),
    "two equal lengths": (PREFIX + b"Content-Length: 5\r\nContent-Length: 5\r\n" + END + b"12345", 400),
    "a list of lengths": (PREFIX + b"Content-Length: 5, 5\r\n" + END + b"12345", 400),
    "a length with a sign": (PREFIX + b"Content-Length: +5\r\n" + END + b"12345", 400),
    "a negative length": (PREFIX + b"Content-Length: -1\r\n" + END, 400),
    "a hexadecimal length": (PREFIX + b"Content-Length: 0x5\r\n" + END + b"12345", 400),
    "a length and chunks": (
        b"POST " + TIME + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n" + HIDDEN,
        400,
    ),
    "chunks and a length": (
        b"POST " + TIME + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
        b"0\r\n\r\n" + HIDDEN,
        400,
    ),
    "an unknown encoding": (PREFIX + b"Transfer-Encoding: xchunked\r\n" + END + HIDDEN, 400),
    "chunked twice": (PREFIX + b"Transfer-Encoding: chunked, chunked\r\n" + END + HIDDEN, 400),
    "chunked behind a tab": (PREFIX + b"Transfer-Encoding:\tchunked\r\n" + END + b"0\r\n\r\n", 400),
    "an encoding with a space before its colon": (PREFIX + b"Transfer-Encoding : chunked\r\n" + END + HIDDEN, 400),
    "a GET with chunks": (PREFIX + b"Transfer-Encoding: chunked\r\n" + END + b"0\r\n\r\n", 400),
    "a GET with a body": (PREFIX + b"Content-Length: 5\r\n" + END + b"12345", 400),
    "a chunk's size that is none": (
        b"POST " + TIME + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + HIDDEN,
        400,
    ),
    "a folded header": (PREFIX + b"X-A: b\r\n c\r\n" + END, 400),
    "a header's name with a space": (PREFIX + b"X A: b\r\n" + END, 400),
    "a header without a name": (PREFIX + b": b\r\n" + END, 400),
    "a header with a null": (PREFIX + b"X-A: b\0c\r\n" + END, 400),
    "a bare CR in a header": (PREFIX + b"X-A: b\rX-B: c\r\n" + END, 400),
    "no host": (b"GET " + TIME + b" HTTP/1.1\r\n" + END, 400),
    "two hosts": (PREFIX + b"Host: evil.example\r\n" + END, 400),
    "another host": (b"GET " + TIME + b" HTTP/1.1\r\nHost: evil.example\r\n" + END, 403),
    "a private address as host": (b"GET " + TIME + b" HTTP/1.1\r\nHost: 10.0.0.1\r\n" + END, 403),
    "an absolute target": (b"GET http://api.kraken.com/0/public/Time HTTP/1.1\r\n" + HOST + END, 400),
    "an absolute target of ours": (b"GET http://127.0.0.1" + TIME + b" HTTP/1.1\r\n" + HOST + END, 400),
    "a tunnel": (b"CONNECT api.kraken.com:443 HTTP/1.1\r\n" + HOST + END, 405),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + END, 405),
    "a target without a slash": (b"GET kraken/api.kraken.com HTTP/1.1\r\n" + HOST + END, 400),
    "two slashes": (b"GET /" + TIME + b" HTTP/1.1\r\n" + HOST + END, 404),
    "a user in the host": (b"GET /kraken/user:pass@api.kraken.com/0 HTTP/1.1\r\n" + HOST + END, 400),
    "an encoded user": (b"GET /kraken/user%40api.kraken.com/0 HTTP/1.1\r\n" + HOST + END, 400),
    "an address in brackets": (b"GET /kraken/[::1]/0 HTTP/1.1\r\n" + HOST + END, 400),
    "a decimal address": (b"GET /kraken/2130706433/0 HTTP/1.1\r\n" + HOST + END, 422),
    "an octal address": (b"GET /kraken/0177.0.0.1/0 HTTP/1.1\r\n" + HOST + END, 422),
    "a hexadecimal address": (b"GET /kraken/0x7f.0.0.1/0 HTTP/1.1\r\n" + HOST + END, 422),
    "a private address": (b"GET /kraken/10.0.0.1/0 HTTP/1.1\r\n" + HOST + END, 422),
    "a link-local address": (b"GET /kraken/169.254.169.254/latest HTTP/1.1\r\n" + HOST + END, 422),
    "another port": (b"GET /kraken/api.kraken.com:8443/0/public/Time HTTP/1.1\r\n" + HOST + END, 422),
    "a host that begins alike": (b"GET /kraken/api.kraken.com.evil.example/0 HTTP/1.1\r\n" + HOST + END, 422),
    "a dot behind the host": (b"GET /kraken/api.kraken.com./0/public/Time HTTP/1.1\r\n" + HOST + END, 400),
    "dots": (b"GET /kraken/api.kraken.com/0/public/../private/Balance HTTP/1.1\r\n" + HOST + END, 400),
    "encoded dots": (b"GET /kraken/api.kraken.com/0/public/%2e%2e/private HTTP/1.1\r\n" + HOST + END, 400),
    "dots encoded twice": (b"GET /kraken/api.kraken.com/0/%252e%252e/private HTTP/1.1\r\n" + HOST + END, 400),
    "dots and a semicolon": (b"GET /kraken/api.kraken.com/0/..;/private HTTP/1.1\r\n" + HOST + END, 400),
    "an encoded slash": (b"GET /kraken/api.kraken.com/0%2fpublic/Time HTTP/1.1\r\n" + HOST + END, 400),
    "a backslash": (b"GET /kraken/api.kraken.com\\@evil.example/0 HTTP/1.1\r\n" + HOST + END, 400),
    "a fragment": (b"GET " + TIME + b"#x HTTP/1.1\r\n" + HOST + END, 400),
    "bytes that are no text": (b"GET /kraken/api.kraken.com/\xff\xfe HTTP/1.1\r\n" + HOST + END, 400),
    "a key in the query": (b"GET " + TIME + b"?apiKey=x HTTP/1.1\r\n" + HOST + END, 403),
    "a key in a header": (PREFIX + b"API-Key: x\r\n" + END, 403),
    "a page of another site": (PREFIX + b"Origin: https://evil.example\r\n" + END, 403),
    "an image on a page of another site": (PREFIX + b"Sec-Fetch-Site: cross-site\r\n" + END, 403),
    "an upgrade": (PREFIX + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
    "a line that is too long": (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HOST + END, 400),
    "a header that is too long": (PREFIX + b"X-A: " + b"a" * 40_000 + b"\r\n" + END, 400),
    "too many headers": (PREFIX + b"".join(b"X-%d: a\r\n" % number for number in range(200)) + END, 400),
    "a body that is too large": (
        b"POST /v1/fetch_ticker HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n" + b" " * 100_000,
        422,
    ),
    "chunks without end": (
        b"POST /v1/fetch_ticker HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"4000\r\n"
        + b" " * 0x4000
        + b"\r\n"
        + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 20,
        422,
    ),
    "a compressed body": (
        b"POST /v1/fetch_ticker HTTP/1.1\r\n" + HOST + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        400,
    ),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100, 400),
    "another version": (b"GET " + TIME + b" HTTP/9.9\r\n" + HOST + END, 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
}


async def test_what_is_refused(stand: Stand, gateway: GatewayService) -> None:
    before = await calls(stand)
    wrong: dict[str, object] = {}
    for name, (request, status) in REFUSED.items():
        answers = await said(gateway.port, request)
        if [each.status for each in answers] != [status]:
            wrong[name] = [(each.status, each.body[:100]) for each in answers]
    assert not wrong
    assert await calls(stand) == before  # nothing that was hidden was asked


async def test_where_signed_calls_are_taken_nothing_else_is(stand: Stand, tmp_path: Path) -> None:
    """What means two things is refused there too; a key on a public call goes to the exchange itself."""
    config = tmp_path / "fleet.toml"
    config.write_text(stand.fleet.config_file.read_text(encoding="utf-8") + "\n[gateway]\nsigned = true\n")
    sent = {"a key in the query": 200, "a key in a header": 200}
    order = b" /kraken/api.kraken.com/0/private/AddOrder HTTP/1.1\r\n" + HOST + b"API-Key: x\r\n"
    more = {
        "an order with two lengths": (b"POST" + order + b"Content-Length: 0\r\nContent-Length: 5\r\n" + END, 400),
        "an order with a length and chunks": (
            b"POST" + order + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
            400,
        ),
        "an order with a GET's body": (b"GET" + order + b"Content-Length: 5\r\n" + END + b"12345", 400),
        "a key twice": (b"POST" + order + b"API-Key: y\r\nContent-Length: 0\r\n" + END, 400),
        "a compressed order": (b"POST" + order + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 400),
        "an order that is too large": (b"PUT" + order + b"Content-Length: 100000\r\n\r\n" + b" " * 100_000, 422),
        "an order of a page": (b"POST" + order + b"Origin: https://evil.example\r\nContent-Length: 0\r\n" + END, 403),
        "an order for another host": (b"POST" + order.replace(HOST, b"Host: evil.example\r\n") + END, 403),
        "a tunnel with a key": (b"CONNECT" + order + END, 405),
        "JSON that is none": (b"POST" + order + b"Content-Length: 2\r\nConnection: close\r\n\r\n{x", 400),
    }
    async with gateways.beside(stand, words=["--config", str(config)]) as gateway:
        before = await calls(stand)
        wrong: dict[str, object] = {}
        for name, (request, status) in {**REFUSED, **more}.items():
            answers = await said(gateway.port, request)
            if [each.status for each in answers] != [sent.get(name, status)]:
                wrong[name] = [(each.status, each.body[:100]) for each in answers]
        assert not wrong
        assert await calls(stand) == before
        assert [each.status for each in await said(gateway.port, GOOD)] == [200]


async def test_the_same_connection_goes_on_where_that_is_safe(gateway: GatewayService) -> None:
    keep = b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n"
    answers = await said(gateway.port, keep + keep + GOOD)
    assert [each.status for each in answers] == [400, 400, 200]


async def test_an_old_program_is_answered(gateway: GatewayService) -> None:
    answers = await said(gateway.port, b"GET " + TIME + b" HTTP/1.0\r\n" + HOST + b"\r\n")
    assert [each.status for each in answers] == [200]


async def test_a_head_has_no_body(gateway: GatewayService) -> None:
    (answer,) = await said(gateway.port, b"HEAD " + TIME + b" HTTP/1.1\r\n" + HOST + END)
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "GET, POST", b"")


async def test_a_body_that_never_comes_ends_with_the_caller_s_time(gateway: GatewayService) -> None:
    request = b"POST /v1/fetch_ticker HTTP/1.1\r\n" + HOST + b"Prefer: wait=1\r\nContent-Length: 10\r\n\r\n{"
    (answer,) = await said(gateway.port, request)
    assert (answer.status, answer.headers["x-fleet-error"], answer.headers["connection"]) == (408, "no_body", "close")


async def test_who_does_not_read_is_cut_off(gateway: GatewayService) -> None:
    """One connection asks for the longest page again and again, and reads nothing of it."""
    request = b"GET /v1/openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
    transport: Any = writer.transport
    transport.pause_reading()
    writer.write(request * 100)

    async def is_cut() -> bool:
        return (await gateway.metrics()).get(("fleet_gateway_connections_cut_total", "slow reader"), 0) == 1

    await wait_until(is_cut, "it is cut off", timeout_s=60, every_s=0.5)
    writer.close()
    del reader


@pytest.mark.parametrize(
    "sends", [b"", b"GET / HTTP/1.1\r\nX-", b"POST /v1/fetch_ticker HTTP/1.1\r\nHost: localhost\r\n"]
)
async def test_ten_thousand_connections_leave_room_for_others(gateway: GatewayService, sends: bytes) -> None:
    """They say nothing, or never end what they say. Others are answered, and what they cost is bounded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = 10_000
    assert hard > many + 1_000, f"this test opens {many:,} files, and may open {hard:,}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before_bytes = gateways.memory_bytes(gateway)
    sockets: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        for number in range(many):
            each = socket.socket()
            each.setblocking(False)
            await loop.sock_connect(each, ("127.0.0.1", gateway.port))
            sockets.append(each)
            if sends:
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(each, sends)
            if number % 1_000 == 999:
                assert [each.status for each in await said(gateway.port, GOOD)] == [200]
        seen = await gateway.metrics()
        assert seen["fleet_gateway_connections",] <= 4096
        assert seen["fleet_gateway_connections_cut_total", "too many"] >= many - 4096
        assert gateways.memory_bytes(gateway) - before_bytes < 256 * 1024 * 1024
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{gateway.url}/v1/fetch_time?exchanges=okx") as answer,
        ):
            assert answer.status == 200
    finally:
        for each in sockets:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
