"""Answers of very many small rows: each ends as too large, before ccxt's class has made anything of one row."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from schemas.messages import ErrorCode
from tests.support.exchange_lanes import Answers, Lanes, call
from workers.exchange.errors import judge
from workers.exchange.lane_exchange import LaneExchange
from workers.exchange.reading import LONG
from workers.exchange.rows import TooLarge, most

SYMBOL: Final = {"symbol": "BTC/USDT"}
READS: Final[dict[str, dict[str, Any]]] = {
    "fetch_trades": SYMBOL,
    "fetch_ohlcv": SYMBOL,
    "fetch_order_book": SYMBOL,
    "fetch_tickers": {},
    "fetch_ticker": SYMBOL,
    "fetch_bids_asks": {},
    "fetch_markets": {},
    "fetch_time": {},
    "load_markets": {},
}
# Bodies with just so many rows.
SHAPES: Final[dict[str, Callable[[int], str]]] = {
    "empty objects": lambda count: f"[{','.join(['{}'] * count)}]",
    "empty lists": lambda count: f"[{','.join(['[]'] * count)}]",
    "numbers": lambda count: f"[{','.join(['1'] * count)}]",
    "texts": lambda count: json.dumps([""] * count),
    "nulls with spaces": lambda count: f"[ {' , '.join(['null'] * count)} ]",
    "keys": lambda count: json.dumps({str(number): 0 for number in range(count)}),
    "lists under keys": lambda count: json.dumps({str(number): [] for number in range(count)}),
    "within an answer": lambda count: f'{{"code": "0", "data": [{",".join(["{}"] * count)}]}}',
    "bids": lambda count: f'{{"bids": [{",".join(["[1,1]"] * count)}], "asks": []}}',
    "long rows": lambda count: json.dumps([{"symbol": "BTCUSDT", "price": "1" * 40}] * count),
}
NESTED: Final[dict[str, Callable[[int], str]]] = {
    "lists of lists": lambda count: json.dumps([[[]] * 999] * (count // 1000) + [[[]] * 999]),
    "lists of pairs": lambda count: json.dumps([[[1, 2]] * 999] * (count // 1000) + [[[1, 2]] * 999]),
    "lists under keys": lambda count: json.dumps({str(number): [{}] * 999 for number in range(count // 1000 + 1)}),
    "chains": lambda count: f"[{','.join(['[' * 100 + ']' * 100] * (count // 100 + 1))}]",
}


def bodies(method: str) -> Iterator[tuple[str, str]]:
    rows = most(method)
    for name, shape in SHAPES.items():
        yield name, shape(rows.each + 1)
    for name, shape in NESTED.items():
        yield name, shape(rows.nested)


async def read(lane: LaneExchange, method: str) -> Any:
    return await (lane.open() if method == "load_markets" else lane.call(method, READS[method], call("binance")))


@pytest.mark.parametrize("method", READS)
async def test_too_many_rows_of_any_shape_are_refused_before_ccxt_walks_over_them(
    server: Answers, lanes: Lanes, method: str
) -> None:
    lane, _ = lanes.lane("binance", {**server.settings("binance"), "markets": None})
    if method != "load_markets":
        lane, _ = lanes.lane("binance", server.settings("binance"))
    seen_long = seen_short = 0
    for name, body in bodies(method):
        seen_long, seen_short = seen_long + (len(body) >= LONG), seen_short + (len(body) < LONG)
        server.answer = (200, {}, body)
        with pytest.raises(TooLarge, match="ask for less at once") as caught:
            await read(lane, method)
        verdict = judge(caught.value, call("binance"))
        assert verdict.code == ErrorCode.TOO_LARGE, name
        assert not verdict.of_connection
    assert seen_long
    assert seen_short


@pytest.mark.parametrize("method", ["fetch_trades", "fetch_ohlcv", "fetch_order_book", "fetch_tickers"])
async def test_the_most_rows_that_are_allowed_are_data(server: Answers, lanes: Lanes, method: str) -> None:
    count = most(method).each
    trade = {"a": 1, "p": "1.5", "q": "2", "T": 1_700_000_000_000, "m": True}
    sides = {"bids": [["1", "2"]] * count, "asks": [["3", "4"]] * count}
    answers: dict[str, tuple[Any, int]] = {
        "fetch_trades": ([{**trade, "a": number} for number in range(count)], count),
        "fetch_ohlcv": ([[60_000 * number, "1", "2", "1", "2", "9"] for number in range(count)], 500),  # ccxt's limit
        "fetch_order_book": (sides, count),
        "fetch_tickers": ([{"symbol": f"S{number}", "lastPrice": "1"} for number in range(count)], count),
    }
    answer, wanted = answers[method]
    server.answer = (200, {}, json.dumps(answer))
    lane, _ = lanes.lane("binance", server.settings("binance"))
    data = await read(lane, method)
    assert len(data["bids"] if method == "fetch_order_book" else data) == wanted
