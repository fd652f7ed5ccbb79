"""The drop-in: the same program against ccxt and against ours gives the same data and errors, to the letter."""

import asyncio
import inspect
import multiprocessing
import re
import warnings
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import aiohttp
import ccxt as blocking  # pyright: ignore[reportMissingTypeStubs]
import ccxt.async_support as awaited  # pyright: ignore[reportMissingTypeStubs]
import pytest
import pytest_asyncio
import requests

import workers.dropin.ccxt as fleet_blocking
import workers.dropin.ccxt_async as fleet_awaited
import workers.dropin.ccxt_pro as fleet_pro
from deploy.local import Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.accounts import ACCOUNTS
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.errors import ConfigError
from schemas.methods import PUBLIC_READS
from tests.conftest import new_vhost
from tests.support.fleet import opened
from workers.dropin import door, way

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXCHANGES = ("binance", "okx", "htx", "coinbase", "kraken")
BTC = "BTC/USDT"
# What a program may give a method, by its arguments' names.
GIVEN: dict[str, Any] = {"symbol": BTC, "symbols": [BTC], "code": "BTC", "codes": ["BTC"], "timeframe": "1m"}
# Asked in addition, right and wrong.
MORE: list[tuple[str, tuple[Any, ...]]] = [
    ("fetch_ohlcv", (BTC, "1h", 1_760_000_000_000, 5)),
    ("fetch_ohlcv", (BTC, "7m")),
    ("fetch_ohlcv", (BTC, "1m", None, -1)),
    ("fetch_ticker", ("NO/PE",)),
    ("fetch_ticker", (None,)),
    ("fetch_tickers", (["NO/PE"],)),
    ("fetch_order_book", (BTC, 999_999)),
    ("fetch_trades", (BTC, None, 3, {"nonsense": "a b/c&d=é"})),
    ("fetch_tickers", ()),
    ("fetch_balance", ()),
    ("create_order", (BTC, "limit", "buy", 1, 1)),
    ("watch_ticker", (BTC,)),
    ("load_markets", (True,)),
]


ANNA = next(account for account in ACCOUNTS.values() if account.name == "anna")
KEYS = {"apiKey": ANNA.key, "secret": ANNA.secret, "password": ANNA.passphrase}


class Place(NamedTuple):
    """A fleet, by its RabbitMQ's URL, its Redis, and what it leads to."""

    url: str
    redis: Redis
    simulator: Simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    rabbitmq: RabbitMQ, vhost_numbers: Iterator[int], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """Yield a fleet on a simulator, whose clock stands still: what is asked twice is the same."""
    folder = tmp_path_factory.mktemp("dropin")
    url = await new_vhost(rabbitmq, vhost_numbers)
    async with Redis(folder / "redis") as redis, Simulator(arguments=["--no-limits"]) as simulator:
        await simulator.set_clock(frozen=True)
        async with Services(
            folder, simulated(simulator.urls), broker_url=url, redis_url=redis.url, workers=1
        ) as services:
            await opened(services)
            yield Place(url, redis, simulator)
    door.close()


