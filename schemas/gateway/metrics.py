"""The gateway's Prometheus metrics. Labels are callers, exchanges of the configuration and codes: they stay few."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "fleet_gateway_requests_total",
    "Requests that the gateway answered, by HTTP status; `other` for exchanges that no lane has.",
    ["caller", "exchange", "status"],
)
REFUSED = Counter(
    "fleet_gateway_refused_total", "Requests that the gateway refused without asking the fleet, by why.", ["why"]
)
SHARED = Counter(
    "fleet_gateway_shared_total", "Answers that had been fetched for an equal request.", ["caller", "exchange"]
)
SIGNED = Counter(
    "fleet_gateway_signed_total",
    "Signed calls by their end: `answered`, `not_sent`, or `unknown`: sent, without a whole answer.",
    ["caller", "exchange", "end"],
)
SECONDS = Histogram(
    "fleet_gateway_seconds",
    "From a request to the gateway to its answer.",
    ["caller"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
IN_FLIGHT = Gauge("fleet_gateway_in_flight", "A caller's requests that the fleet has not answered yet.", ["caller"])
SENDING_BYTES = Gauge(
    "fleet_gateway_sending_bytes",
    "Bytes of a caller's long answers that are held until they have been read, with the buffers of their readers.",
    ["caller"],
)
CONNECTIONS = Gauge("fleet_gateway_connections", "Connections that programs have to the gateway.")
CUT = Counter("fleet_gateway_connections_cut_total", "Connections that the gateway ended, by why.", ["why"])
