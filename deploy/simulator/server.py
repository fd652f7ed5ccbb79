"""Serves one exchange on its own port: limits first, then faults, then the answer."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from functools import lru_cache
from random import Random
from urllib.parse import parse_qsl, unquote
from weakref import WeakSet

from aiohttp import web

from .accounts import Account, Signed
from .clock import Clock
from .faults import HEALTHY, HTML, REDIRECT_TO, Faults
from .ledger import Ledger, Verdict
from .limits import LIMITS, Query
from .venue import Answer, BadParameter, Endpoint, UnknownSymbol, Venue, reply

log = logging.getLogger("simulator")

# As nginx does by default.
KEEP_ALIVE_S = 75.0
_CUT_SHORT_BY = 1000
_KEPT_ANSWERS = 2000
_HELD_LOOK_S = 0.01


class Door:
    """One exchange and its port, which stays the same when it goes down and comes back.

    Args:
        venue: what answers.
        clock: the simulator's clock.
        seed: draws which requests fail and how late answers are.
        ban_base_s: length of a first ban, in place of the exchange's.
        keep_alive_s: a connection that was idle for so long is closed.
    """

    def __init__(
        self, venue: Venue, clock: Clock, seed: int, ban_base_s: float | None = None, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self.venue = venue
        self.ledger = Ledger(LIMITS[venue.name], clock, ban_base_s, venue.counted_as)
        self.faults = HEALTHY
        self._random = Random(f"{seed}/{venue.name}/faults")
        self._server = web.Server(
            self._handle, handler_cancellation=True, access_log=None, keepalive_timeout=keep_alive_s
        )
        self._listener: asyncio.Server | None = None
        self._host = ""
        self._port = 0
        self._reserved: socket.socket | None = None
        self._resolve = lru_cache(4096)(self._read_target)
        self._lasting: dict[str, Answer] = {}
        self._fresh: dict[str, Answer] = {}
        self._fresh_tick = -1
        self._unknown_seen: set[str] = set()
        self._used = WeakSet[asyncio.BaseTransport]()

    @property
    def url(self) -> str:
        """Where it is, up or down."""
        return f"http://{self._host}:{self._port}"

    async def open(self, host: str, port: int = 0) -> None:
        """Choose the port (0: a free one), keep it for good, and listen."""
        # A bound socket that never listens holds the port while the exchange is down: connections are refused, and
        # no other program gets it.
        self._reserved = _bound(host, port)
        self._host, self._port = self._reserved.getsockname()[:2]
        await self._listen()

    async def close(self) -> None:
        """Stop listening, cut all connections and give the port back."""
        await self._refuse_connections()
        if self._reserved is not None:
            self._reserved.close()

    async def _listen(self) -> None:
        if self._listener is None:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._server, sock=_bound(self._host, self._port), backlog=1024)

    async def _refuse_connections(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._server.connections):
            connection.force_close()
        # The closed sockets leave the loop in its next turns.
        await asyncio.sleep(0)

    async def set_faults(self, faults: Faults) -> None:
        """Have exactly these faults from now on; `Faults()` also lifts all bans."""
        self.ledger.ban_everyone(faults.ban_s)
        if faults == HEALTHY:
            faults = HEALTHY  # the very object, which the handler knows by identity
            self.ledger.forgive()
        if faults.unlisted != self.faults.unlisted:
            self.venue.board.unlist(faults.unlisted)
            self._lasting.clear()
            self._fresh.clear()
        self.faults = faults
        if faults.down == "refused":
            await self._refuse_connections()
        else:
            await self._listen()

    def _read_target(self, target: str) -> tuple[Endpoint | None, str, Query]:
        path, _, text = target.partition("?")
        query: Query = {}
        for key, value in parse_qsl(text, keep_blank_values=True):
            query[key] = f"{query[key]},{value}" if key in query else value
        path = unquote(path)
        return self.venue.resolve(path, query), path, query

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        endpoint, path, query = self._resolve(target)
        name = path if endpoint is None else endpoint.name
        wrong: Answer | None = None
        account = ""
        if endpoint is not None and endpoint.signed:
            found = await self._authenticate(request, path)
            if isinstance(found, Answer):
                wrong = found
            else:
                account, target = found.key, f"{target} {found.key}"
                query = {**query, "account": account}
        verdict = self.ledger.charge(request.remote or "", name, endpoint is not None, query, account)
        if self.faults is not HEALTHY:
            response = await self._misbehave(request, name, verdict)
            if response is not None:
                return response
        if verdict.refusal is not None:
            answer = self.venue.refuse(verdict)
        elif endpoint is None:
            answer = self._unknown(path)
        elif wrong is not None:
            answer = wrong
        else:
            answer = self._answer(endpoint, target, query)
        return self._respond(answer, name, verdict)

    async def _authenticate(self, request: web.BaseRequest, path: str) -> Account | Answer:
        body = await request.text() if request.can_read_body else ""
        _, _, text = request.raw_path.partition("?")
        return self.venue.authenticate(Signed(request.method, path, text, request.headers, body))

    def _respond(self, answer: Answer, name: str, verdict: Verdict) -> web.Response:
        headers = self.venue.usage_headers(name, verdict)
        headers["Content-Type"] = answer.content_type
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    def _unknown(self, path: str) -> Answer:
        if path == REDIRECT_TO:
            return Answer(200, HTML, "text/html")
        if path not in self._unknown_seen:
            self._unknown_seen.add(path)
            log.warning("unknown_path exchange=%s path=%s", self.venue.name, path)
        return self.venue.unknown_path()

    def _answer(self, endpoint: Endpoint, target: str, query: Query) -> Answer:
        tick = self.venue.board.tick()
        if tick != self._fresh_tick:
            self._fresh_tick = tick
            self._fresh.clear()
        kept = self._lasting if endpoint.life == "start" else self._fresh
        found = kept.get(target)
        if found is not None:
            return found
        try:
            answer = reply(endpoint.answer(query))
        except UnknownSymbol as error:
            return self.venue.unknown_symbol(str(error))
        except BadParameter as error:
            return self.venue.bad_parameter(str(error))
        if endpoint.life != "never" and len(kept) < _KEPT_ANSWERS:
            kept[target] = answer
        return answer

    async def _misbehave(self, request: web.BaseRequest, name: str, verdict: Verdict) -> web.StreamResponse | None:
        """The faulty answer, or None where the exchange answers as usual (perhaps late)."""
        faults, counts = self.faults, self.ledger.counts
        if faults.down == "reset":
            counts.faults += 1
            return _reset(request)
        if faults.hang:
            counts.faults += 1
            await asyncio.Event().wait()
        if faults.hangs_up and request.transport is not None:
            if request.transport in self._used:
                counts.faults += 1
                request.transport.close()
                return web.Response()
            self._used.add(request.transport)
        while self.faults.held:
            await asyncio.sleep(_HELD_LOOK_S)
        late_ms = faults.latency_ms + faults.latency_jitter_ms * self._random.random()
        if late_ms:
            await asyncio.sleep(late_ms / 1000)
        if verdict.refusal is not None:
            return None
        said = next((said for text, said in faults.said.items() if text in request.raw_path), None)
        answer: Answer | None = None
        if said is not None:
            answer = Answer(said.status, said.body.encode(), said.content_type)
        elif faults.error_rate and self._random.random() < faults.error_rate:
            answer = self.venue.error(500 if self._random.random() < 0.5 else 503)
        elif faults.maintenance:
            answer = self.venue.maintenance(name)
        elif faults.garbage is None:
            return None
        counts.faults += 1
        if answer is not None:
            response = self._respond(answer, name, verdict)
            response.headers.update(said.headers if said else {})
            return response
        if faults.garbage == "redirect" and name != REDIRECT_TO:
            return web.Response(status=302, headers={"Location": REDIRECT_TO})
        if faults.garbage == "truncated":
            return await _truncated(request)
        return web.Response(body=b"" if faults.garbage == "empty" else HTML, content_type="text/html")


def _bound(host: str, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind((host, port))
    found.setblocking(False)
    return found


def _reset(request: web.BaseRequest) -> web.Response:
    transport = request.transport
    if transport is not None:
        # A linger of zero makes the close a reset (RST) and not an orderly end.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _truncated(request: web.BaseRequest) -> web.StreamResponse:
    body = b'{"code":"0","data":[{"half":'
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body) + _CUT_SHORT_BY
    await response.prepare(request)
    await response.write(body)
    if request.transport is not None:
        request.transport.close()
    return response
