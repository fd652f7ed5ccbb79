"""A program's own ccxt, charged to the fleet's budgets: never one call too many, nothing else changed."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import ccxt as blocking  # pyright: ignore[reportMissingTypeStubs]
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import ccxt.pro as ccxt_pro  # pyright: ignore[reportMissingTypeStubs]
import pytest
import redis.asyncio as redis_client

from deploy.servers import Redis
from deploy.simulator.accounts import ACCOUNTS
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.errors import ConfigError
from schemas.operator import pauses
from tests.support.charged_programs import Read, instance, program
from tests.support.exchange_lanes import Answers, Lanes, call
from tests.support.fleet import wait_until
from workers.budget.budget import Budget
from workers.direct import charged
from workers.direct.blocking import run as direct_run
from workers.exchange.errors import NoBudget

BTC = "BTC/USDT"
ANNA = next(account for account in ACCOUNTS.values() if account.name == "anna")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(exchanges=["okx", "binance", "kraken"]) as running:
        yield running


@pytest.fixture
async def unlimited() -> AsyncIterator[Simulator]:
    """The plain instance beside ours keeps to no limit."""
    async with Simulator(exchanges=["okx", "binance", "kraken"], arguments=["--no-limits"]) as running:
        yield running


async def test_programs_and_a_lane_on_one_address_never_pass_a_limit(
    simulator: Simulator, lanes: Lanes, redis_url: str
) -> None:
    settings = ccxt_config("okx", simulator.urls["okx"])
    lane, _ = lanes.lane("okx", settings)
    await lane.open()
    async with AsyncExitStack() as stack:
        reads: list[Read] = [
            (
                await stack.enter_async_context(
                    program(instance("okx", settings, is_async=is_async), redis_url, max_wait_s=20)
                )
            )[1]
            for is_async in (True, True, False)
        ]

        async def of_lane(*_: Any) -> Any:
            while True:
                try:
                    return await lane.call("fetch_ticker", {"symbol": BTC}, call("okx"))
                except NoBudget as error:  # no room as far ahead as workers reserve: dispatchers ask again, too
                    await asyncio.sleep(error.wait_s)

        begun_s, answered = time.monotonic(), [0, 0, 0, 0]

        async def go_on(number: int, read: Read) -> None:
            while time.monotonic() - begun_s < 8:
                assert (await read("fetch_ticker", BTC))["symbol"] == BTC
                answered[number] += 1

        await asyncio.gather(*(go_on(number, read) for number, read in enumerate([*reads, of_lane]) for _ in range(8)))
    assert (await simulator.counters())["violations"] == 0
    assert all(answered), answered


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("exchange", ["okx", "binance", "kraken"])
async def test_answers_and_errors_are_ccxt_s_own(
    unlimited: Simulator, redis_url: str, exchange: str, is_async: bool
) -> None:
    simulator = unlimited
    await simulator.set_clock(frozen=True)
    settings = ccxt_config(exchange, simulator.urls[exchange])
    plain = instance(exchange, {**settings, "enableRateLimit": False})
    async with program(instance(exchange, settings, is_async=is_async), redis_url) as (made, read):
        try:
            right: dict[str, list[Any]] = {
                "fetch_ticker": [BTC],
                "fetch_order_book": [BTC, 5],
                "fetch_ohlcv": [BTC, "1m", None, 3],
                "fetch_markets": [],
            }
            for method, args in right.items():
                assert await read(method, *args) == await getattr(plain, method)(*args)
            wrong: dict[str, list[Any]] = {"fetch_ticker": ["NO/PE"], "fetch_ohlcv": [BTC, "7m"]}
            for method, args in wrong.items():
                with pytest.raises(blocking.BaseError) as theirs:
                    await getattr(plain, method)(*args)
                with pytest.raises(type(theirs.value)) as ours:
                    await read(method, *args)
                assert str(ours.value) == str(theirs.value)
        finally:
            await plain.close()
        assert type(made).__name__ == exchange
        assert made.purse.calls >= 4


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_order_is_sent_once_where_its_connection_ends(
    unlimited: Simulator, redis_url: str, is_async: bool
) -> None:
    keys = {"apiKey": ANNA.key, "secret": ANNA.secret, "password": ANNA.passphrase}
    settings = {**ccxt_config("okx", unlimited.urls["okx"]), **keys}

    async def came() -> int:
        return int((await unlimited.counters())["exchanges"]["okx"]["requests"])

    async with program(instance("okx", settings, is_async=is_async), redis_url) as (_, read):
        await read("fetch_time")
        await read("private_get_account_balance")
        await unlimited.fault("okx", hangs_up=True)
        await read("fetch_time")  # the first on its connection
        before = await came()
        with pytest.raises(blocking.NetworkError):
            await read("private_post_trade_order", {"instId": "BTC-USDT", "sz": "1"})
        assert await came() <= before + 1


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_refusal_pauses_all(
    server: Answers, lanes: Lanes, redis_url: str, is_async: bool, broken: bool
) -> None:
    """Also one whose body breaks off."""
    settings = server.settings("binance")
    server.by_path = {"time": f'{{"serverTime":{int(time.time() * 1000)}}}'}
    server.answer = 429, {"Retry-After": "50"}, '{"code":-1003,"msg":"Too many requests"}'
    server.broken = broken
    async with (
        program(instance("binance", settings, is_async=is_async), redis_url) as (made, read),
        program(instance("binance", settings), redis_url, max_wait_s=1) as (other, read_too),
    ):
        with pytest.raises(blocking.BaseError if broken else blocking.DDoSProtection):
            await read("fetch_ticker", BTC)
        before = len(server.hits)
        with pytest.raises(blocking.RateLimitExceeded, match=r"not sent: the exchange has to be left alone for [45]"):
            await read_too("fetch_ticker", BTC)
        assert len(server.hits) == before
        assert (made.purse.refused, other.purse.refused) == (0, 1)
        async with redis_client.from_url(redis_url) as client:
            (held,) = await pauses.held(client)
        assert held.exchange == "binance"
        lane, _ = lanes.lane("binance", settings)
        with pytest.raises(Exception, match="pause"):
            await lane.call("fetch_ticker", {"symbol": BTC}, call("binance", max_wait_s=1))


@pytest.mark.parametrize("closes", [False, True])
async def test_a_refusal_pauses_all_though_the_call_s_task_was_cancelled(
    server: Answers, redis_url: str, closes: bool
) -> None:
    """As by a time-out of the program's own. One that closes its instance at once is told nothing either."""
    server.by_path = {"time": f'{{"serverTime":{int(time.time() * 1000)}}}'}
    server.answer = 429, {"Retry-After": "50"}, '{"code":-1003,"msg":"Too many requests"}'
    server.held_path = "ticker"
    async with program(instance("binance", server.settings("binance")), redis_url) as (made, read):
        asking = asyncio.ensure_future(read("fetch_ticker", BTC))
        await wait_until(lambda: any("ticker" in hit for hit in server.hits), "the call is sent")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        closing = asyncio.create_task(made.close()) if closes else None
        await asyncio.sleep(0)
        server.held_path = ""
        async with redis_client.from_url(redis_url) as client:

            async def is_paused() -> bool:
                return {held.exchange for held in await pauses.held(client)} == {"binance"}

            await wait_until(is_paused, "the fleet is paused")
        if closing is not None:
            await closing


