"""What a dispatcher knows of one lane, put together from its workers' reports. Pure: the clock is an argument.

::

                no report in time
    offline ◀──────────────────────── serving, or aside as its circuit breaker says
    (silent) ───a worker reports it──▶

A lane's parts, each pure and in a file of its own:

- `evidence.py` counts what speaks against it, `suspects.py` what may be the requests' own fault;
- `circuit.py` sets it aside for that, and brings it back by trials and a slow start;
- `load.py` knows what is in flight and waits for it, and how long that takes.

While it serves, its share falls with its error rate, and with its latency relative to its own baseline. A lane without
a worker needs no trial, only a report. A pause that the exchange asked for is not ill health, and neither are requests
that the exchange rejects.
"""

import math
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from schemas.config import DispatcherConfig
from schemas.messages import Attempt, Bound, Request, Turn
from schemas.reports import LaneReport
from schemas.status import NOT_REPORTED, NOT_SERVED, OPENING

from .circuit import Circuit, State
from .evidence import Evidence
from .strategies import Choice
from .told import Change

# What a probe calls: the cheapest methods of an exchange. Its status also says whether it is in maintenance.
QUESTIONS: Final = ("fetch_status", "fetch_time")
# A lane that nobody asks is probed ever more seldom, at last after so many times `probe_every_s`: of what hundreds of
# lanes at rest cost, most is probes.
PROBES_LONGEST: Final = 2
# Nobody knows when a worker comes: requests for a silent lane look again after this time.
SILENT_RECHECK_S: Final = 1.0
# A lane that is slower than its baseline by less than this keeps its whole share.
SLOW_FREE: Final = 2.0
# A lane that serves keeps at least this part of its share: only calls show how it is.
LEAST_PART: Final = 0.1
# For so long after a pause was lifted, some workers may still report it.
LIFT_SPREADS_S: Final = 3.0


class Memory(Struct, frozen=True):
    """A lane's state for the next dispatcher, with times that another process can read.

    Args:
        aside: the state in which it is set aside, None if it serves.
        why: the reason.
        trial_at_ms: when its next trial is due, Unix milliseconds.
        trial_gap_s: the time between its trials now.
        latency_ms: its usual latency.
        budget_ms: how much time of its tightest limit one attempt takes.
        paused_until_ms: the exchange asked for silence until then.
        methods: what it can do, None if no worker said.
    """

    aside: State | None
    why: str
    trial_at_ms: int
    trial_gap_s: float
    latency_ms: float
    budget_ms: float
    paused_until_ms: int
    methods: list[str] | None


class Heard(Struct):
    """What is known of workers whichever lanes they serve.

    Args:
        at_s: when one of them last reported, by the lanes' clock.
    """

    at_s: float = -math.inf


