"""Points an unmodified ccxt class at the simulator. Imports neither ccxt nor the server."""

from __future__ import annotations

from typing import Any

# ccxt 4.5 keeps one base URL per section of Binance's API, each with its path.
_BINANCE_SECTIONS = {
    "public": "/api/v3",
    "private": "/api/v3",
    "v1": "/api/v1",
    "sapi": "/sapi/v1",
    "sapiV2": "/sapi/v2",
    "sapiV3": "/sapi/v3",
    "sapiV4": "/sapi/v4",
    "fapiPublic": "/fapi/v1",
    "fapiPublicV2": "/fapi/v2",
    "fapiPublicV3": "/fapi/v3",
    "fapiPrivate": "/fapi/v1",
    "fapiPrivateV2": "/fapi/v2",
    "fapiPrivateV3": "/fapi/v3",
    "fapiData": "/futures/data",
    "dapiPublic": "/dapi/v1",
    "dapiPrivate": "/dapi/v1",
    "dapiPrivateV2": "/dapi/v2",
    "dapiData": "/futures/data",
    "eapiPublic": "/eapi/v1",
    "eapiPrivate": "/eapi/v1",
    "papi": "/papi/v1",
    "papiV2": "/papi/v2",
}
_HTX_SECTIONS = ("status", "contract", "spot", "public", "private", "v2Public", "v2Private")


def ccxt_config(exchange: str, base_url: str) -> dict[str, Any]:
    """What to pass to the constructor of `ccxt.async_support.<exchange>`, and nothing but where it sends.

    Args:
        exchange: `binance`, `okx`, `htx`, `coinbase`, `kraken` or `coinbaseexchange`.
        base_url: where the simulator serves that exchange, `http://127.0.0.1:1234`.

    Raises:
        ValueError: the simulator does not have that exchange.
    """
    base = base_url.rstrip("/")
    if exchange == "binance":
        return {"urls": {"api": {section: base + path for section, path in _BINANCE_SECTIONS.items()}}}
    if exchange == "htx":
        # HTX signs the host name, so ccxt keeps it apart from the URL.
        scheme, _, host = base.partition("://")
        api = dict.fromkeys(_HTX_SECTIONS, scheme + "://{hostname}")
        return {"hostname": host, "urls": {"hostnames": {"spot": host, "contract": host}, "api": api}}
    if exchange in {"okx", "coinbase"}:
        return {"urls": {"api": {"rest": base}}}
    if exchange in {"kraken", "coinbaseexchange"}:
        return {"urls": {"api": {"public": base, "private": base}}}
    raise ValueError(f"the simulator has no exchange {exchange!r}")
