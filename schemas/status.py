"""The body of a process's ``/status``, as JSON. Fields may be added; times are Unix milliseconds."""

from typing import Final, TypeAlias

from msgspec import Struct

# Reasons of lanes that are not there yet though nothing may be wrong: `up` waits longer before it prints these.
OPENING: Final = "its markets are being read"
NOT_OPENED: Final = "it has not opened yet"
NOT_REPORTED: Final = "no worker reports it"
NOT_SERVED: Final = "workers are there, and none of them serves it"


class ConfigurationStatus(Struct, frozen=True):
    """The configuration in use.

    Args:
        version: the start of the file's SHA-256: processes with the same version have the same configuration.
        loaded_ms: when it was loaded.
        error: why the present file is not in use; empty if it is.
        error_ms: when the present file was refused.
    """

    version: str
    loaded_ms: int
    error: str = ""
    error_ms: int | None = None


class ProcessStatus(Struct, frozen=True):
    """The part of the status that all services have.

    Args:
        service: `dispatcher`, `workers` or `gateway`.
        name: host and process id, as in logs and reports.
        started_ms: when it started.
        unready: why it does not serve yet, as in ``/readyz``; empty if it serves.
        configuration: the configuration in use.
        connected: whether its connections to RabbitMQ are up.
        connects: how often the connection was made that was lost most often.
        version: the fleet's version; empty where it is older than this field.
    """

    service: str
    name: str
    started_ms: int
    unready: str
    configuration: ConfigurationStatus
    connected: bool
    connects: int
    version: str = ""


class RoutedLane(Struct, frozen=True):
    """A lane as a dispatcher sees it.

    Args:
        lane: its name.
        exchange: the ccxt id.
        state: `healthy`, `degraded`, `offline` or `maintenance`.
        reason: why it is not healthy.
        since_ms: when it came into this state.
        trial_in_s: the time until the next trial of a lane that is set aside, None for others.
        paused_until_ms: the end of a pause that the exchange asked for, None without one.
        paused_by: where the length of that pause is from: a header, the text of an answer, our backoff.
        weight: its configured weight.
        share: the part of its weight that its health leaves it now.
        workers: how many workers serve it.
        in_flight: how many attempts its workers hold.
        waiting: how many requests wait in delay queues and will probably go to it.
        latency_ms: its latency.
        methods: how many of the fleet's methods it has, None before a worker reported them.
    """

    lane: str
    exchange: str
    state: str
    reason: str
    since_ms: int
    trial_in_s: float | None
    paused_until_ms: int | None
    paused_by: str
    weight: float
    share: float
    workers: int
    in_flight: int
    waiting: int
    latency_ms: float
    methods: int | None


class SharedAnswers(Struct, frozen=True):
    """Requests with `max_age_ms`, by where their answers came from.

    Args:
        asked: they asked an exchange, for equal ones too.
        waited: they waited for one that did.
        cached: Redis had an answer.
        alone: they asked for themselves alone.
    """

    asked: int = 0
    waited: int = 0
    cached: int = 0
    alone: int = 0


class DispatcherStatus(Struct, frozen=True):
    """``/status`` of a dispatcher.

    Args:
        process: the part that all services have.
        lanes: its lanes.
        results_dropped: how many results `fleet.results` dropped unread since this dispatcher started.
        workers_wanted: how many worker processes the open budgets and what waits could use, 0 while that is not known.
        workers_wanted_why: what they are wanted for, and why no more are.
        shared: what came of requests that may share answers, since it started.
    """

    process: ProcessStatus
    lanes: list[RoutedLane]
    results_dropped: int = 0
    workers_wanted: int = 0
    workers_wanted_why: str = ""
    shared: SharedAnswers = SharedAnswers()


class ServedLane(Struct, frozen=True):
    """A lane as a worker serves it.

    Args:
        lane: its name.
        exchange: the ccxt id.
        open: whether it takes attempts.
        error: why it could not be opened.
        markets: how many markets of the exchange are known.
        methods: how many of the fleet's methods it has.
        in_flight: how many attempts this worker holds.
        budget: `shared` by all workers; `own part` while Redis is away; `none` while nothing may be sent.
        budget_part: the part of every limit that this worker may use while Redis is away, None while it is shared.
    """

    lane: str
    exchange: str
    open: bool
    error: str
    markets: int
    methods: int
    in_flight: int
    budget: str
    budget_part: float | None


class WorkerStatus(Struct, frozen=True):
    """``/status`` of a worker.

    Args:
        process: the part that all services have.
        ccxt: the version of ccxt in use.
        redis: whether the budgets of all lanes are shared through Redis.
        lanes: the lanes that it serves.
    """

    process: ProcessStatus
    ccxt: str
    redis: bool
    lanes: list[ServedLane]


class WorkerProcess(Struct, frozen=True):
    """One of several workers that one parent started.

    Args:
        process: its number, which stays when another process takes its place.
        pid: its process id, None while there is no process.
        starts: how many processes were started in this place.
        error: why it is ill, or why it gave no status; empty if nothing is wrong.
        status: its own status, None where it gave none.
    """

    process: int
    pid: int | None
    starts: int
    error: str
    status: WorkerStatus | None


class WorkersStatus(Struct, frozen=True):
    """``/status`` of ``worker --processes N``.

    Args:
        workers: all of them.
    """

    workers: list[WorkerProcess]


class CallerStatus(Struct, frozen=True):
    """A caller of the gateway.

    Args:
        name: its token's name; `anyone` where none is needed.
        error: why its connection to RabbitMQ is not up; empty if it is.
    """

    name: str
    error: str


class GatewayStatus(Struct, frozen=True):
    """``/status`` of a gateway.

    Args:
        process: the part that all services have.
        address: where it listens.
        port: and on which port.
        callers: who may ask.
    """

    process: ProcessStatus
    address: str
    port: int
    callers: list[CallerStatus]


AnyStatus: TypeAlias = DispatcherStatus | WorkerStatus | GatewayStatus
