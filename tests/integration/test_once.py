"""A request is not answered twice, as far as marks in Redis tell, and always once."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio as redis_client
from msgspec.structs import replace

from deploy.local import Services, simulated
from deploy.servers import Redis
from deploy.simulator.process import Simulator
from schemas.messages import Attempt, Request, encode
from schemas.runtime import store
from schemas.runtime.once import KEPT_S, Answered, Once
from tests.support.fleet import QUICK, Client, Stand, opened, wait_until
from tests.support.tcp_proxy import Proxy


def attempt(name: str = "one", *, received_ms: int = 1, deadline_ms: int | None = None) -> Attempt:
    deadline_ms = deadline_ms or time.time_ns() // 1_000_000 + 60_000
    request = Request(method="fetch_ticker", args={"symbol": "BTC/USDT"}, id=name, deadline_ms=deadline_ms)
    return Attempt(request=request, lane="binance", number=1, received_ms=received_ms)


@pytest.fixture
async def answered(redis_url: str) -> AsyncIterator[Answered]:
    client = store.connect(redis_url, timeout_s=5)
    yield Answered(client)
    await client.aclose()


def taken_again(first: Attempt, *, copy: bool = True, later_ms: int = 1) -> Attempt:
    """The same message, or one just like it, as it was taken another time."""
    return replace(first, taken=f"again {later_ms}", received_ms=first.received_ms + later_ms, copy=copy)


async def test_the_first_claims_and_its_own_copies_may_go_on_until_the_answer_is_out(answered: Answered) -> None:
    first = attempt(received_ms=1)
    other, hedge = taken_again(first), replace(first, hedge=True)
    assert await answered.claim(first)
    for one in (other, hedge):
        assert not await answered.claim(one)
        assert await answered.by_another(one)
    # The first may have died before it published: its message comes again, perhaps at another lane, and must be
    # answered.
    elsewhere = replace(first, lane="okx", number=2)
    assert await answered.by_another(elsewhere) is False
    assert await answered.claim(elsewhere)
    answered.note(first)
    await answered.close()
    for one in (first, elsewhere, other, hedge):
        assert await answered.by_another(one)
        assert await answered.claim(one) is False


async def test_what_a_copy_answered_is_not_answered_by_the_one_before_it(answered: Answered) -> None:
    """A dispatcher lost its connection: its request comes again, and both copies are under way."""
    first = replace(attempt(received_ms=1), taken="first")
    copy = taken_again(first)
    answered.note(copy)
    await answered.close()
    assert await answered.by_another(first)
    # Who was taken after both of them is no copy of theirs.
    assert await answered.by_another(taken_again(first, copy=False, later_ms=2)) is False


# Each differs from the first in one thing.
OTHERS: dict[str, Callable[[Attempt], Attempt]] = {
    "id": lambda first: replace(first, request=replace(first.request, id="another")),
    "deadline": lambda first: replace(first, request=replace(first.request, deadline_ms=first.deadline_ms + 1)),
    "reply_to": lambda first: replace(first, reply_to="another"),
    "correlation_id": lambda first: replace(first, correlation_id="another"),
    "body": lambda first: replace(first, digest="another"),
}


@pytest.mark.parametrize("differs", OTHERS)
async def test_a_mark_is_of_one_request(answered: Answered, differs: str) -> None:
    first = replace(attempt(), taken="first", reply_to="mine", correlation_id="c", digest="d")
    other = taken_again(OTHERS[differs](first))
    assert await answered.claim(first)
    answered.note(first)
    await answered.close()
    assert await answered.by_another(other) is False
    assert await answered.claim(other)
    assert await answered.by_another(taken_again(first))


async def test_two_messages_that_each_came_once_are_two_requests_however_alike(answered: Answered) -> None:
    """Both are hedged, or lost a worker, so their marks are looked up. Neither is a copy of the other."""
    first = replace(attempt(), taken="first")
    second = taken_again(first, copy=False)
    assert await answered.claim(first)
    assert await answered.claim(second)
    answered.note(first)
    await answered.close()
    assert await answered.by_another(second) is False
    assert await answered.claim(second)
    assert await answered.claim(replace(second, hedge=True)) is False
    answered.note(second)
    await answered.close()
    assert await answered.by_another(second)


async def test_each_exchange_of_a_fan_out_is_a_request_of_its_own(answered: Answered) -> None:
    first = attempt()
    fanned = [replace(first, request=replace(first.request, exchanges=[name]), results=2) for name in ("okx", "htx")]
    answered.note(fanned[0])
    await answered.close()
    assert [await answered.by_another(each) for each in fanned] == [True, False]


async def test_all_marks_are_written_when_it_is_closed_whenever_that_is(redis_url: str) -> None:
    """Also while Redis is about to take the ones before."""
    for turns in range(30):
        client = store.connect(redis_url, timeout_s=5)
        answered = Answered(client)
        noted = [attempt(f"{turns} {number}") for number in range(1 + turns % 3)]
        answered.note(noted[0])
        await wait_until(lambda: not answered.waiting, "the first is on its way", every_s=0)  # noqa: B023
        for _ in range(turns):
            await asyncio.sleep(0)
        for one in noted[1:]:
            answered.note(one)
        await answered.close()
        await client.aclose()
        async with redis_client.from_url(redis_url) as other:
            seen = Answered(other)
            assert [await seen.by_another(taken_again(one)) for one in noted] == [True] * len(noted)


async def test_a_redis_that_stands_still_holds_up_the_end_for_a_bounded_time(
    redis_server: Redis, redis_url: str
) -> None:
    client = store.connect(redis_url, timeout_s=0.2)
    answered = Answered(client)
    redis_server.freeze()
    answered.note(attempt())
    await answered.close()
    await client.aclose()
    assert not answered.waiting


async def test_every_mark_expires(answered: Answered, redis_url: str) -> None:
    answered.note(attempt("noted"))
    await answered.close()
    await answered.claim(attempt("claimed"))
    async with redis_client.from_url(redis_url) as client:
        keys = [*await client.keys("fleet:answered:*"), *await client.keys("fleet:claimed:*")]
        assert len(keys) == 3
        for key in keys:
            assert 0 < await client.ttl(key) <= KEPT_S + 60


async def test_without_redis_nothing_is_known() -> None:
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        client = store.connect(f"redis://127.0.0.1:{taken.getsockname()[1]}/0", timeout_s=0.2)
        answered = Answered(client)
        assert await answered.by_another(attempt()) is None
        assert await answered.claim(attempt()) is None
        once, published = Once(answered), list[Attempt]()
        first = replace(attempt(), request=replace(attempt().request, hedge_ms=1))
        for one in (first, replace(first, hedge=True)):  # the hedge gives way

            async def publish(one: Attempt = one) -> None:
                published.append(one)

            assert not await once.skip(one)
            assert await once.answer(one, publish) is not one.hedge
        assert published == [first]
        answered.note(attempt())
        await answered.close()
        await client.aclose()


async def test_what_is_no_mark_is_no_answer_either(answered: Answered, redis_url: str) -> None:
    one = attempt()
    async with redis_client.from_url(redis_url) as client:
        await client.set(Answered.mark(one), b"\xc1 no mark")
    assert await answered.by_another(one) is None
    assert await answered.claim(one) is None
    assert await answered.answered([Answered.mark(one)]) == [False]


async def test_a_copy_of_what_was_answered_is_not_run_and_not_answered(stand: Stand) -> None:
    name = stand.client.new_id()
    first = replace(attempt(name), reply_to=stand.client.reply_to, correlation_id=name)
    await stand.client.publish(encode(first), "binance", to_exchange="fleet.work")
    assert (await stand.client.answer(name)).result.ok

    async def dropped() -> float:
        return await stand.metric(stand.fleet.workers, "fleet_copies_dropped_total", "binance")

    async def calls() -> int:
        """The exchange's own count of tickers: probes ask other things meanwhile."""
        endpoints = (await stand.simulator.counters())["exchanges"]["binance"]["endpoints"]
        return sum(count for endpoint, count in endpoints.items() if "ticker" in endpoint)

    before = await dropped()

    async def one_more_dropped() -> bool:
        """Waits until the mark is written: a copy within 50 ms may be run."""
        await stand.client.publish(encode(replace(first, repeated=True)), "binance", to_exchange="fleet.work")
        return await dropped() > before

    await wait_until(one_more_dropped, "a copy is dropped", every_s=0.2)
    await wait_until(stand.idle, "those before it are over")
    results, calls_now, dropped_now = len(stand.client.answers[name]), await calls(), await dropped()
    await stand.client.publish(encode(replace(first, repeated=True)), "binance", to_exchange="fleet.work")

    async def another_dropped() -> bool:
        return await dropped() > dropped_now

    await wait_until(another_dropped, "the next copy is dropped")
    assert await calls() == calls_now > 0
    assert len(stand.client.answers[name]) == results


