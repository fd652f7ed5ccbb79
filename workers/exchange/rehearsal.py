"""Which hosts an exchange's calls go to, read from what ccxt signs: some exchanges have one for each kind of market."""

import contextlib
from collections.abc import Collection
from typing import Any, Final

# The most common requests; the first one that the exchange supports is rehearsed.
_ASKED: Final = ("fetch_ticker", "fetch_order_book", "fetch_trades")


class _Rehearsed(Exception):
    """ccxt is about to send a call."""


async def places(exchange: Any, methods: Collection[str]) -> set[str]:
    """The URLs that ccxt would call first for one market of each kind. Nothing is sent.

    Args:
        exchange: an instance of ccxt's class with markets; it can't be used for anything else afterwards.
        methods: the lane's.
    """
    found = set[str]()

    async def note(path: str, api: Any = "public", method: str = "GET", params: Any = (), config: Any = ()) -> Any:
        found.add(exchange.sign(path, api, method, dict(params))["url"])
        raise _Rehearsed

    exchange.fetch2 = note
    markets = exchange.markets.values()
    kinds = {(market.get("type"), market.get("linear")): market["symbol"] for market in markets}
    asked = next((method for method in _ASKED if method in methods), None)
    if asked is not None:
        for symbol in kinds.values():
            # If ccxt needs more than a symbol, the call itself will say so.
            with contextlib.suppress(Exception):
                await getattr(exchange, asked)(symbol)
    return found
