"""What tests of the gateway share: a process of it beside a fleet, and raw sockets to it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from deploy.local import STOP_GRACE_S, GatewayService
from tests.support.fleet import Stand


def memory_bytes(gateway: GatewayService) -> int:
    """What a gateway's process holds of the machine's memory."""
    status = Path(f"/proc/{gateway.pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


@asynccontextmanager
async def beside(
    stand: Stand, *, words: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> AsyncGenerator[GatewayService]:
    """A gateway of the stand's fleet; it leaves in order."""
    gateway = await stand.fleet.add_gateway(words=words, env=env)
    try:
        yield gateway
    finally:
        await gateway.stop(grace_s=STOP_GRACE_S)
        stand.fleet.gateways.remove(gateway)
    assert gateway.exit_code == 0, gateway.tail()
    assert "Traceback" not in gateway.log.read_text(encoding="utf-8")


class Said(Struct, frozen=True):
    """An answer as it came over the wire: the status, headers by their names in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes


async def said(port: int, request: bytes, *, timeout_s: float = 20) -> list[Said]:
    """Sends bytes as they are, and returns what comes back until the connection ends; nothing is an empty list."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[Said] = []
    try:
        writer.write(request)
        async with asyncio.timeout(timeout_s):
            while head := await _head(reader):
                status, headers = head
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                found.append(Said(status, headers, body))
    except ConnectionError:
        pass
    finally:
        writer.close()
    return found


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]] | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}
