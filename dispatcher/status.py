"""A dispatcher's status from what it knows of its lanes. Pure: the clocks are arguments."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from schemas.config import LaneConfig
from schemas.status import RoutedLane

from .circuit import State
from .health import LaneHealth


class Since(Struct, frozen=True):
    """A lane's state, and since when by the wall clock."""

    state: State
    at_ms: int


def lanes(
    known: Iterable[LaneHealth],
    configured: Mapping[str, LaneConfig],
    since: Mapping[str, Since],
    now_s: float,
    now_ms: int,
) -> list[RoutedLane]:
    """The status of each lane.

    Args:
        known: the lanes' health.
        configured: the lanes' configuration.
        since: the states in which they were last seen.
        now_s: the monotonic clock of their health.
        now_ms: the wall clock.
    """
    return [_lane(lane, configured[lane.name], since.get(lane.name), now_s, now_ms) for lane in known]


def _lane(lane: LaneHealth, config: LaneConfig, since: Since | None, now_s: float, now_ms: int) -> RoutedLane:
    state, silent = lane.state(now_s), lane.silent(now_s)
    return RoutedLane(
        lane=lane.name,
        exchange=config.known_as,
        state=state,
        reason=lane.reason(now_s),
        since_ms=since.at_ms if since and since.state is state else now_ms,
        trial_in_s=None if silent or lane.serving else round(max(0.0, lane.circuit.trial_at_s - now_s), 3),
        paused_until_ms=lane.paused_until_ms if lane.paused_until_ms > now_ms else None,
        paused_by=lane.paused_by if lane.paused_until_ms > now_ms else "",
        weight=lane.weight,
        share=round(lane.share, 3) if lane.serving and not silent else 0.0,
        workers=lane.workers(now_s),
        in_flight=lane.load.outstanding,
        waiting=lane.load.waiting.count,
        latency_ms=round(lane.load.latency_ms, 3),
        methods=None if lane.methods is None else len(lane.methods),
    )