async def test_a_hedge_that_has_claimed_may_not_come_to_nothing(answered: Answered) -> None:
    first = attempt()
    hedge, once = replace(first, hedge=True), Once(answered)
    assert await once.dispensable(hedge)
    assert not await once.dispensable(first)
    again = replace(hedge, repeated=True)
    assert await answered.claim(hedge)
    assert not await once.dispensable(again)
    answered.note(first)
    await answered.close()
    assert await once.dispensable(again)


async def test_of_several_attempts_at_a_request_one_publishes_its_answer(answered: Answered) -> None:
    once, published = Once(answered), list[str]()

    async def answers(one: Attempt, *, kept: bool = True, always: bool = False) -> bool:
        async def publish() -> None:
            published.append(one.branch)

        return await once.answer(one, publish, kept=kept, always=always)

    first = replace(attempt(), repeated=True)
    hedge, copy = replace(first, hedge=True), replace(taken_again(first), repeated=True)
    assert await answers(hedge)
    for late in (first, copy):
        assert not await answers(late)
        assert not await answers(late, kept=False)
        assert await once.skip(late)
    assert published == ["hedge"]
    assert await answers(first, always=True)
    assert await answers(attempt())  # nothing says that it may be a copy, so no mark is looked for
    assert published == ["hedge", "first", "first"]
    # One that is in no queue of ours claims nothing.
    fresh = replace(attempt("another"), repeated=True)
    assert await answers(fresh, kept=False)
    await answered.close()
    assert await answered.by_another(fresh)


