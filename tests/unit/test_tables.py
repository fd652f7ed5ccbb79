"""The tables of limits against what ccxt really calls: every public read, on every kind of market, with no network."""

import copy
import inspect
import tomllib
from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.methods import PRIVATE_READS, PUBLIC_READS
from tests.support.unsent import Call, Endpoint, described, markets, recording
from workers.exchange.arguments import path_keys
from workers.exchange.described import described as ccxt_class
from workers.limits.costs import load
from workers.limits.tables import LIMITS, shipped

TABLES: Final = shipped().limited

# Without keys ccxt returns nothing or refuses, and calls nothing.
KEYED: Final = frozenset(
    {
        *((exchange, "fetch_currencies") for exchange in ("binance", "binanceus", "bybit", "okx")),
        *(("bybit", "fetch_deposit_withdraw_fee"), ("bybit", "fetch_deposit_withdraw_fees")),
        *(("hyperliquid", "fetch_trades"), ("hyperliquid", "fetch_deposit_withdraw_fee")),
        *(("kucoin", "fetch_l3_order_book"), ("mexc", "fetch_currencies"), ("cryptocom", "fetch_currencies")),
        *(("bingx", f"fetch_{name}") for name in ("currencies", "deposit_withdraw_fee", "deposit_withdraw_fees")),
        # What it answers comes from the markets, or it takes a parameter that no other exchange has.
        *(("phemex", "fetch_market_leverage_tiers"), ("whitebit", "fetch_trading_limits")),
        ("cryptocom", "fetch_settlement_history"),
    }
)


async def calls_of(
    exchange_id: str, methods: Set[str] = PUBLIC_READS, keys: Mapping[str, str] | None = None
) -> list[Call]:
    """Run every read of these of the class on every kind of market; nothing leaves."""
    exchange, calls = recording(exchange_id, keys)
    try:
        known = markets(exchange)
        options = exchange.options
        for name in sorted(methods - {"load_markets"}):
            if (function := getattr(exchange, name, None)) is None:
                continue
            exchange.method = name
            exchange.options = copy.deepcopy(options)  # what an earlier method left there may spare this one its call
            for arguments in variants(known, inspect.signature(function).parameters):
                # Nothing, then answers without data: some methods make their second call after a first answer only.
                for exchange.answer in (None, {"data": [], "result": {}, "rows": []}, [{"name": "BTC_USDT"}]):
                    await run(function, arguments)
    finally:
        await exchange.close()
    return calls


