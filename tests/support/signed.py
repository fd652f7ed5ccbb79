"""What tests of signed calls share: a gateway that takes them, and calls as ccxt signs them."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]

from deploy.local import GatewayService
from deploy.simulator.accounts import ACCOUNTS
from tests.support import gateways
from tests.support.fleet import Stand

ANNA, BORIS = ACCOUNTS.values()
SIGNED = "\n[gateway]\nsigned = true\n"


@contextlib.asynccontextmanager
async def signing(stand: Stand, tmp_path: Path, more: str = "", **env: str) -> AsyncGenerator[GatewayService]:
    config = tmp_path / "fleet.toml"
    config.write_text(stand.fleet.config_file.read_text(encoding="utf-8") + SIGNED + more, encoding="utf-8")
    async with gateways.beside(stand, words=["--config", str(config)], env=env) as running:
        yield running


def keys(account: Any = ANNA) -> dict[str, str]:
    return {"apiKey": account.key, "secret": account.secret, "password": account.passphrase}


async def signed_headers(stand: Stand, exchange: str, *what: Any) -> tuple[str, str, dict[str, str], str]:
    """A call as ccxt signs it for the real exchange: method, URL, headers and body."""
    made: Any = getattr(ccxt, exchange)(keys())
    made.timeout_on_exit = 0
    try:
        signed = made.sign(*what)
    finally:
        await made.close()
    return signed["method"], signed["url"], signed["headers"] or {}, signed["body"] or ""


async def send(
    gateway: GatewayService, call: tuple[str, str, dict[str, str], str], exchange: str, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Sends a call as a program does that signs by itself."""
    method, url, signed, body = call
    url = url.replace("https://", f"{gateway.url}/{exchange}/", 1)
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=body or None, headers={**signed, **headers}) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.text()
