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

from .costs import Costs, Rule, load
from .endpoints import family, near
from .tables import shipped

# Words that somebody may write for `per`, and how a bucket says what they mean.
_NO_PARAMETERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("address", "ip", "egress", "host"), 'scope = "egress", the default'),
    **dict.fromkeys(("account", "user", "uid", "key", "apikey", "api_key"), 'scope = "account"'),
    **dict.fromkeys(("endpoint", "path", "url", "method"), "per_endpoint = true"),
}


class Called(Struct, frozen=True):
    """What a ccxt class calls.

    Args:
        endpoints: as ``<api> <METHOD> <path>``, each with what ccxt may send there as a parameter; None where none of
            its methods calls the endpoint.
        params: what may be a parameter of any call. Both are in lower case, and without the placeholders in the paths.
        rate_limit_ms: ccxt's `rateLimit`: milliseconds per unit of ccxt's cost.
    """

    endpoints: Mapping[str, frozenset[str] | None]
    params: frozenset[str]
    rate_limit_ms: float

    def beside(self, other: "Called") -> "Called":
        """What either calls."""
        both = self.endpoints.keys() & other.endpoints.keys()
        sent = {key: (self.endpoints[key] or frozenset()) | (other.endpoints[key] or frozenset()) for key in both}
        endpoints = {**self.endpoints, **other.endpoints, **{key: params or None for key, params in sent.items()}}
        return Called(endpoints, self.params | other.params, self.rate_limit_ms)

    def renamed(self, apis: Mapping[str, str]) -> "Called":
        """The same, with other names for these apis."""
        parted = ((each.partition(" "), params) for each, params in self.endpoints.items())
        endpoints = {f"{apis.get(api, api)} {rest}": params for (api, _, rest), params in parted}
        return Called(endpoints, self.params, self.rate_limit_ms)

    def has(self, param: str, at: str = "") -> bool:
        """Whether a call may have this parameter: any call, or any for which a key of `endpoints` stands.

        Where ccxt has no method for such calls, whatever it sends anywhere may be meant.
        """
        keys, name = self.at(at), param.casefold()
        sent = self._sent(keys)
        # One within an object is named `object.parameter`.
        return any(f"{{{name}}}" in key.casefold() for key in keys) or (
            (self.params if sent is None else sent).issuperset(name.split("."))
        )

    def at(self, key: str) -> list[str]:
        """The endpoints for which a key stands: one, all of an api and verb, or all."""
        return [each for each in self.endpoints if not key or key in (each, family(each))]

    def near(self, param: str, at: str = "") -> str:
        """The parameter that may be meant by one that no such call has; empty if none is like it."""
        sent = self._sent(self.at(at))
        found = difflib.get_close_matches(
            param.rpartition(".")[2].casefold(), sorted(self.params if sent is None else sent), 1, 0.7
        )
        return f"; perhaps {found[0]!r}" if found else ""

    def _sent(self, keys: Iterable[str]) -> frozenset[str] | None:
        known = [params for key in keys if (params := self.endpoints[key]) is not None]
        return frozenset[str]().union(*known) if known else None


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
        _check_cases(f'{where}.endpoints."{key}"', costs.rules[key], key, costs.exchange, called)
    left = [each for each in called.endpoints if each not in named and family(each) not in named]
    if own.default is not None and not left:
        raise ConfigError(f"{where}.default: expected nothing: every endpoint has rules of its own")
    if own.default is not None:
        _check_cases(f"{where}.default", costs.default, "", costs.exchange, called)
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


def _check_cases(where: str, rules: Iterable[Rule], key: str, exchange: str, called: Called) -> None:
    for number, rule in enumerate(rules):
        for nth, case in enumerate(rule.cases):
            for param in () if case.from_params else case.reads:
                if not called.has(param, key):
                    raise ConfigError(
                        f"{where}[{number}].cases[{nth}]: ccxt's {exchange} sends no {param!r} there"
                        f"{called.near(param, key)}; where producers name it in `params`, from_params = true"
                    )


def _check_per(where: str, param: str, exchange: str, called: Called) -> None:
    if means := _NO_PARAMETERS.get(param.casefold()):
        raise ConfigError(f"{where}: expected parameters that name a pair or an instrument; {param!r} is {means}")
    if not called.has(param):
        raise ConfigError(
            f"{where}: expected parameters of calls that name a pair or an instrument; "
            f"ccxt's {exchange} sends no {param!r}{called.near(param)}"
        )


def _quoted(keys: list[str]) -> str:
    return " or ".join(f'"{key}"' for key in keys)
