"""A worker's status from what it knows of its lanes."""

from collections.abc import Mapping, Sequence

from schemas.status import ServedLane


def unready(connected: bool, lanes: Sequence[ServedLane], *, has_none: bool = False) -> str:
    """Why a worker does not serve yet, in one line; empty if it does.

    Lanes that failed to open do not count as long as another one serves: an exchange that is down must not stop a
    deployment.

    Args:
        connected: whether its connections to RabbitMQ are up.
        lanes: all lanes that it should serve.
        has_none: others serve them all, and it stands by.
    """
    if not connected:
        return "no connection to RabbitMQ"
    if has_none:
        return ""
    if not lanes:
        return "its lanes are not made yet"
    if opening := [lane.lane for lane in lanes if not lane.open and not lane.error]:
        return f"no markets yet: {', '.join(opening)}"
    if not any(lane.open for lane in lanes):
        return f"no lane opens; {lanes[0].lane}: {lanes[0].error}"
    if not any(lane.open and lane.budget != "none" for lane in lanes):
        return "no budget: Redis is away"
    return ""


def budget(own_part: float | None) -> str:
    """The mode of a lane's budget: shared by all workers, this worker's own part, or none."""
    if own_part is None:
        return "shared"
    return "own part" if own_part else "none"


def lane(
    name: str,
    exchange: str,
    *,
    markets: int,
    methods: Sequence[str],
    in_flight: Mapping[str, int],
    error: str,
    own_part: float | None,
) -> ServedLane:
    """The status of one lane.

    Args:
        name: the lane's name.
        exchange: the ccxt id.
        markets: how many are known.
        methods: the ccxt methods that it has.
        in_flight: by lane, how many attempts are held; of open lanes alone.
        error: why it could not be opened.
        own_part: the part of every limit that this worker may use by itself; None while all share the whole.
    """
    return ServedLane(
        lane=name,
        exchange=exchange,
        open=name in in_flight,
        error=error,
        markets=markets,
        methods=len(methods),
        in_flight=in_flight.get(name, 0),
        budget=budget(own_part),
        budget_part=own_part,
    )