@pytest.fixture
def fleet(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return the fleet, which programs find by their environment."""
    monkeypatch.setenv("FLEET_BROKER_URL", place.url)
    return place


def programs(kind: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """Every public read that a class has, and more, with arguments."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    for name in sorted(PUBLIC_READS):
        method = getattr(kind, name, None)
        if method is not None:
            takes = list(inspect.signature(method).parameters.values())[1:]
            needed = [each.name for each in takes if each.default is each.empty]
            found.append((name, tuple(GIVEN.get(each, BTC) for each in needed)))
    return [*found, *MORE]


async def outcome(exchange: Any, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call gives, or what it raises, and what the instance keeps of the last answer."""
    try:
        if exchange.synchronous:
            data = await asyncio.to_thread(getattr(exchange, method), *args)
        else:
            data = await getattr(exchange, method)(*args)
    except Exception as error:
        return "raised", type(error), str(error), last(exchange)
    return "data", repr(data), last(exchange)


def last(exchange: Any) -> Any:
    """The last answer; where calls are made side by side it may be that of any."""
    return exchange.last_http_response if exchange.synchronous else None


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "blocking"])
@pytest.mark.parametrize("name", EXCHANGES)
async def test_a_program_sees_no_difference(fleet: Place, name: str, is_async: bool) -> None:
    settings = {**ccxt_config(name, fleet.simulator.urls[name]), "timeout_on_exit": 0}
    theirs = getattr(awaited if is_async else blocking, name)({**settings, "enableRateLimit": False})
    ours = getattr(fleet_awaited if is_async else fleet_blocking, name)(settings)
    now_ms = theirs.milliseconds()
    theirs.milliseconds = ours.milliseconds = lambda: now_ms
    wrong: list[Any] = []
    try:
        for method, args in programs(type(theirs)):
            one, other = await outcome(theirs, method, args), await outcome(ours, method, args)
            if one != other:
                wrong.append((method, args, str(one)[:300], str(other)[:300]))
    finally:
        for each in (theirs, ours):
            closing = each.close()
            if closing is not None:
                await closing
    assert not wrong, wrong


def instance(name: str, *, is_async: bool, **settings: Any) -> Any:
    """One of ours, with nothing that leads it to the simulator: its URLs are the exchange's."""
    made = getattr(fleet_awaited if is_async else fleet_blocking, name)(settings)
    made.timeout_on_exit = 0
    return made


async def run(exchange: Any, method: str, *args: Any) -> Any:
    """A method's result, whichever kind of class it is."""
    if exchange.synchronous:
        return await asyncio.to_thread(getattr(exchange, method), *args)
    return await getattr(exchange, method)(*args)


BOTH = pytest.mark.parametrize("is_async", [True, False], ids=["async", "blocking"])


@BOTH
async def test_an_unchanged_class_s_urls_lead_to_the_lane(fleet: Place, is_async: bool) -> None:
    config: Any = {**ccxt_config("kraken", fleet.simulator.urls["kraken"]), "enableRateLimit": False}
    plain = blocking.kraken(config)
    exchange = instance("kraken", is_async=is_async)
    assert (await run(exchange, "fetch_ticker", BTC)) == await run(plain, "fetch_ticker", BTC)
    assert exchange.last_response_headers["Content-Type"].startswith("application/json")
    with pytest.raises(blocking.ExchangeError) as raised:
        await run(exchange, "public_get_depth", {"pair": "NOPE"})
    assert str(raised.value) == 'kraken {"error":["EQuery:Unknown asset pair"]}'
    assert exchange.last_request_url == "https://api.kraken.com/0/public/Depth?pair=NOPE"
    await run(exchange, "close")


@BOTH
async def test_what_the_fleet_can_t_do_is_one_of_ccxt_s_errors(
    fleet: Place, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"is_async": is_async, "timeout": 100}
    cases: list[tuple[Any, str, type[Exception], str]] = [
        (instance("bitstamp", **asked), "fetch_time", blocking.NotSupported, "bitstamp"),
        (instance("bitstamp", **asked), "fetch_markets", blocking.BadRequest, "no lane reaches 'bitstamp'"),
        (
            instance("okx", hostname="okx.example", **asked),
            "fetch_time",
            blocking.NotSupported,
            "no public API at https://okx.example; it has one at ",
        ),
        (
            instance("okx", fleet={"broker": "amqp://127.0.0.1:1/"}, **asked),
            "fetch_time",
            blocking.NetworkError,
            "127.0.0.1:1",
        ),
    ]
    monkeypatch.setattr(door, "PATIENCE", timedelta(seconds=0.1))
    for exchange, method, kind, said in cases:
        with pytest.raises(kind, match=re.escape(said)):
            await run(exchange, method)
        await run(exchange, "close")


@BOTH
async def test_a_failing_exchange_raises_what_ccxt_would(fleet: Place, is_async: bool) -> None:
    exchange = instance("htx", is_async=is_async, timeout=100, fleet={"deadline_s": 2})
    try:
        await fleet.simulator.fault("htx", error_rate=1.0)
        with pytest.raises(blocking.NetworkError):
            await run(exchange, "fetch_time")
    finally:
        await fleet.simulator.clear("htx")
        await run(exchange, "close")


@BOTH
async def test_private_calls_are_refused_and_say_what_to_do(fleet: Place, is_async: bool) -> None:
    keyless = instance("okx", is_async=is_async)
    with pytest.raises(blocking.AuthenticationError, match='okx requires "apiKey" credential'):
        await run(keyless, "fetch_balance")
    keyed = instance("okx", is_async=is_async, **KEYS)
    assert BTC in await run(keyed, "load_markets")  # the public way
    for method, args in {"fetch_balance": (), "create_order": (BTC, "limit", "buy", 1, 1)}.items():
        with pytest.raises(
            blocking.NotSupported, match=r"okx (GET|POST) https://www.okx.com/api\S+ not sent: .*direct"
        ):
            await run(keyed, method, *args)
    for each in (keyless, keyed):
        await run(each, "close")


@BOTH
async def test_private_calls_of_this_program_are_charged(fleet: Place, is_async: bool) -> None:
    settings: Any = {**KEYS, **ccxt_config("kraken", fleet.simulator.urls["kraken"])}
    direct = {"private": "direct", "redis": fleet.redis.url}
    exchange = instance("kraken", is_async=is_async, **settings, fleet=direct)
    settings["enableRateLimit"] = False
    plain = blocking.kraken(settings)
    for _ in range(2):
        assert await run(exchange, "fetch_ticker", BTC) == await run(plain, "fetch_ticker", BTC)
        assert await run(exchange, "fetch_balance") == await run(plain, "fetch_balance")
    assert way.twin_of(exchange).purse.calls == 2
    await run(exchange, "close")
    if not is_async:  # which may be used after that
        assert await run(exchange, "fetch_balance") == await run(plain, "fetch_balance")
        await run(exchange, "close")


async def test_what_can_t_be_charged_says_so_and_stays_as_it_was(fleet: Place) -> None:
    pro = fleet_pro.kraken({**KEYS, "timeout_on_exit": 0, "fleet": {"private": "direct"}})
    assert await pro.fetch_time() > 0
    before = pro.session
    with pytest.raises(ConfigError, match=r"a class of ccxt\.pro"):
        await pro.fetch_balance()
    assert pro.session is before
    assert await pro.fetch_time() > 0
    await pro.close()


async def test_a_program_s_own_session_and_proxies_are_no_way_past_the_fleet(fleet: Place) -> None:
    proxies: list[dict[str, Any]] = [{"socksProxy": "socks5h://127.0.0.1:1"}, {"httpsProxy": "http://a:1"}]
    async with aiohttp.ClientSession() as session:
        for settings in ({"session": session}, *proxies):
            exchange = instance("kraken", is_async=True, **settings)
            assert await exchange.fetch_time() > 0
            await exchange.close()
        assert not session.closed
    own = requests.Session()
    for settings in ({"session": own}, *proxies):
        assert await run(instance("kraken", is_async=False, **settings), "fetch_time") > 0


async def test_threads_loops_and_forks_each_have_their_answers(fleet: Place) -> None:
    exchange = instance("kraken", is_async=False)
    times = await asyncio.gather(*(run(exchange, "fetch_time") for _ in range(20)))
    assert len(set(times)) == 1

    def in_loops() -> list[int]:
        async def ask() -> int:
            async with instance("kraken", is_async=True) as made:
                return int(await made.fetch_time())

        return [asyncio.run(ask()) for _ in range(3)]

    assert await asyncio.to_thread(in_loops) == times[:3]
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
            with context.Pool(2) as pool:
                found = await asyncio.to_thread(pool.map, time_of, ["kraken"] * 4)
        assert set(found) == set(times)


def time_of(name: str) -> int:
    """The exchange's time, in a process of its own."""
    return int(getattr(fleet_blocking, name)().fetch_time())


async def test_pages_and_many_calls_at_once(fleet: Place) -> None:
    async with instance("binance", is_async=True) as exchange:
        since_ms = exchange.parse8601("2026-11-01T00:00:00Z")
        candles = await exchange.fetch_ohlcv(BTC, "1m", since_ms, 2500, {"paginate": True})
        assert len(candles) == 2500
        symbols = [symbol for symbol in exchange.symbols if symbol.endswith("/USDT")]
        found = await asyncio.gather(*(exchange.fetch_ohlcv(symbol, "1h", None, 5) for symbol in symbols))
        assert [len(each) for each in found] == [5] * len(symbols)


async def test_the_limiter_of_ccxt_is_off_and_that_is_said_once(
    fleet: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way, "_paced", list[str]())
    exchange = instance("kraken", is_async=False, rateLimit=3_600_000)
    with caplog.at_level("INFO", logger="workers.dropin"):
        for _ in range(3):
            await run(exchange, "fetch_time")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("workers.dropin")]
    assert said == ["ccxt-fleet paces the calls to kraken and all others: enableRateLimit is ignored"]
