"""The tables of limits against what ccxt really calls: every public read, on every kind of market, with no network."""

import copy
import inspect
import tomllib
from collections.abc import Iterator, Mapping, Set
from typing import Any, Final, NamedTuple, cast

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.methods import PRIVATE_READS, PUBLIC_READS
from workers.exchange.arguments import path_keys
from workers.limits import wire
from workers.limits.costs import load
from workers.limits.tables import LIMITS, shipped

TABLES: Final = shipped().limited
VERBS: Final = frozenset({"get", "post", "put", "delete", "patch"})

# The id of each kind of market at each exchange: spot, linear and inverse swap, dated future, option.
IDS: Final[Mapping[str, Mapping[str, str]]] = {
    "binance": {
        "spot": "BTCUSDT",
        "linear": "BTCUSDT",
        "inverse": "BTCUSD_PERP",
        "future": "BTCUSDT_261225",
        "option": "BTC-261225-100000-C",
    },
    "bybit": {
        "spot": "BTCUSDT",
        "linear": "BTCUSDT",
        "inverse": "BTCUSD",
        "future": "BTCUSDT-25DEC26",
        "option": "BTC-25DEC26-100000-C",
    },
    "coinbase": {"spot": "BTC-USDT"},
    "gate": {
        "spot": "BTC_USDT",
        "linear": "BTC_USDT",
        "inverse": "BTC_USD",
        "future": "BTC_USDT_20261225",
        "option": "BTC_USDT-20261225-100000-C",
    },
    "htx": {
        "spot": "btcusdt",
        "linear": "BTC-USDT",
        "inverse": "BTC-USD",
        "future": "BTC-USDT-261225",
        "inverse future": "BTC261225",
    },
    "kraken": {"spot": "XBTUSDT"},
    "kucoin": {"spot": "BTC-USDT", "linear": "XBTUSDTM", "inverse": "XBTUSDM"},
    "okx": {
        "spot": "BTC-USDT",
        "linear": "BTC-USDT-SWAP",
        "inverse": "BTC-USD-SWAP",
        "future": "BTC-USDT-261225",
        "option": "BTC-USD-261225-100000-C",
    },
}
SYMBOLS: Final = {
    "spot": "BTC/USDT",
    "linear": "BTC/USDT:USDT",
    "inverse": "BTC/USD:BTC",
    "future": "BTC/USDT:USDT-261225",
    "inverse future": "BTC/USD:BTC-261225",
    "option": "BTC/USDT:USDT-261225-100000-C",
}
TYPES: Final = {"spot": "spot", "linear": "swap", "inverse": "swap", "option": "option"}
# Without keys ccxt returns nothing or refuses, and calls nothing.
KEYED: Final = frozenset(
    {
        *(("binance", "fetch_currencies"), ("okx", "fetch_currencies"), ("bybit", "fetch_currencies")),
        *(("bybit", "fetch_deposit_withdraw_fee"), ("bybit", "fetch_deposit_withdraw_fees")),
        ("kucoin", "fetch_l3_order_book"),
    }
)


class Endpoint(NamedTuple):
    """One endpoint as ccxt names it."""

    api: tuple[str, ...]
    verb: str
    path: str

    @property
    def signed(self) -> bool:
        """Whether it needs keys."""
        return any(part.lower().endswith(("private", "privatev2", "privatev3")) for part in self.api) or (
            self.api[0] in {"private", "sapi", "sapiV2", "sapiV3", "sapiV4", "papi", "papiV2", "broker", "earn"}
            and self.path != "system/status"
        )

    def __str__(self) -> str:
        return f"{'.'.join(self.api)} {self.verb} {self.path}"


class Call(NamedTuple):
    """What one ccxt method sent."""

    method: str
    endpoint: Endpoint
    sent: wire.Sent
    ccxt_cost: float


class Sent(Exception):
    """A call reached ccxt's funnel."""


def endpoints(tree: Mapping[str, Any], api: tuple[str, ...] = ()) -> Iterator[tuple[Endpoint, float]]:
    """All endpoints of a ccxt class, with what ccxt charges."""
    for name, below in tree.items():
        if name in VERBS:
            entries = cast("dict[str, Any]", below) if isinstance(below, dict) else dict.fromkeys(below, 1)
            for path, entry in entries.items():
                cost: float = cast("dict[str, float]", entry)["cost"] if isinstance(entry, dict) else entry
                yield Endpoint(api, name.upper(), path), cost
        else:
            yield from endpoints(below, (*api, name))


def described(exchange: str) -> list[tuple[Endpoint, float]]:
    """The same by the exchange's name."""
    return list(endpoints(getattr(ccxt, exchange)().describe()["api"]))


