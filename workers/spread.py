"""Which lanes a worker serves where each is served by a few of the workers that are there. Pure.

By rendezvous hashing: each worker has a weight for each lane, made of both names, and the heaviest serve it. All
reckon the same without a word between them. Where one comes or goes only the lanes move that it gets, or had.

A lane moves without a gap. Who is not among the heaviest any more serves it until enough of them have it open.
"""

import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from .part import Part


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
        count: how many workers serve each lane; 0 for all.

    Attributes:
        count: as above; may be changed.
    """

    def __init__(self, name: str, part: Part, count: int) -> None:
        self.name = name
        self.part = part
        self.count = count
        self._peers: Mapping[str, Peer] = {}
        self._served: Collection[str] = ()

    def learn(self, peers: Mapping[str, Peer], served: Collection[str]) -> None:
        """Takes in which other workers are there, by name, and which lanes this one serves now."""
        self._peers, self._served = peers, frozenset(served)

    def of(self, lanes: Iterable[str]) -> list[str]:
        """The lanes to be served, in their order."""
        mine = self.part.of(lanes)
        return [lane for lane in mine if self._serves(lane)] if self.count else mine

    def _serves(self, lane: str) -> bool:
        weight = _weight(self.name, lane)
        heavier = [peer for name, peer in self._peers.items() if peer.part.has(lane) and _weight(name, lane) > weight]
        if len(heavier) < self.count:
            return True
        return lane in self._served and sum(lane in peer.open for peer in heavier) < self.count


@functools.lru_cache(maxsize=100_000)
def _weight(worker: str, lane: str) -> tuple[bytes, str]:
    return hashlib.blake2b(f"{worker} {lane}".encode(), digest_size=8).digest(), worker
