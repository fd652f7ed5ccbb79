"""Decides on a request: send it to a lane, let it wait, or end it. Pure: the clock is an argument."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from schemas import old_names, topology
from schemas.config import Config, LaneConfig
from schemas.messages import Attempt, ErrorCode, Request, Strategy, Turn
from schemas.reports import Report

from . import returns, slips
from .health import LaneHealth
from .listings import Lack, LaneKnowledge, asked
from .strategies import Chooser

# The time of the shortest delay queue: a request with less time left can't wait.
SHORTEST_WAIT_MS: Final = 250
# So long before its turn a request is sent to a worker, which holds it until there is room: it may come back late from
# a delay queue. Half of what a worker waits, where that is less.
LEAD_MS: Final = 1_000
# So many results of `_having_method` are cached.
CHOICES_KEPT: Final = 1_000


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


class Able(NamedTuple):
    """The lanes a request names that have its method."""

    lanes: Sequence[LaneHealth]
    names: Sequence[str]


class Router:
    """Chooses lanes, over the configured lanes and their health.

    Attributes:
        health: the lanes, by name.
        knowledge: what they list.
    """

    def __init__(self, config: Config) -> None:
        self._chooser = Chooser()
        self._by_exchange: dict[str, list[str]] = {}
        self._able: dict[tuple[str, ...], Able] = {}
        self.knowledge = LaneKnowledge()
        self._dispatchers = 1
        self.health: dict[str, LaneHealth] = {}
        self._aside: list[LaneHealth] = []
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Takes another configuration; what is known of lanes that stay is kept."""
        self._config, self._groups, self._lanes = config.dispatcher, config.groups, config.lanes
        self._lead_ms = min(LEAD_MS, config.worker.max_wait_s * 500)
        self.health = {name: self._lane(name, lane) for name, lane in config.lanes.items()}
        self._by_exchange.clear()
        for name, lane in config.lanes.items():
            self._by_exchange.setdefault(lane.known_as, []).append(name)
        self._able.clear()

    def _lane(self, name: str, lane: LaneConfig) -> LaneHealth:
        health = self.health.get(name) or LaneHealth(name, lane.weight, self._config)
        health.configure(lane.weight, self._config)
        health.load.waiting.dispatchers = self._dispatchers
        return health

    def count(self, dispatchers: int) -> None:
        """Takes in how many dispatchers there are."""
        self._dispatchers = dispatchers
        for lane in self.health.values():
            lane.load.waiting.dispatchers = dispatchers

    def observe(self, report: Report, now_s: float) -> None:
        """Takes in a worker's report."""
        for lane in report.lanes:
            if health := self.health.get(lane.lane):
                if report.leaving:
                    health.forget(report.worker)
                    self.knowledge.forget(report.worker, lane.lane)
                    continue
                if lane.knowledge:
                    self.knowledge.observe(report.worker, lane.lane, lane.knowledge, now_s)
                methods = health.methods
                health.observe(report.worker, lane, now_s)
                if health.methods != methods:
                    self._able.clear()
        for name, why in report.unopened.items():
            if health := self.health.get(name):
                health.not_open(report.worker, why, now_s)
        self._aside = [lane for lane in self.health.values() if not lane.serving]

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
        """The lanes a request names, in its order, that have its method and list its symbol; an error if none does."""
        if isinstance(able := self._having_method(request), End):
            return able
        listing = self.knowledge.able(able.names, request.method, asked(request.args))
        if listing is able.names:
            return able.lanes
        if isinstance(listing, Lack):
            return End(listing.code, listing.message)
        return [self.health[name] for name in listing]

    def _having_method(self, request: Request) -> Able | End:
        key = request.method, request.account or "", *request.exchanges
        if known := self._able.get(key):
            return known
        able = self._find(request)
        # Only bounded keys are cached: unknown names may be long, and so may a list with repetitions.
        if isinstance(able, Able) and len(request.exchanges) <= len(self.health):
            if len(self._able) >= CHOICES_KEPT:
                self._able.clear()
            self._able[key] = able
        return able

    def less_removed(self, attempt: Attempt) -> Attempt:
        """The attempt without exchanges that were removed meanwhile; unchanged if no other is left."""
        request = attempt.request
        known = [name for name in request.exchanges if self._named(name)]
        if not known or len(known) == len(request.exchanges):
            return attempt
        return replace(attempt, request=replace(request, exchanges=known))

    def fan_out(self, attempt: Attempt) -> list[Attempt]:
        """One attempt for each exchange that the request names, if it asks for all; else the attempt alone.

        A name that stands for several lanes of one exchange gets one answer, from the best of them. One that nobody
        knows gets an error, and the others their answers.
        """
        request = attempt.request
        if request.exchanges_mode == "any":
            return [attempt]
        names = [name for each in request.exchanges for name in self._group(each)]
        if not names:
            if isinstance(able := self.candidates(request), End):
                return [attempt]
            names = [self._lanes[lane.name].known_as for lane in able]
        names = list(dict.fromkeys(self._today(name) if self._named(name) else name for name in names))
        return [replace(attempt, request=replace(request, exchanges=[name]), results=len(names)) for name in names]

    def hedge(self, attempt: Attempt, now_s: float, now_ms: int) -> Send | None:
        """Where to send a hedge beside an attempt under way; None if no other lane can take it now."""
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
            return End(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed" + _history(attempt))
        if (turn := attempt.turn) is not None and (waited := self.health.get(turn.lane)):
            attempt = replace(attempt, turn=waited.come(attempt, turn, self._lead_ms, now_ms))
        if isinstance(named := self.candidates(attempt.request), End):
            return named
        past = returns.past(attempt.tries)
        able = [lane for lane in named if lane.name not in past.never] if past.never else named
        if past.final is not None or not able:
            final = past.final or attempt.tries[-1]
            return End(final.code or ErrorCode.INTERNAL, f"no lane can answer it{_history(attempt)}")
        if returns.exhausted(attempt, past.doubts, self._config.max_attempts):
            return End(ErrorCode.ATTEMPTS_EXHAUSTED, f"{attempt.number} attempts failed{_history(attempt)}")
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
        # Lanes that are ready here have just failed it: one gets it again after a backoff, unless a better lane is
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
        """Lets it wait for the lane that takes it first, in that lane's line if it has one; ends it if it can't."""
        turn, joins = attempt.turn, False
        lane = next((lane for lane in able if turn and lane.name == turn.lane and turn.at_ms > now_ms), None)
        if lane is not None:  # other lines are no shorter for one that has its turn here
            waits_ms = {each.name: waits_ms[each.name] for each in able if not self._in_line(each, attempt, now_ms)}
        else:
            lane = min(able, key=lambda lane: waits_ms[lane.name])
            if joins := self._in_line(lane, attempt, now_ms):
                delay_ms = lane.load.delay_ms(attempt, now_ms)
                if delay_ms > left_ms >= lane.usable_in_ms(now_s, now_ms):
                    if delay_ms > left_ms + lane.load.waiting.doubt_ms(attempt, now_ms):
                        text = f"queueing delay {delay_ms / 1000:.1f} s exceeds the {left_ms / 1000:.1f} s left"
                        return End(ErrorCode.DEADLINE_EXCEEDED, f"overloaded: {text}{_history(attempt)}")
                    joins, waits_ms = False, {lane.name: SHORTEST_WAIT_MS}  # another dispatcher's line may be shorter
        wait_ms = min(waits_ms.values())
        answer_ms = lane.load.usual_ms if attempt.bound is not None else 0.0  # budget is no use without time for it
        if max(wait_ms, SHORTEST_WAIT_MS) + answer_ms > left_ms:
            return End(ErrorCode.DEADLINE_EXCEEDED, f"{_why(able, past, now_s, now_ms)}{_history(attempt)}")
        if joins:  # not before: one that is refused for a pause, or for want of a worker, takes no place
            turn = lane.book(attempt, now_ms)
        lane.load.waiting.put(now_s + topology.delay_for(wait_ms) / 1000)
        return Wait(wait_ms, turn)

    def _in_line(self, lane: LaneHealth, attempt: Attempt, now_ms: int) -> bool:
        """Whether requests wait for the lane's budget that this one must not overtake."""
        return lane.load.waiting.bars(attempt, lane.name, self._lead_ms, now_ms)

    def _open(
        self,
        lanes: Sequence[LaneHealth],
        attempt: Attempt,
        past: returns.Past,
        now_s: float,
        now_ms: int,
    ) -> Sequence[LaneHealth]:
        """The lanes that take it now, found by one look at each, as mostly all do; none while a trial is due."""
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
            if due and (not serving or left_ms >= 2000 * self._config.trial_timeout_s):
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
        """Sends it to the best of these lanes; `others` says whether others have budget for it too."""
        request, turn = attempt.request, attempt.turn
        lane = self._chooser.choose(self.strategy(request), lanes)
        if turn is not None and turn.lane != lane.name:
            if waited := self.health.get(turn.lane):
                waited.load.waiting.give_back(turn, now_ms)
            turn = None
        if turn is None and lane.load.waiting.holds(request, now_ms):  # it takes a place in the line as it passes
            turn = lane.book(attempt, now_ms)
        trial = lane.sent(now_s, bulk=request.bulk, tries=not lane.due(now_s) or lane.tries(attempt))
        if trial and timeout_ms:
            timeout_ms = min(timeout_ms, self._config.trial_timeout_s * 1000)
        return Send(lane.name, trial, self._config.wait_with_others_s * 1000 if others else None, timeout_ms, turn)

    def _find(self, request: Request) -> Able | End:
        # A testnet's data is for those who name it; where the fleet has nothing else, it is what everyone asks for.
        names = [name for name in self.health if not self._lanes[name].sandbox] or list(self.health)
        if request.exchanges:
            names.clear()
            for named in request.exchanges:
                wanted = self._today(named)
                found = self._named(wanted)
                if request.account is not None:  # an exchange means all its lanes then, even if a lane has its name
                    found = [*found, *self._by_exchange.get(wanted, [])]
                if not found:
                    known = sorted({*self.health, *self._by_exchange, *self._groups})
                    remark = f" ({said})" if (said := old_names.remark(named)) else slips.exchange(named, known)
                    text = f"no lane reaches {named!r}{remark}; this fleet has {', '.join(known)}"
                    return End(ErrorCode.UNKNOWN_EXCHANGE, text)
                names += [name for name in found if name not in names]
        if request.account is not None:
            having = [name for name in names if self._lanes[name].account == request.account]
            if not having:
                return End(
                    ErrorCode.UNKNOWN_EXCHANGE, f"none of {', '.join(names)} has the account {request.account!r}"
                )
            names = having
        able = [lane for lane in map(self.health.__getitem__, names) if _has(lane, request.method)]
        if not able:
            return End(ErrorCode.NOT_SUPPORTED, f"none of {', '.join(names)} has {request.method!r} in ccxt")
        return Able(able, [lane.name for lane in able])

    def _named(self, name: str) -> Sequence[str]:
        """The lanes that a name in a request stands for: itself, an exchange's, or a group's."""
        name = self._today(name)
        if name in self.health:
            return [name]
        if name in self._groups:
            return [lane for each in self._group(name) for lane in self._named(each)]
        return self._by_exchange.get(name, [])

    def _today(self, name: str) -> str:
        """A name in a request; today's where it is the old one of an exchange, and no lane or group has it."""
        return name if name in self.health or name in self._groups else old_names.today(name)

    def _group(self, name: str) -> Sequence[str]:
        return self._groups[name].exchanges if name in self._groups else [name]


def _has(lane: LaneHealth, method: str) -> bool:
    return lane.methods is None or method in lane.methods


def _ready(lanes: Sequence[LaneHealth], now_s: float, now_ms: int) -> Sequence[LaneHealth]:
    """The lanes that a worker serves and that are not paused."""
    return [lane for lane in lanes if now_s <= lane.silent_at_s and lane.paused_until_ms <= now_ms]


def _why(lanes: Sequence[LaneHealth], past: returns.Past, now_s: float, now_ms: int) -> str:
    reasons: list[str] = []
    for lane in lanes:
        if (why := lane.unopened(now_s)) is not None:
            reasons.append(f"{lane.name} has not opened: {why}")
        elif reason := lane.reason(now_s):
            reasons.append(f"{lane.name} is {lane.state(now_s)} ({reason})")
        elif (until_ms := max(lane.paused_until_ms, past.paused_until_ms.get(lane.name, 0))) > now_ms:
            by = f" ({lane.paused_by})" if lane.paused_by else ""
            reasons.append(f"{lane.name} is paused for {(until_ms - now_ms) / 1000:.1f} s more{by}")
        else:
            reasons.append(f"{lane.name} has no budget in time")
    return "no lane can take it before its deadline: " + ", ".join(reasons)


def _history(attempt: Attempt) -> str:
    """The last error, for the end of a message; the result lists all attempts."""
    if not attempt.tries:
        return ""
    last = attempt.tries[-1]
    return f"; last: {last.lane}: {last.message or last.code}"