async def test_what_a_program_does_as_it_is_cancelled_is_sent(server: Answers, redis_url: str) -> None:
    """It may cancel its orders then."""
    server.answer = 200, {}, '{"code":"0","data":[]}'
    async with program(instance("okx", server.settings("okx")), redis_url) as (_, read):
        begun = asyncio.Event()

        async def trades() -> None:
            try:
                begun.set()
                await asyncio.sleep(60)
            finally:
                await read("public_get_public_time")

        trading = asyncio.create_task(trades())
        await begun.wait()
        trading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trading
    assert len(server.hits) == 1


async def test_a_program_that_closes_does_not_wait_for_an_exchange_that_never_answers(
    server: Answers, redis_url: str
) -> None:
    server.held_path = "public/time"
    async with program(instance("okx", {**server.settings("okx"), "timeout": 600_000}), redis_url) as (_, read):
        asking = asyncio.ensure_future(read("fetch_time"))
        await wait_until(lambda: server.hits, "the call is sent")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    server.held_path = ""
    # What would be told to Redis later would open a connection that nobody closes.
    running: list[Any] = [task.get_coro() for task in asyncio.all_tasks()]
    assert not [each for each in running if "/workers/budget/" in each.cr_code.co_filename]


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("exchange", ["binance", "okx"])
async def test_the_first_call_at_a_new_redis_waits_as_any_other(
    simulator: Simulator, redis_url: str, exchange: str, is_async: bool
) -> None:
    """Also where it measures the exchange's clock first."""
    async with redis_client.from_url(redis_url) as client:
        await client.flushdb()
    settings = ccxt_config(exchange, simulator.urls[exchange])
    async with program(instance(exchange, settings, is_async=is_async), redis_url) as (made, read):
        await read("fetch_time")
        assert made.purse.refused == 0
        assert made.purse.longest_s > 1


