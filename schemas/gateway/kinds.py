"""What a URL's path asks for, by the words that exchanges name it with. Pure: the gateway knows no ccxt class.

It only says how old an answer may be. What no pattern knows is `other`.
"""

import re
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["tickers", "books", "trades", "candles", "markets", "other"]

# A pattern is of a whole segment of the path, in any case, without what stands behind a dot. Where symbols are part of
# a path they stand last, so other segments count too. Callers choose the path: each pattern reads it in a time that
# grows as its length does. So what stands on both sides of a word is looked at before (`(?=…)`): else each of a
# thousand of the same word is tried to the end.
_PATTERNS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    ("candles", re.compile(r"(?i)[a-z-]*(klines?|candles?(ticks?)?)|ohlcv?|kline[a-z-]*|candle[a-z-]*")),
    (
        "tickers",
        re.compile(
            r"(?i)(?=[a-z-]*\Z)[a-z-]*ticker[a-z-]*|24hr?|prices?|best[_-]?bid[_-]?ask|quotes?|products|detail|merged"
        ),
    ),
    ("books", re.compile(r"(?i)[a-z-]*depth\d*|(order[-_]?)?books?[a-z-]*|[a-z-]*orderbooks?|level\d(_\d+)?|l2|l3")),
    ("trades", re.compile(r"(?i)(recent|agg|history|historical|public|last|latest)?[-_]?(trades?|deals?|fills)")),
)
# Only as the last segment, and only words behind which no exchange gives prices too (Coinbase's `products` has some).
_MARKETS: Final = re.compile(
    r"exchange-?info|(get[-_])?instruments(-info)?|symbols|asset-?pairs|assets|currenc(ies|ys)|currency_pairs",
    re.IGNORECASE,
)


def kind_of(path: str) -> Kind:
    """The kind of an endpoint; the segment that stands last says most."""
    segments = [each.partition(".")[0] for each in path.split("/") if each]
    if segments and _MARKETS.fullmatch(segments[-1]):
        return "markets"
    for segment in reversed(segments):
        for kind, pattern in _PATTERNS:
            if pattern.fullmatch(segment):
                return kind
    return "other"
