"""When bars close, and how long candles are good for."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import bars
from schemas.bars import FOREVER_MS, SETTLES_MS, closes_ms, good_until_ms

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def ms(*of: int) -> int:
    return int(datetime(*of, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("timeframe", "at", "last", "following"),
    [
        ("1m", (2026, 3, 1, 12, 34, 56), (2026, 3, 1, 12, 34), (2026, 3, 1, 12, 35)),
        ("15m", (2026, 3, 1, 12, 30), (2026, 3, 1, 12, 30), (2026, 3, 1, 12, 45)),
        ("4h", (2026, 3, 1, 11, 59, 59), (2026, 3, 1, 8), (2026, 3, 1, 12)),
        ("1d", (2026, 2, 28, 23), (2026, 2, 28), (2026, 3, 1)),
        ("1w", (2026, 3, 1, 12), (2026, 2, 23), (2026, 3, 2)),  # from Monday to Monday
        ("1M", (2024, 2, 29, 12), (2024, 2, 1), (2024, 3, 1)),
        ("3M", (2026, 12, 31), (2026, 10, 1), (2027, 1, 1)),
        ("1y", (2026, 5, 5), (2026, 1, 1), (2027, 1, 1)),
    ],
)
def test_bars_of_which_nothing_is_known_close_by_the_calendar(
    timeframe: str, at: tuple[int, ...], last: tuple[int, ...], following: tuple[int, ...]
) -> None:
    assert closes_ms(timeframe, ms(*at)) == (ms(*last), ms(*following))


@pytest.mark.parametrize(
    ("timeframe", "at", "opened", "last", "following"),
    [
        ("1d", (2026, 3, 1, 12), (2026, 2, 1, 16), (2026, 2, 28, 16), (2026, 3, 1, 16)),  # HTX: days of Singapore
        ("1w", (2026, 3, 1, 12), (2026, 2, 5), (2026, 2, 26), (2026, 3, 5)),  # Kraken: from Thursday
        ("3d", (2026, 3, 1, 12), (2026, 2, 4), (2026, 2, 28), (2026, 3, 3)),
        ("1M", (2026, 3, 15), (2025, 12, 31, 16), (2026, 2, 28, 16), (2026, 3, 31, 16)),
        ("1M", (2026, 3, 31, 20), (2026, 2, 28, 16), (2026, 3, 31, 16), (2026, 4, 30, 16)),
        ("1M", (2026, 3, 1, 2), (2026, 1, 1, 5), (2026, 2, 1, 5), (2026, 3, 1, 5)),  # hours behind UTC
    ],
)
def test_a_bar_that_is_known_says_when_the_others_close(
    timeframe: str, at: tuple[int, ...], opened: tuple[int, ...], last: tuple[int, ...], following: tuple[int, ...]
) -> None:
    assert closes_ms(timeframe, ms(*at), ms(*opened)) == (ms(*last), ms(*following))


FRAMES = st.sampled_from(["1s", "1m", "3m", "5m", "15m", "1h", "4h", "1d", "3d", "1w", "1M", "3M", "1y"])
TIMES = st.integers(ms(2010, 1, 1), ms(2090, 1, 1))


@given(FRAMES, TIMES, st.none() | TIMES)
def test_closes_lie_around_the_time_and_on_one_grid(timeframe: str, at_ms: int, opened_ms: int | None) -> None:
    last_ms, next_ms = closes_ms(timeframe, at_ms, opened_ms)
    assert last_ms <= at_ms < next_ms
    assert closes_ms(timeframe, last_ms, opened_ms) == (last_ms, next_ms)
    assert closes_ms(timeframe, next_ms - 1, opened_ms) == (last_ms, next_ms)
    assert closes_ms(timeframe, next_ms, opened_ms)[0] == next_ms
    assert closes_ms(timeframe, at_ms, last_ms) == (last_ms, next_ms)


def rows(*opens: int) -> list[list[float]]:
    return [[opened_ms, 1.0, 1.0, 1.0, 1.0, 1.0] for opened_ms in opens]


AT_MS = ms(2026, 3, 1, 12, 30)
HOUR: dict[str, Any] = {"symbol": "BTC/USDT", "timeframe": "1h"}
HOURS = [ms(2026, 3, 1, hour) for hour in range(13)]


def test_candles_are_good_until_the_bar_closes() -> None:
    assert good_until_ms(HOUR, rows(*HOURS), AT_MS) == ms(2026, 3, 1, 13)
    assert good_until_ms(HOUR, rows(*HOURS[:-1]), AT_MS) == ms(2026, 3, 1, 13)  # only finished ones
    assert good_until_ms(HOUR, [], AT_MS) == ms(2026, 3, 1, 13)


@pytest.mark.parametrize("late_ms", [0, 1, SETTLES_MS - 1])
def test_what_is_asked_for_right_after_a_close_may_lack_the_bar(late_ms: int) -> None:
    assert good_until_ms(HOUR, rows(*HOURS), HOURS[-1] + late_ms) == HOURS[-1] + SETTLES_MS
    assert good_until_ms(HOUR, rows(*HOURS), HOURS[-1] + SETTLES_MS) == ms(2026, 3, 1, 13)


def test_a_short_bar_settles_sooner() -> None:
    second = {"timeframe": "1s"}
    assert good_until_ms(second, [], AT_MS + 100) == AT_MS + 250
    assert good_until_ms(second, [], AT_MS + 250) == AT_MS + 1_000


def test_rows_that_disagree_are_good_until_the_first_close() -> None:
    assert good_until_ms(HOUR, rows(HOURS[0], HOURS[-1] + 20 * MINUTE_MS), AT_MS) == ms(
        2026, 3, 1, 12, 20
    ) + HOUR_MS - (20 * MINUTE_MS)


SINCE: dict[str, Any] = {**HOUR, "since": HOURS[2], "limit": 3}


@pytest.mark.parametrize(
    ("args", "opens", "forever"),
    [
        (SINCE, HOURS[2:5], True),
        ({**SINCE, "since": HOURS[2] - 5}, HOURS[2:5], True),
        (SINCE, HOURS[2:4], False),  # more bars may come behind those
        (SINCE, HOURS[3:6], False),  # the first ones are missing: the exchange may count from the end
        ({**SINCE, "since": HOURS[10]}, HOURS[10:13], False),  # the last one is not finished
        ({**SINCE, "since": HOURS[9]}, HOURS[9:12], True),
        ({**HOUR, "limit": 3}, HOURS[2:5], False),
        ({**HOUR, "since": HOURS[2]}, HOURS[2:5], False),
        ({**HOUR, "since": HOURS[2], "params": {"until": HOURS[4]}}, HOURS[2:5], True),
        ({**HOUR, "since": HOURS[2], "params": {"until": HOURS[4]}}, HOURS[2:4], True),
        ({**HOUR, "since": HOURS[2], "params": {"until": HOURS[12]}}, HOURS[2:12], False),
        ({**HOUR, "since": HOURS[2], "params": {"until": HOURS[4]}}, [], False),
        ({**HOUR, "since": HOURS[2], "limit": 3, "params": {}}, HOURS[2:5], True),
    ],
)
def test_a_range_in_the_past_never_changes(args: dict[str, Any], opens: list[int], forever: bool) -> None:
    assert (good_until_ms(args, rows(*opens), AT_MS) == FOREVER_MS) is forever


def test_a_bar_that_has_just_closed_may_change_yet() -> None:
    late = {**SINCE, "since": HOURS[10]}
    closed_ms = HOURS[12] + HOUR_MS
    assert good_until_ms(late, rows(*HOURS[10:13]), closed_ms + SETTLES_MS - 1) == closed_ms + SETTLES_MS
    assert good_until_ms(late, rows(*HOURS[10:13]), closed_ms + SETTLES_MS) == FOREVER_MS


@pytest.mark.parametrize("odd", [None, {}, "text", [None], [[]], [[5]], [["a", 1]], [[True, 1]], [[2**70]], [[1.5]]])
def test_what_is_no_candles_says_nothing_of_bars(odd: object) -> None:
    assert good_until_ms(HOUR, odd, AT_MS) == ms(2026, 3, 1, 13)


@given(FRAMES, TIMES, st.lists(TIMES, max_size=3), st.integers(0, 10**9))
def test_no_answer_is_good_beyond_a_close_that_it_does_not_hold(
    timeframe: str, at_ms: int, opens: list[int], since_ms: int
) -> None:
    until_ms = good_until_ms({"timeframe": timeframe, "since": at_ms - since_ms, "limit": 2}, rows(*opens), at_ms)
    if until_ms == FOREVER_MS:
        assert opens
        assert closes_ms(timeframe, opens[-1], opens[-1])[1] <= at_ms
        return
    assert until_ms > at_ms
    known: list[int | None] = [*opens[:1], *opens[-1:]]
    for opened_ms in known or [None]:
        last_ms, next_ms = closes_ms(timeframe, at_ms, opened_ms)
        assert until_ms <= next_ms
        assert until_ms <= last_ms + SETTLES_MS or at_ms >= last_ms + min(SETTLES_MS, (next_ms - last_ms) // 4)


def test_words_are_refused_where_they_say_nothing() -> None:
    assert bars.refusal("fetch_ohlcv", {"timeframe": "1h"}) is None
    for method, args in (
        ("fetch_ticker", {"timeframe": "1h"}),
        ("fetch_ohlcv", {}),
        ("fetch_ohlcv", {"timeframe": "1"}),
    ):
        assert bars.refusal(method, args)
    with pytest.raises(ValueError, match="no timeframe"):
        closes_ms("h1", AT_MS)
