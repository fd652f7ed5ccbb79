"""The requests that wait for room in one bucket: when each has its turn, and which of them yield theirs. Pure.

Turns are as far apart as the bucket allows calls, so that calls leave evenly. A caller alone has one turn after the
other. Several callers have theirs in rounds, one of each. So a request of a caller that asks for little gets a turn
before many of a caller that asks for much (`Callers.overtakes_ms`). That turn has been given away already, and one
request has to yield. The line counts the turns that it owes in this way (`_owed`), and keeps as much room at its end
for the requests that yield (`_kept`). A request that comes for its turn yields if a turn is owed and its caller has had
his share: it takes some of the room that was kept.

So there are never more turns than the bucket has calls, and each overtaking costs one request one more wait.
Dispatchers tell each other what they do to a line (`told.py`); what one of them owes is paid by whatever requests pass.
"""

import heapq
import math
from collections import deque
from typing import Final

from .callers import Callers
from .pace import Pace

# So many turns must be owed before a caller yields whose own next one is overdue by a round.
OWED_TO_OVERDUE: Final = 3


class Line:
    """One line. All times are Unix milliseconds; a gap is how much of the limit's time one turn takes (`Pace`).

    Attributes:
        next_ms: where it ends. A caller who has the most turns in it gets this one next.
        room_ms: when the bucket has room again, as a worker last said.
        callers: those who have turns in it.
        others_ms: the gaps of places that other dispatchers may have given, and not told yet.
    """

    def __init__(self) -> None:
        self.next_ms = 0.0
        self.room_ms = 0.0
        self.callers = Callers()
        self._pace = Pace()
        self._first_ms = 0.0  # the last turn that was given at the line's beginning
        self._owed: list[tuple[float, float]] = []  # a heap of turns given twice: when each is, and its gap
        self._owed_ms = 0.0  # the gaps in the heap
        self._due_ms = 0.0  # gaps of turns that have left the heap and are to be yielded; below 0 where more were
        self._kept: deque[tuple[float, float]] = deque()  # free stretches at the end: from when to when
        self._kept_ms = 0.0
        # Places that others may have given: until when that is unknown, and their gaps.
        self._others: deque[list[float]] = deque()
        self.others_ms = 0.0

    def observe(self, now_ms: float) -> None:
        """Forgets what has passed."""
        self.callers.observe(now_ms)
        while self._others and self._others[0][0] <= now_ms:
            self.others_ms -= self._others.popleft()[1]
        while self._kept and self._kept[0][0] < now_ms:
            from_ms, to_ms = self._kept.popleft()
            passed_ms = self._pace.between_ms(from_ms, min(now_ms, to_ms))
            self._kept_ms -= passed_ms
            self._due_ms -= min(passed_ms, max(0.0, self._due_ms))  # room that nobody took serves what was owed
            if to_ms > now_ms:
                self._kept.appendleft((now_ms, to_ms))
        if not self._kept:
            self._kept_ms = 0.0
        if self.next_ms <= now_ms:  # nobody waits
            self._owed.clear()
            self._owed_ms = self._due_ms = 0.0

    def refused(self, room_ms: float, pace: Pace | None = None) -> None:
        """A worker said that the bucket has no room before that time, and how it comes from then on."""
        self.room_ms = room_ms
        if room_ms > self.next_ms:
            self.next_ms = room_ms
            self._pace = pace or Pace()

    def turn_ms(self, caller: str, gap_ms: float, now_ms: float) -> float:
        """When one more request of this caller would have its turn."""
        return min(self.end_ms(gap_ms, now_ms), self._early_ms(caller, gap_ms, now_ms))

    def end_ms(self, gap_ms: float, now_ms: float) -> float:
        """The first turn that nobody has: some that were kept, or behind those that others may just be giving."""
        self.observe(now_ms)
        if self._spare(gap_ms):
            return self._kept[0][0]
        return self._pace.later_ms(self.next_ms, self.others_ms) if self.others_ms else self.next_ms

    def expect(self, gap_ms: float, until_ms: float) -> None:
        """Other dispatchers give as many turns as this one, and until then it may not know of them."""
        self._others.append([until_ms, gap_ms])
        self.others_ms += gap_ms

    def told(self, caller: str, gap_ms: float, early_ms: float, now_ms: float) -> None:
        """Another dispatcher has given a turn; that was expected, or it had more requests than this one.

        Args:
            caller: whose it is.
            gap_ms: how much of the limit's time it takes.
            early_ms: when it is, where it overtakes others; 0 where it is at the end, as the other one knew it.
            now_ms: the clock.
        """
        self.observe(now_ms)
        left_ms = gap_ms
        while self._others and left_ms > 0:
            taken_ms = min(left_ms, self._others[0][1])
            left_ms -= taken_ms
            self.others_ms -= taken_ms
            self._others[0][1] -= taken_ms
            if self._others[0][1] <= 0:
                self._others.popleft()
        if 0 < early_ms < self.end_ms(gap_ms, now_ms):  # it is owed there: knowing more turns, this line has it later
            self._give(caller, early_ms, gap_ms, now_ms, overtakes=True)
            return
        others_ms, self.others_ms = self.others_ms, 0.0
        self.book(caller, gap_ms, now_ms)
        self.others_ms = others_ms

    def book(self, caller: str, gap_ms: float, now_ms: float) -> float:
        """Gives a turn to one more request of this caller."""
        at_ms = self.turn_ms(caller, gap_ms, now_ms)
        self._give(caller, at_ms, gap_ms, now_ms, overtakes=at_ms < self.end_ms(gap_ms, now_ms))
        return at_ms

    def _give(self, caller: str, at_ms: float, gap_ms: float, now_ms: float, *, overtakes: bool) -> None:
        spare = self._spare(gap_ms)
        if overtakes:
            self._owe(at_ms, gap_ms, now_ms)
        if spare and not overtakes:
            self._take_kept(gap_ms)
        elif not spare:
            if overtakes:
                self._keep(gap_ms)
            self.next_ms = self._pace.later_ms(self.next_ms, gap_ms)
        self.callers.book(caller, at_ms, gap_ms)

    def again(self, caller: str, gap_ms: float, room_ms: float) -> float:
        """Gives another turn to a request that found no room in its own; not at the end, for it has waited."""
        at_ms = self._first_ms = max(self._pace.later_ms(self._first_ms, gap_ms), room_ms)
        heapq.heappush(self._owed, (at_ms, gap_ms))
        self._owed_ms += gap_ms
        self._keep(gap_ms)
        self.next_ms = max(self._pace.later_ms(self.next_ms, gap_ms), at_ms)
        self.callers.book(caller, at_ms, gap_ms)
        return at_ms

    def come(self, caller: str, at_ms: float, gap_ms: float, latest_ms: float, now_ms: float) -> float | None:
        """A request comes for its turn; says when it is, which is later if it has to yield.

        Args:
            caller: its caller.
            at_ms: its turn.
            gap_ms: how much of the limit's time the turn takes.
            latest_ms: the latest turn that it has time for.
            now_ms: the clock.

        Returns:
            Its turn; None if it has to yield and has no time for that.
        """
        self.observe(now_ms)
        while self._owed and self._owed[0][0] <= at_ms:
            owed_ms = heapq.heappop(self._owed)[1]
            self._owed_ms -= owed_ms
            self._due_ms += owed_ms
        yields = self._yields(caller, at_ms, gap_ms)
        end_ms = self._kept[0][0] if self._kept else self.next_ms
        due_ms = self.callers.due_ms(caller, at_ms, gap_ms)
        later_ms = min(end_ms, max(due_ms, self._early_ms(caller, gap_ms, now_ms)))
        if not yields or (later_ms > latest_ms and self._due_ms < gap_ms):  # the next one may have more time
            self.callers.went(caller, at_ms, gap_ms)
            return at_ms
        self._due_ms -= gap_ms
        if later_ms > latest_ms:
            return None
        if later_ms < end_ms:
            self._owe(later_ms, gap_ms, now_ms)
        elif self._kept:
            self._take_kept(gap_ms)
        else:
            self.next_ms = self._pace.later_ms(self.next_ms, gap_ms)
        self.callers.book(caller, later_ms, gap_ms)
        return later_ms

    def _yields(self, caller: str, at_ms: float, gap_ms: float) -> bool:
        """Whether a caller's request must yield: his next turn is not due, or whole turns are owed and he has most.

        Those with little time never have many turns booked, however much they get. So a caller who has most, and whose
        next turn is overdue, yields only where nobody else has paid for a while.
        """
        callers = self.callers
        if callers.count < 2 or self._due_ms < gap_ms / 2:
            return False
        ahead_ms = callers.due_ms(caller, at_ms, gap_ms) - at_ms
        if ahead_ms >= gap_ms / 2:
            return True
        is_overdue = ahead_ms <= -gap_ms * callers.count
        owed_ms = gap_ms * OWED_TO_OVERDUE if is_overdue else gap_ms
        return self._due_ms >= owed_ms and not callers.overtakes_ms(caller, gap_ms)

    def _early_ms(self, caller: str, gap_ms: float, now_ms: float) -> float:
        """The turn that this caller has by right: before what he overtakes, and where the bucket may have room.

        Infinite where he overtakes nothing.
        """
        overtakes_ms = self.callers.overtakes_ms(caller, gap_ms)
        if not overtakes_ms:
            return math.inf
        at_ms = self._pace.later_ms(self.next_ms, -overtakes_ms - max(0.0, self._spare_ms))
        first_ms = max(self.room_ms, now_ms)
        return at_ms if at_ms >= first_ms else max(self._pace.later_ms(self._first_ms, gap_ms), first_ms)

    def _owe(self, at_ms: float, gap_ms: float, now_ms: float) -> None:
        """A turn was given that another request has already."""
        if at_ms <= max(self.room_ms, now_ms, self._pace.later_ms(self._first_ms, gap_ms)):  # at the beginning
            self._first_ms = max(self._first_ms, at_ms)
        heapq.heappush(self._owed, (at_ms, gap_ms))
        self._owed_ms += gap_ms

    def _keep(self, gap_ms: float) -> None:
        """Keeps room at the end of the line for a request that yields."""
        from_ms = self._kept.pop()[0] if self._kept and self._kept[-1][1] == self.next_ms else self.next_ms
        self._kept.append((from_ms, self._pace.later_ms(self.next_ms, gap_ms)))
        self._kept_ms += gap_ms

    def _take_kept(self, gap_ms: float) -> None:
        self._kept_ms -= gap_ms
        while gap_ms > 0 and self._kept:
            from_ms, to_ms = self._kept.popleft()
            kept_ms = self._pace.between_ms(from_ms, to_ms)
            if kept_ms > gap_ms:
                self._kept.appendleft((self._pace.later_ms(from_ms, gap_ms), to_ms))
            gap_ms -= kept_ms

    def _spare(self, gap_ms: float) -> bool:
        """Whether more room is kept than is owed, because requests that had to yield had no time for it."""
        return bool(self._kept) and self._spare_ms >= gap_ms

    @property
    def _spare_ms(self) -> float:
        return self._kept_ms - self._owed_ms - self._due_ms
