"""What an exchange lists and shows: the same coins everywhere, each exchange a few basis points off the others."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from .clock import Clock
from .frames import Frame, openings
from .prices import DAY_S, LISTED_S, MINUTE_S, TICK_MS, TICKS_A_SECOND, Tape


class Coin(NamedTuple):
    """A coin: code, name, rough price in USD, rough volume a day in coins, decimals of its price."""

    code: str
    name: str
    price: float
    day_volume: float
    decimals: int


COINS = (
    Coin("BTC", "Bitcoin", 65_000, 20_000, 2),
    Coin("ETH", "Ethereum", 3_400, 250_000, 2),
    Coin("SOL", "Solana", 150, 3_000_000, 2),
    Coin("XRP", "XRP", 0.62, 4e8, 5),
    Coin("ADA", "Cardano", 0.45, 2e8, 5),
    Coin("DOGE", "Dogecoin", 0.14, 1e9, 6),
    Coin("LTC", "Litecoin", 84, 1_500_000, 3),
    Coin("BCH", "Bitcoin Cash", 420, 200_000, 2),
    Coin("LINK", "Chainlink", 15, 6_000_000, 4),
    Coin("DOT", "Polkadot", 7, 9_000_000, 4),
    Coin("AVAX", "Avalanche", 32, 4_000_000, 3),
    Coin("UNI", "Uniswap", 9, 5_000_000, 4),
    Coin("AAVE", "Aave", 110, 400_000, 2),
    Coin("ATOM", "Cosmos", 8, 5_000_000, 4),
    Coin("XLM", "Stellar Lumens", 0.11, 3e8, 6),
    Coin("ALGO", "Algorand", 0.17, 2e8, 6),
    Coin("FIL", "Filecoin", 5.5, 1e7, 4),
    Coin("ETC", "Ethereum Classic", 26, 2_000_000, 3),
    Coin("NEAR", "NEAR Protocol", 5.4, 2e7, 4),
    Coin("ICP", "Internet Computer", 10, 3_000_000, 4),
    Coin("APT", "Aptos", 8.5, 4_000_000, 4),
    Coin("ARB", "Arbitrum", 1.05, 7e7, 5),
    Coin("OP", "Optimism", 2.1, 3e7, 5),
    Coin("SUI", "Sui", 1.2, 8e7, 5),
)

# How far each exchange, and each currency of account, stands from the tape, in parts of one.
_EXCHANGE_SHIFT = {
    "binance": 0.0, "okx": 1.0e-4, "htx": -1.5e-4, "coinbase": 2.0e-4, "kraken": -1.0e-4, "coinbaseexchange": 1.5e-4,
}  # fmt: skip
_QUOTE_SHIFT = {"USDT": 0.0, "USD": 0.5e-4, "USDC": 0.5e-4}
_EXCHANGE_SHARE = {
    "binance": 1.0, "okx": 0.5, "htx": 0.3, "coinbase": 0.4, "kraken": 0.15, "coinbaseexchange": 0.4,
}  # fmt: skip
_HALF_SPREAD = 0.5e-4
FIRST_TICK = LISTED_S * TICKS_A_SECOND


class Listing:
    """One pair on one exchange. Prices leave here as whole price steps of 10 ** -decimals.

    Rounding to steps keeps order, so all that holds for the tape (a trade in its candle, an hour the sum of its
    minutes) holds for what the exchange shows.
    """

    def __init__(self, exchange: str, pair_id: str, coin: Coin, quote: str, tape: Tape, decimals: int) -> None:
        self.id = pair_id
        self.coin = coin
        self.quote = quote
        self.tape = tape
        self.decimals = decimals
        self.lot_decimals = 6
        self._steps = (1 + _EXCHANGE_SHIFT[exchange] + _QUOTE_SHIFT[quote]) * 10.0**decimals
        self._unit = 10.0**-decimals
        self._share = _EXCHANGE_SHARE[exchange] * (1.0 if quote == "USDT" else 0.8)

    def steps(self, price: float) -> int:
        """A price of the tape in this exchange's whole steps."""
        return round(price * self._steps)

    def volume(self, volume: float) -> float:
        """A volume of the tape as this exchange's own."""
        return volume * self._share

    def text(self, steps: int) -> str:
        """A price as decimal text with this pair's decimals."""
        return f"{steps * self._unit:.{self.decimals}f}"

    def number(self, steps: int) -> float:
        """A price as the nearest float."""
        return round(steps * self._unit, self.decimals)


class Candle(NamedTuple):
    """A candle: opening second, prices in steps, volume in coins and in the currency of account, whether closed."""

    start_s: int
    open: int
    high: int
    low: int
    close: int
    volume: float
    turnover: float
    closed: bool


class Trade(NamedTuple):
    """A trade: its number, time, price in steps, amount in coins and whether the taker bought."""

    number: int
    at_ms: int
    price: int
    amount: float
    buy: bool


