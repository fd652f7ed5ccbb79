"""Requests with `max_age_ms` against a fleet at work: what the exchange is asked, and what each of them gets."""

import asyncio
import contextlib
import itertools
from collections.abc import Generator, Mapping
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from dispatcher.sharing import HELD_BYTES
from schemas import Fleet
from schemas.messages import BODY_LIMIT_BYTES, JSON, MSGPACK
from schemas.runtime.results import now_ms
from tests.support.fleet import Answer, Client, Stand, wait_until

BINANCE = {"ticker": "/api/v3/ticker/24hr", "trades": "/api/v3/aggTrades", "klines": "/api/v3/klines"}
BINANCE_FIRST = {"exchanges": ["binance", "okx"], "strategy": "failover"}
MINUTE_MS = 60_000
# Each test asks its own question, so that none finds another one's answer.
_LIMITS = itertools.count(101)


def trades(limit: int, **fields: Any) -> dict[str, Any]:
    args = {"symbol": "BTC/USDT", "limit": limit}
    return {"method": "fetch_trades", "args": args, "exchanges": ["binance"], "max_age_ms": MINUTE_MS, **fields}


def patient() -> dict[str, Any]:
    """A request that outlasts whatever is killed here, to an exchange whose limits need little time without Redis."""
    return trades(next(_LIMITS), exchanges=["okx"], deadline_ms=now_ms() + 150_000)


async def calls(stand: Stand) -> int:
    """How many calls for data Binance has counted."""
    endpoints: Mapping[str, int] = (await stand.simulator.counters())["exchanges"]["binance"]["endpoints"]
    return sum(count for path, count in endpoints.items() if any(name in path for name in BINANCE.values()))


async def shared(stand: Stand) -> dict[str, float]:
    """By where answers came from, how many requests."""
    names = ("asked", "waited", "cached", "alone")
    return {name: await stand.metric(stand.fleet.dispatchers, "fleet_shared_requests_total", name) for name in names}


async def shares(stand: Stand) -> bool:
    """Whether the dispatcher uses Redis again, which was away in a test before."""
    before = await shared(stand)
    await stand.client.answer(await stand.client.send(trades(next(_LIMITS))))
    return (await shared(stand))["asked"] > before["asked"]


async def binance_first(stand: Stand) -> bool:
    """Whether a request that prefers Binance goes there: after Redis was away, its limit of a minute may be spent."""
    sent = await stand.client.send(trades(next(_LIMITS), max_age_ms=None, **BINANCE_FIRST))
    return (await stand.client.answer(sent)).result.exchange == "binance"


@contextlib.contextmanager
def unasked(stand: Stand) -> Generator[None]:
    """Workers stand still meanwhile, so that no call is answered, or takes longer than a call may, before all wait."""
    for worker in stand.fleet.workers:
        worker.freeze()
    try:
        yield
    finally:
        for worker in stand.fleet.workers:
            worker.thaw()


async def waiting(stand: Stand, count: int) -> None:
    async def so_many() -> bool:
        return await stand.metric(stand.fleet.dispatchers, "fleet_shared_held") == count

    await wait_until(so_many, f"{count} wait")


async def all_answers(client: Client, sent: list[str], *, timeout_s: float = 60) -> list[Answer]:
    return [await client.answer(each, timeout_s=timeout_s) for each in sent]


