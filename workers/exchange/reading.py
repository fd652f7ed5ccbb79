"""Reads answers: never more than their call may hold, and never so long at once that other calls wait.

aiohttp (3.14) limits what it reads ahead, the length of lines (`egress.HEADER_BYTES`) and the number of headers (128),
and decompresses in pieces. It does not limit a body, the number of informational answers before the real one, or what
comes beside a body (chunk extensions, compressed data that expands to nothing).
"""

import asyncio
import json
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from . import parsing
from .bounds import ERROR_BYTES, MIB, NOTHING, Crowded, Holding, too_long
from .rows import Rows

# "A client MUST be able to parse one or more 1xx responses" (RFC 9110, 15.2); real servers send one or two.
INFORMATIONAL_LIMIT: Final = 10
# The one informational answer that aiohttp takes for the real one.
SWITCHING: Final = 101
# Bytes that are parsed at once before the head of the answer: 160 informational answers, about 1 ms.
PIECE: Final = 4096
# The most that may come beside a body: heads, and the sizes of chunks.
BESIDE_BYTES: Final = MIB
# A longer text is parsed in a thread, as small lists of this length take 10 ms.
LONG: Final = 256 * 1024


class Switched(aiohttp.ClientPayloadError):
    """The exchange goes on in another protocol: that is no answer."""

    def __init__(self) -> None:
        super().__init__("status 101, another protocol from here on, which nobody asked for")


class Handler(ResponseHandler):
    """One connection, and the bytes that come for the call in flight on it.

    Attributes:
        holding: the call's.
        failure: why we closed the connection, if we did.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.holding = NOTHING
        self.failure: Exception | None = None
        self._informational = 0
        self._waits = True  # for the head of the answer
        self._came = 0

    def begin(self, holding: Holding) -> None:
        """Another call is sent."""
        self.holding = holding
        self._informational = self._came = 0
        self._waits = True

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        self._came += len(data)
        if self._came > self.holding.most_bytes + BESIDE_BYTES:
            self._end(too_long(self.holding.most_bytes))
        at = 0
        while self._waits and self.failure is None and len(data) - at > PIECE:
            super().data_received(data[at : at + PIECE])
            at += PIECE
        if self.failure is None:
            super().data_received(data[at:] if at else data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """The head of an answer came."""
        if self.failure is not None:
            return
        if data[0].code == SWITCHING:
            self._end(Switched())
            return
        if 100 <= data[0].code < 200:
            self._informational += 1
            if self._informational > INFORMATIONAL_LIMIT:
                self._end(aiohttp.ClientPayloadError(f"more than {INFORMATIONAL_LIMIT} answers before the real one"))
                return
        else:
            self._waits = False
        super().feed_data(data, size)

    def _end(self, failure: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        self.set_exception(failure)
        if self._payload is not None:
            self._payload.set_exception(failure)
        if self.transport is not None:
            self.transport.abort()


class Response(aiohttp.ClientResponse):
    """An answer whose body is read within its call's bounds."""

    _handler: Handler

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Waits for its head."""
        assert isinstance(connection.protocol, Handler)
        self._handler, self._held = connection.protocol, connection.protocol.holding
        return await super().start(connection)

    async def read(self) -> bytes:
        """Its body, decompressed; only the start of an answer that is no success.

        Raises:
            TooLarge: it has more than its call may read.
            Crowded: the worker holds too much.
        """
        if self._body is None:
            try:
                self._body = await self._take_in()
            except BaseException:
                self.close()
                raise
            if self._held.keeps:
                self._held.kept = self._body
        return self._body

    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """Its body as text; long JSON is parsed on the way, and the value is put into `Holding.parsed`.

        Raises:
            TooLarge: it has more bytes, or a long one more rows, than its call may read.
        """
        text = await super().text(encoding, errors)
        if len(text) < LONG or self.status >= 400:
            return text
        self._body = b""
        text = text.strip()
        if text.startswith(("{", "[")):
            try:
                self._held.parsed.append((text, await asyncio.to_thread(_parse, text, self._held.rows)))
            except (ValueError, RecursionError):
                self._held.parsed.append((text, None))
        return text

    async def _take_in(self) -> bytes:
        pieces: list[bytes] = []
        size, most, waited = 0, self._held.most_bytes, False
        if self.status < 400 and (self.content_length or 0) > most:
            raise too_long(most)
        try:
            while piece := await self.content.readany():
                size += len(piece)
                if self.status >= 400 and size > ERROR_BYTES:
                    self.close()
                    pieces.append(piece)
                    return b"".join(pieces)[:ERROR_BYTES]
                if size > most:
                    raise too_long(most)
                waited |= await self._held.take(len(piece))
                pieces.append(piece)
        except TimeoutError as error:  # the call's: if it waited for room, the exchange was not slow
            if waited:
                raise Crowded from error
            raise
        except aiohttp.ClientError as error:
            if self._handler.failure is not None:
                raise self._handler.failure from error
            raise
        return b"".join(pieces)


def _parse(text: str, rows: Rows) -> Any:
    value = parsing.loads(text, json.JSONDecoder(), rows)
    rows.check(value)
    return value
