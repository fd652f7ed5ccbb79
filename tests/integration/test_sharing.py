"""Who asks, who waits and who is told what: dispatchers that share leases and answers in a real Redis."""

import asyncio
import os
from typing import Any

import pytest
from msgspec import json
from msgspec.structs import replace

from deploy.servers import Redis
from dispatcher import sharing as of_dispatcher
from dispatcher.held import Held
from dispatcher.verdicts import Alone, Failed, Later, Leads, Verdict
from schemas.config import LaneConfig
from schemas.messages import JSON, MSGPACK, Attempt, ErrorCode, Http, Request
from schemas.runtime.clock import clock_s
from schemas.runtime.results import now_ms
from tests.support.fleet import wait_until
from tests.support.sharers import LANE, MOST_BYTES, TICKER, Dispatcher, Message, data, dispatcher, ended, given
from workers.keeping import LARGEST_PART, Keeping

pytestmark = pytest.mark.both_stores


async def test_one_leads_and_the_others_get_its_answer(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    share = await one.leads()
    waiting = [each.ask() for each in (one, other) for _ in range(50)]
    await one.held(50)
    await other.held(50)
    keeping.put(ended(share, {"last": 1.5, "odd": [None, True, "é"]}))
    answers = [await given(task) for task in waiting]
    assert {each.waited for each in answers} == {True}
    for each in answers:
        assert (each.exchange, each.lane) == ("okx", "okx")
        assert await data(each) == {"last": 1.5, "odd": [None, True, "é"]}
        assert json.decode(await each.data(JSON)) == {"last": 1.5, "odd": [None, True, "é"]}
        assert each.age_ms >= 10
    cached = await given(other.ask())
    assert not cached.waited
    assert await data(cached) == await data(answers[0])


async def test_any_source_that_a_request_takes_will_do(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    htx = LaneConfig(exchange="htx")
    share = await one.leads(lanes=[LANE, htx])
    await one.leads(lanes=[LANE])  # it takes other answers, so it does not wait
    keeping.put(ended(share, "of htx", lane=htx))
    both = one.ask(lanes=[LANE, htx])
    assert (await given(both)).exchange == "htx"
    assert (await given(other.ask(lanes=[htx]))).exchange == "htx"
    await other.leads(lanes=[LaneConfig(exchange="htx", ccxt={"options": {"defaultType": "swap"}})])


@pytest.mark.parametrize("code", [ErrorCode.BAD_SYMBOL, ErrorCode.INVALID_ARGUMENTS, ErrorCode.ATTEMPTS_EXHAUSTED])
async def test_an_error_is_all_waiters_and_is_not_kept(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping, code: ErrorCode
) -> None:
    one, other = two
    waits: list[asyncio.Task[Verdict]] = []
    share = await one.leads()
    for each in two:
        waits += [each.ask(), each.ask()]
        await each.held(2)
    keeping.put(ended(share, None, code=code, why="no such thing"))
    assert [await task for task in waits] == [Failed(code, "no such thing")] * 4
    await other.leads()


async def test_an_error_of_one_lane_ends_nobody_who_has_another(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    share = await one.leads(lanes={"okx.b": LANE})
    same, both, another = [
        other.ask(lanes=dict.fromkeys(of, LANE)) for of in (["okx.b"], ["okx.a", "okx.b"], ["okx.a"])
    ]
    await other.held(3)
    keeping.put(ended(share, None, code=ErrorCode.RESTRICTED, why="not here"))
    assert await same == Failed(ErrorCode.RESTRICTED, "not here")
    leads, waits = await asyncio.wait([both, another], timeout=10, return_when=asyncio.FIRST_COMPLETED)
    verdict = await leads.pop()
    assert isinstance(verdict, Leads)
    keeping.put(ended(verdict.share, "for all lanes"))
    assert await data(await given(waits.pop())) == "for all lanes"


async def test_too_much_data_in_one_encoding_is_asked_for_in_the_other(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    share = await one.leads(content_type=JSON)
    waiting = {kind: other.ask(content_type=kind) for kind in (JSON, MSGPACK)}
    await other.held(2)
    keeping.put(ended(share, None, code=ErrorCode.TOO_LARGE, why="too much"))
    assert await waiting[JSON] == Failed(ErrorCode.TOO_LARGE, "too much")
    assert isinstance(await waiting[MSGPACK], Leads)


async def test_an_error_of_the_dispatcher_s_is_shared_as_well(two: tuple[Dispatcher, Dispatcher]) -> None:
    one, other = two
    attempt = Attempt(Request("fetch_ticker", deadline_ms=5), "", 0, 0, share=await one.leads())
    waiting = other.ask()
    await other.held(1)
    one.sharing.failed(attempt, ErrorCode.RESTRICTED, "not here")
    assert await waiting == Failed(ErrorCode.RESTRICTED, "not here")


async def test_who_has_more_time_than_the_one_that_ran_out_of_it_leads_next(two: tuple[Dispatcher, Dispatcher]) -> None:
    one, other = two
    share = await one.leads(within_ms=40_000)
    short = [one.ask(within_ms=20_000) for _ in range(3)]
    long = [one.ask(within_ms=50_000), one.ask(within_ms=60_000)]
    await one.held(5)
    ran_out = Attempt(Request("fetch_ticker", deadline_ms=now_ms() + 40_000), "", 0, 0, share=share)
    other.sharing.failed(ran_out, ErrorCode.DEADLINE_EXCEEDED, "too late")
    assert [await task for task in short] == [Failed(ErrorCode.DEADLINE_EXCEEDED, "too late")] * 3
    assert isinstance(await long[1], Leads)
    assert not long[0].done()


async def test_who_waits_too_long_takes_the_lease_over(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    first = await one.leads()
    patient, impatient = one.ask(), other.ask(within_ms=600)
    second = await impatient
    assert isinstance(second, Leads)
    assert second.share != first
    await one.held(1)
    keeping.put(ended(second.share, "of the second"))
    assert await data(await given(patient)) == "of the second"


async def test_who_would_have_a_much_sooner_turn_asks_by_itself(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    lead = Attempt(TICKER, "", 0, 0, share=await one.leads(caller="crowd"))
    one.turns_ms = other.turns_ms = {"crowd": 31_000, "late": 29_000, "modest": 1_000}
    waiting = [one.ask(caller="crowd"), other.ask(caller="late"), other.ask(caller="late")]
    early = other.ask(caller="modest")
    await one.held(1)
    await other.held(3)
    one.sharing.waits(lead, now_ms() + 30_000)
    verdict = await early
    assert isinstance(verdict, Leads)
    assert verdict.share != lead.share
    two[0].sharing.waits(Attempt(TICKER, "", 0, 0, share=verdict.share), now_ms() + 1_000)
    waiting += [other.ask(caller="modest"), one.ask(caller="another")]
    await one.held(2)
    await other.held(3)
    keeping.put(ended(verdict.share, "for all"))
    assert [await data(await given(task)) for task in waiting] == ["for all"] * 5


async def test_who_comes_when_the_turn_is_known_asks_by_itself_too(two: tuple[Dispatcher, Dispatcher]) -> None:
    one, other = two
    share = await one.leads(caller="crowd")
    other.turns_ms = {"late": 29_000}
    other.ask(caller="late")
    await other.held(1)
    one.sharing.waits(Attempt(TICKER, "", 0, 0, share=share), now_ms() + 30_000)

    async def known() -> bool:
        (flight,) = other.sharing._flights.values()  # pyright: ignore[reportPrivateUsage]
        return flight.turn_ms > 0

    await wait_until(known, "its turn is known")
    assert isinstance(await other.ask(caller="modest"), Leads)


async def test_the_first_one_s_answer_still_does_after_that(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    first = await one.leads()
    patient = one.ask()
    assert isinstance(await other.ask(within_ms=400), Leads)
    await one.held(1)
    keeping.put(ended(first, "of the first"))
    assert await data(await given(patient)) == "of the first"


async def test_an_error_of_one_that_was_given_up_is_nobody_s(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    first = await one.leads()
    patient = one.ask()
    second = await other.ask(within_ms=400)
    assert isinstance(second, Leads)
    keeping.put(ended(first, None, code=ErrorCode.BAD_SYMBOL))
    await keeping.close()
    await one.held(1)
    keeping.put(ended(second.share, "right"))
    assert await data(await given(patient)) == "right"


async def test_a_leader_that_comes_again_leads_again(two: tuple[Dispatcher, Dispatcher]) -> None:
    """Its dispatcher died before it had sent it; all that it held come again."""
    one, other = two
    share = await one.leads("the leader")
    waiting = [other.ask(f"waiter {number}", copy=True) for number in range(5)]
    await other.held(5)
    assert await other.leads("the leader", copy=True) == share
    await other.leads("the leader", Request("fetch_time", max_age_ms=5), copy=True)
    assert not any(task.done() for task in waiting)


async def test_one_with_the_same_name_that_is_no_copy_waits(two: tuple[Dispatcher, Dispatcher]) -> None:
    one, other = two
    await one.leads("polled")
    other.ask("polled")
    await other.held(1)


async def test_an_attempt_that_is_dropped_leaves_the_question_to_others(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    for drop in (keeping.drop, one.sharing.dropped):
        share = await one.leads(max_age_ms=0)
        waiting = other.ask(max_age_ms=0)
        await other.held(1)
        drop(Attempt(replace(TICKER, deadline_ms=now_ms()), "okx", 1, 0, share=share))
        assert isinstance(await waiting, Leads)
        await clear(one)


async def clear(one: Dispatcher) -> None:
    client: Any = one.sharing._answers._redis  # pyright: ignore[reportPrivateUsage]
    await client.flushall()


async def test_an_emptied_redis_makes_another_one_lead(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    first = await one.leads()
    waiting = [other.ask() for _ in range(3)]
    await other.held(3)
    await clear(one)
    await wait_until(lambda: any(task.done() for task in waiting), "another one leads")
    told = [task.result() for task in waiting if task.done()]
    assert len(told) == 1
    assert isinstance(told[0], Leads)
    keeping.put(ended(first, "of the first, who knows of nothing"))
    for task in waiting:
        if task.result() not in told if task.done() else True:
            assert await data(await given(task)) == "of the first, who knows of nothing"


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_without_redis_each_goes_its_own_way(redis_url: str, redis_server: Redis, how: str) -> None:
    async with dispatcher(redis_url, timeout_s=0.2) as one:
        await one.leads()
        waiting = [one.ask() for _ in range(3)]
        await one.held(3)
        if how == "killed":
            redis_server.kill()
        else:
            redis_server.freeze()
        async with asyncio.timeout(10):
            assert [await task for task in waiting] == [Alone()] * 3
            assert await one.ask() == Alone()
        redis_server.thaw()
        await redis_server.start()

        async def shares_again() -> bool:
            return await one.ask(within_ms=500) != Alone()

        await wait_until(shares_again, "answers are shared again")


async def test_one_that_may_have_the_lease_ends_it(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping, redis_url: str, redis_server: Redis
) -> None:
    """Redis takes the question and does not answer in time: nobody else knows the lease that it gives then."""
    one, _ = two
    async with dispatcher(redis_url, timeout_s=0.2) as impatient:
        await impatient.leads(request=HTTP)
        redis_server.freeze()
        verdict = await impatient.ask()
        assert isinstance(verdict, Leads)
        assert await impatient.ask() == Alone()
        redis_server.thaw()
    waiting = one.ask()
    await one.held(1)
    keeping.put(ended(verdict.share, "of the one that asked"))
    assert await data(await given(waiting)) == "of the one that asked"


async def test_one_lost_look_changes_nothing(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, _ = two
    share = await one.leads()
    waiting = one.ask()
    await one.held(1)
    client: Any = one.sharing._answers._redis  # pyright: ignore[reportPrivateUsage]
    await client.client_kill_filter(_type="normal", skipme=False)
    await asyncio.sleep(3 * of_dispatcher.LOOK_EVERY_S)
    assert not waiting.done()
    keeping.put(ended(share, "right"))
    assert await data(await given(waiting)) == "right"


async def test_a_dispatcher_that_stops_lets_them_come_again_who_have_time(two: tuple[Dispatcher, Dispatcher]) -> None:
    one, _ = two
    await one.leads()
    waiting = [one.ask(), one.ask(within_ms=of_dispatcher.LATER_LEAST_MS)]
    await one.held(2)
    one.sharing.close()
    assert [await task for task in waiting] == [Later(), Alone()]
    assert [await one.ask(), await one.ask(within_ms=500), await one.ask(within_ms=-1)] == [Later(), Alone(), Alone()]


@pytest.mark.parametrize("held", [Held(4, 10**6), Held(100, 4 * len(Message().body))])
async def test_who_waits_here_for_much_waits_for_nothing_more(redis_url: str, keeping: Keeping, held: Held) -> None:
    async with dispatcher(redis_url, held=held) as one:
        share = await one.leads(caller="a")
        waiting = [one.ask(caller="a") for _ in range(2)]
        await one.held(2)
        assert await one.ask(caller="a") == Alone()
        await one.leads(request=HTTP, caller="a")  # what nobody asks is asked for all
        waiting.append(one.ask(caller="b"))
        await one.held(3)
        keeping.put(ended(share, "for all"))
        assert [await data(await given(task)) for task in waiting] == ["for all"] * 3
        await one.leads(max_age_ms=0, caller="a")
        waiting = [one.ask(max_age_ms=0, caller="a") for _ in range(2)]
        await one.held(2)
        assert await one.ask(max_age_ms=0, caller="a") == Alone()
        assert await data(await given(one.ask(caller="a"))) == "for all", "what is there"


NOT_KEPT = {"large": 1, "sent without a call": None, "beyond 64 bits": 2**70}


@pytest.mark.parametrize("why", NOT_KEPT)
async def test_what_can_t_be_kept_is_asked_for_by_each(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping, why: str
) -> None:
    one, other = two
    share = await one.leads()
    waiting = [one.ask(), other.ask()]
    await one.held(1)
    await other.held(1)
    rows: Any = NOT_KEPT[why]
    if why == "large":
        rows = [os.urandom(MOST_BYTES // LARGEST_PART + 1)]
    sent_s = None if rows is None else clock_s()
    keeping.put(ended(share, rows, sent_s=sent_s, size_bytes=2**20))
    assert [await task for task in waiting] == [Alone(), Alone()]


async def test_a_large_answer_is_kept_compressed(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    rows = [[number, "BTC/USDT"] for number in range(200_000)]
    share = await one.leads()
    waiting = other.ask()
    await other.held(1)
    keeping.put(ended(share, rows, size_bytes=4 * 2**20))
    found = await given(waiting)
    assert await data(found) == rows
    assert json.decode(await found.data(JSON)) == rows


HTTP = Request(http=Http("https://a.example/b"), exchanges=["okx"], max_age_ms=60_000)


async def test_a_call_is_shared_like_a_read(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    answer: dict[str, Any] = {"status": 200, "headers": {}, "body": "é"}
    keeping.put(ended(await one.leads(request=HTTP), answer, HTTP))
    assert await data(await given(other.ask(request=HTTP))) == answer


async def test_what_is_wrong_with_a_call_is_told_to_who_waits_and_is_not_kept(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    refusal: dict[str, Any] = {"status": 400, "headers": {}, "body": "no such symbol"}
    share = await one.leads(request=HTTP)
    waiting = [each.ask(request=HTTP) for each in two]
    await one.held(1)
    await other.held(1)
    keeping.put(ended(share, refusal, HTTP, refused=True))
    assert [await data(await given(task)) for task in waiting] == [refusal] * 2
    share = await other.leads(request=HTTP)
    keeping.put(ended(share, "well again", HTTP))
    await keeping.close()
    keeping.put(ended(await one.leads(request=HTTP, max_age_ms=0), refusal, HTTP, refused=True))
    await keeping.close()
    assert await data(await given(other.ask(request=HTTP))) == "well again", "it stays"


async def test_different_questions_are_never_mixed_up(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    asked: dict[int, list[asyncio.Task[Verdict]]] = {}
    requests = [Request("fetch_trades", {"symbol": "A", "limit": number}, max_age_ms=60_000) for number in range(1, 60)]
    for request in requests:
        share = await two[0].leads(request=request)
        asked[request.args["limit"]] = [each.ask(request=request) for each in two]
        keeping.put(ended(share, {"limit": request.args["limit"]}, request))
    for limit, tasks in asked.items():
        for task in tasks:
            assert await data(await given(task)) == {"limit": limit}
