"""A long run counts connections to exchanges apart from other handles."""

import os
import socket
from contextlib import ExitStack

from tests.bench.held import Handles, handles


def test_sockets_to_the_exchanges_are_told_from_other_handles() -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        exchange, other = (listener.getsockname()[1] for listener in listeners)
        before = handles(os.getpid(), {exchange})
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", exchange))) for _ in range(3)]
        for listener in listeners[:1] * 3:  # Its own ends have the exchange's port too, but are not connected to it.
            stack.enter_context(listener.accept()[0])
        stack.enter_context(socket.create_connection(("127.0.0.1", other)))
        assert before.exchanges == 0
        assert handles(os.getpid(), {exchange}) == Handles(3, before.others + 4)
        clients[0].close()
        assert handles(os.getpid(), {exchange}).exchanges == 2
