"""What Redis keeps of shared answers: as much as it may, for as long as it should."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio as redis_client
from msgspec import Raw, msgpack

from schemas.runtime import store
from schemas.runtime.answers import Answer, Answers, State, pack, unpack
from schemas.sharing import KEYS
from tests.support.fleet import wait_until

pytestmark = pytest.mark.both_stores
A, B = f"{KEYS}answer:a", f"{KEYS}answer:b"
ASKED = f"{KEYS}asked:"


@pytest.fixture
async def answers(redis_url: str) -> AsyncIterator[tuple[Answers, Any]]:
    async with AsyncExitStack() as stack:
        client: Any = await stack.enter_async_context(redis_client.from_url(redis_url))
        yield Answers(client), client


def body_of(size_bytes: int) -> bytes:
    return pack("okx", "okx", msgpack.encode("x" * 10)) + b"\0" * size_bytes


async def test_the_oldest_answers_make_room(answers: tuple[Answers, Any]) -> None:
    kept, client = answers
    for number in range(20):
        total = await kept.keep(
            f"{KEYS}answer:{number}", "lease", Answer(1, 0, body_of(800)), kept_ms=60_000, most_bytes=10_000
        )
        assert total <= 10_000
    there = [number for number in range(20) if await client.exists(f"{KEYS}answer:{number}")]
    assert there == list(range(20 - len(there), 20))
    assert len(there) >= 9
    assert await client.hlen("fleet:{answers}:sizes") == len(there) + 1


async def test_what_has_lapsed_or_is_replaced_counts_no_more(answers: tuple[Answers, Any]) -> None:
    kept, client = answers
    one = await kept.keep(A, "lease", Answer(1, 0, body_of(800)), kept_ms=60_000, most_bytes=10**6)
    assert await kept.keep(A, "lease", Answer(1, 0, body_of(800)), kept_ms=1, most_bytes=10**6) == one

    async def lapsed() -> bool:
        return not await client.exists(A)

    await wait_until(lapsed, "it has lapsed")
    assert await kept.keep(B, "lease", Answer(1, 0, body_of(800)), kept_ms=60_000, most_bytes=10**6) == one
    assert await client.zcard("fleet:{answers}:order") == await client.zcard("fleet:{answers}:ends") == 1


async def test_nothing_stays_for_ever(answers: tuple[Answers, Any]) -> None:
    kept, client = answers
    asking: dict[str, Any] = {"owner": "o", "lasts_ms": 60_000, "age_us": 0, "bar": False, "takes_over": ""}
    for number in range(3):
        await kept.ask(f"{ASKED}{number}", [], new_id="i", **asking)
    await kept.keep(A, ASKED + "0", Answer(1, 0, b"x"), kept_ms=86_400_000, most_bytes=10**6)
    await kept.keep(B, ASKED + "0", Answer(1, 0, b"x"), kept_ms=60_000, most_bytes=10**6)
    await kept.end(ASKED + "1", "i", State.FAILED, code="bad_symbol")
    await kept.end(ASKED + "2", "another", State.FAILED, code="bad_symbol")
    lasts = {key: await client.pttl(key) for key in [key async for key in client.scan_iter("fleet:*")]}
    assert all(lasts.values()), lasts
    assert min(lasts.values()) > -1, lasts
    for index in (b"fleet:{answers}:sizes", b"fleet:{answers}:ends", b"fleet:{answers}:order"):
        assert lasts[index] > 86_400_000


@pytest.mark.parametrize("body", [b"", b"\0", b"\1", b"\1x", b"\0\xc1", b"\0" + msgpack.encode(["okx"]), b"\2abc"])
def test_what_is_no_answer_counts_as_an_error_of_redis(body: bytes) -> None:
    with pytest.raises(store.AWAY):
        unpack(body)


def test_an_answer_s_body_is_read_as_it_was_packed() -> None:
    for size in (0, 100, 10**6):
        rows = msgpack.encode("x" * size)
        kept = unpack(pack("okx", "okx.eu", rows))
        assert (kept.exchange, kept.lane, Raw(kept.data)) == ("okx", "okx.eu", Raw(rows))