async def test_200_equal_requests_of_several_callers_are_one_call(stand: Stand) -> None:
    request, before, counted = trades(next(_LIMITS)), await calls(stand), await shared(stand)
    async with Client.on(stand.url, topology=False) as second, Client.on(stand.url, topology=False) as third:
        sent: dict[Client, list[str]] = {}
        with unasked(stand):
            for client, kind in ((stand.client, JSON), (second, MSGPACK), (third, JSON)):
                encode = msgspec.json.encode if kind == JSON else msgspec.msgpack.encode
                number = 100 if client is stand.client else 50
                sends = (client.send(encode(request), content_type=kind) for _ in range(number))
                sent[client] = await asyncio.gather(*sends)
            await waiting(stand, 199)
        answers = [each for client, names in sent.items() for each in await all_answers(client, names)]
        kinds = {answer.content_type for answer in await all_answers(second, sent[second])}
    assert kinds == {MSGPACK}
    assert await calls(stand) == before + 1
    assert all(answer.result.ok for answer in answers)
    (own,) = [answer.result for answer in answers if answer.result.age_ms is None]
    assert all(answer.result.data == own.data for answer in answers)
    assert len(own.data) == request["args"]["limit"]
    assert {answer.result.lane for answer in answers} == {"binance"}
    assert [each.lane for each in own.attempts] == ["binance"]
    now = await shared(stand)
    assert {name: now[name] - counted[name] for name in now} == {"asked": 1, "waited": 199, "cached": 0, "alone": 0}


async def test_an_answer_is_given_again_as_long_as_it_will_do(stand: Stand) -> None:
    limit, before = next(_LIMITS), await calls(stand)
    first = await stand.client.answer(await stand.client.send(trades(limit)))

    async def from_cache() -> Answer | None:
        answer = await stand.client.answer(await stand.client.send(trades(limit)))
        return answer if answer.result.age_ms is not None else None

    await wait_until(from_cache, "it is kept")
    seen = await calls(stand)
    again = await from_cache()
    assert again is not None
    assert again.result.data == first.result.data
    assert 0 < (again.result.age_ms or 0) < MINUTE_MS
    assert again.result.attempts == []
    either = await stand.client.answer(await stand.client.send(trades(limit, exchanges=["okx", "binance"])))
    assert either.result.exchange == "binance"
    assert await calls(stand) == seen
    # Who does not say what will do is not given it, nor are others given what was fetched for it.
    alone = await stand.client.answer(await stand.client.send(trades(limit, max_age_ms=None)))
    assert alone.result.age_ms is None
    assert await calls(stand) == seen + 1 > before
    okx = await stand.client.answer(await stand.client.send(trades(limit, exchanges=["okx"])))
    assert (okx.result.exchange, okx.result.age_ms) == ("okx", None)


async def test_an_error_of_the_request_s_own_is_for_all_who_wait(stand: Stand) -> None:
    request, before = trades(next(_LIMITS)), await calls(stand)
    wrong = {"status": 400, "body": '{"code":-1130,"msg":"Data sent for parameter \'limit\' is not valid."}'}
    await stand.simulator.fault("binance", said={"aggTrades": wrong})
    with unasked(stand):
        sent = [await stand.client.send(request) for _ in range(20)]
        await waiting(stand, 19)
    answers = await all_answers(stand.client, sent)
    assert {answer.code for answer in answers} == {"invalid_arguments"}
    assert await calls(stand) == before + 1
    assert [len(answer.result.attempts) for answer in answers].count(0) == 19
    await stand.simulator.clear("binance")
    assert (await stand.client.answer(await stand.client.send(request))).result.ok, "an error is not kept"


@pytest.mark.parametrize(
    "said", [(400, '{"code":-1121,"msg":"Invalid symbol."}'), (200, '{"code":-9000,"msg":"wait"}')]
)
async def test_what_an_exchange_says_to_be_wrong_with_a_call_is_not_kept(stand: Stand, said: tuple[int, str]) -> None:
    url = f"https://api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=1m&limit={next(_LIMITS)}"
    request = {"http": {"url": url}, "exchanges": ["binance"], "max_age_ms": MINUTE_MS}
    before = await calls(stand)
    await stand.simulator.fault("binance", said={"klines": dict(zip(("status", "body"), said, strict=True))})
    with unasked(stand):
        sent = [await stand.client.send(request) for _ in range(10)]
        await waiting(stand, 9)
    answers = await all_answers(stand.client, sent)
    assert [(answer.result.data["status"], answer.result.data["body"]) for answer in answers] == [said] * 10
    assert await calls(stand) == before + 1
    await stand.simulator.clear("binance")
    again = (await stand.client.answer(await stand.client.send(request))).result
    assert (again.data["status"], again.age_ms) == (200, None)


