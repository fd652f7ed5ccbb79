"""What a lane may send now, shared by all workers through Redis.

`Budget.reserve` asks one Lua script (``budget.lua``), in one round trip and for all buckets of a call: the earliest
instant at which every bucket has room is reserved and the caller sleeps until then, once. There is no polling, so
whoever asked first is served first. The only clock is Redis's. What is reserved and then not used lapses: it may cost
throughput, never a limit.

Keys are ``fleet:{<exchange>}:<egress or account>:<bucket>``: one hash slot per exchange, because one call may be
charged to buckets of its address and of its account. All of them expire.
"""

import asyncio
import hashlib
import math
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import redis.asyncio
import redis.exceptions
from msgspec import Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .costs import Bucket, Charge
from .punctuality import Punctuality

SCRIPT: Final = Path(__file__).with_name("budget.lua").read_text(encoding="utf-8")
REDIS_CLOCK: Final = "local function clock() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end\n"

# What bulk calls leave of every bucket for live ones.
LIVE_RESERVE: Final = 0.2
# How long a request waits for Redis to come back before it is offered again.
LOST_WAIT_S: Final = 1.0
# Of a bucket's margin, what a call may leave late; the rest is for the way from here to the exchange.
LATE_PART: Final = 0.5
LATE_TRIES: Final = 3
# So long before a call is due a pause may still stop it: a round trip to Redis, and some.
RECHECK_S: Final = 0.02
# How long a measured difference between the exchange's clock and Redis's is believed.
CLOCK_TTL_S: Final = 3600.0
# Costs are whole thousandths in the script.
_SCALE: Final = 1000
# So many reservations go out together at most: Redis answers other clients in between.
_BATCH: Final = 64

Reason: TypeAlias = Literal["budget", "paused", "redis_lost"]


class Grant(Struct, frozen=True):
    """Room is reserved.

    Args:
        delay_us: sleep so long, then send.
        at_us: the reserved instant on Redis's clock, microseconds since 1970.
    """

    delay_us: int
    at_us: int


class Refusal(Struct, frozen=True):
    """Nothing is reserved.

    Args:
        earliest_ms: when there would be room, on Redis's clock, milliseconds since 1970.
        wait_s: the same as seconds from now.
        reason: no room in time; the exchange told us to pause; or Redis can't be asked.
    """

    earliest_ms: int
    wait_s: float
    reason: Reason


def connect(url: str, *, timeout_s: float) -> redis.asyncio.Redis:
    """Return a client fit for budgets: it gives up in time, and never repeats a command by itself.

    A reservation repeated after a lost answer would be charged twice.
    """
    # A few connections and a queue before them: a thousand attempts that start together would otherwise open a
    # thousand, and none of them in time.
    pool = redis.asyncio.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
        url,
        max_connections=16,
        timeout=4 * timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
    return redis.asyncio.Redis.from_pool(pool)


