"""Refuses what a configuration says of limits without any effect. Pure.

A rule for an endpoint that ccxt does not call, a bucket that no rule uses, or a parameter that no call has would leave
an exchange's limits as they were, without a word.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Final

from msgspec import Struct

from schemas.config import LimitsConfig
from schemas.errors import ConfigError

from .costs import Costs, load
from .endpoints import family, near
from .tables import shipped

# What somebody may write for `per` who means something that a bucket says otherwise.
_NO_PARAMETERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("address", "ip", "egress", "host"), 'scope = "egress", the default'),
    **dict.fromkeys(("account", "user", "uid", "key", "apikey", "api_key"), 'scope = "account"'),
    **dict.fromkeys(("endpoint", "path", "url", "method"), "per_endpoint = true"),
}


class Called(Struct, frozen=True):
    """What a ccxt class calls.

    Args:
        endpoints: as ``<api> <METHOD> <path>``.
        params: what may be a parameter of a call, in lower case, beside the placeholders in the paths.
        rate_limit_ms: ccxt's `rateLimit`: milliseconds per unit of ccxt's cost.
    """

    endpoints: frozenset[str]
    params: frozenset[str]
    rate_limit_ms: float

    def beside(self, other: "Called") -> "Called":
        """What either calls."""
        return Called(self.endpoints | other.endpoints, self.params | other.params, self.rate_limit_ms)

    def renamed(self, apis: Mapping[str, str]) -> "Called":
        """The same, with other names for these apis."""
        parted = (each.partition(" ") for each in self.endpoints)
        endpoints = frozenset(f"{apis.get(api, api)} {rest}" for api, _, rest in parted)
        return Called(endpoints, self.params, self.rate_limit_ms)

    def has(self, param: str) -> bool:
        """Whether a call may have this parameter."""
        name = param.rpartition(".")[2].casefold()  # one within an object is named `object.parameter`
        return name in self.params or any(f"{{{name}}}" in each.casefold() for each in self.endpoints)


def check_limits(limits: Mapping[str, LimitsConfig], exchanges: Iterable[str], called: Callable[[str], Called]) -> None:
    """Refuses limits in the configuration that no lane would use, and parts of them that no call would.

    Args:
        limits: the configuration's.
        exchanges: ccxt ids of all lanes.
        called: what the class with a ccxt id calls.

    Raises:
        ConfigError: no lane's exchange has that name, it shares the limits of another one, or it is as `check` says.
    """
    limits_of = shipped().limits_of
    known: dict[str, list[str]] = {}
    for exchange in exchanges:
        known.setdefault(limits_of(exchange), []).append(exchange)
    for exchange, own in limits.items():
        if (shared := limits_of(exchange)) != exchange:
            raise ConfigError(f"limits.{exchange}: expected {shared}, whose limits {exchange} shares")
        if exchange not in known:
            raise ConfigError(f"limits.{exchange}: expected the exchange of a lane: one of {', '.join(sorted(known))}")
        table = shipped().of(exchange)
        calls = reduce(Called.beside, map(called, known[exchange])).renamed(table.same_apis if table else {})
        check(own, load(exchange, calls.rate_limit_ms, own), calls)


def check(own: LimitsConfig, costs: Costs, called: Called) -> None:
    """Refuses what would change nothing.

    Args:
        own: what the configuration says of the exchange.
        costs: what comes of it together with the exchange's table.
        called: what the classes of the exchange's lanes call.

    Raises:
        ConfigError: says which key it is, and what would have an effect.
    """
    where = f"limits.{costs.exchange}"
    named = set(costs.rules)
    for key in own.endpoints:
        _check_endpoint(f'{where}.endpoints."{key}"', key, named, called)
    left = [each for each in called.endpoints if each not in named and family(each) not in named]
    if own.default is not None and not left:
        raise ConfigError(f"{where}.default: expected nothing: every endpoint has rules of its own")
    used = {rule.bucket for rules in costs.rules.values() for rule in rules}
    used |= {rule.bucket for rule in costs.default}
    for name, keys in own.buckets.items():
        if name not in used:
            raise ConfigError(
                f"{where}.buckets.{name}: expected a rule that uses it, in {where}.default or {where}.endpoints"
            )
        for param in costs.buckets[name].per if "per" in keys else ():
            _check_per(f"{where}.buckets.{name}.per", param, costs.exchange, called)


def _check_endpoint(where: str, key: str, named: set[str], called: Called) -> None:
    if key.endswith(" *"):
        of_it = [each for each in called.endpoints if family(each) == key]
        if of_it and all(each in named for each in of_it):
            raise ConfigError(f"{where}: expected nothing: all of its endpoints have rules of their own")
        matches = bool(of_it)
    else:
        matches = key in called.endpoints
    if not matches:
        raise ConfigError(f"{where}: ccxt calls no such endpoint; expected {_quoted(near(key, called.endpoints))}")


def _check_per(where: str, param: str, exchange: str, called: Called) -> None:
    if means := _NO_PARAMETERS.get(param.casefold()):
        raise ConfigError(f"{where}: expected parameters that name a pair or an instrument; {param!r} is {means}")
    if not called.has(param):
        raise ConfigError(
            f"{where}: expected parameters of calls that name a pair or an instrument; "
            f"ccxt's {exchange} sends no {param!r}{_near(param, called)}"
        )


def _near(param: str, called: Called) -> str:
    found = difflib.get_close_matches(param.casefold(), called.params, 1, 0.7)
    return f"; perhaps {found[0]!r}" if found else ""


def _quoted(keys: list[str]) -> str:
    return " or ".join(f'"{key}"' for key in keys)
