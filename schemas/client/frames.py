"""Candles, trades and tickers as a table of pandas or polars, whichever the program has installed."""

import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from .results import All, Result

Library: TypeAlias = Literal["pandas", "polars"]

CANDLE: Final = ("timestamp", "open", "high", "low", "close", "volume")
# What has tables inside, or says the timestamp again.
_LEFT_OUT: Final = frozenset({"info", "datetime", "fee", "fees"})
_LIBRARIES: Final[tuple[Library, ...]] = ("pandas", "polars")


def to_frame(data: Any, library: Library | None = None) -> Any:
    """A table of what a read answered: a row for each candle, trade or ticker, with the time in UTC.

    Args:
        data: candles, trades, a ticker, tickers, or those of each exchange (``mode="all"``), which get a column
            ``exchange``. A trade's fee becomes ``fee_cost`` and ``fee_currency``; ``info`` is left out.
        library: ``pandas`` or ``polars``; without it the one that is installed, pandas first.

    Raises:
        ImportError: it is not installed.
        TypeError: the data is none of these.
        ValueError: another library.
    """
    if library is not None and library not in _LIBRARIES:
        raise ValueError(f"library: expected {' or '.join(_LIBRARIES)}, not {library!r}")
    columns = columns_of(data)
    name = library or next((each for each in _LIBRARIES if importlib.util.find_spec(each)), None)
    if name is None:
        raise ImportError("to_frame needs pandas or polars: install one of them")
    frames: Any = importlib.import_module(name)
    frame = frames.DataFrame(columns)
    if "timestamp" not in columns:
        return frame
    if name == "pandas":
        frame["timestamp"] = frames.to_datetime(frame["timestamp"], unit="ms", utc=True)
        return frame
    at = frames.from_epoch(frames.col("timestamp").cast(frames.Int64), time_unit="ms")
    return frame.with_columns(at.dt.replace_time_zone("UTC").alias("timestamp"))


def columns_of(data: Any) -> dict[str, list[Any]]:
    """The columns of such a table, all of one length; what a row lacks is None. *Pure*."""
    if isinstance(data, All):
        of_each: All[Any] = data  # pyright: ignore[reportUnknownVariableType]
        rows = [{"exchange": name, **row} for name, answer in of_each.items() for row in _rows(answer)]
    else:
        rows = list(_rows(data))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _rows(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, Result):
        raise TypeError("expected candles, trades or tickers, not a whole result: its data is `result.get()`")
    if isinstance(data, Mapping):
        table: Mapping[str, Any] = data  # pyright: ignore[reportUnknownVariableType]
        if not table or all(isinstance(each, Mapping) for each in table.values()):
            yield from map(_row, table.values())
        else:
            yield _row(table)
    elif isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        items: Sequence[Any] = data  # pyright: ignore[reportUnknownVariableType]
        for item in items:
            if isinstance(item, Mapping):
                yield _row(item)  # pyright: ignore[reportUnknownArgumentType]
            elif isinstance(item, (list, tuple)) and len(item) == len(CANDLE):  # pyright: ignore[reportUnknownArgumentType]
                yield dict(zip(CANDLE, item, strict=True))  # pyright: ignore[reportUnknownArgumentType]
            else:
                raise TypeError(f"expected candles, trades or tickers, not a list with {item!r:.60}")
    else:
        raise TypeError(f"expected candles, trades or tickers, not {data!r:.60}")


def _row(item: Any) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise TypeError(f"expected a trade or a ticker, not {item!r:.60}")
    table: Mapping[str, Any] = item  # pyright: ignore[reportUnknownVariableType]
    row = {name: value for name, value in table.items() if name not in _LEFT_OUT}
    fee = table.get("fee")
    if isinstance(fee, Mapping):
        said: Mapping[str, Any] = fee  # pyright: ignore[reportUnknownVariableType]
        row |= {"fee_cost": said.get("cost"), "fee_currency": said.get("currency")}
    return row
