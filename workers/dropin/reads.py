"""Which calls of a ccxt class are public reads: those that the fleet makes."""

from typing import Any, Final

from ..exchange.public_urls import Endpoint, endpoints, keyless_url

# Parts of ccxt's modules that are no exchange.
_NOT_EXCHANGES: Final = frozenset({"async_support", "pro", "base", "abstract", "exchange", "test"})


def ccxt_class(kind: type[Any]) -> type[Any] | None:
    """The exchange's class in ccxt that a class is, or is made of; None if it is made of the common base alone."""
    for each in kind.__mro__:
        folder, _, name = each.__module__.rpartition(".")
        if folder in ("ccxt", "ccxt.async_support", "ccxt.pro") and name not in _NOT_EXCHANGES:
            return each
    return None


def name_of(exchange: Any) -> str:
    """The name by which the fleet knows an instance's exchange; a program's own subclass may have another `id`."""
    kind = ccxt_class(exchange.__class__)
    return str(exchange.id) if kind is None else kind.__module__.rpartition(".")[2]


def is_public(exchange: Any, path: str, api: Any, method: str) -> bool:
    """Whether a call of an instance, by the arguments of ccxt's `fetch2`, is a public read."""
    kind = ccxt_class(exchange.__class__)
    if kind is None:
        return False
    apis = (api,) if isinstance(api, str) else tuple(api)
    return _reads(kind).has(f"{'.'.join(apis)} {method} {path}")


class _Reads:
    def __init__(self, kind: type[Any]) -> None:
        # Without keys: what can't be signed so is not public.
        self._keyless: Any = kind({"enableRateLimit": False})
        self._by_key: dict[str, Endpoint] = {each.key: each for each in endpoints(self._keyless)}
        self._known: dict[str, bool] = {}

    def has(self, key: str) -> bool:
        if key not in self._known:
            endpoint = self._by_key.get(key)
            self._known[key] = endpoint is not None and keyless_url(self._keyless, endpoint) is not None
        return self._known[key]


_found: Final = dict[type[Any], _Reads]()


def _reads(kind: type[Any]) -> _Reads:
    if kind not in _found:
        _found[kind] = _Reads(kind)
    return _found[kind]
