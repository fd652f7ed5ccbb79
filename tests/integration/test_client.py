"""The client against a fleet at work: reads, whole results, errors, and what is told where something is away."""

import asyncio
import importlib
import time
from datetime import UTC, datetime, timedelta

import aio_pika
import pytest

from schemas import Closed, Fleet, Http, HttpAnswer, NoDispatcher, NotAllowed, NotConnected, Request
from schemas.client.errors import (
    BadSymbol,
    DeadlineExceeded,
    InvalidArguments,
    InvalidRequest,
    TooLarge,
    UnknownExchange,
)
from schemas.errors import ConfigError
from tests.support.fleet import Stand, wait_until
from tests.support.tcp_proxy import Proxy


async def test_a_read_is_its_data(stand: Stand) -> None:
    async with Fleet(stand.url) as fleet:
        ticker = await fleet.fetch_ticker("BTC/USDT", exchanges=["binance", "okx"], deadline=timedelta(seconds=20))
        candles = await fleet.fetch_ohlcv("BTC/USDT", "1m", None, 3, exchanges="okx")
        book = await fleet.fetch_order_book("BTC/USDT", 5, {}, exchanges="kraken", strategy="failover", priority="bulk")
        markets = await fleet.load_markets(exchanges="okx")
    assert ticker["symbol"] == "BTC/USDT"
    assert ticker["last"]
    assert len(candles) == 3
    assert "BTC/USDT" in markets
    assert book["bids"]


async def test_one_answer_from_each(stand: Stand) -> None:
    async with Fleet(stand.url) as fleet:
        tickers = await fleet.fetch_ticker("BTC/USDT", exchanges=["binance", "okx", "nowhere"], mode="all")
        answers = await fleet.request("fetch_time", exchanges=["binance", "okx"], mode="all")
        with pytest.raises(UnknownExchange):
            await fleet.fetch_ticker("BTC/USDT", exchanges=["nowhere"], mode="any")
    assert set(tickers) == {"binance", "okx"}
    assert tickers["okx"]["last"]
    assert {name: str(error.code) for name, error in tickers.errors.items()} == {"nowhere": "unknown_exchange"}
    assert {answer.exchange for answer in answers} == {"binance", "okx"}


async def test_an_http_call(stand: Stand) -> None:
    url = "https://api.kraken.com/0/public/Ticker?pair="
    async with Fleet(stand.url) as fleet:
        answer = await fleet.http(f"{url}XBTUSDT", exchanges="kraken", deadline=timedelta(seconds=20))
        wrong = await fleet.http(f"{url}NONE", exchanges=["kraken"])
        with pytest.raises(InvalidArguments, match="a user in it"):
            await fleet.http("https://me@api.kraken.com/0/public/Time", exchanges="kraken")
        mapped = Request(http=Http("https://api.kraken.com/0/public/Time"), exchanges=["kraken"])
        (result,) = [each async for each in fleet.map([mapped])]
    assert answer.status == 200
    assert list(answer.json()["result"]) == ["XBTUSDT"]
    assert answer.headers["content-type"].startswith("application/json")
    assert wrong.json()["error"] == ["EQuery:Unknown asset pair"]
    assert HttpAnswer.of(result.get()).json()["error"] == []


async def test_a_whole_result(stand: Stand) -> None:
    async with Fleet(stand.url) as fleet:
        answer = await fleet.request("fetch_ticker", {"symbol": "BTC/USDT"}, exchanges="okx", id="mine-1")
        wrong = await fleet.request("fetch_ticker", {"symbol": "NO/SUCH"}, exchanges="okx")
    assert (answer.id, answer.exchange, answer.lane) == ("mine-1", "okx", "okx")
    assert answer.request.args == {"symbol": "BTC/USDT"}
    assert answer.attempts[-1].exchange_ms > 0
    assert answer.received_ms <= answer.completed_ms
    assert answer.get()["symbol"] == "BTC/USDT"
    assert not wrong.ok
    with pytest.raises(BadSymbol, match=r"^bad_symbol: .*\(request "):
        wrong.get()


async def test_an_error_is_ccxt_s_as_well(stand: Stand) -> None:
    ccxt = importlib.import_module("ccxt")
    async with Fleet(stand.url) as fleet:
        with pytest.raises(ccxt.BadSymbol) as caught:
            await fleet.fetch_ticker("NO/SUCH", exchanges=["okx"])
        with pytest.raises(ccxt.NetworkError):
            await fleet.fetch_ticker("BTC/USDT", deadline=datetime.now(UTC) - timedelta(seconds=9))
    assert isinstance(caught.value, BadSymbol)
    assert caught.value.method == "fetch_ticker"
    assert not caught.value.retryable


async def test_what_can_t_be_sent_is_an_error_too(stand: Stand) -> None:
    async with Fleet(stand.url) as fleet:
        with pytest.raises(InvalidArguments, match="encoded"):
            await fleet.fetch_ticker("BTC/USDT", {"x": 2**80})
        with pytest.raises(TooLarge):
            await fleet.fetch_tickers(["BTC/USDT"] * 100_000)
        with pytest.raises(ValueError, match="time zone"):
            await fleet.fetch_ticker("BTC/USDT", deadline=datetime.now())
        with pytest.raises(ValueError, match="fits no result"):
            fleet.results("okx")
        wrong = await fleet.request("fetch_time", strategy="fast")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        with pytest.raises(InvalidRequest, match="expected one of weighted_round_robin, round_robin"):
            wrong.get()


