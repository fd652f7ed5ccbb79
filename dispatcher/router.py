"""Decides on a request: send it to a lane, let it wait, or end it. Pure: the clock is an argument."""

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from schemas import sharing, topology
from schemas.config import Config, LaneConfig
from schemas.messages import Attempt, ErrorCode, Request, Strategy, Turn
from schemas.reports import LaneReport, Report

from . import returns
from .health import Heard, LaneHealth
from .listings import Lack, LaneKnowledge, asked
from .names import Names
from .strategies import Chooser
from .told import Change
from .why import last_error, no_lane

# The time of the shortest delay queue: a request with less time left can't wait.
SHORTEST_WAIT_MS: Final = 250
# A request is sent to a worker so long before its turn, as it may come late out of a delay queue. The worker holds it
# until there is room. It is half of what a worker waits, where that is less.
LEAD_MS: Final = 1_000


class Send(Struct, frozen=True):
    """Send it to this lane now.

    Args:
        lane: the lane's name.
        trial: it is a trial of a lane that is set aside, which costs none of the attempts a request has.
        max_wait_ms: the longest it may wait for budget before it comes back; None leaves that to the worker.
        timeout_ms: the longest it may take before it comes back, as another lane could answer; None is the deadline.
        turn: its turn in that lane's line, if there is one.
    """

    lane: str
    trial: bool = False
    max_wait_ms: float | None = None
    timeout_ms: float | None = None
    turn: Turn | None = None


class Wait(Struct, frozen=True):
    """Let it wait for this time, then decide again.

    Args:
        wait_ms: the time.
        turn: its turn in a line for budget, if it has one.
    """

    wait_ms: float
    turn: Turn | None = None


class End(Struct, frozen=True):
    """End it with this error."""

    code: ErrorCode
    message: str


Decision: TypeAlias = Send | Wait | End


# A worker that is silent for so long is gone; it lists all of its lanes when it comes back.
GONE_S: Final = 60.0


