"""What Redis keeps of shared answers: as much as it may, for as long as it should."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio as redis_client
from msgspec import Raw, msgpack

from schemas.runtime import store
from schemas.runtime.answers import Answer, Answers, State, pack, unpack
from schemas.runtime.clock import clock_s
from schemas.sharing import KEYS, refusal_key
from tests.support.fleet import wait_until

pytestmark = pytest.mark.both_stores
A, B = f"{KEYS}answer:a", f"{KEYS}answer:b"
ASKED = f"{KEYS}asked:"
CLOCK = "fleet:{answers}:clock"
MOST: dict[str, Any] = {"most_bytes": 10**6}
ASKING: dict[str, Any] = {
    "owner": "o",
    "lanes": ["okx"],
    "lasts_ms": 60_000,
    "age_us": 0,
    "bar": False,
    "takes_over": "",
}
ANSWER = Answer(1, 1, 0, pack("okx", "okx", msgpack.encode("x" * 10)) + b"\0" * 800)


@pytest.fixture
async def answers(redis_url: str) -> AsyncIterator[tuple[Answers, Any]]:
    async with AsyncExitStack() as stack:
        client: Any = await stack.enter_async_context(redis_client.from_url(redis_url))
        yield Answers(client), client


async def test_the_oldest_answers_make_room(answers: tuple[Answers, Any]) -> None:
    kept, client = answers
    for number in range(20):
        key = f"{KEYS}answer:{number}"
        total = await kept.keep(key, "lease", "i", ANSWER, kept_ms=60_000, most_bytes=10_000)
        assert total <= 10_000
    there = [number for number in range(20) if await client.exists(f"{KEYS}answer:{number}")]
    assert there == list(range(20 - len(there), 20))
    assert len(there) >= 9
    assert await client.hlen("fleet:{answers}:sizes") == len(there) + 1


async def test_what_has_lapsed_or_is_replaced_counts_no_more(answers: tuple[Answers, Any]) -> None:
    kept, client = answers
    one = await kept.keep(A, "lease", "i", ANSWER, kept_ms=300, **MOST)
    assert await kept.keep(A, "lease", "i", ANSWER, kept_ms=1, **MOST) == one

    async def lapsed() -> bool:
        return not await client.exists(A)

    await wait_until(lapsed, "it has lapsed")
    assert await kept.keep(B, "lease", "i", ANSWER, kept_ms=60_000, **MOST) == one
    assert await client.zcard("fleet:{answers}:order") == await client.zcard("fleet:{answers}:ends") == 1


async def test_a_lease_has_its_owner_s_turn_until_another_one_asks(answers: tuple[Answers, Any]) -> None:
    kept, _ = answers
    await kept.ask(ASKED, [], new_id="i", **ASKING)
    await kept.waits(ASKED, "another", 5)
    assert (await kept.see(ASKED)).look.turn_ms == 0
    await kept.waits(ASKED, "i", 7)
    assert (await kept.see(ASKED)).look.turn_ms == (await kept.look([ASKED]))[1][0].turn_ms == 7
    taking: dict[str, Any] = {**ASKING, "takes_over": "i"}
    await kept.ask(ASKED, [], new_id="j", **taking)
    assert (await kept.see(ASKED)).look.turn_ms == 0
    await kept.waits("another lease", "i", 7)
    assert (await kept.see("another lease")).look.turn_ms == 0


async def test_nothing_stays_for_ever(answers: tuple[Answers, Any]) -> None:
    kept, client = answers
    for number in range(3):
        await kept.ask(f"{ASKED}{number}", [], new_id="i", **ASKING)
    await kept.keep(A, ASKED + "0", "i", Answer(1, 1, 0, b"x"), kept_ms=86_400_000, **MOST)
    await kept.keep(B, ASKED + "0", "i", Answer(1, 1, 0, b"x"), kept_ms=60_000, **MOST)
    error: dict[str, Any] = {"code": "bad_symbol", "why": "", "until": 0}
    await kept.fail(ASKED + "1", "i", 0.0, **error)
    await kept.fail(ASKED + "2", "another", 0.0, **error)
    lasts = {key: await client.pttl(key) for key in [key async for key in client.scan_iter("fleet:*")]}
    assert all(lasts.values()), lasts
    assert min(lasts.values()) > -1, lasts
    for index in (b"fleet:{answers}:sizes", b"fleet:{answers}:ends", b"fleet:{answers}:order"):
        assert lasts[index] > 86_400_000


async def test_a_clock_that_was_set_back_makes_all_forgotten(answers: tuple[Answers, Any]) -> None:
    """Or answers would look as much younger, and those of times that come again would be new."""
    kept, client = answers
    now_us = (await kept.by_redis())(clock_s())
    answer = Answer(now_us - 10**7, now_us, 0, b"x")
    for key in (A, B):
        await kept.keep(key, "lease", "i", answer, kept_ms=60_000, **MOST)
    asking: dict[str, Any] = {**ASKING, "age_us": 60 * 10**6, "new_id": "i"}
    assert (await kept.ask(ASKED, [A, B], **asking)).answer == answer
    await client.set(CLOCK, now_us + 5 * 10**6)
    assert (await kept.ask(ASKED, [A, B], **asking)).leads
    assert [await client.exists(key) for key in (A, B, "fleet:{answers}:order")] == [0, 0, 0]
    await kept.keep(A, ASKED, "i", answer, kept_ms=60_000, **MOST)
    assert (await kept.ask(ASKED, [A, B], **asking)).answer == answer


async def test_an_answer_that_left_later_stays_and_lasts_as_long(answers: tuple[Answers, Any]) -> None:
    kept, client = answers
    left_us = [(await kept.by_redis())(clock_s() - ago_s) for ago_s in (3, 2, 1)]
    first, second, third = [Answer(at_us, at_us + 10, 0, str(at_us).encode()) for at_us in left_us]
    await kept.keep(A, ASKED, "i", second, kept_ms=60_000, **MOST)
    total = await kept.keep(A, ASKED, "i", first, kept_ms=60_000, **MOST)
    assert (await kept.see(ASKED)).answer == second, "with its own times"
    assert await kept.keep(A, ASKED, "i", third, kept_ms=1_000, **MOST) == total
    assert (await kept.see(ASKED)).answer == third
    assert await client.pttl(A) > 50_000


async def test_a_refusal_is_seen_by_who_waits_and_found_by_nobody(answers: tuple[Answers, Any]) -> None:
    kept, client = answers
    asking: dict[str, Any] = {**ASKING, "age_us": 60 * 10**6}
    now_us = (await kept.by_redis())(clock_s())
    good, refusal = Answer(now_us - 10**6, now_us, 0, b"x"), Answer(now_us, now_us, 0, b"y", refusal=True)
    await kept.keep(A, ASKED, "i", good, kept_ms=60_000, **MOST)
    assert (await kept.ask(ASKED, [], new_id="i", **asking)).leads
    await kept.keep(refusal_key(ASKED), ASKED, "i", refusal, kept_ms=10_000, **MOST)
    assert (await kept.see(ASKED)).answer == refusal
    assert (await kept.ask(ASKED, [A], new_id="j", **asking)).answer == good
    assert await client.pttl(refusal_key(ASKED)) > 0
    await kept.keep(A, ASKED, "i", good, kept_ms=60_000, **MOST)
    assert (await kept.see(ASKED)).answer == good


async def test_a_lease_that_has_an_answer_fails_no_more(answers: tuple[Answers, Any]) -> None:
    """A hedge of the same request is refused, or is dropped as the request was answered."""
    kept, _ = answers
    assert (await kept.ask(ASKED, [], new_id="i", **ASKING)).leads
    await kept.keep(A, ASKED, "i", ANSWER, kept_ms=60_000, **MOST)
    await kept.fail(ASKED, "i", clock_s(), code="bad_symbol", why="", until=0)
    for state in (State.NONE, State.ALONE):
        await kept.end(ASKED, "i", state)
    assert (await kept.see(ASKED)).look.state is State.ANSWERED


@pytest.mark.parametrize("body", [b"", b"\0", b"\1", b"\1x", b"\0\xc1", b"\0" + msgpack.encode(["okx"]), b"\2abc"])
def test_what_is_no_answer_counts_as_an_error_of_redis(body: bytes) -> None:
    with pytest.raises(store.AWAY):
        unpack(body)


def test_an_answer_s_body_is_read_as_it_was_packed() -> None:
    for size in (0, 100, 10**6):
        rows = msgpack.encode("x" * size)
        kept = unpack(pack("okx", "okx.eu", rows))
        assert (kept.exchange, kept.lane, Raw(kept.data)) == ("okx", "okx.eu", Raw(rows))
