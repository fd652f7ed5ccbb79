"""Whose the connections to the gateway are, and which one ends where there are too many. Pure.

The caller that has most of them loses one. So one that asks for much delays only itself: whoever comes finds room.
"""

from collections.abc import Callable
from enum import Enum


class State(Enum):
    """What a connection is at.

    Attributes:
        IDLE: it has said nothing, or has its answer.
        WAITING: it has a request of which nothing was asked yet.
        SENDING: its answer is sent.
        ASKING: its request is with the fleet or an exchange. It is never ended for another: it was paid for, and may be
            an order.
    """

    IDLE = 0
    WAITING = 1
    SENDING = 2
    ASKING = 3


class Peer:
    """One connection.

    Args:
        peers: all of them.
        end: ends it.
    """

    def __init__(self, peers: "Peers", end: Callable[[], None]) -> None:
        self.end = end
        self.caller = ""
        self.state = State.IDLE
        self._peers = peers

    def turn(self, state: State, caller: str | None = None) -> None:
        """It is at something else now; and it has said whose it is."""
        self._peers.turn(self, state, self.caller if caller is None else caller)


class Peers:
    """All connections."""

    def __init__(self) -> None:
        self._of: dict[str, dict[State, dict[Peer, None]]] = {}  # of each caller, in the order in which they got there
        self._count = 0

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def add(self, end: Callable[[], None]) -> Peer:
        """One more, which nobody has claimed yet."""
        peer = Peer(self, end)
        self._put(peer)
        return peer

    def remove(self, peer: Peer) -> None:
        """One less, where it is there."""
        states = self._of.get(peer.caller)
        if states is None or peer not in states[peer.state]:
            return
        del states[peer.state][peer]
        self._count -= 1
        if not any(states.values()):
            del self._of[peer.caller]

    def turn(self, peer: Peer, state: State, caller: str) -> None:
        """One is at something else; nothing where it has ended."""
        before = self._count
        self.remove(peer)
        if self._count < before:
            peer.state, peer.caller = state, caller
            self._put(peer)

    def spare(self) -> Peer | None:
        """The one to end for another: of the caller with most of them, of those that can be ended.

        It is the one that is idle for longest, else the last that came to wait, else the slowest to read.
        """
        most = max((each for each in self._of.values() if not _all_ask(each)), key=_size, default=None)
        if most is None:
            return None
        if most[State.WAITING] and not most[State.IDLE]:
            return next(reversed(most[State.WAITING]))
        return next(iter(most[State.IDLE] or most[State.SENDING]))

    def _put(self, peer: Peer) -> None:
        states = self._of.setdefault(peer.caller, {state: {} for state in State})
        states[peer.state][peer] = None
        self._count += 1


def _size(states: dict[State, dict[Peer, None]]) -> int:
    return sum(map(len, states.values()))


def _all_ask(states: dict[State, dict[Peer, None]]) -> bool:
    return len(states[State.ASKING]) == _size(states)
