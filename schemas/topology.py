"""Every exchange, queue and binding of the fleet with its fixed arguments, in one table.

All of it is durable and all queues are quorum queues (only `fleet.reports` and `fleet.dropped` feed exclusive ones).
Arguments never change once a release has declared them: RabbitMQ refuses a queue declared twice with different ones,
and a client that tries brings its connection down with it.

Every queue is bounded in messages and bytes, except `fleet.returned`: what goes there must not be lost. A full queue
refuses new messages, and their publishers keep them; only `fleet.results` and `fleet.dead` drop their oldest.

RabbitMQ expires messages only at a queue's head, so every delay queue has one TTL for all its messages.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

REQUESTS: Final = "fleet.requests"
# For requests that have time, or very many at once: they delay no request in `REQUESTS`.
BULK_REQUESTS: Final = "fleet.requests.bulk"
WORK: Final = "fleet.work"
RETURNED: Final = "fleet.returned"
DELAY: Final = "fleet.delay"
RESULTS: Final = "fleet.results"
REPORTS: Final = "fleet.reports"
DEAD: Final = "fleet.dead"
DROPPED: Final = "fleet.dropped"
# Begins the names of queues that programs and commands declare for themselves.
CLIENT: Final = "fleet.client"

# Five delays come within a factor of four of any wait; a longer wait takes several of them.
DELAYS_MS: Final = (250, 1_000, 4_000, 15_000, 60_000)

# A message that is redelivered more often (a consumer died each time) goes to `fleet.dead`. Restarts of RabbitMQ and
# lost connections count too, so this must be well above what a bad night brings.
DELIVERY_LIMIT: Final = 10
# For queues that only people and other programs consume: RabbitMQ 4 drops what was requeued 20 times by default.
NO_DELIVERY_LIMIT: Final = 1_000_000_000

# In messages, and in bytes of their bodies. Most requests have some 300 bytes, most results less than 100 KB. But they
# may have 256 KiB and 15 MiB, and 50,000 of those fit on no disk.
REQUESTS_LIMIT: Final = 100_000
REQUESTS_BYTES: Final = 512 * 2**20
WORK_LIMIT: Final = 50_000
WORK_BYTES: Final = 256 * 2**20
DELAY_LIMIT: Final = 200_000
DELAY_BYTES: Final = 512 * 2**20
RESULTS_LIMIT: Final = 50_000
RESULTS_BYTES: Final = 2**30
RESULTS_TTL_MS: Final = 15 * 60_000
DEAD_LIMIT: Final = 100_000
DEAD_BYTES: Final = 512 * 2**20
# A live attempt that no worker took in this time goes back to a dispatcher, which may choose a better lane by then.
LIVE_TTL_MS: Final = 5_000
BULK_TTL_MS: Final = 10 * 60_000


class Queue(Struct, frozen=True):
    """A queue, and the exchange that feeds it (`""` is the default exchange, which needs no binding)."""

    name: str
    arguments: dict[str, str | int]
    exchange: str = ""
    routing_key: str = ""


class Exchange(Struct, frozen=True):
    """An exchange and its type."""

    name: str
    kind: str


EXCHANGES: Final = (
    Exchange(REQUESTS, "fanout"),
    Exchange(BULK_REQUESTS, "fanout"),
    Exchange(WORK, "direct"),
    Exchange(RESULTS, "topic"),
    Exchange(REPORTS, "fanout"),
    Exchange(DROPPED, "headers"),
)


def _quorum(**arguments: str | int) -> dict[str, str | int]:
    return {"x-queue-type": "quorum"} | {"x-" + key.replace("_", "-"): value for key, value in arguments.items()}


def _to(queue: str) -> dict[str, str | int]:
    """Dead-letters to a queue, at least once: the copy is confirmed before the original goes."""
    return {
        "dead_letter_exchange": "",
        "dead_letter_routing_key": queue,
        "dead_letter_strategy": "at-least-once",
        "overflow": "reject-publish",
    }


QUEUES: Final = (
    *(
        Queue(
            name,
            _quorum(
                delivery_limit=DELIVERY_LIMIT,
                max_length=REQUESTS_LIMIT,
                max_length_bytes=REQUESTS_BYTES,
                **_to(DEAD),
            ),
            exchange=name,
        )
        for name in (REQUESTS, BULK_REQUESTS)
    ),
    Queue(RETURNED, _quorum(delivery_limit=DELIVERY_LIMIT, **_to(DEAD))),
    Queue(
        RESULTS,
        _quorum(
            delivery_limit=NO_DELIVERY_LIMIT,
            max_length=RESULTS_LIMIT,
            max_length_bytes=RESULTS_BYTES,
            message_ttl=RESULTS_TTL_MS,
            overflow="drop-head",
            dead_letter_exchange=DROPPED,  # where they are counted
        ),
        exchange=RESULTS,
        routing_key="#",
    ),
    Queue(
        DEAD,
        _quorum(
            delivery_limit=NO_DELIVERY_LIMIT,
            max_length=DEAD_LIMIT,
            max_length_bytes=DEAD_BYTES,
            overflow="drop-head",
        ),
    ),
)


def delay_name(delay_ms: int) -> str:
    """The name of the delay queue with this delay, e.g. ``fleet.delay.1s``."""
    return f"{DELAY}.{delay_ms // 1000}s" if delay_ms % 1000 == 0 else f"{DELAY}.{delay_ms}ms"


DELAY_QUEUES: Final = tuple(
    Queue(
        delay_name(delay_ms),
        _quorum(message_ttl=delay_ms, max_length=DELAY_LIMIT, max_length_bytes=DELAY_BYTES, **_to(RETURNED)),
    )
    for delay_ms in DELAYS_MS
)


def check_pattern(pattern: str) -> None:
    """Refuses a pattern that no key of a result fits: it would be waited for without end.

    Args:
        pattern: of keys ``<exchange>.<method>.<ok or error>``; ``*`` stands for one word, ``#`` for any number.

    Raises:
        ValueError: it fits none; the text says what a key is.
    """
    words = pattern.split(".")
    fixed = sum(word != "#" for word in words)
    fits = fixed == 3 if fixed == len(words) else fixed <= 3
    if not fits or not all(words) or words[-1] not in ("#", "*", "ok", "error"):
        raise ValueError(
            f"pattern {pattern!r} fits no result: keys are <exchange>.<method>.<ok or error>, as in okx.fetch_ticker.*"
        )


def work_key(lane: str, *, bulk: bool) -> str:
    """The routing key of a lane's live or bulk attempts in `fleet.work`."""
    return f"{lane}.bulk" if bulk else lane


