"""What an attempt's error means, by ccxt's class and by what the exchange answered."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from ccxt.base import errors  # pyright: ignore[reportMissingTypeStubs]

from schemas.errors import InvalidMessage
from schemas.messages import ErrorCode, Outcome
from workers.budget.grants import Reason
from workers.exchange.call import Heard, Seen
from workers.exchange.errors import NoBudget, judge
from workers.exchange.redaction import MESSAGE_LIMIT
from workers.exchange.signals import Pause

CCXT: dict[str, Any] = dict(vars(errors))
F, R, T = Outcome.FAILED, Outcome.REJECTED, Outcome.THROTTLED

# The whole of ccxt's tree. A new class in it makes `test_every_class_is_known` fail: decide what it means.
BY_CLASS = {
    "BaseError": (F, ErrorCode.EXCHANGE_ERROR),
    "ExchangeError": (F, ErrorCode.EXCHANGE_ERROR),
    "AuthenticationError": (F, ErrorCode.AUTHENTICATION),
    "PermissionDenied": (F, ErrorCode.AUTHENTICATION),
    "AccountNotEnabled": (F, ErrorCode.AUTHENTICATION),
    "AccountSuspended": (F, ErrorCode.AUTHENTICATION),
    "ArgumentsRequired": (R, ErrorCode.INVALID_ARGUMENTS),
    "BadRequest": (R, ErrorCode.INVALID_ARGUMENTS),
    "BadSymbol": (F, ErrorCode.BAD_SYMBOL),
    "OperationRejected": (R, ErrorCode.EXCHANGE_ERROR),
    "NoChange": (R, ErrorCode.EXCHANGE_ERROR),
    "MarginModeAlreadySet": (R, ErrorCode.EXCHANGE_ERROR),
    "MarketClosed": (F, ErrorCode.BAD_SYMBOL),
    "ManualInteractionNeeded": (F, ErrorCode.AUTHENTICATION),
    "RestrictedLocation": (F, ErrorCode.BAD_SYMBOL),  # at status 200 it speaks of the symbol
    "InsufficientFunds": (R, ErrorCode.EXCHANGE_ERROR),
    "InvalidAddress": (R, ErrorCode.EXCHANGE_ERROR),
    "AddressPending": (R, ErrorCode.EXCHANGE_ERROR),
    "InvalidOrder": (R, ErrorCode.EXCHANGE_ERROR),
    "OrderNotFound": (R, ErrorCode.EXCHANGE_ERROR),
    "OrderNotCached": (R, ErrorCode.EXCHANGE_ERROR),
    "OrderImmediatelyFillable": (R, ErrorCode.EXCHANGE_ERROR),
    "OrderNotFillable": (R, ErrorCode.EXCHANGE_ERROR),
    "DuplicateOrderId": (R, ErrorCode.EXCHANGE_ERROR),
    "ContractUnavailable": (F, ErrorCode.BAD_SYMBOL),
    "NotSupported": (F, ErrorCode.NOT_SUPPORTED),
    "InvalidProxySettings": (F, ErrorCode.INTERNAL),
    "ExchangeClosedByUser": (F, ErrorCode.INTERNAL),
    "OperationFailed": (F, ErrorCode.EXCHANGE_UNAVAILABLE),
    "NetworkError": (F, ErrorCode.EXCHANGE_UNAVAILABLE),
    "DDoSProtection": (F, ErrorCode.RATE_LIMITED),
    "RateLimitExceeded": (F, ErrorCode.RATE_LIMITED),
    "ExchangeNotAvailable": (F, ErrorCode.EXCHANGE_UNAVAILABLE),
    "OnMaintenance": (F, ErrorCode.MAINTENANCE),
    "InvalidNonce": (F, ErrorCode.CLOCK),
    "ChecksumError": (F, ErrorCode.BAD_RESPONSE),
    "RequestTimeout": (F, ErrorCode.EXCHANGE_TIMEOUT),
    "BadResponse": (F, ErrorCode.BAD_RESPONSE),
    "NullResponse": (F, ErrorCode.BAD_RESPONSE),
    "CancelPending": (R, ErrorCode.EXCHANGE_ERROR),
    "UnsubscribeError": (F, ErrorCode.EXCHANGE_ERROR),
}


def test_every_class_is_known() -> None:
    assert {name for name, value in CCXT.items() if isinstance(value, type)} == set(BY_CLASS)


@pytest.mark.parametrize("name", BY_CLASS)
def test_classes(name: str) -> None:
    verdict = judge(CCXT[name]("x"), Seen("okx", 1, Heard(200, "{}")))
    assert (verdict.outcome, verdict.code) == BY_CLASS[name]
    assert (verdict.pause_s > 0) == (verdict.code is ErrorCode.RATE_LIMITED)


def test_a_class_ccxt_adds_is_judged_as_its_parent() -> None:
    kind: Any = type("TooManySymbols", (CCXT["BadRequest"],), {})
    assert judge(kind("x"), Seen("okx", 1, Heard(200))).code is ErrorCode.INVALID_ARGUMENTS


@pytest.mark.parametrize(
    ("name", "status", "body", "outcome", "code"),
    [
        ("ExchangeNotAvailable", 500, "<html>", F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("ExchangeError", 522, "<html>", F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("ExchangeNotAvailable", 400, '{"msg":"limit"}', F, ErrorCode.INVALID_ARGUMENTS),
        ("ExchangeNotAvailable", 400, "<html>", R, ErrorCode.INVALID_ARGUMENTS),
        ("BadResponse", 400, "", R, ErrorCode.INVALID_ARGUMENTS),
        ("BadResponse", 413, "<html>", R, ErrorCode.TOO_LARGE),
        ("BadResponse", 414, "<html>", R, ErrorCode.TOO_LARGE),
        ("BadResponse", 431, "", R, ErrorCode.TOO_LARGE),
        ("BadResponse", 415, "{}", R, ErrorCode.INVALID_ARGUMENTS),
        ("BadResponse", 425, '{"code":1}', F, ErrorCode.BAD_RESPONSE),
        ("ExchangeError", 422, "Failed to deserialize the JSON body", R, ErrorCode.INVALID_ARGUMENTS),
        ("ExchangeError", 404, '{"error":"NOT_FOUND"}', F, ErrorCode.BAD_SYMBOL),
        ("ExchangeNotAvailable", 404, "<html>", R, ErrorCode.INVALID_ARGUMENTS),
        ("ExchangeNotAvailable", 403, "<html>", F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("ExchangeNotAvailable", 403, "{}", F, ErrorCode.RESTRICTED),
        ("RateLimitExceeded", 403, "<html>", F, ErrorCode.EXCHANGE_UNAVAILABLE),  # Bybit's class for any 403
        ("ExchangeNotAvailable", 451, "{}", F, ErrorCode.RESTRICTED),
        ("AuthenticationError", 407, "", F, ErrorCode.AUTHENTICATION),
        ("ExchangeError", 504, "", F, ErrorCode.EXCHANGE_TIMEOUT),
    ],
)
def test_the_status_decides_where_ccxt_saw_nothing_else(
    name: str, status: int | None, body: str, outcome: Outcome, code: ErrorCode
) -> None:
    verdict = judge(CCXT[name]("x"), Seen("kraken", 1, Heard(status, body, by_status=True)))
    assert (verdict.outcome, verdict.code) == (outcome, code)


@pytest.mark.parametrize(
    ("name", "status", "body", "outcome", "code"),
    [
        # Words that ccxt knows have their class, whatever the status.
        ("ExchangeNotAvailable", 400, '{"label":"X"}', F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("OperationFailed", 400, "{}", F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("BadResponse", 400, '{"code":1}', F, ErrorCode.BAD_RESPONSE),
        ("AuthenticationError", 403, "{}", F, ErrorCode.AUTHENTICATION),
        ("RestrictedLocation", 403, "{}", F, ErrorCode.RESTRICTED),
        ("RestrictedLocation", 400, "{}", F, ErrorCode.BAD_SYMBOL),
        ("OnMaintenance", 503, "{}", F, ErrorCode.MAINTENANCE),
        ("BadSymbol", 400, "{}", F, ErrorCode.BAD_SYMBOL),
        # Words that it does not know: the status, if that says anything.
        ("ExchangeError", 400, '{"code":1}', F, ErrorCode.INVALID_ARGUMENTS),
        ("ExchangeError", 200, '{"code":1}', F, ErrorCode.EXCHANGE_ERROR),
        # The exchange's own words, as the table has them, come before both.
        ("ExchangeError", 200, '{"error":["EQuery:Unknown asset pair"]}', F, ErrorCode.BAD_SYMBOL),
        ("BadRequest", 429, '{"error":["EService:Busy"]}', F, ErrorCode.EXCHANGE_UNAVAILABLE),
        # No answer at all.
        ("ExchangeNotAvailable", None, "", F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("ExchangeError", None, "", F, ErrorCode.EXCHANGE_UNAVAILABLE),
    ],
)
def test_words_decide_before_the_class_and_the_class_before_the_status(
    name: str, status: int | None, body: str, outcome: Outcome, code: ErrorCode
) -> None:
    verdict = judge(CCXT[name]("x"), Seen("kraken", 1, Heard(status, body)))
    assert (verdict.outcome, verdict.code) == (outcome, code)


NO_SYMBOL: dict[str, Any] = {"limit": 5, "params": {"type": "swap"}}


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"symbol": "BTC/USDT"}, ["BTC/USDT"]),
        ({"symbols": ["BTC/USDT", "ETH/USDT"]}, ["BTC/USDT", "ETH/USDT"]),
        ({"code": "BTC"}, ["BTC"]),
        ({"params": {"instId": "BTC-USDT"}}, ["BTC-USDT"]),
        ({"symbol": None, "params": None}, []),
        (NO_SYMBOL, []),
    ],
)
def test_what_a_request_names(args: dict[str, Any], named: list[str]) -> None:
    assert Seen("okx", args=args).named == named


@pytest.mark.parametrize("status", [200, 400, 404])
@pytest.mark.parametrize("name", ["BadSymbol", "MarketClosed", "ContractUnavailable", "RestrictedLocation"])
def test_no_symbol_is_at_fault_where_none_is_named(name: str, status: int) -> None:
    seen = Seen("okx", 1, Heard(status, '{"code":"1"}'), args=NO_SYMBOL)
    restricted = name == "RestrictedLocation"
    expected = ErrorCode.RESTRICTED if restricted else ErrorCode.NOT_SUPPORTED
    assert judge(CCXT[name]("x"), seen).code is expected


@pytest.mark.parametrize(
    ("name", "text", "args", "code"),
    [
        ("BadSymbol", "okx does not have market symbol NEW-USDT", {}, ErrorCode.BAD_RESPONSE),
        ("BadSymbol", "okx does not have NEW-USDT", {"symbols": ["BTC/USDT"]}, ErrorCode.BAD_RESPONSE),
        ("BadSymbol", "okx has no rate of BTC-USDT", {"symbol": "BTC/USDT:USDT"}, ErrorCode.BAD_SYMBOL),
        ("ArgumentsRequired", "safeMarket() requires a fourth argument", {}, ErrorCode.NOT_SUPPORTED),
        ("NotSupported", "x", {}, ErrorCode.NOT_SUPPORTED),
        ("OrderNotFound", "x", {"id": "1"}, ErrorCode.EXCHANGE_ERROR),
    ],
)
def test_what_ccxt_makes_of_data(name: str, text: str, args: dict[str, Any], code: ErrorCode) -> None:
    verdict = judge(CCXT[name](text), Seen("okx", 1, Heard(200, '{"data":[]}'), data=True, args=args))
    assert verdict.code is code
    assert not verdict.of_connection


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ArgumentsRequired", ErrorCode.INVALID_ARGUMENTS),
        ("BadRequest", ErrorCode.INVALID_ARGUMENTS),
        ("BadSymbol", ErrorCode.BAD_SYMBOL),
        ("AuthenticationError", ErrorCode.NOT_SUPPORTED),
        ("InvalidOrder", ErrorCode.NOT_SUPPORTED),
        ("ExchangeError", ErrorCode.NOT_SUPPORTED),
        ("RateLimitExceeded", ErrorCode.NOT_SUPPORTED),
    ],
)
def test_what_ccxt_refuses_another_lane_may_take(name: str, code: ErrorCode) -> None:
    verdict = judge(CCXT[name]("x"), Seen("okx"))
    assert (verdict.outcome, verdict.code) == (F, code)


def test_a_limit_signal_decides_before_the_class() -> None:
    verdict = judge(CCXT["ExchangeNotAvailable"]("x"), Seen("okx", 1, Heard(429, "slow", Pause(7, "429"))))
    assert (verdict.outcome, verdict.code, verdict.pause_s) == (F, ErrorCode.RATE_LIMITED, 7)


def test_a_body_cut_off_is_a_bad_response() -> None:
    error = CCXT["ExchangeError"]("binance GET https://x")
    error.__cause__ = aiohttp.ClientPayloadError("cut")
    assert judge(error, Seen("binance", 1)).code is ErrorCode.BAD_RESPONSE


def test_ccxt_asking_for_keys_is_not_the_exchange_refusing_them() -> None:
    assert judge(CCXT["AuthenticationError"]("needs apiKey"), Seen("binance")).code is ErrorCode.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("budget", ErrorCode.NO_BUDGET),
        ("busy", ErrorCode.NO_BUDGET),
        ("paused", ErrorCode.PAUSED),
        ("redis_lost", ErrorCode.NO_BUDGET),
        ("share_too_small", ErrorCode.NO_BUDGET),
    ],
)
def test_no_budget(reason: Reason, code: ErrorCode) -> None:
    verdict = judge(NoBudget(reason, 3.5), Seen("okx"))
    assert (verdict.outcome, verdict.code, verdict.pause_s) == (T, code, 3.5)
    assert verdict.message.endswith("; there may be some in 3.500 s")


def test_wrong_arguments() -> None:
    verdict = judge(InvalidMessage(ErrorCode.INVALID_ARGUMENTS, "fetch_ticker needs symbol"), Seen("okx"))
    assert (verdict.outcome, verdict.code) == (R, ErrorCode.INVALID_ARGUMENTS)
    assert verdict.message == "fetch_ticker needs symbol"


@pytest.mark.parametrize(
    ("error", "calls", "outcome", "code"),
    [
        (TimeoutError(), 1, F, ErrorCode.EXCHANGE_TIMEOUT),
        (TimeoutError(), 0, T, ErrorCode.EXPIRED),
        (ConnectionResetError(), 1, F, ErrorCode.EXCHANGE_UNAVAILABLE),
        (RuntimeError("Session is closed"), 1, F, ErrorCode.INTERNAL),
        (KeyError("ours"), 1, F, ErrorCode.INTERNAL),
    ],
)
def test_errors_that_are_not_ccxts(error: Exception, calls: int, outcome: Outcome, code: ErrorCode) -> None:
    verdict = judge(error, Seen("okx", calls))
    assert (verdict.outcome, verdict.code) == (outcome, code)


def _raised(run: Callable[[], object]) -> Exception:
    try:
        run()
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


def test_a_parser_that_stumbles_over_an_answer_is_the_answers_fault() -> None:
    import ccxt  # pyright: ignore[reportMissingTypeStubs]

    exchange: Any = ccxt.okx()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    error = _raised(lambda: exchange.parse_tickers(5))
    assert not isinstance(error, CCXT["BaseError"])
    assert judge(error, Seen("okx", 1, Heard(200), data=True)).code is ErrorCode.BAD_RESPONSE
    # As a refusal, its status still says what it is.
    assert judge(error, Seen("okx", 1, Heard(502, '"x"'))).code is ErrorCode.EXCHANGE_UNAVAILABLE
    assert judge(error, Seen("okx", 1, Heard(200, '"x"'))).code is ErrorCode.BAD_RESPONSE


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"symbol": "BTC/USDT"}, ErrorCode.NOT_SUPPORTED),
        ({"symbol": None}, ErrorCode.INVALID_ARGUMENTS),
        ({"symbol": "BTC/USDT", "params": {"since": []}}, ErrorCode.INVALID_ARGUMENTS),
    ],
)
def test_ccxt_that_stumbles_before_a_call_was_given_something_wrong(args: dict[str, Any], code: ErrorCode) -> None:
    import ccxt  # pyright: ignore[reportMissingTypeStubs]

    exchange: Any = ccxt.okx()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    verdict = judge(_raised(lambda: exchange.parse_tickers(5)), Seen("okx", args=args))
    assert (verdict.outcome, verdict.code) == (F, code)
    assert verdict.message.startswith("ccxt fails on these args")


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_what_is_no_error_is_raised_again(error: BaseException) -> None:
    with pytest.raises(type(error)):
        judge(error, Seen("okx"))


def test_messages_are_short_and_hold_no_secrets() -> None:
    error = CCXT["ExchangeError"](
        "binance GET https://user:pass@api.example.com/v3/x?symbol=A&signature=s3cret 400 "
        '{"apiKey": "k3y", "secret":"s3cret"} proxy http://me:pw@10.0.0.1:3128 ' + "x" * 500
    )
    message = judge(error, Seen("binance", 1, Heard(200))).message
    assert len(message) <= MESSAGE_LIMIT
    assert message.startswith("ExchangeError: binance GET https://api.example.com/v3/x 400")
    assert not any(secret in message for secret in ("s3cret", "k3y", "pw@", "pass@"))


@pytest.mark.parametrize(
    ("error", "status", "outcome", "code"),
    [
        (CCXT["RequestTimeout"]("x"), None, T, ErrorCode.EXPIRED),
        (CCXT["ExchangeNotAvailable"]("x"), None, T, ErrorCode.EXPIRED),  # closed, as nobody read
        (TimeoutError(), 200, T, ErrorCode.EXPIRED),  # the attempt's own end
        # Answers are answers, whenever they are read.
        (CCXT["ExchangeNotAvailable"]("x"), 503, F, ErrorCode.EXCHANGE_UNAVAILABLE),
        (CCXT["RequestTimeout"]("x"), 504, F, ErrorCode.EXCHANGE_TIMEOUT),
        (CCXT["OnMaintenance"]("x"), 200, F, ErrorCode.MAINTENANCE),
        (CCXT["BadSymbol"]("x"), 200, F, ErrorCode.BAD_SYMBOL),
    ],
)
def test_no_answer_in_a_standstill_is_nobody_s_fault(
    error: Exception, status: int | None, outcome: Outcome, code: ErrorCode
) -> None:
    args = {"symbol": "BTC/USDT"}
    stood_still = judge(error, Seen("okx", 1, Heard(status, unread=True), args=args, still_s=5.0))
    assert (stood_still.outcome, stood_still.code) == (outcome, code)
    assert stood_still.of_connection is (outcome is F and code is not ErrorCode.BAD_SYMBOL)
    read_since = judge(error, Seen("okx", 1, Heard(status), args=args, still_s=5.0))
    assert read_since.outcome is F