async def test_an_http_call_is_shared(stand: Stand) -> None:
    url = f"https://api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=1m&limit={next(_LIMITS)}"
    before = await calls(stand)
    async with Fleet(stand.url) as fleet:
        with unasked(stand):
            asked = [
                asyncio.create_task(fleet.http(url, exchanges="binance", max_age=timedelta(minutes=1)))
                for _ in range(20)
            ]
            await waiting(stand, 19)
        answers = await asyncio.gather(*asked)
    assert await calls(stand) == before + 1
    assert {answer.status for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.age_ms for answer in answers].count(None) == 1


async def test_one_from_each_is_shared_by_exchange(stand: Stand) -> None:
    fields = {"exchanges": ["binance", "okx"], "exchanges_mode": "all"}
    limit, before = next(_LIMITS), await calls(stand)
    with unasked(stand):
        sent = [await stand.client.send(trades(limit, **fields)) for _ in range(5)]
        await waiting(stand, 8)
    await wait_until(lambda: all(len(stand.client.answers[each]) == 2 for each in sent), "an answer from each")
    for each in sent:
        assert {answer.result.exchange for answer in stand.client.answers[each]} == {"binance", "okx"}
    assert await calls(stand) == before + 1


async def test_different_requests_are_never_mixed_up(stand: Stand) -> None:
    limits = [next(_LIMITS) for _ in range(25)]
    sent = {limit: [await stand.client.send(trades(limit)) for _ in range(4)] for limit in limits}
    for limit, names in sent.items():
        for answer in await all_answers(stand.client, names):
            assert len(answer.result.data) == limit


async def test_who_waits_outlives_the_worker_that_asks(stand: Stand) -> None:
    await stand.simulator.fault("okx", held=True)
    request = patient()
    sent = [await stand.client.send(request) for _ in range(30)]
    await waiting(stand, 29)
    for worker in stand.fleet.workers:
        worker.kill()
        worker.start()
    await stand.simulator.clear("okx")
    answers = await all_answers(stand.client, sent, timeout_s=160)
    assert all(answer.result.ok for answer in answers), [answer.result.error for answer in answers]


async def test_who_waits_outlives_the_dispatcher_where_it_waits(stand: Stand) -> None:
    request = patient()
    await stand.simulator.fault("okx", held=True)
    sent = [await stand.client.send(request) for _ in range(30)]
    await waiting(stand, 29)
    (dispatcher,) = stand.fleet.dispatchers
    dispatcher.kill()
    dispatcher.start()
    await stand.simulator.clear("okx")
    answers = await all_answers(stand.client, sent, timeout_s=160)
    assert all(answer.result.ok for answer in answers), [answer.result.error for answer in answers]
    assert all(len(answer.result.data) == request["args"]["limit"] for answer in answers)


async def test_a_dispatcher_that_is_told_to_stop_hands_on_who_waits(stand: Stand) -> None:
    request = patient()
    await stand.simulator.fault("okx", held=True)
    sent = [await stand.client.send(request) for _ in range(10)]
    await waiting(stand, 9)
    (dispatcher,) = stand.fleet.dispatchers
    await dispatcher.stop(grace_s=30)
    assert dispatcher.exit_code == 0
    dispatcher.start()
    await stand.simulator.clear("okx")
    answers = await all_answers(stand.client, sent, timeout_s=160)
    assert all(answer.result.ok for answer in answers), [answer.result.error for answer in answers]


