"""The stream of results, as its readers open it, share it, give up on it and leave it; and all that is cancelled."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import aio_pika
import pytest

from schemas import Fleet, NoDispatcher, Request
from schemas.client.stream import Results
from tests.support.answering import DATA, answering, requested, result
from tests.support.broker import config
from tests.support.cancels import Cancelling, awaited, cancelled_everywhere
from tests.support.fleet import Stand, wait_until
from tests.support.tcp_proxy import Proxy


async def publish(channel: aio_pika.abc.AbstractChannel, id: str) -> None:
    exchange = await channel.get_exchange("fleet.results", ensure=False)
    await exchange.publish(result(id), "okx.fetch_time.ok")


async def test_the_stream_of_results(stand: Stand) -> None:
    async with Fleet(stand.url) as fleet:
        async with fleet.results("okx.fetch_time.*") as results:
            for exchange in ("kraken", "okx"):
                await stand.client.send(
                    {"method": "fetch_time", "exchanges": [exchange]}, reply_to=None, correlation_id=f"c-{exchange}"
                )
            came = await asyncio.wait_for(anext(results), 30)
        assert (came.exchange, came.method, came.ok) == ("okx", "fetch_time", True)
        assert await anext(results, None) is None
        waiting = asyncio.create_task(anext(aiter(fleet.results("nothing.#")), None))
        await asyncio.sleep(0)
    assert await waiting is None


async def test_where_no_fleet_was_it_opens_once_there_is_one(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    async with Fleet(vhost) as fleet:
        results = fleet.results()
        for _ in range(2):
            with pytest.raises(NoDispatcher, match=r"fleet\.results"):
                await anext(results)
        await requested(admin)
        async with results:
            await publish(admin, "first")
            assert (await asyncio.wait_for(anext(results), 30)).id == "first"


async def test_an_opening_that_was_given_up_is_made_again(
    through: str, proxy: Proxy, admin: aio_pika.abc.AbstractChannel
) -> None:
    await requested(admin)
    async with Fleet(through) as fleet:
        results = fleet.results()
        proxy.freeze()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(results), 0.05)
        proxy.thaw()
        async with results:
            await publish(admin, "first")
            assert (await asyncio.wait_for(anext(results), 30)).id == "first"


async def test_all_who_wait_hear_of_its_end(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    await requested(admin)
    async with Fleet(vhost) as fleet, fleet.results() as results:
        waiting = [asyncio.create_task(anext(results, None)) for _ in range(3)]
        await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == [None] * 3


async def test_no_result_is_lost_to_a_reader_who_gives_up(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    """At whichever of its waits: another one gets it."""
    await requested(admin)
    seen: list[str] = []
    async with Results(config(vhost), "#") as results:

        async def take() -> None:
            seen.append((await anext(results)).id)

        for number in range(60):
            reader = asyncio.create_task(awaited(Cancelling(take(), 1 + number % 3, late=bool(number % 2))))
            await publish(admin, f"r{number}")
            await asyncio.wait([reader])
            while len(seen) <= number:
                await asyncio.wait_for(take(), 30)
    assert seen == [f"r{number}" for number in range(60)]


async def test_a_slow_reader_gets_all(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    """More than are on their way at once, acknowledged as they are taken, and in order."""
    await requested(admin)
    async with Fleet(vhost) as fleet, fleet.results() as results:
        for number in range(450):
            await publish(admin, f"r{number}")
        assert [(await anext(results)).id for _ in range(450)] == [f"r{number}" for number in range(450)]

        async def acknowledged() -> bool:
            await publish(admin, "last")
            return (await anext(results)).id == "last"

        await wait_until(acknowledged, "the next one comes")


async def test_calls_and_streams_are_cancelled_at_any_wait(vhost: str) -> None:
    async with answering(vhost) as channel, Fleet(vhost) as fleet:

        async def call() -> None:
            assert await fleet.fetch_time(deadline=timedelta(minutes=1)) == DATA

        async def many() -> None:
            answers = [each async for each in fleet.map([Request("fetch_time")] * 5, concurrency=2)]
            assert [each.data for each in answers] == [DATA] * 5

        async def stream() -> None:
            async with fleet.results() as results:
                await publish(channel, "first")
                assert (await anext(results)).id == "first"

        async def another() -> None:
            async with Fleet(vhost) as other:
                assert await other.fetch_time(deadline=timedelta(minutes=1)) == DATA

        jobs: list[Any] = [call, many, stream, another]
        for job in jobs:
            before = len(asyncio.all_tasks())
            await cancelled_everywhere(job, call)
            await asyncio.wait_for(job(), 30)
            await wait_until(partial(no_more_tasks, before), "no connection is left open")


def no_more_tasks(before: int) -> bool:
    return len(asyncio.all_tasks()) <= before
