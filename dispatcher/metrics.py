"""The dispatcher's Prometheus metrics. Labels are lanes and codes, never symbols or ids."""

from prometheus_client import Counter, Gauge, Histogram

from schemas.runtime import gauges, store

LOSSES = store.losses()

REQUESTS = Counter("fleet_requests_total", "Requests taken from fleet.requests and fleet.requests.bulk.")
SENT = Counter("fleet_attempts_sent_total", "Attempts sent to a lane.", ["lane"])
RETURNED = Counter("fleet_attempts_returned_total", "Attempts that came back from a lane.", ["lane", "code"])
WAITS = Counter("fleet_waits_total", "Requests put into a delay queue.")
ENDED = Counter("fleet_requests_ended_total", "Requests that the dispatcher ended with an error.", ["code"])
PROBES = Counter("fleet_probes_total", "Health probes sent to lanes whose requests do not show how they are.", ["lane"])
HEDGES = Counter("fleet_hedges_total", "Second attempts at requests whose first attempt has not answered in time.")
DEAD = Counter("fleet_dead_letters_total", "Messages put into fleet.dead.", ["reason"])
DROPPED = Counter("fleet_results_dropped_total", "Results that fleet.results dropped unread.", ["reason"])
HEALTHY = Gauge("fleet_lane_healthy", "1 while the lane is healthy.", ["lane"])
STATE = Gauge("fleet_lane_state", "1 for the state that the lane is in.", ["lane", "state"])
SHARE = Gauge(
    "fleet_lane_share", "The lane's weight less what its health takes from it now; 0 if it is aside.", ["lane"]
)
TRIALS = Counter("fleet_trials_total", "Trials of lanes that are set aside.", ["lane"])
PAUSED = Gauge("fleet_lane_paused", "1 while the lane keeps a pause that the exchange asked for.", ["lane"])
DIVERTED = Counter(
    "fleet_dispatcher_results_diverted_total",
    "Error results put into fleet.results because their reply_to does not take them.",
    ["reason"],
)
WAITING = Gauge("fleet_dispatcher_results_waiting", "Error results that RabbitMQ has not confirmed yet.")
WAITING_BYTES = Gauge(
    "fleet_dispatcher_results_waiting_bytes", "Bytes of those results and of the messages they answer."
)
SHARED = Counter(
    "fleet_shared_requests_total", "Requests with max_age_ms, by where their answer comes from.", ["answer"]
)
SHARED_HELD = Gauge("fleet_shared_held", "Requests that wait for the answer to an equal one.")
SHARED_BYTES = Gauge("fleet_shared_held_bytes", "Bytes of their messages.")
HEARD = Gauge("fleet_dispatchers_heard", "Other dispatchers that tell this one what they do to lines for limits.")
HEDGES_KEPT = Gauge("fleet_hedges_kept", "Second attempts that are still to come.")
HEDGES_BYTES = Gauge("fleet_hedges_kept_bytes", "Bytes of their messages.")
BLOCKED = Gauge("fleet_dispatcher_blocked", "1 while RabbitMQ, short of memory or disk, blocks it from publishing.")
WANTED = Gauge(
    "fleet_workers_wanted", "Worker processes that the open budgets and what waits could use; 0 while not known."
)
WANTED_BOUND = Gauge(
    "fleet_workers_wanted_bound", "1 for what keeps the number of wanted workers from being higher.", ["by"]
)
DECISION = Histogram(
    "fleet_dispatch_seconds",
    "From a message's arrival to the confirm of what the dispatcher published for it.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)

# From zero on: in a counter that appears with its first event, Prometheus sees no rise.
for _reason in ("unreadable", "delivery_limit"):
    DEAD.labels(_reason)
for _reason in ("maxlen", "expired"):
    DROPPED.labels(_reason)
for _reason in ("refused", "silent"):
    DIVERTED.labels(_reason)


def forget(lane: str) -> None:
    """Removes the gauges of a lane that was removed."""
    gauges.drop(lane, (HEALTHY, STATE, SHARE, PAUSED))
