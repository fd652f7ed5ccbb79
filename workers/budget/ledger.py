"""One scope's buckets in Redis, an exchange as seen from one address: what this process asks of them.

A reservation is one question (``reserve`` in budget.lua), in one round trip and for all buckets of a call: the earliest
instant at which every bucket has room is reserved. There is no polling, so calls are served in the order of asking. The
only clock is Redis's. A reservation that is not used is given back, or lapses: it may cost throughput, never a limit.

Three things make a bucket hold less than its table says, and the library heeds them all in the same step. *Jitter*: an
exchange counts arrivals, so windows are longer by a margin, which is measured (`Spread`) and shared. *Strangers*: where
the exchange says what it has counted (`Ledger.observe`), the part of it that is not ours is left to them. *Limits*:
where it says "too many" though we kept to the table (`Ledger.limited`), the bucket holds a tenth less, and a hundredth
more again each minute, half as much where that happens again; after every pause it starts at half and is whole again
after some windows.

What Redis does not answer raises one of `store.AWAY`. What this process has to tell it meanwhile (pauses, the
exchange's clock) is kept, and sent when Redis is back (`Ledger.meet`).
"""

import asyncio
import copy
import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import redis.asyncio
import redis.exceptions
from msgspec.structs import replace

from schemas.config import LaneConfig
from schemas.runtime import store
from schemas.runtime.clock import clock_s
from schemas.runtime.standstill import StillFor, unknown
from schemas.runtime.store import AWAY

from ..limits.costs import Bucket, Charge
from . import protocol
from .grants import Grant, Learned, Refusal, Use, refused
from .jitter import FASTEST_S, Spread
from .keys import Keys
from .membership import Membership
from .pauses import Pauses
from .protocol import ANY_TIME, Expected, Framed, Question
from .punctuality import Punctuality
from .redis_clock import RedisClock
from .rules import HORIZON_US, MARGIN_PART, SCALE
from .script import REDIS_CLOCK, Script
from .share import Addition

log = logging.getLogger(__name__)

LIVE_RESERVE: Final = LaneConfig().live_reserve
# How often a question is asked that Redis did not run, as it came too late or at an impossible time.
TRIES: Final = 3
# The answers to these measure Redis's clock, and how late this process reads answers: Redis runs them quickly.
PROMPT: Final = ("reserve", "again", "beat")
# Pairs and instruments come from requests, so the buckets that are remembered must not grow for ever.
BUCKETS_KEPT: Final = 1000
T = TypeVar("T")


class ClockSet(redis.exceptions.RedisError):
    """There is no answer by a clock that can be Redis's."""


class _Known:
    """What this process knows of Redis at one scope, whichever account it asks for."""

    def __init__(self) -> None:
        # The last epoch of Redis's memory that we have seen. Each question names a new id for the epoch that it may
        # begin: of two questions without an answer, each may have begun one, the second after the first was forgotten.
        self.epoch = ""
        # Whether Redis may lack what we know: at first, after a loss, and when it was emptied.
        self.unmet = True
        self.ahead_us = 0
        self.exchange_clock: tuple[int, int] | None = None


