"""What a lane may send now, shared by all workers through Redis.

`Budget.reserve` asks one Lua script (``budget.lua``), in one round trip and for all buckets of a call: the earliest
instant at which every bucket has room is reserved and the caller sleeps until then, once. There is no polling, so
whoever asked first is served first. The only clock is Redis's. What is reserved and then not used is given back,
or lapses: it may cost throughput, never a limit.

Three things make a bucket hold less than its table says, and the script heeds them all in the same step. *Jitter*: what
an exchange counts are arrivals, so that windows are longer by a margin, which is measured (`Spread`) and shared.
*Strangers*: where the exchange tells what it has counted (`Budget.observe`), what is not ours of it is left to them.
*Limits*: where it says "too many" though we kept to the table (`Budget.limited`), the bucket holds a tenth less, and a
hundredth more again each minute, half as much where that happens again; after every pause it starts at half and is
whole again after some windows.
"""

import asyncio
import functools
import math
import struct
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import redis.asyncio
from msgspec.structs import replace

from schemas.config import LaneConfig
from schemas.runtime.store import AWAY

from ..limits.costs import Charge
from .grants import Grant, Learned, Reason, Refusal, Use
from .jitter import FASTEST_S, Spread
from .ledger import SCALE, Scope, nothing, packed
from .script import REDIS_CLOCK, Argument
from .share import UNHEARD_US

__all__ = ["Budget", "Grant", "Learned", "Reason", "Refusal", "Use"]

LIVE_RESERVE: Final = LaneConfig().live_reserve
# How long a request waits for Redis to come back before it is offered again.
LOST_WAIT_S: Final = 1.0
LATE_TRIES: Final = 3
# So long before a call is due it is looked at once more: a round trip to Redis, and some.
RECHECK_S: Final = 0.02
# How much longer than it wanted to a call waits that is moved then.
MOVED_S: Final = 0.25
# What the script is asked with: longest wait, lead, spread, and how far ahead instants go or which one is held.
_HEAD: Final = struct.Struct("<4d")


