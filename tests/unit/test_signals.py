"""What an answer says of limits, in the words of every table, and what the exchange has counted."""

from email.utils import formatdate

import pytest

from schemas.accounts import Secret
from workers.exchange.counts import counted
from workers.exchange.redaction import Redactor
from workers.exchange.signals import limit_signal
from workers.limits.costs import Bucket, Scope
from workers.limits.tables import shipped

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("exchange", "status", "headers", "body", "seconds"),
    [
        ("binance", 429, {"Retry-After": "12"}, "", 12),
        ("binance", 418, {"retry-after": "300"}, "", 300),
        ("binance", 418, {}, "", 120),
        ("binance", 429, {"Retry-After": formatdate(NOW_S + 30, usegmt=True)}, "", 30),
        ("binance", 429, {"Retry-After": "soon"}, "", 2),
        ("binance", 429, {"Retry-After": "99999999"}, "", 2),
        ("binance", 429, {"Retry-After": "0.1"}, "", 1),
        ("binance", 429, {"Retry-After": "86400"}, "", 3600),
        ("binance", 418, {"Retry-After": "0"}, "", 120),
        ("binance", 418, {"Retry-After": "5"}, "", 120),
        ("binance", 418, {"Retry-After": "864000"}, "", 3 * 86400),
        ("binance", 418, {}, f'{{"code":-1003,"msg":"IP banned until {NOW_S + 600:.0f}000. Please"}}', 600),
        ("binance", 418, {"Retry-After": "10"}, f'{{"code":-1003,"msg":"IP banned until {NOW_S + 600:.0f}000."}}', 600),
        ("binance", 429, {}, f'{{"code":-1003,"msg":"IP banned until {NOW_S + 600:.0f}000."}}', 600),
        ("binance", 400, {}, f'{{"code":-1003,"msg":"IP banned until {NOW_S - 600:.0f}000."}}', 120),
        ("binance", 418, {"Date": formatdate(NOW_S + 90)}, f'{{"msg":"IP banned until {NOW_S + 600:.0f}000."}}', 510),
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
        ("bybit", 403, {}, '{"retCode":10009,"retMsg":"IP has been banned"}', 600),
        ("bybit", 200, {}, '{"retCode":10009,"retMsg":"IP has been banned"}', 600),
        ("bybit", 200, {"X-Bapi-Limit-Reset-Timestamp": str(int((NOW_S + 3) * 1000))}, '{"retCode":10009}', 600),
        ("bybit", 200, {"X-Bapi-Limit-Reset-Timestamp": str(int((NOW_S - 3) * 1000))}, '{"retCode":10006}', 5),
        ("bybit", 200, {"X-Bapi-Limit-Reset-Timestamp": str(int((NOW_S + 3) * 1000))}, '{"retCode":10006}', 3),
        ("bybit", 200, {}, '{"retCode":10429}', 5),
        ("kucoin", 429, {"gw-ratelimit-reset": "22273"}, '{"code":"429000"}', 22.273),
        ("kucoin", 429, {"gw-ratelimit-reset": "1", "Retry-After": "9"}, '{"code":"429000"}', 9),
        ("gate", 429, {}, '{"label":"TOO_MANY_REQUESTS"}', 10),
        ("gate", 429, {"X-Gate-RateLimit-Reset-Timestamp": f"{NOW_S + 7:.0f}"}, '{"label":"TOO_MANY_REQUESTS"}', 7),
        ("bingx", 500, {}, '{"code":100410,"msg":"code:100410:rate limited"}', 300),
        ("bingx", 200, {}, f'{{"code":100410,"msg":"and will be unblocked after {NOW_S + 20:.0f}000"}}', 20),
        ("coinone", 200, {}, '{"result":"error","error_code":"4","error_msg":"Blocked user access"}', 60),
        ("coinone", 200, {}, '{"result":"error","errorCode":"4","errorMsg":"Blocked user access."}', 60),
        ("bingx", 429, {"X-RateLimit-Requests-Expire": "10000"}, "{}", 10),
        ("bingx", 429, {"X-RateLimit-Requests-Expire": f"{NOW_S + 7:.0f}000"}, "{}", 7),
        ("bitfinex", 500, {}, '["error",11010,"ratelimit: error"]', 60),
        ("bitfinex", 429, {"Retry-After": "1"}, '{"error":"ERR_RATE_LIMIT"}', 10),
        ("bitfinex", 429, {"Retry-After": "600"}, '{"error":"ERR_RATE_LIMIT"}', 60),
        ("phemex", 429, {"x-ratelimit-retry-after": "45"}, "{}", 45),
        ("phemex", 429, {"x-ratelimit-retry-after-CONTRACT": "45"}, "{}", 45),
        ("luno", 429, {"X-RateLimit-Retry-After": "45"}, "", 45),
        ("upbit", 418, {}, '{"error":{"message":"blocked for 60 seconds"}}', 60),
        ("upbit", 418, {}, '{"error":{"message":"blocked"}}', 120),
        ("binanceus", 418, {"Retry-After": "60"}, "", 120),
        ("tokocrypto", 418, {"Retry-After": "60"}, "", 120),
        ("delta", 429, {"X-RATE-LIMIT-RESET": "45000"}, '{"error":{"code":"too_many_requests"}}', 45),
        ("upbit", 418, {}, '{"error":{"message":"blocked for 300 seconds"}}', 300),
    ],
)
def test_limit_signals(exchange: str, status: int, headers: dict[str, str], body: str, seconds: float) -> None:
    pause = limit_signal(shipped().answers(exchange), status, headers, body, NOW_S)
    assert pause is not None
    assert pause.seconds == pytest.approx(seconds)  # pyright: ignore[reportUnknownMemberType]
    assert (pause.of == "buckets") == (exchange in ("okx", "htx", "gate", "bitfinex"))


