"""Many requests at once, the stream of results, and the blocking twin."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from schemas import Answer, Closed, Fleet, FleetSync, NoDispatcher, Request
from schemas.client.errors import BadSymbol
from tests.support.fleet import Stand, wait_until

ROOT = Path(__file__).resolve().parents[2]


def tickers(number: int) -> Iterator[Request]:
    for each in range(number):
        yield Request("fetch_ticker", {"symbol": "BTC/USDT"}, id=f"ticker-{os.getpid()}-{each}")


async def test_results_come_with_their_requests(stand: Stand) -> None:
    async with Fleet(stand.url) as fleet:
        answers = [answer async for answer in fleet.map(tickers(40), concurrency=7, progress=True)]
    assert {answer.request.id for answer in answers} == {request.id for request in tickers(40)}
    assert all(answer.ok and answer.id == answer.request.id for answer in answers)


async def test_an_error_is_one_of_the_results(stand: Stand) -> None:
    async def requests() -> AsyncIterator[Request]:
        yield Request("fetch_ticker", {"symbol": "NO/SUCH"}, exchanges=["okx"])
        yield Request("fetch_ticker", {"symbol": "BTC/USDT", "limit": 2**70})
        yield Request("fetch_time", exchanges=["okx", "kraken"], exchanges_mode="all")

    async with Fleet(stand.url) as fleet:
        answers = [answer async for answer in fleet.map(requests())]
    codes = sorted(str(answer.error.code) for answer in answers if answer.error)
    assert codes == ["bad_symbol", "invalid_arguments"]
    assert sorted(answer.exchange or "" for answer in answers if answer.ok) == ["kraken", "okx"]


async def test_no_more_are_taken_than_there_is_room_for(stand: Stand) -> None:
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for request in tickers(1_000):
            taken += 1
            yield request

    async with Fleet(stand.url) as fleet:
        async for _ in fleet.map(requests(), concurrency=5):
            await wait_until(lambda: taken >= 11, "all room is taken")
            break
        # Five under way, five that wait for us, and the one that we have.
        assert taken <= 5 + 5 + 1


async def test_what_ends_it_all_is_raised(vhost: str) -> None:
    async with Fleet(vhost) as fleet:
        with pytest.raises(NoDispatcher):
            _ = [answer async for answer in fleet.map(tickers(5))]
        with pytest.raises(ValueError, match="concurrency"):
            _ = [answer async for answer in fleet.map(tickers(5), concurrency=0)]


async def test_a_full_queue_makes_them_wait(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    arguments: Any = {"x-queue-type": "quorum", "x-max-length": 3, "x-overflow": "reject-publish"}
    exchange = await admin.declare_exchange("fleet.requests", "fanout", durable=True)
    queue = await admin.declare_queue("fleet.requests", durable=True, arguments=arguments)
    await queue.bind(exchange)
    taken: list[str] = []

    async def slowly() -> None:
        async with queue.iterator() as requests:
            async for message in requests:
                taken.append(message.message_id or "")
                await message.ack()

    async with Fleet(vhost) as fleet:
        asking = asyncio.create_task(
            asyncio.wait_for(anext(aiter(fleet.map(tickers(30), deadline=timedelta(minutes=5)))), 60)
        )
        await wait_until(lambda: fleet_full(queue), "the queue is full", every_s=0.1)
        taking = asyncio.create_task(slowly())
        await wait_until(lambda: len(set(taken)) == 30, "all were taken")
        for task in (asking, taking):
            task.cancel()
        await asyncio.gather(asking, taking, return_exceptions=True)


async def fleet_full(queue: aio_pika.abc.AbstractQueue) -> bool:
    return ((await queue.declare()).message_count or 0) >= 3


async def test_the_stream_of_results(stand: Stand) -> None:
    async with Fleet(stand.url) as fleet:
        async with fleet.results("okx.fetch_time.*") as results:
            for exchange in ("kraken", "okx"):
                await stand.client.send(
                    {"method": "fetch_time", "exchanges": [exchange]}, reply_to=None, correlation_id=f"c-{exchange}"
                )
            result = await asyncio.wait_for(anext(results), 30)
        assert (result.exchange, result.method, result.ok) == ("okx", "fetch_time", True)
        assert await anext(results, None) is None
        waiting = asyncio.create_task(anext(aiter(fleet.results("nothing.#")), None))
        await asyncio.sleep(0)
    assert await waiting is None


async def test_the_stream_where_no_fleet_was(vhost: str) -> None:
    async with Fleet(vhost) as fleet:
        with pytest.raises(NoDispatcher, match=r"fleet\.results"):
            await anext(fleet.results())


async def test_blocking_within_a_running_loop(stand: Stand) -> None:
    with FleetSync(stand.url) as fleet:
        assert fleet.fetch_ticker("BTC/USDT", exchanges="okx")["last"]
        assert set(fleet.fetch_time(exchanges=["okx", "kraken"], mode="all")) == {"okx", "kraken"}
        assert fleet.request("fetch_time", exchanges="okx").exchange == "okx"
        answers: list[Answer] = list(fleet.map(tickers(20), concurrency=5))
        assert {answer.request.id for answer in answers} == {request.id for request in tickers(20)}
        with pytest.raises(BadSymbol):
            fleet.fetch_ticker("NO/SUCH", exchanges="okx")
        results = fleet.results("okx.fetch_time.ok")
        await stand.client.send({"method": "fetch_time", "exchanges": ["okx"]}, reply_to=None)
        assert (await asyncio.to_thread(next, results)).exchange == "okx"
    with pytest.raises(Closed, match="closed"):
        fleet.fetch_time()


async def test_blocking_is_open_from_its_first_call_to_its_end(stand: Stand) -> None:
    fleet = FleetSync(stand.url)
    assert "ccxt-fleet" not in {thread.name for thread in threading.enumerate()}
    assert await asyncio.to_thread(fleet.fetch_time, exchanges="okx")
    assert "ccxt-fleet" in {thread.name for thread in threading.enumerate()}
    del fleet  # the thread that called it may hold it for a moment longer
    await wait_until(lambda: "ccxt-fleet" not in {each.name for each in threading.enumerate()}, "its thread has ended")


INTERRUPTED = """
import os, signal, threading
from datetime import timedelta
from schemas import FleetSync

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
fleet = FleetSync()
fleet.results("#")
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    fleet.fetch_ticker("BTC/USDT", deadline=timedelta(hours=1))
except KeyboardInterrupt:
    print("interrupted")
"""
FORKED = """
import os
from schemas import Closed, FleetSync

fleet = FleetSync()
fleet.fetch_time(exchanges="okx")
child = os.fork()
if not child:
    try:
        fleet.fetch_time()
    except Closed as error:
        print("fork" in str(error), flush=True)
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert fleet.fetch_time(exchanges="okx")
print("and on")
"""


def printed(program: str, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "FLEET_BROKER_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def test_ctrl_c_ends_a_blocking_call(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    for name in ("fleet.requests", "fleet.results"):
        kind = "fanout" if name == "fleet.requests" else "topic"
        exchange = await admin.declare_exchange(name, kind, durable=True)
        await (await admin.declare_queue(name, durable=True)).bind(exchange, "#")
    assert await asyncio.to_thread(printed, INTERRUPTED, vhost) == "interrupted\n"


async def test_a_fork_is_told(stand: Stand) -> None:
    assert await asyncio.to_thread(printed, FORKED, stand.url) == "True\nand on\n"
