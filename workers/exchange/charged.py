"""A ccxt class whose every HTTP call is charged to the shared budget before it is signed.

ccxt's own limiter sees one process only, so it is off. Ours sits in `fetch2`, through which all REST calls go (ccxt
4.5.90: pagination, the loading of markets and the implicit methods included), and in `fetch`, where ccxt repeats a call
by itself. Two more sources of uncharged calls are closed in aiohttp: see `egress`.
"""

import copy
import importlib
import time
from collections import defaultdict
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from ccxt.base.errors import (  # pyright: ignore[reportMissingTypeStubs]
    BadResponse,
    DDoSProtection,
    ExchangeNotAvailable,
    NotSupported,
    RateLimitExceeded,
)

from schemas.runtime.clock import clock_s

from ..budget.budget import LATE_TRIES
from ..budget.grants import Grant
from ..limits import costs, wire
from .bounds import Holding
from .call import CALL, Call, Heard, blame
from .clock import SigningClock
from .counts import Count, counted
from .egress import PASSAGE, Late, Passage
from .errors import means_too_many
from .meter import Meter
from .signals import Pause, limit_signal
from .unlisted import Unlisted

ccxt: Any = importlib.import_module("ccxt.async_support")
CCXT_VERSION: Final = str(ccxt.__version__)

BODY_KEPT: Final = 1024


class _Stale(Exception):
    """The server closed an idle keep-alive connection while we wrote to it. The call may have arrived all the same."""


class Send(Passage):
    """One pass through `fetch2`. Pages fetched side by side belong to one `Call`, but each has a pass of its own."""

    def __init__(self, meter: Meter, endpoint: str, charges: list[costs.Charge], grant: Grant) -> None:
        self.meter = meter
        self.endpoint = endpoint
        self.charges = charges
        self.grant = grant
        self.reports = False  # the exchange's count in the answer can be used
        self.http_calls = 0
        self.again = False  # the pass before this one met a stale connection
        self.begin(Heard())

    def begin(self, heard: Heard) -> None:
        """An HTTP call begins; what is heard of it goes there."""
        self.heard = heard
        self.left_s = self.answered_s = self.late_us = 0.0
        self.late = self.reused = False
        self.pause: Pause | None = None
        self.head = None
        self.blank = False
        self.count: Count | None = None

    @property
    def holding(self) -> Holding:
        """Its attempt's."""
        return CALL.get().holding

    @property
    def time_left_s(self) -> float:
        """Its attempt's."""
        return CALL.get().left_s

    def leave(self) -> None:
        """It is sent now; raises `Late` where it would miss its slot."""
        self.late = self.meter.budget.is_late(self.grant, self.left_s)
        if self.late:
            raise Late
        CALL.get().leaves()

    def on_answer(self) -> None:
        """The head of its answer has come: reports its arrival."""
        budget = self.meter.budget
        self.meter.answering.answered(self.answered_s)
        # At once, as other calls wait for the arrival to be reported; reading the body may take a while.
        self.late_us = budget.answered(self.grant, self.endpoint, left_s=self.left_s, answered_s=self.answered_s)
        budget.tell(self.charges, self.grant, self.late_us)

    def note(self, call: Call) -> None:
        """The HTTP call is over: its times go into the attempt's call."""
        call.there_s = max(call.there_s, self.answered_s or clock_s())
        if self.answered_s:
            call.left_us = self.grant.at_us + (self.left_s - self.grant.due_s) * 1e6
            call.trip_s = self.answered_s - self.left_s + self.grant.due_s - self.grant.early_s
        elif not self.late:
            self.meter.budget.unanswered(self.charges, self.grant, self.left_s)


_SEND: Final = cast("ContextVar[Send]", PASSAGE)

