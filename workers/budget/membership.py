"""Who shares a scope's budget, so that a worker that loses Redis can go on with its part and no limit is passed.

A worker that can't reach Redis does not know whether the others still can, and Redis does not know whether a worker
that is silent is cut off or dead. So parts of the limit are leases:

- Every worker beats, and Redis answers with its part: at most limit ÷ workers, and at most what the others have left
  over. With the next beat the worker says which part it believes in; until it believes in less, Redis counts it with
  the larger one, so that all parts together never are more than the limit. A worker that has just come has no part
  until the others gave theirs up: two beats.
- A beat says when the worker last heard from Redis (its lease, Redis's clock), not when it was sent: one that arrives
  late, or twice, promises nothing new; its number keeps an old one from undoing a newer one.
- Redis grants nothing further ahead than `HORIZON_S`. From `PRESENT_S` after a lease a worker counts as away, and every
  grant leaves its part alone. So a worker that is away may use its part when its lease is older than both, and then one
  window more, because everything before may have been used up: its share starts from full buckets.
- `LASTS_S` after its lease a worker stops, and Redis gives the part back to the others one window later.
- A worker that comes back tells Redis what it has granted itself before its lease is renewed. So the whole limit is in
  use again at once; while Redis may have forgotten what it granted itself (killed, emptied: `since`) the worker goes on
  with its share in place of nothing. The parts of those that have not come back yet stay set aside.
- Workers that come back to a Redis which forgot them say how long ago they could last be granted anything. When all
  parts are back that bounds what was forgotten, and after an absence that was longer the whole is shared at once.
- They also say whom they knew. When all of those are back, known to be dead, or may send no more, nothing is set aside
  for the forgotten any longer.
- Who never met this Redis has no part.

Accepted: a worker that dies without leaving takes its part with it for `LASTS_S`, unless one on the same machine sees
that it is dead. A bucket whose part does not hold one call is not divided: it stands still while Redis is away, and
nothing of it is set aside. Budgets with an account have no part: their accounts are shared over addresses. Clocks may
drift by `DRIFT`. Pure, but for looking whether a process lives; the clock is an argument.

Redis's clock may be set while the fleet runs. Every answer says what it shows; where that can't be, by what it showed
at the last beat and by our own clock, it was set, and by how much (`off_by`). It is corrected for all (clock.lua).
"""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..limits.costs import Bucket
from .redis_clock import DRIFT, RedisClock
from .share import MARGIN_PART, PARTS, Share, Told

# Costs Redis 0.15 to 0.3 ms each time.
BEAT_EVERY_S: Final = 0.3
# A worker that Redis has not seen for so long counts as away: some beats, and a pause of its process.
PRESENT_S: Final = 1.5
# The furthest ahead that Redis grants to a scope that is shared: what attempts wait in a worker's memory, and some.
HORIZON_S: Final = 2.5
LASTS_S: Final = 300.0
ANY_TIME_US: Final = (0, 1 << 53)
HORIZON_US: Final = int(HORIZON_S * 1e6)
# What clocks may differ by beside that.
UNSURE_US: Final = 1_000
# A question that was on its way for so long is not run any more, but asked again.
ON_ITS_WAY_US: Final = 250_000

# What the scripts know by these names.
CONSTANTS: Final = (
    f"local PARTS, PRESENT = {PARTS}, {PRESENT_S * 1e6:.0f}\nlocal HORIZON, LASTS = {HORIZON_US}, {LASTS_S * 1e6:.0f}\n"
)


