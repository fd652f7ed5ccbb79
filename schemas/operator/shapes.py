"""What commands print with `--json`. Fields may be added; times are Unix milliseconds. docs/commands.md lists them."""

from msgspec import Struct, field

from ..status import SharedAnswers


class ServerView(Struct, frozen=True):
    """A server.

    Args:
        place: host and port.
        version: its product and version; empty where it can't be reached.
        since_ms: when it started, None where it does not say.
        error: why it can't be reached; empty if it can.
    """

    place: str
    version: str = ""
    since_ms: int | None = None
    error: str = ""


class ProcessView(Struct, frozen=True):
    """A dispatcher or worker.

    Args:
        name: host and process id.
        version: the fleet's version; empty where it does not say.
        ccxt: ccxt's version, of a worker.
        since_ms: when it started, None where that is not known.
        unready: why it does not serve yet; empty if it serves.
        configuration: the start of the SHA-256 of its configuration file; empty where that is not known.
        configuration_error: why the present file is not in use; empty if it is.
        lanes: how many lanes it serves, of a worker those that are open.
        unopened: the lanes that a worker could not open yet, each with the reason.
    """

    name: str
    version: str = ""
    ccxt: str = ""
    since_ms: int | None = None
    unready: str = ""
    configuration: str = ""
    configuration_error: str = ""
    lanes: int = 0
    unopened: dict[str, str] = field(default_factory=dict[str, str])


class QueueView(Struct, frozen=True):
    """A queue.

    Args:
        name: its name.
        messages: how many wait in it.
        consumers: how many consume it.
    """

    name: str
    messages: int
    consumers: int


class StatusView(Struct, frozen=True):
    """``status``.

    Args:
        rabbitmq: RabbitMQ.
        redis: Redis.
        dispatchers: how many dispatchers RabbitMQ knows.
        dispatcher_processes: those that have said how they are, through Redis.
        workers: the workers that report, or have said how they are.
        queues: the fleet's queues that are there.
        shared: what came of requests that may share answers, since their dispatchers started.
    """

    rabbitmq: ServerView
    redis: ServerView
    dispatchers: int
    dispatcher_processes: list[ProcessView]
    workers: list[ProcessView]
    queues: list[QueueView]
    shared: SharedAnswers = SharedAnswers()


class LaneView(Struct, frozen=True):
    """One lane, of ``lanes``; what a dispatcher says of it, and what workers say.

    Args:
        lane: its name.
        exchange: the ccxt id.
        state: `healthy`, `degraded`, `offline`, `maintenance`; `unknown` where no dispatcher says.
        reason: why it is not healthy.
        unopened: the workers that could not open it yet, each with the reason.
        since_ms: when it came into this state; None where no dispatcher says.
        paused_until_ms: the end of a pause that the exchange asked for, None without one.
        paused_by: where the length of that pause is from.
        trial_in_s: the time until its next trial, where it is set aside.
        share: its part of the requests that any lane may take, 0 to 1.
        workers: how many workers serve it.
        in_flight: attempts that workers hold.
        waiting: requests that wait for it.
        latency_ms: its latency.
    """

    lane: str
    exchange: str
    state: str
    reason: str = ""
    unopened: dict[str, str] = field(default_factory=dict[str, str])
    since_ms: int | None = None
    paused_until_ms: int | None = None
    paused_by: str = ""
    trial_in_s: float | None = None
    share: float = 0.0
    workers: int = 0
    in_flight: int = 0
    waiting: int = 0
    latency_ms: float = 0.0


class BucketView(Struct, frozen=True):
    """One bucket, of ``budget``.

    Args:
        lane: the lane that it is of.
        bucket: its name.
        used: how much of it is in use, in its own units; of its fullest count where it has many.
        capacity: how much it may hold now.
        amount: how much its table lets it hold, 0 where workers do not say.
        window_s: the window of that.
        used_part: the used part of its capacity, 0 to 1.
        effective_part: its capacity as a part of the amount.
        paused_s: how long its own pause still lasts.
        granted: what calls took from it while the command listened.
        refused: how many calls found no room in it meanwhile.
    """

    lane: str
    bucket: str
    used: float
    capacity: float
    amount: float
    window_s: float
    used_part: float
    effective_part: float
    paused_s: float
    granted: float
    refused: int


class PauseView(Struct, frozen=True):
    """One pause, of ``budget`` and ``pause list``.

    Args:
        exchange: whose budgets they are.
        place: the exchange, and the address or account at it.
        bucket: the bucket that is paused; empty where all calls are.
        left_s: how long it still lasts.
        source: where its length is from.
        reason: what the exchange answered, shortened.
    """

    exchange: str
    place: str
    bucket: str
    left_s: float
    source: str
    reason: str


class BudgetView(Struct, frozen=True):
    """``budget``.

    Args:
        buckets: the buckets that are in use.
        pauses: the pauses that hold; None where Redis is away.
        own_parts: lanes whose budget is not shared now, as Redis is away for a worker, each with the part of every
            limit that the worker keeps to.
    """

    buckets: list[BucketView]
    pauses: list[PauseView] | None
    own_parts: dict[str, float] = field(default_factory=dict[str, float])


class Finding(Struct, frozen=True):
    """One finding of ``doctor`` or ``config check``.

    Args:
        about: what was looked at.
        level: `ok`, `note`, `wrong`.
        says: what was found.
        do: what to do; empty where nothing is to be done.
    """

    about: str
    level: str
    says: str
    do: str = ""


class FindingsView(Struct, frozen=True):
    """``doctor`` and ``config check``.

    Args:
        ok: whether nothing is wrong.
        findings: all of them, in the order in which they were looked for.
    """

    ok: bool
    findings: list[Finding]


class TopLane(Struct, frozen=True):
    """One lane, of ``top``; what happened counts over the last seconds.

    Args:
        lane: its name.
        state: as in ``lanes``.
        ok_per_s: attempts that returned data.
        failed_per_s: attempts that failed, or that the exchange rejected.
        throttled_per_s: attempts that found no budget.
        latency_ms: mean time at the exchange of those that returned data; 0 while there were none.
        in_flight: attempts that workers hold.
        waiting: requests that wait for it.
        queued: attempts in its queues that no worker has taken.
        share: as in ``lanes``.
        bucket: the fullest of its buckets; empty while none is in use.
        used_part: the used part of that one's capacity, 0 to 1.
        why: why it is not as it should be; empty if it is.
    """

    lane: str
    state: str
    ok_per_s: float
    failed_per_s: float
    throttled_per_s: float
    latency_ms: float
    in_flight: int
    waiting: int
    queued: int
    share: float
    bucket: str
    used_part: float
    why: str


class TopShared(Struct, frozen=True):
    """Requests that may share answers, of ``top``, by where these come from; rates over the last 10 s.

    Args:
        asked_per_s: they ask an exchange.
        waited_per_s: they wait for one that asks.
        cached_per_s: Redis has an answer.
    """

    asked_per_s: float = 0.0
    waited_per_s: float = 0.0
    cached_per_s: float = 0.0


class TopView(Struct, frozen=True):
    """``top``, at one moment.

    Args:
        at_ms: when.
        rabbitmq: RabbitMQ.
        redis: Redis.
        dispatchers: how many there are.
        workers: how many report.
        lanes: all lanes.
        queues: the fleet's queues that hold something, but those of lanes.
        shared: what becomes of requests that may share answers.
    """

    at_ms: int
    rabbitmq: ServerView
    redis: ServerView
    dispatchers: int
    workers: int
    lanes: list[TopLane]
    queues: list[QueueView]
    shared: TopShared = TopShared()
