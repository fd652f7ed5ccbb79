"""Who asks, who waits and who is told what: dispatchers that share leases and answers in a real Redis."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from msgspec import json, msgpack
from msgspec.structs import replace

from deploy.servers import Redis
from dispatcher import sharing as of_dispatcher
from dispatcher.sharing import Sharing
from dispatcher.verdicts import Alone, Failed, Given, Later, Leads, Verdict
from schemas import bars, sharing
from schemas.config import LaneConfig
from schemas.messages import JSON, MSGPACK, Attempt, ErrorCode, Http, Outcome, Request, Try
from schemas.runtime import store
from schemas.runtime.results import now_ms
from schemas.runtime.tasks import end_tasks
from tests.support.fleet import wait_until
from workers.keeping import LARGEST_PART, Ending, Keeping

pytestmark = pytest.mark.both_stores
TICKER = Request("fetch_ticker", {"symbol": "BTC/USDT"}, max_age_ms=60_000)
LANE = LaneConfig(exchange="okx")
MOST_BYTES = 8 * 2**20


class Message:
    """A delivery as far as it matters here."""

    def __init__(self) -> None:
        self.body = b"x" * 100
        self.released = False

    def release(self) -> None:
        """Frees its slot."""
        self.released = True


class Dispatcher:
    """The part of a dispatcher that shares answers, with what it needs to be asked."""

    def __init__(self, client: Any) -> None:
        self.sharing = Sharing(client)
        self.runs = asyncio.create_task(self.sharing.run())
        self.asked: list[asyncio.Task[Verdict]] = []
        self.messages: list[Message] = []

    def ask(
        self,
        name: str = "",
        request: Request = TICKER,
        *,
        max_age_ms: int | Literal["bar"] | None = None,
        within_ms: int = 60_000,
        lanes: Sequence[LaneConfig] = (LANE,),
        copy: bool = False,
    ) -> asyncio.Task[Verdict]:
        """A request comes."""
        number = len(self.asked)
        fields = {**{field: getattr(request, field) for field in request.__struct_fields__}}
        fields |= {"id": name or f"{id(self)}-{number}", "deadline_ms": now_ms() + within_ms}
        if max_age_ms is not None:
            fields["max_age_ms"] = max_age_ms
        attempt = Attempt(Request(**fields), "", 0, now_ms(), copy=copy)
        message: Any = Message()
        self.messages.append(message)
        sources = [sharing.source(lane, attempt.request) for lane in lanes]
        self.asked.append(asyncio.create_task(self.sharing.find(attempt, message, sources)))
        return self.asked[-1]

    async def leads(self, *of: Any, **how: Any) -> str:
        """A request comes, and leads."""
        verdict = await self.ask(*of, **how)
        assert isinstance(verdict, Leads), verdict
        return verdict.share

    async def held(self, count: int) -> None:
        """Returns when so many wait, and each has given its slot back."""
        await wait_until(lambda: self.sharing.count == count, f"{count} wait")
        waiting = [message for message, task in zip(self.messages, self.asked, strict=True) if not task.done()]
        await wait_until(lambda: all(message.released for message in waiting), "they hold no slot")


@asynccontextmanager
async def dispatcher(url: str, timeout_s: float = 2.0) -> AsyncGenerator[Dispatcher, None]:
    client = store.connect(url, timeout_s=timeout_s)
    one = Dispatcher(client)
    try:
        yield one
    finally:
        one.sharing.close()
        await asyncio.wait_for(asyncio.gather(*one.asked), 10)
        assert one.sharing.count == one.sharing.size_bytes == 0
        await one.sharing.end()
        await end_tasks([one.runs])
        await client.aclose()


@pytest.fixture
async def two(redis_url: str) -> AsyncIterator[tuple[Dispatcher, Dispatcher]]:
    """Two dispatchers on one Redis."""
    async with dispatcher(redis_url) as one, dispatcher(redis_url) as other:
        yield one, other


@pytest.fixture
async def keeping(redis_url: str) -> AsyncIterator[Keeping]:
    """What a worker keeps answers with."""
    client = store.connect(redis_url, timeout_s=2.0)
    made = Keeping(client, MOST_BYTES)
    yield made
    await made.close()
    await client.aclose()


def ended(share: str, data: Any, request: Request = TICKER, *, lane: LaneConfig = LANE, **how: Any) -> Ending:
    attempt = Attempt(replace(request, deadline_ms=now_ms() + 60_000), lane.exchange, 1, now_ms(), share=share)
    code = how.get("code")
    item = Try(lane.exchange, Outcome.REJECTED if code else Outcome.OK, code, how.get("why", ""))
    sent_s = how.get("sent_s", time.monotonic() - 0.01)
    return Ending(attempt, lane, item, data, sent_s, how.get("size_bytes", 100))


async def given(task: asyncio.Task[Verdict]) -> Given:
    async with asyncio.timeout(10):
        verdict = await task
    assert isinstance(verdict, Given), verdict
    return verdict


async def data(verdict: Given) -> Any:
    return msgpack.decode(await verdict.data(MSGPACK))


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


async def test_an_answer_that_is_too_old_is_asked_for_anew(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    keeping.put(ended(await one.leads(), 1, sent_s=time.monotonic() - 5))
    assert (await given(other.ask())).age_ms >= 5_000
    share = await one.leads(max_age_ms=4_000)
    waiting = other.ask(max_age_ms=0)
    await other.held(1)
    keeping.put(ended(share, 2))
    assert await data(await given(waiting)) == 2
    assert await data(await given(one.ask())) == 2
    await one.leads(max_age_ms=0)


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


async def test_a_dispatcher_that_stops_or_is_full_lets_them_come_again(
    two: tuple[Dispatcher, Dispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    await one.leads()
    waiting = one.ask()
    await one.held(1)
    one.sharing.close()
    assert await waiting == Later()
    assert await one.ask() == Later()
    other.ask()
    await other.held(1)
    monkeypatch.setattr(of_dispatcher, "HELD", 1)
    assert await other.ask() == Later()


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
    sent_s = None if rows is None else time.monotonic()
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


CANDLES = Request("fetch_ohlcv", {"symbol": "BTC/USDT", "timeframe": "1M", "limit": 2}, max_age_ms="bar")
HTTP = Request(http=Http("https://a.example/b"), exchanges=["okx"], max_age_ms=60_000)


async def test_candles_are_shared_until_their_bar_closes(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    now = now_ms()
    last_ms, next_ms = bars.closes_ms("1M", now)
    rows = [[bars.closes_ms("1M", last_ms - 1)[0], 1.0], [last_ms, 2.0]]
    settled = now - last_ms > bars.SETTLES_MS and next_ms - now > 60_000
    assert settled, "the tests run just as a month begins"
    keeping.put(ended(await one.leads(request=CANDLES), rows, CANDLES))
    assert await data(await given(other.ask(request=CANDLES))) == rows
    assert await data(await given(other.ask(request=CANDLES, max_age_ms=60_000))) == rows


async def test_candles_of_a_bar_that_has_closed_since_are_asked_for_anew(
    two: tuple[Dispatcher, Dispatcher], keeping: Keeping
) -> None:
    one, other = two
    seconds = Request("fetch_ohlcv", {"symbol": "BTC/USDT", "timeframe": "1s"}, max_age_ms="bar")
    share = await one.leads(request=seconds)
    keeping.put(ended(share, [], seconds, sent_s=time.monotonic() - 2))
    await keeping.close()
    await other.leads(request=seconds)
    assert await given(other.ask(request=seconds, max_age_ms=60_000))


async def test_a_call_is_shared_like_a_read(two: tuple[Dispatcher, Dispatcher], keeping: Keeping) -> None:
    one, other = two
    answer: dict[str, Any] = {"status": 200, "headers": {}, "body": "é"}
    keeping.put(ended(await one.leads(request=HTTP), answer, HTTP))
    assert await data(await given(other.ask(request=HTTP))) == answer


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
