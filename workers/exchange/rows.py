"""How many rows an answer may have: ccxt turns them into its result one by one, on the event loop.

A limit of bytes is not enough: ccxt took 42 s for 3.6 MB of ``{},``, which it read as 1.2 million trades. One row takes
(ccxt 4.5.90 on binance, okx and kraken, whatever is in the row; `docs/reliability.md` has the table): an order up to
50 µs, a ticker 30, a trade 20, a ledger entry 27, a candle 10, a level of a book 6. So the limits below mean about a
second each, and less for most reads.

Genuine answers have: all tickers of an exchange about 4,000; its markets and options 5,000; books 5,000 levels a side,
a few exchanges' full ones 30,000; trades and candles 1,000 a page, a few exchanges 10,000. Binance describes each
market in 15 lists and objects.
"""

from typing import Any, Final, NamedTuple

from schemas.methods import HTTP, PRIVATE_READS, PUBLIC_READS


class TooLarge(Exception):
    """An answer has more bytes or rows than one may have; the call is over."""

    def __init__(self, has: str) -> None:
        super().__init__(f"the exchange's answer has {has}: ask for less at once")


class Rows(NamedTuple):
    """How many elements one list or object may have, and how many lists and objects there may be in all."""

    each: int
    nested: int

    def check_one(self, count: int) -> None:
        """Raises `TooLarge` if one list or object may not have so many elements."""
        if count > self.each:
            raise TooLarge(f"more than {self.each:,} rows in one list or object")

    def suits(self, text: str) -> bool:
        """Whether a JSON text certainly has few enough; quick, as it only counts characters."""
        return text.count(",") < self.each and text.count("[") + text.count("{") <= self.nested

    def check(self, value: Any) -> None:
        """Raises `TooLarge` if a JSON value has too many. It takes 30 ns for each element."""
        waiting: list[Any] = [value] if isinstance(value, (dict, list)) else []
        nested = 0
        while waiting:
            value = waiting.pop()
            values = getattr(value, "values", None)
            inner: Any = value if values is None else values()
            nested += 1
            if nested > self.nested:
                raise TooLarge(f"more than {self.nested:,} lists and objects")
            self.check_one(len(inner))
            waiting += [item for item in inner if isinstance(item, (dict, list))]


# These may have more rows: they are read once in half an hour, and ccxt reads few of the lists inside a market.
_LISTINGS: Final = frozenset({"load_markets", "fetch_markets"})
# Rows of a few numbers.
_SLIGHT: Final = frozenset(
    """
    fetch_order_book fetch_order_books fetch_l2_order_book fetch_l3_order_book
    fetch_ohlcv fetch_index_ohlcv fetch_mark_ohlcv fetch_premium_index_ohlcv
    """.split()
)
assert _LISTINGS | _SLIGHT <= PUBLIC_READS | PRIVATE_READS

MOST: Final = Rows(20_000, 60_000)
_MOST_OF_LISTINGS: Final = Rows(20_000, 150_000)
_MOST_OF_SLIGHT: Final = Rows(50_000, 150_000)

# ccxt looks for an error at its start, and makes nothing of its rows.
_MOST_OF_HTTP: Final = Rows(100_000, 300_000)


def most(method: str) -> Rows:
    """The most that one answer to a method may have."""
    if method in _LISTINGS:
        return _MOST_OF_LISTINGS
    if method == HTTP:
        return _MOST_OF_HTTP
    return _MOST_OF_SLIGHT if method in _SLIGHT else MOST
