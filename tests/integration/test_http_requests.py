"""Requests for one HTTP call of an exchange's public API: the answer to the letter, within the budget, or an error."""

import base64
import gzip
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from ccxt.base.errors import NotSupported  # pyright: ignore[reportMissingTypeStubs]

from deploy.local import Services
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.messages import ErrorCode, Http
from tests.support.exchange_lanes import Answers, Lanes, call
from tests.support.fleet import Client, Stand
from workers.exchange.errors import judge

# Candles of a day that is over: the same whenever they are asked for.
DAY_MS = 1_760_000_000_000 // 86_400_000 * 86_400_000
DAY_S = DAY_MS // 1000
URLS = {
    "binance": f"https://api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=1h&startTime={DAY_MS}&limit=5",
    "okx": f"https://www.okx.com/api/v5/market/history-candles?instId=BTC-USDT&bar=1H&after={DAY_MS}&limit=5",
    "htx": "https://api.huobi.pro/v1/common/symbols",
    "coinbase": "https://api.coinbase.com/api/v3/brokerage/market/products/BTC-USD/candles"
    f"?start={DAY_S}&end={DAY_S + 18000}&granularity=ONE_HOUR",
    "kraken": "https://api.kraken.com/0/public/AssetPairs?pair=XBTUSDT",
}


@pytest.mark.parametrize("exchange", URLS)
async def test_an_answer_is_the_exchange_s_own_to_the_letter(stand: Stand, exchange: str) -> None:
    parts = urlsplit(URLS[exchange])
    direct = stand.simulator.urls[exchange] + parts.path + (f"?{parts.query}" if parts.query else "")
    # From an address of its own, which has its own limits.
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.9", 0))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(direct) as answer:
        body, status = await answer.text(), answer.status
    assert status == 200, body
    sent = await stand.client.send({"http": {"url": URLS[exchange]}, "exchanges": [exchange]})
    result = (await stand.client.answer(sent)).result
    assert result.ok, result
    assert (result.method, result.exchange, result.lane) == ("http", exchange, exchange)
    assert (result.data["status"], result.data["body"]) == (200, body)
    assert "json" in result.data["headers"]["content-type"]
    assert not {"content-length", "content-encoding", "transfer-encoding"} & set(result.data["headers"])
    counters = await stand.simulator.counters()
    assert counters["exchanges"][exchange]["violations"] == 0


async def test_what_no_lane_has_ends_with_the_reason(stand: Stand) -> None:
    for url, said in {
        "https://api.binance.com/api/v3/account": "binance has no public GET /api/v3/account in ccxt",
        "https://169.254.169.254/latest/meta-data": "binance has no public API at https://169.254.169.254; it has one",
    }.items():
        answer = await stand.client.answer(await stand.client.send({"http": {"url": url}, "exchanges": ["binance"]}))
        assert answer.code == ErrorCode.NOT_SUPPORTED
        assert answer.result.error is not None
        assert said in answer.result.error.message


async def test_of_several_exchanges_the_one_whose_url_it_is_answers(stand: Stand) -> None:
    request = {"http": {"url": URLS["kraken"]}, "exchanges": ["binance", "okx", "kraken"], "strategy": "failover"}
    result = (await stand.client.answer(await stand.client.send(request))).result
    assert result.ok, result
    assert result.exchange == "kraken"


