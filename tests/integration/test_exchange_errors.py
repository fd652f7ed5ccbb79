"""Every known error body of nine exchanges, through ccxt's real classes and a real HTTP server, to what is next."""

import pytest

from dispatcher import returns
from dispatcher.returns import Move
from schemas.messages import ErrorCode, Outcome, Try
from tests.support.exchange_lanes import Answers, Lanes, call
from workers.exchange.errors import judge

RATE_LIMITED, UNAVAILABLE = ErrorCode.RATE_LIMITED, ErrorCode.EXCHANGE_UNAVAILABLE
BAD_SYMBOL = ErrorCode.BAD_SYMBOL
EXCHANGE_ERROR, AUTHENTICATION = ErrorCode.EXCHANGE_ERROR, ErrorCode.AUTHENTICATION
# What the dispatcher does next: by the code, whatever class of ccxt's it came from.
MOVES = {
    RATE_LIMITED: Move.ANOTHER,
    UNAVAILABLE: Move.ANOTHER,
    ErrorCode.EXCHANGE_TIMEOUT: Move.ANOTHER,
    ErrorCode.MAINTENANCE: Move.ANOTHER,
    ErrorCode.RESTRICTED: Move.ELSEWHERE,
    ErrorCode.BAD_RESPONSE: Move.ANOTHER,
    EXCHANGE_ERROR: Move.DOUBTED,
    BAD_SYMBOL: Move.ELSEWHERE,
    AUTHENTICATION: Move.ELSEWHERE,
    ErrorCode.CLOCK: Move.ELSEWHERE,
    ErrorCode.INVALID_ARGUMENTS: Move.END,
}
CLOUDFLARE = "<html><head><title>Access denied</title></head><body><span>1015</span>You are being rate limited</body>"
HTML = "<html><body>Just a moment...</body></html>"


