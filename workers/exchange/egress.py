"""One address that exchanges see, with its connections: opened ahead, kept alive, closed when they look dead.

aiohttp repeats a call by itself when its connection turns out dead, and follows redirects. Both would be uncharged
calls, so both are switched off here. A `Passage` is what a call learns of its own way.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

import aiohttp
import certifi
from yarl import URL

from schemas.accounts import Secret
from schemas.runtime.clock import clock_s
from schemas.runtime.tasks import cancelled

from .bounds import NOTHING, Holding
from .reading import Handler, Response
from .redaction import Redactor, in_one_line

log = logging.getLogger(__name__)

# A server may close an idle connection just as a call arrives. AWS's load balancers do it after 60 s by default, nginx
# after 75 s, Cloudflare after 400 s (their documentation). So no connection is used that was idle for longer than this.
IDLE_S: Final = 50.0
OPEN_TIMEOUT_S: Final = 2.0
# The longest header, and the longest line of it. aiohttp takes 8 KB; firewalls before exchanges send longer ones
# (Content-Security-Policy), and curl takes 100 KB.
HEADER_BYTES: Final = 64 * 1024


def tls() -> ssl.SSLContext:
    """The TLS settings of all lanes. One object for the process: parsing the certificates takes 30 ms and 0.7 MiB."""
    return ssl.create_default_context(cafile=certifi.where())


class Late(Exception):
    """The call was not sent: it would have missed its slot."""


class _Opened(Exception):
    """The connection is open, and there is nothing to send."""


class Passage:
    """One HTTP call on its way out and back. All times in seconds of the monotonic clock.

    Attributes:
        connection: the one it uses.
        reused: an earlier call used that connection.
        left_s: when it was written to the connection; 0 before.
        answered_s: when the head of its answer came; 0 before.
        head: the status and the headers of its answer; None before they came.
    """

    connection: asyncio.BaseProtocol | None = None
    reused: bool = False
    left_s: float = 0.0
    answered_s: float = 0.0
    head: tuple[int, Mapping[str, str]] | None = None

    @property
    def holding(self) -> Holding:
        """Where the bytes of its answer are counted."""
        return NOTHING

    @property
    def time_left_s(self) -> float:
        """The longest it may still take."""
        return OPEN_TIMEOUT_S

    def leave(self) -> None:
        """It is about to be written to the connection. Raises what keeps it back; the connection stays usable."""

    def on_answer(self) -> None:
        """The head of its answer has come."""


class _Opening(Passage):
    def leave(self) -> None:
        raise _Opened


PASSAGE: Final[ContextVar[Passage]] = ContextVar("passage")


class Egress:
    """One address that exchanges see: a connection pool and the TLS settings, shared by the lanes that use it.

    Must be made inside the running event loop.

    Args:
        ssl_context: from `tls`.
        local_addr: the source address of its connections; the system chooses it when None.
        proxy: the HTTP proxy for all its calls.

    Attributes:
        secrets: user and password of the proxy.
        process: that has made it.
    """

    def __init__(self, ssl_context: ssl.SSLContext, local_addr: str | None = None, proxy: str | None = None) -> None:
        self.ssl_context = ssl_context
        self.process = os.getpid()
        self.proxy = proxy
        parts = urlsplit(proxy or "")
        self.secrets = [Secret(unquote(part)) for part in (parts.username, parts.password) if part]
        self._redactor = Redactor(self.secrets)
        # No limit of connections: a call that waited for one would miss its slot, and many would then leave at once.
        connector = _Connector(
            local_addr=(local_addr, 0) if local_addr else None,
            ssl=ssl_context,
            limit=0,
            limit_per_host=0,
            ttl_dns_cache=300,
            keepalive_timeout=IDLE_S,
        )
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(connector.answered)
        trace.on_request_exception.append(connector.failed)
        # With cookies, a firewall's opinion of one lane would follow all others.
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
            response_class=Response,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )
        # aiohttp repeats a GET when a reused connection turns out dead: an uncharged call. There is no public switch
        # (aiohttp 3.14).
        if not hasattr(self._session, "_retry_connection"):
            raise RuntimeError("this aiohttp repeats requests by itself; install the version ccxt-fleet names")
        self._session._retry_connection = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self.session = _Session(self._session)

    async def open(self, urls: Collection[str]) -> None:
        """Opens a connection to each of these places for the next call. No call is sent."""
        await asyncio.gather(*map(self._open, {str(URL(url).origin()) for url in urls}))

    async def _open(self, url: str) -> None:
        token = PASSAGE.set(_Opening())
        try:
            async with self.session.get(url, timeout=aiohttp.ClientTimeout(total=OPEN_TIMEOUT_S), proxy=self.proxy):
                raise AssertionError("it was sent")
        except _Opened:
            pass
        except (aiohttp.ClientError, TimeoutError) as error:
            # The next call fails too, and its attempt says why.
            log.info("connection_open_failed", extra={"place": url, "error": in_one_line(error, self._redactor.hide)})
        finally:
            PASSAGE.reset(token)

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """Sends a call only within its slot, and only on a connection that is probably alive.

    Opening a connection may take longer than the call may be late. Then the connection is kept for the next call, and
    this one reserves again. A connection may be dead without notice, if a firewall on the way forgot it, and then a
    call on it times out. Where one is dead others are too: after a call without an answer, no connection to that place
    is used that was quiet since the call left.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # There is no public way to use another protocol class (aiohttp 3.14).
        if not hasattr(self, "_factory"):
            raise RuntimeError("this aiohttp makes its connections differently; install the version ccxt-fleet names")
        self._factory: Any = partial(Handler, loop=self._loop)
        self._last_s = WeakKeyDictionary[asyncio.BaseProtocol, float]()  # when it was opened, or last brought an answer
        self._doubted_s: dict[str, float] = {}  # when a call left for that place that got no answer

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Gets a connection; the call is written to it next."""
        passage, place = PASSAGE.get(), req.url.raw_authority
        while True:
            connection = await super().connect(req, traces, timeout)
            now_s = clock_s()
            passage.connection = connection.protocol
            assert isinstance(passage.connection, Handler)
            passage.connection.begin(passage.holding)
            passage.reused = passage.connection in self._last_s
            last_s = self._last_s.setdefault(passage.connection, now_s)
            if last_s >= max(now_s - IDLE_S, self._doubted_s.get(place, 0.0)):
                break
            connection.close()
        if cancelled():  # its caller has gone, and something on the way swallowed that
            connection.release()
            raise asyncio.CancelledError
        passage.left_s = now_s
        try:
            passage.leave()
        except (Late, _Opened):
            connection.release()
            raise
        return connection

    async def answered(self, _: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        """The head of an answer came."""
        passage = PASSAGE.get()
        passage.head = params.response.status, params.response.headers
        passage.answered_s = clock_s()
        if passage.connection is not None:
            self._last_s[passage.connection] = passage.answered_s
        passage.on_answer()

    async def failed(self, _: object, __: object, params: aiohttp.TraceRequestExceptionParams) -> None:
        """No answer came."""
        passage = PASSAGE.get()
        if passage.reused and isinstance(params.exception, (TimeoutError, aiohttp.ClientConnectionError)):
            self._doubted_s[params.url.raw_authority] = passage.left_s


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
                timeout = aiohttp.ClientTimeout(total=max(left_s, 0.001))  # 0 would mean no time-out
            return send(*args, timeout=timeout, allow_redirects=False, **kwargs)

        setattr(self, verb, send_once)
        return send_once