@pytest.mark.parametrize(
    ("exchange", "status", "headers", "body"),
    [
        ("okx", 200, {}, '{"code":"0","data":[{"last":"50011","bid":"10006"}]}'),
        ("kraken", 200, {}, '{"error":[],"result":{"unixtime":1800000000}}'),
        ("bybit", 200, {"X-Bapi-Limit-Reset-Timestamp": "1800000003000"}, '{"retCode":0}'),
        ("bybit", 403, {}, "The Amazon CloudFront distribution is configured to block access from your country."),
        ("okx", 403, {}, "<html>"),
        ("okx", 200, {}, '{"code":"0","data":[{"last":"1015"}],"msg":"error code: 1015"}'),
        ("binance", 451, {}, "{}"),
        ("binance", 500, {}, "{}"),
    ],
)
def test_what_is_no_limit_signal(exchange: str, status: int, headers: dict[str, str], body: str) -> None:
    assert limit_signal(shipped().answers(exchange), status, headers, body, NOW_S) is None


PAGE = "<!DOCTYPE html><html><head><title>Access denied</title>" + " " * 3000 + "<span>1015</span>"


@pytest.mark.parametrize("exchange", ["okx", "htx", "gate", "kraken", "bitstamp"])
@pytest.mark.parametrize(
    ("status", "headers", "body", "seconds"),
    [
        (429, {}, "error code: 1015", 60),
        (403, {}, "error code: 1015", 60),
        (403, {"Retry-After": "30"}, PAGE, 30),
        (429, {"Retry-After": "3"}, PAGE, 10),
        (429, {}, '{"status":429,"error_code":1015,"retry_after":30}', 30),
        (429, {"Retry-After": "3600"}, "<h2>You are being rate limited</h2>", 3600),
    ],
)
def test_what_stands_before_an_exchange_refuses_the_whole_address(
    exchange: str, status: int, headers: dict[str, str], body: str, seconds: float
) -> None:
    pause = limit_signal(shipped().answers(exchange), status, headers, body, NOW_S)
    assert pause is not None
    assert (pause.seconds, pause.of, pause.most_s) == (seconds, "address", 3 * 86400)


@pytest.mark.parametrize(
    ("exchange", "status", "body", "of"),
    [
        (
            "binance",
            429,
            '{"code":-1015,"msg":"Too many new orders; current limit is 100 orders per 10 SECOND."}',
            "account",
        ),
        ("binance", 429, '{"code":-1003,"msg":"Too many requests"}', "unsaid"),
        ("binance", 418, '{"code":-1003,"msg":"Way too many requests; IP banned until 1800000600000."}', "address"),
        ("kraken", 200, '{"error":["EAPI:Rate limit exceeded"]}', "account"),
        ("kraken", 200, '{"error":["EOrder:Rate limit exceeded"]}', "account"),
        ("kraken", 200, '{"error":["EGeneral:Too many requests"]}', "unsaid"),
        ("bybit", 200, '{"retCode":10006,"retMsg":"Too many visits!"}', "account"),
        ("bybit", 200, '{"retCode":10018,"retMsg":"Exceeded the IP Rate Limit."}', "unsaid"),
        ("bybit", 200, '{"retCode":10009,"retMsg":"IP has been banned."}', "address"),
        ("hyperliquid", 200, '{"status":"err","response":"Too many cumulative requests sent (1 > 0)"}', "account"),
        ("binance", 429, "<html>-1015</html>", "address"),
    ],
)
def test_whose_limit_it_was(exchange: str, status: int, body: str, of: str) -> None:
    pause = limit_signal(shipped().answers(exchange), status, {}, body, NOW_S)
    assert pause is not None
    assert pause.of == of


def test_a_page_is_not_from_an_endpoint() -> None:
    for body, of in (("<html>busy</html>", "address"), ("Too Many Requests", "buckets")):
        pause = limit_signal(shipped().answers("okx"), 429, {}, body, NOW_S)
        assert pause is not None
        assert (pause.of, pause.most_s) == (of, 3600)


