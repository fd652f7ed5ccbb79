"""Shared answers in Redis: who asks a question at present, and the answers that others may be given.

A *lease* says that a request asks its question for all others. It ends with the answer, or with why there is none. It
lapses by itself where nobody ends it, and whoever waits for it too long takes it over: a lease is never a promise.

An *answer* is kept under its question and its source. `at` is when the call for it left for the exchange, by Redis's
clock; `till` is until when candles have all finished bars (`schemas.bars`), 0 for anything else. All answers together
have a bound in bytes; the oldest make room. Everything lapses.

What goes wrong here is one of `store.AWAY`, for the caller to go on without.
"""

import asyncio
import enum
import zlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import redis.asyncio
from msgspec import Raw, Struct, msgpack

from ..messages import Attempt, ErrorCode
from ..sharing import KEYS
from . import store
from .clock import clock_s

T = TypeVar("T")

LUA: Final = Path(__file__).with_suffix(".lua")
# How often the end of a lease is written where Redis does not answer, and how long after the try before.
TRIES: Final = 5
AGAIN_S: Final = 0.5
# How long the end of a lease can be seen: longer than a dispatcher goes without looking.
ENDED_MS: Final = 10_000
# Answers from here on are compressed: mostly to a tenth.
PACKED_BYTES: Final = 16 * 1024
_PLAIN: Final = b"\0"
_PACKED: Final = b"\1"


class Lease(Struct, frozen=True):
    """Who asks a question at present.

    Args:
        id: the lease's; another one for each time that it is taken.
        owner: the request's that took it, as `dispatcher.sharing` names it.
    """

    id: str
    owner: str


class Answer(Struct, frozen=True):
    """An answer that is kept.

    Args:
        at_us: when its call left for the exchange.
        there_us: when the exchange's answer began to come: who came before that may have it, however old it is.
        till_us: until when it has all finished bars; 0 where it has none.
        body: as `pack` made it.
        refusal: it says what is wrong with the call: nobody may have it but who came before it began to come.
    """

    at_us: int
    there_us: int
    till_us: int
    body: bytes
    refusal: bool = False


class Kept(Struct, frozen=True, array_like=True):
    """What is in an answer's body: the exchange and the lane that gave it, and the data in MessagePack."""

    exchange: str
    lane: str
    data: Raw


class State(enum.StrEnum):
    """How a lease stands."""

    NONE = ""
    ASKS = "asks"
    ANSWERED = "answered"
    FAILED = "failed"  # with an error that equal requests have, too
    ALONE = "alone"  # its answer can't be shared


class Asked(Struct, frozen=True):
    """What came of asking.

    Args:
        now_us: when.
        answer: one that will do; the lease is not taken then.
        lease: the one that holds.
        leads: whether it was given to the caller.
    """

    now_us: int
    answer: Answer | None = None
    lease: Lease | None = None
    leads: bool = False


class Look(Struct, frozen=True):
    """How a lease stands, at a look.

    Args:
        state: how.
        id: the lease's.
        done_us: tells its last answer from the one before, which may be another lease's; 0 for none.
        turn_ms: when who asks has its turn at a limit, Unix milliseconds; 0 where it has none yet.
    """

    state: State
    id: str
    done_us: int
    turn_ms: int = 0


class Seen(Struct, frozen=True):
    """All of a lease.

    Args:
        now_us: when it was read.
        look: how it stands.
        lease: who asks, or asked.
        answer: the last one, if it is still there.
        code: of the error that it failed with.
        why: the same in words.
        failed_us: when that error was there.
        until_ms: the deadline of the request that failed.
        encoding: that of its result.
        lanes: those that it could use.
    """

    now_us: int
    look: Look
    lease: Lease
    answer: Answer | None
    code: ErrorCode | None
    why: str
    failed_us: int
    until_ms: int
    encoding: str = ""
    lanes: frozenset[str] = frozenset()


