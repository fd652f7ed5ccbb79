"""What a lane may send now: reserve, sleep, check the reservation again shortly before its instant, leave.

A budget grants from the ledger, which all workers share in Redis. Where Redis does not answer, it grants from this
worker's own share (`course` has the states). The first call that Redis does not answer in time is the last one that
waits for it: from then on calls are granted from the share at once, or refused, and `follow` alone asks Redis again.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from schemas.runtime.store import AWAY
from schemas.runtime.tasks import Asides

from ..limits.costs import Charge
from .course import Course
from .grants import Grant, Grants, Learned, Refusal, Use, refused
from .keys import Whose
from .ledger import Ledger
from .own_share import OwnShare
from .pauses import said
from .redis_clock import at_most_us
from .rounds import Rounds
from .rules import HORIZON_US, RECHECK_S, UNANSWERED_US

# How often a call may be too late to leave before it is handed back.
LATE_TRIES: Final = 3
# A call that is moved to a later instant may wait so much longer than it asked for.
MOVED_S: Final = 0.25
# How often a call looks whether this worker may take what Redis grants by now.
LOOK_S: Final = 0.05


class Budget:
    """The budget of one exchange as seen from one address, and one account there if any.

    Args:
        ledger: its buckets in Redis. Where it has a member (`Membership`), that worker goes on with its own share while
            Redis is away, as long as `follow` runs; without one everything is refused then.
        elsewhere: the account is also used from other addresses (`OwnShare`).

    Attributes:
        course: where it grants from.
        telling: what Redis is still told; to be ended before the connection is closed.
    """

    def __init__(self, ledger: Ledger, *, elsewhere: bool = False) -> None:
        self.spread = ledger.spread
        self.ledger = ledger
        self._own: OwnShare | None = None
        if ledger.member:
            self._own = OwnShare(
                ledger.keys, ledger.pauses, ledger.member, elsewhere=elsewhere, live_reserve=ledger.live_reserve
            )
        self.course = Course(ledger, self._own)
        self.telling = Asides()
        self._spare_us = 0.0  # how late the last granted call might have left

    def of(self, account: str) -> "Budget":
        """That of an account at the same address, used from others too. Both are one worker there, with one part."""
        other = Budget(self.ledger.of(account), elsewhere=True)
        other.course, other.telling = self.course, self.telling
        return other

    @property
    def own_part(self) -> float | None:
        """The part of every limit that this worker may use by itself, 0 for nothing; None while all share the whole."""
        return self._own.part if self._own and not self.course.is_shared else None

    @property
    def lifted_us(self) -> int:
        """When an operator last ended pauses here, microseconds of Redis's clock, as far as this process has seen."""
        return self.ledger.pauses.lifted_us

    async def follow(self, every_s: float, rounds: Rounds | None = None) -> None:
        """Be one of the workers that share the scope, until cancelled.

        Args:
            every_s: the time between two beats; much less than `rules.PRESENT_S`.
            rounds: beats for it, together with others, while it is at rest.
        """
        await self.course.follow(every_s, rounds)

    async def beat(self) -> None:
        """One beat; finds out that Redis is away, or back."""
        await self.course.beat()

    async def leave(self) -> None:
        """Give up this worker's part. Where Redis can't be asked the next one here does, or it lapses (`LASTS_S`)."""
        await self.course.leave()

    async def reserve(
        self, charges: Sequence[Charge], *, max_wait_s: float, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """Reserve room for one call in all its buckets; does not sleep.

        Args:
            charges: what the call costs (`Costs.charges`).
            max_wait_s: refuse when the room would come later than this.
            bulk: a call that must never delay a live one: it is granted at once or refused, and leaves the reserve.
            lead_us: how long the caller needs to be ready to send; not counted as a wait.
        """
        max_wait_us = 0 if bulk else max(0, int(max_wait_s * 1e6))
        if self._own:
            # Redis limits it too, but not just after it was emptied, when it does not know that the scope is shared.
            max_wait_us = max(0, min(max_wait_us, HORIZON_US - lead_us))
        if self._is_too_new:
            return refused("budget")
        self.course.used()
        if self.course.is_shared:
            with self.course.asking():
                return await self.ledger.reserve(charges, max_wait_us=max_wait_us, bulk=bulk, lead_us=lead_us)
        if self._own is None:
            return refused("redis_lost")
        self.course.look()
        return await self._own.reserve(charges, max_wait_us=max_wait_us, bulk=bulk, lead_us=lead_us)

    async def again(
        self, charges: Sequence[Charge], grant: Grant, *, max_wait_s: float, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """Check a reservation again: whether there is a pause since, or it has to be moved to a later instant.

        It is moved where a call before it arrived later than its margin, or where this call can't leave in time. Where
        Redis can't be asked, what it granted may be sent in time; not in short windows, as nobody would know of a late
        call before it.

        Args:
            charges: as in `reserve`.
            grant: what it returned; a refusal gives it back.
            max_wait_s: refuse when the new instant is further ahead than this.
            bulk: as in `reserve`.
            lead_us: how long the caller needs to be ready to send.
        """
        max_wait_us = max(0, int(max_wait_s * 1e6))
        if granter := self._granter(grant):
            with self.course.asking():
                answer = await granter.again(charges, grant, max_wait_us=max_wait_us, bulk=bulk, lead_us=lead_us)
                return answer or await self.reserve(charges, max_wait_s=max_wait_s, bulk=bulk, lead_us=lead_us)
        left_s = self._paused_s(charges)
        if not lead_us and not grant.must_tell and not left_s:
            return grant
        return refused("redis_lost", left_s)

    @property
    def _is_too_new(self) -> bool:
        """Whether this worker may not take yet what Redis grants."""
        return bool(self._own and self.course.is_shared and not self._own.member.is_ready)

    def _granter(self, grant: Grant) -> Grants | None:
        """Where a grant counts now: in our share until Redis has its grants, else in Redis; None where that is away."""
        if self._own and grant.own and self._own.has_share:
            return self._own
        return self.ledger if self.course.is_shared else None

    async def acquire(
        self, charges: Sequence[Charge], *, max_wait_s: float, bulk: bool = False, grant: Grant | None = None
    ) -> Grant | Refusal:
        """Reserve, sleep until the reserved instant, and check it again shortly before (`again`).

        A call that wakes up too late does not leave: the exchange would see it beside calls that were granted later.
        Its reservation is moved, `LATE_TRIES` times at most: a process that is late more often had better hand the call
        back. The caller checks the clock once more as the last thing before it sends (`is_late`).

        Args:
            charges: as in `reserve`.
            max_wait_s: as in `reserve`.
            bulk: as in `reserve`.
            grant: a reservation whose call was too late to be sent: it is moved, and no new one is made.
        """
        now_s, punctuality = self.ledger.now_s, self.ledger.punctuality
        until = now_s() + max_wait_s
        lead_us = int(max(0.0, punctuality.lead_us() - self._spare_us))  # every call waits for what no spare covers
        answer: Grant | Refusal
        if grant is None:
            while self._is_too_new and (now := now_s()) < until:
                await self._sleep_until(min(now + LOOK_S, until))
            answer = await self.reserve(charges, max_wait_s=max_wait_s, bulk=bulk, lead_us=lead_us)
        else:
            answer = await self._later(charges, grant, until, bulk=bulk)
        tries = 0
        while isinstance(answer, Grant):
            self._spare_us = answer.spare_us
            due = self.ledger.redis_clock.due(answer.at_us)
            # An unsure grant is checked even if its answer took so long that no time is left.
            if not answer.sure or due - now_s() > RECHECK_S:
                await self._sleep_holding(charges, answer, due - RECHECK_S)
                left_s = max(0.0, until - now_s()) + MOVED_S
                answer = await self.again(charges, answer, max_wait_s=left_s, bulk=bulk)
                continue
            await self._sleep_holding(charges, answer, due)
            late_us = (now_s() - due) * 1e6
            punctuality.late(late_us)
            if late_us <= self._spare_of(answer):
                return replace(answer, due_s=due, early_s=self.ledger.redis_clock.earliest(answer.at_us))
            tries += 1
            if tries == LATE_TRIES:
                await self.back(charges, answer)
                return refused("busy")
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
        while (left := instant - self.ledger.now_s()) > 0:  # uvloop's timers may fire a little early
            await asyncio.sleep(left)

    async def _later(self, charges: Sequence[Charge], grant: Grant, until: float, *, bulk: bool) -> Grant | Refusal:
        left_s = max(0.0, until - self.ledger.now_s())
        lead_us = max(self.ledger.punctuality.lead_us(), 1)
        return await self.again(charges, grant, max_wait_s=left_s, bulk=bulk, lead_us=lead_us)

    def is_late(self, grant: Grant, now_s: float) -> bool:
        """Whether a call is too late to leave now."""
        return (now_s - grant.due_s) * 1e6 > self._spare_of(grant)

    def _spare_of(self, grant: Grant) -> float:  # its margin, where nobody could be told to move behind it
        return grant.spare_us if self._granter(grant) else min(grant.spare_us, grant.margin_us)

    def answered(self, grant: Grant, endpoint: str, *, left_s: float, answered_s: float) -> float:
        """Learn from a round trip how far calls spread; returns how late this one can have arrived at the most.

        Args:
            grant: the call's.
            endpoint: names what was called.
            left_s: when the call left, on the monotonic clock.
            answered_s: when the answer began, on the same.

        Returns:
            Microseconds by Redis's clock.
        """
        late_us = max(0.0, (left_s - grant.counts_from_s) * 1e6)
        return at_most_us(self.spread.answered(answered_s, endpoint, answered_s - left_s, late_us))

    async def arrived(self, charges: Sequence[Charge], grant: Grant, late_us: float, *, answered: bool = True) -> None:
        """Report that a call has arrived, and how late, where that matters to calls after it.

        It does where the call was later than its margin, and always in short windows: no call uses the room of one
        without an answer there.

        Args:
            charges: the call's.
            grant: the call's.
            late_us: how late it was, by Redis's clock at the most (`answered`).
            answered: there was an answer, so it has arrived. Without one it may have, and in short windows nothing
                changes.
        """
        granter = self._granter(grant)
        with self.course.asking():
            if self._own and grant.own and granter is self.ledger:
                for addition in self._own.late_additions(charges, grant, late_us):
                    await self.ledger.give(self._own.member, addition)
            elif granter:
                await granter.arrived(charges, grant, late_us, answered=answered)

    def tell(self, charges: Sequence[Charge], grant: Grant, late_us: float) -> None:
        """As `arrived`, in a task of its own."""
        if grant.must_tell or late_us > grant.margin_us:
            self.telling.start(self.arrived(charges, grant, late_us))

    def unanswered(self, charges: Sequence[Charge], grant: Grant, left_s: float) -> None:
        """As `tell`, of a call that got no answer: it may still arrive.

        In short windows its room stays taken for as long as an answer is waited for (rolling.lua). In others it is
        reported as arrived when it is as late as calls ever are, and no sooner.

        Args:
            charges, grant: the call's.
            left_s: when it left, by `clock_s`; 0 where it did not.
        """
        self.telling.start(self._lost_sight_of(charges, grant, left_s))

    async def _lost_sight_of(self, charges: Sequence[Charge], grant: Grant, left_s: float) -> None:
        if left_s:
            far_us = self.spread.worst_us()
            await self._sleep_until(left_s + (UNANSWERED_US if far_us is None else far_us) / 1e6)
        late_us = at_most_us((self.ledger.now_s() - grant.counts_from_s) * 1e6)
        await self.arrived(charges, grant, late_us, answered=not left_s)

    async def back(self, charges: Sequence[Charge], grant: Grant) -> None:
        """Give back a reservation whose call is not sent."""
        granter = self._granter(grant)
        if granter and not (grant.own and granter is self.ledger):  # Grants that Redis took over lapse.
            with self.course.asking():
                await granter.back(charges, grant)

    def release(self, charges: Sequence[Charge], grant: Grant) -> None:
        """As `back`, in a task of its own."""
        self.telling.start(self.back(charges, grant))

    async def pause(
        self,
        for_s: float,
        reason: str,
        charges: Sequence[Charge] = (),
        *,
        told: bool = True,
        source: str = "",
        most_s: float = 3600.0,
        whose: Whose = "address",
        grant: Grant | None = None,
    ) -> float:
        """Stop all workers from sending for so long; a longer pause stays as it is.

        The length is doubled where a call was granted after the last pause and is refused again: always if the length
        is our guess; if the exchange named it, only within `rules.AT_ONCE_S` after the pause. Where Redis can't be
        reached this process keeps the pause, and sets it for all when Redis is back.

        Args:
            for_s: how long, from now.
            reason: why, for people.
            charges: pause only these buckets; when empty, the address, the account, or both.
            told: the exchange itself said how long.
            source: where the length is from, for people.
            most_s: the most that it may become by being doubled.
            whose: what is paused where no bucket is named.
            grant: that of the call that met the limit.

        Returns:
            How long the pause holds now, in seconds.
        """
        keys = self.ledger.keys.to_pause(charges, whose)
        why = said(source, reason)
        if not self.course.is_shared:
            at_s = grant.due_s if grant else None
            return self.ledger.pauses.refused(keys, for_s, why, most_s=most_s, named=told, at_s=at_s)
        self.ledger.pauses.keep(keys, for_s, why)
        with self.course.asking():
            return await self.ledger.pause(keys, for_s, why, most_s=most_s, named=told, grant=grant)
        return self.ledger.pauses.left_s(keys)

    async def paused(self, charges: Sequence[Charge] = ()) -> float:
        """Return for how many more seconds calls with these charges must not be sent; 0 when they may.

        When Redis can't be asked only our own pauses count: what was reserved may be sent.
        """
        if self.course.is_shared:
            with self.course.asking():
                return await self.ledger.paused(charges)
        return self._paused_s(charges)

    @property
    def pause_source(self) -> str:
        """Where the length of the pause of all that leaves here is from, as last seen; empty without one."""
        return self.ledger.pauses.source(self.ledger.keys.pauses)

    def known_pause_s(self, charges: Sequence[Charge], whose: Whose = "address") -> float:
        """For how many more seconds `pause` with these arguments has been set already, as far as this process knows."""
        return self.ledger.pauses.left_s(self.ledger.keys.to_pause(charges, whose))

    def _paused_s(self, charges: Sequence[Charge]) -> float:
        return self.ledger.pauses.left_s(self.ledger.keys.pauses_of(charges))

    async def set_clock(self, ahead_s: float, error_s: float = 0.0) -> None:
        """Publish how far the exchange's clock is ahead of Redis's; its fixed windows follow it.

        Args:
            ahead_s: how far, below zero where it is behind.
            error_s: by how much that may be wrong: calls stay as much further away from a window's ends.
        """
        self.ledger.keep_clock(ahead_s, error_s)
        if self.course.is_shared:
            with self.course.asking():
                await self.ledger.tell_clock()

    def step_s(self, charge: Charge) -> float:
        """How long one such call takes of its bucket: what it costs of the amount, times the window, with its margin.

        That is how far apart calls are on average that use all of the limit.
        """
        return self.ledger.step_s(charge)

    async def usage(self) -> dict[str, Use]:
        """As `look`, of buckets alone."""
        return (await self.look())[0]

    async def look(self) -> tuple[dict[str, Use], float]:
        """Return every bucket this process has charged; the fullest and smallest count of it where it has many.

        And for how many more seconds all that leaves here is paused (`paused`). No bucket while Redis is away.

        Raises:
            RedisError: one of `store.AWAY`: it is away from now on.
        """
        if not self.course.is_shared:
            return {}, self._paused_s(())
        try:
            uses, paused_s = await self.ledger.usage()
        except AWAY:
            self.course.lose()
            raise
        if self._own:
            self._own.effective = {name: use.effective for name, use in uses.items()}
        return uses, paused_s

    async def observe(
        self, charge: Charge, rank: int, grant: Grant, used: float, *, late_us: float, span_s: float
    ) -> None:
        """Take over what the exchange says it has counted; nothing is made of it while Redis is away.

        Which of our calls are in that count? Those granted before this one, and at most those granted until `late_us`
        later, as this one may have taken so much longer than others. Later ones were still in flight: to count them as
        ours would hide strangers. What remains was spent by strangers, at least, and comes on top of everything that we
        grant, in flight or not. It is taken as the most seen in this window and never added up, so it can't drift. In a
        fixed window every answer is reported, so with nothing in flight it is known exactly what is ours. Between such
        moments strangers are taken to go on as before. Until the first such moment, all that is not certainly ours
        counts as theirs.

        Args:
            charge: the call's charge to the bucket that the exchange reports on.
            rank: the grant's for this charge: what the bucket had spent with it, the least that is ours. A call that
                this worker granted itself has none, and is left out.
            grant: that of the call whose answer it is.
            used: the exchange's count, in its own units.
            late_us: how late that call was (`answered`).
            span_s: the time the count stands for, the bucket's window at most.
        """
        if self.course.is_shared and not grant.own:
            with self.course.asking():
                await self.ledger.observe(charge, rank, grant, used, late_us=late_us, span_s=span_s)

    async def limited(self, charges: Sequence[Charge], grant: Grant) -> Learned | None:
        """Learn from "too many": the fullest of the buckets holds a tenth less, for all workers.

        Calls that were in flight already lower it only once. Where strangers explain the refusal nothing is learned, as
        what they spend does not lower the limit.

        Args:
            charges: the call's.
            grant: the call's.

        Returns:
            What was learned, if anything.
        """
        if self.course.is_shared:
            with self.course.asking():
                return await self.ledger.limited(charges, grant)
        return None

    async def share_trips(self) -> None:
        """Publishes the fastest round trips to this scope's workers, and takes in theirs (`Spread`)."""
        await self.ledger.share_trips()