async def test_an_error_that_no_queue_takes_waits_until_one_does(stand: Stand) -> None:
    client = stand.client
    assert client.results is not None
    lasting = await client.channel.get_queue("fleet.results", ensure=False)
    await lasting.purge()
    await client.results.unbind("fleet.results", "#")
    await lasting.unbind("fleet.results", "#")
    sent = await client.send({"method": "fetch_time", "exchanges": ["nowhere"]}, reply_to=None)

    async def found() -> bool:
        message = await lasting.get(no_ack=True, fail=False)
        return message is not None and message.correlation_id == sent

    await wait_until(found, "its error is in fleet.results, which is bound again")


async def test_an_answer_that_came_after_its_connection_was_lost_is_not_published_where_another_one_was(
    vhost: str, proxy: Proxy, through: str, redis_url: str, tmp_path: Path
) -> None:
    """As after a standstill: RabbitMQ has given the attempt to another worker by now."""
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(exchanges=["binance"]))
        config = {**simulated(simulator.urls), **QUICK, "worker": {"http_timeout_s": 10.0}}
        services = Services(tmp_path, config, broker_url=through, redis_url=redis_url, workers=1)
        fleet = await stack.enter_async_context(services)
        client = await stack.enter_async_context(Client.on(vhost))
        await opened(fleet)

        async def tickers() -> int:
            endpoints = (await simulator.counters())["exchanges"]["binance"]["endpoints"]
            return sum(count for endpoint, count in endpoints.items() if "ticker" in endpoint)

        async def asked(times: int) -> None:
            async def so_often() -> bool:
                return await tickers() == times

            await wait_until(so_often, f"the exchange was asked {times} times")

        await simulator.fault("binance", latency_ms=5_000)
        name = client.new_id()
        first = replace(attempt(name), reply_to=client.reply_to, correlation_id=name)
        await client.publish(encode(first), "binance", to_exchange="fleet.work")
        await asked(1)
        await simulator.clear("binance")
        proxy.cut()
        assert (await client.answer(name)).result.ok
        await asked(2)

        async def dropped() -> bool:
            seen = await fleet.workers[0].metrics()
            return seen.get(("fleet_copies_dropped_total", "binance"), 0.0) == 1

        await wait_until(dropped, "the first answer is dropped")
        assert len(client.answers[name]) == 1
