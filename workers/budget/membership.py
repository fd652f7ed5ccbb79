"""The workers that share a scope's budget: how one that loses Redis goes on with its part, and no limit is passed.

A worker that can't reach Redis does not know whether the others still can, and Redis does not know whether a worker
that is silent is cut off or dead. So parts of the limit are leases:

- Every worker beats, and Redis answers with its part: at most limit ÷ workers, and at most what the others have left
  over. With the next beat the worker says which part it believes in; until it believes in less, Redis counts it with
  the larger one, so that all parts together never are more than the limit. A worker that has just come has no part
  until the others gave theirs up: two beats.
- A beat says when the worker last heard from Redis (its lease, Redis's clock), not when it was sent: one that arrives
  late, or twice, promises nothing new. Beats are numbered, so an old one can't undo a newer one.
- Redis grants nothing further ahead than `HORIZON_S`. From `PRESENT_S` after a lease a worker counts as away, and every
  grant leaves its part alone. So a worker that is away may use its part when its lease is older than both, and then one
  window later, because everything before may have been used up: its share starts from full buckets.
- `LASTS_S` after its lease a worker stops, and Redis gives the part back to the others one window later.
- A worker that comes back tells Redis what it has granted itself, and only then is its lease renewed. So the whole
  limit is in use again at once. While Redis may have forgotten its own grants (it was killed or emptied: `since`) the
  worker goes on with its share. The parts of workers that have not come back yet stay set aside.
- Workers that come back to a Redis which forgot them say how long ago they could last be granted anything. When all
  parts are back that bounds what was forgotten, and after an absence that was longer the whole is shared at once.
- They also name the workers that they knew. When all of those are back, known to be dead, or may send no more, nothing
  is set aside for forgotten workers any longer.
- Where nothing changes any more a beat only renews the lease. So a worker that rests in many scopes beats in all of
  them at once (`renewal`, rounds.py). Redis names those where something is not as the worker knows it.
- A worker that never met this Redis has no part, and is granted nothing before it is sure of its clock (newcomer.py).
- A Redis that was emptied knows nobody, as one that is new. If a worker that never met it is the first there, nothing
  is granted until others have had time to come back. A mark that stays for a day (`Keys.met`) tells a Redis that has
  given that time, and that all workers have left since.

Accepted: a worker that dies without leaving takes its part with it for `LASTS_S`, unless one on the same machine sees
that it is dead. A bucket whose part does not hold one call is not divided: it stands still while Redis is away, and
nothing of it is set aside. Budgets with an account have no part: their accounts are shared over addresses. Clocks may
drift by `DRIFT`. Pure, but for looking whether a process lives; the clock is an argument.

Redis's clock may be set while the fleet runs. Every answer says what it shows. Where our own clock and the answers
before rule that out, it was set, and it is known by how much (`off_by`). It is corrected for all workers (clock.lua).
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from schemas.runtime.clock import clock_s

from ..limits.costs import Bucket
from . import newcomer
from .newcomer import Newcomer
from .protocol import UNKNOWN_TIME, Beat, Beaten, Expected, Frame, Renewal
from .redis_clock import DRIFT, RedisClock
from .rules import HORIZON_S, HORIZON_US, LASTS_S, MARGIN_PART, PARTS, PRESENT_S
from .share import Addition, Share

# Each beat costs Redis 0.15 to 0.3 ms.
BEAT_EVERY_S: Final = 0.3
# What clocks may differ by beside `DRIFT`.
UNSURE_US: Final = 1_000
# A question that was on its way for so long is not run any more, but asked again.
ON_ITS_WAY_US: Final = 250_000


class Membership:
    """One worker among those that share a scope.

    Args:
        clock: the monotonic clock, seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = clock_s) -> None:
        self.id = f"{_MACHINE}.{os.getpid()}.{secrets.token_hex(4)}"
        self.share: Share | None = None
        # Whether the share grants anything: set by the budget, by its mode.
        self.share_is_open = False
        self.part = 0
        self.count = 0
        self.clock = clock
        self.redis = RedisClock()
        self._newcomer = Newcomer()
        self._beats = 0
        self._hash = ""
        # When Redis answered last, by its clock and by ours.
        self._heard_us, self._answered_s = 0, 0.0
        # The latest lease that Redis may know, and the latest that it knows for sure; ours while a share is out.
        self._leased_us = self._known_us = 0
        self._since_us = self._now_us = 0
        self._offset_us = 0
        # The others as Redis knew them at our last beat; see `shares.lua`.
        self._others: list[bytes] = []
        # Grants of an earlier share count in a later one's first window: until then it grants nothing.
        self._floor_us = 0
        # For how long Redis remembers a part after its end: no window may be longer.
        self._keep_us = self._kept_us = 0
        # How Redis's clock was corrected, as far as we know.
        self.frame = Frame()
        # Whether the next beat would only renew the lease, as far as the last answer says.
        self._is_settled = False

    def beat(self, buckets: Iterable[Bucket]) -> Beat:
        """The next beat; every answer must go to `answered`."""
        self._beats += 1
        if self.share is None:
            if self._newcomer.is_sure:
                self._leased_us = max(self._leased_us, self._heard_us)
            if self.part and self.now_us()[0] > self._known_us + LASTS_S * 1e6:
                self.part = 0  # This process stood still for so long that Redis has given its part to others.
        self._keep_us = max(self._keep_us, _keep_us(buckets))
        part = max(self.part, self.share.parts if self.share else 0)
        # A lower bound on how long ago Redis answered last, for any drift of our clock.
        heard_us = max(0, int((self.clock() - self._answered_s) * (1 - DRIFT) * 1e6))
        # A hash that was forgotten and begun anew must not look like the old one, which a beat of ours without an
        # answer may have begun. So each beat names a new id.
        new = secrets.token_hex(8)
        mine = self.id, self._beats, self._leased_us, part, self._keep_us
        return Beat(*mine, self._hash, new, heard_us, self._others)

    def answered(self, answer: Beaten) -> float:
        """Takes in the answer to the latest beat; returns for how long everything is paused, seconds."""
        if not (self.part or self.share):
            # Until now other workers had this part, and may have been granted instants ahead.
            self._floor_us = max(self._floor_us, answer.now_us + HORIZON_US)
        self._known_us, self._kept_us = self._leased_us, self._keep_us
        was = self.part, self._hash
        self.part, self.count, self._hash = answer.part, answer.count, answer.hash_id
        self._now_us, self._since_us, self._others = answer.now_us, answer.since_us, answer.others
        others = list(map(newcomer.read, self._others))
        if not self._newcomer.is_sure:
            # One that looks present may have known of a clock that was set back, whether it lives or not.
            living = [other for other in others if other.is_present or not _is_dead(other.id)]
            self._newcomer.told(living, self.clock(), closed=answer.is_closed)
        is_fair = self.part == PARTS // self.count and all(other.is_present for other in others)
        self._is_settled = is_fair and was == (self.part, self._hash) and self._newcomer.is_sure
        if self.share is None:
            self._heard_us, self._answered_s = answer.now_us, self.clock()
            self._offset_us = answer.offset_us
        return max(0, answer.pause_till_us - answer.now_us) / 1e6

    @property
    def may_renew(self) -> bool:
        """Whether the next beat would only renew the lease, and may be a `renewal`; this process never stood still."""
        return self._is_settled and self.share is None and self.clock() - self._answered_s <= PRESENT_S

    def renewal(self) -> Renewal:
        """The next beat, while it `may_renew`; its answer must go to `renewed`, unless Redis names the scope."""
        self._beats += 1
        self._leased_us = max(self._leased_us, self._heard_us)
        return Renewal(self.id, self._beats, self._leased_us, 1 + len(self._others))

    def renewed(self, renewal: Renewal, now_us: int, offset_us: int) -> None:
        """Redis has taken that beat in."""
        self._known_us = max(self._known_us, renewal.lease_us)
        self._heard_us, self._answered_s = now_us, self.clock()
        self._now_us, self._offset_us = now_us, offset_us

    def end(self) -> None:
        """It grants and asks nothing any more. Where Redis was not told, others of this process count it as dead."""
        self.share, self.part, self.share_is_open = None, 0, False
        _ENDED.add(self.id)

    def dead(self) -> list[str]:
        """Members that Redis counts as away and that are known to be dead: of this process, or of this machine's."""
        others = map(newcomer.read, self._others)
        return [other.id for other in others if not other.is_present and _is_dead(other.id)]

    @property
    def is_ready(self) -> bool:
        """Whether this worker may take what Redis grants: it is sure of Redis's clock."""
        return self._newcomer.is_sure

    def lost(self, reserve: float, effective: Mapping[str, float], far_us: int | None) -> None:
        """Redis can't be asked: from now on this worker has its share, if it has a part.

        Args:
            reserve: the part of every bucket that bulk calls leave alone.
            effective: by bucket, the part of its table's amount that it may hold.
            far_us: how far this worker's calls may spread (`Spread.worst_us`).
        """
        if self.share is None and self.part:
            self.redis.held = True
            self.share = Share(
                self.part,
                lasts_us=int(LASTS_S * 1e6),
                since_us=max(self._leased_us + int((PRESENT_S + HORIZON_S) * 1e6), self._floor_us),
                offset_us=self._offset_us,
                far_us=far_us,
                reserve=reserve,
                effective=effective,
            )

    def now_us(self) -> tuple[int, int]:
        """Redis's clock at the earliest, and how much later it may be, microseconds."""
        earliest, latest = self.redis.shows(self.clock())
        return earliest, latest - earliest

    def expected(self) -> Expected:
        """The correction that we know, and between which times of Redis's clock a question of now arrives there."""
        if not self.redis.known:
            return UNKNOWN_TIME
        earliest, error_us = self.now_us()
        return self.frame.id or "-", earliest - UNSURE_US, earliest + error_us + UNSURE_US + ON_ITS_WAY_US

    def off_by(self, frame: Frame, now_us: int, asked_s: float) -> tuple[int, int]:
        """By how much Redis's clock is behind the earliest that it can show, and how unsure that is; 0 if it can.

        A worker that is not sure of the clock takes it as others have corrected it: they know it better.

        Args:
            frame: the answer's. Corrections that others made may have set the clock back, as far as they were unsure,
                and ahead where all windows count as full.
            now_us: what Redis's clock showed.
            asked_s: not before this instant of ours.
        """
        is_known = frame.id in ("", self.frame.id)
        if self.redis.known:
            back_us = 0 if is_known else max(0, frame.behind_us - self.frame.behind_us)
            earliest = self.redis.shows(asked_s)[0] - UNSURE_US - back_us
            latest = sum(self.now_us()) + UNSURE_US
            is_possible = earliest <= now_us <= (latest if is_known else max(latest, frame.lost_us))
            if not is_possible and (is_known or self._newcomer.is_sure):
                return earliest - now_us, latest - earliest
            if not is_known:
                self.adopt(now_us, asked_s)
        self.frame = frame
        return 0, 0

    def adopt(self, now_us: int, asked_s: float) -> None:
        """Redis's clock was corrected: it is measured anew from this answer on, also for a share."""
        if self.redis.known:
            self.redis.corrected(self.clock(), now_us, asked_s=asked_s)
            self._heard_us, self._answered_s = now_us, self.clock()
            if not self._newcomer.is_sure:
                self._newcomer = Newcomer()  # What it has seen so far was by another clock.

    def may_use(self, at_us: int, error_us: int) -> bool:
        """Whether the share may grant this instant: the lease holds still."""
        return at_us + error_us <= self._known_us + LASTS_S * 1e6

    @property
    def is_counted_away(self) -> bool:
        """Whether Redis leaves this worker's part alone by now, and the lease holds still: its share may be in use.

        What it grants then comes `HORIZON_S` later at the earliest, when nothing that Redis granted before is ahead.
        """
        if self.share is None:
            return False
        now_us, error_us = self.now_us()
        return self.share.since_us - HORIZON_US <= now_us and self.may_use(now_us, error_us)

    def keeps(self, buckets: Iterable[Bucket]) -> bool:
        """Whether Redis remembers our part for long enough after its end for these buckets' windows."""
        return _keep_us(buckets) <= self._kept_us

    def may_return(self) -> bool:
        """Whether Redis, which has just answered, has more to give than the share.

        Where it has forgotten what it granted all its buckets are full for a window.
        """
        if self.share is None:
            return True
        return self._now_us > self._since_us + self.share.longest_us * (1 + MARGIN_PART)

    def settle(self) -> list[Addition]:
        """What Redis has to add to its buckets before `settled`; the share must grant nothing any more."""
        if self.share is None:
            return []
        now_s = self.clock()
        now_us = self.redis.shows(now_s)[0]
        # Its calls may still be ahead, and clocks drift until they leave.
        earliest, latest = self.redis.shows(max(now_s, self.redis.due(self.share.last_us)))
        error_us = latest - earliest
        additions = self.share.additions(now_us, error_us=error_us)
        shift = self._now_us - now_us
        if abs(shift) < 1e6:
            shift = 0
        # Otherwise it is another Redis with another clock.
        self._floor_us = self.share.last_us + error_us + shift
        return [
            Addition(one.key, one.bucket, [n if number % 2 else n + shift for number, n in enumerate(one.grants)])
            for one in additions
        ]

    def settled(self) -> None:
        """Redis knows all that the share granted: it is over, and beats renew the lease again."""
        self.share = None
        self.redis.held = False


def _keep_us(buckets: Iterable[Bucket]) -> int:
    return int((max((bucket.window_s for bucket in buckets), default=0.0) * (1 + MARGIN_PART) + 1) * 1e6)


def _machine() -> str:
    """Names this machine since its start, and its process namespace; a name of its own where they are unknown."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return hashlib.sha256((boot + str(Path("/proc/self/ns/pid").readlink())).encode()).hexdigest()[:12]
    return secrets.token_hex(6)


_MACHINE: Final = _machine()


# Members of this process that ended. Those of its parent do no harm here: nobody has their names again.
_ENDED: Final[set[str]] = set()


def _is_dead(name: str) -> bool:
    if name in _ENDED:
        return True
    machine, pid, _ = name.split(".")
    if machine != _MACHINE:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