async def test_nothing_that_takes_requests(vhost: str) -> None:
    async with Fleet(vhost) as fleet:
        for priority in ("live", "bulk"):
            with pytest.raises(NoDispatcher, match=r"127\.0\.0\.1:\d+.*ccxt-fleet up"):
                await fleet.fetch_ticker("BTC/USDT", priority=priority)


async def test_an_exchange_without_its_queue(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    await admin.declare_exchange("fleet.requests", "fanout", durable=True)
    async with Fleet(vhost) as fleet:
        with pytest.raises(NoDispatcher, match="start the fleet"):
            await fleet.fetch_ticker("BTC/USDT")


async def test_a_deadline_holds_where_nobody_answers(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    exchange = await admin.declare_exchange("fleet.requests", "fanout", durable=True)
    await (await admin.declare_queue("fleet.requests", durable=True)).bind(exchange)
    async with Fleet(vhost) as fleet:
        with pytest.raises(DeadlineExceeded, match="is a dispatcher running"):
            await fleet.fetch_ticker("BTC/USDT", deadline=timedelta(seconds=0.2))


async def test_an_answer_that_lay_unread_while_the_program_stood_still_is_read(stand: Stand) -> None:
    async with Fleet(stand.url) as fleet:
        await fleet.fetch_time(exchanges="okx")
        asking = asyncio.create_task(fleet.request("fetch_time", exchanges="okx", deadline=timedelta(seconds=1)))
        for _ in range(12):  # it is written
            await asyncio.sleep(0)
        time.sleep(2.5)  # noqa: ASYNC251
        answer = await asking
        assert answer.ok, answer.error


async def test_a_program_that_stood_still_is_told_so(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    exchange = await admin.declare_exchange("fleet.requests", "fanout", durable=True)
    await (await admin.declare_queue("fleet.requests", durable=True)).bind(exchange)
    async with Fleet(vhost) as fleet:
        asking = asyncio.create_task(fleet.request("fetch_time", deadline=timedelta(seconds=0.5)))
        await asyncio.sleep(0.1)
        time.sleep(2.0)  # noqa: ASYNC251
        answer = await asking
        assert "this process stood still for" in str(answer.error)


async def test_a_wrong_host_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_BROKER_URL", "amqp://me:pa55word@127.0.0.1:1/")
    with pytest.raises(NotConnected, match=r"127\.0\.0\.1:1.*FLEET_BROKER_URL") as caught:
        async with Fleet(patience=timedelta(seconds=0.5)):
            pass
    assert "pa55word" not in repr(caught.value) + str(caught.value)


def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Fleet's url") as caught:
        Fleet("http://me:pa55word@host/")
    assert "pa55word" not in str(caught.value)
    monkeypatch.setenv("FLEET_BROKER_URL", "localhost")
    with pytest.raises(ConfigError, match="FLEET_BROKER_URL"):
        Fleet()


async def test_a_host_that_never_answers_is_told(through: str, proxy: Proxy) -> None:
    proxy.freeze()
    with pytest.raises(NotConnected, match="no answer"):
        async with Fleet(through, patience=timedelta(seconds=0.5)):
            pass


async def test_a_wrong_password_is_told(vhost: str) -> None:
    with pytest.raises(NotAllowed, match="user or password") as caught:
        async with Fleet(vhost.replace("guest:guest", "guest:pa55word")):
            pass
    assert "pa55word" not in str(caught.value)


async def test_it_is_used_while_it_is_open(vhost: str) -> None:
    fleet = Fleet(vhost)
    with pytest.raises(Closed, match="not open"):
        await fleet.fetch_time()
    async with fleet:
        pass
    with pytest.raises(Closed, match="block is over"):
        await fleet.fetch_time()
    with pytest.raises(Closed, match="opened before"):
        async with fleet:
            pass


async def test_another_loop_is_refused(vhost: str) -> None:
    async with Fleet(vhost) as fleet:
        with pytest.raises(Closed, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(fleet.ask(Request("fetch_time"))))


async def test_calls_that_are_under_way_end_with_it(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    exchange = await admin.declare_exchange("fleet.requests", "fanout", durable=True)
    queue = await admin.declare_queue("fleet.requests", durable=True)
    await queue.bind(exchange)
    async with Fleet(vhost) as fleet:
        call = asyncio.create_task(fleet.fetch_time(deadline=timedelta(minutes=5)))
        gone = asyncio.create_task(fleet.fetch_time(deadline=timedelta(minutes=5)))
        async with queue.iterator(timeout=20) as requests:
            await anext(requests)
            await anext(requests)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    with pytest.raises(Closed, match="was closed before the answer"):
        await call


async def test_calls_end_with_it_while_rabbitmq_is_silent(through: str, proxy: Proxy) -> None:
    async with Fleet(through) as fleet:
        proxy.freeze()
        call = asyncio.create_task(fleet.fetch_time(deadline=timedelta(minutes=5)))
        await wait_until(lambda: proxy.held, "it is published")
    with pytest.raises(Closed):
        await call
    proxy.thaw()


async def test_a_request_s_id_is_its_own(stand: Stand) -> None:
    request = Request("fetch_time", exchanges=["okx"], id=f"twice-{time.time_ns()}")
    async with Fleet(stand.url) as fleet:
        (first,), (second,) = await asyncio.gather(fleet.ask(request), fleet.ask(request))
    assert first.ok
    with pytest.raises(InvalidRequest, match="under way already"):
        second.get()
