"""What an exchange lists, under all the names that it takes for it: what counts per pair or instrument are kept by."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, cast

# Kraken: a pair has an id, an `altname` and a `wsname` (docs.kraken.com, Get Tradable Asset Pairs).
_OTHER_IDS: Final = ("altname", "wsname")
# OKX: an instrument is of a family and has an underlying (okx.com/docs-v5, Get instruments), which some limits count.
_FAMILIES: Final = ("instFamily", "uly")
_BETWEEN: Final = ("", "/", "-", "_")


class Names:
    """Resolves what a call names.

    Args:
        markets: the lane's, as ccxt has them.
    """

    def __init__(self, markets: Iterable[Mapping[str, Any]] = ()) -> None:
        known = list(markets)
        self._known: dict[str, str] = {}
        # An id wins over what is another market's alias, and that over what is merely made of a base and a quote.
        for names in (_ids, _others, _pairs, _families):
            for market in known:
                for name, meant in names(market):
                    self._known.setdefault(name.casefold(), meant)

    def of(self, values: Sequence[str]) -> str:
        """The exchange's own id of what a parameter names; empty for what it does not list, and for none or several."""
        return self._known.get(values[0].strip().casefold(), "") if len(values) == 1 else ""


def _ids(market: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield str(market["id"]), str(market["id"])


def _others(market: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _OTHER_IDS:
        if name := _info(market).get(key):
            yield str(name), str(market["id"])


def _pairs(market: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Kraken takes any of its codes of a currency, old or new: XBTUSD and BTC/USD are one pair."""
    yield str(market["symbol"]), str(market["id"])
    if market.get("type") != "spot":
        return
    bases, quotes = {market.get("base"), market.get("baseId")}, {market.get("quote"), market.get("quoteId")}
    base, _, quote = str(_info(market).get("wsname") or "").partition("/")
    for left, right, between in product({*bases, base}, {*quotes, quote}, _BETWEEN):
        if left and right:
            yield f"{left}{between}{right}", str(market["id"])


def _families(market: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _FAMILIES:
        if name := _info(market).get(key):
            yield str(name), str(name)


def _info(market: Mapping[str, Any]) -> Mapping[str, Any]:
    info = market.get("info")
    return cast("Mapping[str, Any]", info) if isinstance(info, dict) else {}


NOBODY: Final = Names()
