"""The symbols and time frames that a lane knows, shared through Redis.

They are too large for a report, which carries only their digest. Workers put the content into Redis under
`key(digest)`, and each dispatcher fetches it once. The digest is that of the content, so lanes with the same content
share it.
"""

import hashlib
import zlib
from typing import Final

from msgspec import Struct, msgpack

# How long Redis keeps it. Workers renew it several times within this.
KEEP_S: Final = 600
# Far more than any exchange lists: larger content is not ours.
LIMIT_BYTES: Final = 64 * 1024 * 1024


class Listing(Struct, frozen=True, array_like=True):
    """One market.

    Args:
        symbol: ccxt's name, ``BTC/USDT`` or ``BTC/USDT:USDT``.
        id: the exchange's own name, which ccxt takes as well.
        quote: the currency of its price; empty where ccxt does not know.
        kind: ``spot``, ``swap``, ``future``, ``option`` or another type of ccxt's.
    """

    symbol: str
    id: str
    quote: str
    kind: str


class Knowledge(Struct, frozen=True):
    """What the lanes of one exchange with the same settings list.

    Args:
        exchange: the ccxt id.
        listings: its markets, sorted by symbol.
        timeframes: of candles; empty where ccxt names none.
        aliases: other names that ccxt takes for the symbols.
    """

    exchange: str
    listings: list[Listing]
    timeframes: list[str]
    aliases: list[str] = []


_DECODER: Final = msgpack.Decoder(Knowledge)


def key(digest: str) -> str:
    """The key in Redis of the content with this digest."""
    return f"fleet:knowledge:{digest}"


def pack(knowledge: Knowledge) -> tuple[str, bytes]:
    """The digest, and the content as Redis keeps it: compressed MessagePack."""
    body = msgpack.encode(knowledge)
    return hashlib.sha256(body).hexdigest()[:16], zlib.compress(body, 1)


def unpack(body: bytes) -> Knowledge:
    """Reads a content; raises zlib.error or msgspec.DecodeError where it can't be read."""
    return _DECODER.decode(zlib.decompressobj().decompress(body, LIMIT_BYTES))
