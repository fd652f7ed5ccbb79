"""Prices as a pure function of (seed, coin, time), exact at every time scale.

They are built from the top: a day's bar is drawn first, then split into 24 hours, an hour into 60 minutes, a minute
into 60 seconds, a second into four ticks. A split keeps its parent's open, high, low, close and volume, so an hour is
exactly the sum of its minutes, every trade lies inside its candle, and any moment of any year costs a few splits
rather than a walk from the beginning.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from random import Random
from typing import NamedTuple

TICK_MS = 250
TICKS_A_SECOND = 1000 // TICK_MS
LISTED_S = 1_483_228_800
"""All coins are listed since 2017-01-01 00:00 UTC, in seconds: there is nothing before."""

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400

# How a second's volume falls on its four ticks.
_SHARES = (0.4, 0.1, 0.2, 0.3)
# Slow waves of the logarithm of a price: (amplitude, period in days). Together they stay within about +-40 %.
_WAVES = ((0.01, 3.7), (0.02, 11.0), (0.04, 29.0), (0.08, 97.0), (0.15, 367.0))


class Bar(NamedTuple):
    """Prices and volume of one span of time."""

    open: float
    high: float
    low: float
    close: float
    volume: float


class Tick(NamedTuple):
    """One trade: a quarter of a second, its price and volume in the coin."""

    price: float
    volume: float


def _random(*key: object) -> Random:
    text = "/".join(map(str, key)).encode()
    return Random(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big"))


def split(bar: Bar, parts: int, random: Random) -> tuple[Bar, ...]:
    """Cut `bar` into `parts` successive bars that together are exactly that bar again.

    A bridge from open to close, kept inside [low, high]; the part that comes nearest to each extreme gets it.
    """
    height = bar.high - bar.low
    # A bridge of n steps spans about 1.3 step deviations times the root of n; a uniform step deviates by 1/sqrt(12).
    step = height / (1.3 * math.sqrt(parts)) * math.sqrt(12)
    wick = 0.3 * height / math.sqrt(parts)
    draw = random.random
    walk = [0.0]
    for _ in range(parts):
        walk.append(walk[-1] + (draw() - 0.5) * step)
    drift = (bar.close - bar.open - walk[-1]) / parts
    points = [min(bar.high, max(bar.low, bar.open + walk[i] + drift * i)) for i in range(parts)]
    points.append(bar.close)
    highs = [min(bar.high, max(points[i], points[i + 1]) + draw() * wick) for i in range(parts)]
    lows = [max(bar.low, min(points[i], points[i + 1]) - draw() * wick) for i in range(parts)]
    highs[max(range(parts), key=highs.__getitem__)] = bar.high
    lows[min(range(parts), key=lows.__getitem__)] = bar.low
    weights = [0.5 + draw() for _ in range(parts)]
    unit = bar.volume / sum(weights)
    return tuple(Bar(points[i], highs[i], lows[i], points[i + 1], weights[i] * unit) for i in range(parts))


def merge(bars: list[Bar]) -> Bar:
    """Join successive bars, at least one, into the bar of the whole span."""
    return Bar(
        bars[0].open,
        max([bar.high for bar in bars]),
        min([bar.low for bar in bars]),
        bars[-1].close,
        sum([bar.volume for bar in bars]),
    )


class Tape:
    """The prices of one coin in US dollars.

    Args:
        seed: the run's seed.
        coin: its code, `BTC`.
        price: about what it costs.
        day_volume: about how much of it is traded in a day.
    """

    def __init__(self, seed: int, coin: str, price: float, day_volume: float) -> None:
        self._key = (seed, coin)
        self._price = price
        self._day_volume = day_volume
        phases = _random(*self._key, "phases")
        self._waves = [(amplitude, 2 * math.pi / days, 7 * phases.random()) for amplitude, days in _WAVES]
        # Per coin, sized so that the newest thousand candles of any frame and thousand trades stay at hand.
        self.day = lru_cache(1024)(self._day)
        self.hours = lru_cache(64)(self._hours)
        self.minutes = lru_cache(48)(self._minutes)
        self.seconds = lru_cache(24)(self._seconds)
        self.until = lru_cache(256)(self._until)

    def _opening(self, day: int) -> float:
        wave = sum(amplitude * math.sin(day * speed + phase) for amplitude, speed, phase in self._waves)
        return self._price * math.exp(wave + 0.02 * (_random(*self._key, "open", day).random() - 0.5))

    def _day(self, day: int) -> Bar:
        opening, close = self._opening(day), self._opening(day + 1)
        random = _random(*self._key, "day", day)
        high = max(opening, close) * (1 + 0.002 + 0.012 * random.random())
        low = min(opening, close) * (1 - 0.002 - 0.012 * random.random())
        return Bar(opening, high, low, close, self._day_volume * (0.6 + 0.8 * random.random()))

    def _hours(self, day: int) -> tuple[Bar, ...]:
        return split(self.day(day), 24, _random(*self._key, "hours", day))

    def _minutes(self, hour: int) -> tuple[Bar, ...]:
        return split(self.hours(hour // 24)[hour % 24], 60, _random(*self._key, "minutes", hour))

    def _seconds(self, minute: int) -> tuple[Bar, ...]:
        return split(self.minutes(minute // 60)[minute % 60], 60, _random(*self._key, "seconds", minute))

    def ticks(self, second: int) -> tuple[Tick, ...]:
        """The four trades of a second since the epoch: open, one extreme, the other, close."""
        bar = self.seconds(second // 60)[second % 60]
        first, then = (bar.high, bar.low) if second & 1 else (bar.low, bar.high)
        prices = (bar.open, first, then, bar.close)
        return tuple(Tick(price, bar.volume * share) for price, share in zip(prices, _SHARES, strict=True))

    def tick(self, number: int) -> Tick:
        """The trade of a quarter second, counted since the epoch."""
        return self.ticks(number // TICKS_A_SECOND)[number % TICKS_A_SECOND]

    def parts(self, start_s: int, end_s: int) -> list[Bar]:
        """The fewest bars that cover [start_s, end_s), whole seconds since the epoch."""
        bars: list[Bar] = []
        at_s = start_s
        while at_s < end_s:
            if at_s % DAY_S == 0 and at_s + DAY_S <= end_s:
                bars.append(self.day(at_s // DAY_S))
                at_s += DAY_S
            elif at_s % HOUR_S == 0 and at_s + HOUR_S <= end_s:
                bars.append(self.hours(at_s // DAY_S)[at_s % DAY_S // HOUR_S])
                at_s += HOUR_S
            elif at_s % MINUTE_S == 0 and at_s + MINUTE_S <= end_s:
                bars.append(self.minutes(at_s // HOUR_S)[at_s % HOUR_S // MINUTE_S])
                at_s += MINUTE_S
            else:
                bars.append(self.seconds(at_s // MINUTE_S)[at_s % MINUTE_S])
                at_s += 1
        return bars

    def _until(self, start_s: int, number: int) -> Bar:
        """The bar from `start_s` up to and with tick `number`: a candle that is still growing."""
        second, within = divmod(number, TICKS_A_SECOND)
        bars = self.parts(start_s, second)
        ticks = self.ticks(second)[: within + 1]
        prices = [tick.price for tick in ticks]
        bars.append(Bar(prices[0], max(prices), min(prices), prices[-1], sum(tick.volume for tick in ticks)))
        return merge(bars)

    def span(self, start_s: int, end_s: int, number: int) -> Bar:
        """The bar of [start_s, end_s), as far as it has happened by tick `number`."""
        if number // TICKS_A_SECOND >= end_s:
            return merge(self.parts(start_s, end_s))
        return self.until(start_s, number)
