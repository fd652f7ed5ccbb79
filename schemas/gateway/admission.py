"""Who may ask: what every request is looked at for, before what it asks for. Pure.

Without tokens whoever reaches the gateway may use it. On this machine's own address that is every program on it, and
through a browser every page on the Internet. So a page's requests are refused, and so is a host's name that is not
ours: a page may have its own name lead here (DNS rebinding).
"""

import ipaddress
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

from .answers import Refusal, refused
from .calls import TOKEN_HEADER, signed_by
from .calls import signed as signed_call

VERBS: Final = ("GET", "POST")
# Where signed calls are taken.
SIGNED_VERBS: Final = (*VERBS, "PUT", "DELETE", "PATCH")
_OWN: Final = frozenset({"none", "same-origin"})
_BEARER: Final = "bearer "


def refusal(
    verb: str, target: str, headers: Mapping[str, str], names: Collection[str], *, signed: bool = False
) -> Refusal | None:
    """Why a request is refused whoever it is from; None where it is not.

    Args:
        verb: its method.
        target: as it stands in its first line.
        headers: by their names in lower case; of one that came twice the last.
        names: of all headers, in lower case.
        signed: whether it may be a signed call.
    """
    if verb not in (verbs := SIGNED_VERBS if signed else VERBS):
        why = "no method of an exchange" if signed else "not taken: the fleet only reads"
        return refused("wrong_verb", f"{verb[:20]} is {why}", closes=True, Allow=", ".join(verbs))
    if not target.startswith("/"):
        return refused("bad_call", "expected a path in the request's first line, not an address", closes=True)
    if list(names).count("host") != 1:
        return refused("bad_call", "expected one Host header", closes=True)
    if "upgrade" in headers:
        return refused("bad_call", "nothing is upgraded here", closes=True)
    if verb == "GET" and ("transfer-encoding" in headers or headers.get("content-length", "0") != "0"):
        return refused("bad_call", "a GET has no body", closes=True)
    if headers.get("content-encoding", "identity").lower() != "identity":
        return refused("bad_call", "expected a body that is not compressed", closes=True)
    if headers.get("sec-fetch-site", "none") not in _OWN or not _is_own(headers.get("origin"), headers["host"]):
        return refused("forbidden", "a page of another site asks, which may not use this gateway")
    return None if signed else signed_by(names)


def _is_own(origin: str | None, host: str) -> bool:
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def of_host(host: str, known: Collection[str]) -> Refusal | None:
    """Why a request under this name is refused, where no tokens are needed; None where it is not.

    Args:
        host: its Host header.
        known: names beside this machine's own.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        name = ""
    if name == "localhost" or name in (each.lower() for each in known):
        return None
    try:
        if ipaddress.ip_address(name).is_loopback:
            return None
    except ValueError:
        pass
    text = f"{host[:100]!r} is no name of this gateway: gateway.hosts lists those beside localhost"
    return refused("forbidden", text)


def token_of(headers: Mapping[str, str]) -> str:
    """The token that a request shows; empty without one."""
    return headers.get(TOKEN_HEADER) or bearer_of(headers)


def bearer_of(headers: Mapping[str, str]) -> str:
    """The token in its `Authorization`, which may be the exchange's; empty without one."""
    said = headers.get("authorization", "")
    return said[len(_BEARER) :].strip() if said[: len(_BEARER)].lower() == _BEARER else ""


def of_authorization(headers: Mapping[str, str]) -> Refusal | None:
    """Why an `Authorization` is refused that can't be a caller's token."""
    return signed_call("the header Authorization is of a signed call") if is_exchange_s(headers) else None


def is_exchange_s(headers: Mapping[str, str]) -> bool:
    """Whether an `Authorization` can't be a caller's token: some exchanges want their keys there."""
    said = headers.get("authorization", "")
    return bool(said) and (said[: len(_BEARER)].lower() != _BEARER or said[len(_BEARER) :].strip().startswith("eyJ"))


def wait_s(headers: Mapping[str, str], default_s: float, most_s: float) -> float:
    """How long a caller waits: its ``Prefer: wait=8`` (RFC 7240, seconds), within bounds."""
    for preference in headers.get("prefer", "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            try:
                said_s = float(value.strip().strip('"'))
            except ValueError:
                continue
            if said_s > 0:
                return min(said_s, most_s)
    return default_s
