"""A budget that goes on while Redis is away: with this worker's share of every limit. Why that is safe: `membership`.

The first call that Redis does not answer in time is the last one that waits for it: from then on calls are granted from
the share at once, or refused, and `follow` alone asks Redis again.
"""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis.asyncio
import redis.exceptions
from msgspec.structs import replace

from schemas.runtime import store
from schemas.runtime.store import AWAY

from ..limits.costs import Charge
from .budget import LIVE_RESERVE, RECHECK_S, Budget, Grant, Reason, Refusal, Use, refused
from .flapping import Flapping
from .ledger import ANY_TIME, Expected, T, amount_of, nothing, window_us_of
from .membership import HORIZON_US, Membership
from .script import REDIS_CLOCK, Argument
from .share import LATE_PART, Told, TooSmall, thousandths

log = logging.getLogger(__name__)

TRIPS_EVERY_S: Final = 2.0


class SharedBudget(Budget):
    """The budget of one exchange as seen from one address, also while Redis is away, as long as `follow` runs.

    Args:
        client: made by `connect`.
        scope: ``<exchange>:<egress>``.
        account: names the account, as in `Budget`.
        elsewhere: the account is also used from other addresses. Then nobody has a share of its buckets while Redis is
            away: the workers of one address don't know how many there are at the others.
        live_reserve: the part of every bucket that bulk calls leave alone.
        clock: the script's line that tells the time; tests bring their own.
        member: this worker among those that share the scope; tests bring their own.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        scope: str,
        *,
        account: str = "",
        elsewhere: bool = False,
        live_reserve: float = LIVE_RESERVE,
        clock: str = REDIS_CLOCK,
        member: Membership | None = None,
    ) -> None:
        super().__init__(client, scope, account=account, live_reserve=live_reserve, clock=clock)
        self._elsewhere = elsewhere
        self._member = member or Membership()
        self._redis_clock = self._member.redis
        self._away = False
        self._went = asyncio.Event()
        self._prober: asyncio.Task[Any] | None = None
        self._effective: dict[str, float] = {}
        self._ahead_us = HORIZON_US
        self._trips_at_s = 0.0
        self._flapping = Flapping()

    @property
    def own_part(self) -> float | None:
        """The part of every limit that this worker may use by itself, 0 for nothing; None while all share the whole."""
        return self._member.on_share if self._away else None

    async def follow(self, every_s: float) -> None:
        """Be one of those who share the scope, until cancelled.

        Args:
            every_s: how often to say so; much less than `membership.PRESENT_S`.
        """
        while True:
            await self.beat()
            if self._away:
                await asyncio.sleep(every_s)
                continue
            self._went.clear()
            with contextlib.suppress(TimeoutError):  # A loss is looked into at once.
                async with asyncio.timeout(every_s):
                    await self._went.wait()

    async def beat(self) -> None:
        """One beat; finds out that Redis is away, or back."""
        member = self._member
        self._prober = asyncio.current_task()
        try:
            if self._lost or self._away:
                self._lost = True
                await self._meet()
            await self._beat()
            if time.monotonic() >= self._trips_at_s:
                await self.share_trips()
                self._trips_at_s = time.monotonic() + TRIPS_EVERY_S
            if self._away and member.may_return() and self._flapping.may_return(member.clock()):
                for told in member.settle():
                    await self._give(told)
                member.settled()
                await self._beat()  # Hears Redis again,
                await self._beat()  # and says so: our part is no longer set aside.
                self._away = False
                self._flapping.back(member.clock())
                log.info("budget_shared_again", extra={"scope": self._egress, "workers": member.count})
        except AWAY:
            self._lose()
        finally:
            self._prober = None

    async def leave(self) -> None:
        """Give up this worker's part. Where Redis can't be asked it lapses by itself, `membership.LASTS_S` later."""
        if not self._away:
            with contextlib.suppress(*AWAY):
                await self._run(self._sharing[::-1], ["leave", self._member.id], nothing)

    async def reserve(
        self, charges: Sequence[Charge], *, max_wait_s: float, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """As `Budget.reserve`, and while Redis is away from this worker's share; never further ahead than the horizon.

        Args:
            charges: what the call costs (`Costs.charges`).
            max_wait_s: refuse when the room would come later than this.
            bulk: a call that must never delay a live one.
            lead_us: how long the caller needs to be ready to send; not counted as a wait.
        """
        # Redis heeds the horizon too, but for the moment after it was emptied, when it does not know who shares.
        max_wait_s = min(max_wait_s, (HORIZON_US - lead_us) / 1e6)
        if not self._away:
            answer = await super().reserve(charges, max_wait_s=max_wait_s, bulk=bulk, lead_us=lead_us)
            if isinstance(answer, Grant) or answer.reason != "redis_lost":
                return answer
        return self._from_share(charges, 0 if bulk else max(0, int(max_wait_s * 1e6)), lead_us, bulk=bulk)

    async def again(
        self, charges: Sequence[Charge], grant: Grant, *, max_wait_s: float, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """As `Budget.again`; what this worker granted is looked at in its share, and refused where it has to move."""
        if not (grant.own and self._away):
            return await super().again(charges, grant, max_wait_s=max_wait_s, bulk=bulk, lead_us=lead_us)
        keyed, share, now_us = self._keyed(charges), self._member.share, self._member.now_us()[0]
        held = share and not lead_us and share.holds(keyed, grant.at_us, now_us, taken=True)
        left_s = self._paused_s(charges)
        if held and not left_s:
            return replace(grant, delay_us=self._wait_us(grant.at_us), sure=True)
        await self.back(charges, grant)
        return refused("redis_lost", left_s)

    async def arrived(self, charges: Sequence[Charge], grant: Grant, late_us: float, *, heard: bool = True) -> None:
        """As `Budget.arrived`; what this worker granted matters to its share, and when that is over to all."""
        if not grant.own:
            await super().arrived(charges, grant, late_us, heard=heard)
            return
        if share := self._member.share:
            share.heard(self._keyed(charges), grant.at_us, grant.at_us + int(late_us), answered=heard)
        elif late_us > grant.margin_us and not self._away:
            # Redis was told that it comes in time. It counts twice now: that is simple, and seldom.
            arrived_us = max(grant.at_us + int(late_us), sum(self._member.now_us()))
            with contextlib.suppress(*AWAY):
                for key, charge in self._keyed(charges):
                    if charge.bucket.kind == "rolling":
                        await self._give(Told(key, charge.bucket, [arrived_us, thousandths(charge.cost)]))

    async def back(self, charges: Sequence[Charge], grant: Grant) -> None:
        """As `Budget.back`; what this worker granted itself lapses."""
        if not grant.own:
            await super().back(charges, grant)
        elif share := self._member.share:
            share.heard(self._keyed(charges), grant.at_us, grant.at_us)

    async def observe(
        self, charge: Charge, rank: int, grant: Grant, used: float, *, late_us: float, span_s: float
    ) -> None:
        """As `Budget.observe`; but what we granted ourselves has no rank by which to tell strangers."""
        if not self._away and not grant.own:
            await super().observe(charge, rank, grant, used, late_us=late_us, span_s=span_s)

    async def usage(self) -> dict[str, Use]:
        """As `Budget.usage`; nothing while Redis is away."""
        if self._away:
            return {}
        buckets = await super().usage()
        self._effective = {name: use.effective for name, use in buckets.items()}
        return buckets

    def _from_share(self, charges: Sequence[Charge], limit_us: int, lead_us: int, *, bulk: bool) -> Grant | Refusal:
        member, keyed = self._member, self._keyed(charges)
        paused_s = self._paused_s(charges)
        reason: Reason = "redis_lost"
        if paused_s * 1e6 > limit_us + lead_us:
            return Refusal(int((time.time() + paused_s) * 1000), paused_s, "paused")
        shared = self._elsewhere and any(charge.bucket.scope == "account" for charge in charges)
        if member.share and not shared and member.keeps(charge.bucket for charge in charges):
            now_us, error_us = member.now_us()
            earliest = now_us + max(lead_us, math.ceil(paused_s * 1e6))
            try:
                at = member.share.plan(keyed, earliest, error_us=error_us, bulk=bulk)
            except TooSmall:
                reason = "share_too_small"
            else:
                soon = at <= now_us + RECHECK_S * 1e6  # nobody will look at it again
                held = not soon or member.share.holds(keyed, at, now_us, taken=False)
                if held and at <= now_us + limit_us + lead_us and member.may_use(at, error_us):
                    member.share.take(keyed, at)
                    margin_us = member.share.margin_us(charges)
                    return Grant(
                        self._wait_us(at),
                        at,
                        (0,) * len(charges),  # no ranks, but one a bucket is expected
                        spare_us=margin_us * LATE_PART,
                        margin_us=margin_us,
                        must_tell=True,
                        sure=soon,
                        own=True,
                    )
        return refused(reason)

    def _wait_us(self, at_us: int) -> int:
        return max(0, math.ceil((self._redis_clock.due(at_us) - self._now_s()) * 1e6))

    def _keyed(self, charges: Sequence[Charge]) -> list[tuple[str, Charge]]:
        return [(self._key(charge), charge) for charge in charges]

    async def _give(self, told: Told) -> None:
        limit = [told.bucket.kind, amount_of(told.bucket), window_us_of(told.bucket)]
        keys = [told.key, self._clock, self._sharing[1]]
        await self._run(keys, ["give", self._member.id, *limit, *told.grants], nothing)

    async def _beat(self) -> None:
        keys = [*self._sharing[::-1], self._epoch, self._clock, self._pauses[0]]
        buckets = list(self._seen.values())
        args = self._member.beat(buckets, self._known, self._new)
        self._known, paused_s = await self._run(keys, args, self._member.answered)
        if paused_s:
            self._keep_pause(self._pauses[:1], paused_s)
        if dead := self._member.dead():
            await self._run(self._sharing[::-1], ["bury", *dead], nothing)

    async def _meet(self) -> None:
        known = self._known
        await super()._meet()
        self._known = known  # That Redis was restarted is seen by the script itself.

    async def _run(self, keys: Sequence[str], args: Sequence[Argument], read: Callable[[Any], T]) -> T:
        if self._away and asyncio.current_task() is not self._prober:
            raise redis.exceptions.ConnectionError("Redis is away")
        try:
            return await super()._run(keys, args, read)
        except AWAY:
            self._lose()
            raise

    def _now_s(self) -> float:
        return self._member.clock()

    def _expected(self) -> Expected:
        return self._member.expected()

    async def _hears(self, frame: str, now_us: int, asked_s: float) -> bool:
        member = self._member
        behind_us, unsure_us = member.off_by(frame, now_us, asked_s)
        if behind_us:
            log.warning("redis_clock_set", extra={"scope": self._egress, "by_s": round(-behind_us / 1e6, 3)})
            correction: list[Argument] = [frame, behind_us, unsure_us, secrets.token_hex(4)]
            asked_s = self._now_s()
            keys = [self._sharing[1], self._clock, self._frame]
            said = await self._script.run(keys, ["set", member.id, *correction, *ANY_TIME])
            frame, now_us = store.shaped(said, lambda said: (said[3][0].decode(), int(said[3][1])))
            member.adopt(frame, now_us, asked_s)
        return not behind_us

    def _lose(self) -> None:
        self._flapping.lost(self._member.clock())
        self._member.lost(self._live_reserve, self._effective, self.spread.worst_us())
        self._lost = True
        if not self._away:
            self._away = True
            self._went.set()
            share = round(self._member.on_share, 4)
            log.warning(
                "budget_on_its_own", extra={"scope": self._egress, "share": share, "workers": self._member.count}
            )
