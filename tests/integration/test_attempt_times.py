"""When an attempt's answer was there: others, who came before that, may have it."""

import asyncio

from deploy.servers import Redis
from schemas.config import WorkerConfig
from schemas.messages import Attempt, ErrorCode, Request
from schemas.runtime import results
from schemas.runtime.clock import clock_s
from tests.support.exchange_lanes import Answers, Lanes
from tests.support.fleet import wait_until
from workers.attempts import run

TIME = '{"code":"0","data":[{"ts":"1"}]}'


def attempt(method: str = "fetch_time") -> Attempt:
    now_ms = results.now_ms()
    args = {} if method == "fetch_time" else {"symbol": "BTC/USDT"}
    return Attempt(Request(method, args, "x", deadline_ms=now_ms + 60_000), "okx", 1, now_ms)


async def test_an_answer_is_there_when_it_begins_to_come(server: Answers, lanes: Lanes) -> None:
    """What comes after its head was made before it."""
    server.answer, server.body_waits = (200, {}, TIME), True
    lane, _ = lanes.lane("okx", server.settings("okx"))
    running = asyncio.create_task(run(lane, attempt(), WorkerConfig()))
    await wait_until(lambda: server.heads, "its head is on its way")
    await asyncio.sleep(1)
    half_s = clock_s() - 0.5
    server.body_waits = False
    ended = await running
    assert ended.item.code is None
    assert ended.sent_s is not None
    assert ended.sent_s <= ended.there_s < half_s


async def test_a_refusal_is_there_before_redis_knows_of_it(server: Answers, lanes: Lanes, redis_server: Redis) -> None:
    lane, _ = lanes.lane("okx", server.settings("okx"))
    server.answer = 200, {}, TIME
    assert (await run(lane, attempt(), WorkerConfig())).item.code is None
    server.held_path = "/"
    server.answer = 429, {"Retry-After": "1"}, "{}"
    running = asyncio.create_task(run(lane, attempt(), WorkerConfig()))
    await wait_until(lambda: len(server.hits) == 2, "it is sent")
    redis_server.freeze()
    server.held_path = ""
    ended = await running
    assert ended.item.code is ErrorCode.RATE_LIMITED
    assert ended.there_s < clock_s() - 0.3, "Redis is waited for, for half a second"


async def test_an_error_without_a_call_is_there_when_it_ends(lanes: Lanes, server: Answers) -> None:
    lane, _ = lanes.lane("okx", server.settings("okx"))
    before_s = clock_s()
    ended = await run(lane, attempt("fetch_funding_rate"), WorkerConfig())
    assert ended.item.code is not None
    assert not server.hits
    assert before_s <= ended.there_s <= clock_s()
