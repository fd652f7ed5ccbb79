"""A worker's status from what it knows of its lanes."""

from collections.abc import Mapping, Sequence

from schemas.status import ServedLane


def unready(connected: bool, lanes: Sequence[ServedLane]) -> str:
    """Why a worker does not serve yet, in one line; empty if it does.

    A lane that was tried in vain is waited for no more, as long as another one serves: an exchange that is down must
    not stop a roll-out.

    Args:
        connected: whether its connections to RabbitMQ stand.
        lanes: all that it should serve.
    """
    if not connected:
        return "no connection to RabbitMQ"
    if opening := [lane.lane for lane in lanes if not lane.open and not lane.error]:
        return f"no markets yet: {', '.join(opening)}"
    if not any(lane.open for lane in lanes):
        return f"no lane opens; {lanes[0].lane}: {lanes[0].error}"
    if not any(lane.open and lane.budget != "none" for lane in lanes):
        return "no budget: Redis is away"
    return ""


def budget(own_part: float | None) -> str:
    """How a lane's budget is used, by the part that this worker may use by itself."""
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
    """What there is to say of one lane.

    Args:
        name: the lane's name.
        exchange: the ccxt id.
        markets: how many are known.
        methods: those that it has.
        in_flight: attempts with it, for lanes that are open.
        error: why it does not open.
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
