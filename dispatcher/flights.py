"""The requests of one dispatcher that may take one answer, and what will do for each of them. No I/O."""

import asyncio
import hashlib
import math
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from msgspec import msgpack

from schemas.bars import BAR
from schemas.messages import Attempt, ErrorCode
from schemas.runtime.answers import Answer, Lease, Look, Seen, State
from schemas.runtime.clock import clock_s
from schemas.runtime.deliveries import Delivery
from schemas.runtime.results import now_ms

from .verdicts import Verdict

# The longest that a request waits here: RabbitMQ ends the channel of a message that stays unsettled for half an hour.
HELD_S: Final = 60.0
# Who waits asks by itself if it has its answer sooner by this time, and in less than half of the time.
SOONER_MS: Final = 1_000
# Requests that allow answers of ages so much alike are asked for together.
ALIKE_US: Final = 100_000
# An error of one request is one of all equal ones, but for this: others may have more time.
NOT_SHARED: Final = frozenset({ErrorCode.DEADLINE_EXCEEDED})


class Waiter:
    """A request that may take another one's answer, and the lanes that may answer it."""

    __slots__ = ("attempt", "deadline_s", "delivery", "joined_s", "lanes", "owner", "verdict")

    def __init__(self, attempt: Attempt, delivery: Delivery, lanes: Collection[str] = ()) -> None:
        self.attempt = attempt
        self.delivery = delivery
        self.owner = owner_of(attempt)
        self.lanes = frozenset(lanes)
        self.joined_s = clock_s()
        self.deadline_s = self.joined_s + (attempt.deadline_ms - now_ms()) / 1000
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def tell(self, verdict: Verdict) -> None:
        """Gives it this verdict, unless it has one."""
        if not self.verdict.done():
            self.verdict.set_result(verdict)

    @property
    def bar(self) -> bool:
        """Whether an answer will do until its bar closes."""
        return self.attempt.request.max_age_ms == BAR

    @property
    def age_us(self) -> int:
        """The greatest age that will do; -1 where that is no question of age."""
        age_ms = self.attempt.request.max_age_ms
        return age_ms * 1000 if isinstance(age_ms, int) else -1


class Wanted(NamedTuple):
    """What Redis was asked for, and what it had.

    Args:
        oldest_us: no answer that left before this would do; infinite where ages did not matter.
        bar: one that has all finished bars would.
        at_us: when the call of what was found left; below zero for nothing.
        till_us: until when that has all finished bars.
    """

    oldest_us: float
    bar: bool
    at_us: float
    till_us: int


class Flight:
    """The requests of this dispatcher that may take one answer.

    Args:
        lease: its lease's key.
        answers: the keys of the answers that would do.

    Attributes:
        waiters: those without a verdict.
        lease_now: who asks, while they wait; None before that is known.
        looked: how the lease stood when it was last heeded.
        news: there is something to do.
        away: Redis has been away for too long.
        overtaker: one whose own turn at a limit would come much sooner than that of the one that asks.
        asked: what Redis was last asked for, when it had answered.
    """

    def __init__(self, lease: str, answers: Sequence[str]) -> None:
        self.lease = lease
        self.answers = answers
        self.waiters: dict[Waiter, None] = {}
        self.lease_now: Lease | None = None
        self.looked = Look(State.NONE, "", 0)
        self.news = asyncio.Event()
        self.away = False
        self.overtaker: Waiter | None = None
        self.asked: Wanted | None = None
        self.due_s = 0.0
        self._led_s = 0.0
        self._clock: tuple[int, float] | None = None

    def led(self, lease: Lease) -> None:
        """Another request asks from now on, as far as is known."""
        if self.lease_now is None or lease.id != self.lease_now.id:
            self._led_s = clock_s()
            self.overtaker = None
        self.lease_now = lease

    @property
    def turn_ms(self) -> int:
        """When the one that asks has its turn at a limit; 0 where that is not known."""
        return self.looked.turn_ms if self.lease_now is not None and self.looked.id == self.lease_now.id else 0

    def overtakes(self, turn_ms: float, at_ms: int) -> bool:
        """Whether a turn would come so much sooner than that of the one that asks that it is worth a call."""
        return self.turn_ms - at_ms > 2 * max(turn_ms - at_ms, 0.0) + SOONER_MS

    def was_asked(self, age_us: int, now_us: int, answer: Answer | None, *, bar: bool) -> None:
        """Redis was asked for an answer of this age, or where `bar` for one that has all bars, and found this one."""
        oldest_us = now_us - age_us if age_us >= 0 else math.inf
        self.asked = Wanted(oldest_us, bar, answer.at_us if answer else -math.inf, answer.till_us if answer else 0)

    def may_be_there(self, waiter: Waiter) -> bool:
        """Whether Redis may have an answer that will do for it: the one found last, or it allows an older one."""
        if self.asked is None:
            return False
        came_us = self.came_us(waiter)
        oldest_us = came_us - waiter.age_us if waiter.age_us >= 0 else math.inf
        was_found = self.asked.at_us >= oldest_us or (waiter.bar and came_us < self.asked.till_us)
        return was_found or oldest_us < self.asked.oldest_us - ALIKE_US or (waiter.bar and not self.asked.bar)

    def set_clock(self, now_us: int, asked_s: float) -> None:
        """Redis's clock showed this, not before that instant of ours."""
        self._clock = now_us, asked_s

    def came_us(self, waiter: Waiter) -> int:
        """When a request came, by Redis's clock: at the latest."""
        assert self._clock is not None
        now_us, asked_s = self._clock
        return now_us + int((waiter.joined_s - asked_s) * 1e6)

    def patient_until_s(self, waiter: Waiter) -> float:
        """When it leads by itself: half of its time is over since then."""
        since_s = max(waiter.joined_s, self._led_s)
        return since_s + max(waiter.deadline_s - since_s, 0.0) / 2

    def due(self, waiter: Waiter) -> float:
        """When something is to be done about it."""
        return min(self.patient_until_s(waiter), waiter.joined_s + HELD_S)

    def takes(self, waiter: Waiter, answer: Answer, now_us: int) -> bool:
        """Whether an answer will do: for one that waits also if it was under way when it came.

        Args:
            waiter: the request.
            answer: the answer. One that is from the future says that Redis's clock was set.
            now_us: the time by Redis's clock.
        """
        if answer.at_us > now_us:
            return False
        if answer.refusal:
            return self.came_us(waiter) <= answer.there_us
        if waiter.bar:
            return self.came_us(waiter) < answer.till_us
        return now_us - answer.at_us <= waiter.age_us or self.came_us(waiter) <= answer.there_us

    def fails(self, waiter: Waiter, seen: Seen) -> bool:
        """Whether one that waits ends with the error of the one that asked.

        It does if it came before that error, and has no lane that the other had not. For lack of time it ends only with
        no more time than the other had, and for too much data only in the same encoding.
        """
        if self.came_us(waiter) > seen.failed_us or not waiter.lanes <= seen.lanes:
            return False
        if seen.code is ErrorCode.TOO_LARGE and waiter.attempt.content_type != seen.encoding:
            return False
        return seen.code not in NOT_SHARED or waiter.attempt.deadline_ms <= seen.until_ms


def owner_of(attempt: Attempt) -> str:
    """Names a request: each copy of its message has the same name, and hardly another request."""
    part = attempt.request.exchanges[0] if attempt.results > 1 else ""
    names = attempt.request.id, attempt.reply_to, attempt.correlation_id, attempt.digest, part
    return hashlib.blake2b(msgpack.encode(names), digest_size=16).hexdigest()
