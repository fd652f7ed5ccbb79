"""One scope of budgets in Redis, an exchange as seen from one address: its keys, its pauses, its clock, what is used.

Keys are ``fleet:{<exchange>}:<egress or account>:<bucket>``: one hash slot per exchange, because one call may be
charged to buckets of its address and of its account. All of them expire.
"""

import asyncio
import functools
import hashlib
import math
import secrets
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import redis.asyncio
import redis.exceptions

from schemas.runtime import store
from schemas.runtime.store import AWAY

from ..limits.costs import Bucket, Charge, Kind
from .grants import Grant, Use
from .punctuality import Punctuality
from .redis_clock import RedisClock
from .script import REDIS_CLOCK, Argument, Script

# How long a measured difference between the exchange's clock and Redis's is believed.
CLOCK_TTL_S: Final = 3600.0
# Costs are whole thousandths in the script.
SCALE: Final = 1000
# What is run if its answer can't say when: at any time.
ANY_TIME: Final = ("", 0, 1 << 53)
# Where a question came too late to be run, or at a time that can't be, it is asked so often.
TRIES: Final = 3
# The answers to these come as fast as Redis can.
PROMPT: Final = ("reserve", "again", "beat")
T = TypeVar("T")
Expected: TypeAlias = tuple[str, int, int]
_BUCKET: Final = struct.Struct("<6d")
_KINDS: Final[tuple[Kind, ...]] = ("rolling", "fixed", "decaying", "paced")


class ClockSet(redis.exceptions.RedisError):
    """There is no answer by a clock that can be Redis's."""