class Budget(Scope):
    """The budget of one exchange as seen from one address, and one account there if any.

    Args:
        client: made by `connect`.
        scope: ``<exchange>:<egress>``.
        account: names the account; buckets counted per account are shared by all who use it, from any address.
        live_reserve: the part of every bucket that bulk calls leave alone.
        clock: the script's line that tells the time; tests bring their own.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        scope: str,
        *,
        account: str = "",
        live_reserve: float = LIVE_RESERVE,
        clock: str = REDIS_CLOCK,
    ) -> None:
        super().__init__(client, scope, account=account, clock=clock)
        self._spread_key = f"{self._egress}:spread"
        self._live_reserve = live_reserve
        self._ahead_us = 0
        self._telling: set[asyncio.Task[None]] = set()
        self._spare_us = 0.0  # how late the last granted call might have left
        self.spread = Spread()

    async def reserve(
        self, charges: Sequence[Charge], *, max_wait_s: float, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """Reserve room for one call in all its buckets; sleeps for nobody.

        Args:
            charges: what the call costs (`Costs.charges`).
            max_wait_s: refuse when the room would come later than this.
            bulk: a call that must never delay a live one: it is granted at once or refused, and leaves the reserve.
            lead_us: how long the caller needs to be ready to send; not counted as a wait.
        """
        for charge in charges:
            self._see(charge)
        limit_us = 0 if bulk else max(0, int(max_wait_s * 1e6))
        self._ahead_us = max(self._ahead_us, limit_us)
        try:
            if self._lost:
                await self._meet()
            asked = _HEAD.pack(limit_us, lead_us, self.spread.margin_us(), self._ahead_us)
            return await self._ask(charges, ["reserve", asked, self._known, self._new], bulk=bulk)
        except AWAY:
            self._lost = True
            return refused("redis_lost")

    async def again(
        self, charges: Sequence[Charge], grant: Grant, *, max_wait_s: float, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """Look at a reservation again: whether it was paused meanwhile, or has to be moved to a later instant.

        It has to where a call before it arrived later than its grant allowed for, or where this call can't leave in
        time. Where Redis can't be asked, what was reserved may be sent in time; but not in short windows, where nobody
        could tell of a call before it that was late.

        Args:
            charges: as in `reserve`.
            grant: what it returned; a refusal gives it back.
            max_wait_s: refuse when the new instant is further ahead than this.
            bulk: as in `reserve`.
            lead_us: how long the caller needs to be ready to send.
        """
        limit_us = max(0, int(max_wait_s * 1e6))
        try:
            asked = _HEAD.pack(limit_us, lead_us, self.spread.margin_us(), grant.at_us)
            answer = await self._ask(charges, ["again", asked], bulk=bulk)
        except AWAY:
            self._lost = True
            if not lead_us and not grant.must_tell and not self._paused_s(charges):
                return grant
            return refused("redis_lost", self._paused_s(charges))
        if isinstance(answer, Refusal) and answer.wait_s == 0:  # It was forgotten.
            return await self.reserve(charges, max_wait_s=max_wait_s, bulk=bulk, lead_us=lead_us)
        if isinstance(answer, Grant):
            held_by = answer.held_by if grant.held_by is None else grant.held_by
            return replace(answer, ranks=grant.ranks, held_by=held_by)
        return answer

    async def _ask(self, charges: Sequence[Charge], head: Sequence[Argument], *, bulk: bool) -> Grant | Refusal:
        keys = [self._key(charge) for charge in charges]
        pauses = [*self._pauses, *(f"{key}:pause" for key in keys)]
        shared = [self._clock, self._epoch, self._spread_key, *self._sharing]
        buckets = _packed(charges, self._live_reserve if bulk else 0.0)
        learned = [f"{key}:learned" for key in keys]
        read = functools.partial(_answer, ranks=len(charges))
        answer = await self._run([*keys, *shared, *pauses, *learned], [*head, buckets], read)
        granted, delay_us, at_us, flag, epoch, number, *rest = answer
        held_by = number - 1 if number else None
        if head[0] == "reserve":
            if self._known not in ("", epoch):
                self._lost = True  # It was emptied: what we know besides has to be told again.
            self._known = epoch
        if granted:
            margin_us, spare_us, *ranks = rest
            return Grant(
                delay_us,
                at_us,
                tuple(ranks),
                spare_us=spare_us or math.inf,
                margin_us=abs(margin_us) or math.inf,
                must_tell=margin_us < 0,
                sure=not flag,
                held_by=held_by,
            )
        earliest_ms, wait_s = math.ceil(at_us / 1000), delay_us / 1e6
        return Refusal(earliest_ms, wait_s, "paused") if flag else Refusal(earliest_ms, wait_s, "budget", held_by)

    async def acquire(
        self, charges: Sequence[Charge], *, max_wait_s: float, bulk: bool = False, grant: Grant | None = None
    ) -> Grant | Refusal:
        """Reserve, sleep until the reserved instant, and look once more at it shortly before (`again`).

        Who wakes up too late does not send: the exchange would see the call beside those that were granted later. The
        reservation is moved, a few times; a process as late as that is overloaded and had better hand the call back.
        Whoever sends looks once more at the clock, as the last thing before it does (`is_late`).

        Args:
            charges: as in `reserve`.
            max_wait_s: as in `reserve`.
            bulk: as in `reserve`.
            grant: move this one, that was found late, in place of making a new reservation.
        """
        until = self._now_s() + max_wait_s
        # At first only as far ahead as lateness would not be forgiven anyway: the lead is time that every call takes.
        lead_us = int(max(0.0, self._punctuality.lead_us() - self._spare_us))
        answer: Grant | Refusal
        if grant is None:
            answer = await self.reserve(charges, max_wait_s=max_wait_s, bulk=bulk, lead_us=lead_us)
        else:
            answer = await self._later(charges, grant, until, bulk=bulk)
        tries = 0
        while isinstance(answer, Grant):
            self._spare_us = answer.spare_us
            due = self._redis_clock.due(answer.at_us)
            # The answer itself may have taken so long that there is no time left: it is looked at again all the same.
            if not answer.sure or due - self._now_s() > RECHECK_S:
                await self._sleep_holding(charges, answer, due - RECHECK_S)
                left_s = max(0.0, until - self._now_s()) + MOVED_S
                answer = await self.again(charges, answer, max_wait_s=left_s, bulk=bulk)
                continue
            await self._sleep_holding(charges, answer, due)
            late_us = (self._now_s() - due) * 1e6
            self._punctuality.late(late_us)
            if late_us <= answer.spare_us:
                return replace(answer, due_s=due, early_s=self._redis_clock.earliest(answer.at_us))
            tries += 1
            if tries == LATE_TRIES:
                await self.back(charges, answer)
                return refused("budget")
            answer = await self._later(charges, answer, until, bulk=bulk)
        return answer

    async def _sleep_holding(self, charges: Sequence[Charge], grant: Grant, instant: float) -> None:
        """Sleeps; a call that is cancelled meanwhile gives its reservation back."""
        try:
            await self._sleep_until(instant)
        except asyncio.CancelledError:
            self.release(charges, grant)
            raise

    async def _sleep_until(self, instant: float) -> None:
        while (left := instant - self._now_s()) > 0:  # uvloop's timers may fire a little early
            await asyncio.sleep(left)

    async def _later(self, charges: Sequence[Charge], grant: Grant, until: float, *, bulk: bool) -> Grant | Refusal:
        left_s = max(0.0, until - self._now_s())
        lead_us = max(self._punctuality.lead_us(), 1)
        return await self.again(charges, grant, max_wait_s=left_s, bulk=bulk, lead_us=lead_us)

    def is_late(self, grant: Grant, now_s: float) -> bool:
        """Whether a call is too late to leave now."""
        return (now_s - grant.due_s) * 1e6 > grant.spare_us

    def answered(self, grant: Grant, endpoint: str, *, left_s: float, answered_s: float) -> float:
        """Learn from a round trip how far calls spread; returns how late this one was, departure and way, microseconds.

        Args:
            grant: the call's.
            endpoint: names what was called.
            left_s: when the call left, on the monotonic clock.
            answered_s: when the answer began, on the same.
        """
        late_us = max(0.0, (left_s - grant.counts_from_s) * 1e6)
        return self.spread.answered(answered_s, endpoint, answered_s - left_s, late_us)

    async def arrived(self, charges: Sequence[Charge], grant: Grant, late_us: float, *, heard: bool = True) -> None:
        """Tell those that come after a call that it has arrived, and how late, where that matters to them.

        It does where it was later than its margin allows for; and in short windows always: there nobody leaves for the
        room of a call that was not heard of.

        Args:
            charges: the call's.
            grant: the call's.
            late_us: how late it was (`answered`).
            heard: there was an answer, so it has arrived; else it may have, and stands in short windows as it stood.
        """
        if (late_us > grant.margin_us or (heard and grant.must_tell)) and not self._lost:
            arrived_us = grant.at_us + int(late_us)
            await self._amend(charges, ["late", grant.at_us, arrived_us, int(grant.margin_us), int(heard)])

    def tell(self, charges: Sequence[Charge], grant: Grant, late_us: float) -> None:
        """As `arrived`, and waits for nothing."""
        if grant.must_tell or late_us > grant.margin_us:
            self._aside(self.arrived(charges, grant, late_us))

    def unanswered(self, charges: Sequence[Charge], grant: Grant, left_s: float) -> None:
        """As `tell`, of a call that got no answer: what was written before its end may still be on its way.

        In short windows its room is nobody's for as long as a call is waited for (rolling.lua). To the others it is
        told when it has arrived as far as calls ever spread, not ahead: until then it may have arrived at any time.

        Args:
            charges: the call's.
            grant: the call's.
            left_s: when it left, on the monotonic clock; 0 where it did not.
        """
        self._aside(self._lost_sight_of(charges, grant, left_s))

    async def _lost_sight_of(self, charges: Sequence[Charge], grant: Grant, left_s: float) -> None:
        if left_s:
            far_us = self.spread.worst_us()
            await self._sleep_until(left_s + (UNHEARD_US if far_us < 0 else far_us) / 1e6)
        late_us = (self._now_s() - grant.counts_from_s) * 1e6
        await self.arrived(charges, grant, late_us, heard=not left_s)

    def release(self, charges: Sequence[Charge], grant: Grant) -> None:
        """As `back`, and waits for nothing."""
        self._aside(self.back(charges, grant))

    def _aside(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def back(self, charges: Sequence[Charge], grant: Grant) -> None:
        """Give back a reservation whose call is not sent."""
        if not self._lost:
            await self._amend(charges, ["back", grant.at_us])

    async def share_trips(self) -> None:
        """Tells all workers of this scope of the fastest trips, and hears of theirs (`Spread`)."""
        span = int(time.time() / FASTEST_S)
        keys = [f"{self._egress}:trips:{number}" for number in (span, span - 1)]
        faster = self.spread.faster(time.monotonic())
        pairs = [part for endpoint, trip_s in faster.items() for part in (int(trip_s * 1e6), endpoint)]
        answer = await self._run(keys, ["trips", int((span + 2) * FASTEST_S), *pairs], _trips)
        trips_s: dict[str, float] = {}
        for name, trip_s in answer:
            trips_s[name] = min(trip_s, trips_s.get(name, trip_s))
        self.spread.hear(span, trips_s)

    async def _amend(self, charges: Sequence[Charge], args: Sequence[Argument]) -> None:
        try:
            keys = [*(self._key(charge) for charge in charges), self._clock]
            await self._run(keys, [*args, _packed(charges)], nothing)
        except AWAY:
            self._lost = True

    async def observe(
        self, charge: Charge, rank: int, grant: Grant, used: float, *, late_us: float, span_s: float
    ) -> None:
        """Take over what the exchange says it has counted: what is not ours of it was spent by strangers.

        Which of our calls it had counted by then? Not those of ours that were still under way, and counting them as
        ours would hide strangers; but all those granted before this one, and, as this one took `late_us` longer than
        it could have, at most those granted until so much later. What remains is the strangers' at least, and comes on
        top of everything we grant, in flight or not. It is taken as the most seen in this window and never added up, so
        it can't drift. In a fixed window every answer is told, so what is ours is known exactly when nothing is under
        way; between such moments strangers are taken to go on as before. Until the first, all that has not certainly
        been ours counts as theirs.

        Args:
            charge: the call's charge to the bucket that the exchange reports on.
            rank: the grant's for this charge: what the bucket had spent with it, the least that is ours.
            grant: that of the call whose answer it is.
            used: the exchange's count, in its own units.
            late_us: how late that call was (`answered`).
            span_s: the time the count stands for, the bucket's window at most.
        """
        # Calls of ours that left before that time may have arrived in it: all that can have count as ours.
        span_us = int(span_s * 1e6) + max(int(charge.bucket.margin_ms * 1000), self.spread.worst_us())
        counted = math.ceil(used * SCALE)
        key = self._key(charge)
        bucket = packed(charge.bucket, charge.cost)
        args: list[Argument] = ["observe", counted, grant.at_us + int(late_us), rank, span_us, bucket]
        try:
            await self._run([key, self._clock, f"{key}:learned"], args, nothing)
        except AWAY:
            self._lost = True

    async def limited(self, charges: Sequence[Charge], grant: Grant) -> Learned | None:
        """Learn from "too many": the fullest of the buckets holds a tenth less, for all workers.

        Once for all calls that were out already; and not where strangers explain it, as their spend is not our limit.

        Args:
            charges: the call's.
            grant: the call's.

        Returns:
            What was learned, if anything.
        """
        keys = [self._key(charge) for charge in charges]
        args: list[Argument] = ["limited", grant.at_us, b"".join(packed(charge.bucket) for charge in charges)]
        try:
            answer = await self._run([*keys, self._clock, *(f"{key}:learned" for key in keys)], args, _lowered)
        except AWAY:
            self._lost = True
            return None
        if not answer:
            return None
        number, thousandths = answer
        charge = charges[number - 1]
        return Learned(charge.key, charge.bucket.amount, charge.bucket.amount * thousandths / SCALE)


def refused(reason: Reason, wait_s: float = 0.0) -> Refusal:
    """A refusal that Redis did not give: ask again after this time, and not at once."""
    wait_s = max(LOST_WAIT_S, wait_s)
    return Refusal(int((time.time() + wait_s) * 1000), wait_s, reason)


def _answer(said: Any, *, ranks: int) -> tuple[Any, ...]:
    granted, delay_us, at_us, flag, epoch, number, *rest = said
    if granted and len(rest) != 2 + ranks:
        raise ValueError(ranks)
    return int(granted), int(delay_us), int(at_us), int(flag), epoch.decode(), int(number), *map(int, rest)


def _trips(said: Any) -> list[tuple[str, float]]:
    return [(name.decode(), float(trip_us) / 1e6) for name, trip_us in zip(said[::2], said[1::2], strict=True)]


def _lowered(said: Any) -> tuple[int, int] | None:
    return (int(said[0]), int(said[1])) if said else None


def _packed(charges: Sequence[Charge], reserve: float = 0.0) -> bytes:
    return b"".join(packed(charge.bucket, charge.cost, reserve) for charge in charges)
