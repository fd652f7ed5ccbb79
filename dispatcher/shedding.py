"""Which lanes can't meet a request's deadline, and so which requests are refused at once. Pure."""

from collections.abc import Sequence

from schemas.messages import Request

from .health import LaneHealth


def in_time(lanes: Sequence[LaneHealth], request: Request, left_ms: float, now_s: float) -> list[LaneHealth]:
    """The lanes that may answer one more before its deadline.

    A lane whose backlog is not known (see `Choice`), or of which no worker tells, may do it. A request that is refused
    at once can be asked elsewhere; one that waits in vain until its deadline makes those after it wait too.

    Args:
        lanes: all that could answer it.
        request: what is asked.
        left_ms: until its deadline.
        now_s: the clock of the lanes' health.
    """
    kind = request.kind
    return [lane for lane in lanes if lane.before_ms(kind) <= left_ms or lane.silent(now_s)]


def before_ms(lanes: Sequence[LaneHealth], request: Request) -> float:
    """How long what is with the best of these lanes, and waits for it, will take; 0 where that is not known."""
    return min(lane.before_ms(request.kind) for lane in lanes)
