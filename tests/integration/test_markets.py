"""Markets that a whole fleet shares: read once, passed on through a real Redis, never in an attempt's way."""

import asyncio
import gc
import math
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from deploy.local import Services, simulated
from deploy.processes import free_port
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.messages import ErrorCode
from schemas.runtime.store import connect
from tests.support.exchange_lanes import Answers, Lanes, call, lanes_on
from tests.support.fleet import QUICK, Client, wait_until
from tests.support.listed import TICKER, binance, lists
from workers.exchange import markets
from workers.exchange.errors import judge
from workers.exchange.lane_exchange import LaneExchange
from workers.exchange.markets import Markets
from workers.exchange.unlisted import RELIST_S

SIMULATED = ("binance", "okx", "htx", "coinbase", "kraken")
BTC, ETH, SOL = ({"symbol": f"{coin}/USDT"} for coin in ("BTC", "ETH", "SOL"))
INFO = "/api/v3/exchangeInfo"


@pytest.fixture
async def server() -> AsyncIterator[Answers]:
    """Yield a Binance that lists Bitcoin."""
    async with Answers.serving() as answers:
        answers.answer = (200, {}, TICKER)
        lists(answers, "BTC")
        answers.by_path["time"] = '{"serverTime":1800000000000}'
        yield answers


@pytest.fixture
async def workers(redis_url: str) -> AsyncIterator[list[Lanes]]:
    """Yield ten workers' lanes: nothing is common to them but Redis."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(lanes_on(redis_url)) for _ in range(10)]


async def copies(client: redis.asyncio.Redis) -> list[bytes]:
    """The keys of all copies and locks."""
    found: Any = await client.keys("fleet:*:markets:*")
    return list(found)


def inside(lane: LaneExchange) -> Any:
    """The lane's ccxt instance."""
    return lane._ccxt  # pyright: ignore[reportPrivateUsage]


def held(shared: Markets) -> list[Any]:
    """What a process holds of markets."""
    return list(shared._held.values())  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("exchange", SIMULATED)
async def test_ten_workers_cost_an_exchange_one_load(workers: list[Lanes], exchange: str) -> None:
    async with Simulator(exchanges=[exchange]) as simulator:
        settings = ccxt_config(exchange, simulator.urls[exchange])

        async def asked() -> int:
            return int((await simulator.counters())["exchanges"][exchange]["requests"])

        alone, _ = workers[0].lane(exchange, settings, markets=Markets(workers[0].client, keep_s=60))
        await alone.open()
        one_load = await asked()
        await workers[0].client.delete(*await copies(workers[0].client))

        lanes = [worker.lane(exchange, settings)[0] for worker in workers]
        await asyncio.gather(*(lane.open() for lane in lanes))
        assert await asked() == 2 * one_load
        late, _ = workers[0].lane(exchange, settings, markets=Markets(workers[0].client, keep_s=60))
        await late.open()
        assert await asked() == 2 * one_load

        # One of these has the original, all others the copy: the same to the last bit.
        for lane in (*lanes[1:], late):
            for what in ("markets", "markets_by_id", "symbols", "ids", "currencies", "currencies_by_id", "codes"):
                assert getattr(inside(lane), what) == getattr(inside(lanes[0]), what), what
            assert inside(lane).options == inside(lanes[0]).options
        assert (await late.call("fetch_ticker", BTC, call(exchange)))["symbol"] == "BTC/USDT"
        assert len(await late.call("load_markets", {}, call(exchange))) == len(inside(lanes[0]).markets)


async def test_exchanges_with_equal_settings_have_markets_of_their_own(workers: list[Lanes]) -> None:
    async with Simulator(exchanges=["binance", "okx"]) as simulator:
        # Both have the same settings, as where both have none: each takes the URLs that it knows.
        urls = [ccxt_config(exchange, url)["urls"]["api"] for exchange, url in simulator.urls.items()]
        settings = {"urls": {"api": {section: url for each in urls for section, url in each.items()}}}
        for worker in workers[:2]:  # the second one takes what the first one read
            lanes = [worker.lane(exchange, settings)[0] for exchange in simulator.urls]
            await asyncio.gather(*(lane.open() for lane in lanes))
            for lane in lanes:
                ticker = await lane.call("fetch_ticker", BTC, call(lane.exchange))
                assert ticker["symbol"] == "BTC/USDT"
            assert [inside(lane).market("BTC/USDT")["id"] for lane in lanes] == ["BTCUSDT", "BTC-USDT"]
        kept = await copies(workers[0].client)
        assert sorted(key.split(b":")[1] for key in kept) == [b"{binance}", b"{okx}"]


