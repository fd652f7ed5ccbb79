"""Why a request ends without an answer, in words for its caller. Pure."""

from collections.abc import Sequence

from schemas.messages import Attempt

from .health import LaneHealth
from .returns import Past


def no_lane(lanes: Sequence[LaneHealth], past: Past, now_s: float, now_ms: int) -> str:
    """Why none of these lanes takes a request in time.

    Args:
        lanes: those that could answer it.
        past: what was tried.
        now_s: the monotonic clock of the lanes' health.
        now_ms: the wall clock.
    """
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


def last_error(attempt: Attempt) -> str:
    """The last error, for the end of a message; the result lists all attempts."""
    if not attempt.tries:
        return ""
    last = attempt.tries[-1]
    return f"; last: {last.lane}: {last.message or last.code}"
