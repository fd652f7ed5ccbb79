"""What leads a program to the gateway: ccxt's ``urls``, freqtrade's ``ccxt_config``, and a line for curl.

It reads where ccxt's class sends its calls, and puts the gateway before each address. ccxt is imported here alone, and
only by ``ccxt-fleet gateway config``.
"""

import importlib
import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from ..config import SANDBOX
from ..errors import ConfigError
from .calls import TOKEN_HEADER

# Where the token goes in what is printed.
TOKEN: Final = "<token>"
_SCHEME: Final = re.compile(r"^https://")


class Leads(Struct, frozen=True):
    """What to put where.

    Args:
        ccxt: settings of ccxt's class, for its constructor.
        freqtrade: the part of freqtrade's configuration below `exchange`.
        curl: a command that asks for one public answer.
    """

    ccxt: dict[str, Any]
    freqtrade: dict[str, Any]
    curl: str


def leads(exchange: str, gateway: str, *, token: bool) -> Leads:
    """What leads programs to a gateway.

    Args:
        exchange: a ccxt id; with ``-sandbox`` its testnet.
        gateway: the gateway's URL.
        token: whether it wants tokens.

    Raises:
        ConfigError: ccxt is not installed, or knows no such exchange.
    """
    try:
        ccxt: Any = importlib.import_module("ccxt")
    except ImportError:
        raise ConfigError("this needs ccxt, whose URLs it reads: pip install ccxt") from None
    name = exchange.removesuffix(SANDBOX)
    if name not in ccxt.exchanges:
        raise ConfigError(f"ccxt has no exchange {exchange!r}")
    known = getattr(ccxt, name)()
    if exchange != name:
        if not known.urls.get("test"):
            raise ConfigError(f"ccxt knows no testnet of {name}")
        known.set_sandbox_mode(True)
    before = f"{gateway.rstrip('/')}/{exchange}/"
    api = led(known.urls["api"], before)
    headers = {"headers": {TOKEN_HEADER.title(): TOKEN}} if token else {}
    # ccxt's own limiter would slow a program down to what it alone might ask for.
    settings = {"enableRateLimit": False, "urls": {"api": api}, **headers}
    words = f" -H 'Authorization: Bearer {TOKEN}'" if token else ""
    freqtrade = {"name": name, "ccxt_config": settings}
    return Leads(settings, freqtrade, f"curl{words} '{before}{_example(known)}'")


def led(urls: Any, before: str) -> Any:
    """ccxt's table of addresses, with the gateway before each."""
    if isinstance(urls, Mapping):
        return {name: led(each, before) for name, each in urls.items()}  # pyright: ignore[reportUnknownVariableType]
    return _SCHEME.sub(before, urls) if isinstance(urls, str) else urls


def _example(exchange: Any) -> str:
    """A public call of an exchange, without the scheme: the time where it has one."""
    found: list[str] = []
    for kind in type(exchange).__mro__:
        for entry in list(vars(kind).values()):
            path, api = getattr(entry, "path", None), getattr(entry, "api", None)
            if path is None or entry.method != "GET" or "{" in path or "private" in str(api).lower():
                continue
            try:
                url = str(exchange.sign(path, api, "GET", {})["url"])
            except Exception:  # it wants a key, or an argument
                continue
            found.append(_SCHEME.sub("", url))
    if not found:
        return "<host>/<path>"
    return min(found, key=lambda url: (not re.search(r"(?i)/(time|status|ticker)", url), "fapi" in url, len(url)))
