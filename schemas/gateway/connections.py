"""The connections of programs to the gateway, and their bounds.

Whoever connects costs memory: a connection that says nothing, one that sends a header a byte at a time, one that does
not read its answer. So each has little time for what is its turn. When there are too many, one of the caller's that
has most ends (`peers.py`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from . import metrics
from .peers import Peer, Peers, State

# As nginx has it: a connection without a request, or between two, and all that one request's header may take.
IDLE_S: Final = 75.0
# An answer that its reader has not taken by then is cut off.
TAKEN_S: Final = 30.0
# What is left of a refused request's body is read for so long, and what is left of the last answers is sent so long.
LINGER_S: Final = 1.0
# Of a request's first line, and of each header.
LINE_BYTES: Final = 16_384
HEADERS: Final = 64


class Answering(Protocol):
    """What answers requests; the answer has been sent when it returns."""

    def __call__(self, request: web.BaseRequest, peer: Peer, /) -> Awaitable[web.StreamResponse]:
        """Answers one request of a connection."""
        ...


def _is_malformed(_: logging.LogRecord) -> bool:
    """Counts what is no HTTP in place of logging it: it is what anybody sends, and there may be a token in it."""
    metrics.REFUSED.labels("malformed").inc()
    return False


class Connections(web.Server):
    """aiohttp's server, with bounds.

    Args:
        answer: what answers requests.
        most: how many connections there may be.
    """

    def __init__(self, answer: Answering, most: int) -> None:
        logger = logging.getLogger(f"{__name__}.malformed")
        logger.addFilter(_is_malformed)
        options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": IDLE_S,
            "lingering_time": LINGER_S,
            "max_line_size": LINE_BYTES,
            "max_field_size": LINE_BYTES,
            "max_headers": HEADERS,
            "logger": logger,
        }
        super().__init__(self._answered, handler_cancellation=True, **options)
        self.most = most
        self._answer = answer
        self._there: dict[RequestHandler, tuple[Peer, asyncio.Transport]] = {}
        self._peers = Peers()
        self._under_way = 0
        self._nothing, self._empty = asyncio.Event(), asyncio.Event()
        self._nothing.set()
        self._empty.set()
        metrics.CONNECTIONS.set_function(lambda: len(self._peers))

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Takes one more, in place of another where there are too many."""
        super().connection_made(handler, transport)
        if len(self._peers) >= self.most:
            spare = self._peers.spare()
            metrics.CUT.labels("too many").inc()
            if spare is None:  # all of them are asking
                transport.abort()
                return
            self._peers.remove(spare)
            spare.end()
        self._there[handler] = self._peers.add(transport.abort), transport
        self._empty.clear()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forgets one."""
        super().connection_lost(handler, exc)
        if handler in self._there:
            self._peers.remove(self._there.pop(handler)[0])
        if not self._there:
            self._empty.set()

    async def drained(self, grace_s: float) -> None:
        """Ends idle connections, and the others when they have their answers, or after the time."""
        self.pre_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._nothing.wait()
        for _, transport in list(self._there.values()):
            transport.close()  # which sends what is still to be sent
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._empty.wait()
        for _, transport in list(self._there.values()):
            transport.abort()

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        handler: Any = request.protocol
        peer, _ = self._there[handler]
        peer.turn(State.WAITING)
        self._under_way += 1
        self._nothing.clear()
        try:
            return await self._answer(request, peer)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._nothing.set()
            peer.turn(State.IDLE)


async def send(
    request: web.BaseRequest,
    status: int,
    headers: dict[str, str],
    length: int,
    pieces: Iterable[bytes | memoryview],
    *,
    closes: bool = False,
) -> web.StreamResponse:
    """Sends an answer piece by piece, as fast as its reader takes it; one that does not is cut off.

    Args:
        request: what it answers.
        status: of HTTP.
        headers: all but those of the connection.
        length: of the body.
        pieces: the body.
        closes: whether the connection ends with it.
    """
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = length
    if closes:
        response.force_close()
    try:
        async with asyncio.timeout(TAKEN_S):
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
            await response.write_eof()
    except TimeoutError:
        metrics.CUT.labels("slow reader").inc()
        if request.transport is not None:
            request.transport.abort()
    return response
