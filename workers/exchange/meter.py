"""A lane's meter: every HTTP call waits here for its budget, and the budget learns what its answer says of limits."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final
from weakref import WeakValueDictionary

from msgspec.structs import replace

from schemas.runtime.clock import clock_s

from ..budget.budget import Budget
from ..budget.grants import LOST_WAIT_S, Grant, Refusal, refused
from ..budget.keys import Whose
from ..budget.tally import Tallies
from ..limits.answers import Answers
from ..limits.costs import Charge, Costs
from ..limits.names import NO_NAMES, Names
from .bounds import Crowded
from .call import Call
from .counts import Count
from .errors import NoBudget
from .latency import Answering
from .redaction import Redactor
from .signals import Pause

log = logging.getLogger(__name__)

# The least time between two of an exchange's counts that are reported to Redis; for fixed windows every one is.
OBSERVE_EVERY_S: Final = 0.25
# A pause that became longer by less than this is not logged again.
SAID_AGAIN_S: Final = 1.0


class Meter:
    """What the calls of one lane are charged to, whichever ccxt instance sends them.

    Args:
        lane: the lane's name.
        budget: what it may send.
        costs: what calls cost.
        answers: what the exchange's answers mean.
        redactor: takes the lane's secrets out of texts.

    Attributes:
        names: what the exchange lists; empty until its markets are loaded.
        still_s: for how long this process stood still.
        answering: how the exchange answers.
        tallies: what the budget granted and refused.
    """

    def __init__(self, lane: str, budget: Budget, costs: Costs, answers: Answers, redactor: Redactor) -> None:
        self.lane = lane
        self.budget = budget
        self.costs = costs
        self.answers = answers
        self.redactor = redactor
        self.names: Names = NO_NAMES
        self.still_s = budget.ledger.still_s
        self.answering = Answering(self.still_s)
        self.tallies = Tallies(lane)
        self._bulk_turns = WeakValueDictionary[tuple[str, ...], asyncio.Lock]()
        self._bulk_waits = set[asyncio.Timeout]()
        self._hurries = False
        self._observed_s = 0.0

    def hurry(self) -> None:
        """Bulk calls wait no longer, now and from now on: they are handed back."""
        self._hurries = True
        now_s = asyncio.get_running_loop().time()
        for limit in self._bulk_waits:
            if not limit.expired():
                limit.reschedule(now_s)

    async def book(self, call: Call) -> None:
        """Waits for room for an HTTP call's answer, before the call is charged.

        Args:
            call: the attempt's.

        Raises:
            Crowded: there is no room in time.
        """
        limit = asyncio.timeout(0.0 if self._hurries and call.bulk else call.room_s)
        begun_s = clock_s()
        if call.bulk:
            self._bulk_waits.add(limit)
        try:
            async with limit:
                await call.holding.book()
        except TimeoutError:
            raise Crowded from None
        finally:
            self._bulk_waits.discard(limit)
            call.waited_s += clock_s() - begun_s

    async def pay(self, call: Call, charges: Sequence[Charge], late: list[Grant]) -> Grant:
        """Waits until an HTTP call may be sent.

        Args:
            call: the attempt's.
            charges: what the HTTP call costs.
            late: perhaps the reservation of a call that was too late to be sent. It is taken from the list and moved.

        Raises:
            NoBudget: there is no room in time.
            TimeoutError: the attempt's time ended.
        """
        if not call.bulk:
            return await self._granted(call, charges, late)
        if self._hurries:
            raise NoBudget("budget", LOST_WAIT_S)
        # Bulk calls can't reserve. Of many that wait for the same buckets one asks, as all would get the same answer.
        turn = self._bulk_turns.setdefault(tuple(charge.key for charge in charges), asyncio.Lock())
        limit = asyncio.timeout(call.room_s)
        begun_s = clock_s()
        self._bulk_waits.add(limit)
        try:
            async with limit, turn:
                limit.reschedule(None)  # from here on the time left is checked before each wait
                call.waited_s += clock_s() - begun_s
                return await self._granted(call, charges, late)
        except TimeoutError:
            if not limit.expired():
                raise
            raise NoBudget("budget", LOST_WAIT_S) from None
        finally:
            self._bulk_waits.discard(limit)

    async def _granted(self, call: Call, charges: Sequence[Charge], late: list[Grant]) -> Grant:
        while True:
            asked_s = clock_s()
            if call.left_s <= 0:
                raise TimeoutError("the attempt's time ended before the call was sent")
            max_wait_s = call.room_s
            # A bulk call takes only room that is free now, and asks again when there may be some.
            reserve_s = 0.0 if call.bulk else min(max_wait_s, call.reserve_s)
            grant = late.pop() if late else None
            answer = await self.budget.acquire(charges, max_wait_s=reserve_s, bulk=call.bulk, grant=grant)
            comes = isinstance(answer, Refusal) and reserve_s < answer.wait_s <= max_wait_s
            if isinstance(answer, Refusal) and comes and (answer.reason in ("budget", "busy") or not call.bulk):
                await asyncio.sleep(answer.wait_s - reserve_s)
                call.waited_s += clock_s() - asked_s
                continue
            waited_s = clock_s() - asked_s
            call.waited_s += waited_s
            if isinstance(answer, Refusal):
                self.tallies.refused(charges, answer)
                if answer.reason == "budget" and answer.held_by is not None and not call.bulk:
                    raise NoBudget(answer.reason, answer.wait_s, charges[answer.held_by], answer.rooms)
                raise NoBudget(answer.reason, answer.wait_s)
            self.tallies.granted(charges, answer, waited_s)
            call.windowed = any(charge.bucket.kind == "fixed" for charge in charges)
            call.budget_s += max(charge.cost / charge.bucket.amount * charge.bucket.window_s for charge in charges)
            return answer

    def too_busy(self, charges: Sequence[Charge]) -> NoBudget:
        """The error of a call that was too late to be sent as often as it may be; counts it."""
        busy = refused("busy")
        self.tallies.refused(charges, busy)
        return NoBudget(busy.reason, busy.wait_s)

    def wants_count(self, charges: Sequence[Charge]) -> bool:
        """Whether the exchange's count should be read from an answer: always for fixed windows, else now and then."""
        due = clock_s() - self._observed_s > OBSERVE_EVERY_S
        return due or any(charge.bucket.kind == "fixed" for charge in charges)

    async def heed(
        self, charges: Sequence[Charge], grant: Grant, late_us: float, pause: Pause | None, count: Count | None
    ) -> Pause | None:
        """Reports to all workers what an answer said of limits.

        Args:
            charges: what its call cost.
            grant: the call's.
            late_us: how much later than granted the call may have arrived, microseconds.
            pause: the pause that it asks for, if any.
            count: what the exchange says it has counted, if anything.

        Returns:
            The pause as it holds now, which may have become longer than asked for.
        """
        full, held = charges, None
        if pause is not None:
            full, whose = self._meant(pause, charges)
            held = await self._pause(pause, full, whose, grant)
        if count is not None and grant.ranks:
            self._observed_s = clock_s()
            number = count.speaks_of([charge.bucket for charge in charges])
            if number is not None:
                charge, rank = charges[number], grant.ranks[number]
                used, span_s = count.used(charge.bucket), count.span_s(charge.bucket)
                await self.budget.observe(charge, rank, grant, used, late_us=late_us, span_s=span_s)
        if pause is not None and full and (learned := await self.budget.limited(full, grant)) is not None:
            log.warning(
                "limit_learned",
                extra={
                    "lane": self.lane,
                    "bucket": learned.bucket,
                    "amount": learned.amount,
                    "effective": round(learned.effective, 3),
                    "why": pause.reason,
                },
            )
        return held

    async def _pause(self, pause: Pause, charges: Sequence[Charge], whose: Whose, grant: Grant) -> Pause:
        paused = charges if whose == "account" or pause.of == "buckets" else ()
        known_s = self.budget.known_pause_s(paused, whose)
        seconds = await self.budget.pause(
            pause.seconds,
            pause.reason,
            paused,
            told=pause.told,
            source=pause.source,
            most_s=pause.most_s,
            whose=whose,
            grant=grant,
        )
        if seconds > known_s + SAID_AGAIN_S:  # once for all calls that were in flight
            self._say(pause, seconds, paused, whose)
        return replace(pause, seconds=seconds)

    def _meant(self, pause: Pause, charges: Sequence[Charge]) -> tuple[Sequence[Charge], Whose]:
        """What of a call's charges a refusal speaks of, and whose limit it was."""
        if not self.budget.ledger.keys.has_account:
            return charges, "address"
        own = [charge for charge in charges if charge.bucket.scope == "account"]
        if pause.of == "account" or (pause.of == "unsaid" and own and len(own) == len(charges)):
            return own, "account"
        return charges, "both" if own else "address"

    def _say(self, pause: Pause, seconds: float, paused: Sequence[Charge], whose: Whose) -> None:
        self.tallies.paused(pause.kind_of_source)
        log.warning(
            "exchange_paused",
            extra={
                "lane": self.lane,
                "what": ", ".join(charge.key for charge in paused)
                or ("account" if whose == "account" else "everything"),
                "for_s": round(seconds, 1),
                "source": pause.source,
                "why": pause.reason,
            },
        )
