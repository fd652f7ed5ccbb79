"""Alerts fire when they should and not before, by promtool: each has one case of each kind. Needs no servers."""

import json
import re
from pathlib import Path

import pytest
from msgspec import Struct

from tests.support.prometheus import RULES, promtool

TEXT = RULES.read_text(encoding="utf-8")
# Series are written as promtool's: "first + step x count"; the steps are minutes.
UP = {"fleet_dispatcher_blocked": "0x60", "fleet_worker_blocked": "0x60"}
TAKEN = {"fleet_requests_total": "0+600x60"}
OKX = 'lane="okx"'


class Case(Struct, frozen=True):
    """One alert.

    Args:
        fires: the series by which it fires.
        says: the summary by which it says so.
        calm: the series by which it does not.
        labels: its labels beside name and severity.
        severity: the severity.
        at: when both are looked at.
    """

    fires: dict[str, str]
    says: str
    calm: dict[str, str]
    labels: dict[str, str] = {}
    severity: str = "warning"
    at: str = "30m"


def failing(failed: int) -> dict[str, str]:
    """The attempts of a lane of which so many of 100 fail."""
    return {
        f'fleet_attempts_total{{{OKX},outcome="ok",code="none"}}': f"0+{100 - failed}x60",
        f'fleet_attempts_total{{{OKX},outcome="failed",code="exchange_unavailable"}}': f"0+{failed}x60",
        f'fleet_attempts_total{{{OKX},outcome="throttled",code="no_budget"}}': "0+100x60",
    }


def ready(queue: str, values: str) -> dict[str, str]:
    """The messages in a queue."""
    return {f'rabbitmq_detailed_queue_messages_ready{{queue="{queue}"}}': values}


def dispatched(within_s: str) -> dict[str, str]:
    """Messages that all took a dispatcher up to so long."""
    bounds = ("0.5", "1.0", "2.5", "+Inf")
    first = bounds.index(within_s)
    return {
        f'fleet_dispatch_seconds_bucket{{le="{bound}"}}': f"0+{100 if number >= first else 0}x60"
        for number, bound in enumerate(bounds)
    }


