"""What to do with a request: send it to a lane, let it wait, or end it. Pure: the clock is an argument."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from schemas.config import DispatcherConfig, LaneConfig
from schemas.messages import Attempt, ErrorCode, Outcome, Request, Try

from .health import LaneHealth
from .strategies import Chooser

# The lane will never be able to answer this request; another may.
_NEVER_HERE: Final = frozenset({ErrorCode.BAD_SYMBOL, ErrorCode.NOT_SUPPORTED})
# The first wait before a lane that failed a request may have it again, doubled with every attempt.
RETRY_MS: Final = 250
# Below this there is no waiting room that would bring the request back in time.
SHORTEST_WAIT_MS: Final = 250


class Send(Struct, frozen=True):
    """Send it to this lane now.

    Args:
        lane: where.
        trial: it finds out whether a lane that is offline is back; that costs none of the attempts a request has.
        max_wait_ms: it comes back if there is no budget so soon; None leaves it to the worker.
    """

    lane: str
    trial: bool = False
    max_wait_ms: float | None = None


class Wait(Struct, frozen=True):
    """Let it wait so long and decide again."""

    wait_ms: float


class End(Struct, frozen=True):
    """It ends with this error."""

    code: ErrorCode
    message: str


Decision: TypeAlias = Send | Wait | End


class Router:
    """Chooses lanes, over the configured lanes and their health."""

    def __init__(self, config: DispatcherConfig, lanes: Mapping[str, LaneConfig]) -> None:
        self._config = config
        self._lanes = lanes
        self._by_exchange: dict[str, list[str]] = {}
        for name, lane in lanes.items():
            self._by_exchange.setdefault(lane.exchange, []).append(name)
        self._chooser = Chooser({name: lane.weight for name, lane in lanes.items()})
        self.health = {name: LaneHealth(config) for name in lanes}

    def candidates(self, request: Request) -> list[str] | End:
        """The lanes a request names, in its order, that have its method; or why there are none."""
        named = list(self._lanes)
        if request.exchanges:
            named.clear()
            for name in request.exchanges:
                lanes = [name] if name in self._lanes else self._by_exchange.get(name)
                if lanes is None:
                    known = ", ".join(sorted({*self._lanes, *self._by_exchange}))
                    return End(ErrorCode.UNKNOWN_EXCHANGE, f"no lane reaches {name!r}; this fleet has {known}")
                named += [lane for lane in lanes if lane not in named]
        able = [lane for lane in named if self._has(lane, request.method)]
        if not able:
            return End(ErrorCode.NOT_SUPPORTED, f"none of {', '.join(named)} has {request.method!r} in ccxt")
        return able

    def decide(self, attempt: Attempt, now_s: float, now_ms: int, *, rested: bool) -> Decision:
        """What to do with a request now.

        Args:
            attempt: the request and what was tried so far.
            now_s: the monotonic clock of the lanes' health.
            now_ms: the wall clock of deadlines.
            rested: whether it has just waited, so that a lane that failed it may have it again.
        """
        left_ms = attempt.deadline_ms - now_ms
        if left_ms <= 0:
            return End(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed" + _history(attempt))
        candidates = self.candidates(attempt.request)
        if isinstance(candidates, End):
            return candidates
        last = {item.lane: item for item in attempt.tries}
        able = [lane for lane in candidates if lane not in last or last[lane].code not in _NEVER_HERE]
        if not able:
            final = attempt.tries[-1]
            return End(final.code or ErrorCode.INTERNAL, f"no lane can answer it{_history(attempt)}")
        if attempt.number >= self._config.max_attempts:
            return End(ErrorCode.ATTEMPTS_EXHAUSTED, f"{attempt.number} attempts failed{_history(attempt)}")
        failed = {lane for lane, item in last.items() if item.outcome is Outcome.FAILED}
        free = [lane for lane in able if self._free(lane, last.get(lane), now_s, now_ms)]
        fresh = [lane for lane in free if lane not in failed]
        if choice := fresh or (free if rested else []):
            method = attempt.request.method
            funded = [lane for lane in choice if self.health[lane].has_budget(method, now_ms)]
            lane = self._chooser.choose(attempt.request.strategy or self._config.strategy, funded or choice)
            trial = self.health[lane].sent(now_s)
            return Send(lane, trial, self._config.wait_with_others_s * 1000 if len(funded) > 1 else None)
        # What is free here has failed it just now: once more after a rest, unless a better lane comes back before.
        rest_ms = RETRY_MS * 2 ** max(0, attempt.number - 1)
        wait_ms = min(rest_ms if lane in free else self._wait_ms(lane, last.get(lane), now_s, now_ms) for lane in able)
        if max(wait_ms, SHORTEST_WAIT_MS) > left_ms:
            return End(ErrorCode.DEADLINE_EXCEEDED, f"{self._why(able, now_s, now_ms)}{_history(attempt)}")
        return Wait(wait_ms)

    def _has(self, lane: str, method: str) -> bool:
        methods = self.health[lane].methods
        return methods is None or method in methods

    def _free(self, lane: str, last: Try | None, now_s: float, now_ms: int) -> bool:
        health = self.health[lane]
        return (
            health.takes(now_s)
            and health.paused_until_ms <= now_ms
            and (last is None or (last.retry_at_ms or 0) <= now_ms)
        )

    def _wait_ms(self, lane: str, last: Try | None, now_s: float, now_ms: int) -> float:
        health = self.health[lane]
        until_ms = max(health.paused_until_ms, (last.retry_at_ms or 0) if last else 0)
        return max(0.0, until_ms - now_ms, health.usable_in_s(now_s) * 1000)

    def _why(self, lanes: Sequence[str], now_s: float, now_ms: int) -> str:
        reasons: list[str] = []
        for lane in lanes:
            health = self.health[lane]
            if reason := health.reason(now_s):
                reasons.append(f"{lane} is offline ({reason})")
            elif health.paused_until_ms > now_ms:
                reasons.append(f"{lane} is paused for {(health.paused_until_ms - now_ms) / 1000:.1f} s more")
            else:
                reasons.append(f"{lane} has no budget in time")
        return "no lane can take it before its deadline: " + ", ".join(reasons)


def _history(attempt: Attempt) -> str:
    """The last error, for the end of a message; the result lists all attempts anyway."""
    if not attempt.tries:
        return ""
    last = attempt.tries[-1]
    return f"; last: {last.lane}: {last.message or last.code}"