class Membership:
    """One worker among those that share a scope.

    Args:
        clock: the monotonic clock, seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = f"{_MACHINE}.{os.getpid()}.{secrets.token_hex(4)}"
        self.share: Share | None = None
        self.part = 0
        self.count = 0
        self.clock = clock
        self.redis = RedisClock()
        self._beats = 0
        self._hash, self._new = "", secrets.token_hex(8)
        # When Redis was last heard, by its clock and by ours.
        self._heard_us, self._answered_s = 0, 0.0
        # The latest lease that Redis may know, and the latest that it knows for sure; ours while a share is out.
        self._leased_us = self._known_us = 0
        self._since_us = self._now_us = 0
        self._offset_us = 0
        # The others as Redis knew them at our last beat; see `shares.lua`.
        self._others: list[bytes] = []
        # What an earlier share has granted counts in a later one's first window.
        self._floor_us = 0
        # For how long Redis remembers a part after its end: no window may be longer.
        self._keep_us = self._kept_us = 0
        self._settling = False
        # Which correction of Redis's clock we go by.
        self.frame = ""

    def beat(self, buckets: Iterable[Bucket], epoch: str, new_epoch: str) -> list[str | int | bytes]:
        """What the script `beat` is asked with; every answer must be told to `answered`."""
        self._beats += 1
        if self._new == self._hash:
            self._new = secrets.token_hex(8)  # One that is forgotten and begun anew must not look like the old one.
        if self.share is None:
            self._leased_us = max(self._leased_us, self._heard_us)
            if self.part and self.now_us()[0] > self._known_us + LASTS_S * 1e6:
                self.part = 0  # This process stood still for so long that Redis has given its part to others.
        self._keep_us = max(self._keep_us, _keep_us(buckets))
        part = max(self.part, self.share.parts if self.share else 0)
        mine: list[str | int] = [self.id, self._beats, self._leased_us, part, self._keep_us]
        # By our clock at its slowest, and Redis reads it later: at least so long ago, or it is taken for more recent.
        heard_us = max(0, int((self.clock() - self._answered_s) * (1 - DRIFT) * 1e6))
        return ["beat", *mine, self._hash, self._new, epoch, new_epoch, heard_us, *self._others]

    def answered(self, answer: Sequence[Any]) -> tuple[str, float]:
        """Takes in the answer to the latest beat; returns the epoch, and for how long everything is paused."""
        now_us, part, count, found, epoch, since_us, offset_us, pause_us, *self._others = answer
        if not (self.part or self.share):
            # Until now the part was others', who may have been granted instants ahead.
            self._floor_us = max(self._floor_us, int(now_us) + HORIZON_US)
        self._known_us, self._kept_us = self._leased_us, self._keep_us
        self.part, self.count, self._hash = int(part), int(count), found.decode()
        self._now_us, self._since_us = int(now_us), int(since_us)
        if self.share is None:
            self._heard_us, self._answered_s = int(now_us), self.clock()
            self._offset_us = int(offset_us)
        return epoch.decode(), max(0, int(pause_us) - int(now_us)) / 1e6

    def dead(self) -> list[str]:
        """Those that Redis misses and that are known to be dead: processes of this machine."""
        others = (found.decode().split() for found in self._others)
        return [name for name, _, drops in others if drops != "0" and _is_dead(name)]

    def lost(self, reserve: float, effective: Mapping[str, float], far_us: int) -> None:
        """Redis can't be asked: from now on this worker has its share, if it has a part.

        Args:
            reserve: the part of every bucket that bulk calls leave alone.
            effective: by bucket, the part of its table's amount that it may hold.
            far_us: how far this worker's calls may spread (`Spread.worst_us`).
        """
        self._settling = False
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

    def expected(self) -> tuple[str, int, int]:
        """The correction that we know, and between which times of Redis's clock a question of now arrives there."""
        if not self.redis.known:
            return self.frame, *ANY_TIME_US
        earliest, error_us = self.now_us()
        return self.frame, earliest - UNSURE_US, earliest + error_us + UNSURE_US + ON_ITS_WAY_US

    def off_by(self, frame: str, now_us: int, asked_s: float) -> tuple[int, int]:
        """By how much Redis's clock is behind the earliest that it can show, and how unsure that is; 0 if it can.

        Args:
            frame: the answer's correction: one that another worker made is believed.
            now_us: what Redis's clock showed.
            asked_s: not before this instant of ours.
        """
        if frame not in ("", self.frame):
            self.adopt(frame, now_us, asked_s)
        if self.redis.known:
            earliest = self.redis.shows(asked_s)[0] - UNSURE_US
            latest = sum(self.now_us()) + UNSURE_US
            if not earliest <= now_us <= latest:
                return earliest - now_us, latest - earliest
        self.frame = frame
        return 0, 0

    def adopt(self, frame: str, now_us: int, asked_s: float) -> None:
        """Redis's clock is corrected: from here on it is read anew, also by a share."""
        self.frame = frame
        if self.redis.known:
            self.redis.corrected(self.clock(), now_us, asked_s=asked_s)
            self._heard_us, self._answered_s = now_us, self.clock()

    def may_use(self, at_us: int, error_us: int) -> bool:
        """Whether the share may grant this instant."""
        return not self._settling and at_us + error_us <= self._known_us + LASTS_S * 1e6

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

    def settle(self) -> list[Told]:
        """What Redis is to be told before it hears `settled`; the share grants nothing any more."""
        self._settling = True
        if self.share is None:
            return []
        now_us, error_us = self.now_us()
        told = self.share.told(now_us, error_us=error_us)
        shift = self._now_us - now_us
        if abs(shift) < 1e6:
            shift = 0
        # Otherwise another Redis, whose clock is another one.
        self._floor_us = self.share.last_us + error_us + shift
        return [
            Told(one.key, one.bucket, [n if number % 2 else n + shift for number, n in enumerate(one.grants)])
            for one in told
        ]

    def settled(self) -> None:
        """Redis knows it all: the share is over, and the beats renew the lease."""
        self.share = None
        self._settling = self.redis.held = False

    @property
    def on_share(self) -> float:
        """The part of every limit that this worker may use by itself now; 0 where it has none."""
        return self.share.parts / PARTS if self.share else 0.0


def _keep_us(buckets: Iterable[Bucket]) -> int:
    return int((max((bucket.window_s for bucket in buckets), default=0.0) * (1 + MARGIN_PART) + 1) * 1e6)


def _machine() -> str:
    """Names this machine since its start, and who counts processes on it; nothing that others have where unknown."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return hashlib.sha256((boot + str(Path("/proc/self/ns/pid").readlink())).encode()).hexdigest()[:12]
    return secrets.token_hex(6)


_MACHINE: Final = _machine()


def _is_dead(name: str) -> bool:
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