def work_name(lane: str, *, bulk: bool) -> str:
    """The name of a lane's live or bulk work queue."""
    return f"{WORK}.{work_key(lane, bulk=bulk)}"


def lane_queues(lanes: Iterable[str]) -> list[Queue]:
    """The two work queues of each lane: for live attempts, and for bulk ones, which never delay live ones."""
    return [
        Queue(
            work_name(lane, bulk=bulk),
            _quorum(
                delivery_limit=DELIVERY_LIMIT,
                message_ttl=BULK_TTL_MS if bulk else LIVE_TTL_MS,
                max_length=WORK_LIMIT,
                max_length_bytes=WORK_BYTES,
                **_to(RETURNED),
            ),
            exchange=WORK,
            routing_key=work_key(lane, bulk=bulk),
        )
        for lane in lanes
        for bulk in (False, True)
    ]


def queues(lanes: Iterable[str]) -> tuple[Queue, ...]:
    """All queues of a fleet with these lanes."""
    return (*QUEUES, *DELAY_QUEUES, *lane_queues(lanes))


def delay_for(wait_ms: float) -> int:
    """The delay for a wait: the longest that is not above it, or the shortest that there is."""
    return max((delay for delay in DELAYS_MS if delay <= wait_ms), default=DELAYS_MS[0])
