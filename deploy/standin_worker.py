"""``python -m deploy.standin_worker``: ``python -m workers``, with exchanges' names resolved to `deploy.standin`."""

import os
import runpy
import socket
from pathlib import Path

import aiohttp.connector
import certifi
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from deploy.standin import VARIABLE, Places
from schemas.runtime import modules

PLACES = msgspec.json.decode(Path(os.environ[VARIABLE]).read_bytes(), type=Places)


class StandInResolver(AbstractResolver):
    """Finds stand-ins and nothing else."""

    def __init__(self, **_: object) -> None:
        pass

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The one address that stands in for this name and port."""
        if f"{host}:{port}" not in PLACES.ports:
            raise OSError(f"{host}:{port} has no stand-in")
        found = ResolveResult(
            hostname=host,
            host="127.0.0.1",
            port=PLACES.ports[f"{host}:{port}"],
            family=socket.AF_INET,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_NUMERICHOST,
        )
        return [found]

    async def close(self) -> None:
        """There is nothing to close."""


def main() -> None:
    """Runs a worker, with its own command line."""
    if not hasattr(aiohttp.connector, "DefaultResolver"):  # where it finds names (aiohttp 3.14)
        raise RuntimeError("this aiohttp would find the real exchanges; install the version ccxt-fleet names")
    certifi.where = lambda: PLACES.authority
    aiohttp.connector.DefaultResolver = StandInResolver  # pyright: ignore[reportPrivateImportUsage]
    runpy.run_module(modules.module("workers"), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
