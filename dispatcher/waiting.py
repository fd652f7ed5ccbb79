"""The live requests that wait for one lane, one behind the other, and when the turn of one more would come. Pure.

A worker that has no room for a call in time names the bucket that has none, when it has some again, and how long such
a call takes of it (`Bound`). From then on that bucket has a line. Each request that has to wait gets the next turn in
it, as far behind the one before as the bucket allows calls. So requests leave evenly and in order, and the end of the
line says how long one more would wait. Nothing is measured over some seconds, which would say little of a long window.

A turn travels with its request. A dispatcher that has just started learns how long the line is from the turns that
pass. Dispatchers tell each other what they do to their lines (`told.py`), so that all know the same. What the others
are just doing is not told yet: for a moment each leaves as many places free behind its own as there are others. One
that tells nothing is taken to give about as many turns, and turns are so many places apart. Which of them gets a
request is chance, so such lines differ (`by_chance_ms`). A request that is late by no more than that, or than what is
not told yet, is not refused. It goes through the shortest delay queue, so that it meets other dispatchers, or this one
when it knows more.

`line.py` says how several callers share a line.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from schemas.messages import Attempt, Bound, Request, Turn

from .line import Line
from .pace import Pace
from .told import Change, Kind

# A turn counts as come so much before its time: a request can't wait for less than the shortest delay queue takes.
LATE_MS: Final = 250
# Requests in delay queues are counted by when they leave, in steps of this length.
TICK_S: Final = 0.1
# Lines without turns are forgotten once there are so many: a limit of each pair has one for each pair.
PLACES_KEPT: Final = 1_000
# The longest line: no limit that is published has a longer window than a day.
LONGEST_MS: Final = 25 * 3_600_000
# After so long another dispatcher has told what it did, or is too slow to be waited for.
TOLD_MS: Final = 100
# A request may ask other dispatchers until so long after it came. Each way through the shortest delay queue takes
# 250 ms and leads to any of them, perhaps to one that it has asked.
ASKING_MS: Final = 2_000


def by_chance_ms(length_ms: float, step_ms: float, dispatchers: int) -> float:
    """How much the lines of several dispatchers may differ by chance.

    Of n turns that each gives, the number varies by about the root of n. Here it is three times that.
    """
    return 3 * math.sqrt(max(0.0, length_ms * step_ms * dispatchers)) if dispatchers > 1 else 0.0


class Place(Struct, frozen=True):
    """The line in which requests of a kind wait.

    Args:
        line: the line.
        key: its bucket's name, as in `Bound`.
        step_ms: how long such a call takes of the bucket.
        apart: whether pairs have lines of their own.
    """

    line: Line
    key: str
    step_ms: float
    apart: bool


class Waiting:
    """What waits for one lane.

    Attributes:
        tell: takes what is done to lines here, for the other dispatchers; the lane's name is left out.
        dispatchers: how many give turns; each puts about as many requests into the delay queues.
        tellers: how many others of them tell what they do to lines.
        count: about how many requests wait in delay queues.
        last_ms: when the last turn of all lines is (Unix milliseconds).
    """

    def __init__(self) -> None:
        self.tell: Callable[[Change], object] | None = None
        self.dispatchers = 1
        self.tellers = 0
        self.count = 0
        self.last_ms = 0.0
        self._ticks: dict[int, int] = {}  # by tick: how many leave their delay queue then
        self._lines: dict[str, Line] = {}
        self._places: dict[tuple[str, str], Place] = {}  # by kind and subject, which is empty where it does not matter
        self._apart = False

    def put(self, until_s: float) -> None:
        """A request waits in a delay queue until then; it stands for one of each other dispatcher, too."""
        tick = math.ceil(until_s / TICK_S)
        self._ticks[tick] = self._ticks.get(tick, 0) + self.dispatchers

    def observe(self, now_s: float) -> None:
        """Counts what waits, by the clock of `put`."""
        passed = now_s / TICK_S
        for tick in [tick for tick in self._ticks if tick <= passed]:
            del self._ticks[tick]
        self.count = sum(self._ticks.values())

    @property
    def _silent(self) -> int:
        """This dispatcher, and how many others tell nothing: each of those gives about as many turns as this one."""
        return max(1, self.dispatchers - self.tellers)

    def take(self, change: Change, now_ms: int) -> None:
        """Another dispatcher did this to its line."""
        if change.kind == "room":
            if change.bound is not None:
                self._refused(change.of_kind, change.of_subject, change.bound, now_ms)
            return
        line, gap_ms = self._lines.get(change.key), min(max(0.0, change.step_ms), LONGEST_MS) * self._silent
        if line is None:  # the next request that passes by, or comes back from a worker, says what is known of it
            return
        match change.kind:
            case "book":
                line.told(change.caller, gap_ms, min(change.at_ms, now_ms + LONGEST_MS), now_ms)
            case "again":
                line.again(change.caller, gap_ms, min(change.at_ms, now_ms + LONGEST_MS))
            case "come":
                line.come(change.caller, change.at_ms, gap_ms, change.latest_ms, now_ms)
            case "back":
                line.next_ms -= gap_ms
        line.next_ms = min(line.next_ms, now_ms + LONGEST_MS)
        self._grew(line)

    def _told(self, key: str, kind: Kind, step_ms: float, **fields: Any) -> None:
        if self.dispatchers > 1 and self.tell is not None:
            self.tell(Change(key, kind, step_ms, **fields))

    def refused(self, request: Request, bound: Bound, now_ms: int) -> None:
        """A worker found no room for such a request before that time."""
        subject = request.subject_digest if bound.apart else ""
        self._told(bound.key, "room", bound.step_ms, bound=bound, of_kind=request.kind, of_subject=subject)
        self._refused(request.kind, subject, bound, now_ms)

    def _refused(self, kind: str, subject: str, bound: Bound, now_ms: int) -> None:
        line = self._line(kind, subject, bound.key, bound.step_ms, now_ms, apart=bound.apart)
        room_ms = min(bound.at_ms, now_ms + LONGEST_MS)
        rooms = [(at_ms, calls) for at_ms, calls in bound.rooms if at_ms <= now_ms + LONGEST_MS]
        line.refused(room_ms, Pace(room_ms, bound.step_ms, rooms))
        self._grew(line)

    def saw(self, attempt: Attempt, turn: Turn, now_ms: int) -> None:
        """A request with a turn that is still to come passed by; another dispatcher may have given it.

        One that is later by chance changes nothing: all lines would become as long as the longest, and room be wasted.
        Where the line grows, the stretch that was not known counts as booked by this request's caller.
        """
        subject = attempt.request.subject_digest if turn.apart else ""
        line = self._line(attempt.request.kind, subject, turn.key, turn.step_ms, now_ms, apart=turn.apart)
        later_ms = turn.at_ms - line.next_ms
        if later_ms >= by_chance_ms(turn.at_ms - now_ms, turn.step_ms, self.dispatchers):
            next_ms = max(line.next_ms, min(turn.at_ms + turn.step_ms, now_ms + LONGEST_MS))
            line.callers.book(attempt.reply_to, next_ms, next_ms - max(line.next_ms, now_ms))
            line.next_ms = next_ms
            self._grew(line)

    def has_line(self, request: Request, now_ms: float) -> bool:
        """Whether others of its kind wait in a line, so that this one needs a turn."""
        if self.last_ms <= now_ms or request.bulk:
            return False
        return any(place.line.next_ms > now_ms for place in self._places_of(request))

    def delay_ms(self, attempt: Attempt, now_ms: float) -> float:
        """The time until the turn that this request would get; 0 where none of its kind waits."""
        if not self.has_line(attempt.request, now_ms):
            return 0.0
        place = self._place(attempt, now_ms)
        return max(0.0, self._turn_ms(place, attempt, now_ms) - now_ms) if place else 0.0

    def shorter_elsewhere_ms(self, attempt: Attempt, now_ms: int) -> float:
        """How much shorter another dispatcher's line may be; 0 for a request with no more time to ask others."""
        place = self._place(attempt, now_ms)
        if place is None or now_ms - attempt.received_ms >= ASKING_MS or attempt.deadline_ms - now_ms < 2 * LATE_MS:
            return 0.0
        by_chance = by_chance_ms(self._turn_ms(place, attempt, now_ms) - now_ms, place.step_ms, self._silent)
        return max(by_chance, place.line.others_ms)

    def step_ms(self, attempt: Attempt, now_ms: float) -> float:
        """How long one such call takes of its bucket; 0 where there is no line for it."""
        place = self._place(attempt, now_ms)
        return place.step_ms if place else 0.0

    def must_join(self, attempt: Attempt, lane: str, lead_ms: float, now_ms: int) -> bool:
        """Whether a request has to join this lane's line: others wait there, and it has no turn among them.

        Args:
            attempt: the request, and what was tried.
            lane: the lane's name.
            lead_ms: how long before its turn a request may be sent.
            now_ms: the clock.
        """
        has_turn = attempt.turn is not None and attempt.turn.lane == lane
        return not has_turn and self.delay_ms(attempt, now_ms) > lead_ms

    def not_before_ms(self, attempt: Attempt, lane: str, said_ms: int, lead_ms: float, now_ms: int) -> float:
        """When the lane may be asked at the earliest, by its line and by what its last try said (`said_ms`)."""
        if attempt.turn is not None and attempt.turn.lane == lane:
            turn_ms: float = attempt.turn.at_ms - LATE_MS
        elif self.must_join(attempt, lane, lead_ms, now_ms):
            turn_ms = now_ms + self.delay_ms(attempt, now_ms)
        else:
            return said_ms
        # Its turn is a better answer than the worker's. But where room was close and a worker could not wait for it,
        # the request would come back at once.
        by_line = attempt.bound is not None and bool(attempt.tries) and attempt.tries[-1].lane == lane
        far = attempt.bound is not None and attempt.bound.at_ms - now_ms > lead_ms
        return turn_ms - lead_ms if by_line and far else max(said_ms, turn_ms - lead_ms)

    def book(self, attempt: Attempt, lane: str, now_ms: float) -> Turn | None:
        """Gives a turn to a request; None where there is no line for it."""
        place = self._place(attempt, now_ms)
        if place is None:
            return None
        gap_ms = place.step_ms * self._silent
        end_ms = place.line.end_ms(gap_ms, now_ms)
        at_ms = place.line.book(attempt.reply_to, gap_ms, now_ms)
        if others := self.dispatchers - self._silent:
            place.line.expect(gap_ms * others, now_ms + TOLD_MS)
        early_ms = at_ms if at_ms < end_ms else 0.0
        self._told(place.key, "book", place.step_ms, caller=attempt.reply_to, at_ms=early_ms)
        self._grew(place.line)
        return Turn(lane, place.key, int(at_ms), place.step_ms, place.apart)

    def again(self, attempt: Attempt, turn: Turn, bound: Bound) -> Turn:
        """Gives another turn to a request that found no room in its own, as other calls had taken it.

        That is not at the end of the line: requests that come later wait longer.
        """
        line = self._lines.setdefault(bound.key, Line())
        at_ms = line.again(attempt.reply_to, bound.step_ms * self._silent, bound.at_ms)
        self._told(bound.key, "again", bound.step_ms, caller=attempt.reply_to, at_ms=bound.at_ms)
        self._grew(line)
        return Turn(turn.lane, bound.key, int(at_ms), bound.step_ms, bound.apart)

    def come(self, attempt: Attempt, turn: Turn, answer_ms: float, lead_ms: float, now_ms: int) -> Turn | None:
        """A request with a turn passes by. Returns its turn, perhaps a later one; None if it has no time for that.

        Args:
            attempt: the request.
            turn: its turn.
            answer_ms: the lane's usual latency.
            lead_ms: how long before its turn a request may be sent.
            now_ms: the clock.
        """
        line = self._lines.get(turn.key)
        if line is None or turn.at_ms - LATE_MS - lead_ms > now_ms or line.next_ms <= now_ms:
            return turn
        latest_ms = attempt.deadline_ms - turn.step_ms - answer_ms
        at_ms = line.come(attempt.reply_to, turn.at_ms, turn.step_ms * self._silent, latest_ms, now_ms)
        self._told(turn.key, "come", turn.step_ms, caller=attempt.reply_to, at_ms=turn.at_ms, latest_ms=latest_ms)
        self._grew(line)
        return None if at_ms is None else replace(turn, at_ms=int(at_ms))

    def give_back(self, turn: Turn, now_ms: int) -> None:
        """A request with a turn went elsewhere: the line is shorter."""
        if turn.at_ms > now_ms and (line := self._lines.get(turn.key)):
            line.next_ms -= turn.step_ms * self._silent
            self._told(turn.key, "back", turn.step_ms)

    def _line(self, kind: str, subject: str, key: str, step_ms: float, now_ms: int, *, apart: bool) -> Line:
        if len(self._places) >= PLACES_KEPT:
            self._places = {name: place for name, place in self._places.items() if place.line.next_ms > now_ms}
            kept = {place.key for place in self._places.values()}
            self._lines = {name: line for name, line in self._lines.items() if name in kept}
        line = self._lines.setdefault(key, Line())
        self._apart = self._apart or apart
        place = Place(line, key, max(step_ms, 0.0), apart)
        self._places[kind, subject if apart else ""] = place
        return line

    def _grew(self, line: Line) -> None:
        self.last_ms = max(self.last_ms, line.next_ms)

    def _turn_ms(self, place: Place, attempt: Attempt, now_ms: float) -> float:
        return place.line.turn_ms(attempt.reply_to, place.step_ms * self._silent, now_ms)

    def _place(self, attempt: Attempt, now_ms: float) -> Place | None:
        """Of the lines that a request waits in, its symbol's and that of all symbols, the one with the later turn."""
        places = self._places_of(attempt.request)
        if len(places) < 2:
            return places[0] if places else None
        return max(places, key=lambda place: self._turn_ms(place, attempt, now_ms))

    def _places_of(self, request: Request) -> Sequence[Place]:
        names = [(request.kind, ""), (request.kind, request.subject_digest)] if self._apart else [(request.kind, "")]
        return [place for name in names if (place := self._places.get(name))]