@pytest.mark.parametrize(
    ("headers", "body", "source"),
    [
        ({"retry-after": "5"}, "", "header Retry-After"),
        ({"Retry-After": "5"}, "try again in 9 seconds", "text of the answer"),
        ({"Retry-After": "0"}, "try again in 9 seconds", "text of the answer"),
        ({"X-Bapi-Limit-Reset-Timestamp": f"{NOW_S + 9:.0f}000"}, "", "header x-bapi-limit-reset-timestamp"),
        ({}, "", "our backoff"),
        ({}, "banned until 1", "our backoff"),
        ({"Retry-After": "0"}, "", "our backoff, as header Retry-After names no time to come"),
        ({"Retry-After": "99999999999"}, "", "our backoff, as header Retry-After names no time to come"),
        ({"Retry-After": "soon"}, "", "our backoff, as header Retry-After names no time to come"),
    ],
)
def test_where_the_length_is_from_is_told(headers: dict[str, str], body: str, source: str) -> None:
    pause = limit_signal(shipped().answers("bybit"), 429, headers, body, NOW_S)
    assert pause is not None
    assert pause.source == source
    assert pause.told == (not source.startswith("our backoff"))


def test_a_reason_holds_no_part_of_a_secret_however_the_body_is_indented() -> None:
    """It is hidden before the text is cut and its blanks are taken out."""
    hide = Redactor([Secret("k3y-of-the-account")]).hide
    for before in range(1000, 1030):
        pause = limit_signal(shipped().answers("okx"), 429, {}, " " * before + "k3y-of-the-account", 0.0, hide)
        assert pause
        assert "k3y" not in pause.reason


def bucket(amount: float, window_s: float, scope: Scope = "egress") -> Bucket:
    return Bucket(name="b", amount=amount, window_s=window_s, kind="rolling", scope=scope, source="")


def htx(left: int, for_s: float) -> dict[str, str]:
    ends_ms = str((NOW_S + for_s) * 1000)
    return {"X-HB-RateLimit-Requests-Remain": str(left), "X-HB-RateLimit-Requests-Expire": ends_ms}


def bingx(left: int, for_s: float) -> dict[str, str]:
    ends_ms = str((NOW_S + for_s) * 1000)
    return {"X-RateLimit-Requests-Remain": str(left), "X-RateLimit-Requests-Expire": ends_ms}


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
        ("bitget", {"x-mbx-used-remain-limit": "7"}, 0, 3, 1),
        ("upbit", {"Remaining-Req": "group=candles; min=1800; sec=9"}, 0, 1, 1),
        ("upbit", {"Remaining-Req": "group=candles"}, None, 0, 0),
        ("phemex", {"x-ratelimit-capacity": "5000", "x-ratelimit-remaining": "4990"}, 2, 10, 300),
        ("phemex", {"x-ratelimit-capacity": "100", "x-ratelimit-remaining": "90"}, None, 0, 0),
        ("bingx", bingx(3, 0.4), 0, 7, 0.6),
        ("bingx", bingx(3, 99999), None, 0, 0),
        ("bingx", {"X-RateLimit-Requests-Remain": "3", "X-RateLimit-Requests-Expire": "400"}, 0, 7, 0.6),
    ],
)  # fmt: skip
def test_what_the_exchange_counted(
    exchange: str, headers: dict[str, str], meant: int | None, used: float, span_s: float
) -> None:
    count = counted(shipped().answers(exchange).counts, headers, NOW_S)
    found = None if count is None else count.speaks_of(BUCKETS)
    assert found == meant
    if count is not None and found is not None:
        assert count.used(BUCKETS[found]) == used
        assert count.span_s(BUCKETS[found]) == pytest.approx(span_s, abs=0.01)


def test_gates_windows_of_ten_seconds() -> None:
    headers = {"X-Gate-RateLimit-Limit": "200", "X-Gate-RateLimit-Requests-Remain": "150"}
    endpoint = bucket(200, 10)
    for reset, span_s in (({}, 10), ({"X-Gate-RateLimit-Reset-Timestamp": str(NOW_S + 4)}, 6)):
        count = counted("gate", headers | reset, NOW_S)
        assert count is not None
        assert (count.speaks_of([endpoint]), count.used(endpoint)) == (0, 50)
        assert count.span_s(endpoint) == pytest.approx(span_s)


def test_kucoins_pool_of_thirty_seconds() -> None:
    headers = {"gw-ratelimit-limit": "2000", "gw-ratelimit-remaining": "1997", "gw-ratelimit-reset": "22273"}
    count = counted("kucoin", headers, NOW_S)
    assert count is not None
    pool = bucket(2000, 30)
    assert (count.speaks_of([pool]), count.used(pool)) == (0, 3)
    assert count.span_s(pool) == pytest.approx(7.727)
