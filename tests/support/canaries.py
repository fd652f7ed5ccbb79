"""Unmistakable secrets, recorders of everything that a fleet puts out, and a search for the secrets in it."""

import asyncio
import base64
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, quote_plus

import aiohttp
from aio_pika.abc import AbstractIncomingMessage
from aiohttp import web

from deploy.servers import Redis
from schemas.runtime.store import connect

# All made-up secrets are this, a number and two signs, and again: so it is in every piece of 19 characters, and in
# whatever form somebody writes it.
MARK: Final = "c0nary7x"
_NUMBERS: Final = itertools.count(10)


def canary() -> str:
    """A new secret, with all that URLs, forms, JSON and HTML write in another way."""
    part = f"{MARK}{next(_NUMBERS)}"
    return f"{part}+/{part}=&{part}%@{part}:"


def base64_canary() -> str:
    """A new secret that must be decoded before its use."""
    return f"{MARK}{next(_NUMBERS)}+/" * 3


def _in_base64(text: str) -> list[str]:
    """The part of a text's base64 that does not depend on what stands before (0 to 2 bytes) and behind it."""
    raws = [b"\0" * before + text.encode() for before in range(3)]
    return [base64.b64encode(raw).decode()[-(-before * 8 // 6) : len(raw) * 8 // 6] for before, raw in enumerate(raws)]


def forms(secret: str) -> dict[str, str]:
    """A secret as others may write it."""

    def each(form: str) -> str:
        return "".join(char if char.isalnum() else form.format(ord(char)) for char in secret)

    return {
        "as it is": secret,
        "in a URL": quote(secret, safe=""),
        "in a URL, in lower case": each("%{:02x}"),
        "in a form": quote_plus(secret),
        "in JSON": secret.replace("/", "\\/"),
        "in JSON as code points": each("\\u{:04x}"),
        "in HTML": each("&#{};"),
        **{f"in base64 behind {before}": text for before, text in enumerate(_in_base64(secret))},
        "in base64 of URLs": base64.urlsafe_b64encode(secret.encode()).decode(),
    }


def leaks(outputs: Mapping[str, bytes], others: Iterable[str] = ()) -> list[str]:
    """Where a secret shows, and between what.

    Args:
        outputs: what was put out, by where.
        others: secrets that were not made up here.
    """
    found: list[str] = []
    for text in (MARK, *others):
        for written in (text, *_in_base64(text)):
            for where, output in outputs.items():
                if (at := output.find(written.encode())) >= 0:
                    found.append(f"{where}: {output[max(0, at - 150) : at + 80]!r}")
    return found


class Recorder:
    """All that passes RabbitMQ and Redis while it runs, and all that files hold, each of it once."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.commands: list[bytes] = []
        self._read: dict[Path, int] = {}

    def news(self, files: Iterable[Path]) -> dict[str, bytes]:
        """What came since the last time."""
        news = {"messages": b"\n".join(self.messages), "commands to Redis": b"".join(self.commands)}
        self.messages.clear()
        self.commands.clear()
        for path in files:
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                news[path.name] = file.read()
                self._read[path] = file.tell()
        return news

    async def take(self, message: AbstractIncomingMessage) -> None:
        """RabbitMQ traces a message that is published or delivered (``rabbitmqctl trace_on``)."""
        self.messages.append(f"{message.routing_key} {message.headers} ".encode() + message.body)

    async def listen(self, redis: Redis, password: str) -> None:
        """Records every command that Redis gets, until cancelled (``MONITOR``)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", redis.port, limit=2**26)
        writer.write(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\nMONITOR\r\n" % (len(password), password.encode()))
        try:
            while line := await reader.readline():
                self.commands.append(line)
        finally:
            writer.close()


async def held_by_redis(url: str) -> list[object]:
    """All keys with their values, and what it says of its clients."""
    held: list[object] = []
    client: Any = connect(url, timeout_s=5)
    async with client:
        read: dict[bytes, Callable[[bytes], Any]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        }
        async for key in client.scan_iter("*"):
            kind = await client.type(key)
            if kind != b"none":  # it has just expired
                held += [key, await read[kind](key)]
        return [*held, await client.slowlog_get(1000), await client.client_list(), await client.acl_log()]


class EchoingProxy:
    """An HTTP proxy with a password. It answers signed calls itself if it has `answers`.

    Attributes:
        answers: status, headers and body of signed calls, by turns; none passes them on.
        refusal: its answer to clients without the password, and to all that want a tunnel.
    """

    def __init__(self, user: str, password: str) -> None:
        self._right = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        # Another address than that of lanes without a proxy: exchanges count by it.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.2", 0)))
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.refusal = ""
        self.port = 0
        self.passed = self.answered = 0

    @classmethod
    @asynccontextmanager
    async def serving(cls, user: str, password: str) -> AsyncGenerator[Self]:
        """Serves on a free port of 127.0.0.1."""
        proxy = cls(user, password)
        runner = web.ServerRunner(web.Server(proxy._handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.port = runner.addresses[0][1]
        try:
            yield proxy
        finally:
            await runner.cleanup()
            await proxy._session.close()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if request.method == "CONNECT" or request.headers.get("Proxy-Authorization") != self._right:
            return web.Response(status=407, text=self.refusal, headers={"Proxy-Authenticate": "Basic"})
        if self.answers and "OK-ACCESS-KEY" in request.headers:
            status, headers, body = self.answers[self.answered % len(self.answers)]
            self.answered += 1
            return web.Response(status=status, headers=headers, text=body, content_type="application/json")
        self.passed += 1
        headers = {name: value for name, value in request.headers.items() if name != "Proxy-Authorization"}
        async with self._session.request(request.method, request.url, headers=headers) as there:
            return web.Response(status=there.status, body=await there.read(), content_type="application/json")
