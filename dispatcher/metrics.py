"""The dispatcher's Prometheus metrics. Labels are lanes and codes, never symbols or ids."""

from prometheus_client import Counter, Gauge, Histogram

from schemas.runtime import store

LOSSES = store.losses()

REQUESTS = Counter("fleet_requests_total", "Requests taken from fleet.requests and fleet.requests.bulk.")
SENT = Counter("fleet_attempts_sent_total", "Attempts sent to a lane.", ["lane"])
RETURNED = Counter("fleet_attempts_returned_total", "Attempts that came back from a lane.", ["lane", "code"])
WAITS = Counter("fleet_waits_total", "Requests put into a waiting room.")
ENDED = Counter("fleet_requests_ended_total", "Requests the dispatcher itself ended with an error.", ["code"])
PROBES = Counter("fleet_probes_total", "Questions how a lane is that nobody else asks anything.", ["lane"])
HEDGES = Counter("fleet_hedges_total", "Second attempts at requests that the first has not answered in time.")
DEAD = Counter("fleet_dead_letters_total", "Messages put into fleet.dead.", ["reason"])
DROPPED = Counter("fleet_results_dropped_total", "Results that fleet.results dropped unread.", ["reason"])
HEALTHY = Gauge("fleet_lane_healthy", "1 while the lane is healthy.", ["lane"])
STATE = Gauge("fleet_lane_state", "1 for the state that the lane is in.", ["lane", "state"])
SHARE = Gauge("fleet_lane_share", "The lane's weight less what its health takes from it now.", ["lane"])
TRIALS = Counter("fleet_trials_total", "Attempts that try whether a lane that stands aside is back.", ["lane"])
PAUSED = Gauge("fleet_lane_paused", "1 while the exchange asked the lane to be silent.", ["lane"])
DIVERTED = Counter(
    "fleet_dispatcher_results_diverted_total",
    "Results put into fleet.results because their reply_to takes nothing.",
    ["reason"],
)
WAITING = Gauge("fleet_dispatcher_results_waiting", "Results that RabbitMQ has not confirmed yet.")
WAITING_BYTES = Gauge("fleet_dispatcher_results_waiting_bytes", "What those and the messages they answer hold.")
HEDGES_KEPT = Gauge("fleet_hedges_kept", "Second attempts that are still to come.")
HEDGES_BYTES = Gauge("fleet_hedges_kept_bytes", "What those hold.")
BLOCKED = Gauge("fleet_dispatcher_blocked", "1 while RabbitMQ, short of memory or disk, takes nothing from it.")
DECISION = Histogram(
    "fleet_dispatch_seconds",
    "From a message's arrival at the dispatcher to the confirm of what it published.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)


def forget(lane: str) -> None:
    """A lane was removed: what tells how it is now is told no more."""
    for metric in (HEALTHY, STATE, SHARE, PAUSED):
        for family in metric.collect():
            for sample in family.samples:
                if sample.labels["lane"] == lane:
                    metric.remove(*sample.labels.values())
