"""What `doctor` says of what it has seen. The servers' side is in tests/integration/test_commands.py."""

from typing import Any

import msgspec
import pytest

from schemas import topology
from schemas.operator import doctor, ill_rabbitmq, ill_redis, output
from schemas.operator.picture import Picture
from schemas.operator.shapes import Finding, LaneView, QueueView, ServerView
from schemas.reports import LaneReport, Report
from schemas.runtime.presence import Presence
from schemas.status import ConfigurationStatus, DispatcherStatus, ProcessStatus, ServedLane, WorkerStatus
from schemas.topology import DEAD, RESULTS, RETURNED

HEALTHY: dict[str, Any] = {
    "redis_version": "7.0.15", "maxmemory_policy": "noeviction", "maxmemory": 0, "used_memory": 1, "aof_enabled": 1,
    "role": "master",
}  # fmt: skip


def wrong(findings: list[Finding]) -> list[str]:
    return [each.says for each in findings if each.level == "wrong"]


@pytest.mark.parametrize(
    ("said", "level"),
    [("RabbitMQ 3.9.1", "wrong"), ("RabbitMQ 3.10.8", "ok"), ("RabbitMQ 3.13.7", "ok"), ("RabbitMQ 4.1.0", "ok")],
)
def test_rabbitmq_s_version(said: str, level: str) -> None:
    assert ill_rabbitmq.version(said).level == level


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({}, ""),
        ({"redis_version": "6.2.1"}, "too old"),
        ({"valkey_version": "7.2.5"}, "too old"),
        ({"valkey_version": "9.0.0"}, ""),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 100}, "a budget that is evicted is forgotten"),
        ({"maxmemory": 100, "used_memory": 95}, "95% of maxmemory"),
        ({"rdb_last_bgsave_status": "err"}, "it refuses writes until one succeeds"),
        ({"loading": 1}, "is loading"),
        ({"role": "slave"}, "is a replica"),
    ],
)
def test_redis(info: dict[str, Any], says: str) -> None:
    findings = list(ill_redis.findings({**HEALTHY, **info}, {"save": "3600 1"}))
    said = wrong(findings)
    assert len(said) == bool(says)
    assert all(says in each for each in said)
    assert all(each.do for each in findings if each.level == "wrong")


def test_a_snapshot_that_failed_where_none_are_made_any_more() -> None:
    info = {**HEALTHY, "aof_enabled": 0, "rdb_last_bgsave_status": "err", "aof_last_write_status": "err"}
    assert wrong(list(ill_redis.findings(info, {"save": ""}))) == []
    assert wrong(list(ill_redis.findings(info, {})))  # it does not say whether it makes some


def test_a_policy_without_a_limit_is_worth_a_note() -> None:
    findings = list(ill_redis.findings({**HEALTHY, "maxmemory_policy": "allkeys-lru"}, {}))
    assert wrong(findings) == []
    assert [each.level for each in findings if "evicted" in each.says] == ["note"]


@pytest.mark.parametrize(
    ("least_s", "most_s", "says"),
    [(-0.2, 0.9, "agrees"), (0.5, 0.6, "agrees"), (1.5, 2.5, "1.5 s ahead of"), (-9.0, -8.0, "8.0 s behind")],
)
def test_clocks(least_s: float, most_s: float, says: str) -> None:
    finding = doctor.clock("Redis's", least_s, most_s)
    assert says in finding.says
    assert finding.level == ("ok" if says == "agrees" else "wrong")


def process(name: str, service: str, **changed: Any) -> ProcessStatus:
    status = ProcessStatus(service, name, 1, "", ConfigurationStatus("abc", 1), True, 1, "0.1.0")
    return msgspec.structs.replace(status, **changed)


def worker(name: str, *lanes: ServedLane, ccxt: str = "4.5.90", **changed: Any) -> WorkerStatus:
    return WorkerStatus(process(name, "workers", **changed), ccxt, True, list(lanes))


def picture(*workers: WorkerStatus) -> Picture:
    seen = Picture()
    seen.rabbitmq = ServerView("h:1", "RabbitMQ 4.0")
    seen.queues = {RETURNED: QueueView(RETURNED, 0, 2), DEAD: QueueView(DEAD, 0, 0)}
    seen.presence = Presence([DispatcherStatus(process("d-1", "dispatcher"), [])], list(workers))
    return seen