class Answers:
    """The shared answers of one fleet, as one process uses them.

    Args:
        client: made by `store.connect`.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        any_client: Any = client
        self._script = any_client.register_script(LUA.read_text(encoding="utf-8"))

    async def by_redis(self) -> Callable[[float], int]:
        """Returns what turns a time of the monotonic clock into Redis's, microseconds; never into a later one.

        To be asked for before a write, not by it: Redis may take a write late, and things would look younger.
        """
        now_us = await store.time_us(self._redis, KEYS)
        now_s = clock_s()
        return lambda at_s: now_us - int((now_s - at_s) * 1e6)

    async def ask(
        self,
        lease: str,
        answers: Sequence[str],
        *,
        owner: str,
        lanes: Collection[str],
        new_id: str,
        lasts_ms: int,
        age_us: int,
        bar: bool,
        takes_over: str,
    ) -> Asked:
        """Finds an answer that will do, or whom to wait for, or takes the lease.

        Args:
            lease: its key.
            answers: the keys of those that would do, the best first.
            owner: who asks.
            lanes: those that it may use.
            new_id: the lease's, if it is taken.
            lasts_ms: how long it lasts then.
            age_us: the greatest age that will do; -1 for none.
            bar: whether what has all finished bars will do.
            takes_over: the id of a lease that nobody waits for any more; empty for none.
        """
        args = owner, new_id, max(lasts_ms, 1), age_us, int(bar), takes_over, " ".join(sorted(lanes))
        found: Any = await self._script(keys=[lease, *answers], args=["ask", *args])
        return store.shaped(found, _asked)

    async def look(self, leases: Sequence[str]) -> tuple[int, list[Look]]:
        """How these leases stand, and when that was."""
        found: Any = await self._script(keys=leases, args=["look"])
        return store.shaped(found, lambda said: (int(said[0]), [_look(*each) for each in said[1:]]))

    async def see(self, lease: str) -> Seen:
        """All of a lease."""
        found: Any = await self._script(keys=[lease], args=["see"])
        return store.shaped(found, _seen)

    async def waits(self, lease: str, id_: str, turn_ms: int) -> None:
        """Whoever has this lease has its turn at a limit then, Unix milliseconds."""
        await self._script(keys=[lease], args=["waits", id_, turn_ms])

    async def keep(self, key: str, lease: str, id_: str, answer: Answer, *, kept_ms: int, most_bytes: int) -> int:
        """Keeps an answer, and ends the lease with it; returns how many bytes all answers have.

        Args:
            key: its key. One there that left later stays. Nobody asks for the key of a refusal.
            lease: the lease's key.
            id_: the id that it had. One that was taken over goes on.
            answer: the answer.
            kept_ms: for how long it is kept, or longer, as one is that it replaces.
            most_bytes: how many bytes all answers may have.
        """
        times = answer.at_us, answer.there_us, answer.till_us
        args = "keep", id_, *times, answer.body, max(kept_ms, 1), most_bytes, ENDED_MS, "1" if answer.refusal else ""
        return store.shaped(await self._script(keys=[key, lease], args=args), int)

    async def fail(self, lease: str, id_: str, failed_s: float, **error: str | int) -> None:
        """Ends a lease as `end` does: with an error (`failing`) that was there at that time of the monotonic clock."""
        failed_us = (await self.by_redis())(failed_s)
        await self.end(lease, id_, State.FAILED, **error, failed=failed_us)

    async def end(self, lease: str, id_: str, state: State, **more: str | int) -> None:
        """Ends a lease without an answer, unless it has one or was taken over; `more` are fields of an error."""
        fields = {"state": state, **more}
        words = [word for field in fields.items() for word in field]
        await self._script(keys=[lease], args=["finish", id_, ENDED_MS, *words])


async def insist(write: Callable[[], Awaitable[T]], what: str) -> T | None:
    """Writes the end of a lease, again where Redis does not answer; None where it never did.

    Args:
        write: writes it.
        what: names the loss.
    """
    for left in range(TRIES - 1, -1, -1):
        try:
            return await write()
        except store.AWAY as error:
            store.count_loss(error, what)
            await asyncio.sleep(AGAIN_S if left else 0)
    return None


def failing(attempt: Attempt, code: str, why: str) -> dict[str, str | int]:
    """What a lease says of an error of this request."""
    return {"code": code, "why": why, "until": attempt.deadline_ms, "encoding": attempt.content_type}


def pack(exchange: str, lane: str, data: bytes) -> bytes:
    """An answer's body; data is in MessagePack. Of much data this takes time: call it in a thread."""
    body = msgpack.encode(Kept(exchange, lane, Raw(data)))
    return _PLAIN + body if len(body) < PACKED_BYTES else _PACKED + zlib.compress(body, 1)


def unpack(body: bytes) -> Kept:
    """What is in an answer's body.

    Raises:
        InvalidResponse: it is none.
    """
    return store.shaped(body, _unpacked)


_KEPT: Final = msgpack.Decoder(Kept)


def _unpacked(body: bytes) -> Kept:
    try:
        return _KEPT.decode(zlib.decompress(body[1:]) if body[:1] == _PACKED else body[1:])
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _asked(found: list[Any]) -> Asked:
    now_us, what = int(found[0]), found[1]
    if what == b"answer":
        return Asked(now_us, answer=_answer(*found[3:]))
    lease = Lease(found[2].decode(), found[3].decode())
    return Asked(now_us, lease=lease, leads=what == b"lead")


def _answer(at: bytes, there: bytes, till: bytes, body: bytes, refusal: bytes = b"") -> Answer:
    return Answer(int(at), int(there or 0), int(till), bytes(body), refusal == b"1")


def _look(state: bytes, id_: bytes, done: bytes, turn: bytes) -> Look:
    return Look(State(state.decode()), id_.decode(), int(done or 0), int(turn or 0))


def _seen(found: list[Any]) -> Seen:
    state, id_, owner, done, _, code, why, failed, until, encoding, lanes, turn, *answer = found[1:]
    return Seen(
        int(found[0]),
        _look(state, id_, done, turn),
        Lease(id_.decode(), owner.decode()),
        _answer(*answer) if answer[0] else None,
        ErrorCode(code.decode()) if code else None,
        why.decode(errors="replace"),
        int(failed or found[0]),  # workers of the version before do not say it
        int(until or 0),
        encoding.decode(),
        frozenset(lanes.decode().split()),
    )
