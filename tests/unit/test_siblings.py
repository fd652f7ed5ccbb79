"""Exchanges on one host, over all classes of ccxt: they share limits and pauses, or a table says why not."""

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.methods import PUBLIC_READS
from tests.support.unsent import Call, described
from tests.unit.test_tables import calls_of
from workers.limits.costs import load
from workers.limits.tables import shipped

# Where anybody may register a name below a country's second level, the third one is the owner's.
SECOND_LEVELS = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})


def texts(urls: Any) -> Iterator[str]:
    """All texts in a table of URLs."""
    if isinstance(urls, dict):
        for below in urls.values():  # pyright: ignore[reportUnknownVariableType]
            yield from texts(below)
    elif isinstance(urls, str):
        yield urls


def hosts(exchange_id: str) -> set[str]:
    """The hosts in the URLs of a class's APIs."""
    exchange: Any = getattr(ccxt, exchange_id)()
    urls = exchange.urls
    names = [getattr(exchange, "hostname", None), *texts(urls.get("hostnames"))]
    found = {urlsplit(url.replace("{hostname}", name or "")).hostname for url in texts(urls["api"]) for name in names}
    return {host for host in found if host and "." in host}


def owner(host: str) -> str:
    """The registered domain of a host."""
    labels = host.split(".")
    return ".".join(labels[-3:] if len(labels[-1]) == 2 and labels[-2] in SECOND_LEVELS else labels[-2:])


def apart(one: str, other: str) -> bool:
    """Whether a table says that they share nothing."""
    known = shipped().apart
    return (
        (one, other) in known
        or (other, one) in known
        or any((it, one) in known and (it, other) in known for it in known_tables())
    )


def known_tables() -> list[str]:
    return shipped().names


def test_classes_with_one_host_or_domain_share_limits_and_pauses_or_a_table_says_why_not() -> None:
    on: dict[str, set[str]] = {}
    for exchange in ccxt.exchanges:
        for host in hosts(exchange):
            on.setdefault(owner(host), set()).add(exchange)
    together = {domain: names for domain, names in on.items() if len(names) > 1}
    # As was found in ccxt 4.5.90; a domain that is missing here was not looked at.
    assert {"binance.com", "okx.com", "gateio.ws", "kucoin.com", "orderly.org", "coinbase.com", "kraken.com"} <= set(
        together
    )
    unsaid = {
        (domain, one, other)
        for domain, names in together.items()
        for one, other in itertools.combinations(sorted({shipped().limits_of(name) for name in names}), 2)
        if not apart(one, other)
    }
    assert not unsaid


def test_old_reasons_to_share_nothing_do_not_stay() -> None:
    """Each speaks of two classes of one domain that indeed share nothing."""
    for one, other in shipped().apart:
        assert {owner(host) for host in hosts(one)} & {owner(host) for host in hosts(other)}
        assert shipped().limits_of(one) != shipped().limits_of(other)


def host(exchange: Any, call: Call) -> str:
    """Where a class sends a call; empty for one that it does not sign without keys."""
    try:
        signed: dict[str, str] = exchange.sign(call.endpoint.path, list(call.endpoint.api), call.endpoint.verb, {})
    except Exception:  # whatever it misses
        return ""
    return urlsplit(signed["url"]).hostname or ""


async def called(exchange_id: str) -> list[tuple[str, Call]]:
    """Every call that a lane of this exchange sends for a public read, with its host."""
    exchange: Any = getattr(ccxt, exchange_id)()
    costs = load(exchange_id, exchange.rateLimit)
    methods = {exchange.un_camel_case(name) for name, has in exchange.has.items() if has} & PUBLIC_READS
    calls = [call for call in await calls_of(exchange_id, methods) if costs.serves(call.endpoint.api)]
    return [(host(exchange, call), call) for call in calls]


@pytest.mark.parametrize(("one", "other"), shipped().apart)
async def test_those_that_share_nothing_call_no_host_of_each_other(one: str, other: str) -> None:
    ours, theirs = [{host for host, _ in await called(name)} - {""} for name in (one, other)]
    assert ours
    assert theirs
    assert not ours & theirs


@pytest.mark.parametrize(
    ("exchange", "table"), [each for each in shipped().sharing.items() if each[1] not in shipped().limited]
)
def test_those_that_share_no_table_of_limits_are_paced_alike(exchange: str, table: str) -> None:
    one, other = (getattr(ccxt, name)().rateLimit for name in (exchange, table))
    assert load(exchange, one).buckets == load(table, other).buckets


async def test_tokocrypto_pays_binance_for_calls_to_its_host_and_tokocrypto_for_those_to_its_own() -> None:
    costs = load("tokocrypto", 2000)
    buckets: dict[str, set[str]] = {}
    for host, call in await called("tokocrypto"):
        charges = costs.charges(*call.endpoint, call.sent, call.ccxt_cost)
        assert costs.knows(*call.endpoint), call
        buckets.setdefault(host, set()).update(charge.bucket.name for charge in charges)
    assert buckets == {"api.binance.com": {"spot"}, "www.tokocrypto.com": {"tokocrypto"}}
    # By Binance's weights, not by the class's own costs.
    (charge,) = costs.charges(("binance",), "GET", "trades", {}, 1.0)
    assert (charge.bucket.name, charge.cost) == ("spot", 25)
    for endpoint, _ in described("tokocrypto"):
        if endpoint.verb == "GET" and endpoint.api == ("private",):
            charges = costs.charges(*endpoint, {}, 1.0)
            assert {charge.bucket.name for charge in charges} == {"tokocrypto", "tokocrypto_account"}