async def test_lanes_of_one_exchange_have_one_copy_as_long_as_one_of_them_is_open(
    server: Answers, workers: list[Lanes]
) -> None:
    worker = workers[0]
    one, other = (binance(worker, server) for _ in range(2))
    for lane in (one, other):
        await lane.open()
    assert inside(one).markets is inside(other).markets
    market = weakref.ref(held(worker.markets)[0].source)
    await one.close()
    worker.forget(one)
    assert len(held(worker.markets)) == 1
    await other.call("fetch_ticker", BTC, call("binance"))
    await other.close()
    worker.forget(other)
    assert not held(worker.markets)
    gc.collect()
    assert market() is None


async def test_what_lies_in_redis_ends_by_itself(server: Answers, workers: list[Lanes]) -> None:
    await binance(workers[0], server).open()
    (key,) = await copies(workers[0].client)  # no lock is left
    assert 0 < await workers[0].client.ttl(key) <= 60


async def test_a_new_listing_is_noticed_by_all_for_one_load(server: Answers, workers: list[Lanes]) -> None:
    lanes = [binance(worker, server) for worker in workers[:3]]
    for lane in lanes:
        await lane.open()
        with pytest.raises(Exception, match="ETH/USDT") as raised:
            await lane.call("fetch_ticker", ETH, call("binance"))
        assert judge(raised.value, call("binance")).code is ErrorCode.BAD_SYMBOL

    lists(server, "BTC", "ETH")
    await lanes[0].open(max_age_s=0)
    for lane in lanes[1:]:
        await lane.open(max_age_s=60)
        assert "ETH/USDT" not in inside(lane).markets  # its own are young enough
    forget = asyncio.get_running_loop().time()
    await wait_until(lambda: asyncio.get_running_loop().time() > forget + 0.05, "the first copy is older than the new")
    for lane in lanes[1:]:
        await lane.open(max_age_s=0.05)
    assert server.hits.count(INFO) <= 3


def tickers(server: Answers, *coins: str) -> None:
    rows = (TICKER.replace("BTC", coin) for coin in coins)
    server.by_path["ticker/24hr"] = f"[{','.join(rows)}]"


async def aged(client: redis.asyncio.Redis, by_s: float) -> None:
    """Make the copy so much older."""
    (key,) = await copies(client)
    at_us: Any = await client.hget(key, "at_us")  # pyright: ignore[reportGeneralTypeIssues]
    await client.hset(key, "at_us", str(int(at_us) - int(by_s * 1e6)))  # pyright: ignore[reportGeneralTypeIssues]


async def test_an_answer_that_names_a_new_market_makes_the_markets_be_read_again(
    server: Answers, workers: list[Lanes]
) -> None:
    await binance(workers[0], server).open()
    await aged(workers[0].client, 2 * RELIST_S)
    lanes = [binance(worker, server) for worker in workers[1:5]]
    for lane in lanes:
        await lane.open()
    lists(server, "BTC", "ETH")
    tickers(server, "BTC", "ETH", "WAT")
    for lane in lanes:
        assert set(await lane.call("fetch_tickers", {}, call("binance"))) == {"BTC/USDT", "ETHUSDT", "WATUSDT"}
        await lane.refresh(every_s=60, max_age_s=math.inf)
        assert "ETH/USDT" in inside(lane).markets
    assert server.hits.count(INFO) == 2
    # Whatever is named meanwhile: not before the time has passed.
    for number in range(3):
        tickers(server, "BTC", f"N{number}")
        for lane in lanes:
            await lane.call("fetch_tickers", {}, call("binance"))
            await lane.refresh(every_s=0.01, max_age_s=math.inf)
    assert server.hits.count(INFO) == 2
    # What stays unlisted is not looked for again.
    await aged(workers[0].client, 2 * RELIST_S)
    late = binance(workers[5], server)
    await late.open()
    tickers(server, "BTC", "WAT")
    await late.call("fetch_tickers", {}, call("binance"))
    await late.refresh(every_s=60, max_age_s=math.inf)
    assert server.hits.count(INFO) == 3
    await aged(workers[0].client, 2 * RELIST_S)
    await late.call("fetch_tickers", {}, call("binance"))
    await late.refresh(every_s=0.01, max_age_s=math.inf)
    assert server.hits.count(INFO) == 3


async def test_attempts_go_on_while_markets_are_read_again(server: Answers, workers: list[Lanes]) -> None:
    lane = binance(workers[0], server)
    await lane.open()
    server.held_path = "exchangeInfo"
    lists(server, "BTC", "ETH")
    renewal = asyncio.create_task(lane.open(max_age_s=0))
    await wait_until(lambda: server.hits.count(INFO) == 2, "the markets are asked for")
    assert (await lane.call("fetch_ticker", BTC, call("binance")))["last"] == 5
    # Another worker keeps what it has meanwhile.
    other = binance(workers[1], server)
    await other.open()
    await other.open(max_age_s=0)
    assert not renewal.done()
    server.held_path = ""
    await renewal
    assert "ETH/USDT" in await lane.call("load_markets", {}, call("binance"))
    assert server.hits.count(INFO) == 2


