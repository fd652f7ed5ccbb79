"""Stand-ins for the exchanges under their real names, so that a configuration can be tried as it stands.

Each name has a port of this machine that speaks TLS with a certificate for that name, and passes on to what plays the
exchange. Workers reach them by `deploy.standin_worker`, which changes two things and no more: how a name becomes an
address, and which authority is trusted. A name without a stand-in is not found, so that no call by name leaves this
machine.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from deploy.authority import Authority
from deploy.processes import Startable

# Where ccxt's classes send what `deploy/fleet.toml` asks of them (ccxt 4.5.90, `describe()["urls"]`).
NAMES: Final[Mapping[str, str]] = {
    "api.binance.com": "binance",
    "www.okx.com": "okx",
    "api.huobi.pro": "htx",
    "api.coinbase.com": "coinbase",
    "api.kraken.com": "kraken",
}
# The environment variable with the file of the `Places`.
VARIABLE: Final = "FLEET_STAND_INS"


class Places(msgspec.Struct, frozen=True):
    """What a worker needs to know of the stand-ins.

    Args:
        authority: the file with the certificate to trust.
        ports: those of 127.0.0.1, by the names and ports that they stand in for, ``api.kraken.com:443``.
    """

    authority: str
    ports: dict[str, int]


class StandIns(Startable):
    """Serves the names.

    Args:
        folder: where keys, certificates and places go; nothing else of theirs may be in it.
        urls: what plays an exchange, by its name: ``{"api.kraken.com": "http://127.0.0.1:1234"}``.
        plain: ports that serve under further names as they are, without TLS: ``{"proxy.example:3128": 1234}``.

    Attributes:
        env: what a worker must find in its environment.
        ports: those of 127.0.0.1, by the names and ports that they stand in for.
    """

    def __init__(self, folder: Path, urls: Mapping[str, str], plain: Mapping[str, int] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._urls = dict(urls)
        self._servers: list[asyncio.Server] = []
        self._passing: set[asyncio.Task[None]] = set()
        self.ports: dict[str, int] = dict(plain or {})
        self.env = {VARIABLE: str(folder / "places.json")}

    async def start(self) -> None:
        """Makes the certificates and serves on free ports."""
        authority = Authority(self._folder)
        for name, url in self._urls.items():
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*authority.certify(name, name))
            await self._serve(f"{name}:443", int(url.rpartition(":")[2]), context)
        places = Places(str(authority.file), self.ports)
        (self._folder / "places.json").write_bytes(msgspec.json.encode(places))

    async def _serve(self, name: str, port: int, context: ssl.SSLContext) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            address = writer.get_extra_info("peername")[0]  # the exchange counts by it
            try:
                there = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            except OSError:  # what plays the exchange is down, and so is the exchange
                writer.close()
                return
            for source, sink in ((reader, there[1]), (there[0], writer)):
                task = asyncio.create_task(pass_on(source, sink))
                self._passing.add(task)
                task.add_done_callback(self._passing.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
        self._servers.append(server)
        self.ports[name] = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends all connections."""
        for server in self._servers:
            server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)


async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Writes all that comes from one connection to another, and closes that at the end."""
    try:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
    finally:
        sink.close()