class LaneHealth(Choice):
    """One lane. All times are seconds of one monotonic clock but those in `_ms`, which are Unix milliseconds.

    Args:
        name: the lane's name.
        weight: its configured weight.
        config: the thresholds.
        heard: when any worker reported last, shared by all lanes.

    Attributes:
        circuit: whether it is set aside, and its trials.
        serving: it is not set aside, so it takes its share if a worker serves it.
        silent_at_s: without another report no worker serves it from then on.
        paused_until_ms: the exchange asked for silence until then.
        paused_by: where the length of that pause is from.
        methods: what it can do; None until a worker said.
        open_from_ms: from then on it takes any request at once, until its next report; infinite where that needs a
            closer look (`takes`). It saves the router that look at each of hundreds of lanes.
    """

    def __init__(self, name: str, weight: float, config: DispatcherConfig, heard: Heard | None = None) -> None:
        super().__init__(name, weight)
        self._config = config
        self._heard = heard or Heard()
        self.circuit = Circuit(config)
        self._evidence = Evidence()
        self._reports: dict[str, tuple[float, LaneReport]] = {}  # by worker: the last one, and when it came
        self._resting: dict[str, LaneReport] = {}  # those of them that say of nothing
        self._unopened: dict[str, tuple[float, str]] = {}  # by worker: when it last said so, and why
        self._reported_s = 0.0
        self._asked_s = -math.inf
        self._probes_in_a_row = 0  # sent from here, without a request in between, nor one that had no answer
        self._well = True
        self.serving = True
        self.silent_at_s = -math.inf
        self.paused_until_ms = 0
        self.paused_by = ""
        self._lifted_ms, self._lifted_s = 0, -math.inf
        self.methods: frozenset[str] | None = None
        self.open_from_ms = math.inf

    def configure(self, weight: float, config: DispatcherConfig) -> None:
        """Takes other settings; what is known of the lane stays."""
        self._config = config
        self.circuit.configure(config)
        self.weight = weight
        self._weigh(self._reported_s)

    def observe(self, worker: str, report: LaneReport, now_s: float) -> None:
        """Takes in a worker's report of this lane."""
        circuit, evidence, config = self.circuit, self._evidence, self._config
        passed_s = max(0.0, now_s - self._reported_s)
        reports = self._keep(worker, report, now_s)
        if report.ok or report.failed or report.rejected:
            self._asked_s = now_s
        if report.failed or report.throttled:
            self._probes_in_a_row = 0
        if report.methods is not None:
            self.methods = frozenset(report.methods)
        self._follow_pause(report, now_s)
        in_flight, out = sum(each.in_flight for each in reports), sum(each.unanswered for each in reports)
        self.load.observe(report, in_flight, out, passed_s, now_s)
        counted = circuit.count(report, now_s, probes=self._answers_probes)
        evidence.observe(counted.report, counted.ill, config.error_rate, now_s)
        if circuit.decide(counted, evidence, self.load, reports, now_s):
            evidence.forget()
            self.load.learn(report.exchange_ms, self.load.budget_ms)
        self._weigh(now_s)

    def rests(self, worker: str, report: LaneReport) -> bool:
        """Whether a worker's report says what its last one said: that nothing happens, in the same state."""
        return self._resting.get(worker) == report

    def beat(self, worker: str, now_s: float) -> bool:
        """A worker that serves it has nothing new to say of it; returns whether it is known to serve it."""
        if (last := self._reports.get(worker)) is None:  # the next report of all lanes has it again
            return False
        if self.serving and self.share == self.weight and not self.load.busy:
            self._reports[worker] = now_s, last[1]
            self.silent_at_s = now_s + self._config.silent_after_s
        else:  # time alone changes something
            self.observe(worker, last[1].at_rest(), now_s)
        return True

    def not_open(self, worker: str, why: str, now_s: float) -> None:
        """A worker should serve the lane and could not open it yet; `why` is empty where it has just begun."""
        self._unopened[worker] = now_s, why

    def unopened(self, now_s: float) -> str | None:
        """Why no worker could open it yet; None if one serves it, or none tries."""
        if not self.silent(now_s):
            return None
        self._unopened = {
            worker: (at_s, why)
            for worker, (at_s, why) in self._unopened.items()
            if now_s <= at_s + self._config.silent_after_s
        }
        if not self._unopened:
            return None
        return next((why for _, why in self._unopened.values() if why), OPENING)

    def _keep(self, worker: str, report: LaneReport, now_s: float) -> list[LaneReport]:
        """Keeps a worker's last report; gives those of all workers that still serve the lane."""
        self._reports[worker] = now_s, report
        self._resting.pop(worker, None)
        if not (report.in_flight or report.ok or report.buckets):
            rest = report.at_rest()
            if rest == (report if report.methods is None else replace(report, methods=None, knowledge="")):
                self._resting[worker] = rest
        self._reported_s = now_s
        self.silent_at_s = now_s + self._config.silent_after_s
        gone_s = now_s - self._config.silent_after_s
        for gone in [worker for worker, (at_s, _) in self._reports.items() if at_s < gone_s]:
            del self._reports[gone]
            self._resting.pop(gone, None)
        return [each for _, each in self._reports.values()]

    def _follow_pause(self, report: LaneReport, now_s: float) -> None:
        """Keeps the longest pause of all reports. Once one was lifted, reports from before that count no more."""
        if report.lifted_ms > self._lifted_ms:
            self._lifted_ms, self._lifted_s = report.lifted_ms, now_s
            self.paused_until_ms, self.paused_by = report.paused_until_ms, report.paused_by
        elif report.paused_until_ms > self.paused_until_ms and (
            report.lifted_ms == self._lifted_ms or now_s > self._lifted_s + LIFT_SPREADS_S
        ):
            self.paused_until_ms, self.paused_by = report.paused_until_ms, report.paused_by

    def _weigh(self, now_s: float) -> None:
        aside, load = self.circuit.aside, self.load
        self.serving = aside is None
        part = max(LEAST_PART, self._evidence.failures.part_left(self._config))
        part *= min(1.0, (SLOW_FREE / self.slowness) ** 2)
        self._well = part >= 0.5
        self.share = self.weight * max(LEAST_PART, part) * min(1.0, max(LEAST_PART, self.circuit.ramp(now_s)))
        if aside or load.crowded:
            self.open_from_ms = math.inf
        else:
            self.open_from_ms = max(self.paused_until_ms, load.waiting.last_ms, *load.no_budget_until_ms.values())

    @property
    def slowness(self) -> float:
        """Latency relative to its own baseline; 1 for a lane that is fast anyway."""
        return self._evidence.slowness(self.load.latency_ms)

    @property
    def _answers_probes(self) -> bool:
        return self.methods is not None and not self.methods.isdisjoint(QUESTIONS)

    def refused(self, request: Request, until_ms: int, bound: Bound | None, now_ms: int) -> None:
        """A worker returned an attempt unsent: there is no budget before this time, as `bound` has no room."""
        self.load.refused(request, until_ms, bound, now_ms)
        self.open_from_ms = max(self.open_from_ms, until_ms)
        self._line_grew()

    def again(self, attempt: Attempt, turn: Turn, bound: Bound) -> Turn:
        """Gives another turn in the line to a request that found no room in its own: see `Waiting.again`."""
        turn = self.load.waiting.again(attempt, turn, bound)
        self._line_grew()
        return turn

    def come(self, attempt: Attempt, turn: Turn, lead_ms: float, now_ms: int) -> Turn | None:
        """A request that has a turn in the line passes by: see `Waiting.saw` and `Waiting.come`."""
        if turn.at_ms <= now_ms:
            return turn
        waiting = self.load.waiting
        waiting.saw(attempt, turn, now_ms)
        due = waiting.come(attempt, turn, self.load.usual_ms, lead_ms, now_ms)
        self._line_grew()
        return due

    def book(self, attempt: Attempt, now_ms: float) -> Turn | None:
        """Gives a turn in the line to a request: see `Waiting.book`."""
        turn = self.load.waiting.book(attempt, self.name, now_ms)
        self._line_grew()
        return turn

    def take_change(self, change: Change, now_ms: int) -> None:
        """Another dispatcher did this to its line of the lane: see `Waiting.take`."""
        self.load.waiting.take(change, now_ms)
        self._line_grew()

    def _line_grew(self) -> None:
        self.open_from_ms = max(self.open_from_ms, self.load.waiting.last_ms)

    def takes(self, request: Request, now_s: float, now_ms: int) -> bool:
        """Whether it takes its share of such requests now."""
        return (
            self.serving
            and now_s <= self.silent_at_s
            and self.paused_until_ms <= now_ms
            and self.load.funded(request, now_ms)
        )

    def forget(self, worker: str) -> None:
        """A worker has left."""
        self._reports.pop(worker, None)
        self._resting.pop(worker, None)
        last_s = max((at_s for at_s, _ in self._reports.values()), default=-math.inf)
        self.silent_at_s = last_s + self._config.silent_after_s

    def silent(self, now_s: float) -> bool:
        """Whether no worker serves the lane."""
        return now_s > self.silent_at_s

    def workers(self, now_s: float) -> int:
        """How many workers serve the lane."""
        return sum(at_s >= now_s - self._config.silent_after_s for at_s, _ in self._reports.values())

    def state(self, now_s: float) -> State:
        """The lane's state now."""
        if self.silent(now_s):
            return State.OFFLINE
        return self.circuit.aside or (State.HEALTHY if self._well else State.DEGRADED)

    def due(self, now_s: float) -> bool:
        """Whether it is set aside and a trial is due."""
        return self.circuit.due(now_s) and not self.silent(now_s)

    def tries(self, attempt: Attempt) -> bool:
        """Whether an attempt may be the trial that is due; any may where a probe has nothing to ask."""
        return not self._answers_probes or self.circuit.tries(attempt, self.name)

    def last_resort(self, now_s: float) -> bool:
        """Whether it is set aside but takes requests that have no other lane."""
        return self.circuit.aside is State.DEGRADED and not self.silent(now_s)

    def sent(self, now_s: float, *, bulk: bool = False, tries: bool = True, probe: bool = False) -> bool:
        """An attempt or a probe was sent there; returns whether it is a trial. Only one that `tries` can be."""
        if not bulk:
            self.load.sent()
            if self.load.crowded:
                self.open_from_ms = math.inf
        self._asked_s = now_s
        self._probes_in_a_row = self._probes_in_a_row + 1 if probe else 0
        return tries and self.circuit.sent(now_s, probe=probe, timeout_s=self.trial_timeout_s)

    @property
    def trial_timeout_s(self) -> float:
        """How long a trial may take where another lane could answer: long enough for a lane that is slow by nature."""
        return max(self._config.trial_timeout_s, 2 * self.load.usual_ms / 1000)

    def probe_every_s(self, now_s: float) -> float | None:
        """The time for which no other dispatcher sends a probe, if one is due; else None."""
        if self.circuit.aside:
            return self._config.trial_after_s if self.circuit.due(now_s) else None
        if self.unproven(now_s):
            return self._config.trial_after_s
        every_s = self._config.probe_every_s * min(1 + self._probes_in_a_row, PROBES_LONGEST)
        return every_s if now_s >= self._asked_s + every_s else None

    def unproven(self, now_s: float) -> bool:
        """Whether only a probe can tell how the lane is: its requests fail by their own fault, and none is answered."""
        return self._evidence.failures.unproven(now_s)

    def usable_in_s(self, now_s: float) -> float:
        """The time until a request that has no other lane may be sent there, pauses apart."""
        return SILENT_RECHECK_S if self.silent(now_s) else self.circuit.opens_in_s(now_s)

    def usable_in_ms(self, now_s: float, now_ms: int, *, not_before_ms: float = 0) -> float:
        """The same in milliseconds, with pauses, and no sooner than the request itself may be sent."""
        until_ms = max(self.paused_until_ms, not_before_ms)
        return max(0.0, until_ms - now_ms, self.usable_in_s(now_s) * 1000)

    def memory(self, now_s: float, now_ms: int) -> Memory:
        """The lane's memory for the next dispatcher."""
        circuit = self.circuit
        return Memory(
            aside=circuit.aside,
            why=circuit.why,
            trial_at_ms=now_ms + int(max(0.0, circuit.trial_at_s - now_s) * 1000),
            trial_gap_s=circuit.trial_gap_s,
            latency_ms=self.load.usual_ms,
            budget_ms=self.load.budget_ms,
            paused_until_ms=self.paused_until_ms,
            methods=None if self.methods is None else sorted(self.methods),
        )

    def remember(self, memory: Memory, now_s: float, now_ms: int) -> None:
        """Restores another dispatcher's memory. The lane still gets nothing before a worker reports it."""
        trial_at_s = now_s + (memory.trial_at_ms - now_ms) / 1000
        self.circuit.restore(memory.aside, memory.why, trial_at_s, memory.trial_gap_s)
        self.load.learn(memory.latency_ms, memory.budget_ms)
        self.paused_until_ms = memory.paused_until_ms
        self.methods = None if memory.methods is None else frozenset(memory.methods)
        self._weigh(now_s)

    def reason(self, now_s: float) -> str:
        """Why it is not healthy, for logs and error messages; empty if it is."""
        if self.silent(now_s):
            if (why := self.unopened(now_s)) is not None:
                return f"it has not opened: {why}"
            return NOT_SERVED if now_s <= self._heard.at_s + self._config.silent_after_s else NOT_REPORTED
        if self.circuit.aside:
            return self.circuit.why
        if self._well:
            return ""
        calls, failures = self._evidence.failures.total()
        return f"{failures} of {calls} calls failed, {self.slowness:.1f} times slower than it was"
