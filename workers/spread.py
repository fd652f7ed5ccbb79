"""Which lanes a worker serves where each is served by some of the workers that are there. Pure.

By rendezvous hashing: each worker has a weight for each lane, made of both names, and the heaviest serve it. All
reckon the same without a word between them. Where one comes or goes only the lanes move that it gets, or had.

A lane moves without a gap. Who is not among the heaviest any more serves it until enough of them have it open.
"""

import functools
import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from msgspec import Struct

from schemas.config import Config

from .limits import costs
from .limits.tables import shipped
from .part import Part

# A pace of an exchange without a table: whatever ccxt says of it, one worker can keep it.
GUESSED_MS: Final = 50.0

# So many calls a second of one lane are half of what a worker runs with a core of its own (docs/scaling.md).
WORKER_PER_S: Final = 200.0


def counts(config: Config) -> dict[str, int]:
    """By lane, how many workers serve it: `worker.spread`, or as many as its limits can use, if those are more.

    Empty where all workers serve all lanes.

    Raises:
        ConfigError: the limits of an exchange are wrong.
    """
    least = config.worker.spread
    if not least:
        return {}
    found: dict[str, int] = {}
    for lane in config.lanes.values():
        if lane.exchange not in found:
            limits = config.limits.get(shipped().limits_of(lane.exchange))
            per_s = costs.load(lane.exchange, GUESSED_MS, limits).most_per_s
            found[lane.exchange] = max(least, math.ceil(per_s / WORKER_PER_S))
    return {name: found[lane.exchange] for name, lane in config.lanes.items()}


class Peer(Struct, frozen=True):
    """Another worker that is there.

    Args:
        part: the lanes that it may serve.
        open: the lanes that it has open.
    """

    part: Part
    open: frozenset[str] = frozenset()


class Spread:
    """The lanes of one worker.

    Args:
        name: the worker's.
        part: the lanes that it may serve.
        counts: by lane, how many workers serve it; empty where all serve all.

    Attributes:
        counts: as above; may be changed.
    """

    def __init__(self, name: str, part: Part, counts: Mapping[str, int]) -> None:
        self.name = name
        self.part = part
        self.counts = counts
        self._peers: Mapping[str, Peer] = {}
        self._served: Collection[str] = ()

    def learn(self, peers: Mapping[str, Peer], served: Collection[str]) -> None:
        """Takes in which other workers are there, by name, and which lanes this one serves now."""
        self._peers, self._served = peers, frozenset(served)

    def of(self, lanes: Iterable[str]) -> list[str]:
        """The lanes to be served, in their order."""
        mine = self.part.of(lanes)
        return [lane for lane in mine if self._serves(lane)] if self.counts else mine

    def _serves(self, lane: str) -> bool:
        weight, count = _weight(self.name, lane), self.counts[lane]
        heavier = [peer for name, peer in self._peers.items() if peer.part.has(lane) and _weight(name, lane) > weight]
        if len(heavier) < count:
            return True
        return lane in self._served and sum(lane in peer.open for peer in heavier) < count


@functools.lru_cache(maxsize=100_000)
def _weight(worker: str, lane: str) -> tuple[bytes, str]:
    return hashlib.blake2b(f"{worker} {lane}".encode(), digest_size=8).digest(), worker
