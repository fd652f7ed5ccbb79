"""Checks the configuration against ccxt's classes: each setting has an effect, or the worker does not start.

`schemas/ccxt_settings.py` checks what can be checked without ccxt. Here is what depends on a class: its URLs, its
options, the settings that it reads, what an account needs, its testnet.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

from schemas import old_names
from schemas.accounts import CCXT_NAMES
from schemas.ccxt_settings import nearest
from schemas.config import Config, LaneConfig
from schemas.errors import ConfigError

from ..limits.effect import check_limits
from ..limits.tables import shipped
from .charged import ccxt
from .described import Described, described

_HOSTNAME: Final = "{hostname}"
# What the tables of fees and limits have within them; all other names are of currencies, tiers or markets.
_NAMES_OF_CCXT: Final = frozenset(
    "tierBased percentage taker maker tiers withdraw deposit feeSide min max "
    "trading funding spot swap future option delivery contract linear inverse".split()
)
# Options that name a kind of market.
_TYPES: Final = frozenset({"defaultType", "defaultSubType", "defaultMarketType"})


def check(config: Config) -> None:
    """Refuses what would change nothing.

    Raises:
        ConfigError: says which key it is, and what would have an effect.
    """
    for name, lane in config.lanes.items():
        check_exchange(name, lane.exchange)
        if lane.sandbox:
            enter_sandbox(name, getattr(ccxt, lane.exchange)())
        if lane.ccxt:
            _check_ccxt(name, lane, described(lane.exchange))
    for name, account in config.accounts.items():
        exchanges = sorted({lane.exchange for lane in config.lanes.values() if lane.account == name})
        for key, ccxt_name in CCXT_NAMES.items():
            if getattr(account, key) is not None and not any(ccxt_name in described(each).keys for each in exchanges):
                raise ConfigError(f"accounts.{name}.{key}: expected nothing: {', '.join(exchanges)} has no use for it")
    check_limits(
        config.limits,
        (lane.exchange for lane in config.lanes.values()),
        lambda exchange: described(exchange).called,
    )


def check_exchange(lane: str, exchange: str) -> None:
    """Raises ConfigError for an id that ccxt does not know."""
    if exchange not in ccxt.exchanges:
        remark = f": {said}" if (said := old_names.remark(exchange)) else ""
        near = "" if remark else nearest(exchange, ccxt.exchanges)
        raise ConfigError(f"lanes.{lane}.exchange: expected an exchange id of ccxt, not {exchange!r}{remark}{near}")


def enter_sandbox(lane: str, exchange: Any) -> None:
    """Leads a ccxt instance to the exchange's testnet.

    Raises:
        ConfigError: ccxt knows none.
    """
    # Where there is none, ccxt (4.5.90) leaves its URLs empty, or raises a TypeError.
    with contextlib.suppress(TypeError):
        exchange.set_sandbox_mode(True)
        if exchange.urls["api"]:
            return
    raise ConfigError(f"lanes.{lane}.sandbox: expected false: ccxt knows no testnet of {exchange.id}")


def budget_of(lane: LaneConfig) -> str:
    """The exchange whose budgets a lane uses: a testnet has its own, unless it has the real exchange's hosts."""
    shared = shipped().limits_of(lane.exchange)
    if not lane.sandbox or _same_hosts(described(lane.exchange), lane):
        return shared
    return lane.known_as.replace(lane.exchange, shared, 1)


def _same_hosts(kind: Described, lane: LaneConfig) -> bool:
    # Some exchanges tell calls to their testnet by a header alone: their limits may count these with all others.
    own = cast("Mapping[str, Any]", lane.ccxt.get("urls", {}))
    hostname = str(lane.ccxt.get("hostname", kind.hostname))
    test = own.get("test") or kind.urls.get("test") or kind.urls["api"]
    return bool(_hosts(kind.urls["api"], kind.hostname) & _hosts(test, hostname))


def _hosts(tree: Any, hostname: str) -> set[str]:
    return {urlsplit(url.replace(_HOSTNAME, hostname)).netloc for _, url in _leaves(tree)}


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict):
        branches = cast("dict[str, Any]", tree)
        for name, branch in branches.items():
            yield from _leaves(branch, (*path, name))


