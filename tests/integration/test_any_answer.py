"""Whatever an exchange answers, it is no fault of ours: no verdict is `internal`, and every one has words."""

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

import pytest

from deploy.simulator.accounts import ACCOUNTS
from schemas.config import WorkerConfig
from schemas.messages import Attempt, ErrorCode, Outcome, Request
from schemas.runtime import results
from tests.support.exchange_lanes import Answers, Lanes
from workers.attempts import run

EXCHANGES: Final = ("binance", "okx", "htx", "coinbase", "kraken", "bybit", "kucoin", "gate")
BTC: Final[dict[str, Any]] = {"symbol": "BTC/USDT"}
ASKED: Final[list[tuple[str, dict[str, Any]]]] = [
    *((method, BTC) for method in ("fetch_ticker", "fetch_order_book", "fetch_ohlcv", "fetch_trades")),
    *((method, {}) for method in ("fetch_tickers", "fetch_time", "fetch_status", "fetch_markets", "fetch_currencies")),
]
OF_ACCOUNT: Final[list[tuple[str, dict[str, Any]]]] = [
    ("fetch_balance", {}),
    ("fetch_open_orders", BTC),
    ("fetch_my_trades", BTC),
]
ODD: Final[list[Any]] = [
    *(None, True, 0, -1, 1.5, 10**30, float("inf"), float("nan"), "", "0", "x", "NaN", "BTCUSDT", "NEW-USDT"),
    *("2026-11-28T00:00:00Z", "1795904222000", "\ud800", "<html>", "9" * 5000, [], {}, [[]], [{}], [None], {"": {}}),
]
KEYS: Final = (
    "symbol instId id s pair last lastPrice price close c bid ask bids asks b a ts time timestamp serverTime epoch iso "
    "data result list tick ticker error code msg message label status retCode err-code symbols balances currency "
    "product_id candles trades start BTCUSDT XXBTZUSD BTC-USDT base quote baseAsset volume open_time filters"
).split()
# How each exchange says that all is well, around its data.
WELL: Final[dict[str, Callable[[Any], Any]]] = {
    "okx": lambda data: {"code": "0", "msg": "", "data": data},
    "htx": lambda data: {"status": "ok", "ts": 1795904222000, "data": data, "tick": data, "ch": "x"},
    "kraken": lambda data: {"error": [], "result": data},
    "bybit": lambda data: {"retCode": 0, "result": {"list": data, "timeNano": data, "b": data, "a": data}, "time": 1},
    "kucoin": lambda data: {"code": "200000", "data": data},
}
STATUSES: Final = [200] * 12 + [
    201,
    204,
    302,
    400,
    401,
    403,
    404,
    410,
    418,
    422,
    425,
    429,
    451,
    500,
    502,
    503,
    520,
    599,
]
HEADERS: Final[list[dict[str, str]]] = [
    {},
    {},
    {},
    {},
    {"Content-Type": "text/html"},
    {"Content-Type": "application/json; charset=no-such"},
    {"Content-Type": ";;;"},
    {"Retry-After": "soon"},
    {"Retry-After": "-5"},
    {"Content-Encoding": "gzip"},
    {"Location": "/x"},
]
PAGES: Final = [
    "",
    " ",
    "null",
    "0",
    '"x"',
    "[",
    "{}",
    "[]",
    "\ufeff{}",
    "<html>",
    "[" * 20_000,
    '{"a":' * 5_000,
    "1e999",
]


def value(draw: Random, depth: int) -> Any:
    """Anything that JSON can hold, with the names that exchanges use."""
    kind = draw.random()
    if depth <= 0 or kind < 0.35:
        return draw.choice(ODD)
    if kind < 0.6:
        return [value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(KEYS): value(draw, depth - 1) for _ in range(draw.randrange(1, 8))}


def answer(draw: Random, exchange: str) -> tuple[int, dict[str, str], str]:
    """An answer of the exchange, more or less."""
    status, headers = draw.choice(STATUSES), dict(draw.choice(HEADERS))
    if draw.random() < 0.2:
        return status, headers, draw.choice(PAGES)
    data = value(draw, 5)
    if draw.random() < 0.7 and exchange in WELL:
        data = WELL[exchange](data)
    return status, headers, json.dumps(data)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_no_answer_is_our_fault(server: Answers, lanes: Lanes, exchange: str, seed: int) -> None:
    draw = Random(f"{exchange} {seed}")
    account = next(iter(ACCOUNTS.values()))
    egress = lanes.egress()
    for number in range(40):
        server.answer = answer(draw, exchange)
        keyed = draw.random() < 0.25
        method, args = draw.choice(OF_ACCOUNT if keyed else ASKED)
        # Each has a budget of its own: an answer before it may have asked for a pause.
        lane, _ = lanes.lane(
            exchange,
            server.settings(exchange),
            scope=str(number),
            egress=egress,
            account=account if keyed else None,
        )
        if method not in lane.methods:
            continue
        now_ms = results.now_ms()
        request = Request(method, args, "x", deadline_ms=now_ms + 60_000, account=account.name if keyed else None)
        ended = await run(lane, Attempt(request, exchange, 1, now_ms), WorkerConfig())
        said = f"{method} {ended.item} {server.answer}"
        assert ended.item.code is not ErrorCode.INTERNAL, said[:1500]
        assert (ended.item.outcome is Outcome.OK) == (ended.item.code is None), said[:1500]
        assert ended.item.outcome is Outcome.OK or ended.item.message, said[:1500]
