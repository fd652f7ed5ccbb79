"""What an answer says of limits, in the words of every table, and what the exchange has counted."""

from email.utils import formatdate

import pytest

from workers.exchange.counts import counted
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
    pause = limit_signal(shipped().answers(exchange), status, headers, body, NOW_S)
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
    assert limit_signal(shipped().answers(exchange), status, headers, body, NOW_S) is None


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
    count = counted(shipped().answers(exchange).counts, headers, NOW_S)
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