def variants(markets: list[dict[str, Any]], taken: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Plausible arguments, as far as a method takes them: each market, with and without what may be left out."""
    for each in markets:
        kind = {"type": each["type"], "subType": each["subType"]}
        for since, limit in ((None, None), (1_790_000_000_000, 300), (None, 1000)):
            for symbols in ([each["symbol"]], None):
                for params in ({}, {name: value for name, value in kind.items() if value}):
                    known = {
                        "symbol": each["symbol"],
                        "symbols": symbols,
                        "since": since,
                        "limit": limit,
                        "timeframe": "1h",
                        "code": "BTC",
                        "codes": ["BTC"],
                        "id": "1",
                        "type": each["type"],
                        "params": params,
                    }
                    yield {name: value for name, value in known.items() if name in taken}
            if limit is None and not taken.keys() & {"since", "limit"}:
                break


async def run(function: Any, arguments: Mapping[str, Any]) -> None:
    """Whatever ccxt makes of the arguments and the answer, the calls it made stand."""
    try:
        await function(**arguments)
    except Exception:
        return


# What ccxt's `sign` sends with any call, and `variants` in `params`.
SIGNED: Final = frozenset(
    "accesskeyid signaturemethod signatureversion timestamp recvwindow signature nonce noncewindow request sig api_key "
    "access_token "
    "params method id type subtype params.type params.subtype".split()
)


def unknown_params(exchange: str, calls: list[Call]) -> set[tuple[str, str]]:
    """The parameters of calls that the checks of a configuration take for slips."""
    called = ccxt_class(exchange).called
    sent = {(str(call.endpoint), name) for call in calls for name in call.sent.keys() - SIGNED}
    return {(key, name) for key, name in sent if not called.has(name.rpartition(".")[2], key)}


@pytest.mark.parametrize("exchange", TABLES)
async def test_tables_know_every_endpoint_that_ccxt_calls_for_a_public_read(exchange: str) -> None:
    calls = await calls_of(exchange)
    known: Any = getattr(ccxt, exchange)()
    supported = {known.un_camel_case(name) for name, has in known.has.items() if has}
    silent = (supported & PUBLIC_READS) - {call.method for call in calls}
    assert silent == {name for of, name in KEYED if of == exchange}

    assert not unknown_params(exchange, calls)
    costs = load(exchange, 100)
    calls = [call for call in calls if costs.serves(call.endpoint.api)]
    unknown = {
        f"{call.method}: {call.endpoint}"
        for call in calls
        if not call.endpoint.signed and not costs.knows(*call.endpoint)
    }
    assert not unknown
    for call in calls:
        # What stands in the path is found there.
        assert call.endpoint.signed or all(call.sent.get(name.lower()) for name in path_keys(call.endpoint.path)), call
        for charge in costs.charges(*call.endpoint, call.sent, call.ccxt_cost):
            assert 0 < charge.cost <= charge.bucket.amount or charge.bucket.kind == "paced", call
            assert len(charge.key) < 200


# Exchanges that weigh an account's calls per address too; of Binance's own, /sapi is counted per account.
BY_ADDRESS: Final = frozenset({"binance", "binanceus", "bitfinex", "hyperliquid"})
# Which parts of an account's reads are charged by ccxt's own costs, as they are the exchange's weights or a safe value.
BY_CCXT: Final[Mapping[str, frozenset[str]]] = {
    "binance": frozenset({"sapi", "sapiV3", "eapiPrivate", "papi", "papiV2"}),
    "binanceus": frozenset({"sapi", "sapiV3"}),
    "bingx": frozenset({"account", "api", "contract", "cswap", "fund", "spot", "swap", "user", "wallets"}),
    "bitget": frozenset({"private"}),
    "mexc": frozenset({"spot"}),
    "woo": frozenset({"v1", "v3"}),
    "kucoin": frozenset({"private", "futuresPrivate", "utaPrivate", "broker"}),
    "okx": frozenset({"private"}),
}


def by_address(exchange: str, endpoint: Endpoint) -> bool:
    """Whether the exchange counts an account's call by the address it comes from."""
    return exchange in BY_ADDRESS and not (exchange == "binance" and endpoint.api[0].startswith("sapi"))


@pytest.mark.parametrize("exchange", TABLES)
async def test_an_account_s_reads_are_charged_to_it(exchange: str) -> None:
    keys = {"apiKey": "k", "secret": "c2VjcmV0", "password": "p", "uid": "1", "walletAddress": f"0x{1:040x}"}
    calls = await calls_of(exchange, PRIVATE_READS, keys)
    assert "fetch_balance" in {call.method for call in calls}
    assert not unknown_params(exchange, calls)
    costs = load(exchange, 100)
    for call in calls:
        if not call.endpoint.signed or not costs.serves(call.endpoint.api):
            continue
        charges = costs.charges(*call.endpoint, call.sent, call.ccxt_cost)
        assert by_address(exchange, call.endpoint) or any(charge.bucket.scope == "account" for charge in charges), call
        assert costs.knows(*call.endpoint) or call.endpoint.api[0] in BY_CCXT.get(exchange, ()), call


@pytest.mark.parametrize("exchange", TABLES)
def test_tables_name_only_endpoints_that_ccxt_has(exchange: str) -> None:
    keys = set(tomllib.loads((LIMITS / f"{exchange}.toml").read_text(encoding="utf-8"))["endpoints"])
    of_ccxt = {str(endpoint) for endpoint, _ in described(exchange)}
    of_ccxt |= {str(endpoint._replace(path="*")) for endpoint, _ in described(exchange)}
    others = [name for name, table in shipped().sharing.items() if table == exchange]  # each with endpoints of its own
    of_ccxt |= {str(endpoint) for other in others for endpoint, _ in described(other)}
    assert not keys - of_ccxt


@pytest.mark.parametrize("exchange", TABLES)
def test_no_rule_of_a_table_is_dead(exchange: str) -> None:
    table = tomllib.loads((LIMITS / f"{exchange}.toml").read_text(encoding="utf-8"))
    named: dict[str, list[dict[str, Any]]] = table["endpoints"]
    rest = {str(endpoint._replace(path="*")) for endpoint, _ in described(exchange) if str(endpoint) not in named}
    assert {key for key in named if key.endswith(" *")} <= rest
    used = {rule["bucket"] for rules in named.values() for rule in rules}
    assert table["buckets"].keys() == used
    for key, rules in named.items():
        for rule in rules:
            reached: set[tuple[str, float | str]] = set()
            for case in rule.get("cases", ()):
                sizes: list[float | str] = case.get("equals") or [case.get("at_most", float("inf"))]
                for size in sizes:
                    below = [of for name, of in reached if name == case["param"]]
                    assert size not in below, (key, case)
                    assert isinstance(size, str) or all(of < size for of in below if isinstance(of, float)), (key, case)
                reached |= {(case["param"], size) for size in sizes}


@pytest.mark.parametrize("exchange", TABLES)
def test_no_api_of_ccxt_falls_to_the_default(exchange: str) -> None:
    keys = set(tomllib.loads((LIMITS / f"{exchange}.toml").read_text(encoding="utf-8"))["endpoints"])
    costs = load(exchange, 100)
    for endpoint, _ in described(exchange):
        if endpoint.verb == "GET" and costs.serves(endpoint.api):
            assert keys & {str(endpoint), str(endpoint._replace(path="*"))}, endpoint


@pytest.mark.parametrize("exchange", TABLES)
def test_no_charge_of_any_call_ccxt_knows_is_above_its_bucket(exchange: str) -> None:
    costs = load(exchange, 100)
    for endpoint, ccxt_cost in described(exchange):
        for charge in costs.charges(*endpoint, {}, ccxt_cost):
            assert 0 < charge.cost <= charge.bucket.amount or charge.bucket.kind == "paced", endpoint


@pytest.mark.parametrize("exchange", TABLES)
def test_public_calls_count_per_address_and_private_ones_per_account(exchange: str) -> None:
    costs = load(exchange, 100)
    for endpoint, ccxt_cost in described(exchange):
        scopes = {charge.bucket.scope for charge in costs.charges(*endpoint, {}, ccxt_cost)}
        if not endpoint.signed:
            assert scopes == {"egress"}, endpoint
        # Writes are never sent.
        elif endpoint.verb == "GET" and not by_address(exchange, endpoint):
            assert "account" in scopes or endpoint.path == "system/status", endpoint


@pytest.mark.parametrize(("exchange", "table"), shipped().sharing.items())
def test_other_names_of_an_exchange_use_its_table(exchange: str, table: str) -> None:
    assert load(exchange, 100).exchange == table
