"""ccxt's calls without a network: what a class would send for a method, on every kind of market."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]

from workers.limits import wire

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
    "bitfinex": {"spot": "tBTCUST", "linear": "tBTCF0:USTF0"},
    "bingx": {"spot": "BTC-USDT", "linear": "BTC-USDT", "inverse": "BTC-USD"},
    "bitget": {"spot": "BTCUSDT", "linear": "BTCUSDT", "inverse": "BTCUSD"},
    "bithumb": {"spot": "BTC_USDT"},
    "bitstamp": {"spot": "btcusdt", "linear": "btcusdt-perp"},
    "bybit": {
        "spot": "BTCUSDT",
        "linear": "BTCUSDT",
        "inverse": "BTCUSD",
        "future": "BTCUSDT-25DEC26",
        "option": "BTC-25DEC26-100000-C",
    },
    "coinbase": {"spot": "BTC-USDT"},
    "coinbaseexchange": {"spot": "BTC-USDT"},
    "coinone": {"spot": "btc"},
    "cryptocom": {"spot": "BTC_USDT", "linear": "BTCUSD-PERP"},
    "deribit": {"spot": "BTC_USDT", "inverse": "BTC-PERPETUAL", "option": "BTC-25DEC26-100000-C"},
    "gate": {
        "spot": "BTC_USDT",
        "linear": "BTC_USDT",
        "inverse": "BTC_USD",
        "future": "BTC_USDT_20261225",
        "option": "BTC_USDT-20261225-100000-C",
    },
    "gemini": {"spot": "btcusdt"},
    "htx": {
        "spot": "btcusdt",
        "linear": "BTC-USDT",
        "inverse": "BTC-USD",
        "future": "BTC-USDT-261225",
        "inverse future": "BTC261225",
    },
    "hyperliquid": {"spot": "@142", "linear": "0"},
    "kraken": {"spot": "XBTUSDT"},
    "krakenfutures": {"linear": "PF_XBTUSD", "inverse": "PI_XBTUSD"},
    "kucoin": {"spot": "BTC-USDT", "linear": "XBTUSDTM", "inverse": "XBTUSDM"},
    "phemex": {"spot": "sBTCUSDT", "linear": "BTCUSDT", "inverse": "BTCUSD"},
    "upbit": {"spot": "USDT-BTC"},
    "whitebit": {"spot": "BTC_USDT", "linear": "BTC_PERP"},
    "woo": {"spot": "SPOT_BTC_USDT", "linear": "PERP_BTC_USDT"},
    "mexc": {"spot": "BTCUSDT", "linear": "BTC_USDT", "inverse": "BTC_USD"},
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


class Endpoint(NamedTuple):
    """One endpoint as ccxt names it."""

    api: tuple[str, ...]
    verb: str
    path: str

    @property
    def signed(self) -> bool:
        """Whether it needs keys."""
        if self.api == ("history",):  # of Kraken Futures
            return not self.path.startswith("market/")
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


class Unsent(Exception):
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


def recording(exchange_id: str, keys: Mapping[str, str] | None = None) -> tuple[Any, list[Call]]:
    """An instance of the class that notes its calls in place of sending them, and those calls.

    Its `method` is noted with them; its `answer` is what each call gets, and None ends the method with `Unsent`.
    """
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
                raise Unsent
            return self.answer

    exchange: Any = Recorder({**(keys or {})})
    exchange.set_markets(markets(exchange))
    return exchange, calls


def markets(exchange: Any) -> list[dict[str, Any]]:
    """One market of each kind that the exchange has."""
    known = IDS.get(exchange.id, {"spot": "BTCUSDT"})
    return [market(exchange, kind, name) for kind, name in known.items()]
