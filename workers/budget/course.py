"""Where a budget grants from, Redis or this worker's own share, and when that changes.

The states and their moves are the diagram on the budgets' page of the docs. A worker begins with Redis. Where that does
not answer the worker is on its own: closed until its part is free to use, and open from then on until its lease is
over. When Redis is back it adds what the worker granted itself, and nothing is granted meanwhile.
"""

import asyncio
import contextlib
import enum
import logging
import random
from types import TracebackType
from typing import Final, Protocol

from schemas.runtime.clock import clock_s
from schemas.runtime.store import AWAY

from .flapping import Flapping
from .ledger import Ledger
from .membership import Membership
from .own_share import OwnShare

log = logging.getLogger(__name__)

TRIPS_EVERY_S: Final = 2.0
# A budget at rest beats by itself after so long, more or less, so that those of many lanes do not beat together.
REST_S: Final = 20.0


class Mode(enum.Enum):
    """The states, by their names in the diagram."""

    SHARED = "shared"
    CLOSED = "closed"
    OPEN = "open"
    RETURNING = "returning"


MOVES: Final = {
    Mode.SHARED: {Mode.CLOSED},  # Redis does not answer
    Mode.CLOSED: {
        Mode.OPEN,  # Redis counts the worker as away, and leaves its part alone
        Mode.RETURNING,  # Redis answers, and has for a while
    },
    Mode.OPEN: {
        Mode.CLOSED,  # the lease is over
        Mode.RETURNING,  # Redis answers, and has for a while
    },
    Mode.RETURNING: {
        Mode.SHARED,  # Redis has added what the worker granted itself
        Mode.CLOSED,  # Redis does not answer again
    },
}


class WrongMove(Exception):
    """The diagram has no such move."""


class Company(Protocol):
    """The budgets of one process, which beat together."""

    async def beat(self, course: "Course") -> None:
        """Has a budget beat when it is its turn."""

    async def rest(self, course: "Course") -> None:
        """Has the lease of a budget renewed that `may_rest`; returns when it may no more."""


class Course:
    """From which of the two one budget grants.

    Args:
        ledger: the buckets in Redis.
        own: this worker's share. Without one the budget grants from Redis alone, and refuses what that does not answer.
    """

    def __init__(self, ledger: Ledger, own: OwnShare | None) -> None:
        self.mode = Mode.SHARED
        self.ledger = ledger
        self._own = own
        self._woken = asyncio.Event()
        self._used = False  # since the last beat
        self._rests_until_s = 0.0
        self._flapping = Flapping()
        self._trips_at_s = 0.0

    @property
    def is_shared(self) -> bool:
        """Whether Redis is asked."""
        return self.mode is Mode.SHARED

    def _become(self, own: OwnShare, mode: Mode) -> None:
        """The one place where the mode changes."""
        old = self.mode
        if mode is old:
            return
        if mode not in MOVES[old]:
            raise WrongMove(f"from {old.value} to {mode.value}")
        self.mode, own.member.share_is_open = mode, mode is Mode.OPEN
        about = {"scope": self.ledger.keys.egress, "workers": own.member.count}
        if old is Mode.SHARED:
            self.wake()
            log.warning("budget_on_its_own", extra={**about, "share": round(own.part, 4)})
        if mode is Mode.SHARED:
            log.info("budget_shared_again", extra=about)

    def asking(self) -> "Asking":
        """What Redis does not answer in here raises nothing: it counts as a loss."""
        return Asking(self)

    def lose(self) -> None:
        """Redis did not answer."""
        self.ledger.lost()
        if self._own is None:
            return
        self._flapping.lost(self._own.member.clock())
        self._own.lost(self.ledger.spread.worst_us())
        if self.mode in (Mode.SHARED, Mode.RETURNING):
            self._become(self._own, Mode.CLOSED)

    def look(self) -> None:
        """While the worker is on its own: opens its share when it may be used, and closes it when it may no more."""
        if self._own and self.mode in (Mode.CLOSED, Mode.OPEN):
            self._become(self._own, Mode.OPEN if self._own.member.is_counted_away else Mode.CLOSED)

    def used(self) -> None:
        """The budget was asked for something."""
        self._used = True

    def wake(self) -> None:
        """The next beat is due now."""
        self._woken.set()

    async def woken(self) -> None:
        """Returns when a beat is due that was not before."""
        await self._woken.wait()

    @property
    def exchange(self) -> str:
        """Names what can be asked of Redis together."""
        return self.ledger.keys.correction

    @property
    def member(self) -> Membership:
        """This worker among those that share the scope."""
        if self._own is None:
            raise ValueError("a budget without a member does not share its scope")
        return self._own.member

    @property
    def may_rest(self) -> bool:
        """Whether nobody has asked it anything since its last beat, and the next ones would say nothing new."""
        quiet = self.is_shared and not self._used and clock_s() < self._rests_until_s
        return quiet and self.member.may_renew

    async def follow(self, every_s: float, company: Company | None = None) -> None:
        """Beats every `every_s`, until cancelled, and at once after a loss.

        Args:
            every_s: the time between two beats.
            company: the other budgets of the process.
        """
        while True:
            await (company.beat(self) if company else self.beat())
            if not self.is_shared:
                await asyncio.sleep(every_s)
                continue
            self._woken.clear()
            if company and self.may_rest:
                await company.rest(self)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self.woken()

    async def beat(self) -> None:
        """One beat; finds out that Redis is away, or back."""
        member, self._used = self.member, False
        with self.asking():
            if not self.is_shared:
                self.ledger.lost()  # Since the last beat there may be new pauses to send.
            await self.ledger.meet()
            await self.ledger.beat(member)
            self._rests_until_s = clock_s() + REST_S * random.uniform(0.75, 1.25)
            if clock_s() >= self._trips_at_s:
                await self.ledger.share_trips()
                self._trips_at_s = clock_s() + TRIPS_EVERY_S
            if self._own and not self.is_shared:
                await self._return(self._own)

    async def _return(self, own: OwnShare) -> None:
        """Grants from Redis again, if it has answered for long enough and has more to give than the share."""
        member = own.member
        if not (member.may_return() and self._flapping.may_return(member.clock())):
            return
        self._become(own, Mode.RETURNING)
        for addition in member.settle():
            await self.ledger.give(member, addition)
        if self.mode is not Mode.RETURNING:  # An older question has failed meanwhile: Redis is lost again.
            return
        member.settled()
        await self.ledger.beat(member)  # Renews the lease,
        await self.ledger.beat(member)  # and shows it: our part is no longer set aside.
        if self.mode is Mode.RETURNING:
            self._become(own, Mode.SHARED)
            self._flapping.back(member.clock())

    async def leave(self) -> None:
        """Gives up this worker's part; nothing may be asked of it any more."""
        if (own := self._own) is None:
            return
        try:
            if self.is_shared:
                with self.asking():
                    await self.ledger.leave(own.member)
        finally:
            own.member.end()


class Asking:
    """`Course.asking`: a class, as type checkers then know that what comes after it may have to answer."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, AWAY):
            return False
        self._course.lose()
        return True
