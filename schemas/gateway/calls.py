"""Makes the fleet's HTTP call of a target, ``/<exchange>/<host>/<path>``: path and query stay to the letter. Pure."""

import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from ..http_calls import refusal
from ..messages import Http
from .answers import Refusal, refused

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
    path, mark, query = target.partition("?")
    empty, _, behind = path.partition("/")
    exchange, _, behind = behind.partition("/")
    host, slash, rest = behind.partition("/")
    if empty or not _EXCHANGE.fullmatch(exchange):
        return refused("not_found", "expected /<exchange>/<host>/<path>, as in /binance/api.binance.com/api/v3/time")
    if not _HOST.fullmatch(host):
        return refused("bad_call", f"expected a host's name after /{exchange}/, as in /binance/api.binance.com/…")
    try:
        text = body.decode("ascii" if verb == "GET" else "utf-8")
    except UnicodeDecodeError:
        return refused("bad_call", "the body is no text in UTF-8")
    http = Http(f"https://{host}{slash}{rest}{mark}{query}", "POST" if verb == "POST" else "GET", text)
    if why := refusal(http):
        why = why.replace("http.url", "the address")
        return signed(why.partition(":")[0]) if "is signed" in why else refused("bad_call", why)
    if len(http.url) > 8192:
        return refused("bad_call", f"the address has {len(http.url):,} characters; at most 8,192 are taken")
    return Asked(exchange, http)


def signed_by(names: Iterable[str]) -> Refusal | None:
    """Why a request with headers of these names is not taken: it has a key in it, or a signature."""
    for name in names:
        if not _SIGNS.isdisjoint(_WORDS.split(name.lower())) and name.lower() != TOKEN_HEADER:
            return signed(f"the header {name[:60]} is of a signed call")
    return None


def signed(why: str) -> Refusal:
    """Refuses a signed call."""
    return refused(
        "signed_call",
        f"{why}, and the gateway makes public calls alone: send it to the exchange itself; ccxt_fleet.direct charges "
        "it to the fleet's budgets",
    )
