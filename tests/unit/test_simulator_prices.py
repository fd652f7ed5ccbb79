"""The simulator's prices: one pure function, consistent at every scale."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.simulator.board import COINS, Board, Listing, make_tapes
from deploy.simulator.clock import Clock
from deploy.simulator.frames import FRAMES, openings
from deploy.simulator.prices import DAY_S, HOUR_S, LISTED_S, MINUTE_S, TICK_MS, Bar, Tape, merge, split

# Hypothesis fails an example that takes over 200 ms, which a busy machine alone can cause.
untimed = settings(deadline=None)
moments = st.integers(LISTED_S, LISTED_S + 20 * 365 * DAY_S)


def tape(seed: int = 1) -> Tape:
    return Tape(seed, "BTC", 65_000, 20_000)


@untimed
@given(
    st.tuples(*[st.floats(1, 1000)] * 4),
    st.floats(0, 1e9),
    st.sampled_from([2, 24, 60]),
    st.integers(0, 1000),
)
def test_a_split_keeps_its_parent(prices: tuple[float, ...], volume: float, parts: int, seed: int) -> None:
    low, opening, close, high = sorted(prices)
    parent = Bar(opening, high, low, close, volume)
    children = split(parent, parts, Random(seed))
    assert len(children) == parts
    assert merge(list(children))[:4] == parent[:4]
    assert math.isclose(sum(child.volume for child in children), volume, abs_tol=1e-9, rel_tol=1e-9)
    assert all(left.close == right.open for left, right in pairwise(children))
    for child in children:
        assert low <= child.low <= min(child.open, child.close)
        assert max(child.open, child.close) <= child.high <= high


@untimed
@given(moments)
def test_hours_minutes_and_seconds_add_up(at_s: int) -> None:
    prices = tape()
    day, hour, minute = at_s // DAY_S, at_s // HOUR_S, at_s // MINUTE_S
    assert merge(list(prices.hours(day)))[:4] == prices.day(day)[:4]
    assert merge(list(prices.minutes(hour)))[:4] == prices.hours(hour // 24)[hour % 24][:4]
    assert merge(list(prices.seconds(minute)))[:4] == prices.minutes(minute // 60)[minute % 60][:4]
    second = prices.seconds(minute)[at_s % 60]
    ticks = [tick.price for tick in prices.ticks(at_s)]
    assert (ticks[0], max(ticks), min(ticks), ticks[-1]) == second[:4]


@untimed
@given(moments, st.integers(0, 3 * DAY_S), st.integers(0, 3))
def test_a_growing_candle_is_what_has_happened_and_no_more(start_s: int, length_s: int, quarter: int) -> None:
    prices = tape()
    tick = (start_s + length_s) * 4 + quarter
    bar = prices.until(start_s, tick)
    assert bar.open == prices.tick(start_s * 4).price
    assert bar.close == prices.tick(tick).price
    assert bar.low <= bar.close <= bar.high


def test_days_join_and_the_same_seed_gives_the_same_prices() -> None:
    one, same, other = tape(), tape(), tape(2)
    for day in range(19_000, 19_400):
        assert one.day(day) == same.day(day) != other.day(day)
        assert one.day(day).close == one.day(day + 1).open
    # Whatever was asked before must not matter.
    late = 1_800_000_000 * 4
    one.seconds(12345)
    assert one.tick(late) == same.tick(late)


@untimed
@given(moments, st.sampled_from(sorted(FRAMES)))
def test_frames_open_before_their_moments_and_follow_each_other(at_s: int, name: str) -> None:
    frame = FRAMES[name]
    start = frame.floor(at_s)
    assert start <= at_s < frame.following(start)
    assert frame.floor(frame.following(start)) == frame.following(start)
    assert frame.floor(start) == start


def test_weeks_open_on_mondays_and_months_on_the_first() -> None:
    at_s = int(datetime(2026, 2, 18, tzinfo=UTC).timestamp())
    assert datetime.fromtimestamp(FRAMES["1w"].floor(at_s), UTC) == datetime(2026, 2, 16, tzinfo=UTC)
    assert datetime.fromtimestamp(FRAMES["1M"].floor(at_s), UTC) == datetime(2026, 2, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(FRAMES["1M"].following(FRAMES["1M"].floor(at_s)), UTC).month == 3


@untimed
@given(moments, st.integers(1, 50), st.sampled_from(["1m", "1h", "1d", "1w", "1M"]))
def test_openings_are_the_newest_or_the_first_from_a_start(end_s: int, limit: int, name: str) -> None:
    frame = FRAMES[name]
    newest = openings(frame, None, end_s, limit)
    assert len(newest) <= limit
    assert not newest or newest[-1] == frame.floor(end_s)
    assert all(frame.following(left) == right for left, right in pairwise(newest))
    if newest:
        assert openings(frame, newest[0], end_s, limit) == newest
        assert openings(frame, newest[0] + 0.5, end_s, limit) == newest[1:]


def test_there_is_nothing_before_the_listing() -> None:
    assert openings(FRAMES["1d"], 0, LISTED_S + DAY_S, 10) == [LISTED_S, LISTED_S + DAY_S]
    assert openings(FRAMES["1h"], None, LISTED_S + 1, 10) == [LISTED_S]
    assert openings(FRAMES["1M"], 1e300, LISTED_S + DAY_S, 10) == []
    assert openings(FRAMES["1M"], None, -1e9, 10) == []


@pytest.mark.parametrize("coin", COINS, ids=lambda coin: coin.code)
def test_a_board_agrees_with_itself(coin: object) -> None:
    clock = Clock()
    clock.freeze(True)
    tapes = make_tapes(7)
    found = next(known for known in COINS if known is coin)
    listing = Listing("okx", "X", found, "USDT", tapes[found.code], found.decimals)
    board = Board("okx", clock, [listing])
    for _ in range(3):
        clock.advance(977.3)
        quote = board.quote(listing)
        candle = board.candles(listing, FRAMES["1m"], None, None, 1)[0]
        bids, asks = board.book(listing, 5000)
        trade = board.trades(listing, None, None, 1)[0]
        assert candle.low <= quote.last <= candle.high
        assert quote.day.low <= quote.last <= quote.day.high
        assert candle.close == quote.last == trade.price
        assert 0 < bids[-1].price < bids[0].price == quote.bid < quote.last < quote.ask == asks[0].price
        assert quote.at_ms == trade.at_ms == board.tick() * TICK_MS
        # Steps are fine enough for a move to be seen, and coarse enough for a float.
        assert 1000 < quote.last < 2**40