class Ledger:
    """One scope, as this process knows it.

    Args:
        client: made by `schemas.runtime.store.connect`.
        scope: ``<exchange>:<egress>``.
        account: names the account; buckets counted per account are shared by all who use it, from any address.
        live_reserve: the part of every bucket that bulk calls leave alone.
        clock: the library's line that tells the time; tests bring their own.
        member: this worker, as one of those that share the scope. Without it the process has no part while Redis is
            away, and does not notice that Redis's clock was set.
        still_s: for how long the process stood still.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        scope: str,
        *,
        account: str = "",
        live_reserve: float = LIVE_RESERVE,
        clock: str = REDIS_CLOCK,
        member: Membership | None = None,
        still_s: StillFor = unknown,
    ) -> None:
        self.keys = Keys(scope, account)
        self.live_reserve = live_reserve
        self.member = member
        self.now_s = member.clock if member else clock_s
        self.redis_clock = member.redis if member else RedisClock()
        self.punctuality = Punctuality()
        self.still_s = still_s
        self.spread = Spread(still_s)
        self.pauses = Pauses(self.now_s)
        self._script = Script(client, clock)
        self._known = _Known()
        self._meeting = asyncio.Lock()
        self._seen: dict[str, Bucket] = {}
        # What was learned of our buckets, thousandths of their tables' amounts, and when we saw it, by Redis's clock.
        self._learned: dict[str, tuple[int, int]] = {}

    def of(self, account: str) -> "Ledger":
        """The same scope with another account; all else is one for both, and they are one of those that share it."""
        other = copy.copy(self)
        other.keys = Keys(self.keys.scope, account)
        return other

    async def reserve(
        self, charges: Sequence[Charge], *, max_wait_us: int, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """Reserve room for one call in all its buckets; does not sleep.

        Args:
            charges: what the call costs (`Costs.charges`).
            max_wait_us: refuse when the room would come later than this, the lead not counted.
            bulk: leave the reserve.
            lead_us: how long the caller needs to be ready to send.

        Raises:
            RedisError: one of `store.AWAY`.
        """
        for charge in charges:
            self._see(charge)
        # What others were granted is not known here: where the scope is shared, as far ahead as anything is.
        self._known.ahead_us = HORIZON_US if self.member else max(self._known.ahead_us, max_wait_us)
        await self.meet()
        planned = await self._ask(
            protocol.reserve(
                self.keys,
                charges,
                max_wait_us=max_wait_us,
                lead_us=lead_us,
                spread_us=self.spread.margin_us(),
                ahead_us=self._known.ahead_us,
                known_epoch=self._known.epoch,
                new_epoch=secrets.token_hex(8),
                reserve=self.live_reserve if bulk else 0.0,
            )
        )
        if self._known.epoch not in ("", planned.epoch):
            self._known.unmet = True  # It was emptied.
        self._known.epoch = planned.epoch or ""
        return planned.answer or refused("budget")

    async def again(
        self, charges: Sequence[Charge], grant: Grant, *, max_wait_us: int, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal | None:
        """Check a reservation again; None where it was forgotten, and may be made anew.

        The arguments are those of `reserve`, and `grant` is what it returned; a refusal has given it back.

        Raises:
            RedisError: one of `store.AWAY`.
        """
        planned = await self._ask(
            protocol.again(
                self.keys,
                charges,
                max_wait_us=max_wait_us,
                lead_us=lead_us,
                spread_us=self.spread.margin_us(),
                at_us=grant.at_us,
                reserve=self.live_reserve if bulk else 0.0,
            )
        )
        if isinstance(planned.answer, Grant):
            held_by = planned.answer.held_by if grant.held_by is None else grant.held_by
            return replace(planned.answer, ranks=grant.ranks, held_by=held_by)
        return planned.answer

    async def arrived(self, charges: Sequence[Charge], grant: Grant, late_us: float, *, answered: bool = True) -> None:
        """Report that a call has arrived, and how late, where that matters to others (`Budget.arrived`)."""
        if (late_us > grant.margin_us or (answered and grant.must_tell)) and not self._known.unmet:
            arrived_us, margin_us = grant.at_us + math.ceil(late_us), int(grant.margin_us)
            await self._ask(
                protocol.late(
                    self.keys, charges, at_us=grant.at_us, arrived_us=arrived_us, margin_us=margin_us, answered=answered
                )
            )

    async def back(self, charges: Sequence[Charge], grant: Grant) -> None:
        """Give back a reservation whose call is not sent."""
        if not self._known.unmet:
            await self._ask(protocol.back(self.keys, charges, at_us=grant.at_us))

    async def pause(
        self, keys: Sequence[str], for_s: float, why: str, *, most_s: float, named: bool, grant: Grant | None
    ) -> float:
        """Set pauses for all workers; returns how long they hold now, seconds. See `Budget.pause`."""
        for_us, most_us, at_us = max(0, int(for_s * 1e6)), int(most_s * 1e6), grant.at_us if grant else None
        holds_s = await self._ask(
            protocol.pause(keys, for_us=for_us, most_us=most_us, why=why, named=named, at_us=at_us)
        )
        self.pauses.keep(keys, holds_s, why)
        return holds_s

    async def paused(self, charges: Sequence[Charge]) -> float:
        """For how many more seconds calls with these charges must not be sent."""
        keys = self.keys.pauses_of(charges)
        asked_s = self.now_s()
        return self._take_paused(keys, await self._ask(protocol.paused(keys)), asked_s)

    def _take_paused(self, keys: Sequence[str], found: protocol.Paused, asked_s: float) -> float:
        """Remembers what Redis said of pauses; returns for how many more seconds they hold."""
        if found.lifted_us is not None:
            self.pauses.lifted(found.lifted_us)
        if found.left_s:
            self.pauses.keep([found.longest], found.left_s, found.why, from_s=asked_s)
        return max(self.pauses.left_s(keys), found.left_s)

    def keep_clock(self, ahead_s: float, error_s: float) -> None:
        """Keeps how far the exchange's clock is ahead of Redis's, to be published (`tell_clock`)."""
        self._known.exchange_clock = int(ahead_s * 1e6), math.ceil(error_s * 1e6)

    async def tell_clock(self) -> None:
        """Publish the offset of the exchange's clock; its fixed windows follow it."""
        if self._known.exchange_clock:
            ahead_us, error_us = self._known.exchange_clock
            await self._ask(protocol.clock(self.keys, ahead_us=ahead_us, error_us=error_us))

    def step_s(self, charge: Charge) -> float:
        """How long one such call takes of its bucket: see `Budget.step_s`."""
        bucket = charge.bucket
        part, _ = self._learned.get(self.keys.bucket(charge), (SCALE, 0))
        window_s = bucket.window_s
        if bucket.kind == "rolling" and bucket.margin_ms:
            window_s += min((self.spread.margin_us() or 0) / 1e6, window_s * MARGIN_PART)
        return charge.cost / bucket.amount * window_s * SCALE / part

    async def usage(self) -> tuple[dict[str, Use], float]:
        """Return every bucket this process has charged; the fullest and smallest count of it where it has many.

        And for how many more seconds all that leaves here is paused. Where Redis has forgotten that a bucket holds less
        than its table says, that is restored.
        """
        known, asked_s = dict(self._seen), self.now_s()
        now_us, seen, paused = await self._ask(protocol.usage(self.keys, known))
        uses: dict[str, Use] = {}
        for (key, bucket), one in zip(known.items(), seen, strict=True):
            effective = one.effective
            if not one.lowered and key in self._learned:  # forgotten
                part, seen_us = self._learned[key]
                effective = await self._ask(protocol.remember(self.keys, key, bucket, part=part, seen_us=seen_us))
            if effective < SCALE:
                self._learned[key] = effective, now_us
            else:
                self._learned.pop(key, None)
            other = uses.get(bucket.name, Use(0.0, 1.0))
            uses[bucket.name] = Use(
                max(one.used / SCALE, other.used),
                min(effective / SCALE, other.effective),
                max(one.paused_us / 1e6, other.paused_s),
                bucket.amount,
                bucket.window_s,
            )
        return uses, self._take_paused(self.keys.pauses, paused, asked_s)

    async def observe(
        self, charge: Charge, rank: int, grant: Grant, used: float, *, late_us: float, span_s: float
    ) -> None:
        """Take over what the exchange says it has counted: see `Budget.observe`."""
        # Calls of ours that left shortly before that span may have arrived in it: all that can have count as ours.
        span_us = int(span_s * 1e6) + max(int(charge.bucket.margin_ms * 1000), self.spread.worst_us() or 0)
        counted, by_us = math.ceil(used * SCALE), grant.at_us + math.ceil(late_us)
        await self._ask(protocol.observe(self.keys, charge, counted=counted, by_us=by_us, rank=rank, span_us=span_us))

    async def limited(self, charges: Sequence[Charge], grant: Grant) -> Learned | None:
        """Learn from "too many": see `Budget.limited`."""
        lowered = await self._ask(protocol.limited(self.keys, charges, at_us=grant.at_us))
        if lowered is None:
            return None
        number, part = lowered
        charge = charges[number]
        return Learned(charge.key, charge.bucket.amount, charge.bucket.amount * part / SCALE)

    async def share_trips(self) -> None:
        """Publishes the fastest round trips to this scope's workers, and takes in theirs (`Spread`)."""
        span = int(time.time() / FASTEST_S)
        faster_s, ends_s = self.spread.faster(clock_s()), int((span + 2) * FASTEST_S)
        trips_s = await self._ask(protocol.trips(self.keys, span=span, ends_s=ends_s, faster_s=faster_s))
        self.spread.take_fleet(span, trips_s)

    async def beat(self, member: Membership) -> None:
        """One beat of the worker that shares the scope."""
        mine = member.beat(self._seen.values())
        answer = await self._ask(
            protocol.beat(self.keys, mine, known_epoch=self._known.epoch, new_epoch=secrets.token_hex(8))
        )
        self._known.epoch = answer.epoch
        if paused_s := member.answered(answer):
            self.pauses.keep(self.keys.pauses[:1], paused_s)
        if dead := member.dead():
            await self._ask(protocol.bury(self.keys, dead))

    async def leave(self, member: Membership) -> None:
        """The worker gives up its part."""
        await self._ask(protocol.leave(self.keys, member.id))

    async def give(self, member: Membership, addition: Addition) -> None:
        """Adds to a bucket what the worker granted itself."""
        await self._ask(protocol.give(self.keys, member.id, addition.key, addition.bucket, addition.grants))

    def lost(self) -> None:
        """Redis did not answer: pauses and the exchange's clock are sent again when it is back."""
        self._known.unmet = True

    async def meet(self) -> None:
        """After a loss, send Redis our pauses and the exchange's clock: it may have forgotten them."""
        if not self._known.unmet:
            return
        async with self._meeting:
            if not self._known.unmet:
                return
            for key, left_s, why in self.pauses:
                for_us = int(left_s * 1e6)
                await self._ask(protocol.pause([key], for_us=for_us, most_us=for_us, why=why, again=True))
            await self.tell_clock()
            self._known.unmet = False

    def _see(self, charge: Charge) -> None:
        key = self.keys.bucket(charge)
        if key not in self._seen:
            if len(self._seen) >= BUCKETS_KEPT:
                self._seen.clear()
            self._seen[key] = charge.bucket

    async def _ask(self, question: Question[T]) -> T:
        """Asks Redis.

        Raises:
            RedisError: one of `store.AWAY`: there was no answer, or none by a clock that can be Redis's.
        """
        try:
            return await self._ask_in_time(question)
        except AWAY as error:
            self._known.unmet = True
            store.count_loss(error, question.entry)
            raise

    async def _ask_in_time(self, question: Question[T]) -> T:
        for _ in range(TRIES):
            asked_s = self.now_s()

            def expected() -> Expected:
                nonlocal asked_s
                asked_s = self.now_s()
                return self.member.expected() if self.member else ANY_TIME

            said = await self.run(question, expected)
            is_possible = await self.is_possible(said, asked_s)
            if said.was_run and is_possible:
                if question.entry in PROMPT:
                    self.read_clock(self.now_s(), said.now_us, asked_s)
                return store.shaped(said.answer, question.read)
            if said.was_run:
                break  # It left its trace, and may not be repeated.
        raise ClockSet("Redis's clock was set, or questions are too long on their way")

    async def run(self, question: Question[T], expected: Callable[[], Expected]) -> Framed:
        """Asks once; `expected` says as it is sent when it may be run. What comes with the answer is not judged."""
        keys, args = [*question.keys, self.keys.correction], [*question.args, question.entry]
        return store.shaped(await self._script.run(keys, args, expected), protocol.framed)

    def read_clock(self, now_s: float, redis_us: int, asked_s: float) -> None:
        """Learns from a prompt answer what Redis's clock shows, and how late this process reads answers."""
        self.punctuality.late(self.redis_clock.answered(now_s, redis_us, asked_s=asked_s) * 1e6)

    async def is_possible(self, said: Framed, asked_s: float) -> bool:
        """Whether Redis's clock can have shown this since `asked_s`; otherwise it was set, or ours stood still."""
        member = self.member
        if member is None:
            return True
        behind_us, unsure_us = member.off_by(said.frame, said.now_us, asked_s)
        if behind_us:
            new = secrets.token_hex(4)
            question = protocol.correct(
                self.keys,
                member.id,
                found=said.frame.id,
                known=member.frame,
                behind_us=behind_us,
                unsure_us=unsure_us,
                new=new,
            )
            asked_s = self.now_s()
            answer = (await self.run(question, lambda: ANY_TIME)).answer
            correction, now_us = store.shaped(answer, question.read)
            if correction == new:
                log.warning("redis_clock_set", extra={"scope": self.keys.egress, "by_s": round(-behind_us / 1e6, 3)})
            # Any other correction was made by a worker that was faster, or nobody knows yet. It is judged with the next
            # answer. The one that was found stays where our own clock is wrong.
            if correction in (said.frame.id, new):
                member.adopt(now_us, asked_s)
                member.frame = replace(said.frame, id=correction)
        return not behind_us
