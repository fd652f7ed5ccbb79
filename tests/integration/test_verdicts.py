"""What real answers come to, through ccxt's real classes and a real HTTP server: who gets the request next, and whether
the lane pauses and a limit is learned. The rows are those that an audit found read wrongly, and their neighbours."""

import asyncio
import time
from typing import Any, Final, NamedTuple

import pytest

from dispatcher import returns
from dispatcher.returns import Move
from schemas.messages import ErrorCode, Try
from tests.support.checked import Refusal, refusals
from tests.support.exchange_lanes import Answers, CountedBudget, Lanes, call
from workers.exchange.call import CALL
from workers.exchange.errors import judge


class Learning(CountedBudget):
    """A budget that says how often a refusal was held against a limit."""

    held_against = 0

    async def limited(self, *args: Any, **named: Any) -> Any:
        self.held_against += 1
        return await super().limited(*args, **named)


class Row(NamedTuple):
    """An answer, and what it comes to. `learns` goes with `pauses` where nothing else is said."""

    exchange: str
    status: int
    body: str
    code: ErrorCode
    move: Move
    pauses: bool = False
    headers: dict[str, str] = {}  # noqa: RUF012
    method: str = "fetch_ticker"
    args: dict[str, Any] = {"symbol": "BTC/USDT"}  # noqa: RUF012


C: Final = ErrorCode
END, ELSEWHERE, ANOTHER, DOUBTED = Move.END, Move.ELSEWHERE, Move.ANOTHER, Move.DOUBTED
GEO: Final = (
    "<HTML><HEAD><TITLE>ERROR: The request could not be satisfied</TITLE></HEAD><BODY><H1>403 ERROR</H1>"
    "The Amazon CloudFront distribution is configured to block access from your country.</BODY></HTML>"
)
WALL: Final = "<html><head><title>Just a moment...</title></head></html>"
KUCOIN: Final = {"gw-ratelimit-limit": "2000", "gw-ratelimit-remaining": "0", "gw-ratelimit-reset": "3000"}
NONE: Final[dict[str, Any]] = {}

ROWS: Final = [
    # Refusals that are not for our calls: another lane, no pause, nothing learned.
    Row("kraken", 403, GEO, C.RESTRICTED, ELSEWHERE),
    Row("okx", 403, "error code: 1009", C.RESTRICTED, ELSEWHERE),
    Row("okx", 200, '{"code":"50013","msg":"Systems are busy","data":[]}', C.EXCHANGE_UNAVAILABLE, ANOTHER),
    Row("kucoin", 429, '{"code":"429000","msg":"Too many requests"}', C.RATE_LIMITED, ANOTHER, True, KUCOIN),
    Row("binance", 503, '{"code":-1008,"msg":"Server is currently overloaded"}', C.EXCHANGE_UNAVAILABLE, ANOTHER),
    Row("binance", 429, '{"code":-1008,"msg":"throttled by system-level"}', C.EXCHANGE_UNAVAILABLE, ANOTHER),
    Row("binance", 400, '{"code":-1008,"msg":"Too many requests queued."}', C.RATE_LIMITED, ANOTHER, True),
    Row("binance", 401, '{"code":-2015,"msg":"Invalid API-key, IP, or permissions"}', C.AUTHENTICATION, ELSEWHERE),
    Row("bybit", 403, WALL, C.EXCHANGE_UNAVAILABLE, ANOTHER),
    Row("htx", 403, WALL, C.EXCHANGE_UNAVAILABLE, ANOTHER),
    # Not the request's fault: it is tried again, or elsewhere.
    Row("binance", 408, '{"code":-1007,"msg":"Timeout waiting for response"}', C.EXCHANGE_TIMEOUT, ANOTHER),
    Row("kraken", 200, '{"error":["EService:Busy"]}', C.EXCHANGE_UNAVAILABLE, ANOTHER),
    Row("bybit", 200, '{"retCode":10016,"retMsg":"System error","result":{}}', C.EXCHANGE_UNAVAILABLE, ANOTHER),
    Row("htx", 200, '{"status":"error","err_code":1004,"err_msg":"System busy"}', C.EXCHANGE_UNAVAILABLE, ANOTHER),
    Row("coinbase", 500, '{"error":"internal_server_error","message":"x"}', C.EXCHANGE_UNAVAILABLE, ANOTHER),
    # Codes that nobody knows: at 4xx this lane refuses, and another may not; at 200 the cause is not known.
    Row("bitget", 400, '{"code":"49999","msg":"x"}', C.INVALID_ARGUMENTS, ELSEWHERE),
    Row("okx", 200, '{"code":"59999","msg":"x","data":[]}', C.EXCHANGE_ERROR, DOUBTED),
    # Symbols.
    Row("htx", 200, '{"status":"error","err_code":1030,"err_msg":"Input error"}', C.INVALID_ARGUMENTS, END),
    Row("kraken", 200, '{"error":["EGeneral:Invalid arguments:count"]}', C.INVALID_ARGUMENTS, END),
    Row("coinbase", 404, '{"error":"NOT_FOUND","message":"no such product"}', C.BAD_SYMBOL, ELSEWHERE),
    # Places.
    Row("bybit", 200, '{"retCode":10024,"retMsg":"Compliance rules triggered","result":{}}', C.RESTRICTED, ELSEWHERE),
    Row("coinbase", 403, '{"error":"PERMISSION_DENIED","message":"x"}', C.AUTHENTICATION, ELSEWHERE),
    # The rest.
    Row("hyperliquid", 422, "Failed to deserialize the JSON body", C.INVALID_ARGUMENTS, END, method="fetch_order_book"),
    Row("kraken", 200, '{"error":["EGeneral:Unknown method"]}', C.NOT_SUPPORTED, ELSEWHERE),
    # No symbol is named, so none is at fault.
    Row(
        "okx", 400, '{"code":"51001","msg":"x","data":[]}', C.NOT_SUPPORTED, ELSEWHERE, False, {}, "fetch_tickers", NONE
    ),
    Row("kucoin", 400, '{"code":"400500","msg":"x"}', C.RESTRICTED, ELSEWHERE, False, {}, "fetch_tickers", NONE),
    Row(
        "gate", 404, '{"label":"NOT_FOUND","message":"x"}', C.NOT_SUPPORTED, ELSEWHERE, False, {}, "fetch_tickers", NONE
    ),
    # Limits of ours stay what they were.
    Row("okx", 429, "Too Many Requests", C.RATE_LIMITED, ANOTHER, True),
    Row("bybit", 200, '{"retCode":10006,"retMsg":"Too many visits!"}', C.RATE_LIMITED, ANOTHER, True),
    Row("gate", 400, '{"label":"TOO_FAST","message":"x"}', C.RATE_LIMITED, ANOTHER, True),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.exchange}-{row.status}-{row.body[:40]}" for row in ROWS])
