"""The authority for tests and the stand-in satisfies the strictest checks that Python knows, on any version."""

import asyncio
import ssl
from pathlib import Path

import pytest

from deploy.authority import Authority


async def shake_hands(authority: Path, files: tuple[Path, Path], server_name: str) -> None:
    """A client that trusts this authority connects to a server that shows this certificate."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(*files)
    asking = ssl.create_default_context(cafile=authority)
    asking.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=asking, server_hostname=server_name)
        writer.close()


async def test_its_certificates_are_accepted_by_clients_that_trust_it_and_by_no_others(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    files = authority.certify("server", "exchange.example", "127.0.0.1")
    for name in ("exchange.example", "127.0.0.1"):
        await shake_hands(authority.file, files, name)
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
            await shake_hands(other.file, files, name)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'other\.example'"):
        await shake_hands(authority.file, files, "other.example")
