"""A worker's Prometheus metrics. Labels are lanes and codes, never symbols or ids."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.runtime import gauges, store

LOSSES = store.losses()

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

ATTEMPTS = Counter("fleet_attempts_total", "Attempts that ended.", ["lane", "outcome", "code"])
IN_FLIGHT = Gauge("fleet_attempts_in_flight", "Attempts that a worker holds now.", ["lane"])
HTTP_CALLS = Counter("fleet_http_calls_total", "HTTP calls sent to the exchange.", ["lane"])
WAITED = Histogram("fleet_budget_wait_seconds", "Time an attempt waited for budget.", ["lane"], buckets=_SECONDS)
EXCHANGE = Histogram("fleet_exchange_seconds", "Time an attempt spent at the exchange.", ["lane"], buckets=_SECONDS)
GRANTED = Counter("fleet_budget_granted_total", "Budget granted from each bucket, in its units.", ["lane", "bucket"])
BUCKET_WAITED = Histogram(
    "fleet_budget_bucket_wait_seconds",
    "Time a call waited for each bucket.",
    ["lane", "bucket"],
    buckets=_SECONDS,
)
REFUSED = Counter("fleet_budget_refused_total", "Calls that found no budget in time.", ["lane", "bucket", "reason"])
PAUSES = Counter("fleet_pauses_total", "Pauses that answers asked for, by what says how long.", ["lane", "source"])
PAUSED = Gauge("fleet_budget_paused_seconds", "Seconds until each bucket's pause ends.", ["lane", "bucket"])
USED = Gauge("fleet_budget_used_ratio", "Used part of each bucket.", ["lane", "bucket"])
EFFECTIVE = Gauge(
    "fleet_budget_effective_ratio", "Part of the amount in its table that each bucket may hold.", ["lane", "bucket"]
)
SHARED = Gauge(
    "fleet_budget_shared",
    "1 while all workers share the lane's budget; 0 while this one uses its own part.",
    ["lane"],
)
LANE_OPEN = Gauge("fleet_lane_open", "1 while the lane's markets are loaded and it takes attempts.", ["lane"])
COPIES = Counter(
    "fleet_copies_dropped_total", "Attempts not answered, as their requests were answered already.", ["lane"]
)
KEPT = Counter(
    "fleet_shared_answers_total", "Attempts that asked for equal requests too, by what became of their answer.", ["how"]
)
KEPT_BYTES = Gauge("fleet_shared_answers_bytes", "Bytes of the answers that Redis keeps, when the last one came.")
UNREADABLE = Counter("fleet_attempts_unreadable_total", "Messages that are no attempt, put into fleet.dead.")
DIVERTED = Counter(
    "fleet_worker_results_diverted_total",
    "Results put into fleet.results because their reply_to does not take them.",
    ["reason"],
)
WAITING = Gauge("fleet_worker_results_waiting", "Results that RabbitMQ has not confirmed yet.")
WAITING_BYTES = Gauge("fleet_worker_results_waiting_bytes", "Bytes of those results and of the messages they answer.")
HELD = Gauge(
    "fleet_answers_held_bytes", "Bytes of exchanges' answers that are being read, parsed or turned into results."
)
BLOCKED = Gauge("fleet_worker_blocked", "1 while RabbitMQ, short of memory or disk, blocks it from publishing.")

# What the process says that serves the metrics of several workers.
OF_THE_PORT = CollectorRegistry()
PROCESS_UP = Gauge(
    "fleet_worker_process_up", "1 while the worker answers to its common port.", ["process"], registry=OF_THE_PORT
)
PROCESS_STARTS = Counter(
    "fleet_worker_process_starts_total", "Worker processes that were started.", ["process"], registry=OF_THE_PORT
)

# From zero on: in a counter that appears with its first event, Prometheus sees no rise.
for _reason in ("refused", "silent"):
    DIVERTED.labels(_reason)


def meet(lane: str) -> None:
    """Counts what hardly ever happens to a new lane from zero on, for the same reason."""
    ATTEMPTS.labels(lane, "failed", "internal")
    COPIES.labels(lane)


def forget(lane: str) -> None:
    """Removes the gauges of a lane that was removed."""
    gauges.drop(lane, (LANE_OPEN, SHARED, USED, EFFECTIVE, PAUSED))