async def test_another_lane_of_the_exchange_answers_where_one_fails(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with Simulator(exchanges=["binance"]) as ill, Simulator(exchanges=["binance"]) as well:
        lanes = {
            "binance.ill": {"ccxt": ccxt_config("binance", ill.urls["binance"]), "local_addr": "127.0.0.2"},
            "binance.well": {"ccxt": ccxt_config("binance", well.urls["binance"]), "local_addr": "127.0.0.3"},
        }
        async with (
            Services(tmp_path, {"lanes": lanes}, broker_url=vhost, redis_url=redis_url, workers=1),
            Client.on(vhost) as client,
        ):
            for faults in ({"error_rate": 1.0}, {"garbage": "html"}, {"down": "refused"}, {"ban_s": 3}):
                await ill.fault("binance", **faults)
                for _ in range(4):
                    request = {"http": {"url": URLS["binance"]}, "exchanges": ["binance"]}
                    result = (await client.answer(await client.send(request))).result
                    assert result.ok, result
                    assert (result.lane, result.data["status"]) == ("binance.well", 200)
                await ill.clear("binance")


def lane_of(lanes: Lanes, server: Answers, exchange: str) -> Any:
    return lanes.lane(exchange, server.settings(exchange))[0]


OF_THE_CALL = [
    ("binance", 400, '{"code":-1121,"msg":"Invalid symbol."}'),
    ("binance", 400, '{"code":-1100,"msg":"Illegal characters"}'),
    ("binance", 401, '{"code":-2014,"msg":"API-key format invalid."}'),
    ("binance", 404, "<html>not here</html>"),
    ("binance", 414, "<html>too long</html>"),
    ("binance", 200, "[]"),
    ("binance", 200, '{"a": 1.10, "b" : [ ] }\n'),
    ("okx", 200, '{"code":"51001","msg":"Instrument ID does not exist","data":[]}'),
    ("okx", 200, '{"code":"59999","msg":"x","data":[]}'),
    ("kraken", 200, '{"error":["EQuery:Unknown asset pair"]}'),
]
DATA = ("[]", '{"a": 1.10, "b" : [ ] }\n')
OF_THE_EXCHANGE = [
    ("binance", 429, '{"code":-1003,"msg":"Too many requests"}', ErrorCode.RATE_LIMITED),
    ("binance", 418, '{"code":-1003,"msg":"IP banned"}', ErrorCode.RATE_LIMITED),
    ("binance", 503, '{"code":-1008,"msg":"Server is currently overloaded"}', ErrorCode.EXCHANGE_UNAVAILABLE),
    ("binance", 502, "<html>bad gateway</html>", ErrorCode.EXCHANGE_UNAVAILABLE),
    ("binance", 451, '{"code":0,"msg":"Service unavailable from a restricted location"}', ErrorCode.RESTRICTED),
    ("binance", 200, "<html>a page</html>", ErrorCode.BAD_RESPONSE),
    ("binance", 302, "", ErrorCode.BAD_RESPONSE),
    ("okx", 200, '{"code":"50011","msg":"Too Many Requests","data":[]}', ErrorCode.RATE_LIMITED),
    ("kraken", 200, '{"error":["EGeneral:Too many requests"]}', ErrorCode.RATE_LIMITED),
    ("kraken", 200, '{"error":["EService:Unavailable"]}', ErrorCode.EXCHANGE_UNAVAILABLE),
]


@pytest.mark.parametrize(("exchange", "status", "body"), OF_THE_CALL)
async def test_what_the_exchange_says_of_the_call_is_the_answer(
    lanes: Lanes, server: Answers, exchange: str, status: int, body: str
) -> None:
    server.answer = status, {"X-Mbx-Used-Weight-1m": "7", "Set-Cookie": "a=b"}, body
    of = call(exchange)
    data = await lane_of(lanes, server, exchange).call_http(Http(URLS[exchange]), of)
    assert (data["status"], data["body"]) == (status, body)
    assert of.refused is not (body in DATA)
    assert data["headers"]["x-mbx-used-weight-1m"] == "7"
    assert "set-cookie" not in data["headers"]


@pytest.mark.parametrize(("exchange", "status", "body", "code"), OF_THE_EXCHANGE)
async def test_what_speaks_of_the_exchange_or_of_limits_is_heeded(
    lanes: Lanes, server: Answers, exchange: str, status: int, body: str, code: ErrorCode
) -> None:
    server.answer = status, {}, body
    lane, of = lane_of(lanes, server, exchange), call(exchange)
    with pytest.raises(Exception) as raised:
        await lane.call_http(Http(URLS[exchange]), of)
    assert judge(raised.value, of).code is code


async def test_a_call_waits_for_its_budget_as_ccxt_s_would(lanes: Lanes, server: Answers) -> None:
    exchange = "binance"
    lane, budget = lanes.lane(exchange, server.settings(exchange))
    server.answer = 200, {}, '{"bids":[],"asks":[],"lastUpdateId":1}'
    await lane.call("fetch_order_book", {"symbol": "BTC/USDT", "limit": 5000}, call(exchange))
    await lane.call_http(Http("https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=5000"), call(exchange))
    (of_ccxt, of_url) = budget.granted
    assert of_url == of_ccxt
    assert any(charge.cost > 100 for charge in of_url)
    # What ccxt itself would understand is the exchange's to refuse.
    before = len(server.hits)
    server.answer = 503, {}, "{}"
    with pytest.raises(Exception):  # noqa: B017
        await lane.call_http(
            Http("https://api.binance.com/api/v3/time?maxRetriesOnFailure=5&maxRetries=5"), call(exchange)
        )
    assert len(server.hits) == before + 1


async def test_a_post_is_sent_as_it_stands_where_it_is_known_to_read(lanes: Lanes, server: Answers) -> None:
    lane, budget = lanes.lane("hyperliquid", server.settings("hyperliquid"))
    server.answer = 200, {}, '{"levels":[[],[]]}'
    http = Http("https://api.hyperliquid.xyz/info", "POST", '{"type":"l2Book","coin":"BTC"}')
    data = await lane.call_http(http, call("hyperliquid"))
    assert data["body"] == server.answer[2]
    assert [charge.cost for charge in budget.granted[-1]] == [2]
    with pytest.raises(NotSupported, match="no POST /exchange that is known to read only"):
        await lane.call_http(Http("https://api.hyperliquid.xyz/exchange", "POST", "{}"), call("hyperliquid"))


async def test_a_long_body_comes_compressed(lanes: Lanes, server: Answers) -> None:
    body = json.dumps([{"number": number} for number in range(15_000)] * 5, indent=1)
    server.answer = 200, {}, body
    data = await lane_of(lanes, server, "binance").call_http(Http(URLS["binance"]), call("binance"))
    assert gzip.decompress(base64.b64decode(data["body_gzip"])).decode() == body
    assert len(data["body_gzip"]) < len(body) / 4


async def test_no_call_leaves_after_the_deadline(stand: Stand) -> None:
    request = {"http": {"url": URLS["binance"]}, "exchanges": ["binance"], "deadline_ms": int(time.time() * 1000) - 5}
    answer = await stand.client.answer(await stand.client.send(request))
    assert answer.code == ErrorCode.DEADLINE_EXCEEDED