class Scope:
    """One scope, as this process knows it.

    Args:
        client: made by `schemas.runtime.store.connect`.
        scope: ``<exchange>:<egress>``.
        account: names the account; buckets counted per account are shared by all who use it, from any address.
        clock: the script's line that tells the time; tests bring their own.
    """

    def __init__(self, client: redis.asyncio.Redis, scope: str, *, account: str = "", clock: str = REDIS_CLOCK) -> None:
        self._client: Any = client
        self._script = Script(client, clock)
        exchange, _, egress = scope.partition(":")
        self._egress = f"fleet:{{{exchange}}}:{_key_part(egress)}"
        self._account = f"fleet:{{{exchange}}}:account:{_hashed(account)}" if account else self._egress
        self._clock = f"fleet:{{{exchange}}}:clock"
        self._frame = f"fleet:{{{exchange}}}:set"
        self._redis_clock = RedisClock()
        self._punctuality = Punctuality()
        self._epoch = f"{self._egress}:epoch"
        self._sharing = [f"{self._egress}:away", f"{self._egress}:members"]
        # The epoch of what Redis remembers that we have seen, and the one we begin where there is none.
        self._known, self._new = "", secrets.token_hex(8)
        self._run_id = ""
        self._lost = True
        self._meeting = asyncio.Lock()
        self._paused: dict[str, float] = {}
        # When an operator last ended pauses here, microseconds of Redis's clock, as far as this process has seen.
        self.lifted_us = 0
        self._ahead_clock = ""
        self._pauses = [f"{self._egress}:pause"]
        if account:
            self._pauses.append(f"{self._account}:pause")
        self._seen: dict[str, Bucket] = {}
        # What was learned of our buckets, thousandths of their tables' amounts, and when we saw it, by Redis's clock.
        self._learned: dict[str, tuple[int, int]] = {}

    async def pause(
        self,
        for_s: float,
        reason: str,
        charges: Sequence[Charge] = (),
        *,
        told: bool = True,
        account: bool = False,
        grant: Grant | None = None,
    ) -> float:
        """Stop all workers from sending for so long; a longer pause stays as it is.

        Args:
            for_s: how long, from now.
            reason: why, for those who look.
            charges: pause only these buckets (the exchange limits each endpoint alone); everything when empty.
            told: the exchange itself said how long. Otherwise the pause is doubled each time the limit is met again by
                a call that was granted after the last pause.
            account: the call was the account's: pause it at all addresses too.
            grant: that of the call that met the limit.

        Returns:
            How long the pause holds now, in seconds.

        Where Redis can't be reached this process keeps the pause, and tells the others when Redis is back.
        """
        # An account's calls also leave from this address, so that the address's pause holds them too.
        keys = [f"{self._key(charge)}:pause" for charge in charges] or self._pauses[: 2 if account else 1]
        self._keep_pause(keys, for_s)
        try:
            at_us = grant.at_us if grant else 0
            args: list[Argument] = ["pause", max(0, int(for_s * 1e6)), reason[:200], int(told), at_us]
            holds_s = await self._run(keys, args, _seconds)
        except AWAY:
            self._lost = True
            return for_s
        self._keep_pause(keys, holds_s)
        return holds_s

    def _keep_pause(self, keys: Sequence[str], for_s: float) -> None:
        now = time.monotonic()
        self._paused = {key: till for key, till in self._paused.items() if till > now}
        for key in keys:
            self._paused[key] = max(now + for_s, self._paused.get(key, 0.0))

    async def paused(self, charges: Sequence[Charge] = ()) -> float:
        """Return for how many more seconds calls with these charges must not be sent; 0 when they may.

        When Redis can't be asked only our own pauses count: what was reserved may be sent.
        """
        keys = [*self._pauses, *(f"{self._key(charge)}:pause" for charge in charges)]
        try:
            paused_us, lifted_us = await self._run(keys, ["paused"], functools.partial(_whole, count=2))
        except AWAY:
            self._lost = True
            return self._paused_s(charges)
        if lifted_us > self.lifted_us:
            self.lifted_us = lifted_us
            self._paused.clear()
        return max(self._paused_s(charges), paused_us / 1e6)

    def _paused_s(self, charges: Sequence[Charge]) -> float:
        """How much longer those pauses hold that this process knows of."""
        now = time.monotonic()
        keys = (*self._pauses, *(f"{self._key(charge)}:pause" for charge in charges))
        return max(0.0, *(self._paused.get(key, now) - now for key in keys))

    async def set_clock(self, ahead_s: float, error_s: float = 0.0) -> None:
        """Tell all workers how far the exchange's clock is ahead of Redis's; its fixed windows follow it.

        Args:
            ahead_s: how far, below zero where it is behind.
            error_s: by how much that may be wrong: calls stay as much further away from a window's ends.
        """
        self._ahead_clock = f"{int(ahead_s * 1e6)}:{math.ceil(error_s * 1e6)}"
        try:
            await self._run([self._clock], ["clock", self._ahead_clock, int(CLOCK_TTL_S * 1000)], nothing)
        except AWAY:
            self._lost = True  # It is told when Redis is back.

    async def usage(self) -> dict[str, Use]:
        """Return every bucket this process has charged; the fullest and smallest count of it where it has many.

        Where Redis has forgotten that one holds less than its table says, it is told again.
        """
        seen = list(self._seen.items())
        args: list[Argument] = ["usage", b"".join(packed(bucket) for _, bucket in seen)]
        keys = [key for key, _ in seen]
        known = [f"{key}:{what}" for what in ("learned", "pause") for key in keys]
        read = functools.partial(_whole, count=1 + 4 * len(seen))
        now_us, *said = await self._run([*keys, self._clock, *known], args, read)
        buckets: dict[str, Use] = {}
        for number, (key, bucket) in enumerate(seen):
            used, effective, lowered, paused_us = said[4 * number : 4 * number + 4]
            if not lowered and key in self._learned:  # forgotten
                asked: list[Argument] = ["remember", *self._learned[key], packed(bucket)]
                effective = await self._run([key, self._clock, f"{key}:learned"], asked, int)
            if effective < SCALE:
                self._learned[key] = effective, now_us
            else:
                self._learned.pop(key, None)
            other = buckets.get(bucket.name, Use(0.0, 1.0))
            buckets[bucket.name] = Use(
                max(used / SCALE, other.used),
                min(effective / SCALE, other.effective),
                max(paused_us / 1e6, other.paused_s),
            )
        return buckets

    async def _meet(self) -> None:
        """After a loss, find out whether this is still the Redis we knew, and tell it of our pauses."""
        async with self._meeting:
            if not self._lost:
                return
            run_id = await self._run_id_now()
            if self._run_id not in ("", run_id):
                self._known = "?"
            self._run_id = run_id
            for key, till in self._paused.items():
                left_us = max(0, int((till - time.monotonic()) * 1e6))
                await self._run([key], ["pause", left_us, "told again", 1, 0], nothing)
            if self._ahead_clock:
                await self._run([self._clock], ["clock", self._ahead_clock, int(CLOCK_TTL_S * 1000)], nothing)
            self._lost = False

    async def _run_id_now(self) -> str:
        try:
            return store.shaped(await self._client.info("server"), lambda said: str(said["run_id"]))
        except AWAY as error:
            store.lost(error, "info")
            raise

    def _key(self, charge: Charge) -> str:
        return f"{self._account if charge.bucket.scope == 'account' else self._egress}:{charge.key}"

    def _see(self, charge: Charge) -> None:
        key = self._key(charge)
        if key not in self._seen:
            if len(self._seen) >= 1000:  # Pairs and instruments come from requests: this must not grow for ever.
                self._seen.clear()
            self._seen[key] = charge.bucket

    async def _run(self, keys: Sequence[str], args: Sequence[Argument], read: Callable[[Any], T]) -> T:
        """Asks Redis, and returns what `read` makes of the answer.

        Raises:
            RedisError: one of `store.AWAY`: there was no answer, or none by a clock that can be Redis's.
        """
        try:
            return await self._run_in_time(keys, args, read)
        except AWAY as error:
            store.lost(error, str(args[0]))
            raise

    async def _run_in_time(self, keys: Sequence[str], args: Sequence[Argument], read: Callable[[Any], T]) -> T:
        for _ in range(TRIES):
            asked_s = self._now_s()

            def last() -> Expected:
                nonlocal asked_s
                asked_s = self._now_s()
                return self._expected()

            said = await self._script.run([*keys, self._frame], args, last)
            frame, now_us, was_run, answer = store.shaped(said, _framed)
            agrees = await self._hears(frame, now_us, asked_s)
            if was_run and agrees:
                if args[0] in PROMPT:
                    late_s = self._redis_clock.answered(self._now_s(), now_us, asked_s=asked_s)
                    self._punctuality.late(late_s * 1e6)
                return store.shaped(answer, read)
            if was_run:
                break  # It left its trace, and may not be repeated.
        raise ClockSet("Redis's clock was set, or questions are too long on their way")

    def _now_s(self) -> float:
        return time.monotonic()

    def _expected(self) -> Expected:
        """Which correction of Redis's clock we know, and between which times of it a question is run."""
        return ANY_TIME

    async def _hears(self, frame: str, now_us: int, asked_s: float) -> bool:
        """Whether Redis's clock can have shown `now_us` since `asked_s`; where not it is corrected."""
        return True


