"""The session of a blocking class: `requests`, where a call is checked once more when its connection is open.

DNS, TCP and TLS may take longer than a call may be late. Then the connection is kept for the next call, and this one
reserves again, as in `exchange.egress`. `requests` follows redirects, each of them an uncharged call: not so here.
"""

import os
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import EmptyPoolError

from schemas.errors import ConfigError
from schemas.runtime.clock import clock_s

from ..exchange.egress import PASSAGE, Late

# So many idle connections are kept to each host. With the 10 of `requests`, more threads would always open new ones.
KEPT: Final = 100

# There is no public place between the opening of a connection and the call (urllib3 2.8).
if not hasattr(HTTPConnectionPool, "_validate_conn"):
    raise RuntimeError("this urllib3 opens its connections differently; install the version ccxt-fleet names")


class _Kept(Late, EmptyPoolError):
    """The call was not sent, and its connection is back in the pool: urllib3 does nothing more about either."""


if TYPE_CHECKING:

    class _Connections:
        def _validate_conn(self, conn: Any) -> None: ...

else:
    _Connections = object


class _InTurn(_Connections):
    """Mixed into a pool of connections: a call leaves by one that is open, and in its turn, or not at all."""

    def _validate_conn(self, conn: Any) -> None:
        """Called by urllib3 before it writes a call to a connection."""
        pool: Any = self
        passage = PASSAGE.get(None)
        was_open = getattr(conn, "used", None)
        super()._validate_conn(conn)
        if conn.sock is None:  # without TLS urllib3 opens it as it writes
            conn.connect()
        conn.used = conn.sock
        if passage is None:
            return
        passage.reused = was_open is conn.sock
        passage.left_s = clock_s()
        try:
            passage.leave()
        except Late as error:
            pool._put_conn(conn)  # noqa: SLF001
            raise _Kept(pool, "not sent: too late for its turn") from error


class _Pool(_InTurn, HTTPConnectionPool):
    pass


class _TlsPool(_InTurn, HTTPSConnectionPool):
    pass


class _Adapter(HTTPAdapter):
    """Sends calls over pools as above, all from one address."""

    def __init__(self, local_addr: str | None) -> None:
        self._from: dict[str, Any] = {"source_address": (local_addr, 0)} if local_addr else {}
        super().__init__(pool_maxsize=KEPT)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **settings: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **settings, **self._from)
        _in_turn(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
        return _in_turn(super().proxy_manager_for(proxy, **settings, **self._from))

    def send(self, *args: Any, **settings: Any) -> requests.Response:
        """Sends a call, and returns when the head of its answer is there."""
        response = super().send(*args, **settings)
        if (passage := PASSAGE.get(None)) is not None:
            passage.answered_s, passage.head = clock_s(), (response.status_code, response.headers)
        return response


def _in_turn(manager: Any) -> Any:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


class Session(requests.Session):
    """An instance's session.

    Args:
        like: the one it had; what was set there holds here, too.
        local_addr: the address that calls leave from; the system chooses it when None.

    Attributes:
        process: that has made it. A fork must not write to the connections of its parent.
    """

    def __init__(self, like: requests.Session | None, local_addr: str | None) -> None:
        super().__init__()
        check(like)
        for name in requests.Session.__attrs__:
            if like is not None and name != "adapters":
                setattr(self, name, getattr(like, name))
        self.process = os.getpid()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(local_addr))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Called by `requests` for every answer: where to go on."""


def check(session: Any) -> None:
    """Refuses a session that would send calls in its own way; raises ConfigError."""
    session = getattr(session, "own", session)  # the drop-in's
    if session is None or isinstance(session, Session):
        return
    adapters: Any = session.adapters.values() if type(session) is requests.Session else [session]
    if any(type(each) is not HTTPAdapter or each.max_retries.total for each in adapters):
        raise ConfigError(
            "a session or adapters of its own don't work with charged: leave the instance the one it makes"
        )
