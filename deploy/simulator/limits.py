"""The published limits of the exchanges, as the simulator enforces them.

Every number is per source address, but for those of accounts. Where sources disagree, the smaller value stands here,
so that what passes the simulator passes the exchange. Sources, read in 2026:

- Binance, `rest-api.md` and `enums.md`: a fixed minute, weights per endpoint.
- OKX, v5 docs: per endpoint; the kind of window is not published, so it is rolling here.
- HTX, spot API pages: 10 a second of the older page, which is tighter, and the five-minute values of the newer one.
- Coinbase, Advanced Trade: 10 a second for public calls, 10,000 an hour for v2.
- Kraken, support pages: about one a second; OHLC and Trades per pair.
- Coinbase Exchange, rate limits: 10 a second and bursts of 15, from a token bucket that starts full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

Query = dict[str, str]
Cost = Callable[[Query], int]


class Bucket(NamedTuple):
    """One limit: `amount` of weight in `window_s` seconds.

    `rolling` holds for any window of that length; `fixed` counts within the exchange's own window, which begins at
    whole multiples of its length since the epoch (a UTC minute); there refused requests cost weight too.
    `decaying` is a counter that falls by amount/window_s a second.
    `per` names a query parameter whose values have windows of their own, beside the address (`Venue.counted_as`).
    `by_account`: it is counted by the account that signed, from whatever address.
    """

    name: str
    amount: int
    window_s: float
    kind: Literal["rolling", "fixed", "decaying"] = "rolling"
    per: str | None = None
    by_account: bool = False


class Charge(NamedTuple):
    """What a request takes from a bucket: a weight, or a function of its query."""

    bucket: Bucket
    cost: int | Cost = 1


class BanPolicy(NamedTuple):
    """What happens to an address that goes on sending: more than `strikes` refusals in a row and it is banned.

    The first ban lasts `base_s` seconds, each further one twice as long, at most `longest_s`.
    """

    strikes: int
    base_s: float
    longest_s: float


class Limits(NamedTuple):
    """One exchange: charges by endpoint, charges of every other path by prefix, its bans."""

    endpoints: dict[str, tuple[Charge, ...]]
    prefixes: dict[str, tuple[Charge, ...]]
    ban: BanPolicy | None = None

    def of(self, endpoint: str) -> tuple[Charge, ...]:
        """The charges of an endpoint or of any unknown path."""
        found = self.endpoints.get(endpoint)
        if found is not None:
            return found
        return next((charges for prefix, charges in self.prefixes.items() if endpoint.startswith(prefix)), ())


def _whole(query: Query, key: str, default: int) -> int:
    text = query.get(key, "")
    return int(text) if text.isdecimal() else default


def _symbols(query: Query) -> int:
    """How many symbols a Binance request names: 0 for none, which means all."""
    if "symbols" not in query:
        return 1 if "symbol" in query else 0
    try:
        return len(msgspec.json.decode(query["symbols"], type=list[str]))
    except msgspec.MsgspecError:
        return 1


def binance_depth(query: Query) -> int:
    """`/api/v3/depth`: 5 up to 100 levels, 25 to 500, 50 to 1000, 250 to 5000."""
    limit = _whole(query, "limit", 100)
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def binance_day_ticker(query: Query) -> int:
    """`/api/v3/ticker/24hr`: 2 up to 20 symbols, 40 to 100, else or for all 80."""
    count = _symbols(query)
    return 80 if count == 0 or count > 100 else 2 if count <= 20 else 40


def binance_light_ticker(query: Query) -> int:
    """`ticker/price` and `ticker/bookTicker`: 2 for one symbol, else 4."""
    return 2 if "symbol" in query else 4


def binance_window_ticker(query: Query) -> int:
    """`ticker` and `ticker/tradingDay`: 4 a symbol, at most 200."""
    return min(200, 4 * max(1, _symbols(query)))


_WEIGHT = Bucket("weight", 6000, 60, "fixed")
_RAW = Charge(Bucket("raw", 300_000, 300, "fixed"))
_ORDERS = Bucket("orders", 100, 10, "fixed", by_account=True)
_SAPI = Bucket("sapi-system-status", 12_000, 60, "fixed")
_FUTURES = Bucket("futures-weight", 2400, 60, "fixed")  # of USD-M and COIN-M together, by the notice of 2026-06-30


def _binance(cost: int | Cost) -> tuple[Charge, ...]:
    return (Charge(_WEIGHT, cost), _RAW)


BINANCE = Limits(
    {
        "/api/v3/ping": _binance(1),
        "/api/v3/time": _binance(1),
        "/api/v3/exchangeInfo": _binance(20),
        "/api/v3/depth": _binance(binance_depth),
        "/api/v3/trades": _binance(25),
        "/api/v3/historicalTrades": _binance(25),
        "/api/v3/aggTrades": _binance(4),
        "/api/v3/klines": _binance(2),
        "/api/v3/uiKlines": _binance(2),
        "/api/v3/avgPrice": _binance(2),
        "/api/v3/ticker/24hr": _binance(binance_day_ticker),
        "/api/v3/ticker/price": _binance(binance_light_ticker),
        "/api/v3/ticker/bookTicker": _binance(binance_light_ticker),
        "/api/v3/ticker": _binance(binance_window_ticker),
        "/api/v3/ticker/tradingDay": _binance(binance_window_ticker),
        "/api/v3/account": _binance(20),
        "/api/v3/openOrders": _binance(lambda query: 6 if "symbol" in query else 80),
        "/api/v3/myTrades": _binance(20),
        "/api/v3/order": (*_binance(1), Charge(_ORDERS)),
    },
    {
        "/api/": _binance(1),
        "/sapi/": (Charge(_SAPI),),
        "/fapi/": (Charge(_FUTURES),),
        "/dapi/": (Charge(_FUTURES),),
    },
    # 418 "from 2 minutes to 3 days" for clients that go on after a 429.
    BanPolicy(strikes=5, base_s=120, longest_s=259_200),
)


def _okx(
    path: str, amount: int, window_s: float = 2, per: str | None = None, *, by_account: bool = False
) -> tuple[str, tuple[Charge, ...]]:
    return "/api/v5/" + path, (Charge(Bucket(path, amount, window_s, per=per, by_account=by_account)),)


OKX = Limits(
    dict(
        [
            _okx("market/tickers", 20),
            _okx("market/ticker", 20),
            _okx("market/candles", 40),
            _okx("market/history-candles", 20),
            _okx("market/books", 40),
            _okx("market/books-full", 10),
            _okx("market/trades", 100),
            _okx("market/history-trades", 10),  # 10 or 20: two copies of the docs disagree
            _okx("public/instruments", 20, per="instType"),
            _okx("public/time", 10),
            _okx("system/status", 1, 5),
            _okx("account/balance", 10, by_account=True),
            _okx("trade/orders-pending", 60, by_account=True),
            _okx("trade/batch-orders", 300, by_account=True),
        ]
    ),
    {"/": (Charge(Bucket("other", 20, 2)),)},
)


def _htx(path: str, five_minutes: int | None = None) -> tuple[str, tuple[Charge, ...]]:
    second = Charge(Bucket(path, 10, 1))
    if five_minutes is None:
        return path, (second,)
    return path, (second, Charge(Bucket(path + " 5m", five_minutes, 300)))


HTX = Limits(
    dict(
        [
            _htx("/market/history/kline", 4500),
            _htx("/market/history/candles", 4500),
            _htx("/market/detail/merged", 4500),
            _htx("/market/tickers", 4500),
            _htx("/market/trade", 4500),
            _htx("/market/depth", 4000),
            _htx("/market/history/trade", 3000),
            _htx("/v1/common/timestamp"),
            _htx("/v1/common/symbols"),
            _htx("/v2/reference/currencies"),
            _htx("/v2/market-status"),
        ]
    ),
    {
        # Futures: other public calls, 120 in 3 s by the older page, 240 by the newer.
        "/linear-swap-api/": (Charge(Bucket("contract", 120, 3)),),
        "/swap-api/": (Charge(Bucket("contract", 120, 3)),),
        "/api/v1/": (Charge(Bucket("contract", 120, 3)),),
        "/": (Charge(Bucket("other", 10, 1)),),
    },
)

COINBASE = Limits(
    {},
    {
        "/v2/": (Charge(Bucket("v2", 10_000, 3600)),),
        "/": (Charge(Bucket("public", 10, 1)),),
    },
)

# A bucket of 15 tokens that gets 10 a second is a counter that may reach 15 and falls by 10 a second.
COINBASE_EXCHANGE = Limits({}, {"/": (Charge(Bucket("public", 15, 1.5, "decaying")),)})

# The starter tier: up to 15, and 0.33 a second less.
_KRAKEN_PRIVATE = Bucket("private", 15, 15 / 0.33, "decaying", by_account=True)
# Nothing is published for all pairs together, but some bound is likely.
_KRAKEN_PAIRS = Bucket("pairs", 5, 1)
KRAKEN = Limits(
    {
        "/0/private/BalanceEx": (Charge(_KRAKEN_PRIVATE),),
        "/0/private/OpenOrders": (Charge(_KRAKEN_PRIVATE),),
        "/0/private/Ledgers": (Charge(_KRAKEN_PRIVATE, 2),),
        "/0/public/OHLC": (Charge(Bucket("OHLC", 1, 1, per="pair")), Charge(_KRAKEN_PAIRS)),
        "/0/public/Trades": (Charge(Bucket("Trades", 1, 1, per="pair")), Charge(_KRAKEN_PAIRS)),
    },
    {"/": (Charge(Bucket("public", 1, 1)),)},
    # "EGeneral:Temporary lockout", about 15 minutes by reports; how it grows is not published.
    BanPolicy(strikes=5, base_s=60, longest_s=900),
)

LIMITS: dict[str, Limits] = {
    "binance": BINANCE,
    "okx": OKX,
    "htx": HTX,
    "coinbase": COINBASE,
    "kraken": KRAKEN,
    "coinbaseexchange": COINBASE_EXCHANGE,
}
