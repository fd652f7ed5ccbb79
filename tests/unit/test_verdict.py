import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from ccxt.base import errors  # pyright: ignore[reportMissingTypeStubs]

from schemas.errors import InvalidMessage
from schemas.messages import ErrorCode, Outcome
from workers.exchange.verdict import MESSAGE_LIMIT, NoBudget, Pause, Seen, counted, judge, limit_signal
from workers.limits.costs import Bucket, Scope

NOW_S = 1_800_000_000.0
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
    verdict = judge(CCXT[name]("x"), Seen("okx", http_calls=1, status=200, body="{}"))
    assert (verdict.outcome, verdict.code) == BY_CLASS[name]
    assert (verdict.pause_s > 0) == (verdict.code is ErrorCode.RATE_LIMITED)


def test_a_class_ccxt_adds_is_judged_as_its_parent() -> None:
    kind: Any = type("TooManySymbols", (CCXT["BadRequest"],), {})
    assert judge(kind("x"), Seen("okx", 1, 200)).code is ErrorCode.INVALID_ARGUMENTS


@pytest.mark.parametrize(
    ("name", "status", "body", "outcome", "code"),
    [
        ("ExchangeNotAvailable", None, "", F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("ExchangeNotAvailable", 500, "<html>", F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("ExchangeError", 522, "<html>", F, ErrorCode.EXCHANGE_UNAVAILABLE),
        ("ExchangeNotAvailable", 400, '{"msg":"limit"}', R, ErrorCode.INVALID_ARGUMENTS),
        ("ExchangeNotAvailable", 400, "<html>", R, ErrorCode.INVALID_ARGUMENTS),
        ("BadResponse", 400, "", R, ErrorCode.INVALID_ARGUMENTS),
        ("BadResponse", 413, "<html>", R, ErrorCode.TOO_LARGE),
        ("BadResponse", 414, "<html>", R, ErrorCode.TOO_LARGE),
        ("BadResponse", 431, "", R, ErrorCode.TOO_LARGE),
        ("BadResponse", 415, "{}", R, ErrorCode.INVALID_ARGUMENTS),
        ("BadResponse", 400, '{"code":1}', F, ErrorCode.BAD_RESPONSE),
        ("BadResponse", 425, '{"code":1}', F, ErrorCode.BAD_RESPONSE),
        ("ExchangeError", 422, "Failed to deserialize the JSON body", R, ErrorCode.INVALID_ARGUMENTS),
        ("RestrictedLocation", 403, "{}", F, ErrorCode.RESTRICTED),
        ("RestrictedLocation", 400, "{}", F, ErrorCode.BAD_SYMBOL),
        ("ExchangeError", 404, '{"error":"NOT_FOUND"}', F, ErrorCode.BAD_SYMBOL),
        ("ExchangeNotAvailable", 404, "<html>", R, ErrorCode.INVALID_ARGUMENTS),
        ("ExchangeNotAvailable", 403, "<html>", F, ErrorCode.RESTRICTED),
        ("ExchangeNotAvailable", 451, "{}", F, ErrorCode.RESTRICTED),
        ("AuthenticationError", 403, "{}", F, ErrorCode.RESTRICTED),
        ("AuthenticationError", 407, "", F, ErrorCode.AUTHENTICATION),
        ("ExchangeError", 504, "", F, ErrorCode.EXCHANGE_TIMEOUT),
        ("ExchangeError", 200, '{"error":["EQuery:Unknown asset pair"]}', F, ErrorCode.BAD_SYMBOL),
        ("OnMaintenance", 503, "{}", F, ErrorCode.MAINTENANCE),
        ("BadSymbol", 400, "{}", F, ErrorCode.BAD_SYMBOL),
    ],
)
def test_the_status_decides_where_the_class_is_vague(
    name: str, status: int | None, body: str, outcome: Outcome, code: ErrorCode
) -> None:
    verdict = judge(CCXT[name]("x"), Seen("coinbase", 1, status, body))
    assert (verdict.outcome, verdict.code) == (outcome, code)


def test_a_limit_signal_decides_before_the_class() -> None:
    verdict = judge(CCXT["ExchangeNotAvailable"]("x"), Seen("okx", 1, 429, "slow", Pause(7, "429")))
    assert (verdict.outcome, verdict.code, verdict.pause_s) == (F, ErrorCode.RATE_LIMITED, 7)


def test_a_body_cut_off_is_a_bad_response() -> None:
    error = CCXT["ExchangeError"]("binance GET https://x")
    error.__cause__ = aiohttp.ClientPayloadError("cut")
    assert judge(error, Seen("binance", 1)).code is ErrorCode.BAD_RESPONSE


def test_ccxt_asking_for_keys_is_not_the_exchange_refusing_them() -> None:
    assert judge(CCXT["AuthenticationError"]("needs apiKey"), Seen("binance")).code is ErrorCode.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("reason", "code"),
    [("budget", ErrorCode.NO_BUDGET), ("paused", ErrorCode.PAUSED), ("redis_lost", ErrorCode.NO_BUDGET)],
)
def test_no_budget(reason: str, code: ErrorCode) -> None:
    verdict = judge(NoBudget(reason, 3.5), Seen("okx"))
    assert (verdict.outcome, verdict.code, verdict.pause_s) == (T, code, 3.5)


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
    assert judge(error, Seen("okx", 1, 200)).code is ErrorCode.BAD_RESPONSE
    assert judge(error, Seen("okx", 0)).code is ErrorCode.NOT_SUPPORTED


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_what_is_no_error_is_raised_again(error: BaseException) -> None:
    with pytest.raises(type(error)):
        judge(error, Seen("okx"))


def test_messages_are_short_and_hold_no_secrets() -> None:
    error = CCXT["ExchangeError"](
        "binance GET https://user:pass@api.example.com/v3/x?symbol=A&signature=s3cret 400 "
        '{"apiKey": "k3y", "secret":"s3cret"} proxy http://me:pw@10.0.0.1:3128 ' + "x" * 500
    )
    message = judge(error, Seen("binance", 1, 200)).message
    assert len(message) <= MESSAGE_LIMIT
    assert message.startswith("ExchangeError: binance GET https://api.example.com/v3/x 400")
    assert not any(secret in message for secret in ("s3cret", "k3y", "pw@", "pass@"))


@pytest.mark.parametrize(
    ("exchange", "status", "headers", "body", "seconds"),
    [
        ("binance", 429, {"Retry-After": "12"}, "", 12),
        ("binance", 418, {"retry-after": "300"}, "", 300),
        ("binance", 418, {}, "", 120),
        ("binance", 429, {"Retry-After": formatdate(NOW_S + 30, usegmt=True)}, "", 30),
        ("binance", 429, {"Retry-After": "soon"}, "", 2),
        ("binance", 429, {"Retry-After": "99999999"}, "", 3 * 86400),
        ("binance", 400, {}, '{"code":-1003,"msg":"Too much request weight used"}', 10),
        ("binance", 403, {}, "<html>", 60),
        ("okx", 200, {}, '{"code":"50011","msg":"Too Many Requests","data":[]}', 2),
        ("okx", 429, {}, "Too Many Requests", 2),
        ("htx", 429, {}, '{"status":"error","err-code":"too-many-requests"}', 2),
        ("htx", 429, {"X-HB-RateLimit-Requests-Expire": str(int((NOW_S + 4) * 1000))}, "", 4),
        ("htx", 200, {}, '{"status":"error","err_code":1032,"err_msg":"x"}', 3),
        ("kraken", 200, {}, '{"error":["EAPI:Rate limit exceeded"]}', 5),
        ("kraken", 200, {}, '{"error":["EGeneral:Too many requests"]}', 5),
        ("kraken", 200, {}, f'{{"error":["EService: Throttled: {NOW_S + 9:.0f}"]}}', 9),
        ("kraken", 200, {}, '{"error":["EGeneral:Temporary lockout"]}', 900),
        ("coinbase", 429, {}, '{"error":"rate_limit_exceeded"}', 1),
        ("coinbase", 429, {}, '{"error":8,"message":"resource_exhausted"}', 1),
        ("bybit", 403, {}, "403, access too frequent", 600),
        ("bybit", 200, {"X-Bapi-Limit-Reset-Timestamp": str(int((NOW_S + 3) * 1000))}, '{"retCode":10006}', 3),
        ("bybit", 200, {}, '{"retCode":10429}', 5),
        ("kucoin", 429, {"gw-ratelimit-reset": "22273"}, '{"code":"429000"}', 22.273),
        ("gate", 429, {}, '{"label":"TOO_MANY_REQUESTS"}', 10),
    ],
)
def test_limit_signals(exchange: str, status: int, headers: dict[str, str], body: str, seconds: float) -> None:
    pause = limit_signal(exchange, status, headers, body, NOW_S)
    assert pause is not None
    assert pause.seconds == pytest.approx(seconds)  # pyright: ignore[reportUnknownMemberType]
    assert pause.everything == (exchange not in ("okx", "htx", "gate"))


@pytest.mark.parametrize(
    ("exchange", "status", "headers", "body"),
    [
        ("okx", 200, {}, '{"code":"0","data":[{"last":"50011","bid":"10006"}]}'),
        ("kraken", 200, {}, '{"error":[],"result":{"unixtime":1800000000}}'),
        ("bybit", 200, {"X-Bapi-Limit-Reset-Timestamp": "1800000003000"}, '{"retCode":0}'),
        ("bybit", 403, {}, "The Amazon CloudFront distribution is configured to block access from your country."),
        ("okx", 403, {}, "<html>"),
        ("binance", 451, {}, "{}"),
        ("binance", 500, {}, "{}"),
    ],
)
def test_what_is_no_limit_signal(exchange: str, status: int, headers: dict[str, str], body: str) -> None:
    assert limit_signal(exchange, status, headers, body, NOW_S) is None


def bucket(amount: float, window_s: float, scope: Scope = "egress") -> Bucket:
    return Bucket(name="b", amount=amount, window_s=window_s, kind="rolling", scope=scope, source="")


def htx(left: int, for_s: float) -> dict[str, str]:
    ends_ms = str((NOW_S + for_s) * 1000)
    return {"X-HB-RateLimit-Requests-Remain": str(left), "X-HB-RateLimit-Requests-Expire": ends_ms}


# An address's buckets of a second, a minute and five, and an account's of a second.
BUCKETS = [bucket(10, 1), bucket(6000, 60), bucket(4500, 300), bucket(20, 1, "account")]


@pytest.mark.parametrize(
    ("exchange", "headers", "meant", "used", "span_s"),
    [
        ("binance", {"X-MBX-USED-WEIGHT-1M": "250"}, 1, 250, 60),
        ("binanceusdm", {"x-mbx-used-weight-1m": "250"}, 1, 250, 60),
        ("binance", {"X-SAPI-USED-IP-WEIGHT-1M": "12"}, 1, 12, 60),
        ("binance", {"X-MBX-USED-WEIGHT-1M": "-1"}, None, 0, 0),
        ("binance", {}, None, 0, 0),
        # 3 more until 400 ms from now: of a second's 10 that is 7 spent within 600 ms.
        ("htx", htx(3, 0.4), 0, 7, 0.6),
        ("htx", htx(99, 0.4), 0, 0, 0.6),
        ("htx", htx(3, 90), 2, 4497, 210),
        ("htx", {"X-HB-RateLimit-Requests-Remain": "3"}, None, 0, 0),
        ("htx", {"ratelimit-limit": "800", "ratelimit-remaining": "790", "ratelimit-interval": "1000"}, 0, 10, 1),
        ("htx", {"ratelimit-limit": "800", "ratelimit-remaining": "790", "ratelimit-interval": "3000"}, None, 0, 0),
        ("kucoin", {"gw-ratelimit-limit": "9", "gw-ratelimit-remaining": "7", "gw-ratelimit-reset": "9"}, None, 0, 0),
        # An account's limit says nothing of the address's.
        ("bybit", {"X-Bapi-Limit": "50", "X-Bapi-Limit-Status": "49"}, 3, 1, 1),
        ("okx", {"X-MBX-USED-WEIGHT-1M": "250"}, None, 0, 0),
    ],
)  # fmt: skip
def test_what_the_exchange_counted(
    exchange: str, headers: dict[str, str], meant: int | None, used: float, span_s: float
) -> None:
    count = counted(exchange, headers, NOW_S)
    found = None if count is None else count.speaks_of(BUCKETS)
    assert found == meant
    if count is not None and found is not None:
        assert count.used(BUCKETS[found]) == used
        assert count.span_s(BUCKETS[found]) == pytest.approx(span_s, abs=0.01)


def test_kucoins_pool_of_thirty_seconds() -> None:
    headers = {"gw-ratelimit-limit": "2000", "gw-ratelimit-remaining": "1997", "gw-ratelimit-reset": "22273"}
    count = counted("kucoin", headers, NOW_S)
    assert count is not None
    pool = bucket(2000, 30)
    assert (count.speaks_of([pool]), count.used(pool)) == (0, 3)
    assert count.span_s(pool) == pytest.approx(7.727)
