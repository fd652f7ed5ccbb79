"""A request to the gateway, from its first line to its answer.

``/<exchange>/<host>/<path>`` is an HTTP call of an exchange (`calls.py`), ``/v1/<method>`` a read of ccxt's
(`reads.py`), and ``/v1/`` says what there is. A signed call goes past the fleet's queues (`signed.py`).
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web
from msgspec import Struct, json
from msgspec.structs import replace

from ..client.errors import Closed, NoDispatcher, NotAllowed
from ..client.results import Answer
from ..config import Config
from ..errors import BrokerLost
from ..gateway_config import GatewayConfig
from ..messages import Request
from . import admission, ages, answers, calls, metrics, openapi, reads
from .answers import JSON_TYPE, LATER, Refusal, refused
from .bodies import Body
from .callers import Caller, Callers
from .calls import TOKEN_HEADER
from .connections import send
from .peers import Peer, State
from .signed import Answered, End, Lost, Sender, SignedCall, Unsent

log = logging.getLogger(__name__)

# Headers of an exchange's answer that are ours to say.
_OURS: Final = frozenset(
    "connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade content-length"
    " content-encoding set-cookie".split()
)
# So much before the end of a caller's time an answer of ours leaves.
EARLY_S: Final = 0.1
V1: Final = "/v1/"
_UNREAD: Final = "there is no room for more answers: this caller's programs have too many bytes of them still to read"
_LEFT: Final = Lost("sent, outcome unknown: its caller hung up before the answer", timed_out=False)


class Whole(Struct, frozen=True):
    """An answer that is sent.

    Args:
        status: of HTTP.
        headers: all but those of the connection.
        body: what is sent.
        exchange: whose it is, for metrics.
        is_signed: it is the answer to a signed call.
    """

    status: int
    headers: dict[str, str]
    body: Body
    exchange: str = ""
    is_signed: bool = False


class Door:
    """Answers requests.

    Args:
        callers: who may ask.
        config: the fleet's.

    Attributes:
        leaving: nothing more is answered.
        sender: sends signed calls; None where they are refused.
    """

    def __init__(self, callers: Callers, config: Config) -> None:
        self._callers = callers
        self.leaving = False
        self.sender: Sender | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Takes another configuration, from the next request on."""
        self._config: GatewayConfig = config.gateway
        names = {name for lane, each in config.lanes.items() for name in (lane, each.exchange, each.known_as)}
        self._exchanges = frozenset(names)

    async def __call__(self, request: web.BaseRequest, peer: Peer, /) -> web.StreamResponse:
        """Answers one request; the answer has been sent when it returns."""
        began_s = asyncio.get_running_loop().time()
        names = [name.lower() for name in request.headers]
        headers = dict(zip(names, request.headers.values(), strict=True))
        target = request.raw_path
        sender = None if target.startswith(V1) else self.sender  # the same to its end: it may be switched off
        signed = sender is not None
        refusal = admission.refusal(request.method, target, headers, names, signed=signed)
        caller: Caller | None = None
        if refusal is None:
            refusal, caller = self._caller(headers, signed=signed)
        if refusal is not None or caller is None:
            return await self._refuse(request, refusal or refused("forbidden", "nobody may ask"), counted=True)
        peer.turn(State.WAITING, caller.name)
        until_s = began_s + admission.wait_s(headers, self._config.wait_s, self._config.max_wait_s) - EARLY_S
        with ExitStack() as held:
            try:
                answer = await self._answer((request, peer), sender, (headers, names), caller, until_s)
            except Exception:
                log.exception("request_broke", extra={"caller": caller.name})
                answer = refused("fault", "a fault of the gateway's own; its log has more")
            if isinstance(answer, Whole):
                answer = _with_room(answer, held.enter_context(caller.sending.held(answer.body)))
                if answer.status == LATER and isinstance(answer, Refusal):
                    await _sleep_until(until_s)
            exchange = answer.exchange if isinstance(answer, Whole) else ""
            metrics.REQUESTS.labels(caller.name, self._label(exchange or target.split("/")[1]), answer.status).inc()
            metrics.SECONDS.labels(caller.name).observe(asyncio.get_running_loop().time() - began_s)
            if isinstance(answer, Refusal):
                return await self._refuse(request, answer, counted=answer.code in answers.OWN)
            told = {"Server": "ccxt-fleet", **answer.headers}
            return await send(request, answer.status, told, answer.body.length, answer.body.pieces())

    def _caller(self, headers: Mapping[str, str], *, signed: bool) -> tuple[Refusal | None, Caller | None]:
        token = admission.token_of(headers)
        if not self._callers.need_tokens:
            wrong = admission.of_host(headers["host"], self._config.hosts)
            return wrong or (None if signed else admission.of_authorization(headers)), self._callers.of(token)
        if (caller := self._callers.of(token)) is None:
            told = "is not known" if token else "is missing: send `Authorization: Bearer <token>`"
            return refused("unauthorized", f"the token {told}", WWW_Authenticate='Bearer realm="ccxt-fleet"'), None
        return None, caller

    async def _answer(
        self,
        asks: tuple[web.BaseRequest, Peer],
        sender: Sender | None,
        said: tuple[Mapping[str, str], list[str]],
        caller: Caller,
        until_s: float,
    ) -> Whole | Refusal:
        if self.leaving:
            return refused("leaving", "the gateway is being stopped", closes=True)
        request, peer = asks
        target = request.raw_path
        path = target.partition("?")[0]
        if request.method == "GET" and (page := openapi.page(path)) is not None:
            content_type, text = page
            return Whole(200, {"Content-Type": content_type}, Body(text.encode()))
        late = refused("no_body", "its body did not come within the time that it would have waited", closes=True)
        try:
            async with asyncio.timeout_at(until_s):
                body = await _body(request)
                if isinstance(body, Refusal):
                    return body
                asked: Request | SignedCall | Refusal
                if path.startswith(V1):
                    asked = reads.read(target, body)
                elif sender is not None:
                    asked = await self._any_call(sender, target, request.method, said, body)
                else:
                    asked = self._call(target, request.method, body)
                if isinstance(asked, Refusal):
                    return asked
                # What is asked while there is no room for its answer would be bought for nothing.
                late = refused("busy", f"nothing was asked: {_UNREAD}")
                await caller.sending.opened()
                late = refused("busy", "nothing was asked: too many of this caller's requests are under way")
                await caller.places.take(0)
        except TimeoutError:
            return late
        peer.turn(State.ASKING)
        try:
            with metrics.IN_FLIGHT.labels(caller.name).track_inprogress():
                if isinstance(asked, SignedCall):
                    assert sender is not None
                    return await self._send(sender, asked, caller, until_s)
                return await self._ask(asked, caller, until_s)
        finally:
            caller.places.give(0)
            peer.turn(State.SENDING)

    async def _any_call(
        self, sender: Sender, target: str, verb: str, said: tuple[Mapping[str, str], list[str]], body: bytes
    ) -> Request | SignedCall | Refusal:
        """What a call is, where signed ones are taken: what may carry a key, or is no public read, is no request."""
        headers, names = said
        # An `Authorization` is the caller's token, unless that stands elsewhere or it can't be one.
        is_theirs = TOKEN_HEADER in headers or (not self._callers.need_tokens and admission.is_exchange_s(headers))
        is_theirs = is_theirs and not self._callers.is_token(admission.bearer_of(headers))
        call = calls.read_signed(target, verb, headers, names, body, ours=() if is_theirs else ("authorization",))
        if isinstance(call, Refusal):
            return call
        if not calls.is_signed(call):
            plain = self._call(target, verb, body)
            if isinstance(plain, Refusal) or (plain.http and await sender.is_read(call.exchange, plain.http)):
                return plain
        return call

    async def _send(self, sender: Sender, call: SignedCall, caller: Caller, until_s: float) -> Whole | Refusal:
        """Has a signed call sent. What was not sent is told at once: whoever trades may do something else."""
        try:
            end = await sender.send(call, until_s)
        except asyncio.CancelledError:  # its caller hung up
            self._note(call, caller, _LEFT if call.written else Unsent("", ""))
            raise
        self._note(call, caller, end)
        if isinstance(end, Unsent):
            return answers.of_unsent(end)
        if isinstance(end, Lost):
            return answers.of_lost(end)
        theirs = _theirs(end.data) | {"X-Fleet-Lane": end.lane}
        return Whole(end.data["status"], theirs, Body.of(end.data), end.exchange, is_signed=True)

    def _note(self, call: SignedCall, caller: Caller, end: End) -> None:
        kind = "answered" if isinstance(end, Answered) else "not_sent" if isinstance(end, Unsent) else "unknown"
        metrics.SIGNED.labels(caller.name, self._label(call.exchange), kind).inc()
        if isinstance(end, Lost):
            more = {"caller": caller.name, "exchange": call.exchange, "why": end.message}
            log.warning("signed_call_lost", extra=more)

    def _call(self, target: str, verb: str, body: bytes) -> Request | Refusal:
        asked = calls.read(target, verb, body)
        if isinstance(asked, Refusal):
            return asked
        parts = urlsplit(asked.http.url)
        now_ms = time.time_ns() // 1_000_000
        age_ms = ages.max_age_ms(self._config.max_age_s, asked.exchange, parts.path, parts.query, now_ms)
        return Request(exchanges=[asked.exchange], http=asked.http, max_age_ms=age_ms)

    async def _ask(self, request: Request, caller: Caller, until_s: float) -> Whole | Refusal:
        """Asks the fleet. What has no answer in time is told when that time is over.

        Most programs ask again at once, whatever `Retry-After` says: that they wait for it here slows them down.
        """
        try:
            found = await caller.ask(request, until_s)
        except (TimeoutError, BrokerLost, Closed, NoDispatcher) as error:
            answer: Whole | Refusal = refused("no_fleet", str(error) or caller.why_not)
        except NotAllowed as error:
            log.error("request_not_allowed", extra={"caller": caller.name, "error": str(error)})  # noqa: TRY400
            answer = refused("no_fleet", "RabbitMQ does not let the gateway ask; its log has more")
        else:
            for each in found:
                if each.age_ms is not None:
                    metrics.SHARED.labels(caller.name, self._label(each.exchange or "")).inc()
            answer = self._of_call(found[0]) if request.http is not None else _of_read(found, request)
        if answer.status == LATER:
            await _sleep_until(until_s)
        return answer

    def _of_call(self, answer: Answer) -> Whole | Refusal:
        if answer.error is not None:
            return _error(answer)
        data: dict[str, Any] = answer.data
        headers = _theirs(data)
        headers |= {"X-Fleet-Lane": answer.lane or "", "X-Fleet-Request": answer.id}
        if answer.age_ms is not None:  # RFC 9111 has seconds
            headers |= {"Age": str(answer.age_ms // 1000), "X-Fleet-Age-Ms": str(answer.age_ms)}
        return Whole(data["status"], headers, Body.of(data), answer.exchange or "")

    def _label(self, exchange: str) -> str:
        return exchange if exchange in self._exchanges else "other"

    @staticmethod
    async def _refuse(request: web.BaseRequest, refusal: Refusal, *, counted: bool) -> web.StreamResponse:
        if counted:
            metrics.REFUSED.labels(refusal.code).inc()
        as_json = request.raw_path.startswith(V1)
        headers = {"Server": "ccxt-fleet", **refusal.all_headers(as_json=as_json)}
        body = b"" if request.method == "HEAD" else refusal.body(as_json=as_json)
        return await send(request, refusal.status, headers, len(body), iter((body,)), closes=refusal.closes)


async def _body(request: web.BaseRequest) -> bytes | Refusal:
    """The body, as far as there may be one."""
    found = bytearray()
    async for chunk in request.content.iter_any():
        found += chunk
        if len(found) > calls.MOST_BODY_BYTES:
            return refused("too_large", f"a body has at most {calls.MOST_BODY_BYTES:,} bytes", closes=True)
    return bytes(found)


def _with_room(answer: Whole, body: Body | None) -> Whole | Refusal:
    """An answer with the body that is held for it; or what stands for one that there is no room for."""
    if body is not None:
        return replace(answer, body=body)
    if answer.is_signed:
        return answers.of_lost(Lost(f"sent, outcome unknown: {_UNREAD}", timed_out=False))
    return refused("busy", _UNREAD)


async def _sleep_until(until_s: float) -> None:
    await asyncio.sleep(max(0.0, until_s - asyncio.get_running_loop().time()))


def _theirs(data: Mapping[str, Any]) -> dict[str, str]:
    """The headers of an exchange's answer."""
    return {name: value for name, value in data["headers"].items() if name.lower() not in _OURS}


def _error(answer: Answer) -> Refusal:
    assert answer.error is not None
    now_ms = time.time_ns() // 1_000_000
    return answers.of_error(answer.error.code, answer.error.message, answer.id, answer.attempts, now_ms)


def _of_read(found: list[Answer], request: Request) -> Whole:
    """The results of a read as `docs/messages.md` has them, with the status of the first error where none is data."""
    plain = [reads.plain(answer) for answer in found]
    body = Body(json.encode(plain if request.exchanges_mode == "all" else plain[0]))
    headers = {"Content-Type": JSON_TYPE, "Cache-Control": "no-store"}
    status = 200
    if not any(answer.ok for answer in found):
        refusal = _error(found[0])
        status, headers = refusal.status, refusal.all_headers(as_json=True)
    return Whole(status, headers, body, found[0].exchange or "")