@pytest.mark.parametrize("how", ["killed", "frozen", "emptied"])
async def test_who_waits_outlives_redis(stand: Stand, how: str) -> None:
    request = patient()
    await wait_until(lambda: shares(stand), "answers are shared again")
    await stand.simulator.fault("okx", held=True)
    sent = [await stand.client.send(request) for _ in range(10)]
    await waiting(stand, 9)
    match how:
        case "killed":
            stand.redis.kill()
        case "frozen":
            stand.redis.freeze()
        case _:
            await stand.redis.restart()
    if how != "emptied":
        await waiting(stand, 0)  # each goes its own way
    await stand.simulator.clear("okx")
    answers = await all_answers(stand.client, sent, timeout_s=160)
    assert all(answer.result.ok for answer in answers), [answer.result.error for answer in answers]
    stand.redis.thaw()
    await stand.redis.start()
    await wait_until(lambda: binance_first(stand), "Binance has budget as before", timeout_s=150, every_s=1)


async def test_who_waits_for_an_exchange_that_hangs_takes_over_in_time(stand: Stand) -> None:
    limit, two = next(_LIMITS), BINANCE_FIRST
    await stand.simulator.fault("binance", held=True)
    slow = await stand.client.send(trades(limit, **two))

    async def under_way() -> bool:
        return await stand.metric(stand.fleet.workers, "fleet_attempts_in_flight", "binance") > 0

    await wait_until(under_way, "the first one is at the exchange")
    sent = [await stand.client.send(trades(limit, **two)) for _ in range(10)]
    answers = await all_answers(stand.client, sent)
    assert {answer.result.exchange for answer in answers} == {"okx"}
    assert (await stand.client.answer(slow)).result.ok


async def test_a_modest_caller_waits_for_no_crowd_that_asks_the_same(stand: Stand) -> None:
    """Kraken answers one call a second: of forty requests of one caller the last comes long after another's first."""

    def book(limit: int) -> dict[str, Any]:
        args, fields = {"symbol": "BTC/USDT", "limit": limit}, {"max_age_ms": 0, "deadline_ms": now_ms() + 120_000}
        return {"method": "fetch_order_book", "args": args, "exchanges": ["kraken"], **fields}

    limits = [next(_LIMITS) for _ in range(30)]
    async with Client.on(stand.url, topology=False) as crowd:
        waits = await stand.metric(stand.fleet.dispatchers, "fleet_waits_total")
        sent = [await crowd.send(book(limit)) for limit in limits]

        async def in_line() -> bool:
            return await stand.metric(stand.fleet.dispatchers, "fleet_waits_total") - waits >= len(limits) / 2

        await wait_until(in_line, "most have their turn")
        modest = await stand.client.answer(await stand.client.send(book(limits[-1])))
        assert modest.result.ok, modest.result.error
        before = [answer.result.completed_ms < modest.result.completed_ms for answer in await all_answers(crowd, sent)]
        assert sum(before) < len(limits) / 2


async def test_one_caller_s_waiting_requests_hold_up_nobody(stand: Stand) -> None:
    """Large ones, more than a dispatcher holds of one caller, for an exchange that is down."""
    await stand.simulator.fault("kraken", down="refused")
    body = msgspec.json.encode(trades(next(_LIMITS), exchanges=["kraken"], max_age_ms=0, deadline_ms=now_ms() + 20_000))
    number = HELD_BYTES // BODY_LIMIT_BYTES + 4
    async with Client.on(stand.url, topology=False) as greedy:
        fat = [await greedy.send(body.ljust(BODY_LIMIT_BYTES)) for _ in range(number)]
        assert len(fat) == number
        before_ms = now_ms() + 10_000
        sent = [await stand.client.send(trades(next(_LIMITS), max_age_ms=0, deadline_ms=before_ms)) for _ in range(5)]
        sent += [await stand.client.send(trades(next(_LIMITS), exchanges=["kraken"], deadline_ms=now_ms() + 3_000))]
        answers = await all_answers(stand.client, sent)
        assert [answer.result.ok for answer in answers] == [True] * 5 + [False], [each.result.error for each in answers]
        assert not any(answer.result.ok for answer in await all_answers(greedy, fat)), "each ends"