async def test_a_worker_that_dies_while_it_reads_delays_the_others_for_a_while_only(
    server: Answers, workers: list[Lanes]
) -> None:
    client = workers[0].client
    await binance(workers[0], server).open()
    (key,) = await copies(client)
    await client.delete(key)
    await client.set(key + b":lock", "a worker that is no more", px=700)
    lane = binance(workers[1], server)
    opening = asyncio.create_task(lane.open())
    await wait_until(lambda: client.exists(key), "it was read again")
    await opening
    assert not await client.exists(key + b":lock")
    assert server.hits.count(INFO) == 2


async def test_only_one_reads_however_long_that_takes_and_its_lock_never_outlives_it_by_much(
    server: Answers, workers: list[Lanes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markets, "LOCK_S", 0.6)
    client = workers[0].client
    server.held_path = INFO
    opening = [asyncio.create_task(binance(worker, server).open()) for worker in workers[:2]]
    await wait_until(lambda: copies(client), "one of them reads")
    (lock,) = await copies(client)
    for _ in range(20):
        assert 0 < await client.pttl(lock) <= 600
        await asyncio.sleep(0.1)
    assert server.hits.count(INFO) == 1
    server.held_path = ""
    await asyncio.gather(*opening)
    assert server.hits.count(INFO) == 1


@pytest.mark.parametrize("body", [b"", b"garbage", b"x\x9c\x03\x00\x00\x00\x00\x01"])
async def test_a_copy_that_can_not_be_read_is_replaced(server: Answers, workers: list[Lanes], body: bytes) -> None:
    client = workers[0].client
    await binance(workers[0], server).open()
    (key,) = await copies(client)
    await client.hset(key, mapping={"body": body, "digest": "other"})  # pyright: ignore[reportGeneralTypeIssues]
    lane = binance(workers[1], server)
    await lane.open()
    assert (await lane.call("fetch_ticker", BTC, call("binance")))["last"] == 5
    await binance(workers[2], server).open()
    assert server.hits.count(INFO) == 2


async def test_without_redis_each_reads_its_own(server: Answers, workers: list[Lanes]) -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}", timeout_s=0.5) as nothing:
        for worker in workers[:2]:
            lane = binance(worker, server, markets=Markets(nothing, keep_s=60))
            await lane.open()
            assert (await lane.call("fetch_ticker", BTC, call("binance")))["last"] == 5
    assert server.hits.count(INFO) == 2


async def test_a_kind_of_markets_that_is_barred_here_can_be_left_out(server: Answers, workers: list[Lanes]) -> None:
    server.by_path["/api/v3/exchangeInfo"] = server.by_path.pop("exchangeInfo")
    server.answer = (451, {}, '{"code":0,"msg":"Service unavailable from a restricted location"}')
    options: dict[str, Any] = {"fetchMargins": False}
    settings = server.settings("binance") | {"has": {"fetchCurrencies": False}, "options": options}
    del settings["markets"]
    lane = workers[0].lane("binance", settings)[0]
    with pytest.raises(Exception, match="451") as raised:
        await lane.open()
    text = lane.error_text(raised.value)
    assert "lanes.binance.ccxt.options.fetchMarkets.types, now ['spot', 'linear', 'inverse']" in text
    options["fetchMarkets"] = {"types": ["spot"]}
    await workers[0].lane("binance", settings)[0].open()


async def test_a_load_that_fails_leaves_what_there_was(server: Answers, workers: list[Lanes]) -> None:
    lane = binance(workers[0], server)
    await lane.open()
    server.by_path["exchangeInfo"] = '{"symbols":[]}'
    with pytest.raises(Exception, match="no data"):
        await lane.open(max_age_s=0)
    assert (await lane.call("fetch_ticker", BTC, call("binance")))["last"] == 5
    lists(server, "BTC", "ETH")
    await lane.open(max_age_s=0)  # nobody holds the lock
    assert "ETH/USDT" in inside(lane).markets


async def test_a_fleet_notices_a_new_listing(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with Simulator(exchanges=["okx", "kraken"]) as simulator:
        for exchange in simulator.urls:
            await simulator.fault(exchange, unlisted=["SOL"])
        config = {**simulated(simulator.urls), **QUICK, "worker": {"renew_every_s": 2.0}}
        async with Services(tmp_path, config, broker_url=vhost, redis_url=redis_url), Client.on(vhost) as client:
            answer = await client.ask("fetch_ticker", SOL)
            assert answer.code == ErrorCode.BAD_SYMBOL
            await simulator.clear("okx")

            async def okx_answers() -> bool:
                return (await client.ask("fetch_ticker", SOL)).result.lane == "okx"

            await wait_until(okx_answers, "the new listing is known")
        assert not (await simulator.counters())["violations"]
