"""The beats of budgets at rest: one question to Redis for all of an exchange, in place of one for each.

A worker may have hundreds of lanes, of which most are asked nothing. Each is a scope of its own, and the worker has to
be there all the time: the part of one that is silent is left alone, and those that share the scope have less
(membership.py). But where nothing changes a beat renews a lease and no more, and that of a hundred scopes costs little
more than that of one. A budget that was used since its last beat has the next one by itself, and so has every budget
now and then.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from schemas.runtime import store
from schemas.runtime.tasks import end_tasks

from . import protocol
from .course import Course
from .ledger import ClockSet
from .protocol import Expected

# So many scopes are renewed by one question: Redis answers others in between.
BATCH: Final = 100
# So many budgets beat by themselves at a time. When Redis comes back all want to, and a thousand would get no answer in
# time, again and again.
AT_ONCE: Final = 16


class Rounds:
    """The budgets at rest of one process."""

    def __init__(self) -> None:
        self._resting: dict[str, set[Course]] = {}  # by exchange: one hash slot each
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def beat(self, course: Course) -> None:
        """Has a budget beat when it is its turn."""
        async with self._turns:
            await course.beat()

    async def rest(self, course: Course) -> None:
        """Has a budget's lease renewed; returns when it has to beat by itself."""
        resting = self._resting.setdefault(course.exchange, set())
        resting.add(course)
        try:
            await course.woken()
        finally:
            resting.discard(course)

    async def run(self, every_s: float) -> None:
        """Makes a round every `every_s`, for each exchange by itself; never returns."""
        try:
            while True:
                for exchange, resting in self._resting.items():
                    before = self._under_way.get(exchange)
                    if before is not None and not before.done():
                        continue  # another exchange's need not wait for that: it may be on another machine
                    if before is not None:
                        before.result()
                    self._under_way[exchange] = asyncio.create_task(renew(list(resting)), name=f"round {exchange}")
                await asyncio.sleep(every_s)
        finally:
            await end_tasks(self._under_way.values())


async def renew(courses: Sequence[Course]) -> None:
    """Renews the leases of budgets of one exchange; those that have to beat by themselves are woken."""
    resting = [course for course in courses if course.may_rest]
    known = resting[0].member.frame.id if resting else ""
    together = [course for course in resting if course.member.frame.id == known]
    for course in set(courses) - set(together):
        course.wake()
    for first in range(0, len(together), BATCH):
        batch = together[first : first + BATCH]
        try:
            await _renew(batch)
        except store.AWAY as error:
            store.count_loss(error, "renew")
            for course in batch:
                course.lose()


async def _renew(courses: Sequence[Course]) -> None:
    ledger = courses[0].ledger
    renewals = [course.member.renewal() for course in courses]
    question = protocol.renew([(one.ledger.keys, its) for one, its in zip(courses, renewals, strict=True)])
    asked_s = ledger.now_s()

    def expected() -> Expected:
        nonlocal asked_s
        asked_s = ledger.now_s()
        ids, earliest, latest = zip(*(course.member.expected() for course in courses), strict=True)
        return ids[0], max(earliest), min(latest)

    said = await ledger.run(question, expected)
    answered_s = ledger.now_s()
    if not said.was_run:
        for course in courses:
            course.wake()
        return
    answer = store.shaped(said.answer, question.read)
    for number, (course, renewal) in enumerate(zip(courses, renewals, strict=True)):
        if not course.is_shared:  # it has lost Redis meanwhile
            continue
        if not await course.ledger.is_possible(said, asked_s):
            store.count_loss(ClockSet("Redis's clock was set"), "renew")
            course.lose()
            continue
        course.ledger.read_clock(answered_s, said.now_us, asked_s)
        if number in answer.named:
            course.wake()
        else:
            course.member.renewed(renewal, said.now_us, answer.offset_us)
        if till_us := answer.paused_till_us.get(number):
            course.ledger.pauses.keep(course.ledger.keys.pauses[:1], (till_us - said.now_us) / 1e6)
