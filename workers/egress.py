"""One address that exchanges see, with its connections.

aiohttp repeats a call by itself on a stale connection, and follows redirects: both would be calls that nobody charged,
so both are closed here. What else a call wants to know of its way it learns as a `Passage`.
"""

import ssl
import time
from contextvars import ContextVar
from typing import Any, Final, Protocol

import aiohttp
import certifi


def tls() -> ssl.SSLContext:
    """The TLS settings of all lanes: one for the process, as parsing the certificates takes 30 ms and 0.7 MiB."""
    return ssl.create_default_context(cafile=certifi.where())


class Late(Exception):
    """The call was not sent: it would have left too late for what it was granted."""


class Passage(Protocol):
    """One HTTP call on its way out and back. All times in seconds of the monotonic clock."""

    @property
    def time_left_s(self) -> float:
        """How long it may still take."""
        ...

    def leave(self, now_s: float) -> None:
        """It has a connection, and is written to it next. Raises `Late` if it must not go."""
        ...

    def heard(self, now_s: float) -> None:
        """The head of its answer is here."""
        ...


PASSAGE: Final[ContextVar[Passage]] = ContextVar("passage")


class Egress:
    """One address that exchanges see: a connection pool and the TLS settings, shared by the lanes that use it.

    Must be made inside the running event loop.

    Args:
        ssl_context: from `tls`.
        local_addr: the source address of its connections; None leaves it to the system.
        proxy: the HTTP proxy all its calls go through.
    """

    def __init__(self, ssl_context: ssl.SSLContext, local_addr: str | None = None, proxy: str | None = None) -> None:
        self.ssl_context = ssl_context
        self.proxy = proxy
        # No limit of connections: a call that waits for one after its budget was granted is sent later than granted,
        # and too many of them at once.
        connector = _Connector(
            local_addr=(local_addr, 0) if local_addr else None,
            ssl=ssl_context,
            limit=0,
            limit_per_host=0,
            ttl_dns_cache=300,
            keepalive_timeout=60,
        )
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_answered)
        # Cookies would carry one lane's standing with a firewall to the next.
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace]
        )
        # aiohttp repeats a GET when a reused connection turns out dead: a second call that nobody charged. There is no
        # public switch (aiohttp 3.14).
        if not hasattr(self._session, "_retry_connection"):
            raise RuntimeError("this aiohttp repeats requests by itself; install the version ccxt-fleet names")
        self._session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
        self.session = _Session(self._session)

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """Lets a call go only in time.

    A new connection may take longer than the call may be late. Then the connection is kept for the next one, and the
    call asks for budget again.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Gets a connection; what it is for is written to it next."""
        connection = await super().connect(req, traces, timeout)
        try:
            PASSAGE.get().leave(time.monotonic())
        except Late:
            connection.release()
            raise
        return connection


async def _answered(*_: object) -> None:
    PASSAGE.get().heard(time.monotonic())


class _Session:
    """The part of aiohttp's session that ccxt uses, without redirects, and within the attempt's time.

    A followed redirect would be a second, uncharged call.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.headers = session.headers

    def __getattr__(self, verb: str) -> Any:
        send = getattr(self._session, verb)

        def send_once(*args: Any, timeout: aiohttp.ClientTimeout, **kwargs: Any) -> Any:
            left_s = PASSAGE.get().time_left_s
            if timeout.total is None or left_s < timeout.total:
                timeout = aiohttp.ClientTimeout(total=max(left_s, 0.001))  # 0 would be none
            return send(*args, timeout=timeout, allow_redirects=False, **kwargs)

        setattr(self, verb, send_once)
        return send_once
