"""This worker's part of every limit, which it grants by itself while Redis is away. Why that is safe: `membership`."""

import math
import time
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ..limits.costs import Charge
from .grants import Grant, Refusal, refused
from .keys import Keys
from .membership import Membership
from .pauses import Pauses
from .rules import PARTS, RECHECK_S, thousandths
from .share import Addition, TooSmall


class OwnShare:
    """Grants from the part of one worker, as `Grants` has it; where it has none everything is refused.

    Args:
        keys: the scope's.
        pauses: those that this process knows of.
        member: this worker among those that share the scope.
        elsewhere: the account is also used from other addresses. Then no worker has a part of its buckets: the workers
            of one address don't know how many there are at the others.
        live_reserve: the part of every bucket that bulk calls leave alone.
    """

    def __init__(self, keys: Keys, pauses: Pauses, member: Membership, *, elsewhere: bool, live_reserve: float) -> None:
        self.member = member
        # The part of its table's amount that a bucket holds by what was learned of it, by the bucket's name.
        self.effective: Mapping[str, float] = {}
        self._keys = keys
        self._pauses = pauses
        self._elsewhere = elsewhere
        self._live_reserve = live_reserve

    @property
    def part(self) -> float:
        """The part of every limit that this worker may use by itself, 0 for nothing."""
        share = self.member.share
        return share.parts / PARTS if share else 0.0

    @property
    def has_share(self) -> bool:
        """Whether what was granted here still counts here, and not in Redis yet."""
        return self.member.share is not None

    def lost(self, far_us: int | None) -> None:
        """Redis does not answer: the worker has its share from now on, if it has a part.

        Args:
            far_us: how far its calls may spread (`Spread.worst_us`).
        """
        self.member.lost(self._live_reserve, self.effective, far_us)

    async def reserve(
        self, charges: Sequence[Charge], *, max_wait_us: int, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """As `Grants.reserve`."""
        member, share, keyed = self.member, self.member.share, self._keyed(charges)
        paused_s = self._pauses.left_s(self._keys.pauses_of(charges))
        if paused_s * 1e6 > max_wait_us + lead_us:
            return Refusal(int((time.time() + paused_s) * 1000), paused_s, "paused")
        if not share or not self._covers(charges):
            return refused("redis_lost")
        now_us, error_us = member.now_us()
        earliest = now_us + max(lead_us, math.ceil(paused_s * 1e6))
        try:
            at = share.plan(keyed, earliest, error_us=error_us, bulk=bulk)
        except TooSmall:
            return refused("share_too_small")
        soon = at <= now_us + RECHECK_S * 1e6  # it is not looked at again
        held = not soon or share.holds(keyed, at, now_us, taken=False)
        in_time = at <= now_us + max_wait_us + lead_us
        if not (member.share_is_open and held and in_time and member.may_use(at, error_us)):
            return refused("redis_lost")
        share.take(keyed, at)
        return Grant(
            self._wait_us(at),
            at,
            (0,) * len(charges),  # no ranks, but one a bucket is expected
            spare_us=share.spare_us(charges),
            margin_us=share.margin_us(charges),
            must_tell=True,
            sure=soon,
            own=True,
        )

    def _covers(self, charges: Sequence[Charge]) -> bool:
        """Whether the share has a part of all these buckets, which Redis remembers for long enough after its end."""
        shared = self._elsewhere and any(charge.bucket.scope == "account" for charge in charges)
        return not shared and self.member.keeps(charge.bucket for charge in charges)

    async def again(
        self, charges: Sequence[Charge], grant: Grant, *, max_wait_us: int, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal | None:
        """As `Grants.again`; a call that would have to move is refused."""
        keyed, share, now_us = self._keyed(charges), self.member.share, self.member.now_us()[0]
        held = share and not lead_us and share.holds(keyed, grant.at_us, now_us, taken=True)
        left_s = self._pauses.left_s(self._keys.pauses_of(charges))
        if held and not left_s:
            return replace(grant, delay_us=self._wait_us(grant.at_us), sure=True)
        await self.back(charges, grant)
        return refused("redis_lost", left_s)

    async def arrived(self, charges: Sequence[Charge], grant: Grant, late_us: float, *, answered: bool = True) -> None:
        """As `Grants.arrived`."""
        if share := self.member.share:
            share.arrived(self._keyed(charges), grant.at_us, grant.at_us + math.ceil(late_us), answered=answered)

    async def back(self, charges: Sequence[Charge], grant: Grant) -> None:
        """As `Grants.back`; the room itself lapses."""
        if share := self.member.share:
            share.arrived(self._keyed(charges), grant.at_us, grant.at_us)

    def late_additions(self, charges: Sequence[Charge], grant: Grant, late_us: float) -> list[Addition]:
        """What Redis has to add for a call granted here that turns out late when the share is over.

        Redis has counted it as in time. It counts twice now: that is simple, and seldom.
        """
        if late_us <= grant.margin_us:
            return []
        arrived_us = max(grant.at_us + math.ceil(late_us), sum(self.member.now_us()))
        return [
            Addition(key, charge.bucket, [arrived_us, thousandths(charge.cost)])
            for key, charge in self._keyed(charges)
            if charge.bucket.kind == "rolling"
        ]

    def _wait_us(self, at_us: int) -> int:
        return max(0, math.ceil((self.member.redis.due(at_us) - self.member.clock()) * 1e6))

    def _keyed(self, charges: Sequence[Charge]) -> list[tuple[str, Charge]]:
        return [(self._keys.bucket(charge), charge) for charge in charges]
