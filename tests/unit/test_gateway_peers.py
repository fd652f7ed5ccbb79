"""Which connection of the gateway ends where there are too many: one of the caller that has most."""

from schemas.gateway.peers import Peer, Peers, State


def many(peers: Peers, caller: str, *states: State) -> list[Peer]:
    made: list[Peer] = []
    for state in states:
        peer = peers.add(lambda: None)
        peer.turn(state, caller)
        made.append(peer)
    return made


def test_the_caller_that_has_most_loses_one() -> None:
    peers = Peers()
    few = many(peers, "few", State.IDLE, State.IDLE)
    waiting = many(peers, "many", *[State.WAITING] * 4)
    assert peers.spare() is waiting[3]  # others of this caller have waited for longer
    silent = peers.add(lambda: None)
    assert peers.spare() is waiting[3]  # nor does it end whoever has just come
    for each in waiting[:3]:
        peers.remove(each)
    assert peers.spare() is few[0]
    few[0].turn(State.WAITING)
    assert peers.spare() is few[1]
    few[0].turn(State.IDLE)
    assert peers.spare() is few[1]  # idle for longest
    for each in (*few, waiting[3], silent):
        peers.remove(each)
    assert (len(peers), peers.spare()) == (0, None)


def test_what_was_asked_is_never_ended() -> None:
    peers = Peers()
    asking = many(peers, "many", *[State.ASKING] * 5)
    assert peers.spare() is None
    (other,) = many(peers, "few", State.WAITING)
    assert peers.spare() is other
    slow = many(peers, "many", State.SENDING, State.SENDING)
    assert peers.spare() is slow[0]
    asking[2].turn(State.SENDING)
    assert peers.spare() is slow[0]
    (waiting,) = many(peers, "many", State.WAITING)
    assert peers.spare() is waiting
    (idle,) = many(peers, "many", State.IDLE)
    assert peers.spare() is idle


def test_a_connection_that_has_ended_does_not_come_back() -> None:
    peers = Peers()
    (peer,) = many(peers, "one", State.WAITING)
    peers.remove(peer)
    peers.remove(peer)
    peer.turn(State.IDLE)
    assert (len(peers), peers.spare()) == (0, None)
