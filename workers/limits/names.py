"""All the names an exchange takes for its pairs and instruments, for limits that count each of them alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, cast

_BETWEEN: Final = ("", "/", "-", "_")


class Names:
    """Finds the id of what a call names.

    Args:
        markets: the exchange's, as ccxt has them.
        aliases: the fields of its own data on a market that hold another name of it.
        families: the fields that hold the name of a group of markets, which some limits count.
    """

    def __init__(
        self, markets: Iterable[Mapping[str, Any]] = (), aliases: Sequence[str] = (), families: Sequence[str] = ()
    ) -> None:
        known = list(markets)
        self._known: dict[str, str] = {}
        # An id wins over another market's alias, and an alias over a name that is only made of base and quote.
        for market in known:
            self._add(str(market["id"]), market["id"])
        for market in known:
            for name in _info(market, aliases):
                self._add(name, market["id"])
        for market in known:
            for name in _pairs(market, _info(market, aliases)):
                self._add(name, market["id"])
        for market in known:
            for name in _info(market, families):
                self._add(name, name)

    def _add(self, name: str, meant: object) -> None:
        self._known.setdefault(name.casefold(), str(meant))

    def of(self, values: Sequence[str]) -> str:
        """The exchange's own id for a parameter's value; empty if it lists none, or if there is not just one value."""
        return self._known.get(values[0].strip().casefold(), "") if len(values) == 1 else ""


def _pairs(market: Mapping[str, Any], aliases: Iterable[str]) -> Iterator[str]:
    """Base and quote in all codes and spellings: Kraken takes old and new codes, XBTUSD and BTC/USD are one pair."""
    yield str(market["symbol"])
    if market.get("type") != "spot":
        return
    bases, quotes = {market.get("base"), market.get("baseId")}, {market.get("quote"), market.get("quoteId")}
    for alias in aliases:
        base, slash, quote = alias.partition("/")
        if slash:
            bases.add(base)
            quotes.add(quote)
    for left, right, between in product(bases, quotes, _BETWEEN):
        if left and right:
            yield f"{left}{between}{right}"


def _info(market: Mapping[str, Any], fields: Iterable[str]) -> list[str]:
    """What the exchange itself says of a market in these fields."""
    info = market.get("info")
    if not isinstance(info, dict):
        return []
    said = cast("Mapping[str, Any]", info)
    return [str(said[field]) for field in fields if said.get(field)]


NO_NAMES: Final = Names()