async def test_real_answers(server: Answers, lanes: Lanes, row: Row) -> None:
    server.answer = (row.status, row.headers, row.body)
    budget = Learning(lanes.client, f"{row.exchange}:default")
    lane, _ = lanes.lane(row.exchange, server.settings(row.exchange), budget=budget)
    attempt = call(row.exchange)
    with pytest.raises(Exception) as raised:
        await lane.call(row.method, row.args, attempt)
    verdict = judge(raised.value, attempt)
    assert verdict.code is row.code, verdict
    assert returns.move(Try(row.exchange, verdict.outcome, verdict.code)) is row.move
    assert (verdict.pause_s > 0) == row.pauses
    assert (await budget.paused(budget.granted[0]) > 0) == row.pauses
    assert budget.held_against == row.pauses
    assert len(server.hits) == attempt.http_calls == 1


@pytest.mark.parametrize("row", list(refusals()), ids=lambda row: f"{row.exchange}-{row.status}-{row.body[:40]}")
async def test_each_answer_on_the_page_comes_to_what_it_says(server: Answers, lanes: Lanes, row: Refusal) -> None:
    server.answer = (row.status, {}, row.body)
    budget = Learning(lanes.client, f"{row.exchange}:default")
    lane, _ = lanes.lane(row.exchange, server.settings(row.exchange), budget=budget)
    attempt = call(row.exchange)
    method = "fetch_order_book" if row.exchange == "hyperliquid" else "fetch_ticker"
    with pytest.raises(Exception) as raised:
        await lane.call(method, {"symbol": "BTC/USDT"}, attempt)
    verdict = judge(raised.value, attempt)
    came = returns.move(Try(row.exchange, verdict.outcome, verdict.code))
    assert (verdict.code.value, came.value, verdict.pause_s) == (row.code, row.move, row.pause_s), verdict
    assert budget.held_against == row.learned
    assert len(server.hits) == attempt.http_calls == 1


def test_the_page_has_them_all() -> None:
    assert len(list(refusals())) >= 45


async def test_a_country_that_is_barred_lowers_no_limit(server: Answers, lanes: Lanes) -> None:
    server.answer = (403, {"Content-Type": "text/html"}, GEO)
    budget = Learning(lanes.client, "bybit:default")
    lane, _ = lanes.lane("bybit", server.settings("bybit"), budget=budget)
    for _ in range(4):
        attempt = call("bybit")
        with pytest.raises(Exception) as raised:
            await lane.call("fetch_ticker", {"symbol": "BTC/USDT"}, attempt)
        assert judge(raised.value, attempt).code is ErrorCode.RESTRICTED
    ticker = f'{{"list":[{{"symbol":"BTCUSDT","lastPrice":"5"}}]}},"time":{time.time() * 1000:.0f}'
    server.answer = (200, {}, f'{{"retCode":0,"result":{ticker}}}')
    assert (await lane.call("fetch_ticker", {"symbol": "BTC/USDT"}, call("bybit")))["last"] == 5
    uses = await budget.usage()
    assert uses
    assert all(use.effective == 1.0 for use in uses.values())


async def test_of_pages_side_by_side_each_error_is_judged_by_its_own_answer(server: Answers, lanes: Lanes) -> None:
    server.answer = (451, {}, '{"code":0,"msg":"Service unavailable from a restricted location"}')
    server.by_path["/api/v3/time"], server.held_path = '{"serverTime":1}', "/api/v3/time"
    lane, _ = lanes.lane("binance", server.settings("binance"))
    exchange: Any = lane._ccxt  # pyright: ignore[reportPrivateUsage]
    attempt = call("binance")
    token = CALL.set(attempt)
    try:
        good, refused = (asyncio.create_task(get()) for get in (exchange.publicGetTime, exchange.fapiPublicGetTime))
        with pytest.raises(Exception, match="451") as raised:
            await refused
        server.held_path = ""
        assert await good == {"serverTime": 1}
    finally:
        CALL.reset(token)
    assert judge(raised.value, attempt).code is ErrorCode.RESTRICTED