class Budget:
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
        self._client: Any = client
        exchange, _, egress = scope.partition(":")
        self._egress = f"fleet:{{{exchange}}}:{_key_part(egress)}"
        self._account = f"fleet:{{{exchange}}}:account:{_key_part(account)}" if account else self._egress
        self._clock = f"fleet:{{{exchange}}}:clock"
        self._epoch = f"{self._egress}:epoch"
        # The epoch of what Redis remembers that we have seen, and the one we begin where there is none.
        self._known, self._new = "", secrets.token_hex(8)
        self._run_id = ""
        self._lost = True
        self._meeting = asyncio.Lock()
        self._paused: dict[str, float] = {}
        self._ahead_clock_us: int | None = None
        self._ahead_us = 0
        self._pauses = [f"{self._egress}:pause"]
        if account:
            self._pauses.append(f"{self._account}:pause")
        self._live_reserve = live_reserve
        self._script = clock + SCRIPT
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._seen: dict[str, Bucket] = {}
        self._waiting: list[tuple[tuple[str | int, ...], asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None
        self._busy = False
        self._punctuality = Punctuality()

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
        keys = [self._key(charge) for charge in charges]
        pauses = [*self._pauses, *(f"{key}:pause" for key in keys)]
        limit_us = 0 if bulk else max(0, int(max_wait_s * 1e6))
        self._ahead_us = max(self._ahead_us, limit_us)
        buckets: list[str | int] = []
        for charge in charges:
            buckets += self._args(charge.bucket, charge.cost, self._live_reserve if bulk else 0.0)
        try:
            if self._lost:
                await self._meet()
            head: list[str | int] = ["reserve", len(keys), limit_us, self._known, self._new, self._ahead_us, lead_us]
            answer = await self._run([*keys, self._clock, self._epoch, *pauses], [*head, *buckets])
            self._punctuality.answered(time.monotonic(), redis_us=answer[2] - answer[1])
        except _LOST:
            self._lost = True
            return Refusal(int((time.time() + LOST_WAIT_S) * 1000), LOST_WAIT_S, "redis_lost")
        granted, delay_us, at_us, paused, epoch = answer
        found = epoch.decode()
        if self._known not in ("", found):
            self._lost = True  # It was emptied: what we know besides has to be told again.
        self._known = found
        if granted:
            return Grant(delay_us, at_us)
        return Refusal(math.ceil(at_us / 1000), delay_us / 1e6, "paused" if paused else "budget")

    async def acquire(self, charges: Sequence[Charge], *, max_wait_s: float, bulk: bool = False) -> Grant | Refusal:
        """Reserve, sleep until the reserved instant, and look once more whether the scope was paused meanwhile.

        Who wakes up too late does not send: the exchange would see the call beside those that were granted later. The
        reservation lapses and a new one is asked for, a few times; a process as late as that is overloaded and had
        better hand the call back.
        """
        until = time.monotonic() + max_wait_s
        spare_us = min((charge.bucket.margin_ms for charge in charges if charge.bucket.margin_ms), default=0) * 1000
        for _ in range(LATE_TRIES):
            asked = time.monotonic()
            answer = await self.reserve(
                charges, max_wait_s=max(0.0, until - asked), bulk=bulk, lead_us=self._punctuality.lead_us()
            )
            if isinstance(answer, Refusal):
                return answer
            due = self._punctuality.due(answer.at_us, not_before=asked + answer.delay_us / 1e6)
            if due - time.monotonic() > RECHECK_S:
                await _sleep_until(due - RECHECK_S)
                if left := await self.paused(charges):
                    return Refusal(int((time.time() + left) * 1000), left, "paused")
            await _sleep_until(due)
            late_us = (time.monotonic() - due) * 1e6
            self._punctuality.woke(late_us)
            if late_us <= spare_us * LATE_PART or not spare_us:
                return answer
        return Refusal(int((time.time() + LOST_WAIT_S) * 1000), LOST_WAIT_S, "budget")

    async def pause(self, for_s: float, reason: str, charges: Sequence[Charge] = ()) -> None:
        """Stop all workers from sending for so long; a longer pause stays as it is.

        Args:
            for_s: how long, from now.
            reason: why, for those who look.
            charges: pause only these buckets (the exchange limits each endpoint alone); everything when empty.

        Where Redis can't be reached this process keeps the pause, and tells the others when Redis is back.
        """
        # An account's calls also leave from this address, so that the address's pause holds them too.
        keys = [f"{self._key(charge)}:pause" for charge in charges] or self._pauses[:1]
        now = time.monotonic()
        self._paused = {key: till for key, till in self._paused.items() if till > now}
        for key in keys:
            self._paused[key] = max(now + for_s, self._paused.get(key, 0.0))
        try:
            await self._run(keys, ["pause", max(0, int(for_s * 1e6)), reason[:200]])
        except _LOST:
            self._lost = True

    async def paused(self, charges: Sequence[Charge] = ()) -> float:
        """Return for how many more seconds calls with these charges must not be sent; 0 when they may.

        When Redis can't be asked only our own pauses count: what was reserved may be sent.
        """
        keys = [*self._pauses, *(f"{self._key(charge)}:pause" for charge in charges)]
        now = time.monotonic()
        ours = max(0.0, *(self._paused.get(key, now) - now for key in keys))
        try:
            return max(ours, float(await self._run(keys, ["paused"])) / 1e6)
        except _LOST:
            self._lost = True
            return ours

    async def observe(self, charge: Charge, used: float, *, sent_ago_s: float) -> None:
        """Take over what the exchange says it has counted in the current fixed window; only ever raises our count.

        Args:
            charge: a charge to the bucket that the exchange reports on; ignored if its windows aren't fixed.
            used: the exchange's count, in its own units.
            sent_ago_s: how long ago the call was sent whose answer says so.
        """
        if charge.bucket.kind != "fixed":
            return
        args = [
            "observe",
            math.ceil(used * _SCALE),
            int(sent_ago_s * 1e6),
            *self._args(charge.bucket, charge.cost, 0.0),
        ]
        try:
            await self._run([self._key(charge), self._clock], args)
        except _LOST:
            self._lost = True

    async def set_clock(self, ahead_s: float) -> None:
        """Tell all workers how far the exchange's clock is ahead of Redis's; its fixed windows follow it."""
        self._ahead_clock_us = int(ahead_s * 1e6)
        await self._run([self._clock], ["clock", self._ahead_clock_us, int(CLOCK_TTL_S * 1000)])

    async def usage(self) -> dict[str, float]:
        """Return the used part (0 to 1) of every bucket this process has charged; of the fullest where one has many."""
        seen = list(self._seen.items())
        args: list[str | int] = ["usage", len(seen), 0]
        for _, bucket in seen:
            args += self._args(bucket, 0.0, 0.0)
        used = await self._run([*(key for key, _ in seen), self._clock], args)
        fullest: dict[str, float] = {}
        for (_, bucket), thousandths in zip(seen, used, strict=True):
            part = thousandths / (bucket.amount * _SCALE)
            fullest[bucket.name] = max(fullest.get(bucket.name, 0.0), part)
        return fullest

    async def _meet(self) -> None:
        """After a loss, find out whether this is still the Redis we knew, and tell it of our pauses."""
        async with self._meeting:
            if not self._lost:
                return
            run_id = (await self._client.info("server"))["run_id"]
            if self._run_id not in ("", run_id):
                self._known = "?"
            self._run_id = run_id
            for key, till in self._paused.items():
                left_us = max(0, int((till - time.monotonic()) * 1e6))
                await self._run([key], ["pause", left_us, "told again"])
            if self._ahead_clock_us is not None:
                await self._run([self._clock], ["clock", self._ahead_clock_us, int(CLOCK_TTL_S * 1000)])
            self._lost = False

    def _key(self, charge: Charge) -> str:
        return f"{self._account if charge.bucket.scope == 'account' else self._egress}:{charge.key}"

    def _see(self, charge: Charge) -> None:
        key = self._key(charge)
        if key not in self._seen:
            if len(self._seen) >= 1000:  # Pairs and instruments come from requests: this must not grow for ever.
                self._seen.clear()
            self._seen[key] = charge.bucket

    @staticmethod
    def _args(bucket: Bucket, cost: float, reserve: float) -> list[str | int]:
        """The script's six: kind, amount, window, margin, cost, and the most that may be in use after the call."""
        amount = math.floor(bucket.amount * _SCALE + 1e-6)
        thousandths = math.ceil(cost * _SCALE - 1e-6)
        # A call that is bigger than what bulk may use still gets its turn: when the bucket is empty.
        cap = max(math.floor(amount * (1 - reserve)), min(thousandths, amount))
        window_us, margin_us = math.ceil(bucket.window_s * 1e6), math.ceil(bucket.margin_ms * 1000)
        return [bucket.kind, amount, window_us, margin_us, thousandths, cap]

    async def _run(self, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Run the script. What is asked while an answer is awaited goes out together next, in the order of asking.

        One reservation at a time costs the client about 300 us of CPU, ten sent together 90 us each.
        """
        command = (self._sha, len(keys), *keys, *args)
        try:
            if self._busy:
                answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                self._waiting.append((command, answer))
                return await answer
            self._busy = True
            try:
                return await self._client.evalsha(*command)
            finally:
                self._sender = asyncio.create_task(self._send()) if self._waiting else None
                self._busy = bool(self._sender)
        except redis.exceptions.NoScriptError:
            # It ran nothing, so that asking again charges once.
            return await self._client.eval(self._script, len(keys), *keys, *args)

    async def _send(self) -> None:
        batch: list[tuple[tuple[str | int, ...], asyncio.Future[Any]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                pipeline = self._client.pipeline(transaction=False)
                for command, _ in batch:
                    pipeline.evalsha(*command)
                try:
                    results: list[Any] = await pipeline.execute(raise_on_error=False)
                except Exception as error:
                    results = [error] * len(batch)
                for (_, answer), result in zip(batch, results, strict=True):
                    if answer.done():  # Its caller was cancelled; what it reserved lapses.
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)
        finally:
            # When the loop ends this task is cancelled: nobody may wait for it for ever.
            for _, answer in batch + self._waiting:
                answer.cancel()
            self._waiting.clear()
            self._busy = False


# Redis is away, starts, or has become a replica; anything else it says is a fault of ours.
_LOST: Final = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.OutOfMemoryError,
    OSError,
)


async def _sleep_until(instant: float) -> None:
    while (left := instant - time.monotonic()) > 0:  # uvloop's timers may fire a little early
        await asyncio.sleep(left)


def _key_part(name: str) -> str:
    """A proxy's URL may hold a password, and braces would move the hash slot: neither goes into a key."""
    if "@" in name or "{" in name:
        return hashlib.sha256(name.encode()).hexdigest()[:16]
    return name