def _check_ccxt(name: str, lane: LaneConfig, kind: Described) -> None:
    where, exchange = f"lanes.{name}.ccxt", lane.exchange
    for key in lane.ccxt:
        if key not in kind.reads:
            raise ConfigError(f"{where}.{key}: expected nothing: ccxt's {exchange} never reads it")
    for key, value in lane.ccxt.get("has", {}).items():
        if key not in kind.has:
            raise ConfigError(f"{where}.has.{key}: ccxt's {exchange} has no such method{nearest(key, kind.has)}")
        if value not in (True, False, None, "emulated"):
            raise ConfigError(f'{where}.has.{key}: expected true, false or "emulated"')
    for key, value in lane.ccxt.get("requiredCredentials", {}).items():
        if not isinstance(value, bool):
            raise ConfigError(f"{where}.requiredCredentials.{key}: expected true or false")
    for table, known in kind.tables.items():
        _check_names(f"{where}.{table}", lane.ccxt.get(table, {}), known, exchange)
    _check_options(f"{where}.options", exchange, lane.ccxt.get("options", {}), kind)
    urls = cast("Mapping[str, Any]", lane.ccxt.get("urls", {}))
    for key, own in urls.items():
        if key not in kind.urls:
            raise ConfigError(f"{where}.urls.{key}: expected one of {_names(kind.urls)}")
        _check_tree(f"{where}.urls.{key}", own, kind.urls[key])
    if "hostname" in lane.ccxt and not _uses_hostname(urls, kind, lane):
        raise ConfigError(f"{where}.hostname: expected nothing: no URL of ccxt's {exchange} has {_HOSTNAME} in it")


def _check_names(where: str, own: Mapping[str, Any], known: Mapping[str, Any], exchange: str) -> None:
    """Refuses names that a table of the class has not; where its own is empty, as of fees by currency, any may be."""
    for key, value in own.items():
        if key not in known:
            raise ConfigError(f"{where}.{key}: ccxt's {exchange} reads no such key{nearest(key, known)}")
        inner: Mapping[str, Any] = known[key] if isinstance(known[key], dict) else {}
        if inner and _NAMES_OF_CCXT.issuperset(inner):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}.{key}: expected a table with {_names(inner)}")
            _check_names(f"{where}.{key}", cast("Mapping[str, Any]", value), inner, exchange)


def _check_options(where: str, exchange: str, options: Mapping[str, Any], kind: Described) -> None:
    """Refuses options that the class never reads, and kinds of markets that it never compares with."""
    for key, own in options.items():
        read = [(key, key)]
        if key in kind.has and isinstance(own, dict):  # a method's own options; other tables may hold any names
            method = cast("dict[str, Any]", own)
            read += [(f"{key}.{name}", name) for name in method]
            read += [(f"{key}.types.{name}", name) for name in _type_names(method.get("types"))]
        if key in _TYPES or (key == "fetchMarkets" and isinstance(own, list)):  # an older form of its types
            read += [(f"{key} = {name!r}", name) for name in _type_names(own)]
        for place, name in read:
            if name not in kind.words:
                raise ConfigError(f"{where}.{place}: ccxt's {exchange} reads no such option{nearest(name, kind.words)}")


def _type_names(own: Any) -> Iterator[str]:
    """The kinds of markets in an option: a text, a list of them, or a table of switches."""
    if isinstance(own, str):
        yield own
    elif isinstance(own, (list, dict)):
        for each in cast("list[Any] | dict[str, Any]", own):
            yield from _type_names(each)
    if isinstance(own, dict):
        for each in cast("dict[str, Any]", own).values():
            if isinstance(each, dict):
                yield from _type_names(each)


def _check_tree(where: str, own: Any, known: Any) -> None:
    """Refuses URLs where the class has none: they would have no effect."""
    if not isinstance(known, dict):
        if not isinstance(own, str):
            raise ConfigError(f"{where}: expected a URL")
        return
    there = cast("Mapping[str, Any]", known)
    if not isinstance(own, dict):
        raise ConfigError(f"{where}: expected a table with {_names(there)}")
    for key, branch in cast("dict[str, Any]", own).items():
        if key not in there:
            raise ConfigError(f"{where}.{key}: ccxt's class has no such URL; expected one of {_names(there)}")
        _check_tree(f"{where}.{key}", branch, there[key])


def _uses_hostname(urls: Mapping[str, Any], kind: Described, lane: LaneConfig) -> bool:
    part = "test" if lane.sandbox and kind.urls.get("test") else "api"
    merged = {**dict(_leaves(kind.urls[part])), **dict(_leaves(urls.get(part, {})))}
    return any(_HOSTNAME in url for url in merged.values()) or "hostname" in kind.keys


def _names(tree: Mapping[str, Any]) -> str:
    return ", ".join(tree)
