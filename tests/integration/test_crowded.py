"""A worker without room for answers: no answer is bought and thrown away, and small ones pass meanwhile."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from aiohttp import web

from schemas.config import WorkerConfig
from tests.support.exchange_lanes import Answers, Lanes, call
from tests.support.fleet import wait_until
from workers.exchange.bounds import FIRST_AT_ONCE, MIB, Bounds, Crowded
from workers.exchange.errors import judge
from workers.exchange.lane_exchange import LaneExchange

BTC: Final[dict[str, Any]] = {"symbol": "BTC/USDT"}
TICKER: Final = '{"symbol":"BTCUSDT","lastPrice":"5","bidPrice":"4","askPrice":"6"}'
LEVEL: Final = [["1." + "0" * 1000, "1"]]
BOOK: Final = json.dumps({"bids": LEVEL * 900, "asks": []})  # 0.9 MB


class Slow:
    """Of books the first half comes, and the rest when the test lets it. All else comes at once.

    Attributes:
        books: how many were asked for.
        open: whether their second half comes.
    """

    def __init__(self) -> None:
        self.books = 0
        self.open = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "depth" not in request.path:
            return web.Response(text=TICKER, content_type="application/json")
        self.books += 1
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.content_length = len(BOOK)
        await answer.prepare(request)
        await answer.write(BOOK[: len(BOOK) // 2].encode())
        await self.open.wait()
        await answer.write(BOOK[len(BOOK) // 2 :].encode())
        return answer


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Slow, Answers]]:
    exchange, answers = Slow(), Answers()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", exchange.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield exchange, answers
    exchange.open.set()
    await runner.cleanup()


def crowded(lanes: Lanes, exchange: str, at: Answers, bounds: Bounds) -> LaneExchange:
    return lanes.lane(exchange, at.settings(exchange), bounds=bounds)[0]


async def until_answered(lane: LaneExchange, deadline_s: float) -> Any:
    """Repeats an attempt that the worker hands back for want of room, as the dispatcher would."""
    while True:
        attempt = call("binance", max_wait_s=0.3, timeout_s=deadline_s - time.monotonic())
        try:
            return await lane.call("fetch_order_book", BTC, attempt)
        except Crowded as error:
            assert attempt.http_calls == 0
            assert judge(error, attempt).pause_s > 0
            await asyncio.sleep(0.01)


async def test_nothing_is_bought_twice_for_want_of_room(slow: tuple[Slow, Answers], lanes: Lanes) -> None:
    exchange, at = slow
    bounds = Bounds(WorkerConfig(max_answers_mib=4))
    lane, other = crowded(lanes, "binance", at, bounds), crowded(lanes, "binanceus", at, bounds)
    deadline_s = time.monotonic() + 60
    asked = asyncio.gather(*(until_answered(lane, deadline_s) for _ in range(20)))
    await wait_until(lambda: exchange.books, "books are under way")
    tickers = [(await each.call("fetch_ticker", BTC, call("binance")))["last"] for each in (lane, other) * 20]
    assert tickers == [5] * 40  # those pass whatever others wait for
    assert exchange.books <= FIRST_AT_ONCE
    assert bounds.held <= 4 * MIB
    exchange.open.set()
    books = await asked
    assert all(len(book["bids"]) == 900 for book in books)
    assert exchange.books == 20
    await wait_until(lambda: bounds.held == 0, "what was held is given back")


async def test_one_exchange_leaves_half_of_the_room_to_others(slow: tuple[Slow, Answers], lanes: Lanes) -> None:
    exchange, at = slow
    bounds = Bounds(WorkerConfig(max_answers_mib=4))
    lane, other = crowded(lanes, "binance", at, bounds), crowded(lanes, "binanceus", at, bounds)
    mine = asyncio.gather(*(lane.call("fetch_order_book", BTC, call("binance")) for _ in range(10)))
    await wait_until(lambda: exchange.books == 2, "half of the room is taken")
    others = asyncio.gather(*(other.call("fetch_order_book", BTC, call("binanceus")) for _ in range(10)))
    await wait_until(lambda: exchange.books == 4, "the other half is taken")
    exchange.open.set()
    assert len(await mine) == len(await others) == 10
    assert exchange.books == 20


async def test_a_call_that_gives_up_waiting_keeps_no_room(slow: tuple[Slow, Answers], lanes: Lanes) -> None:
    exchange, at = slow
    bounds = Bounds(WorkerConfig(max_answers_mib=2))
    lane = crowded(lanes, "binance", at, bounds)
    first = asyncio.ensure_future(lane.call("fetch_order_book", BTC, call("binance")))
    await wait_until(lambda: exchange.books == 1, "the first is under way")
    waiting = [asyncio.ensure_future(lane.call("fetch_order_book", BTC, call("binance"))) for _ in range(5)]
    with pytest.raises(Crowded):
        await lane.call("fetch_order_book", BTC, call("binance", max_wait_s=0))
    for each in waiting[:4]:
        each.cancel()
    exchange.open.set()
    assert (await first)["bids"]
    assert (await waiting[4])["bids"]
    assert exchange.books == 2
    assert (await lane.call("fetch_order_book", BTC, call("binance")))["bids"]


async def test_a_list_that_is_read_on_after_its_attempt_has_ended_keeps_no_room(server: Answers, lanes: Lanes) -> None:
    """Of the lists of markets that ccxt reads side by side one fails, and the largest comes after that."""
    bounds = Bounds(WorkerConfig())
    markets = json.dumps({"symbols": [{"symbol": f"A{number}USDT", "more": "x" * 1000} for number in range(4000)]})
    server.by_path, server.held_path = {"/api/v3/exchangeInfo": markets}, "/api/v3/exchangeInfo"
    server.answer = (503, {}, "{}")
    settings = server.settings("binance") | {"has": {"fetchCurrencies": False}, "options": {"fetchMargins": False}}
    del settings["markets"]
    lane = lanes.lane("binance", settings, bounds=bounds)[0]
    with pytest.raises(Exception, match="503"):
        await lane.open()
    seen = 0

    async def was_read() -> bool:
        nonlocal seen
        seen = max(seen, bounds.held)
        return seen > MIB and not bounds.held

    server.held_path = ""
    await wait_until(was_read, "the list was read, and its room is free", timeout_s=10, every_s=0.0005)
