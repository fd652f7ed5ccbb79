"""What goes wrong when: a schedule of faults drawn from a seed, the same for the same seed."""

import random
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

# Long enough for what was hit to notice and to come back before the same part is hit again.
BREATH_S: Final = 2.0


class Kind(Struct, frozen=True):
    """A kind of fault.

    Args:
        part: what it hits; a part has one fault at a time, different parts may have theirs together.
        shortest_s: the shortest time until it is mended.
        longest_s: the longest.
        twice: it may leave finished messages unsettled, so that a request is answered more than once.
    """

    part: str
    shortest_s: float
    longest_s: float
    twice: bool = False


KINDS: Final = {
    "worker_killed": Kind("worker", 0, 6, twice=True),
    "worker_told_to_stop": Kind("worker", 0, 4),
    "worker_frozen": Kind("worker", 1, 12, twice=True),
    "dispatcher_killed": Kind("dispatcher", 0, 6, twice=True),
    "dispatcher_told_to_stop": Kind("dispatcher", 0, 4),
    "dispatcher_frozen": Kind("dispatcher", 1, 12, twice=True),
    "rabbitmq_killed": Kind("rabbitmq", 0, 2, twice=True),
    "rabbitmq_restarted": Kind("rabbitmq", 0, 2, twice=True),
    "rabbitmq_frozen": Kind("rabbitmq", 2, 12, twice=True),
    "rabbitmq_leader_killed": Kind("rabbitmq", 0, 6, twice=True),
    "rabbitmq_given_up": Kind("rabbitmq", 22, 30, twice=True),
    "rabbitmq_cut_off": Kind("network", 0, 0, twice=True),
    "rabbitmq_slow": Kind("network", 3, 8, twice=True),
    "rabbitmq_unreachable": Kind("network", 1, 10, twice=True),
    "redis_killed": Kind("redis", 1, 8),
    "redis_restarted": Kind("redis", 0, 1),
    "redis_emptied": Kind("redis", 0, 0),
    "redis_frozen": Kind("redis", 1, 8),
    "redis_cut_off": Kind("redis", 0, 0),
    "redis_answers_errors": Kind("redis", 2, 10),
    "redis_flaps": Kind("redis", 3, 12),
    "redis_clock_set": Kind("redis", 1, 10),
    "exchange_refuses": Kind("exchange", 3, 10),
    "exchange_resets": Kind("exchange", 3, 10),
    "exchange_hangs": Kind("exchange", 3, 10),
    "exchange_fails": Kind("exchange", 3, 10),
    "exchange_answers_garbage": Kind("exchange", 3, 10),
    "exchange_in_maintenance": Kind("exchange", 3, 10),
    "bad_messages": Kind("messages", 0, 0),
}
# What needs a cluster: others that elect another leader, and that go on without a node that is frozen for so long.
CLUSTER_ONLY: Final = ("rabbitmq_leader_killed", "rabbitmq_given_up")
ALONE: Final = tuple(name for name in KINDS if name not in CLUSTER_ONLY)


class Fault(Struct, frozen=True):
    """One fault of a schedule.

    Args:
        at_s: when, after the first request.
        kind: a key of `KINDS`.
        lasts_s: how long until it is mended.
        draw: 0 to 1, which of several is hit: the dispatcher, the worker, the exchange, the queue, the node.
    """

    at_s: float
    kind: str
    lasts_s: float
    draw: float


def draw(seed: int, seconds: float, every_s: float, kinds: Sequence[str] = ALONE) -> list[Fault]:
    """A schedule for so long: every kind once in random order, then all again.

    Args:
        seed: whatever is drawn follows from it.
        seconds: no fault begins later.
        every_s: the mean time between two faults.
        kinds: what may happen.
    """
    rng = random.Random(seed)
    deck: list[str] = []
    free_s: dict[str, float] = {}
    faults: list[Fault] = []
    now_s = every_s
    while now_s < seconds:
        if not deck:
            deck = rng.sample(kinds, len(kinds))
        name = deck.pop()
        kind = KINDS[name]
        lasts_s = round(rng.uniform(kind.shortest_s, kind.longest_s), 2)
        at_s = max(now_s, free_s.get(kind.part, 0.0))
        free_s[kind.part] = at_s + lasts_s + BREATH_S
        faults.append(Fault(round(at_s, 2), name, lasts_s, round(rng.random(), 3)))
        now_s += rng.uniform(0.5, 1.5) * every_s
    return sorted((fault for fault in faults if fault.at_s < seconds), key=lambda fault: fault.at_s)
