"""More calls than the exchanges allow, and what the simulator's counters say of them."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from deploy.simulator.process import Simulator
from schemas.messages import Request
from schemas.runtime.tasks import end_tasks

from .client import Client

PAIRS: Final = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT")
CANDLES: Final = {"timeframe": "1m", "limit": 20}
# The demo's methods, with few rows: what they cost the exchanges is the same.
METHODS: Final[dict[str, dict[str, Any]]] = {
    "fetch_ticker": {},
    "fetch_ohlcv": CANDLES,
    "fetch_order_book": {"limit": 20},
    "fetch_trades": {"limit": 20},
}
# Long enough for the next of Binance's minutes.
DEADLINE_S: Final = 120.0
# After an error a plain program waits so long with its next call.
AFTER_ERROR_S: Final = 1.0


class Kind(Struct, frozen=True):
    """One of the demo's methods at an exchange.

    Args:
        method: which.
        args: its arguments beside the symbol.
        at_once: how many calls of it are always waiting: more than the exchange allows in a second, less than in the
            two seconds that workers wait.
        pairs: the symbols, in turn.
    """

    method: str
    args: dict[str, Any]
    at_once: int
    pairs: tuple[str, ...] = PAIRS


def _kinds(ticker: int, candles: int, book: int, trades: int) -> tuple[Kind, ...]:
    counts = (ticker, candles, book, trades)
    return tuple(Kind(*each, at_once) for each, at_once in zip(METHODS.items(), counts, strict=True))


LOADS: Final[dict[str, tuple[Kind, ...]]] = {
    "binance": _kinds(25, 25, 25, 25),
    "okx": _kinds(15, 30, 30, 75),
    "htx": _kinds(15, 15, 15, 15),
    "coinbase": _kinds(4, 4, 4, 4),
    "coinbaseexchange": _kinds(4, 4, 4, 4),
    # Candles and trades are counted per pair, and all pairs together may have five a second: six ask for more. That
    # both have a count of their own is the simulator's reading; the fleet lets them share one, so each pair gets one
    # of the two.
    "kraken": (
        Kind("fetch_ticker", {}, 1),
        Kind("fetch_order_book", {"limit": 20}, 1),
        *(Kind("fetch_ohlcv", CANDLES, 1, (pair,)) for pair in PAIRS[:3]),
        *(Kind("fetch_trades", {"limit": 20}, 1, (pair,)) for pair in PAIRS[3:]),
    ),
}
# The limits at the simulator's door that these loads fill.
FILLED: Final[dict[str, tuple[str, ...]]] = {
    "binance": ("weight",),
    "okx": ("market/ticker", "market/candles", "market/books", "market/trades"),
    "htx": ("/market/detail/merged", "/market/history/candles", "/market/depth", "/market/history/trade"),
    "coinbase": ("public",),
    "coinbaseexchange": ("public",),
    "kraken": ("public", "pairs"),
}

Call = Callable[[str, str, dict[str, Any]], Awaitable[bool]]
"""Makes one call (exchange, method, arguments); returns whether it brought data."""


class Tally:
    """Calls that ended, by exchange."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()


@contextlib.asynccontextmanager
async def saturated(call: Call, exchanges: Sequence[str]) -> AsyncGenerator[Tally]:
    """Asks these exchanges for more than they allow, all the time."""
    tally = Tally()

    async def go_on(exchange: str, kind: Kind, pairs: "itertools.cycle[str]") -> None:
        while True:
            if await call(exchange, kind.method, {"symbol": next(pairs), **kind.args}):
                tally.answered[exchange] += 1
            else:
                tally.failed[exchange] += 1
                await asyncio.sleep(AFTER_ERROR_S)

    tasks = [
        asyncio.create_task(go_on(exchange, kind, pairs))
        for exchange in exchanges
        for kind in LOADS[exchange]
        for pairs in [itertools.cycle(kind.pairs)]
        for _ in range(kind.at_once)
    ]
    try:
        yield tally
        for task in tasks:
            if task.done():
                task.result()
    finally:
        await end_tasks(tasks)


def through(client: Client) -> Call:
    """Calls through the fleet, pinned to the exchange."""

    async def call(exchange: str, method: str, args: dict[str, Any]) -> bool:
        deadline_ms = int((time.time() + DEADLINE_S) * 1000)
        return (await client.ask(Request(method, args, exchanges=[exchange], deadline_ms=deadline_ms))).ok

    return call


class Filled(Struct, frozen=True):
    """How full a limit was at the simulator's door.

    Args:
        bucket: its name there.
        limit: amount and window, as text.
        used: the used part of all it allowed in the time.
        aim: the part that was aimed at.
    """

    bucket: str
    limit: str
    used: float
    aim: float


def aim(window_s: float) -> float:
    """The part of a limit that should be used: less in small windows, because calls arrive late."""
    return 0.98 if window_s >= 10 else 0.95 if window_s >= 2 else 0.9


class Door:
    """What an exchange of the simulator counts from now on."""

    def __init__(self, before: dict[str, Any]) -> None:
        self._before = before
        self._begun_s = time.monotonic()

    @classmethod
    async def at(cls, simulator: Simulator) -> "Door":
        """Reads all counters."""
        return cls((await simulator.counters())["exchanges"])

    async def filled(self, simulator: Simulator, exchange: str) -> list[Filled]:
        """How full the limits were that are meant to be full, since it was made."""
        now = (await simulator.counters())["exchanges"][exchange]["buckets"]
        took_s = time.monotonic() - self._begun_s
        found: list[Filled] = []
        for name in FILLED[exchange]:
            if name not in now:
                continue
            bucket = now[name]
            amount, window_s = bucket["amount"], bucket["window_s"]
            weight = bucket["weight"] - self._before[exchange]["buckets"].get(name, {"weight": 0})["weight"]
            # A window of the clock begins all at once: of those, whole ones were measured.
            windows = round(took_s / window_s) if bucket["kind"] == "fixed" else took_s / window_s
            used = weight / (amount * max(windows, 1))
            found.append(Filled(name, f"{amount} per {window_s:g} s", used, aim(window_s)))
        return found


async def next_minute(exchanges: Sequence[str]) -> None:
    """Waits until one of Binance's minutes begins, where it is among these exchanges."""
    if "binance" in exchanges:
        await asyncio.sleep(60 - time.time() % 60)


def whole(seconds: float, exchanges: Sequence[str]) -> float:
    """The time in whole minutes, where Binance is among these exchanges."""
    return max(60.0, round(seconds / 60) * 60.0) if "binance" in exchanges else seconds
