"""A call without a usable answer says why: real sockets on loopback refuse, close, reset, or speak something else."""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import pytest

from deploy.authority import Authority
from deploy.local import Services
from deploy.processes import free_port
from schemas.messages import ErrorCode
from tests.support.canaries import canary
from tests.support.commands import command
from tests.support.exchange_lanes import Answers, Lanes, call
from tests.support.fleet import Client, wait_until
from workers.exchange import egress
from workers.exchange.errors import Verdict, judge

BTC: Final[dict[str, Any]] = {"symbol": "BTC/USDT"}
TICKER: Final = b'{"code":"0","data":[{"instId":"BTC-USDT","last":"5"}]}'
# The same, by brotli 1.2.1's compress.
IN_BROTLI: Final = bytes.fromhex(
    "8b1a807b22636f6465223a2230222c2264617461223a5b7b22696e73744964223a224254432d55534454222c226c617374223a2235227d5d7d03"
)
Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def certified(tmp_path: Path) -> ssl.SSLContext:
    """A server's TLS, by an authority that nobody trusts."""
    Authority(tmp_path).certify("server", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    return context


@contextlib.asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """Serves on a free port, and gives it."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    async with await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


def answering(head: bytes, body: bytes = b"", status: bytes = b"200 OK") -> Serve:
    """Answers the first call like this, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        length = f"Content-Length: {len(body)}\r\n".encode()
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\n" + length + head + b"\r\n" + body)
        await writer.drain()

    return serve


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the call, and closes."""
    await reader.readuntil(b"\r\n\r\n")


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the call, and resets the connection."""
    await reader.readuntil(b"\r\n\r\n")
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def settings(url: str) -> dict[str, Any]:
    """OKX there, with its market known."""
    there = Answers()
    there.url = url
    return there.settings("okx")


async def ask(lanes: Lanes, url: str, *, proxy: str | None = None) -> Verdict:
    """What a call there comes to; its words hold no parameter."""
    lane, _ = lanes.lane("okx", settings(url), egress=lanes.egress(proxy=proxy))
    attempt = call("okx")
    with pytest.raises(Exception) as raised:
        await lane.call("fetch_ticker", BTC, attempt)
    verdict = judge(raised.value, attempt, lane.redactor.hide)
    assert "instId" not in verdict.message
    assert lane.error_text(raised.value) in verdict.message  # as in the log and the status
    return verdict


async def test_a_port_where_nobody_listens(lanes: Lanes) -> None:
    port = free_port()
    verdict = await ask(lanes, f"http://127.0.0.1:{port}")
    assert verdict.code is ErrorCode.EXCHANGE_UNAVAILABLE
    assert verdict.message.startswith(f"ExchangeNotAvailable: connection refused (127.0.0.1:{port}); okx GET http")


async def test_a_host_without_a_name(lanes: Lanes) -> None:
    verdict = await ask(lanes, "http://exchange.invalid")
    assert verdict.code is ErrorCode.EXCHANGE_UNAVAILABLE
    assert "the host's name has no address: " in verdict.message
    assert "(exchange.invalid:80)" in verdict.message


async def test_a_certificate_that_nobody_trusts(lanes: Lanes, certified: ssl.SSLContext) -> None:
    async with serving(closing, certified) as port:
        verdict = await ask(lanes, f"https://127.0.0.1:{port}")
    assert verdict.code is ErrorCode.EXCHANGE_UNAVAILABLE
    assert "TLS: unable to get local issuer certificate" in verdict.message or "TLS: self-signed" in verdict.message


async def test_a_plain_port_asked_for_tls(lanes: Lanes) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(plain) as port:
        verdict = await ask(lanes, f"https://127.0.0.1:{port}")
    assert verdict.code is ErrorCode.EXCHANGE_UNAVAILABLE
    assert "TLS: wrong version number" in verdict.message or "TLS: record layer failure" in verdict.message


@pytest.mark.parametrize("status", [b"301 Moved Permanently", b"302 Found", b"308 Permanent Redirect"])
async def test_an_answer_that_leads_elsewhere_says_where(lanes: Lanes, status: bytes) -> None:
    head = b"Location: https://new.example/api/v5/ticker?instId=BTC-USDT\r\n"
    async with serving(answering(head, b"<html>moved</html>", status)) as port:
        verdict = await ask(lanes, f"http://127.0.0.1:{port}")
    assert verdict.message.startswith(f"status {status[:3].decode()} leads to https://new.example/api/v5/ticker, and")
    assert "set ccxt.urls or ccxt.hostname of the lane" in verdict.message


async def test_an_answer_in_zstandard(lanes: Lanes) -> None:
    async with serving(answering(b"Content-Encoding: zstd\r\n", b"\x28\xb5\x2f\xfd\x04\x00")) as port:
        verdict = await ask(lanes, f"http://127.0.0.1:{port}")
    assert "compressed with Zstandard, which was not asked for" in verdict.message


async def test_a_port_that_speaks_no_http(lanes: Lanes) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        await reader.read()

    async with serving(other) as port:
        verdict = await ask(lanes, f"http://127.0.0.1:{port}")
    assert verdict.code is ErrorCode.BAD_RESPONSE
    assert "no HTTP: " in verdict.message
    assert "SSH-2.0" in verdict.message


@pytest.mark.parametrize(
    ("serve", "says"),
    [(closing, "the connection was closed before an answer came"), (resetting, "connection reset by peer")],
)
async def test_a_server_that_closes(lanes: Lanes, serve: Serve, says: str) -> None:
    async with serving(serve) as port:
        verdict = await ask(lanes, f"http://127.0.0.1:{port}")
    assert verdict.code is ErrorCode.EXCHANGE_UNAVAILABLE
    assert says in verdict.message


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_dead_proxy_and_its_password_does_not_show(lanes: Lanes, scheme: str) -> None:
    port, password = free_port(), canary()
    verdict = await ask(
        lanes, f"{scheme}://127.0.0.1:1", proxy=f"http://user:{quote(password, safe='')}@127.0.0.1:{port}"
    )
    assert verdict.code is ErrorCode.EXCHANGE_UNAVAILABLE
    assert f"the proxy at 127.0.0.1:{port}: connection refused" in verdict.message
    assert password not in verdict.message


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_other_credentials(lanes: Lanes, scheme: str) -> None:
    password = canary()
    refuse = answering(b"Proxy-Authenticate: Basic\r\n", status=b"407 Proxy Authentication Required")
    async with serving(refuse) as port:
        verdict = await ask(
            lanes, f"{scheme}://127.0.0.1:1", proxy=f"http://user:{quote(password, safe='')}@127.0.0.1:{port}"
        )
    assert "407 Proxy Authentication Required" in verdict.message
    assert password not in verdict.message


async def ticker(lanes: Lanes, head: bytes, body: bytes = TICKER) -> Any:
    """What a call brings that is answered so."""
    async with serving(answering(head, body)) as port:
        lane, _ = lanes.lane("okx", settings(f"http://127.0.0.1:{port}"))
        return (await lane.call("fetch_ticker", BTC, call("okx")))["last"]


async def test_brotli_that_nobody_asked_for_is_read(lanes: Lanes) -> None:
    assert await ticker(lanes, b"Content-Encoding: br\r\n", IN_BROTLI) == 5


async def test_long_headers_are_read(lanes: Lanes) -> None:
    assert await ticker(lanes, b"Content-Security-Policy: " + b"x" * 40_000 + b"\r\n") == 5


@pytest.mark.parametrize(
    ("head", "body", "says"),
    [
        (b"Content-Encoding: br\r\n", b"no brotli at all", "Can not decode content-encoding: br"),
        (b"Content-Encoding: br\r\n", bytes.fromhex("0b028078"), "no JSON: 'x'"),  # cut off: what came is shown
        (b"Content-Encoding: gzip\r\n", b"no gzip at all", "Can not decode content-encoding: gzip"),
        (
            b"Content-Security-Policy: " + b"x" * (egress.HEADER_BYTES + 1) + b"\r\n",
            b"{}",
            "no HTTP: Got more than 65536",
        ),
    ],
)
async def test_an_answer_that_can_t_be_read(lanes: Lanes, head: bytes, body: bytes, says: str) -> None:
    async with serving(answering(head, body)) as port:
        verdict = await ask(lanes, f"http://127.0.0.1:{port}")
    assert verdict.code is ErrorCode.BAD_RESPONSE
    assert says in verdict.message


async def test_a_lane_that_does_not_open_says_why_everywhere(vhost: str, redis_url: str, tmp_path: Path) -> None:
    port, password = free_port(), canary()
    proxy = f"http://user:{quote(password, safe='')}@127.0.0.1:{port}"
    okx = {"ccxt": {"urls": {"api": {"rest": f"http://127.0.0.1:{port}"}}}}
    config = {"lanes": {"okx": okx, "kraken": {"proxy": proxy}, "bitvavo": {"proxy": proxy}}}
    fleet = Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=0)
    refused = f"connection refused (127.0.0.1:{port})"
    async with fleet:
        worker = fleet.add_worker()

        async def tried() -> bool:
            lanes = (await worker.status()).get("lanes", [])
            return bool(lanes) and all("refused" in lane["error"] for lane in lanes)

        await wait_until(tried, "all lanes were tried")
        errors = {lane["lane"]: lane["error"] for lane in (await worker.status())["lanes"]}
        assert refused in errors["okx"]
        assert f"the proxy at 127.0.0.1:{port}: connection refused" in errors["kraken"]
        async with Client.on(vhost) as client:
            await wait_until(lambda: told(client, f"okx has not opened: ExchangeNotAvailable: {refused}"), "it is told")
        routed = {lane["lane"]: lane["reason"] for lane in (await fleet.dispatchers[0].status())["lanes"]}
        assert routed["okx"].startswith(f"it has not opened: ExchangeNotAvailable: {refused}")
        for words in ("status", "lanes", "doctor"):
            done = await command(words, broker_url=vhost, redis_url=redis_url)
            assert f" has not opened: ExchangeNotAvailable: {refused}" in done.out
            assert password not in done.out + done.err
        done = await command("call", "fetch_time", "--exchange", "okx", "--deadline", "3", broker_url=vhost)
        assert f"okx has not opened: ExchangeNotAvailable: {refused}" in done.err
        log = worker.tail(1000)
        assert refused in log
        assert password not in log
        assert "limits_guessed lane=bitvavo exchange=bitvavo" in log
        assert "limits_guessed lane=okx" not in log


async def told(client: Client, words: str) -> bool:
    """Whether a result says so."""
    answer = await client.ask("fetch_ticker", BTC, exchanges=["okx"], deadline_ms=int(time.time() * 1000) + 500)
    assert answer.code == "deadline_exceeded"
    assert answer.result.error is not None
    return words in answer.result.error.message