def nothing(_: Any) -> None:
    """Reads an answer that says nothing."""


def _framed(said: Any) -> tuple[str, int, bool, Any]:
    frame, now_us, was_run, answer = said
    return frame.decode(), int(now_us), was_run == 1, answer


def _seconds(said: Any) -> float:
    return float(said) / 1e6


def _whole(said: Any, count: int) -> list[int]:
    if len(said) != count:
        raise ValueError(count)
    return [int(number) for number in said]


@functools.lru_cache(maxsize=4096)
def packed(bucket: Bucket, cost: float = 0.0, reserve: float = 0.0) -> bytes:
    """A charge as the script reads it: kind, amount, window, margin, cost, and the most that may be in use with it."""
    thousandths = math.ceil(cost * SCALE - 1e-6)
    amount, window_us = amount_of(bucket), window_us_of(bucket)
    # A call that is bigger than what bulk may use still gets its turn: when the bucket is empty.
    cap = max(math.floor(amount * (1 - reserve)), min(thousandths, amount))
    margin_us = math.ceil(bucket.margin_ms * 1000)
    return _BUCKET.pack(_KINDS.index(bucket.kind) + 1, amount, window_us, margin_us, thousandths, cap)


def amount_of(bucket: Bucket) -> int:
    """What may be spent per window, thousandths."""
    return math.floor(bucket.amount * SCALE + 1e-6)


def window_us_of(bucket: Bucket) -> int:
    """The window, microseconds."""
    return math.ceil(bucket.window_s * 1e6)


def _key_part(name: str) -> str:
    """A proxy's URL may hold a password, and braces would move the hash slot: neither goes into a key."""
    return _hashed(name) if set(name) & set("@{}/") else name


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
