"""What eight exchanges say of a request, of a symbol and of the clock, through ccxt's real classes."""

import json
from typing import Any

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from dispatcher import returns
from dispatcher.returns import Move
from schemas.messages import EXCHANGE_FAILURES, ErrorCode, Outcome, Try
from workers.exchange.arguments import check_answer
from workers.exchange.call import Heard, Seen
from workers.exchange.errors import Verdict, judge

EXCHANGES = ("binance", "okx", "htx", "coinbase", "kraken", "bybit", "kucoin", "gate")
ARGUMENTS, SYMBOL, TOO_LARGE, CLOCK = (
    ErrorCode.INVALID_ARGUMENTS,
    ErrorCode.BAD_SYMBOL,
    ErrorCode.TOO_LARGE,
    ErrorCode.CLOCK,
)
NGINX = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"


def answered(exchange: str, status: int, body: str) -> Verdict:
    """The verdict on an answer, as ccxt's class of that exchange reads it; the worker refuses what ccxt lets pass."""
    made: Any = getattr(ccxt, exchange)()
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    url = "https://example.com/x"
    seen = Seen(exchange, 1, Heard(status, body[:1024]))
    try:
        made.handle_errors(status, "", url, "GET", {}, body, parsed, {}, None)
        seen.heard.by_status = True
        made.handle_http_status_code(status, "", url, "GET", body)
        raise ccxt.BadResponse(f"{exchange} GET {url} status {status}")  # pyright: ignore[reportUnknownMemberType]
    except ccxt.BaseError as error:
        return judge(error, seen)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, ARGUMENTS, "check args"),
        (404, ARGUMENTS, "check args"),
        (413, TOO_LARGE, "send less"),
        (414, TOO_LARGE, "send less"),
        (431, TOO_LARGE, "send less"),
    ],
)
@pytest.mark.parametrize("body", [NGINX, "Bad Request", ""], ids=["page", "words", "nothing"])
def test_a_4xx_without_json_ends_the_request_with_what_to_change(
    exchange: str, status: int, code: ErrorCode, hint: str, body: str
) -> None:
    verdict = answered(exchange, status, body.format(status))
    assert (verdict.outcome, verdict.code) == (Outcome.REJECTED, code)
    assert hint in verdict.message
    assert not verdict.of_connection


@pytest.mark.parametrize(
    ("exchange", "status", "body"),
    [
        # Unknown symbols, in words that ccxt takes for wrong arguments or for nothing it knows.
        ("bybit", 200, '{"retCode":10001,"retMsg":"params error: Symbol Invalid","result":{}}'),
        ("bybit", 200, '{"retCode":10001,"retMsg":"Not supported symbols","result":{}}'),
        ("kucoin", 200, '{"code":"200003","msg":"symbol not exists"}'),
        ("htx", 200, '{"status":"error","err_code":1014,"err_msg":"This contract doesnt exist."}'),
        ("htx", 200, '{"status":"error","err_code":1030,"err_msg":"Illegal parameter contract_code"}'),
        ("kraken", 200, '{"error":["EQuery:Unknown asset pair"]}'),
        ("kraken", 200, '{"error":["EQuery:Invalid asset pair"]}'),
        # Symbols that are barred in a region.
        ("okx", 200, '{"code":"51155","msg":"local compliance restrictions","data":[]}'),
        ("bybit", 200, '{"retCode":170209,"retMsg":"This trading pair is only available to Laos","result":{}}'),
        ("kucoin", 400, '{"code":"400500","msg":"Your located country/region is currently not supported"}'),
    ],
)  # fmt: skip
def test_a_symbol_s_trouble_is_the_symbol_s(exchange: str, status: int, body: str) -> None:
    verdict = answered(exchange, status, body)
    assert verdict.code is SYMBOL, verdict
    assert returns.move(Try(exchange, verdict.outcome, verdict.code)) is Move.ELSEWHERE


@pytest.mark.parametrize(
    ("exchange", "status", "body"),
    [
        ("binance", 400, '{"code":-1021,"msg":"Timestamp for this request is outside of the recvWindow."}'),
        ("okx", 401, '{"code":"50102","msg":"Timestamp request expired","data":[]}'),
        ("okx", 401, '{"code":"50112","msg":"Invalid OK-ACCESS-TIMESTAMP","data":[]}'),
        ("htx", 200, '{"status":"error","err-code":"api-signature-not-valid","err-msg":"Incorrect Timestamp [x]"}'),
        ("coinbase", 401, '{"errors":[{"id":"authentication_error","message":"request timestamp expired"}]}'),
        ("kraken", 200, '{"error":["EAPI:Invalid nonce"]}'),
        ("bybit", 200, '{"retCode":10002,"retMsg":"invalid request, please check your server timestamp","result":{}}'),
        ("kucoin", 400, '{"code":"400002","msg":"Invalid KC-API-TIMESTAMP"}'),
        ("gate", 403, '{"label":"REQUEST_EXPIRED","message":"gap to the server time exceeds 60"}'),
        ("bitget", 400, '{"code":"40004","msg":"Request timestamp expired"}'),
        ("bitget", 400, '{"code":"40005","msg":"Invalid ACCESS_TIMESTAMP"}'),
    ],
)  # fmt: skip
def test_a_clock_that_is_off_is_the_operator_s(exchange: str, status: int, body: str) -> None:
    verdict = answered(exchange, status, body)
    assert verdict.code is CLOCK, verdict
    assert verdict.message.startswith("clock: ")
    assert "Operator: synchronise" in verdict.message
    assert CLOCK not in EXCHANGE_FAILURES


