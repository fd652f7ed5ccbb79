"""When a dispatcher probes a lane, and what it asks."""

import pytest

from dispatcher import probes
from dispatcher.health import LaneHealth
from schemas.config import DispatcherConfig
from schemas.messages import ErrorCode
from schemas.reports import LaneReport

CONFIG = DispatcherConfig(probe_every_s=10.0)
NOW_MS = 1_000_000
DOWN = ErrorCode.EXCHANGE_UNAVAILABLE


def lane(*methods: str, paused_until_ms: int = 0) -> LaneHealth:
    health = LaneHealth("okx", 1.0, CONFIG)
    health.observe("w1", LaneReport("okx", methods=[*methods], paused_until_ms=paused_until_ms), 100.0)
    return health


def due(health: LaneHealth, now_s: float = 100.0) -> list[str]:
    return [probe.method for probe in probes.due({"okx": health}, now_s, NOW_MS)]


def test_the_status_is_asked_for_else_the_time() -> None:
    assert due(lane("fetch_time", "fetch_status")) == ["fetch_status"]
    assert due(lane("fetch_time")) == ["fetch_time"]
    assert due(lane("fetch_ticker")) == []


@pytest.mark.parametrize(("code", "method"), [(DOWN, "fetch_time"), (ErrorCode.MAINTENANCE, "fetch_status")])
def test_a_trial_asks_for_the_time_and_in_maintenance_for_the_status(code: ErrorCode, method: str) -> None:
    health = lane("fetch_time", "fetch_status")
    health.observe("w1", LaneReport("okx", failed={code: 5}, failures_in_a_row=5), 101.0)
    health.observe("w1", LaneReport("okx", failures_in_a_row=5), 103.0)
    assert due(health, 103.0) == [method]


def test_what_was_asked_lately_is_silent_or_paused_is_not_probed() -> None:
    health = lane("fetch_time")
    health.sent(100.0)
    assert due(health) == []
    assert due(lane("fetch_time"), 200.0) == []
    assert due(lane("fetch_time", paused_until_ms=NOW_MS + 1)) == []
    assert due(LaneHealth("okx", 1.0, CONFIG)) == []


def test_a_probe_is_an_attempt_without_a_reply_address() -> None:
    (probe,) = probes.due({"okx": lane("fetch_status")}, 100.0, NOW_MS)
    attempt = probes.attempt(probe, NOW_MS, 2.0, trial=True)
    assert (attempt.lane, attempt.probe, attempt.trial, attempt.deadline_ms) == ("okx", True, True, NOW_MS + 2_000)
