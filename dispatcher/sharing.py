"""One answer for all who ask the same: whether a request asks an exchange, or takes another request's answer.

::

                      ┌─ an answer that will do ──▶ Given
    find ──▶ flight ──┼─ nobody asks yet ─────────▶ Leads: it asks, for all others too
                      └─ another one asks ────────▶ it waits, until there is an answer (Given), or an error (Failed)

Requests that may take each other's answer share a *flight* in each dispatcher, and a lease in Redis among all
dispatchers (`schemas.runtime.answers`). While they wait they hold no slot. Their messages stay unsettled: what a
dispatcher that dies has taken comes again.

Whoever waits relies on nobody. A leader that fails for lack of time, a lease that lapses or is forgotten: then another
one of those that wait leads. One whose time is half over since the leader began takes the lease over, and leads by
itself. So does one whose own turn at a limit would come much sooner than that of the one that asks, as its caller asks
for less. Without Redis all go their own way. So do those for which there is no room here (`held.py`), unless Redis has
an answer for them at once. What has waited here for long waits in a delay queue, and asks again.
"""

import asyncio
import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import redis.asyncio

from schemas import sharing
from schemas.messages import Attempt, ErrorCode
from schemas.runtime import store
from schemas.runtime.answers import Answer, Answers, Seen, State, failing, insist, unpack
from schemas.runtime.clock import clock_s
from schemas.runtime.deliveries import Delivery
from schemas.runtime.results import now_ms
from schemas.runtime.tasks import end_tasks
from schemas.status import SharedAnswers

from . import metrics
from .flights import HELD_S, Flight, Waiter
from .held import Held
from .verdicts import LARGE_BYTES, Alone, Failed, Given, Later, Leads, Verdict

log = logging.getLogger(__name__)

# Fewer requests wait for others at once, with so many bytes of messages at most.
HELD: Final = 20_000
HELD_BYTES: Final = 32 * 2**20
# How often leases are looked at, many in one round trip. An answer is seen so much later at most.
LOOK_EVERY_S: Final = 0.02
LOOK_BATCH: Final = 500
# Redis may be away for so long before those that wait go their own way.
AWAY_S: Final = 1.0
# A lease lapses so long after its request's deadline, and after so long in any case.
LAPSES_AFTER_MS: Final = 2_000
LONGEST_MS: Final = 600_000
# A request with less time than this is not made to come again later: that may take some of this time, or all.
LATER_LEAST_MS: Final = 2_000