class Router:
    """Chooses lanes, over the configured lanes and their health.

    Args:
        config: as loaded.
        tell: takes what is done to a lane's lines for budget, where there are other dispatchers.

    Attributes:
        health: the lanes, by name.
        knowledge: what they list.
    """

    def __init__(self, config: Config, tell: Callable[[str, Change], None] | None = None) -> None:
        self._chooser = Chooser()
        self.knowledge = LaneKnowledge()
        self._dispatchers, self._tellers = 1, 0
        self._tell = tell
        self._heard = Heard()
        # By worker: when its last report of all lanes came, and which they are.
        self._served: dict[str, tuple[float, list[str]]] = {}
        # By worker: a list of all of its lanes that said nothing new, if nothing came after it but the same.
        self._same: dict[str, list[LaneReport]] = {}
        self.health: dict[str, LaneHealth] = {}
        self._aside: list[LaneHealth] = []
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Takes another configuration; what is known of lanes that stay is kept."""
        self._config, self._groups, self._lanes = config.dispatcher, config.groups, config.lanes
        self._lead_ms = min(LEAD_MS, config.worker.max_wait_s * 500)
        self.health = {name: self._lane(name, lane) for name, lane in config.lanes.items()}
        self._names = Names(config, self.health)
        self._sources: dict[tuple[str, bool], str] = {}  # by lane, and whether for HTTP calls

    def _lane(self, name: str, lane: LaneConfig) -> LaneHealth:
        health = self.health.get(name) or LaneHealth(name, lane.weight, self._config, self._heard)
        health.configure(lane.weight, self._config)
        waiting = health.load.waiting
        waiting.dispatchers, waiting.tellers = self._dispatchers, self._tellers
        waiting.tell = functools.partial(self._tell, name) if self._tell else None
        return health

    def set_dispatchers(self, count: int, tellers: int = 0) -> None:
        """Takes in how many dispatchers there are, and how many others of them tell what they do to lines."""
        self._dispatchers, self._tellers = count, tellers
        for lane in self.health.values():
            lane.load.waiting.dispatchers, lane.load.waiting.tellers = count, tellers

    def take_changes(self, changes: Iterable[tuple[str, Change]], now_ms: int) -> None:
        """Takes in what another dispatcher did to its lines."""
        for name, change in changes:
            if health := self.health.get(name):
                health.take_change(change, now_ms)

    def observe(self, report: Report, now_s: float) -> None:
        """Takes in a worker's report."""
        worker = report.worker
        if report.leaving:
            self._served.pop(worker, None)
            self._same.pop(worker, None)
        else:
            self._heard.at_s = now_s
        if not (report.whole and report.lanes is self._same.get(worker) and self._beat(worker, (), now_s)):
            self._take(report, now_s)
        for name, why in report.unopened.items():
            if health := self.health.get(name):
                health.not_open(worker, why, now_s)
        self._aside = [lane for lane in self.health.values() if not lane.serving]

    def _take(self, report: Report, now_s: float) -> None:
        """Takes in what a worker says of lanes."""
        worker, same = report.worker, report.whole
        if report.whole and not report.leaving:
            self._served[worker] = now_s, [lane.lane for lane in report.lanes]
            gone_s = now_s - GONE_S
            for gone in [name for name, (at_s, _) in self._served.items() if at_s < gone_s]:
                del self._served[gone]
                self._same.pop(gone, None)
        elif not report.leaving:
            self._beat(worker, {lane.lane for lane in report.lanes}, now_s)
        for lane in report.lanes:
            if health := self.health.get(lane.lane):
                if report.leaving:
                    health.forget(worker)
                    self.knowledge.forget(worker, lane.lane)
                    continue
                if health.rests(worker, lane):
                    health.beat(worker, now_s)
                    continue
                same = False
                if lane.knowledge:
                    self.knowledge.observe(worker, lane.lane, lane.knowledge, now_s)
                methods = health.methods
                health.observe(worker, lane, now_s)
                if health.methods != methods:
                    self._names.forget()
        if same and not report.leaving:
            self._same[worker] = report.lanes
        elif report.lanes:
            self._same.pop(worker, None)

    def _beat(self, worker: str, listed: Collection[str], now_s: float) -> bool:
        """Takes in that a worker still serves the lanes that its report does not list; whether all of them know it."""
        if (served := self._served.get(worker)) is None:
            return False
        self._served[worker] = now_s, served[1]
        known = True
        for name in served[1]:
            if name not in listed and (health := self.health.get(name)):
                known &= health.beat(worker, now_s)
        return known

    def refused(self, attempt: Attempt, lane: str, until_ms: int, now_ms: int) -> Attempt:
        """A lane's worker found no budget for an attempt before this time; one that had its turn gets another."""
        health, bound, turn = self.health.get(lane), attempt.bound, attempt.turn
        if health is None:
            return attempt
        health.refused(attempt.request, until_ms, bound, now_ms)
        if bound is None or turn is None or turn.lane != lane:
            return attempt
        return replace(attempt, turn=health.again(attempt, turn, bound))

    def candidates(self, request: Request) -> Sequence[LaneHealth] | End:
        """The lanes that a request names and that have its method and symbol, in its order; an error if none does."""
        if isinstance(able := self._names.able(request), Lack):
            return End(able.code, able.message)
        listing = self.knowledge.able(able.names, request.method, asked(request.args))
        if listing is able.names:
            return able.lanes
        if isinstance(listing, Lack):
            return End(listing.code, listing.message)
        return [self.health[name] for name in listing]

    def sources(self, request: Request) -> dict[str, str]:
        """What may answer a request, as answers are shared, by lane in the request's order; none where nothing may."""
        able = self.candidates(request)
        lanes = [] if isinstance(able, End) else [lane.name for lane in able]
        kind = request.http is not None
        for name in lanes:
            if (name, kind) not in self._sources:
                self._sources[name, kind] = sharing.source(self._lanes[name], request)
        return {name: self._sources[name, kind] for name in lanes}

    def turn_ms(self, attempt: Attempt, now_s: float, now_ms: int) -> float:
        """When a request would be answered at the earliest as far as waiting goes, if it asked now."""
        able = self.candidates(attempt.request)
        if isinstance(able, End):
            return math.inf
        waits_ms = [max(lane.load.delay_ms(attempt, now_ms), lane.usable_in_ms(now_s, now_ms)) for lane in able]
        return now_ms + min(waits_ms, default=math.inf)

    def less_removed(self, attempt: Attempt) -> Attempt:
        """The attempt without exchanges that were removed meanwhile; unchanged if no other is left."""
        request = attempt.request
        known = [name for name in request.exchanges if self._names.lanes(name)]
        if not known or len(known) == len(request.exchanges):
            return attempt
        return replace(attempt, request=replace(request, exchanges=known))

    def fan_out(self, attempt: Attempt) -> list[Attempt]:
        """One attempt for each exchange that the request names, if it asks for all; else the attempt alone.

        A name that stands for several lanes of one exchange gets one result, from the best of them. An unknown name
        gets an error; that does not touch the others.
        """
        request = attempt.request
        if request.exchanges_mode == "any":
            return [attempt]
        names = [name for each in request.exchanges for name in self._names.members(each)]
        if not names:
            if isinstance(able := self.candidates(request), End):
                return [attempt]
            names = [self._lanes[lane.name].known_as for lane in able]
        known = self._names
        names = list(dict.fromkeys(known.today(name) if known.lanes(name) else name for name in names))
        return [replace(attempt, request=replace(request, exchanges=[name]), results=len(names)) for name in names]

    def hedge(self, attempt: Attempt, now_s: float, now_ms: int) -> Send | None:
        """Where to send a hedge beside an attempt in flight; None if no other lane can take it now."""
        named = self.candidates(attempt.request)
        left_ms = attempt.deadline_ms - now_ms
        if isinstance(named, End) or left_ms <= 0:
            return None
        past = returns.past(attempt.tries)
        other = [
            lane
            for lane in named
            if lane.takes(attempt.request, now_s, now_ms)
            and lane.name != attempt.lane
            and lane.name not in past.never
            and lane.name not in past.failed
        ]
        return self._send(replace(attempt, turn=None), other, left_ms, now_s, now_ms)

    def strategy(self, request: Request) -> Strategy:
        """The strategy of a request: its own, its group's, or the configured one."""
        if request.strategy:
            return request.strategy
        if len(request.exchanges) == 1 and (group := self._groups.get(request.exchanges[0])) and group.strategy:
            return group.strategy
        return self._config.strategy

    def decide(self, attempt: Attempt, now_s: float, now_ms: int, *, rested: bool) -> Decision:
        """Decides on a request.

        Args:
            attempt: the request and its tries so far.
            now_s: the monotonic clock of the lanes' health.
            now_ms: the wall clock of deadlines.
            rested: whether it has just waited, so that a lane that failed it may get it again.
        """
        left_ms = attempt.deadline_ms - now_ms
        if left_ms <= 0:
            return End(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed" + last_error(attempt))
        if (turn := attempt.turn) is not None and (waited := self.health.get(turn.lane)):
            attempt = replace(attempt, turn=waited.come(attempt, turn, self._lead_ms, now_ms))
        if isinstance(named := self.candidates(attempt.request), End):
            return named
        past = returns.past(attempt.tries)
        able = [lane for lane in named if lane.name not in past.never] if past.never else named
        if past.final is not None or not able:
            final = past.final or attempt.tries[-1]
            return End(final.code or ErrorCode.INTERNAL, f"no lane can answer it{last_error(attempt)}")
        if returns.exhausted(attempt, past.doubts, self._config.max_attempts):
            return End(ErrorCode.ATTEMPTS_EXHAUSTED, f"{attempt.number} attempts failed{last_error(attempt)}")
        open_ = self._open(able, attempt, past, now_s, now_ms)
        if len(open_) > 1:
            return self._to(open_, attempt, now_s, now_ms, others=True, timeout_ms=left_ms / 2)
        said_ms, lead_ms = past.retry_at_ms, self._lead_ms
        not_before_ms = {
            name: lane.load.waiting.not_before_ms(attempt, name, said_ms.get(name, 0), lead_ms, now_ms)
            for name, lane in ((lane.name, lane) for lane in able)
        }
        ready = [lane for lane in _ready(able, now_s, now_ms) if not_before_ms[lane.name] <= now_ms]
        fresh = [lane for lane in ready if lane.name not in past.failed] if attempt.tries else ready
        if send := self._send(attempt, fresh, left_ms, now_s, now_ms):
            return send
        if rested:
            fewest = min((past.failed.get(lane.name, 0) for lane in ready), default=0)
            again = [lane for lane in ready if past.failed.get(lane.name, 0) == fewest]
            for lanes in (again, ready):
                if send := self._send(attempt, lanes, left_ms, now_s, now_ms):
                    return send
        # Lanes that are ready here have just failed it: one of them gets it again after a backoff, unless another is
        # usable before.
        rest_ms = returns.rest_ms(attempt, left_ms)
        waits_ms = {
            lane.name: max(
                rest_ms if lane in ready else 0.0,
                lane.usable_in_ms(now_s, now_ms, not_before_ms=not_before_ms[lane.name]),
            )
            for lane in able
        }
        return self._wait(able, attempt, past, waits_ms, left_ms, now_s, now_ms)

    def _wait(
        self,
        able: Sequence[LaneHealth],
        attempt: Attempt,
        past: returns.Past,
        waits_ms: Mapping[str, float],
        left_ms: float,
        now_s: float,
        now_ms: int,
    ) -> Wait | End:
        """Lets it wait for the lane that takes it first, perhaps in that lane's line; ends it if time is short."""
        turn, joins = attempt.turn, False
        lane = next((lane for lane in able if turn and lane.name == turn.lane and turn.at_ms > now_ms), None)
        if lane is not None:  # it keeps its turn: only lanes without a line may be sooner
            waits_ms = {each.name: waits_ms[each.name] for each in able if not self._must_join(each, attempt, now_ms)}
        else:
            lane = min(able, key=lambda lane: waits_ms[lane.name])
            if joins := self._must_join(lane, attempt, now_ms):
                delay_ms = lane.load.delay_ms(attempt, now_ms)
                if delay_ms > left_ms >= lane.usable_in_ms(now_s, now_ms):
                    if delay_ms > left_ms + lane.load.waiting.shorter_elsewhere_ms(attempt, now_ms):
                        text = f"queueing delay {delay_ms / 1000:.1f} s exceeds the {left_ms / 1000:.1f} s left"
                        return End(ErrorCode.DEADLINE_EXCEEDED, f"overloaded: {text}{last_error(attempt)}")
                    joins, waits_ms = False, {lane.name: SHORTEST_WAIT_MS}  # another dispatcher's line may be shorter
        wait_ms = min(waits_ms.values())
        answer_ms = lane.load.usual_ms if attempt.bound is not None else 0.0  # budget without time is of no use
        if max(wait_ms, SHORTEST_WAIT_MS) + answer_ms > left_ms:
            return End(ErrorCode.DEADLINE_EXCEEDED, f"{no_lane(able, past, now_s, now_ms)}{last_error(attempt)}")
        if joins:  # only now: a request that was ended above, for a pause or another reason, takes no turn
            turn = lane.book(attempt, now_ms)
        lane.load.waiting.put(now_s + topology.delay_for(wait_ms) / 1000)
        return Wait(wait_ms, turn)

    def _must_join(self, lane: LaneHealth, attempt: Attempt, now_ms: int) -> bool:
        """Whether it has to join the lane's line for budget, as others wait there."""
        return lane.load.waiting.must_join(attempt, lane.name, self._lead_ms, now_ms)

    def _open(
        self,
        lanes: Sequence[LaneHealth],
        attempt: Attempt,
        past: returns.Past,
        now_s: float,
        now_ms: int,
    ) -> Sequence[LaneHealth]:
        """The lanes that take it now; none while a trial is due. A short cut: mostly all do, at one look each."""
        if any(lane.due(now_s) for lane in self._aside):
            return ()
        open_ = [
            lane
            for lane in lanes
            if (lane.open_from_ms <= now_ms and now_s <= lane.silent_at_s) or lane.takes(attempt.request, now_s, now_ms)
        ]
        if not attempt.tries:
            return open_
        failed, retry_at_ms = past.failed, past.retry_at_ms
        return [lane for lane in open_ if lane.name not in failed and retry_at_ms.get(lane.name, 0) <= now_ms]

    def _send(
        self, attempt: Attempt, ready: Sequence[LaneHealth], left_ms: float, now_s: float, now_ms: int
    ) -> Send | None:
        """Sends it to one of these lanes: one whose trial is due, else one that serves, else a last resort."""
        serving = [lane for lane in ready if lane.serving]
        choice: Sequence[LaneHealth] = serving
        if len(serving) < len(ready):
            due = [lane for lane in ready if lane.due(now_s) and lane.tries(attempt)]
            if due and (not serving or left_ms >= 2000 * due[0].trial_timeout_s):
                choice = due[:1]
            elif not serving:
                choice = [lane for lane in ready if lane.last_resort(now_s)]
        if not choice:
            return None
        others = len(ready) > 1
        if len(choice) > 1:
            able = [lane for lane in choice if lane.load.funded(attempt.request, now_ms)]
            turn = attempt.turn
            able = able or [lane for lane in choice if turn is not None and turn.lane == lane.name]
            others = len(able) > 1
            choice = able or choice
        timeout_ms = left_ms / 2 if len(ready) > 1 else None
        return self._to(choice, attempt, now_s, now_ms, others=others, timeout_ms=timeout_ms)

    def _to(
        self,
        lanes: Sequence[LaneHealth],
        attempt: Attempt,
        now_s: float,
        now_ms: int,
        *,
        others: bool,
        timeout_ms: float | None,
    ) -> Send:
        """Sends it to the best of these lanes.

        Args:
            lanes: the candidates; at least one.
            attempt: the request.
            now_s: the monotonic clock.
            now_ms: the wall clock.
            others: whether other lanes have budget for it too, so that it should not wait long for budget here.
            timeout_ms: as in `Send`, before a trial shortens it.
        """
        request, turn = attempt.request, attempt.turn
        lane = self._chooser.choose(self.strategy(request), lanes)
        if turn is not None and turn.lane != lane.name:
            if waited := self.health.get(turn.lane):
                waited.load.waiting.give_back(turn, now_ms)
            turn = None
        if turn is None and lane.load.waiting.has_line(request, now_ms):
            # It need not wait in the line, and takes a turn there all the same.
            turn = lane.book(attempt, now_ms)
        trial = lane.sent(now_s, bulk=request.bulk, tries=not lane.due(now_s) or lane.tries(attempt))
        if trial and timeout_ms:
            timeout_ms = min(timeout_ms, lane.trial_timeout_s * 1000)
        return Send(lane.name, trial, self._config.wait_with_others_s * 1000 if others else None, timeout_ms, turn)


def _ready(lanes: Sequence[LaneHealth], now_s: float, now_ms: int) -> Sequence[LaneHealth]:
    """The lanes that a worker serves and that are not paused."""
    return [lane for lane in lanes if now_s <= lane.silent_at_s and lane.paused_until_ms <= now_ms]
