"""Makes a call of a target, ``/<exchange>/<host>/<path>``, whose path and query stay to the letter. Pure.

It is an HTTP call of the fleet's, or, where `gateway.signed` says so, one with a key or a signature, which is sent from
here (`signed.SignedCall`).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from .. import http_calls
from ..messages import Http
from .answers import Refusal, refused
from .signed import SignedCall

# A ccxt id, a lane's name, or either of a testnet.
_EXCHANGE: Final = re.compile(r"[a-z0-9]+(\.[a-z0-9_-]+)?(-sandbox)?")
# A host's name, never an address in brackets; which hosts there are the fleet knows.
_HOST: Final = re.compile(r"(?i)[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?")
# Words in the names of headers with which exchanges want keys and signatures.
_SIGNS: Final = frozenset(
    "access accesskeyid apikey apitoken authent authenticate digest hmac key mac nonce passphrase secret sign signature"
    " signer token apisign".split()
)
_WORDS: Final = re.compile(r"[^a-z0-9]+")
# Where a caller's token may stand, for programs whose `Authorization` is the exchange's; no exchange has this header.
TOKEN_HEADER: Final = "x-fleet-token"
# Headers that are not sent on: of the connection, of who asked and where, and what ccxt's sending has of its own.
_DROPPED: Final = frozenset(
    "connection keep-alive proxy-authorization proxy-authenticate proxy-connection te trailer transfer-encoding upgrade"
    " host content-length expect accept-encoding cookie prefer origin referer via forwarded x-forwarded-for"
    f" x-forwarded-host x-forwarded-proto x-real-ip {TOKEN_HEADER}".split()
)
# What a caller may send behind our own path.
MOST_BODY_BYTES: Final = 65_536


class Asked(Struct, frozen=True):
    """A call, and whose it is."""

    exchange: str
    http: Http


def read(target: str, verb: str, body: bytes) -> Asked | Refusal:
    """The call that a request's target means; or why there is none.

    Args:
        target: as it stands in the request's first line.
        verb: ``GET`` or ``POST``.
        body: what came with it.
    """
    found = _plain(target, body)
    if isinstance(found, Refusal):
        return found
    exchange, url, text = found
    if name := http_calls.signed_by(url, text):
        return signed(f"the address or the body is signed ({name[:40]})")
    return Asked(exchange, Http(url, "POST" if verb == "POST" else "GET", text))


def read_signed(
    target: str, verb: str, headers: Mapping[str, str], names: Iterable[str], body: bytes, *, ours: Iterable[str]
) -> SignedCall | Refusal:
    """As `read`, of a call that may be signed: with its headers, and any method.

    Args:
        target: as it stands in the request's first line.
        verb: of HTTP.
        headers: by their names in lower case.
        names: of all headers, in lower case.
        body: what came with it.
        ours: names of headers that were for the gateway.
    """
    found = _plain(target, body)
    if isinstance(found, Refusal):
        return found
    exchange, url, text = found
    said = list(names)
    if twice := next((name for name in headers if said.count(name) > 1), None):
        return refused("bad_call", f"the header {twice[:60]} stands there twice")
    dropped = _DROPPED.union(ours, (each.strip().lower() for each in headers.get("connection", "").split(",")))
    kept = {name: value for name, value in headers.items() if name not in dropped and not name.startswith("sec-")}
    if wrong := next((name for name, value in kept.items() if not (value.isascii() and _is_plain(value))), None):
        return refused("bad_call", f"the header {wrong[:60]} has more in it than ASCII")
    if kept.get("content-type", "").lower().startswith("multipart/"):
        return refused("bad_call", "expected a body of one part")
    return SignedCall(exchange, verb, url, kept, text)


def _is_plain(value: str) -> bool:
    return value.isprintable() or value.replace("\t", "").isprintable()


def is_signed(call: SignedCall) -> bool:
    """Whether a call shows that it has a key in it, or a signature, or that it does more than read."""
    names = {name for name in call.headers if name != "authorization"}
    if call.method not in ("GET", "POST") or "authorization" in call.headers or signing(names):
        return True
    return http_calls.signed_by(call.url, call.body) is not None


def _plain(target: str, body: bytes) -> tuple[str, str, str] | Refusal:
    """The exchange, the URL and the body's text of a request."""
    path, mark, query = target.partition("?")
    empty, _, behind = path.partition("/")
    exchange, _, behind = behind.partition("/")
    host, slash, rest = behind.partition("/")
    if empty or not _EXCHANGE.fullmatch(exchange):
        return refused("not_found", "expected /<exchange>/<host>/<path>, as in /binance/api.binance.com/api/v3/time")
    if not _HOST.fullmatch(host):
        return refused("bad_call", f"expected a host's name after /{exchange}/, as in /binance/api.binance.com/…")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return refused("bad_call", "the body is no text in UTF-8")
    url = f"https://{host}{slash}{rest}{mark}{query}"
    if why := http_calls.malformed(url):
        return refused("bad_call", why.replace("http.url", "the address"))
    if len(url) > 8192:
        return refused("bad_call", f"the address has {len(url):,} characters; at most 8,192 are taken")
    return exchange, url, text


def signing(names: Iterable[str]) -> str:
    """The first of some headers' names that is of a key or a signature; empty where none is."""
    for name in names:
        if not _SIGNS.isdisjoint(_WORDS.split(name.lower())) and name.lower() != TOKEN_HEADER:
            return name
    return ""


def signed_by(names: Iterable[str]) -> Refusal | None:
    """Why a request with headers of these names is not taken: it has a key in it, or a signature."""
    name = signing(names)
    return signed(f"the header {name[:60]} is of a signed call") if name else None


def signed(why: str) -> Refusal:
    """Refuses a signed call."""
    return refused(
        "signed_call",
        f"{why}, and the gateway makes public calls alone, unless gateway.signed is true: send it to the exchange "
        "itself; ccxt_fleet.direct charges it to the fleet's budgets",
    )
