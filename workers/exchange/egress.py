"""One address that exchanges see, with its connections: opened before they are needed, kept alive, given up when dead.

aiohttp repeats a call by itself on a connection that turns out dead, and follows redirects: both would be calls that
nobody charged, so both are closed here. What a call needs to know of its way it learns as a `Passage`.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Collection
from contextvars import ContextVar
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

import aiohttp
import certifi
from yarl import URL

from schemas.accounts import Secret

from .bounds import NOTHING, Holding
from .reading import Handler, Response

log = logging.getLogger(__name__)

# A server that ends idle connections may do so just as a call arrives. AWS's load balancers do after 60 s by default,
# nginx after 75 s, Cloudflare after 400 s (their documentation): so we never use one that was idle for so long.
IDLE_S: Final = 50.0
OPEN_TIMEOUT_S: Final = 2.0


def tls() -> ssl.SSLContext:
    """The TLS settings of all lanes: one for the process, as parsing the certificates takes 30 ms and 0.7 MiB."""
    return ssl.create_default_context(cafile=certifi.where())


class Late(Exception):
    """The call was not sent: it would have left too late for what it was granted."""


class _Opened(Exception):
    """The connection is there, and there is nothing to send."""


class Passage:
    """One HTTP call on its way out and back. All times in seconds of the monotonic clock.

    Attributes:
        reused: its connection had an earlier call.
        left_s: when it was written to its connection; 0 before.
        answered_s: when the head of its answer came; 0 before.
    """

    connection: asyncio.BaseProtocol | None = None
    reused: bool = False
    left_s: float = 0.0
    answered_s: float = 0.0

    @property
    def holding(self) -> Holding:
        """What its answer is counted in."""
        return NOTHING

    @property
    def time_left_s(self) -> float:
        """How long it may still take."""
        return OPEN_TIMEOUT_S

    def leave(self) -> None:
        """It is written to its connection next. Raises what keeps it from leaving; the connection waits for another."""

    def heard(self) -> None:
        """The head of its answer is here."""


class _Opening(Passage):
    def leave(self) -> None:
        raise _Opened


PASSAGE: Final[ContextVar[Passage]] = ContextVar("passage")


class Egress:
    """One address that exchanges see: a connection pool and the TLS settings, shared by the lanes that use it.

    Must be made inside the running event loop.

    Args:
        ssl_context: from `tls`.
        local_addr: the source address of its connections; None leaves it to the system.
        proxy: the HTTP proxy all its calls go through.

    Attributes:
        secrets: what the proxy is told, and nobody else must know.
    """

    def __init__(self, ssl_context: ssl.SSLContext, local_addr: str | None = None, proxy: str | None = None) -> None:
        self.ssl_context = ssl_context
        self.proxy = proxy
        parts = urlsplit(proxy or "")
        self.secrets = [Secret(unquote(part)) for part in (parts.username, parts.password) if part]
        # No limit of connections: a call that waits for one after its budget was granted is sent later than granted,
        # and too many of them at once.
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
        # Cookies would carry one lane's standing with a firewall to the next.
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
            response_class=Response,
        )
        # aiohttp repeats a GET when a reused connection turns out dead: a second call that nobody charged. There is no
        # public switch (aiohttp 3.14).
        if not hasattr(self._session, "_retry_connection"):
            raise RuntimeError("this aiohttp repeats requests by itself; install the version ccxt-fleet names")
        self._session._retry_connection = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self.session = _Session(self._session)

    async def open(self, urls: Collection[str]) -> None:
        """Sees to it that the next call to each of these places finds a connection. Nothing is asked there."""
        await asyncio.gather(*map(self._open, {str(URL(url).origin()) for url in urls}))

    async def _open(self, url: str) -> None:
        token = PASSAGE.set(_Opening())
        try:
            async with self.session.get(url, timeout=aiohttp.ClientTimeout(total=OPEN_TIMEOUT_S), proxy=self.proxy):
                raise AssertionError("it was sent")
        except _Opened:
            pass
        except (aiohttp.ClientError, TimeoutError) as error:
            # A call would see that too. The error may tell the proxy's password.
            log.info("connection_opens_not", extra={"place": url, "error": type(error).__name__})
        finally:
            PASSAGE.reset(token)

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """Lets a call go only in time, and only on a connection that is probably alive.

    A new connection may take longer than the call may be late. Then the connection is kept for the next one, and the
    call asks for budget again. A connection may be dead and look well, as where a firewall on the way has forgotten
    it, and then costs a call its time-out. Where one is dead others are: what brought nothing since then is given up.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # There is no public way to bring another protocol (aiohttp 3.14).
        if not hasattr(self, "_factory"):
            raise RuntimeError("this aiohttp makes its connections otherwise; install the version ccxt-fleet names")
        self._factory: Any = partial(Handler, loop=self._loop)
        self._last_s = WeakKeyDictionary[asyncio.BaseProtocol, float]()  # when it was opened, or brought an answer
        self._doubted_s: dict[str, float] = {}  # when a call left there that got no answer

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Gets a connection; what it is for is written to it next."""
        passage, place = PASSAGE.get(), req.url.raw_authority
        while True:
            connection = await super().connect(req, traces, timeout)
            now_s = time.monotonic()
            passage.connection = connection.protocol
            assert isinstance(passage.connection, Handler)
            passage.connection.begin(passage.holding)
            passage.reused = passage.connection in self._last_s
            last_s = self._last_s.setdefault(passage.connection, now_s)
            if last_s >= max(now_s - IDLE_S, self._doubted_s.get(place, 0.0)):
                break
            connection.close()
        passage.left_s = now_s
        try:
            passage.leave()
        except (Late, _Opened):
            connection.release()
            raise
        return connection

    async def answered(self, *_: object) -> None:
        """The head of an answer came."""
        passage = PASSAGE.get()
        passage.answered_s = time.monotonic()
        if passage.connection is not None:
            self._last_s[passage.connection] = passage.answered_s
        passage.heard()

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
                timeout = aiohttp.ClientTimeout(total=max(left_s, 0.001))  # 0 would be none
            return send(*args, timeout=timeout, allow_redirects=False, **kwargs)

        setattr(self, verb, send_once)
        return send_once