class Sharing:
    """The flights of one dispatcher.

    Args:
        client: Redis.
        turn_ms: when a request would have its turn at a limit if it asked now, Unix milliseconds.
        held: what waits here.
    """

    def __init__(
        self, client: redis.asyncio.Redis, turn_ms: Callable[[Attempt], float], held: Held | None = None
    ) -> None:
        self._answers = Answers(client)
        self._turn_ms = turn_ms
        self.held = held or Held(HELD, HELD_BYTES)
        self._flights: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._some = asyncio.Event()
        self._away_until_s = 0.0
        self._closed = False
        self._ends = Counter[str]()

    async def find(self, attempt: Attempt, delivery: Delivery, sources: Mapping[str, str]) -> Verdict:
        """Where a request gets its answer; it waits here as long as another one asks.

        Args:
            attempt: the request, which says how old an answer may be.
            delivery: its message.
            sources: what may answer it (`schemas.sharing.source`), by lane, the best first.
        """
        verdict = await self._find(attempt, delivery, sources)
        if isinstance(verdict, Later) and attempt.deadline_ms - now_ms() < LATER_LEAST_MS:
            verdict = Alone()
        return self._counted(verdict)

    async def _find(self, attempt: Attempt, delivery: Delivery, sources: Mapping[str, str]) -> Verdict:
        if self._closed:
            return Later()
        if clock_s() < self._away_until_s:
            return Alone()
        caller, size_bytes = attempt.reply_to, len(delivery.body)
        key, answers = _keys(attempt, list(dict.fromkeys(sources.values())))
        waiter = Waiter(attempt, delivery, sources)
        if not self.held.has_room(caller, size_bytes):
            return await self._look_once(Flight(key, answers), waiter)
        flight = self._flight(key, answers)
        if flight.lease_now is not None:
            if attempt.copy and flight.lease_now.owner == waiter.owner:
                return Leads(_share(flight, flight.lease_now.id))
            delivery.release()
        flight.waiters[waiter] = None
        if flight.lease_now is not None and (flight.due(waiter) < flight.due_s or flight.may_be_there(waiter)):
            flight.news.set()
        self._compare(flight, [waiter])
        self.held.take(caller, size_bytes)
        try:
            return await waiter.verdict
        finally:
            flight.waiters.pop(waiter, None)
            self.held.give(caller, size_bytes)

    async def _look_once(self, flight: Flight, waiter: Waiter) -> Verdict:
        """Whether there is an answer at once, or nobody asks. It waits for nobody."""
        flight.waiters[waiter] = None
        try:
            await self._ask(flight, waiter, "")
        except store.AWAY as error:
            self._lost(error)
        waiter.tell(Alone())
        return await waiter.verdict

    async def run(self) -> None:
        """Looks at the leases that requests wait for, until cancelled."""
        lost_s: float | None = None
        while True:
            await self._some.wait()
            waiting = [flight for flight in self._flights.values() if flight.lease_now is not None]
            if not waiting:
                self._some.clear()
                continue
            try:
                for first in range(0, len(waiting), LOOK_BATCH):
                    await self._look(waiting[first : first + LOOK_BATCH])
            except store.AWAY as error:
                store.count_loss(error, "lease")
                now_s = clock_s()
                lost_s = lost_s or now_s
                if now_s - lost_s >= AWAY_S:
                    self._away_until_s = now_s + AWAY_S
                    for flight in waiting:
                        flight.away = True
                        flight.news.set()
            else:
                lost_s = None
            await asyncio.sleep(LOOK_EVERY_S)

    @property
    def ends(self) -> SharedAnswers:
        """Where requests got their answers until now."""
        return SharedAnswers(**self._ends)

    def _counted(self, verdict: Verdict) -> Verdict:
        """Counts where a request gets its answer."""
        if source := _source_of(verdict):
            metrics.SHARED.labels(source).inc()
            self._ends[source] += 1
        return verdict

    def failed(self, attempt: Attempt, code: ErrorCode, why: str) -> None:
        """A request that asked for others, too, ends with an error."""
        if attempt.share:
            self._start(self._end(attempt, code, why))

    def waits(self, attempt: Attempt, turn_ms: int) -> None:
        """A request waits for its turn at a limit; if it asks for others, too, one of them may have a sooner one."""
        if attempt.share:
            self._start(self._note(attempt, turn_ms))

    def dropped(self, attempt: Attempt) -> None:
        """An attempt that asked for others, too, goes no further, as its request was answered."""
        if attempt.share:
            self._start(self._end(attempt))

    def close(self) -> None:
        """Lets none wait here any more: another dispatcher takes them."""
        self._closed = True
        for flight in self._flights.values():
            for waiter in flight.waiters:
                waiter.tell(Later())

    async def end(self) -> None:
        """Ends what runs here."""
        await end_tasks(self._tasks)

    def _flight(self, key: str, answers: Sequence[str]) -> Flight:
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(key, answers)
            self._start(self._fly(flight))
        return flight

    def _lost(self, error: Exception) -> None:
        """Redis is away: for a moment nobody asks it."""
        store.count_loss(error, "lease")
        self._away_until_s = clock_s() + AWAY_S

    def _start(self, job: Any) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fly(self, flight: Flight) -> None:
        """Sees to a flight until nobody waits in it."""
        try:
            leader: Waiter | None = None
            takes_over = ""
            while flight.waiters and not flight.away:
                who = leader if leader in flight.waiters else None
                await self._ask(flight, who or _latest(flight), takes_over)
                leader, takes_over = await self._wait(flight), ""
                if leader is not None and flight.lease_now is not None:
                    takes_over = flight.lease_now.id
        except store.AWAY as error:
            self._lost(error)
        finally:
            del self._flights[flight.lease]
            for waiter in list(flight.waiters):
                waiter.tell(Alone())

    async def _ask(self, flight: Flight, leader: Waiter, takes_over: str) -> None:
        """Finds an answer, or whom to wait for, or has this one lead."""
        asked_s, new_id = clock_s(), os.urandom(8).hex()
        left_ms = leader.attempt.deadline_ms - now_ms()
        age_us = max(waiter.age_us for waiter in flight.waiters)
        bar = any(waiter.bar for waiter in flight.waiters)
        try:
            asked = await self._answers.ask(
                flight.lease,
                flight.answers,
                owner=leader.owner,
                lanes=leader.lanes,
                new_id=new_id,
                lasts_ms=min(left_ms + LAPSES_AFTER_MS, LONGEST_MS),
                age_us=age_us,
                bar=bar,
                takes_over=takes_over,
            )
        except store.AWAY:
            # Redis may have given the lease all the same. Then whoever has it has to end it.
            self._tell(flight, leader, Leads(_share(flight, new_id)))
            raise
        flight.set_clock(asked.now_us, asked_s)
        flight.was_asked(age_us, asked.now_us, asked.answer, bar=bar)
        if asked.answer is not None:
            await self._give(flight, asked.answer, asked.now_us, asked_s, waited=False)
        if asked.lease is not None:
            flight.led(asked.lease)
            if asked.leads:
                self._lead(flight, leader)
            else:
                self._lead_again(flight)
            self._some.set()

    async def _wait(self, flight: Flight) -> Waiter | None:
        """Returns when it has to be asked again; with the request that takes the lease over, if its patience ended."""
        for waiter in flight.waiters:
            waiter.delivery.release()
        if any(map(flight.may_be_there, flight.waiters)):  # one that came meanwhile
            flight.news.set()
        self._compare(flight, flight.waiters)
        while flight.waiters and flight.lease_now is not None and not flight.away:
            flight.due_s = min(map(flight.due, flight.waiters))
            try:
                async with asyncio.timeout(max(flight.due_s - clock_s(), 0.0)):
                    await flight.news.wait()
            except TimeoutError:
                now_s = clock_s()
                for waiter in list(flight.waiters):
                    if waiter.joined_s + HELD_S <= now_s:
                        self._tell(flight, waiter, Later())
                    elif flight.patient_until_s(waiter) <= now_s:
                        return waiter
                continue
            flight.news.clear()
            if not flight.away and await self._heed(flight):
                flight.lease_now = None
            elif any(map(flight.may_be_there, flight.waiters)):
                break
            elif flight.overtaker in flight.waiters:
                return flight.overtaker
        return None

    async def _heed(self, flight: Flight) -> bool:
        """Takes in how the lease stands now; whether it has to be asked again."""
        asked_s = clock_s()
        try:
            seen = await self._answers.see(flight.lease)
        except store.AWAY as error:
            store.count_loss(error, "lease")  # `run` says when it has been away for long
            return False
        flight.set_clock(seen.now_us, asked_s)  # anew each time: Redis's clock may have been set since it was asked
        before, flight.looked = flight.looked, seen.look
        if seen.answer is not None and seen.look.done_us != before.done_us:
            await self._give(flight, seen.answer, seen.now_us, asked_s, waited=True)
        if seen.look.state is State.ASKS:
            flight.led(seen.lease)
            self._lead_again(flight)
            if (before.id, before.turn_ms) != (seen.look.id, seen.look.turn_ms):
                self._compare(flight, flight.waiters)
            return False
        if flight.lease_now is not None and seen.look.id == flight.lease_now.id:
            self._spread(flight, seen)
        return True

    def _compare(self, flight: Flight, waiters: Iterable[Waiter]) -> None:
        """Looks whether one of these would be asked for much sooner if it asked by itself: one of each caller."""
        at_ms = now_ms()
        if flight.turn_ms <= at_ms:
            return
        callers = {waiter.attempt.reply_to: waiter for waiter in waiters}
        turns_ms = {waiter: self._turn_ms(waiter.attempt) for waiter in callers.values()}
        first = min(turns_ms, key=turns_ms.__getitem__, default=None)
        if first is not None and flight.overtakes(turns_ms[first], at_ms):
            flight.overtaker = first
            flight.news.set()

    def _spread(self, flight: Flight, seen: Seen) -> None:
        """The lease has ended without an answer: those to whom that says something are told."""
        for waiter in list(flight.waiters):
            if seen.look.state is State.ALONE:
                self._tell(flight, waiter, Alone())
            elif seen.look.state is State.FAILED and seen.code is not None and flight.fails(waiter, seen):
                self._tell(flight, waiter, Failed(seen.code, seen.why))

    async def _give(self, flight: Flight, answer: Answer, now_us: int, asked_s: float, *, waited: bool) -> None:
        takers = [waiter for waiter in flight.waiters if flight.takes(waiter, answer, now_us)]
        if not takers:
            return
        kept = await asyncio.to_thread(unpack, answer.body) if len(answer.body) >= LARGE_BYTES else unpack(answer.body)
        given = Given(kept, answer.at_us, now_us, asked_s, waited=waited)
        for waiter in takers:
            self._tell(flight, waiter, given)

    def _lead(self, flight: Flight, leader: Waiter) -> None:
        assert flight.lease_now is not None
        self._tell(flight, leader, Leads(_share(flight, flight.lease_now.id)))

    def _lead_again(self, flight: Flight) -> None:
        """The one that leads may be among those that wait: its dispatcher died before it was sent."""
        lease = flight.lease_now
        for waiter in list(flight.waiters):
            if lease is not None and waiter.attempt.copy and waiter.owner == lease.owner:
                return self._lead(flight, waiter)
        return None

    @staticmethod
    def _tell(flight: Flight, waiter: Waiter, verdict: Verdict) -> None:
        flight.waiters.pop(waiter, None)
        waiter.tell(verdict)

    async def _look(self, flights: Sequence[Flight]) -> None:
        _, looks = await self._answers.look([flight.lease for flight in flights])
        for flight, look in zip(flights, looks, strict=True):
            lease = flight.lease_now
            changed = look.done_us != flight.looked.done_us or look.state is not State.ASKS
            changed = changed or look.turn_ms != flight.looked.turn_ms
            if changed or (lease is not None and look.id != lease.id):
                flight.news.set()

    async def _note(self, attempt: Attempt, turn_ms: int) -> None:
        lease, _, id_ = attempt.share.rpartition(" ")
        try:
            await self._answers.waits(lease, id_, turn_ms)
        except store.AWAY as error:
            store.count_loss(error, "lease")  # those that wait lose patience later

    async def _end(self, attempt: Attempt, code: ErrorCode | None = None, why: str = "") -> None:
        lease, _, id_ = attempt.share.rpartition(" ")
        if code is None:
            end = functools.partial(self._answers.end, lease, id_, State.NONE)
        else:
            words = failing(attempt, code, why)
            end = functools.partial(self._answers.fail, lease, id_, clock_s(), **words)
        await insist(end, "lease")  # where it can't be ended those that wait lose patience


def _keys(attempt: Attempt, sources: Sequence[str]) -> tuple[str, list[str]]:
    """The keys of a request's lease, and of the answers that would do."""
    asked = sharing.question(attempt.request)
    key = sharing.lease_key(asked, sources, bulk=attempt.request.bulk)
    return key, [sharing.answer_key(asked, of) for of in sources]


def _share(flight: Flight, id_: str) -> str:
    return f"{flight.lease} {id_}"


def _latest(flight: Flight) -> Waiter:
    return max(flight.waiters, key=lambda waiter: waiter.deadline_s)


def _source_of(verdict: Verdict) -> str:
    """Where a request gets its answer, as it is counted; empty where that is not known yet."""
    match verdict:
        case Leads():
            return "asked"
        case Alone():
            return "alone"
        case Failed():
            return "waited"
        case Given():
            return "waited" if verdict.waited else "cached"
        case Later():
            return ""
