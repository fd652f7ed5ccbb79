"""What is peculiar to ccxt's blocking classes that are charged: `requests`, and threads."""

import asyncio
import time
from typing import Any

import ccxt as blocking  # pyright: ignore[reportMissingTypeStubs]
import pytest
import requests
import urllib3.util.connection
from requests.adapters import HTTPAdapter

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.errors import ConfigError
from tests.support.charged_programs import instance, program
from tests.support.exchange_lanes import Answers
from tests.support.fleet import wait_until
from workers.direct import charged
from workers.direct.blocking import BlockingCalls
from workers.exchange.charged import Send

SAYS_TIME = 200, dict[str, str](), '{"code":"0","data":[{"ts":"1"}]}'


async def test_a_call_whose_connection_takes_long_to_open_is_sent_in_a_later_turn(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kraken allows one a second, and another program uses that; the connection stays open for the next turn."""
    opened, takes_s, connect = list[float](), [0.0], urllib3.util.connection.create_connection

    def slowly(*args: Any, **how: Any) -> Any:
        opened.append(takes_s[0])
        time.sleep(takes_s[0])
        return connect(*args, **how)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", slowly)
    async with Simulator(exchanges=["kraken"]) as simulator:
        settings = ccxt_config("kraken", simulator.urls["kraken"])
        async with (
            program(instance("kraken", settings, is_async=False), redis_url, max_wait_s=30) as (made, read),
            program(instance("kraken", settings), redis_url, max_wait_s=30) as (_, read_too),
        ):
            await read("fetch_time")
            await read_too("fetch_time")

            over = asyncio.Event()

            async def uses_all() -> None:
                while not over.is_set():
                    await read_too("fetch_time")

            other = asyncio.create_task(uses_all())
            takes_s[0] = 4.0  # for less, the room of a call without an answer stays taken
            for _ in range(2):
                made.session.close()
                await read("fetch_time")
            over.set()
            await other
        assert opened[-2:] == [4.0, 4.0]
        assert (await simulator.counters())["violations"] == 0
    assert made.purse.calls == 3


async def test_a_redirect_is_no_second_call(server: Answers, redis_url: str) -> None:
    server.answer = 302, {"Location": "/elsewhere"}, SAYS_TIME[2]
    async with program(instance("okx", server.settings("okx"), is_async=False), redis_url) as (made, read):
        await read("public_get_public_time")
        assert len(server.hits) == made.purse.calls == 1


async def test_an_answer_is_that_of_its_own_thread_s_call(
    server: Answers, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: dict[str, bool] = {}
    settle = BlockingCalls._settle  # pyright: ignore[reportPrivateUsage]

    async def settled(made: BlockingCalls, call: Any, send: Send) -> None:
        answered[send.endpoint] = bool(send.answered_s or send.head)
        await settle(made, call, send)

    monkeypatch.setattr(BlockingCalls, "_settle", settled)
    server.answer, server.held_path = SAYS_TIME, "ticker"
    made = instance("okx", {**server.settings("okx")}, is_async=False)
    made.timeout = 2_000
    async with program(made, redis_url) as (_, read):
        await read("fetch_time")
        asking = asyncio.ensure_future(read("public_get_market_ticker"))
        await wait_until(lambda: any("ticker" in hit for hit in server.hits), "the call is sent")
        await read("fetch_time")
        with pytest.raises(blocking.RequestTimeout):
            await asking
    server.held_path = ""
    assert answered == {"('public',) public/time": True, "('public',) market/ticker": False}


async def test_it_leaves_from_the_address_that_it_is_charged_for(server: Answers, redis_url: str) -> None:
    server.answer = SAYS_TIME
    made = instance("okx", server.settings("okx"), is_async=False)
    async with program(made, redis_url, local_addr="127.0.0.2") as (_, read):
        await read("fetch_time")
    assert server.peers == {"127.0.0.2"}


async def test_a_session_that_sends_in_its_own_way_is_refused(server: Answers, redis_url: str) -> None:
    class Cached(requests.Session):
        """As a library brings it."""

    adapted = requests.Session()
    adapted.mount("https://", HTTPAdapter(max_retries=2))
    for session in (Cached(), adapted):
        made = instance("okx", {}, is_async=False)
        made.session = session
        with pytest.raises(ConfigError, match="a session or adapters of its own"):
            charged(made, redis_url)
    server.answer = SAYS_TIME
    made = instance("okx", server.settings("okx"), is_async=False)
    made.session.headers["X-Of-The-Program"] = "yes"
    async with program(made, redis_url) as (_, read):
        await read("fetch_time")
    assert made.session.headers["X-Of-The-Program"] == "yes"