def always_late(*_: object) -> bool:
    return True


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_program_that_is_too_busy_to_send_in_its_turn_is_told_so_when_its_time_is_over(
    server: Answers, redis_url: str, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    server.answer = 200, {}, '{"code":"0","data":[{"ts":"1"}]}'
    settings = server.settings("okx")
    async with program(instance("okx", settings, is_async=is_async), redis_url, max_wait_s=2) as (made, read):
        await read("fetch_time")
        came = len(server.hits)
        monkeypatch.setattr(Budget, "is_late", always_late)
        with pytest.raises(blocking.RateLimitExceeded, match=r"not sent: this program was too busy"):
            await read("fetch_time")
        assert (made.purse.refused, len(server.hits)) == (1, came)
        monkeypatch.undo()
        await read("fetch_time")


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_shadow_only_counts(server: Answers, redis_url: str, is_async: bool) -> None:
    server.answer = 200, {}, '{"code":"0","data":[{"ts":"1"}]}'
    settings = server.settings("okx")
    async with program(instance("okx", settings, is_async=is_async), redis_url, shadow=True) as (made, read):
        refused = -1
        while refused < made.purse.refused:  # until it is one of those who share the limits
            refused = made.purse.refused
            await read("fetch_time")
            await asyncio.sleep(0.5)
        before = len(server.hits)
        await asyncio.gather(*(read("fetch_time") for _ in range(30)))
    assert len(server.hits) == before + 30 == made.purse.calls
    assert made.purse.longest_s > 1  # okx allows 10 in 2 s


async def test_garbage_closes_itself_in_whatever_thread_it_is_collected(server: Answers, redis_url: str) -> None:
    """Also in that of the event loop: all blocking instances of the program would wait for ever."""
    server.answer = 200, {}, '{"code":"0","data":[{"ts":"1"}]}'
    async with program(instance("okx", server.settings("okx"), is_async=False), redis_url) as (_, read):
        garbage = charged(instance("okx", {**server.settings("okx"), "apiKey": "anna"}, is_async=False), redis_url)
        await asyncio.to_thread(garbage.fetch_time)
        purse = garbage.purse
        garbage.itself = garbage

        async def collects() -> None:
            gc.collect()

        async def closed() -> bool:
            # Again each time: the thread that made the call may hold it for a moment yet.
            await asyncio.to_thread(direct_run, collects())
            return not purse.is_open

        del garbage
        await wait_until(closed, "it was closed")
        await read("fetch_time")


async def test_one_that_closes_while_redis_is_away_leaves_its_part_to_the_next(
    server: Answers, redis_url: str, redis_server: Redis
) -> None:
    """Redis can't be told, and would set the part aside for five minutes: all of the limit, of a program alone."""
    server.answer = 200, {}, '{"code":"0","data":[{"ts":"1"}]}'
    async with program(instance("okx", server.settings("okx")), redis_url) as (_, first):
        await first("fetch_time")
        redis_server.freeze()
    redis_server.thaw()
    async with program(instance("okx", server.settings("okx")), redis_url, max_wait_s=30) as (_, second):
        await second("fetch_time")


@pytest.mark.parametrize("is_async", [True, False])
async def test_all_instances_of_a_program_are_one_of_those_that_share_a_limit(
    server: Answers, redis_url: str, is_async: bool
) -> None:
    """Or each would make the parts smaller that workers have while Redis is away."""
    server.answer = 200, {}, '{"code":"0","data":[{"ts":"1"}]}'

    async def are_there(client: redis_client.Redis) -> int:
        any_client: Any = client
        found: list[bytes] = await any_client.keys("fleet:{okx}:*:members")
        of_each: list[int] = [await any_client.hlen(key) for key in found]
        return sum(number - 1 for number in of_each)  # beside the members there is `gen`

    def of(key: str) -> Any:
        return instance("okx", {**server.settings("okx"), "apiKey": key, "secret": key}, is_async=is_async)

    async with redis_client.from_url(redis_url) as client:
        async with program(of("anna"), redis_url) as (_, first):
            await first("fetch_time")
            async with program(of("boris"), redis_url) as (_, second), program(of(""), redis_url) as (_, third):
                await second("fetch_time")
                await third("fetch_time")
                assert await are_there(client) == 1
            await first("fetch_time")
            assert await are_there(client) == 1
        assert await are_there(client) == 0
        async with program(of("anna"), redis_url) as (_, again):
            await again("fetch_time")
            assert await are_there(client) == 1


async def test_what_can_t_be_charged_is_said(redis_url: str) -> None:
    async with program(instance("okx", {}), redis_url) as (made, _):
        with pytest.raises(ConfigError, match="okx: it is charged already"):
            charged(made, redis_url)
    for settings, said in {"socksProxy": "httpsProxy", "aiohttp_trust_env": "httpsProxy"}.items():
        with pytest.raises(ConfigError, match=said):
            charged(instance("okx", {settings: "socks5://127.0.0.1:1"}), redis_url)
    with pytest.raises(ConfigError, match=r"a class of ccxt\.pro"):
        charged(ccxt_pro.okx(), redis_url)
    with pytest.raises(ConfigError, match="redis"):
        charged(instance("okx", {}), "http://localhost")
    with pytest.raises(ConfigError, match="IP address"):
        charged(instance("okx", {}), redis_url, local_addr="eu1")
    with pytest.raises(TypeError, match="an instance of a ccxt class"):
        charged(ccxt.okx, redis_url)


async def test_where_redis_is_away_a_call_says_so(server: Answers) -> None:
    server.answer = 200, {}, '{"code":"0","data":[{"ts":"1"}]}'
    async with program(instance("okx", server.settings("okx")), "redis://127.0.0.1:1", max_wait_s=0.5) as (_, read):
        with pytest.raises(blocking.RateLimitExceeded, match="Redis is away"):
            await read("fetch_time")
    assert not server.hits
