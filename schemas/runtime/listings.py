"""What a lane can do beyond its methods: symbols and time frames.

It is too much for a report, which carries the digest alone. The content lies in Redis under `key(digest)`, put there by
the workers; each dispatcher fetches it once. The digest is the content's own, so lanes that can do the same share it.
"""

import hashlib
import zlib
from typing import Final

from msgspec import Struct, msgpack

# Workers renew it several times within this; nobody else needs it for long.
KEEP_S: Final = 600
# Far more than any exchange lists; what is above is not ours.
LIMIT_BYTES: Final = 64 * 1024 * 1024


class Listing(Struct, frozen=True, array_like=True):
    """One market.

    Args:
        symbol: ccxt's name, ``BTC/USDT`` or ``BTC/USDT:USDT``.
        id: the exchange's own name, which ccxt takes as well.
        quote: what its price is counted in; empty where ccxt does not know.
        kind: ``spot``, ``swap``, ``future``, ``option`` or another type of ccxt's.
    """

    symbol: str
    id: str
    quote: str
    kind: str


class Knowledge(Struct, frozen=True):
    """What the lanes of one exchange with the same settings can do.

    Args:
        exchange: the ccxt id.
        listings: its markets, sorted by symbol.
        timeframes: of candles; empty where ccxt names none.
        aliases: what else ccxt takes for one of the symbols.
    """

    exchange: str
    listings: list[Listing]
    timeframes: list[str]
    aliases: list[str] = []


_DECODER: Final = msgpack.Decoder(Knowledge)


def key(digest: str) -> str:
    """Where the content of this digest lies in Redis."""
    return f"fleet:knowledge:{digest}"


def pack(knowledge: Knowledge) -> tuple[str, bytes]:
    """The digest and the content as it lies in Redis: compressed MessagePack."""
    body = msgpack.encode(knowledge)
    return hashlib.sha256(body).hexdigest()[:16], zlib.compress(body, 1)


def unpack(body: bytes) -> Knowledge:
    """Reads a content; raises zlib.error or msgspec.DecodeError if it is none."""
    return _DECODER.decode(zlib.decompressobj().decompress(body, LIMIT_BYTES))