CASES = {
    "FleetHasNoDispatcher": Case(
        {"fleet_worker_blocked": "0x60"},
        "Prometheus sees no dispatcher. Requests wait in fleet.requests.",
        UP,
        severity="critical",
        at="2m",
    ),
    "FleetHasNoWorker": Case(
        {"fleet_dispatcher_blocked": "0x60"},
        "Prometheus sees no worker. No request is answered with data.",
        UP,
        severity="critical",
        at="2m",
    ),
    "FleetHasOneDispatcher": Case(
        {'fleet_dispatcher_blocked{instance="a"}': "0x60"},
        "One dispatcher is left. If it ends, requests wait until another one starts.",
        {'fleet_dispatcher_blocked{instance="a"}': "0x60", 'fleet_dispatcher_blocked{instance="b"}': "0x60"},
    ),
    "FleetHasTooFewWorkers": Case(
        {"fleet_workers_wanted": "4x60", 'fleet_worker_blocked{instance="b"}': "0x60"},
        "For 15 minutes the budgets could have used more workers, 3 more now.",
        {"fleet_workers_wanted": "1x60", 'fleet_worker_blocked{instance="b"}': "0x60"},
    ),
    "FleetProcessSilent": Case(
        {'up{job="ccxt-fleet-worker",instance="a:9102"}': "0x60"},
        "a:9102 does not answer Prometheus.",
        {'up{job="ccxt-fleet-worker",instance="a:9102"}': "1x24 0x2 1x60", 'up{job="other"}': "0x60"},
        {"job": "ccxt-fleet-worker", "instance": "a:9102"},
    ),
    "FleetProcessRestarts": Case(
        {'process_start_time_seconds{job="ccxt-fleet-worker",instance="a:9102"}': "1x5 2x5 3x5 4x5 5x60"},
        "a:9102 was started 4 times in half an hour.",
        {'process_start_time_seconds{job="ccxt-fleet-worker",instance="a:9102"}': "1x5 2x5 3x60"},
        {"job": "ccxt-fleet-worker", "instance": "a:9102"},
    ),
    "FleetHasNoHealthyLane": Case(
        {'fleet_lane_healthy{lane="okx"}': "0x60", 'fleet_lane_healthy{lane="kraken"}': "0x60"},
        "No lane is healthy. Requests wait, and fail at their deadlines.",
        {'fleet_lane_healthy{lane="okx"}': "0x60", 'fleet_lane_healthy{lane="kraken"}': "1x60"},
        severity="critical",
    ),
    "FleetLaneIll": Case(
        {'fleet_lane_healthy{lane="okx",instance="a"}': "0x60", 'fleet_lane_healthy{lane="okx",instance="b"}': "0x60"},
        "Lane okx has not been healthy for 5 minutes.",
        # A dispatcher that has just started sees no lane.
        {'fleet_lane_healthy{lane="okx",instance="a"}': "0x60", 'fleet_lane_healthy{lane="okx",instance="b"}': "1x60"},
        {"lane": "okx"},
    ),
    "FleetLanePaused": Case(
        {'fleet_lane_paused{lane="okx"}': "1x60"},
        "The exchange of okx has wanted no calls for 15 minutes; it may have banned the address.",
        {'fleet_lane_paused{lane="okx"}': "1x20 0x5 1x60"},
        {"lane": "okx"},
    ),
    "FleetAttemptsFail": Case(
        failing(30),
        "30% of the calls of okx fail.",
        failing(10),  # attempts that were not sent are no failures, and no calls
        {"lane": "okx"},
    ),
    "FleetLimitLearned": Case(
        {'fleet_budget_effective_ratio{lane="okx",bucket="ip"}': "0.81x60"},
        'okx said "too many calls" within our limits: its bucket ip is down to 81%.',
        {'fleet_budget_effective_ratio{lane="okx",bucket="ip"}': "0.95x60"},
        {"lane": "okx", "bucket": "ip"},
    ),
    "FleetRequestsFail": Case(
        {**TAKEN, 'fleet_requests_ended_total{code="deadline_exceeded"}': "0+120x60"},
        "20% of all requests end in an error of the dispatchers.",
        TAKEN,
    ),
    "FleetDispatchSlow": Case(
        dispatched("2.5"), "One message in a hundred spends 2.485s in a dispatcher, or more.", dispatched("0.5")
    ),
    "FleetInternalErrors": Case(
        {f'fleet_attempts_total{{{OKX},outcome="failed",code="internal"}}': "0x20 1x60"},
        "Attempts on okx ended by a fault of the fleet's own.",
        {f'fleet_attempts_total{{{OKX},outcome="failed",code="internal"}}': "7x60"},
        {"lane": "okx"},
    ),
    "FleetDeadLetters": Case(
        {'fleet_dead_letters_total{reason="unreadable"}': "0x20 1x60"},
        "Messages went to fleet.dead (unreadable).",
        {'fleet_dead_letters_total{reason="unreadable"}': "7x60"},
        {"reason": "unreadable"},
    ),
    "FleetBudgetNotShared": Case(
        {f'fleet_budget_shared{{{OKX},instance="a"}}': "1x60", f'fleet_budget_shared{{{OKX},instance="b"}}': "0x60"},
        "Workers are without Redis. okx runs on shares for 5 minutes at most, and then stops.",
        {f"fleet_budget_shared{{{OKX}}}": "1x60"},
        {"lane": "okx"},
        severity="critical",
    ),
    "FleetRedisErrors": Case(
        {'fleet_redis_errors_total{kind="TimeoutError"}': "0+60x60"},
        "Redis answers with TimeoutError, 1 times a second.",
        {'fleet_redis_errors_total{kind="TimeoutError"}': "0+1x60"},
        {"kind": "TimeoutError"},
    ),
    "FleetPublishingBlocked": Case(
        {'fleet_dispatcher_blocked{instance="a"}': "0x60", 'fleet_worker_blocked{instance="b"}': "1x60"},
        "RabbitMQ takes no publishes. It is short of memory or disk space.",
        UP,
        severity="critical",
    ),
    "FleetResultsWait": Case(
        {
            'fleet_dispatcher_results_waiting{instance="a"}': "0x60",
            'fleet_worker_results_waiting{instance="b"}': "1500x60",
        },
        "A process holds 1500 results that RabbitMQ does not confirm; at 2,000 it takes no more work.",
        {"fleet_dispatcher_results_waiting": "0x60", "fleet_worker_results_waiting": "40x60"},
    ),
    "FleetRequestsNotTaken": Case(
        {'rabbitmq_detailed_queue_consumers{queue="fleet.requests"}': "0x60"},
        "No dispatcher takes requests from fleet.requests.",
        {'rabbitmq_detailed_queue_consumers{queue="fleet.requests"}': "1x60"},
        {"queue": "fleet.requests"},
        severity="critical",
    ),
    "FleetRequestsPileUp": Case(
        ready("fleet.requests", "6000x60"),
        "6000 requests wait for a dispatcher. At 100,000 producers are refused.",
        ready("fleet.requests", "400x60"),
        {"queue": "fleet.requests"},
    ),
    "FleetWorkPilesUp": Case(
        ready("fleet.work.okx", "800x60"),
        "800 attempts wait in fleet.work.okx: there are too few workers.",
        ready("fleet.work.okx", "20x60") | ready("fleet.work.okx.bulk", "9000x60"),  # bulk may wait
        {"queue": "fleet.work.okx"},
    ),
    "FleetDeadLettersLie": Case(
        ready("fleet.dead", "3x90"),
        "3 letters have been in fleet.dead for an hour.",
        ready("fleet.dead", "0x50 3x40"),
        severity="info",
        at="70m",
    ),
}


def test_every_alert_has_a_case() -> None:
    assert re.findall(r"- alert: (\w+)", TEXT) == list(CASES)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of promtool's tests, in the form of JSON, which YAML contains."""
    tests: list[dict[str, object]] = []
    for name, case in CASES.items():
        told = {
            "exp_labels": {"severity": case.severity, **case.labels},
            "exp_annotations": {"summary": case.says, "runbook_url": f"docs/runbook.md#{name.lower()}"},
        }
        for series, expected in ((case.fires, [told]), (case.calm, [])):
            tests.append(
                {
                    "name": f"{name} {'fires' if expected else 'does not fire'}",
                    "interval": "1m",
                    "input_series": [{"series": each, "values": values} for each, values in series.items()],
                    "alert_rule_test": [{"eval_time": case.at, "alertname": name, "exp_alerts": expected}],
                }
            )
    file = tmp_path_factory.mktemp("alerts") / "tests.yml"
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    file.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return file


def test_alerts_fire_when_they_should_and_not_before(found: Path) -> None:
    promtool("test", "rules", found)


def test_the_rules_and_the_shipped_configuration_are_right() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", RULES.with_name("prometheus.yml"))
