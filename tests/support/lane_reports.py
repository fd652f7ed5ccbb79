"""A lane for unit tests of its health, and the reports that its workers may send."""

from dispatcher.circuit import State
from dispatcher.health import LaneHealth
from schemas.config import DispatcherConfig
from schemas.messages import ErrorCode
from schemas.reports import LaneReport

CONFIG = DispatcherConfig(failures_in_a_row=5, silent_after_s=1.5, trial_after_s=1.0, trial_after_max_s=4.0)
DOWN = ErrorCode.EXCHANGE_UNAVAILABLE


def new() -> LaneHealth:
    """A lane that no worker has reported yet."""
    return LaneHealth("okx", 2.0, CONFIG)


def ok(count: int = 1, row: int = 0, latency_ms: float = 100.0, slowness: float = 1.0) -> LaneReport:
    """Good calls."""
    return LaneReport("okx", ok=count, failures_in_a_row=row, exchange_ms=latency_ms, slowness=slowness)


def bad(count: int, row: int, code: ErrorCode = DOWN, ago_s: float = 0.0) -> LaneReport:
    """Failures, so many of them in a row, the last one sent so long ago."""
    return LaneReport("okx", failed={code: count}, failures_in_a_row=row, failed_ago_ms=ago_s * 1000)


def mixed(good: int, failed: int) -> LaneReport:
    """Good calls and failures."""
    return LaneReport("okx", ok=good, failed={DOWN: failed}, failures_in_a_row=1, exchange_ms=100.0)


def failing() -> LaneHealth:
    """A lane that is offline since 0 s."""
    health = new()
    health.observe("w1", bad(5, 5), 0.0)
    assert health.state(0.0) is State.OFFLINE
    return health


def erring() -> LaneHealth:
    """A lane that is degraded since 0 s."""
    health = new()
    health.observe("w1", mixed(7, 3), 0.0)
    assert health.state(0.0) is State.DEGRADED
    return health
