"""The tables that `to_frame` makes: their columns here, and the libraries' own tables where they are installed."""

import importlib
import importlib.util
from typing import Any

import pytest

from schemas.client import frames
from schemas.client.results import All, Answer

CANDLES: list[list[Any]] = [[1795334460000, 1.0, 2.0, 0.5, 1.5, 10.0], [1795334520000, 1.5, 2.5, 1.0, 2.0, None]]
TRADE: dict[str, Any] = {
    "id": "1",
    "timestamp": 1795334460000,
    "datetime": "…",
    "price": 2.0,
    "fee": None,
    "fees": [],
    "info": {},
}
PAID = TRADE | {"id": "2", "fee": {"cost": 0.1, "currency": "USDT"}}
TICKER = {"symbol": "BTC/USDT", "timestamp": 1795334460000, "datetime": "…", "last": 2.0, "info": {"a": 1}}


TABLES: list[tuple[Any, int]] = [(CANDLES, 2), ([TRADE, PAID], 2), (TICKER, 1), ([], 0)]
OTHERS: list[Any] = ["text", 5, [[1, 2]], [5], {"asks": [[1, 2]], "bids": 5, "y": 1}]


def test_candles() -> None:
    assert frames.columns_of(CANDLES) == {
        "timestamp": [1795334460000, 1795334520000],
        "open": [1.0, 1.5],
        "high": [2.0, 2.5],
        "low": [0.5, 1.0],
        "close": [1.5, 2.0],
        "volume": [10.0, None],
    }


def test_trades() -> None:
    assert frames.columns_of([TRADE, PAID]) == {
        "id": ["1", "2"],
        "timestamp": [1795334460000] * 2,
        "price": [2.0] * 2,
        "fee_cost": [None, 0.1],
        "fee_currency": [None, "USDT"],
    }


@pytest.mark.parametrize("tickers", [TICKER, {"BTC/USDT": TICKER}, [TICKER]])
def test_tickers(tickers: object) -> None:
    assert frames.columns_of(tickers) == {"symbol": ["BTC/USDT"], "timestamp": [1795334460000], "last": [2.0]}


def test_of_each_exchange() -> None:
    answers = [Answer(f"id{name}", True, exchange=name, data=CANDLES[:1]) for name in ("okx", "kraken")]
    columns = frames.columns_of(All[Any](answers))
    assert columns["exchange"] == ["okx", "kraken"]
    assert columns["open"] == [1.0, 1.0]


@pytest.mark.parametrize("empty", [[], {}])
def test_nothing(empty: object) -> None:
    assert frames.columns_of(empty) == {}


@pytest.mark.parametrize("other", OTHERS)
def test_anything_else_is_an_error_or_one_row(other: Any) -> None:
    if isinstance(other, dict):
        assert len(frames.columns_of(other)["y"]) == 1
        return
    with pytest.raises(TypeError, match="expected candles"):
        frames.columns_of(other)


def none(name: str) -> None:
    """No library is installed."""


def test_neither_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", none)
    with pytest.raises(ImportError, match="pandas or polars"):
        frames.to_frame(CANDLES)


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize(("data", "rows"), TABLES)
def test_a_table_of_the_library_s_own(library: Any, data: object, rows: int) -> None:
    if importlib.util.find_spec(library) is None:
        with pytest.raises(ImportError):
            frames.to_frame(data, library)
        return
    frame = frames.to_frame(data, library)
    assert type(frame).__module__.startswith(library)
    assert len(frame) == rows
    if rows:
        assert str(frame["timestamp"][0]) == "2026-11-22 08:01:00+00:00"
