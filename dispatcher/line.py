"""The requests that wait for room in one bucket: when the turn of each comes, and whose turn another takes. Pure.

Turns are a limit's calls apart, so that they leave evenly. A caller alone has one after the other. Several have their
turns in rounds, one of each: so a request of one that asks for little gets a turn before many of one that asks for much
(`overtakes`). That turn is taken already, and so another has to yield: the line remembers such turns (`_owed`) and the
room that it keeps at its end for those that yield (`_kept`). When a request comes for its turn whose caller has had his
share, and a turn is owed, it yields: it takes some of the room that was kept.

So there are never more turns than the limit has calls, each overtaking costs one request one more wait, and dispatchers
share nothing for it: what one of them owes is paid by those that pass it.
"""

import heapq
from collections import deque

from .callers import Callers
from .pace import Pace


class Line:
    """One line. All times are Unix milliseconds; a gap is how much of the limit's time one turn takes (`Pace`).

    Attributes:
        next_ms: where it ends: the next turn of a caller who has the most turns in it.
        room_ms: when the bucket has room again, as a worker last said.
        callers: those who have turns in it.
    """

    def __init__(self) -> None:
        self.next_ms = 0.0
        self.room_ms = 0.0
        self.callers = Callers()
        self._pace = Pace()
        self._first_ms = 0.0  # the last turn that was given at the line's beginning
        self._owed: list[tuple[float, float]] = []  # a heap: since when, and how much
        self._owed_ms = 0.0
        self._due_ms = 0.0  # what of that is to be paid by now; below 0 where more was paid
        self._kept: deque[tuple[float, float]] = deque()  # from when to when
        self._kept_ms = 0.0

    def observe(self, now_ms: float) -> None:
        """Forgets what has passed."""
        self.callers.observe(now_ms)
        while self._kept and self._kept[0][0] < now_ms:
            from_ms, to_ms = self._kept.popleft()
            passed_ms = self._pace.between_ms(from_ms, min(now_ms, to_ms))
            self._kept_ms -= passed_ms
            self._due_ms -= min(passed_ms, max(0.0, self._due_ms))  # what was owed had room without it
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
        self.observe(now_ms)
        end_ms = self._kept[0][0] if self._spare(gap_ms) else self.next_ms
        return min(end_ms, self._early_ms(caller, gap_ms, now_ms))

    def book(self, caller: str, gap_ms: float, now_ms: float) -> float:
        """Gives a turn to one more request of this caller."""
        at_ms = self.turn_ms(caller, gap_ms, now_ms)
        spare = self._spare(gap_ms)
        overtakes = at_ms < (self._kept[0][0] if spare else self.next_ms)
        if overtakes:
            self._owe(at_ms, gap_ms, now_ms)
        if spare and not overtakes:
            self._take_kept(gap_ms)
        elif not spare:
            if overtakes:
                self._keep(gap_ms)
            self.next_ms = self._pace.later_ms(self.next_ms, gap_ms)
        self.callers.book(caller, at_ms, gap_ms)
        return at_ms

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
            gap_ms: as always.
            latest_ms: the latest that helps.
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
        """Whether a caller's request must yield: his next turn is not due, or a whole turn is owed and he has most."""
        callers = self.callers
        if callers.count < 2 or self._due_ms < gap_ms / 2:
            return False
        if callers.due_ms(caller, at_ms, gap_ms) - at_ms >= gap_ms / 2:
            return True
        return self._due_ms >= gap_ms and not callers.overtakes_ms(caller, gap_ms)

    def _early_ms(self, caller: str, gap_ms: float, now_ms: float) -> float:
        """The turn that this caller has by right: before what he overtakes, and where the bucket may have room."""
        overtakes_ms = self.callers.overtakes_ms(caller, gap_ms)
        if not overtakes_ms:
            return self.next_ms
        at_ms = self._pace.later_ms(self.next_ms, -overtakes_ms - max(0.0, self._spare_ms))
        first_ms = max(self.room_ms, now_ms)
        return at_ms if at_ms >= first_ms else max(self._pace.later_ms(self._first_ms, gap_ms), first_ms)

    def _owe(self, at_ms: float, gap_ms: float, now_ms: float) -> None:
        """A turn is taken that is another's."""
        if at_ms <= max(self.room_ms, now_ms, self._pace.later_ms(self._first_ms, gap_ms)):  # at the beginning
            self._first_ms = max(self._first_ms, at_ms)
        heapq.heappush(self._owed, (at_ms, gap_ms))
        self._owed_ms += gap_ms

    def _keep(self, gap_ms: float) -> None:
        """The end of the line is kept for one that yields."""
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
        """Whether more room is kept than is owed, as some that had to yield could not."""
        return bool(self._kept) and self._spare_ms >= gap_ms

    @property
    def _spare_ms(self) -> float:
        return self._kept_ms - self._owed_ms - self._due_ms
