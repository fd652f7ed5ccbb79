"""One exchange as seen from one address, for all purses of an event loop: one of those that share its limits.

Each worker has a part of every limit while Redis is away. A program with ten accounts at an address, or a gateway with
sixty, is one worker there, and not as many as it has accounts: the fleet's own parts stay what they are.
"""

import asyncio
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from schemas.runtime import store
from schemas.runtime.standstill import Standstills
from schemas.runtime.tasks import end_tasks

from ..budget.budget import Budget
from ..budget.ledger import Ledger
from ..budget.membership import BEAT_EVERY_S, Membership

REDIS_TIMEOUT_S: Final = 0.5


class Place(NamedTuple):
    """What purses have in common that are one there.

    Args:
        url: Redis.
        scope: `<exchange>:<egress>`.
        limits: what holds there, in words: who goes by other limits is another one.
    """

    url: str
    scope: str
    limits: str


class Address:
    """One address; made by `take`.

    Attributes:
        client: Redis.
        budget: of calls without an account.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.client = store.connect(place.url, timeout_s=REDIS_TIMEOUT_S)
        self._standstills = Standstills()
        self.budget = Budget(Ledger(self.client, place.scope, member=Membership(), still_s=self._standstills.still_s))
        self._opening = asyncio.Lock()
        self._follower: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._purses = 0

    async def open(self) -> None:
        """Makes the first beat, and has others follow; does nothing where that is done."""
        async with self._opening:
            if self._follower is None:
                await self.budget.beat()
                self._follower = asyncio.create_task(self._follow())
                self._ticking = asyncio.create_task(self._standstills.run())

    async def _follow(self) -> None:
        try:
            await self.budget.follow(BEAT_EVERY_S)
        finally:  # also where the event loop ends and nobody has left: the next one here tells Redis then
            self.end()

    def end(self) -> None:
        """It is one of those that share the limits no longer, whether Redis was told or not."""
        self.budget.course.member.end()

    def budget_of(self, account: str) -> Budget:
        """The budget of calls with an account, or without one: empty."""
        return self.budget.of(account) if account else self.budget

    def taken(self) -> "Address":
        """It has one purse more."""
        self._purses += 1
        return self

    async def leave(self) -> None:
        """It has one purse less. The last one gives up its part of the limits, and the connection."""
        self._purses -= 1
        if self._purses:
            return
        here = _here()
        if here.get(self._place) is self:
            del here[self._place]
        await end_tasks(task for task in (self._follower, self._ticking) if task is not None)
        await self.budget.leave()
        await end_tasks(self.budget.telling.running)
        await self.client.aclose()


# By event loop: connections can't be used in another.
_all: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Place, Address]]()


def take(place: Place) -> Address:
    """The address of all purses of this event loop there, which has one more now; each has to `leave` it."""
    for each in _all.keyrefs():  # tasks of a loop that was closed with them never end
        if (loop := each()) is not None and loop.is_closed():
            for left in _all.pop(loop, {}).values():
                left.end()
    here = _here()
    if place not in here:
        here[place] = Address(place)
    return here[place].taken()


def _here() -> dict[Place, Address]:
    return _all.setdefault(asyncio.get_running_loop(), {})