class Quote(NamedTuple):
    """What a ticker shows; prices in steps, the past 24 hours rounded out to whole minutes."""

    at_ms: int
    opened_ms: int
    last: int
    amount: float
    bid: int
    bid_size: float
    ask: int
    ask_size: float
    day: Candle
    day_average: float
    number: int


class Level(NamedTuple):
    """A price level of a book: steps, amount."""

    price: int
    amount: float


def _candle(listing: Listing, start_s: int, end_s: int, tick: int) -> Candle:
    bar = listing.tape.span(start_s, end_s, tick)
    opening, high, low, close = (listing.steps(price) for price in bar[:4])
    volume = listing.volume(bar.volume)
    turnover = volume * (opening + high + low + close) / 4 * 10.0**-listing.decimals
    return Candle(start_s, opening, high, low, close, volume, turnover, tick // TICKS_A_SECOND >= end_s)


class Board:
    """All an exchange shows, as of the newest tick.

    Args:
        exchange: its id.
        clock: the simulator's clock.
        listings: its pairs by their ids.
    """

    def __init__(self, exchange: str, clock: Clock, listings: list[Listing]) -> None:
        self.exchange = exchange
        self.clock = clock
        self._all = listings
        self.listings = {listing.id: listing for listing in listings}

    def unlist(self, coins: Collection[str]) -> None:
        """List all pairs but those of these coins."""
        self.listings = {listing.id: listing for listing in self._all if listing.coin.code not in coins}

    def tick(self) -> int:
        """The number of the newest tick since the epoch."""
        return self.clock.now_ms() // TICK_MS

    def candles(
        self, listing: Listing, frame: Frame, start_s: float | None, end_s: float | None, limit: int
    ) -> list[Candle]:
        """Candles that open within [start_s, end_s], oldest first, at most `limit`; the last may still grow."""
        tick = self.tick()
        now_s = tick // TICKS_A_SECOND
        end = now_s if end_s is None else min(end_s, now_s)
        return [_candle(listing, at_s, frame.following(at_s), tick) for at_s in openings(frame, start_s, end, limit)]

    def trades(self, listing: Listing, start_ms: int | None, end_ms: int | None, limit: int) -> list[Trade]:
        """Trades within [start_ms, end_ms], oldest first: the oldest `limit`, or without a start the newest."""
        last = self.tick()
        if end_ms is not None:
            last = min(last, end_ms // TICK_MS)
        if start_ms is None:
            first = max(FIRST_TICK, last - limit + 1)
        else:
            first = max(FIRST_TICK, -(-start_ms // TICK_MS))
            last = min(last, first + limit - 1)
        return [_trade(listing, number) for number in range(first, last + 1)]

    def quote(self, listing: Listing) -> Quote:
        """The ticker."""
        tick = self.tick()
        start_s = (tick // TICKS_A_SECOND - DAY_S) // MINUTE_S * MINUTE_S
        last = _trade(listing, tick)
        half = max(1, round(last.price * _HALF_SPREAD))
        day = _candle(listing, start_s, start_s + 2 * DAY_S, tick)
        average = sum(day[1:5]) / 4
        bid, ask = _size(listing, tick, 0), _size(listing, tick, 1)
        at_ms = tick * TICK_MS
        return Quote(
            at_ms, start_s * 1000, last.price, last.amount, last.price - half, bid, last.price + half, ask,
            day, average, last.number,
        )  # fmt: skip

    def book(self, listing: Listing, depth: int) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best first, at most `depth` of each; they bracket the ticker's last."""
        tick = self.tick()
        last = _trade(listing, tick).price
        half = max(1, round(last * _HALF_SPREAD))
        gap = max(1, half // 4)
        depth = min(depth, (last - half) // gap)
        bids = [Level(last - half - i * gap, _size(listing, tick, 2 * i)) for i in range(depth)]
        asks = [Level(last + half + i * gap, _size(listing, tick, 2 * i + 1)) for i in range(depth)]
        return bids, asks


def _trade(listing: Listing, tick: int) -> Trade:
    price, volume = listing.tape.tick(tick)
    buy = bool(tick * 2_654_435_761 >> 9 & 1)
    return Trade(tick - FIRST_TICK, tick * TICK_MS, listing.steps(price), listing.volume(volume), buy)


def _size(listing: Listing, tick: int, place: int) -> float:
    mixed = (tick * 40_503 + (place + 1) * 2_654_435_761) >> 5 & 0xFFFF
    return listing.volume(listing.coin.day_volume) / DAY_S * (0.2 + mixed / 0x8000)


def make_tapes(seed: int) -> dict[str, Tape]:
    """One tape a coin, for all exchanges to share."""
    return {coin.code: Tape(seed, coin.code, coin.price, coin.day_volume) for coin in COINS}