@pytest.mark.parametrize(
    ("exchange", "status", "body"),
    [
        ("cryptocom", 400, '{"code":40004,"message":"Missing or invalid argument"}'),
        ("cryptocom", 400, '{"code":40005,"message":"Invalid date"}'),
        ("bigone", 401, '{"code":40004,"message":"Unauthorized"}'),
        ("bitteam", 404, '{"ok":false,"code":400002,"message":"An order cannot be created on a deactivated pair"}'),
    ],
)  # fmt: skip
def test_a_code_that_means_the_clock_elsewhere_means_no_clock_here(exchange: str, status: int, body: str) -> None:
    assert answered(exchange, status, body).code is not CLOCK


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("kind", ["BadRequest", "ArgumentsRequired", "BadSymbol", "NotSupported", "ExchangeError"])
def test_what_ccxt_refuses_without_a_call_ends_at_once(exchange: str, kind: str) -> None:
    verdict = judge(getattr(ccxt, kind)(f"{exchange} only for swap markets"), Seen(exchange))
    assert verdict.code not in EXCHANGE_FAILURES
    assert returns.move(Try(exchange, verdict.outcome, verdict.code)) in (Move.END, Move.ELSEWHERE)
    assert "only for swap markets" in verdict.message
    assert not verdict.of_connection


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    ("status", "body", "of_connection"),
    [(None, "", True), (500, "{}", True), (503, NGINX, True), (504, "", True), (200, NGINX, True), (200, "{}", False)],
)
def test_what_speaks_of_the_connection(exchange: str, status: int | None, body: str, of_connection: bool) -> None:
    kind = ccxt.BadResponse if status == 200 else ccxt.ExchangeNotAvailable
    assert judge(kind("x"), Seen(exchange, 1, Heard(status, body))).of_connection is of_connection


BOOK: dict[str, Any] = {"symbol": "BTC/USDT", "bids": [], "asks": [], "nonce": None}
NO_PRICE: dict[str, Any] = {"symbol": "BTC/USDT", "last": None, "bid": None, "info": {"instId": "BTC-USDT"}}


@pytest.mark.parametrize(
    ("method", "args", "data", "calls", "blank"),
    [
        ("fetch_order_book", {}, BOOK, 1, False),
        ("fetch_order_book", {}, {**BOOK, "bids": [[1.0, 2.0, 1795904222]], "asks": [[2, 0.5]]}, 1, False),
        ("fetch_ticker", {}, NO_PRICE, 1, False),
        ("fetch_tickers", {}, {}, 1, False),
        ("fetch_tickers", {"symbols": []}, {}, 0, False),
        ("fetch_ohlcv", {}, [], 1, False),
        ("fetch_ohlcv", {}, [[1795904220000, 1.0, 1.0, 1.0, 1.0, None]], 1, False),
        ("fetch_trades", {}, [], 1, False),
        ("fetch_trades", {}, [], 1, True),
        ("fetch_open_orders", {}, [], 1, True),
        ("fetch_currencies", {}, {}, 1, False),
        ("fetch_status", {}, {}, 0, False),
    ],
)
def test_what_is_right_but_empty_is_data(method: str, args: dict[str, Any], data: Any, calls: int, blank: bool) -> None:
    check_answer(method, args, data, calls, blank=blank)


@pytest.mark.parametrize(
    ("method", "data", "blank"),
    [
        ("fetch_order_book", {}, False),
        ("fetch_order_book", [], False),
        ("fetch_order_book", BOOK, True),
        ("fetch_order_book", {**BOOK, "bids": None}, False),
        ("fetch_order_book", {**BOOK, "asks": [["1", "2"]]}, False),
        ("fetch_order_book", {**BOOK, "asks": [[1.0]]}, False),
        ("fetch_order_book", {**BOOK, "asks": "<html>"}, False),
        ("fetch_l2_order_book", {**BOOK, "asks": [[None, 1.0]]}, False),
        ("fetch_ticker", [], False),
        ("fetch_ticker", {"symbol": "BTC/USDT", "last": None, "info": {}}, False),
        ("fetch_ohlcv", {}, False),
        ("fetch_ohlcv", [[None, None, None, None, None, None]], False),
        ("fetch_mark_ohlcv", ["<"], False),
        ("fetch_trades", None, False),
        ("fetch_time", None, False),
        ("fetch_status", ["ok"], False),
        ("fetch_markets", [], False),
        ("load_markets", {}, False),
    ],
)
def test_garbage_is_what_contradicts_its_own_form(method: str, data: Any, blank: bool) -> None:
    with pytest.raises(ccxt.BadResponse):
        check_answer(method, {}, data, 1, blank=blank)
