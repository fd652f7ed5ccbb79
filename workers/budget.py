"""What a lane may send now, shared by all workers through Redis.

`Budget.reserve` asks one Lua script (``budget.lua``), in one round trip and for all buckets of a call: the earliest
instant at which every bucket has room is reserved and the caller sleeps until then, once. There is no polling, so
whoever asked first is served first. The only clock is Redis's. What is reserved and then not used lapses: it may cost
throughput, never a limit.

Three things make a bucket hold less than its table says, and the script heeds them all in the same step. *Jitter*: what
an exchange counts are arrivals, so that windows are longer by a margin, which is measured (`Spread`) and shared.
*Strangers*: where the exchange tells what it has counted (`Budget.observe`), what is not ours of it is left to them.
*Limits*: where it says "too many" though we kept to the table (`Budget.limited`), the bucket holds a tenth less, and a
hundredth more again each minute, half as much where that happens again; after every pause it starts at half and is
whole again after some windows.

Keys are ``fleet:{<exchange>}:<egress or account>:<bucket>``: one hash slot per exchange, because one call may be
charged to buckets of its address and of its account. All of them expire.
"""

import asyncio
import hashlib
import math
import secrets
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Literal, TypeAlias

import redis.asyncio
from msgspec import Struct
from msgspec.structs import replace

from schemas.config import LaneConfig

from .costs import Bucket, Charge
from .punctuality import Punctuality
from .script import LOST, REDIS_CLOCK, Script
from .spread import Spread

LIVE_RESERVE: Final = LaneConfig().live_reserve
# How long a request waits for Redis to come back before it is offered again.
LOST_WAIT_S: Final = 1.0
LATE_TRIES: Final = 3
# So long before a call is due it is looked at once more: a round trip to Redis, and some.
RECHECK_S: Final = 0.02
# How much longer than it wanted to a call waits that is moved then.
MOVED_S: Final = 0.25
# How long a measured difference between the exchange's clock and Redis's is believed.
CLOCK_TTL_S: Final = 3600.0
# Costs are whole thousandths in the script.
_SCALE: Final = 1000

Reason: TypeAlias = Literal["budget", "paused", "redis_lost", "share_too_small"]


class Grant(Struct, frozen=True):
    """Room is reserved.

    Args:
        delay_us: sleep so long, then send.
        at_us: the reserved instant on Redis's clock, microseconds since 1970.
        ranks: what each of its buckets had spent with it, thousandths; tells our calls from others in what the exchange
            counts.
        due_s: the instant on the monotonic clock.
        spare_us: how late the call may leave; beyond that it must not.
        margin_us: how late it may arrive without making others wait.
        must_tell: Redis has to be told of its arrival in any case (`Budget.arrived`).
        held_by: which of the call's charges it waits for, None where there is no wait, or it isn't known.
    """

    delay_us: int
    at_us: int
    ranks: tuple[int, ...] = ()
    due_s: float = 0.0
    spare_us: float = math.inf
    margin_us: float = math.inf
    must_tell: bool = False
    held_by: int | None = None


class Refusal(Struct, frozen=True):
    """Nothing is reserved.

    Args:
        earliest_ms: when there would be room, on Redis's clock, milliseconds since 1970.
        wait_s: the same as seconds from now.
        reason: no room in time; the exchange told us to pause; Redis can't be asked; or it can't be asked, and this
            worker's share of a bucket never holds the call.
        held_by: which of the call's charges had no room; None where that is not why.
    """

    earliest_ms: int
    wait_s: float
    reason: Reason
    held_by: int | None = None


class Use(Struct, frozen=True):
    """One bucket now.

    Args:
        used: the used part of what it may hold, 0 to 1, strangers' calls included.
        effective: the part of its table's amount that it may hold: less than 1 where the exchange said "too many".
        paused_s: how long the exchange asked it, and not the whole scope, still to be silent.
    """

    used: float
    effective: float
    paused_s: float = 0.0