if TYPE_CHECKING:

    class _Ccxt:
        id: str
        markets_by_id: dict[str, Any] | None

        async def fetch2(self, path: str, api: Any, method: str, params: Any, config: Any) -> Any: ...
        def parse_json(self, http_response: str) -> Any: ...
        def safe_market(self, market_id: Any, market: Any, delimiter: Any, market_type: Any) -> Any: ...
        def sign(self, path: str, api: Any, method: str, params: Any, *more: Any) -> dict[str, Any]: ...
        async def fetch(self, url: str, method: str, headers: Any, body: Any) -> Any: ...
        def on_rest_response(
            self, code: int, reason: str, url: str, method: str, headers: dict[str, str], body: str, *request: Any
        ) -> Any: ...
        def handle_http_status_code(self, code: int, reason: str, url: str, method: str, body: str) -> None: ...
        def calculate_rate_limiter_cost(self, api: Any, method: Any, path: Any, params: Any, config: Any) -> float: ...

else:
    _Ccxt = ccxt.Exchange


class ChargedCalls(_Ccxt):
    """Mixed into a ccxt class: charges every HTTP call to the lane's meter, and shows the attempt what came back.

    Attributes:
        meter: of the lane, for all instances of its class.
        signing_clock: the exchange's clock, of an instance with keys.
        unlisted: of the lane: markets that answers name and no instance lists.
    """

    meter: Meter
    unlisted: Unlisted | None = None
    signing_clock: SigningClock | None = None

    def may_repeat(self, method: str) -> bool:
        """Whether a call may be sent again where the first may have arrived.

        Args:
            method: of HTTP.
        """
        return True  # the fleet only reads

    def milliseconds(self) -> int:
        """Unix milliseconds by the exchange's clock if that was measured; signatures and nonces are made of it."""
        return time.time_ns() // 1_000_000 + int(self._ahead_s * 1e3)

    def microseconds(self) -> int:
        """The same in microseconds."""
        return time.time_ns() // 1_000 + int(self._ahead_s * 1e6)

    def seconds(self) -> int:
        """The same in whole seconds."""
        return self.milliseconds() // 1000

    @property
    def _ahead_s(self) -> float:
        return self.signing_clock.ahead_s if self.signing_clock else 0.0

    def __del__(self) -> None:
        """Replaces ccxt's warning of an instance that was not closed: ours own nothing, the session is the egress's."""

    async def fetch2(
        self,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Any = {},  # noqa: B006 (ccxt's own signature; it is never written to)
        config: Any = {},  # noqa: B006
    ) -> Any:
        """Waits for budget, then lets ccxt sign and send."""
        meter, call = self.meter, CALL.get()
        apis = (api,) if isinstance(api, str) else tuple(api)
        if not meter.costs.serves(apis):
            raise NotSupported(
                f"{self.id} {path}: the exchange has no {'.'.join(apis)}, and the call would go to another"
            )
        charges = charges_of(self, meter, path, api, method, params, config)
        reports = meter.costs.reports(apis, method, path)
        with call.page():
            late: list[Grant] = []  # the reservation of a call that was too late to be sent, until it is moved
            stale = False
            try:
                for _ in range(LATE_TRIES):
                    await meter.book(call)
                    send = Send(meter, f"{apis} {path}", charges, await meter.pay(call, charges, late))
                    send.reports, send.again = reports, stale
                    token = _SEND.set(send)
                    try:
                        return await super().fetch2(path, api, method, params, config)
                    except Late:
                        late.append(send.grant)  # the next pass moves it, and signs again
                    except _Stale:
                        stale = True  # the call is charged, and so is its repetition
                        call.returns()
                    finally:
                        _SEND.reset(token)
                        if not send.http_calls:
                            meter.budget.release(charges, send.grant)
                raise meter.too_busy(charges)
            finally:
                for each in late:
                    meter.budget.release(charges, each)

    def sign(self, path: str, api: Any = "public", method: str = "GET", params: Any = {}, *more: Any) -> dict[str, Any]:  # noqa: B006
        """Called by ccxt for what it sends; an HTTP call of the producer's own goes out as it stands."""
        call = CALL.get(None)
        if call is not None and call.signed is not None:
            return dict(call.signed)
        return super().sign(path, api, method, params, *more)

    async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Sends one HTTP call, and refuses an answer that is no answer of an API."""
        meter, call, send = self.meter, CALL.get(), _SEND.get()
        if send.http_calls:
            send.grant = await meter.pay(call, send.charges, [])  # ccxt repeats a call by itself
        send.http_calls += 1
        send.begin(call.sends())
        try:
            data = await self._sent(call, send, url, method, headers, body)
            data = self._checked(data, f"{self.id} {method} {url}", call, send)
        except Exception as error:
            self.failed(error, send.heard)
            raise
        call.heard, call.data = send.heard, True
        return data

    def failed(self, error: Exception, heard: Heard) -> None:
        """An HTTP call raised an error, which is judged by what was heard of that call."""
        blame(error, heard)

    async def _sent(self, call: Call, send: Send, url: str, method: str, headers: Any, body: Any) -> Any:
        meter = self.meter
        sent_s = clock_s()
        call.sent_s = sent_s if call.sent_s is None else call.sent_s
        meter.answering.sent(sent_s)
        try:
            return await super().fetch(url, method, headers, body)
        except Late:
            call.http_calls -= 1
            raise
        except ExchangeNotAvailable as error:
            closed = isinstance(error.__cause__, aiohttp.ClientConnectionError) and not send.answered_s
            if closed and send.reused and not send.again and self.may_repeat(method):
                raise _Stale from error
            raise
        except (DDoSProtection, RateLimitExceeded):
            if send.pause is None and means_too_many(self.id, send.heard):
                send.pause = refusal_of(send)
            raise
        finally:
            meter.answering.ended()
            ended_s = clock_s()
            call.exchange_s += ended_s - sent_s - call.stood(send.heard, meter.still_s, sent_s, ended_s)
            send.note(call)
            note_head(send)
            if send.answered_s and (send.pause is not None or send.count is not None):
                heed = meter.heed
                send.heard.pause = await heed(send.charges, send.grant, send.late_us, send.pause, send.count)

    def _checked(self, data: Any, what: str, call: Call, send: Send) -> Any:
        status = send.heard.status or 0
        if not 200 <= status < 300:
            # ccxt returns the body of a status that it does not know as if it were data.
            kind = ExchangeNotAvailable if status >= 500 else BadResponse
            raise kind(f"{what} status {status}")
        call.blank = send.blank
        if send.blank:
            return []
        if not isinstance(data, (dict, list)) and not (isinstance(data, str) and data.strip().isdigit()):
            raise BadResponse(f"{what} no JSON: {send.meter.redactor.hide(send.heard.body)[:80]!r}")
        return data  # pyright: ignore[reportUnknownVariableType]

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, headers: dict[str, str], body: str, *request: Any
    ) -> Any:
        """Called by ccxt for every answer, before it looks for errors."""
        note_answer(_SEND.get(), code, headers, body)
        return super().on_rest_response(code, reason, url, method, headers, body, *request)

    def handle_http_status_code(self, code: int, reason: str, url: str, method: str, body: str) -> None:
        """Called by ccxt for every answer in whose body it found no error."""
        _SEND.get().heard.by_status = True
        super().handle_http_status_code(code, reason, url, method, body)

    def safe_market(
        self, market_id: Any = None, market: Any = None, delimiter: Any = None, market_type: Any = None
    ) -> Any:
        """Called by ccxt for every market that an answer names."""
        if market is None and self.unlisted is not None and self.markets_by_id and isinstance(market_id, str):
            call = CALL.get(None)
            if market_id and market_id not in self.markets_by_id and call is not None and call.data:
                self.unlisted.note(market_id)
        return super().safe_market(market_id, market, delimiter, market_type)

    def parse_json(self, http_response: str) -> Any:
        """Called by ccxt for every answer; a long one is parsed already, beside the event loop.

        Raises:
            TooLarge: it has too many rows.
        """
        holding = CALL.get().holding
        for text, value in holding.parsed:
            if text is http_response:
                return value
        value = super().parse_json(http_response)
        if not holding.rows.suits(http_response):
            holding.rows.check(value)
        return value


def charges_of(
    exchange: Any, meter: Meter, path: str, api: Any, method: str, params: Any, config: Any
) -> list[costs.Charge]:
    """What a call costs, by the arguments of ccxt's `fetch2`.

    Args:
        exchange: the instance of ccxt's class.
        meter: what it is charged to.
        path: the rest as ccxt has it.
        api: see ccxt.
        method: see ccxt.
        params: see ccxt.
        config: see ccxt.
    """
    apis = (api,) if isinstance(api, str) else tuple(api)
    sent, said = wire.NOTHING, params
    if config.keys() - {"cost"} or meter.costs.depends(apis, method, path):
        # Signed only to read the parameters; the call that is sent is signed when its slot has come.
        sent = wire.read(path, exchange.sign(path, api, method, copy.copy(params)))
        if not isinstance(params, list):  # a few endpoints take a list as their body
            said = wire.for_ccxt(params, sent, config)
    ccxt_cost = exchange.calculate_rate_limiter_cost(api, method, path, said, config)
    return meter.costs.charges(apis, method, path, sent, ccxt_cost, meter.names)


def note_answer(send: Send, code: int, headers: Mapping[str, str], body: str) -> None:
    """Takes in what an answer says of limits."""
    meter = send.meter  # the instance has none any more where its lane was closed meanwhile
    send.heard.status, send.heard.body, send.heard.headers = code, body[:BODY_KEPT], headers
    send.blank = _is_blank(code, headers, body)
    send.pause = signal(meter, code, headers, body)
    if send.reports and (send.pause is not None or meter.wants_count(send.charges)):
        send.count = counted(meter.answers.counts, headers, time.time())


def note_head(send: Send) -> None:
    """Takes in what the head of an answer says of limits, where its body did not come whole or was not read."""
    if send.head is not None and send.heard.status is None:
        send.pause = signal(send.meter, *send.head, "")


def refusal_of(send: Send) -> Pause | None:
    """The pause that an answer asks for which ccxt takes for "too many calls"."""
    return signal(send.meter, send.heard.status or 0, send.heard.headers, send.heard.body, refused=True)


def signal(meter: Meter, status: int, headers: Mapping[str, str], body: str, *, refused: bool = False) -> Pause | None:
    """The pause that an answer asks for; see `signals.limit_signal`."""
    return limit_signal(meter.answers, status, headers, body, time.time(), meter.redactor.hide, refused=refused)


# Classes of closed lanes, by exchange, for lanes that come. A class refers to itself, so one that is frozen (`heap`)
# would stay for ever, with the 50 KB of other names that ccxt gives it.
_SPARE: Final[defaultdict[str, list[Any]]] = defaultdict(list)


def charged(exchange: str) -> Any:
    """A ccxt class for one lane alone, so that all instances of it share the lane's meter.

    Args:
        exchange: the ccxt id.
    """
    if _SPARE[exchange]:
        return _SPARE[exchange].pop()
    return type(f"Charged_{exchange}", (ChargedCalls, getattr(ccxt, exchange)), {})


def give_back(exchange: str, kind: Any) -> None:
    """Takes a lane's class back, when the lane makes no call any more."""
    del kind.meter
    kind.unlisted = None
    _SPARE[exchange].append(kind)


def _is_blank(status: int, headers: Mapping[str, str], body: str) -> bool:
    """Whether an answer has no body, by its status or where its type says JSON. A proxy's empty page does not count."""
    if status == 204:
        return True
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    return status == 200 and not body.strip() and "json" in kind
