"""Many requests at once, also with the blocking twin."""

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from schemas import Fleet, FleetSync, NoDispatcher, Request
from tests.support.answering import DATA, answering
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
    with FleetSync(vhost) as blocking, pytest.raises(ValueError, match="concurrency"):
        list(blocking.map(tickers(5), concurrency=0))


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


PROGRESS = """
import asyncio
from schemas import Fleet, Request

async def main():
    async with Fleet() as fleet:
        async for answer in fleet.map([Request("fetch_time")] * 3, progress=True):
            print("data", answer.data)

asyncio.run(main())
"""


async def test_a_bar_takes_nothing_from_a_file(vhost: str) -> None:
    """The bar is in a terminal, the program's own output goes elsewhere."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "FLEET_BROKER_URL": vhost, "TERM": "xterm"}
    async with answering(vhost):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRESS), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=theirs
        )
        os.close(theirs)
        async with asyncio.timeout(60):
            printed, _ = await child.communicate()
    assert b"results" in os.read(ours, 65536)
    os.close(ours)
    assert printed.decode() == f"data {DATA}\n" * 3
