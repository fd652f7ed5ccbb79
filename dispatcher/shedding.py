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
    return [
        lane
        for lane in lanes
        # Mostly nothing waits, and each request comes by here for each lane.
        if (lane.backlog_ms + lane.waiting_ms.get(kind, 0.0) if lane.waiting_ms else lane.backlog_ms) <= left_ms
        or now_s > lane.silent_at_s
    ]


def before_ms(lanes: Sequence[LaneHealth], request: Request) -> float:
    """How long what is with the best of these lanes, and waits for it, will take; 0 where that is not known."""
    return min(lane.backlog_ms + lane.waiting_ms.get(request.kind, 0.0) for lane in lanes)
