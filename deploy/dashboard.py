"""The dashboard of a fleet for Grafana, as classic JSON. `python -m deploy.dashboard` writes it, in a checkout.

It also writes the rules of `deploy/prometheus` as Prometheus's operator reads them in Kubernetes. Rows and panels stand
below as data. Their queries use what the rules record, and metrics of docs/operations.md; the lengths of queues are
RabbitMQ's own (`rabbitmq_prometheus`). A test asks a real Prometheus all of them.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

HERE: Final = Path(__file__).resolve().parent
DASHBOARD: Final = HERE / "grafana" / "ccxt-fleet.json"
RULE_OBJECT: Final = HERE / "kubernetes" / "production" / "rules.yaml"
RULE_HEAD: Final = """\
# deploy/prometheus/rules.yml for Prometheus's operator. `python -m deploy.dashboard` writes this file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: ccxt-fleet
spec:
"""
UID: Final = "ccxt-fleet"
# Of Grafana 10.0; later ones read it too.
SCHEMA_VERSION: Final = 38
_WIDTH: Final = 24
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_LANES: Final = 'lane=~"$lane"'


class Panel(Struct, frozen=True):
    """One panel.

    Args:
        title: its title.
        queries: by legend, PromQL; braces in a legend are labels.
        unit: Grafana's id of the unit.
        about: what it says, shown at the title.
        kind: Grafana's id of the kind of panel.
        width: of 24.
        height: in Grafana's steps.
    """

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    width: int = 8
    height: int = 7


def _number(title: str, query: str, unit: str = "short", about: str = "") -> Panel:
    return Panel(title, {"": query}, unit, about, kind="stat", width=3, height=4)


def _rate(metric: str, by: str, labels: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _of_lanes(metric: str, by: str = "lane") -> str:
    return _rate(metric, by, _LANES)


FLEET: Final = (
    _number("Dispatchers", "fleet:dispatchers:count"),
    _number("Workers", "fleet:workers:count"),
    _number(
        "Workers wanted", "max(fleet_workers_wanted)", about="As many as the open budgets and what waits could use."
    ),
    _number(
        "Not more, for budgets",
        'max(fleet_workers_wanted_bound{by="budget"})',
        about="1 while limits have no room: another worker would help nobody.",
    ),
    _number("Healthy lanes", "sum(lane:fleet_lane_healthy:max)"),
    _number("Requests", "fleet:fleet_requests:rate1m", "reqps"),
    _number("End in an error", "fleet:fleet_requests_ended:ratio5m", "percentunit", "Errors of the dispatchers alone."),
    _number("In a dispatcher, p99", "fleet:fleet_dispatch_seconds:p99_5m", "s"),
    Panel(
        "Requests",
        {
            "taken": "sum(rate(fleet_requests_total[$__rate_interval]))",
            "put into a delay queue": "sum(rate(fleet_waits_total[$__rate_interval]))",
            "ended: {{code}}": _rate("fleet_requests_ended_total", "code"),
        },
        "reqps",
    ),
    Panel(
        "CPU",
        {"{{instance}}": 'rate(process_cpu_seconds_total{job=~"ccxt-fleet.*"}[$__rate_interval])'},
        "percentunit",
        "Of one core. A process uses one core at most.",
    ),
    Panel("Memory", {"{{instance}}": 'process_resident_memory_bytes{job=~"ccxt-fleet.*"}'}, "bytes"),
)
LANES: Final = (
    Panel(
        "Healthy",
        {"{{lane}}": f"lane:fleet_lane_healthy:max{{{_LANES}}}"},
        about="1 while a dispatcher sees the lane healthy.",
        kind="state-timeline",
    ),
    Panel(
        "Share",
        {"{{lane}}": f"max by (lane) (fleet_lane_share{{{_LANES}}})"},
        about="Its weight less what its health takes from it; 0 while it is set aside.",
    ),
    Panel("Attempts", {"{{lane}}": f"lane:fleet_attempts:rate1m{{{_LANES}}}"}, "reqps"),
    Panel("Calls", {"{{lane}}": _of_lanes("fleet_http_calls_total")}, "reqps", "HTTP calls to the exchange."),
    Panel("At the exchange, p95", {"{{lane}}": f"lane:fleet_exchange_seconds:p95_5m{{{_LANES}}}"}, "s"),
    Panel("In flight", {"{{lane}}": f"sum by (lane) (fleet_attempts_in_flight{{{_LANES}}})"}),
    Panel(
        "Outcomes", {"{{lane}} {{outcome}} {{code}}": _of_lanes("fleet_attempts_total", "lane, outcome, code")}, "reqps"
    ),
    Panel("Failed", {"{{lane}}": f"lane:fleet_attempts_failed:ratio5m{{{_LANES}}}"}, "percentunit"),
    Panel(
        "Workers that have it open",
        {"{{lane}}": f"sum by (lane) (fleet_lane_open{{{_LANES}}})"},
    ),
)
BUDGETS: Final = (
    Panel("Used", {"{{lane}} {{bucket}}": f"lane_bucket:fleet_budget_used_ratio:max{{{_LANES}}}"}, "percentunit"),
    Panel(
        "What binds",
        {"{{lane}} {{bucket}}": f"lane_bucket:fleet_budget_bucket_wait_seconds:rate5m{{{_LANES}}}"},
        about="How many calls wait for each bucket, on average: a lane can do more only if the highest allows more.",
    ),
    Panel("Wait for budget, p95", {"{{lane}}": f"lane:fleet_budget_wait_seconds:p95_5m{{{_LANES}}}"}, "s"),
    Panel(
        "Taken",
        {"{{lane}} {{bucket}}": _of_lanes("fleet_budget_granted_total", "lane, bucket")},
        about="In the bucket's own units a second: calls or weight.",
    ),
    Panel(
        "Found no budget in time",
        {"{{lane}} {{bucket}} {{reason}}": _of_lanes("fleet_budget_refused_total", "lane, bucket, reason")},
        "reqps",
    ),
    Panel(
        "Left of the limit",
        {"{{lane}} {{bucket}}": f"min by (lane, bucket) (fleet_budget_effective_ratio{{{_LANES}}})"},
        "percentunit",
        'Less than 100 % after the exchange said "too many" within our limits.',
    ),
    Panel(
        "Pauses: time left",
        {"{{lane}} {{bucket}}": f"max by (lane, bucket) (fleet_budget_paused_seconds{{{_LANES}}})"},
        "s",
    ),
    Panel(
        "Pauses that exchanges asked for",
        {"{{lane}} by {{source}}": _of_lanes("fleet_pauses_total", "lane, source")},
        "cps",
    ),
    Panel(
        "Shared through Redis",
        {"{{lane}}": f"min by (lane) (fleet_budget_shared{{{_LANES}}})"},
        about="0 while a worker is without Redis, and uses its own part of every limit.",
        kind="state-timeline",
    ),
)
FAILOVERS: Final = (
    Panel("States", {"{{lane}} {{state}}": f"max by (lane, state) (fleet_lane_state{{{_LANES}}})"}),
    Panel(
        "Attempts that came back",
        {"{{lane}} {{code}}": _of_lanes("fleet_attempts_returned_total", "lane, code")},
        "reqps",
        "They go to another lane, or wait.",
    ),
    Panel("Attempts sent", {"{{lane}}": _of_lanes("fleet_attempts_sent_total")}, "reqps"),
    Panel(
        "Trials and probes",
        {"{{lane}} trials": _of_lanes("fleet_trials_total"), "{{lane}} probes": _of_lanes("fleet_probes_total")},
        "cps",
    ),
    Panel("Paused", {"{{lane}}": f"max by (lane) (fleet_lane_paused{{{_LANES}}})"}, kind="state-timeline"),
    Panel(
        "Hedges",
        {
            "sent, a second": "sum(rate(fleet_hedges_total[$__rate_interval]))",
            "kept": "sum(fleet_hedges_kept)",
        },
    ),
)
QUEUES: Final = (
    Panel(
        "Messages that wait",
        {"{{queue}}": 'max by (queue) (rabbitmq_detailed_queue_messages_ready{queue=~"fleet[.].*"})'},
        about="Of RabbitMQ's plugin rabbitmq_prometheus.",
        width=12,
    ),
    Panel(
        "Messages that are handled",
        {"{{queue}}": 'max by (queue) (rabbitmq_detailed_queue_messages_unacked{queue=~"fleet[.].*"})'},
        width=12,
    ),
    Panel("Consumers", {"{{queue}}": 'max by (queue) (rabbitmq_detailed_queue_consumers{queue=~"fleet[.].*"})'}),
    Panel("In a dispatcher", {"p99": "fleet:fleet_dispatch_seconds:p99_5m"}, "s"),
    Panel(
        "Publishing is blocked",
        {"{{instance}}": "fleet_dispatcher_blocked or fleet_worker_blocked"},
        about="1 while RabbitMQ is short of memory or disk.",
        kind="state-timeline",
    ),
)
DOORS: Final = (
    Panel(
        "Results that wait for RabbitMQ",
        {"{{instance}}": "fleet_dispatcher_results_waiting or fleet_worker_results_waiting"},
        about="At 2,000 a process takes no more work.",
    ),
    Panel(
        "The same in bytes",
        {
            "{{instance}}": "fleet_dispatcher_results_waiting_bytes or fleet_worker_results_waiting_bytes",
            "{{instance}} hedges": "fleet_hedges_kept_bytes",
        },
        "bytes",
    ),
    Panel("Answers in memory", {"{{instance}}": "fleet_answers_held_bytes"}, "bytes"),
    Panel(
        "Results not where they should go",
        {
            "errors, to fleet.results: {{reason}}": _rate("fleet_dispatcher_results_diverted_total", "reason"),
            "data, to fleet.results: {{reason}}": _rate("fleet_worker_results_diverted_total", "reason"),
            "unread, dropped: {{reason}}": "max by (reason) (rate(fleet_results_dropped_total[$__rate_interval]))",
        },
        "cps",
    ),
    Panel(
        "Bad messages and copies",
        {
            "dead: {{reason}}": _rate("fleet_dead_letters_total", "reason"),
            "no attempt": "sum(rate(fleet_attempts_unreadable_total[$__rate_interval]))",
            "copies dropped": "sum(rate(fleet_copies_dropped_total[$__rate_interval]))",
        },
        "cps",
    ),
    Panel("Redis errors", {"{{kind}}": _rate("fleet_redis_errors_total", "kind")}, "cps"),
)
GATEWAY: Final = (
    Panel("Answers", {"{{caller}} {{status}}": _rate("fleet_gateway_requests_total", "caller, status")}, "reqps"),
    Panel(
        "From a request to its answer, p95",
        {
            "{{caller}}": "histogram_quantile(0.95, sum by (caller, le) "
            "(rate(fleet_gateway_seconds_bucket[$__rate_interval])))"
        },
        "s",
    ),
    Panel("Under way", {"{{caller}}": "sum by (caller) (fleet_gateway_in_flight)"}),
    Panel("Refused without asking the fleet", {"{{why}}": _rate("fleet_gateway_refused_total", "why")}, "reqps"),
    Panel("Connections", {"{{instance}}": "fleet_gateway_connections"}),
    Panel("Answers still to be read", {"{{caller}}": "sum by (caller) (fleet_gateway_sending_bytes)"}, "bytes"),
)
ROWS: Final = {
    "Fleet": FLEET,
    "Lanes": LANES,
    "Budgets": BUDGETS,
    "Failovers": FAILOVERS,
    "Queues": QUEUES,
    "Doors": DOORS,
    "Gateway": GATEWAY,
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            _placed({"type": "row", "title": title, "collapsed": False, "panels": []}, panels, 0, top, _WIDTH, 1)
        )
        top = _lay_out(row, panels, top + 1)
    return {
        "uid": UID,
        "title": "ccxt-fleet",
        "tags": ["ccxt-fleet"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def queries() -> list[str]:
    """Every query of the dashboard."""
    return [query for row in ROWS.values() for panel in row for query in panel.queries.values()]


def _lay_out(row: Sequence[Panel], panels: list[dict[str, Any]], top: int) -> int:
    """Adds a row's panels from the left to the right; returns where the next row begins."""
    left = height = 0
    for panel in row:
        if left + panel.width > _WIDTH:
            left, top = 0, top + height
        panels.append(_placed(_drawn(panel), panels, left, top, panel.width, panel.height))
        left, height = left + panel.width, panel.height
    return top + height


def _placed(
    panel: dict[str, Any], panels: Sequence[object], left: int, top: int, width: int, height: int
) -> dict[str, Any]:
    return {"id": len(panels) + 1, "gridPos": {"x": left, "y": top, "w": width, "h": height}, **panel}


def _drawn(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "lane",
            "label": "Lane",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": "label_values(fleet_lane_healthy, lane)", "refId": "lanes"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def rule_object() -> str:
    """The shipped rules as an object of Prometheus's operator."""
    groups = (HERE / "prometheus" / "rules.yml").read_text(encoding="utf-8").partition("\ngroups:")
    return RULE_HEAD + textwrap.indent("".join(groups[1:]).lstrip(), "  ")


if __name__ == "__main__":
    DASHBOARD.write_text(json.dumps(dashboard(), indent=1) + "\n", encoding="utf-8")
    RULE_OBJECT.write_text(rule_object(), encoding="utf-8")