@pytest.mark.parametrize(
    ("exchange", "status", "headers", "body", "code", "pause_s"),
    [
        ("binance", 429, {"Retry-After": "7"}, '{"code":-1003,"msg":"Too much request weight used"}', RATE_LIMITED, 7),
        ("binance", 418, {"Retry-After": "130"}, '{"code":-1003,"msg":"Way too much"}', RATE_LIMITED, 130),
        ("binance", 403, {}, HTML, RATE_LIMITED, 60),
        ("binance", 451, {}, '{"code":0,"msg":"restricted location"}', ErrorCode.RESTRICTED, 0),
        ("binance", 503, {}, '{"code":-1008,"msg":"Server is currently overloaded"}', UNAVAILABLE, 0),
        ("binance", 400, {}, '{"code":-1003,"msg":"Too many requests"}', RATE_LIMITED, 10),
        ("binance", 400, {}, '{"code":-1121,"msg":"Invalid symbol."}', BAD_SYMBOL, 0),
        ("binance", 400, {}, '{"code":-1100,"msg":"Illegal characters"}', ErrorCode.INVALID_ARGUMENTS, 0),
        ("binance", 408, {}, '{"code":-1007,"msg":"Timeout waiting for response"}', ErrorCode.EXCHANGE_TIMEOUT, 0),
        ("binance", 200, {}, '{"code":-1001,"msg":"Internal error"}', UNAVAILABLE, 0),
        ("binance", 200, {}, '{"code":-1008,"msg":"Request throttled by system-level protection"}', UNAVAILABLE, 0),
        ("binance", 400, {}, '{"code":-1021,"msg":"Timestamp outside of recvWindow"}', ErrorCode.CLOCK, 0),
        ("binance", 401, {}, '{"code":-2015,"msg":"Invalid API-key, IP, or permissions"}', AUTHENTICATION, 0),
        ("okx", 200, {}, '{"code":"50011","msg":"Too Many Requests","data":[]}', RATE_LIMITED, 2),
        ("okx", 429, {}, '{"code":"50011","msg":"Too Many Requests","data":[]}', RATE_LIMITED, 2),
        ("okx", 429, {}, "Too Many Requests", RATE_LIMITED, 2),
        ("okx", 200, {}, '{"code":"50061","msg":"limit","data":[]}', RATE_LIMITED, 2),
        ("okx", 503, {}, '{"code":"50001","msg":"Service unavailable","data":[]}', ErrorCode.MAINTENANCE, 0),
        ("okx", 200, {}, '{"code":"51001","msg":"Instrument ID does not exist","data":[]}', BAD_SYMBOL, 0),
        ("htx", 429, {}, '{"status":"error","err-code":"too-many-requests","err-msg":"x"}', RATE_LIMITED, 2),
        ("htx", 200, {}, '{"status":"error","err-code":"rate-too-many-requests","err-msg":"x"}', RATE_LIMITED, 2),
        ("htx", 200, {}, '{"status":"error","err-code":"base-request-exceed-frequency-limit"}', RATE_LIMITED, 2),
        ("htx", 200, {}, '{"status":"error","err-code":"invalid-param","err-msg":"request limit"}', RATE_LIMITED, 2),
        ("htx", 200, {}, '{"status":"error","err_code":1032,"err_msg":"x"}', RATE_LIMITED, 3),
        ("htx", 200, {}, '{"status":"error","err-code":"invalid-parameter","err-msg":"invalid symbol"}', BAD_SYMBOL, 0),
        ("coinbase", 429, {}, '{"error":"rate_limit_exceeded","message":"x"}', RATE_LIMITED, 1),
        ("coinbase", 429, {}, "Too many requests", RATE_LIMITED, 2),
        ("coinbase", 429, {}, '{"error":8,"message":"resource_exhausted"}', RATE_LIMITED, 1),
        ("coinbase", 404, {}, '{"error":"NOT_FOUND","message":"no such product"}', BAD_SYMBOL, 0),
        ("kraken", 200, {}, '{"error":["EAPI:Rate limit exceeded"]}', RATE_LIMITED, 5),
        ("kraken", 200, {}, '{"error":["EGeneral:Temporary lockout"]}', RATE_LIMITED, 900),
        ("kraken", 200, {}, '{"error":["EGeneral:Too many requests"]}', RATE_LIMITED, 5),
        ("kraken", 200, {}, '{"error":["EService: Throttled: 1"]}', RATE_LIMITED, 5),
        ("kraken", 200, {}, '{"error":["EService:Unavailable"]}', UNAVAILABLE, 0),
        ("kraken", 200, {}, '{"error":["EQuery:Unknown asset pair"]}', BAD_SYMBOL, 0),
        ("bybit", 200, {}, '{"retCode":10006,"retMsg":"Too many visits!"}', RATE_LIMITED, 5),
        ("bybit", 200, {}, '{"retCode":10018,"retMsg":"Exceeded the IP Rate Limit"}', RATE_LIMITED, 5),
        ("bybit", 429, {}, '{"retCode":10429,"retMsg":"system level frequency protection"}', RATE_LIMITED, 5),
        ("bybit", 403, {}, "403, access too frequent", RATE_LIMITED, 600),
        ("bybit", 403, {}, '{"retCode":10009,"retMsg":"IP has been banned"}', RATE_LIMITED, 600),
        ("bybit", 200, {}, '{"retCode":10009,"retMsg":"IP has been banned"}', RATE_LIMITED, 600),
        ("okx", 429, {"Retry-After": "30"}, CLOUDFLARE, RATE_LIMITED, 30),
        ("okx", 403, {"Retry-After": "30"}, CLOUDFLARE, RATE_LIMITED, 30),
        ("htx", 403, {}, "error code: 1015", RATE_LIMITED, 60),
        ("bingx", 200, {}, '{"code":100410,"msg":"rate limited"}', RATE_LIMITED, 300),
        ("bingx", 500, {}, '{"code":100410,"msg":"rate limited"}', RATE_LIMITED, 300),
        ("phemex", 429, {"x-ratelimit-retry-after": "45"}, "{}", RATE_LIMITED, 45),
        ("kucoin", 429, {"gw-ratelimit-reset": "3000"}, '{"code":"429000","msg":"Too many requests"}', RATE_LIMITED, 3),
        ("gate", 429, {}, '{"label":"TOO_MANY_REQUESTS","message":"Request Rate Limit Exceeded"}', RATE_LIMITED, 10),
        ("bitget", 429, {}, '{"code":"429","msg":"Too Many Requests"}', RATE_LIMITED, 2),
        # Statuses that ccxt has no class for, and whose body it would return as data.
        ("okx", 599, {}, "[]", UNAVAILABLE, 0),
        ("okx", 302, {"Location": "/elsewhere"}, "", ErrorCode.BAD_RESPONSE, 0),
        ("okx", 425, {}, '{"code":"0","data":[]}', ErrorCode.BAD_RESPONSE, 0),
        # Nothing at status 200.
        ("okx", 200, {}, '{"code":"0","data":[]}', ErrorCode.BAD_RESPONSE, 0),
        ("binance", 200, {}, "{}", ErrorCode.BAD_RESPONSE, 0),
        ("bybit", 200, {}, HTML, ErrorCode.BAD_RESPONSE, 0),
    ],
)  # fmt: skip
async def test_bodies(
    server: Answers,
    lanes: Lanes,
    exchange: str,
    status: int,
    headers: dict[str, str],
    body: str,
    code: ErrorCode,
    pause_s: float,
) -> None:
    server.answer = (status, headers, body)
    lane, budget = lanes.lane(exchange, server.settings(exchange))
    attempt = call(exchange)
    with pytest.raises(Exception) as raised:
        await lane.call("fetch_ticker", {"symbol": "BTC/USDT"}, attempt)
    verdict = judge(raised.value, attempt)
    assert verdict.code is code, verdict
    assert verdict.outcome is (Outcome.REJECTED if code is ErrorCode.INVALID_ARGUMENTS else Outcome.FAILED)
    assert verdict.pause_s == pause_s
    assert returns.move(Try(exchange, verdict.outcome, verdict.code)) is MOVES[code]
    assert len(server.hits) == len(budget.granted) == attempt.http_calls == 1
    if pause_s:
        assert 0 < await budget.paused(budget.granted[0]) <= pause_s