def market(exchange: Any, kind: str, market_id: str) -> dict[str, Any]:
    """A market as ccxt keeps it."""
    symbol = SYMBOLS[kind]
    if exchange.id == "okx" and kind == "option":
        symbol = "BTC/USD:BTC-261225-100000-C"
    pair, _, rest = symbol.partition(":")
    base, _, quote = pair.partition("/")
    settle = rest.partition("-")[0] or None
    kind_of = TYPES.get(kind, "future")
    dated = kind_of in {"future", "option"}
    linear = None if kind_of == "spot" else settle == quote
    known: dict[str, Any] = exchange.safe_market_structure()
    return known | {
        "id": market_id,
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "settle": settle,
        "baseId": base,
        "quoteId": quote,
        "settleId": settle.lower() if settle and exchange.id == "gate" else settle,
        "type": kind_of,
        "subType": None if linear is None else "linear" if linear else "inverse",
        "spot": kind_of == "spot",
        "swap": kind_of == "swap",
        "future": kind_of == "future",
        "option": kind_of == "option",
        "contract": kind_of != "spot",
        "linear": linear,
        "inverse": None if linear is None else not linear,
        "contractSize": None if kind_of == "spot" else 1,
        "active": True,
        "expiry": 1_798_156_800_000 if dated else None,
        "expiryDatetime": "2026-12-25T00:00:00.000Z" if dated else None,
        "strike": 100_000 if kind_of == "option" else None,
        "optionType": "call" if kind_of == "option" else None,
        "info": {"instFamily": "BTC-USD", "uly": "BTC-USD", "underlying": "BTC_USDT", "altname": "XBTUSDT"},
    }


async def calls_of(
    exchange_id: str, methods: Set[str] = PUBLIC_READS, keys: Mapping[str, str] | None = None
) -> list[Call]:
    """Run every read of these of the class on every kind of market; nothing leaves."""
    calls: list[Call] = []

    class Recorder(getattr(ccxt, exchange_id)):  # type: ignore[misc]
        method = ""
        answer: Any = None

        async def fetch2(
            self, path: str, api: Any = "public", method: str = "GET", params: Any = None, config: Any = None
        ) -> Any:
            cost = self.calculate_rate_limiter_cost(api, method, path, params or {}, config or {})
            apis = (api,) if isinstance(api, str) else tuple(api)
            try:
                sent = wire.read(path, self.sign(path, api, method, dict(params or {})))
            except Exception:  # without keys
                sent = {}
            calls.append(Call(self.method, Endpoint(apis, method, path), sent, cost))
            if self.answer is None:
                raise Sent
            return self.answer

    exchange: Any = Recorder({**(keys or {})})
    try:
        known = [market(exchange, kind, name) for kind, name in IDS.get(exchange_id, {"spot": "BTCUSDT"}).items()]
        exchange.set_markets(known)
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


@pytest.mark.parametrize("exchange", TABLES)
async def test_tables_know_every_endpoint_that_ccxt_calls_for_a_public_read(exchange: str) -> None:
    calls = await calls_of(exchange)
    known: Any = getattr(ccxt, exchange)()
    supported = {known.un_camel_case(name) for name, has in known.has.items() if has}
    silent = (supported & PUBLIC_READS) - {call.method for call in calls}
    assert silent == {name for of, name in KEYED if of == exchange}

    costs = load(exchange, 100)
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


# Which parts of an account's reads are charged by ccxt's own costs, as they are the exchange's weights or a safe value.
BY_CCXT: Final[Mapping[str, frozenset[str]]] = {
    "binance": frozenset({"sapi", "sapiV3", "eapiPrivate", "papi", "papiV2"}),
    "kucoin": frozenset({"private", "futuresPrivate", "utaPrivate", "broker"}),
    "okx": frozenset({"private"}),
}


@pytest.mark.parametrize("exchange", TABLES)
async def test_an_account_s_reads_are_charged_to_it(exchange: str) -> None:
    keys = {"apiKey": "k", "secret": "c2VjcmV0", "password": "p", "uid": "1"}
    calls = [call for call in await calls_of(exchange, PRIVATE_READS, keys) if call.endpoint.signed]
    assert "fetch_balance" in {call.method for call in calls}
    costs = load(exchange, 100)
    for call in calls:
        charges = costs.charges(*call.endpoint, call.sent, call.ccxt_cost)
        by_address = exchange == "binance" and not call.endpoint.api[0].startswith("sapi")
        assert by_address or any(charge.bucket.scope == "account" for charge in charges), call
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
def test_no_api_of_ccxt_falls_to_the_default(exchange: str) -> None:
    keys = set(tomllib.loads((LIMITS / f"{exchange}.toml").read_text(encoding="utf-8"))["endpoints"])
    for endpoint, _ in described(exchange):
        if endpoint.verb == "GET":
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
        # Binance weighs an account's calls per address, but for /sapi. Writes are never sent.
        elif endpoint.verb == "GET" and (exchange != "binance" or endpoint.api[0].startswith("sapi")):
            assert "account" in scopes or endpoint.path == "system/status", endpoint


@pytest.mark.parametrize(("exchange", "table"), shipped().sharing.items())
def test_other_names_of_an_exchange_use_its_table(exchange: str, table: str) -> None:
    assert load(exchange, 100).exchange == table