class Learned(Struct, frozen=True):
    """A bucket holds less from now on: its count's key, its amount by the table, and the one it has now."""

    bucket: str
    amount: float
    effective: float


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
        self._script = Script(client, clock)
        self._telling: set[asyncio.Task[None]] = set()
        exchange, _, egress = scope.partition(":")
        self._egress = f"fleet:{{{exchange}}}:{_key_part(egress)}"
        self._account = f"fleet:{{{exchange}}}:account:{_hashed(account)}" if account else self._egress
        self._clock = f"fleet:{{{exchange}}}:clock"
        self._epoch = f"{self._egress}:epoch"
        self._spread_key = f"{self._egress}:spread"
        self._sharing = [f"{self._egress}:away", f"{self._egress}:members"]
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
        self._seen: dict[str, Bucket] = {}
        self._punctuality = Punctuality()
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
            head: list[str | int] = ["reserve", len(charges), limit_us, self._known, self._new, self._ahead_us]
            return await self._ask(charges, head, lead_us, bulk=bulk)
        except LOST:
            self._lost = True
            return Refusal(int((time.time() + LOST_WAIT_S) * 1000), LOST_WAIT_S, "redis_lost")

    async def again(
        self, charges: Sequence[Charge], grant: Grant, *, max_wait_s: float, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """Look at a reservation again: whether it was paused meanwhile, or has to be moved to a later instant.

        It has to where a call before it arrived later than its grant allowed for, or where this call can't leave in
        time. Where Redis can't be asked, what was reserved may be sent in time.

        Args:
            charges: as in `reserve`.
            grant: what it returned; a refusal gives it back.
            max_wait_s: refuse when the new instant is further ahead than this.
            bulk: as in `reserve`.
            lead_us: how long the caller needs to be ready to send.
        """
        limit_us = max(0, int(max_wait_s * 1e6))
        try:
            head: list[str | int] = ["again", len(charges), limit_us, grant.at_us, 0, 0]
            answer = await self._ask(charges, head, lead_us, bulk=bulk)
        except LOST:
            self._lost = True
            if not lead_us and not (left_s := self._paused_s(charges)):
                return grant
            left_s = max(LOST_WAIT_S, self._paused_s(charges))
            return Refusal(int((time.time() + left_s) * 1000), left_s, "redis_lost")
        if isinstance(answer, Refusal) and answer.wait_s == 0:  # It was forgotten.
            return await self.reserve(charges, max_wait_s=max_wait_s, bulk=bulk, lead_us=lead_us)
        if isinstance(answer, Grant):
            held_by = answer.held_by if grant.held_by is None else grant.held_by
            return replace(answer, ranks=grant.ranks, held_by=held_by)
        return answer

    async def _ask(
        self, charges: Sequence[Charge], head: Sequence[str | int], lead_us: int, *, bulk: bool
    ) -> Grant | Refusal:
        keys = [self._key(charge) for charge in charges]
        pauses = [*self._pauses, *(f"{key}:pause" for key in keys)]
        shared = [self._clock, self._epoch, self._spread_key, *self._sharing]
        args: list[str | int] = [*head, lead_us, self.spread.margin_us()]
        for charge in charges:
            args += self._args(charge.bucket, charge.cost, self._live_reserve if bulk else 0.0)
        answer = await self._run([*keys, *shared, *pauses, *(f"{key}:learned" for key in keys)], args)
        self._punctuality.answered(time.monotonic(), redis_us=answer[2] - answer[1])
        granted, delay_us, at_us, paused, epoch, number, *rest = answer
        held_by = number - 1 if number else None
        if head[0] == "reserve":
            found = epoch.decode()
            if self._known not in ("", found):
                self._lost = True  # It was emptied: what we know besides has to be told again.
            self._known = found
        if granted:
            margin_us, spare_us, *ranks = rest
            return Grant(
                delay_us,
                at_us,
                tuple(ranks),
                spare_us=spare_us or math.inf,
                margin_us=abs(margin_us) or math.inf,
                must_tell=margin_us < 0,
                held_by=held_by,
            )
        earliest_ms, wait_s = math.ceil(at_us / 1000), delay_us / 1e6
        return Refusal(earliest_ms, wait_s, "paused") if paused else Refusal(earliest_ms, wait_s, "budget", held_by)

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
        asked = time.monotonic()
        until = asked + max_wait_s
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
            due = self._punctuality.due(answer.at_us, not_before=asked + answer.delay_us / 1e6)
            if due - time.monotonic() > RECHECK_S:
                await _sleep_until(due - RECHECK_S)
                asked_again = time.monotonic()
                left_s = max(0.0, until - asked_again) + MOVED_S
                now = await self.again(charges, answer, max_wait_s=left_s, bulk=bulk)
                if now is not answer:
                    asked, answer = asked_again, now
                continue
            await _sleep_until(due)
            late_us = (time.monotonic() - due) * 1e6
            self._punctuality.woke(late_us)
            if late_us <= answer.spare_us:
                return replace(answer, due_s=due)
            tries += 1
            if tries == LATE_TRIES:
                await self.back(charges, answer)
                return Refusal(int((time.time() + LOST_WAIT_S) * 1000), LOST_WAIT_S, "budget")
            asked = time.monotonic()
            answer = await self._later(charges, answer, until, bulk=bulk)
        return answer

    async def _later(self, charges: Sequence[Charge], grant: Grant, until: float, *, bulk: bool) -> Grant | Refusal:
        left_s = max(0.0, until - time.monotonic())
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
        late_us = max(0.0, (left_s - grant.due_s) * 1e6)
        return self.spread.answered(answered_s, endpoint, answered_s - left_s, late_us)

    async def arrived(self, charges: Sequence[Charge], grant: Grant, late_us: float) -> None:
        """Tell those that come after a call that it has arrived, and how late, where that matters to them.

        It does where it was later than its margin allows for; and in short windows always: there nobody leaves for the
        room of a call that was not heard of.

        Args:
            charges: the call's.
            grant: the call's.
            late_us: how late it was (`answered`).
        """
        if (grant.must_tell or late_us > grant.margin_us) and not self._lost:
            arrived_us = grant.at_us + int(late_us)
            await self._amend(charges, ["late", grant.at_us, arrived_us, int(grant.margin_us)])

    def tell(self, charges: Sequence[Charge], grant: Grant, late_us: float) -> None:
        """As `arrived`, and waits for nothing."""
        if grant.must_tell or late_us > grant.margin_us:
            self._aside(self.arrived(charges, grant, late_us))

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

    async def _amend(self, charges: Sequence[Charge], args: list[str | int]) -> None:
        for charge in charges:
            args += self._args(charge.bucket, charge.cost, 0.0)
        try:
            await self._run([*(self._key(charge) for charge in charges), self._clock], args)
        except LOST:
            self._lost = True

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
            args: list[str | int] = ["pause", max(0, int(for_s * 1e6)), reason[:200], int(told), at_us]
            holds_s = float(await self._run(keys, args)) / 1e6
        except LOST:
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
        ours = self._paused_s(charges)
        try:
            return max(ours, float(await self._run(keys, ["paused"])) / 1e6)
        except LOST:
            self._lost = True
            return ours

    def _paused_s(self, charges: Sequence[Charge]) -> float:
        """How much longer those pauses hold that this process knows of."""
        now = time.monotonic()
        keys = (*self._pauses, *(f"{self._key(charge)}:pause" for charge in charges))
        return max(0.0, *(self._paused.get(key, now) - now for key in keys))

    async def observe(
        self, charge: Charge, rank: int, grant: Grant, used: float, *, late_us: float, span_s: float
    ) -> None:
        """Take over what the exchange says it has counted: what is not ours of it was spent by strangers.

        Which of our calls it had counted by then? Not those of ours that were still under way, and counting them as
        ours would hide strangers; but all those granted before this one, and, as this one took `late_us` longer than
        it could have, at most those granted until so much later. What remains is the strangers' at least, and comes on
        top of everything we grant, in flight or not. It is taken as the most seen in this window and never added up, so
        it can't drift. In a fixed window our count is the bucket's when this call was granted (`rank`), where calls
        that overtook it count as strangers', a few at most; what strangers have taken per time in it is left to them
        until its end.

        Args:
            charge: a charge to the bucket that the exchange reports on.
            rank: the grant's for this charge.
            grant: that of the call whose answer it is.
            used: the exchange's count, in its own units.
            late_us: how late that call was (`answered`).
            span_s: the time the count stands for, the bucket's window at most.
        """
        # Calls of ours that left before that time may have arrived in it: all that can have count as ours.
        span_us = int(span_s * 1e6) + max(int(charge.bucket.margin_ms * 1000), self.spread.worst_us())
        counted = math.ceil(used * _SCALE)
        key = self._key(charge)
        args = ["observe", counted, grant.at_us + int(late_us), rank, span_us, *self._args(charge.bucket, 0.0, 0.0)]
        try:
            await self._run([key, self._clock, f"{key}:learned"], args)
        except LOST:
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
        args: list[str | int] = ["limited", len(keys), grant.at_us]
        for charge in charges:
            args += self._args(charge.bucket, 0.0, 0.0)
        try:
            answer = await self._run([*keys, self._clock, *(f"{key}:learned" for key in keys)], args)
        except LOST:
            self._lost = True
            return None
        if not answer:
            return None
        number, thousandths = answer
        charge = charges[int(number) - 1]
        return Learned(charge.key, charge.bucket.amount, charge.bucket.amount * float(thousandths) / _SCALE)

    async def set_clock(self, ahead_s: float) -> None:
        """Tell all workers how far the exchange's clock is ahead of Redis's; its fixed windows follow it."""
        self._ahead_clock_us = int(ahead_s * 1e6)
        await self._run([self._clock], ["clock", self._ahead_clock_us, int(CLOCK_TTL_S * 1000)])

    async def usage(self) -> dict[str, Use]:
        """Return every bucket this process has charged; the fullest and smallest count of it where it has many."""
        seen = list(self._seen.items())
        args: list[str | int] = ["usage", len(seen), 0]
        for _, bucket in seen:
            args += self._args(bucket, 0.0, 0.0)
        keys = [key for key, _ in seen]
        known = [f"{key}:{what}" for what in ("learned", "pause") for key in keys]
        answer = await self._run([*keys, self._clock, *known], args)
        buckets: dict[str, Use] = {}
        for (_, bucket), used, effective, paused_us in zip(seen, answer[::3], answer[1::3], answer[2::3], strict=True):
            other = buckets.get(bucket.name, Use(0.0, 1.0))
            buckets[bucket.name] = Use(
                max(used / _SCALE, other.used),
                min(effective / _SCALE, other.effective),
                max(paused_us / 1e6, other.paused_s),
            )
        return buckets

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
                await self._run([key], ["pause", left_us, "told again", 1, 0])
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
        return await self._script.run(keys, args)


async def _sleep_until(instant: float) -> None:
    while (left := instant - time.monotonic()) > 0:  # uvloop's timers may fire a little early
        await asyncio.sleep(left)


def _key_part(name: str) -> str:
    """A proxy's URL may hold a password, and braces would move the hash slot: neither goes into a key."""
    return _hashed(name) if set(name) & set("@{}/") else name


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
