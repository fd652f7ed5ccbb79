"""What ``/status`` of a process says, as JSON. Fields may be added; times are Unix milliseconds."""

from msgspec import Struct


class ConfigurationStatus(Struct, frozen=True):
    """The configuration in use.

    Args:
        version: the start of its file's SHA-256: processes with the same one have the same configuration.
        loaded_ms: since when it is in use.
        error: why the file as it is now is not in use; empty if it is.
        error_ms: when it was refused.
    """

    version: str
    loaded_ms: int
    error: str = ""
    error_ms: int | None = None


class ProcessStatus(Struct, frozen=True):
    """What both services say of themselves.

    Args:
        service: `dispatcher` or `workers`.
        name: host and process id, as in logs and reports.
        started_ms: since when it runs.
        unready: why it does not serve yet, as ``/readyz`` says; empty if it does.
        configuration: the one in use.
        connected: whether its connections to RabbitMQ stand.
        connects: how often they were made.
    """

    service: str
    name: str
    started_ms: int
    unready: str
    configuration: ConfigurationStatus
    connected: bool
    connects: int


class RoutedLane(Struct, frozen=True):
    """A lane as a dispatcher sees it.

    Args:
        lane: its name.
        exchange: the ccxt id.
        state: `healthy`, `degraded`, `offline` or `maintenance`.
        reason: why it is not healthy.
        since_ms: since when it is in this state.
        trial_in_s: when a lane that stands aside gets its next trial, None for others.
        paused_until_ms: the exchange asked for silence until then, None if it did not.
        weight: its configured weight.
        share: what its health leaves of it now.
        workers: how many serve it.
        in_flight: attempts that are with it.
        waiting: requests that will probably go to it and wait in delay rooms now.
        latency_ms: how long it takes to answer.
        methods: how many of the fleet's methods it has, None until a worker said.
    """

    lane: str
    exchange: str
    state: str
    reason: str
    since_ms: int
    trial_in_s: float | None
    paused_until_ms: int | None
    weight: float
    share: float
    workers: int
    in_flight: int
    waiting: int
    latency_ms: float
    methods: int | None


class DispatcherStatus(Struct, frozen=True):
    """``/status`` of a dispatcher.

    Args:
        process: what it says of itself.
        lanes: what it knows of each lane.
        results_dropped: how many results `fleet.results` dropped unread since it began.
    """

    process: ProcessStatus
    lanes: list[RoutedLane]
    results_dropped: int = 0


class ServedLane(Struct, frozen=True):
    """A lane as a worker serves it.

    Args:
        lane: its name.
        exchange: the ccxt id.
        open: whether it takes attempts.
        error: why it does not open.
        markets: how many markets of the exchange are known.
        methods: how many of the fleet's methods it has.
        in_flight: attempts that are with it.
        budget: `shared` by all workers; `own part` while Redis is away; `none` while nothing may be sent.
        budget_part: the part of every limit that this worker may use by itself, None while it is shared.
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
        process: what it says of itself.
        ccxt: the version of ccxt in use.
        redis: whether all workers share all lanes' budgets.
        lanes: the lanes it serves.
    """

    process: ProcessStatus
    ccxt: str
    redis: bool
    lanes: list[ServedLane]