def test_processes_that_differ() -> None:
    assert wrong(list(doctor.of_fleet(picture(worker("w-1"), worker("w-2"))))) == []
    cases: list[tuple[dict[str, Any], str]] = [
        ({"version": "0.2.0"}, "processes differ: 0.1.0, 0.2.0"),
        ({"ccxt": "4.5.91"}, "processes differ: 4.5.90, 4.5.91"),
        ({"configuration": ConfigurationStatus("xyz", 1)}, "processes differ: abc, xyz"),
        ({"configuration": ConfigurationStatus("abc", 1, "lanes.x: wrong", 1)}, "w-2 refuses its configuration file"),
        ({"unready": "no connection to RabbitMQ"}, "w-2 does not serve: no connection to RabbitMQ"),
    ]
    for changed, says in cases:
        said = wrong(list(doctor.of_fleet(picture(worker("w-1"), worker("w-2", **changed)))))
        assert [each for each in said if says in each], said


def test_a_lane_that_has_not_opened_by_any_way_of_hearing_it() -> None:
    says = "it has not opened: no route to host (www.okx.com:443)"
    lane = ServedLane("okx", "okx", False, "no route to host (www.okx.com:443)", 0, 0, 0, "shared", None)
    by_redis = picture(worker("w-1", lane))
    by_report = picture(worker("w-1"))
    by_report.observe(Report("w-1", 0, [], unopened={"okx": lane.error}), 0, 0)
    for seen in (by_redis, by_report):
        assert [each.reason for each in seen.lanes()] == [says]
        assert says in wrong(list(doctor.of_fleet(seen)))[0]


def test_a_worker_without_redis_and_one_with_a_wrong_clock() -> None:
    seen = picture(worker("w-1"))
    seen.observe(Report("w-1", 0, [LaneReport("okx", own_part=0.5)]), 0, 5_000)
    said = wrong(list(doctor.of_fleet(seen)))
    assert any("the one of w-1 is 5.0 s behind" in each for each in said)
    assert any("keeps to its share of the limits of okx" in each for each in said)


def test_what_is_not_known_is_not_wrong() -> None:
    seen = Picture()
    seen.rabbitmq = ServerView("h:1", error="RabbitMQ at h:1: connection refused")
    seen.redis = ServerView("h:2", error="Redis at h:2: connection refused")
    assert list(doctor.of_fleet(seen)) == []
    without_redis = picture(worker("w-1"))
    without_redis.redis = seen.redis
    without_redis.observe(Report("w-1", 0, [LaneReport("okx")]), 0, 0)
    said = list(doctor.of_fleet(without_redis))
    assert wrong(said) == []
    assert [each.says for each in said if each.about == "lanes"] == [
        "open at workers: okx; how dispatchers find them stands in Redis"
    ]


def test_nobody_is_there() -> None:
    seen = Picture()
    assert {each.about for each in doctor.of_fleet(seen) if each.level == "wrong"} == {"dispatchers", "workers"}
    seen.queues = {DEAD: QueueView(DEAD, 3, 0)}
    assert "dead letters" in {each.about for each in doctor.of_fleet(seen) if each.level == "wrong"}


@pytest.mark.parametrize(
    ("lane", "level"),
    [
        (LaneView("okx", "okx", "healthy"), None),
        (LaneView("okx", "okx", "healthy", paused_until_ms=2**50, paused_by="header"), "note"),
        (LaneView("okx", "okx", "healthy", unopened={"w": "refused"}), "note"),
        (LaneView("okx", "okx", "degraded", "slow", workers=1), "note"),
        (LaneView("okx", "okx", "maintenance", "it says so", workers=1), "note"),
        (LaneView("okx", "okx", "offline", "7 failures in a row", workers=1), "wrong"),
        (LaneView("okx", "okx", "offline", "no worker reports it"), "wrong"),
        (LaneView("okx", "okx", "unknown", "no dispatcher says how it is", workers=1), "wrong"),
    ],
)
def test_lanes(lane: LaneView, level: str | None) -> None:
    finding = doctor.of_lane(lane)
    assert (finding and finding.level) == level
    assert finding is None or finding.do


def test_a_queue_that_is_nearly_full() -> None:
    [queue] = [each for each in topology.queues(["okx"]) if each.name == "fleet.work.okx"]
    [finding] = ill_rabbitmq.full(queue, QueueView(queue.name, 45_000, 1))
    assert finding.level == "wrong"
    assert "full, it refuses" in finding.says
    [results] = [each for each in topology.QUEUES if each.name == RESULTS]
    assert [each.level for each in ill_rabbitmq.full(results, QueueView(RESULTS, 50_000, 0))] == ["note"]
    assert ill_rabbitmq.full(queue, QueueView(queue.name, 100, 1)) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_000, "1 d 1 h"), (86_405, "1 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text
