"""One exchange as a lane reaches it: ccxt, with every HTTP call charged to the shared budget before it is signed.

ccxt's own limiter knows its process alone, so it is off. What replaces it sits in `fetch2`, the one funnel of all REST
calls (ccxt 4.5.90: pagination, market loading and the implicit methods all go through it), and in `fetch`, where ccxt
repeats a call by itself. Two more sources of calls nobody charges are closed in aiohttp, see `egress`.
"""

import asyncio
import contextlib
import copy
import hashlib
import importlib
import json
import logging
import math
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakValueDictionary

import aiohttp
from ccxt.base.errors import (  # pyright: ignore[reportMissingTypeStubs]
    BadResponse,
    BaseError,
    DDoSProtection,
    ExchangeNotAvailable,
    NotSupported,
    RateLimitExceeded,
)
from msgspec.structs import replace

from schemas.accounts import Secret
from schemas.config import LaneConfig, LimitsConfig, WorkerConfig
from schemas.errors import ConfigError, InvalidMessage
from schemas.messages import ErrorCode
from schemas.methods import PRIVATE_READS, PUBLIC_READS
from schemas.runtime.store import AWAY

from ..budget.budget import LATE_TRIES, LOST_WAIT_S, Budget, Grant, Refusal
from ..budget.tally import Tallies
from ..limits import costs, wire
from ..limits.names import NOBODY, Names
from . import arguments
from .bounds import NOTHING, Bounds, Crowded, Holding
from .clock import SigningClock, clock_refused
from .egress import PASSAGE, Egress, Late, Passage
from .latency import Answering
from .markets import Markets
from .redaction import Redactor
from .rehearsal import places
from .verdict import DEFAULT_PAUSE_S, Count, NoBudget, Pause, Seen, counted, in_one_line, limit_signal

log = logging.getLogger(__name__)

ccxt: Any = importlib.import_module("ccxt.async_support")
CCXT_VERSION: Final = str(ccxt.__version__)

BODY_KEPT: Final = 1024
OPEN_TIMEOUT_S: Final = 60.0
# After Redis was lost nothing is sent for as long as anyone may have reserved ahead, so nobody reserves far ahead.
OPEN_RESERVE_S: Final = 2.0
# So often its clock is asked for until the answer comes fast enough.
CLOCK_TRIES: Final = 3
# How often an exchange's own count is taken over where not every answer matters: each is one more round trip to Redis.
OBSERVE_EVERY_S: Final = 0.25


class Call(Seen):
    """One attempt's calls: what it may use, and what was seen of it. All times in seconds.

    Args:
        max_wait_s: the longest it may wait for budget, all its HTTP calls together.
        timeout_s: the longest it may take, from now.
        bulk: it may use only what live requests leave, and waits without a reservation.
        account: whose keys it is signed with; None for none.
        reserve_s: the furthest ahead it may reserve; what comes later it asks for again.
        waited_s: the time it waited for budget.
        exchange_s: the time between sending and the end of the answer, all HTTP calls together.
        budget_s: in which time the budget comes back that it took, each call in the bucket where that is longest.
        started_s: when it began, by the monotonic clock.
        left_us: when its last HTTP call that was answered left, on Redis's clock, microseconds since 1970.
        holding: what it holds of answers.
        trip_s: from then to the head of the answer, and what is not known of when it left by that clock.
        blank: the last answer had no body, as an answer that says "none" may.
    """

    max_wait_s: float = 0.0
    timeout_s: float = 0.0
    bulk: bool = False
    account: str | None = None
    reserve_s: float = math.inf
    waited_s: float = 0.0
    exchange_s: float = 0.0
    budget_s: float = 0.0
    started_s: float = 0.0
    left_us: float = 0.0
    trip_s: float = 0.0
    blank: bool = False
    holding: Holding = NOTHING

    def __post_init__(self) -> None:
        self.started_s = time.monotonic()

    @property
    def left_s(self) -> float:
        """The time left."""
        return self.started_s + self.timeout_s - time.monotonic()

    @property
    def room_s(self) -> float:
        """How long it may still wait before it is sent."""
        return max(0.0, min(self.max_wait_s - self.waited_s, self.left_s))


class _Stale(Exception):
    """The connection was ended as the call came, as servers do that think it idle. It may have arrived nevertheless."""


class _Send(Passage):
    """One pass through `fetch2`. Pages fetched side by side belong to one `Call`, but each has its own of these."""

    def __init__(
        self,
        budget: Budget,
        answering: Answering,
        endpoint: str,
        charges: list[costs.Charge],
        grant: Grant,
        *,
        reports: bool,
    ) -> None:
        self.budget = budget
        self.answering = answering
        self.endpoint = endpoint
        self.charges = charges
        self.grant = grant
        self.reports = reports
        self.http_calls = 0
        self.again = False  # the one before met a connection that was ended
        self.begin()

    def begin(self) -> None:
        """An HTTP call begins."""
        self.left_s = self.answered_s = self.late_us = 0.0
        self.late = self.reused = False
        self.pause: Pause | None = None
        self.status = 0
        self.blank = False
        self.count: Count | None = None

    @property
    def holding(self) -> Holding:
        return _CALL.get().holding

    @property
    def time_left_s(self) -> float:
        return _CALL.get().left_s

    def leave(self) -> None:
        self.late = self.budget.is_late(self.grant, self.left_s)
        if self.late:
            raise Late

    def heard(self) -> None:
        self.answering.heard(self.answered_s)
        # At once, as others wait to hear of it: reading the rest may take a while.
        self.late_us = self.budget.answered(self.grant, self.endpoint, left_s=self.left_s, answered_s=self.answered_s)
        self.budget.tell(self.charges, self.grant, self.late_us)


_CALL: Final[ContextVar[Call]] = ContextVar("call")
_SEND: Final = cast("ContextVar[_Send]", PASSAGE)

if TYPE_CHECKING:

    class _Ccxt:
        id: str

        async def fetch2(self, path: str, api: Any, method: str, params: Any, config: Any) -> Any: ...
        def parse_json(self, http_response: str) -> Any: ...
        def sign(self, path: str, api: Any, method: str, params: Any) -> dict[str, Any]: ...
        async def fetch(self, url: str, method: str, headers: Any, body: Any) -> Any: ...
        def on_rest_response(
            self, code: int, reason: str, url: str, method: str, headers: dict[str, str], body: str, *request: Any
        ) -> Any: ...
        def calculate_rate_limiter_cost(self, api: Any, method: Any, path: Any, params: Any, config: Any) -> float: ...

else:
    _Ccxt = ccxt.Exchange


class Fleet(_Ccxt):
    """Mixed into a ccxt class: charges every HTTP call, and shows the attempt what came back."""

    fleet_lane: str
    fleet_redactor: Redactor
    fleet_budget: Budget
    fleet_answering: Answering
    fleet_tallies: Tallies
    fleet_costs: costs.Costs
    fleet_names: Names = NOBODY
    fleet_bulk_turns: WeakValueDictionary[tuple[str, ...], asyncio.Lock]
    fleet_bulk_waits: set[asyncio.Timeout]
    fleet_hurries: bool = False
    fleet_observed_s: float = 0.0
    fleet_clock: SigningClock | None = None

    def milliseconds(self) -> int:
        """Unix milliseconds by the exchange's clock where that was measured; signatures and nonces are made of it."""
        return time.time_ns() // 1_000_000 + int(self._ahead_s * 1e3)

    def microseconds(self) -> int:
        """The same in microseconds."""
        return time.time_ns() // 1_000 + int(self._ahead_s * 1e6)

    def seconds(self) -> int:
        """The same in whole seconds."""
        return self.milliseconds() // 1000

    @property
    def _ahead_s(self) -> float:
        return self.fleet_clock.ahead_s if self.fleet_clock else 0.0

    def __del__(self) -> None:
        """ccxt's own complains of an instance that was not closed; ours own nothing: the session is the egress's."""

    async def fetch2(
        self,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Any = {},  # noqa: B006 (ccxt's own signature; nobody writes to it)
        config: Any = {},  # noqa: B006
    ) -> Any:
        """Waits for budget, then lets ccxt sign and send."""
        apis = (api,) if isinstance(api, str) else tuple(api)
        sent, said = wire.NOTHING, params
        if config.keys() - {"cost"} or self.fleet_costs.depends(apis, method, path):
            # Signed once only to be read: what is sent is signed when its turn has come.
            sent = wire.read(path, self.sign(path, api, method, copy.copy(params)))
            if not isinstance(params, list):  # a few endpoints take a list as their body
                said = wire.for_ccxt(params, sent, config)
        ccxt_cost = self.calculate_rate_limiter_cost(api, method, path, said, config)
        charges = self.fleet_costs.charges(apis, method, path, sent, ccxt_cost, self.fleet_names)
        reports = self.fleet_costs.reports(apis, method, path)
        late: list[Grant] = []  # the reservation of a call that would have left too late: it is moved
        stale = False
        try:
            for _ in range(LATE_TRIES):
                await self._book()
                grant = await self._pay(charges, late)
                send = _Send(self.fleet_budget, self.fleet_answering, f"{apis} {path}", charges, grant, reports=reports)
                send.again = stale
                token = _SEND.set(send)
                try:
                    return await super().fetch2(path, api, method, params, config)
                except Late:
                    late.append(send.grant)  # and is signed again
                except _Stale:
                    stale = True  # it is paid, and so is the next
                finally:
                    _SEND.reset(token)
                    if not send.http_calls:
                        send.budget.release(charges, grant)
            raise NoBudget("budget", LOST_WAIT_S)
        finally:
            for each in late:
                self.fleet_budget.release(charges, each)

    async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Sends one HTTP call, and refuses what is no answer."""
        call, send = _CALL.get(), _SEND.get()
        if send.http_calls:
            send.grant = await self._pay(send.charges, [])  # ccxt repeats a call by itself
        send.http_calls += 1
        call.http_calls += 1
        send.begin()
        call.pause, call.status, call.body = None, None, ""
        sent_s = time.monotonic()
        self.fleet_answering.sent(sent_s)
        try:
            data = await super().fetch(url, method, headers, body)
        except Late:
            call.http_calls -= 1
            raise
        except ExchangeNotAvailable as error:
            ended = isinstance(error.__cause__, aiohttp.ClientConnectionError) and not send.answered_s
            if ended and send.reused and not send.again:
                raise _Stale from error
            raise
        except (DDoSProtection, RateLimitExceeded):
            send.pause = send.pause or Pause(DEFAULT_PAUSE_S, f"status {send.status}", told=False)
            raise
        finally:
            self.fleet_answering.ended()
            call.exchange_s += time.monotonic() - sent_s
            if send.answered_s:
                call.left_us = send.grant.at_us + (send.left_s - send.grant.due_s) * 1e6
                call.trip_s = send.answered_s - send.left_s + send.grant.due_s - send.grant.early_s
            if not send.answered_s and not send.late:
                send.budget.unanswered(send.charges, send.grant, send.left_s)
            if send.answered_s and (send.pause is not None or send.count is not None):
                await self._heed(call, send, send.late_us)
        if not 200 <= send.status < 300:
            # ccxt returns the body of a status it does not know as if it were data.
            kind = ExchangeNotAvailable if send.status >= 500 else BadResponse
            raise kind(f"{self.id} {method} {url} status {send.status}")
        call.blank = send.blank
        if send.blank:
            return []
        if not isinstance(data, (dict, list)) and not (isinstance(data, str) and data.strip().isdigit()):
            raise BadResponse(f"{self.id} {method} {url} no JSON: {self.fleet_redactor.hide(call.body)[:80]!r}")
        return data  # pyright: ignore[reportUnknownVariableType]

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, headers: dict[str, str], body: str, *request: Any
    ) -> Any:
        """Called by ccxt for every answer, before it looks for errors."""
        call, send = _CALL.get(), _SEND.get()
        call.status = send.status = code
        call.body = body[:BODY_KEPT]
        send.blank = _is_blank(code, headers, body)
        send.pause = limit_signal(self.id, code, headers, body, time.time(), self.fleet_redactor.hide)
        if send.reports and (
            send.pause is not None
            or time.monotonic() - self.fleet_observed_s > OBSERVE_EVERY_S
            or any(charge.bucket.kind == "fixed" for charge in send.charges)
        ):
            send.count = counted(self.id, headers, time.time())
        return super().on_rest_response(code, reason, url, method, headers, body, *request)

    def parse_json(self, http_response: str) -> Any:
        """Called by ccxt for every answer; a long one is parsed already, beside the event loop.

        Raises:
            TooLarge: it has too many rows.
        """
        holding = _CALL.get().holding
        for text, value in holding.parsed:
            if text is http_response:
                return value
        value = super().parse_json(http_response)
        if not holding.rows.suits(http_response):
            holding.rows.check(value)
        return value

    async def _book(self) -> None:
        """Waits for room for the answer; who finds none in time has paid nothing."""
        call = _CALL.get()
        limit = asyncio.timeout(0.0 if self.fleet_hurries and call.bulk else call.room_s)
        begun_s = time.monotonic()
        if call.bulk:
            self.fleet_bulk_waits.add(limit)
        try:
            async with limit:
                await call.holding.book()
        except TimeoutError:
            raise Crowded from None
        finally:
            self.fleet_bulk_waits.discard(limit)
            call.waited_s += time.monotonic() - begun_s

    async def _pay(self, charges: list[costs.Charge], late: list[Grant]) -> Grant:
        """Waits for room, and moves the reservation in `late` there, if any; what stays in it was not touched."""
        call = _CALL.get()
        if not call.bulk:
            return await self._granted(call, charges, late)
        if self.fleet_hurries:
            raise NoBudget("budget", LOST_WAIT_S)
        # One at a time asks for the same room: it can't be reserved, and all would be told the same.
        turn = self.fleet_bulk_turns.setdefault(tuple(charge.key for charge in charges), asyncio.Lock())
        limit = asyncio.timeout(call.room_s)
        begun_s = time.monotonic()
        self.fleet_bulk_waits.add(limit)
        try:
            async with limit, turn:
                limit.reschedule(None)  # from here on the time is looked at before each wait
                call.waited_s += time.monotonic() - begun_s
                return await self._granted(call, charges, late)
        except TimeoutError:
            if not limit.expired():
                raise
            raise NoBudget("budget", LOST_WAIT_S) from None
        finally:
            self.fleet_bulk_waits.discard(limit)

    async def _granted(self, call: Call, charges: list[costs.Charge], late: list[Grant]) -> Grant:
        while True:
            asked_s = time.monotonic()
            if call.left_s <= 0:
                raise TimeoutError("the attempt's time ended before the call was sent")
            max_wait_s = call.room_s
            # A bulk call reserves nothing that is not free now, and looks again when it may be.
            reserve_s = 0.0 if call.bulk else min(max_wait_s, call.reserve_s)
            grant = late.pop() if late else None
            answer = await self.fleet_budget.acquire(charges, max_wait_s=reserve_s, bulk=call.bulk, grant=grant)
            comes = isinstance(answer, Refusal) and reserve_s < answer.wait_s <= max_wait_s
            if isinstance(answer, Refusal) and comes and (answer.reason == "budget" or not call.bulk):
                await asyncio.sleep(answer.wait_s - reserve_s)
                call.waited_s += time.monotonic() - asked_s
                continue
            waited_s = time.monotonic() - asked_s
            call.waited_s += waited_s
            if isinstance(answer, Refusal):
                self.fleet_tallies.refused(charges, answer)
                raise NoBudget(answer.reason, answer.wait_s)
            self.fleet_tallies.granted(charges, answer, waited_s)
            call.budget_s += max(charge.cost / charge.bucket.amount * charge.bucket.window_s for charge in charges)
            return answer

    async def _heed(self, call: Call, send: _Send, late_us: float) -> None:
        """Tells all workers what the answer said of limits, before anything else of this attempt can go out."""
        budget, pause, grant = self.fleet_budget, send.pause, send.grant
        if pause is not None:
            paused = () if pause.everything else send.charges
            account = any(charge.bucket.scope == "account" for charge in send.charges)
            seconds = await budget.pause(
                pause.seconds, pause.reason, paused, told=pause.told, account=account, grant=grant
            )
            call.pause = replace(pause, seconds=seconds)
        # Redis away: nobody gets budget then, and this attempt's own verdict still carries the pause.
        with contextlib.suppress(*AWAY):
            if send.count is not None and grant.ranks:
                self.fleet_observed_s = time.monotonic()
                number = send.count.speaks_of([charge.bucket for charge in send.charges])
                if number is not None:
                    charge, rank = send.charges[number], grant.ranks[number]
                    used, span_s = send.count.used(charge.bucket), send.count.span_s(charge.bucket)
                    await budget.observe(charge, rank, grant, used, late_us=late_us, span_s=span_s)
            if pause is not None and (learned := await budget.limited(send.charges, grant)) is not None:
                log.warning(
                    "limit_learned",
                    extra={
                        "lane": self.fleet_lane,
                        "bucket": learned.bucket,
                        "amount": learned.amount,
                        "effective": round(learned.effective, 3),
                        "why": pause.reason,
                    },
                )


def _is_blank(status: int, headers: Mapping[str, str], body: str) -> bool:
    """Whether an answer has no body, and says itself that this is JSON or nothing. A proxy's empty page does not."""
    if status == 204:
        return True
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    return status == 200 and not body.strip() and "json" in kind


def _charged(exchange: str) -> Any:
    """A class of a lane's own, so that all its instances are charged to the lane."""
    return type(f"Fleet_{exchange}", (Fleet, getattr(ccxt, exchange)), {})


class LaneExchange:
    """An exchange as one lane reaches it.

    A lane with an account has ccxt twice: without keys for what anybody may read, and with them for requests that name
    the account. So no public read depends on a key, or is signed.

    Args:
        name: the lane's name.
        config: the lane.
        egress: the address it goes out from.
        budget: what it may send, with scope ``<exchange>:<egress>``.
        markets: shared by all lanes of the process.
        http_timeout_s: the longest one HTTP call may take.
        limits: what holds instead of the exchange's table.
        credentials: the account's, by ccxt's names; none for a lane without one.
        bounds: how much of answers the worker takes in; the default ones for a lane alone.

    Raises:
        ConfigError: the limits are wrong; ccxt does not know the exchange, or can't be made with these settings.
    """

    def __init__(
        self,
        name: str,
        config: LaneConfig,
        egress: Egress,
        budget: Budget,
        markets: Markets,
        http_timeout_s: float,
        limits: LimitsConfig | None = None,
        credentials: Mapping[str, Secret] | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        if config.exchange not in ccxt.exchanges:
            raise ConfigError(f"lanes.{name}.exchange: expected an exchange id of ccxt, not {config.exchange!r}")
        self.name = name
        self.config = config
        self.exchange = config.exchange
        self._egress = egress
        self._bounds = bounds or Bounds(WorkerConfig())
        self._markets = markets
        said = f"{ccxt.__version__} {json.dumps(config.ccxt, sort_keys=True, default=str)}"
        settings = hashlib.sha256(said.encode()).hexdigest()[:16]
        self._markets_key = f"fleet:{{{config.exchange}}}:markets:{settings}"
        self._credentials = dict(credentials or {})
        self.redactor = Redactor([*self._credentials.values(), *egress.secrets])
        self._kind = _charged(config.exchange)
        self._kind.fleet_redactor = self.redactor
        self._settings: dict[str, Any] = {
            **config.ccxt,
            "enableRateLimit": False,  # ours does it, for all processes together
            "timeout": int(http_timeout_s * 1000),
            "session": egress.session,
            "ssl_context": egress.ssl_context,
            "httpsProxy": egress.proxy,
        }
        self.knowledge = ""  # the digest of what it lists, once it is open
        self._ccxt: Any = self._make()
        self._clock = SigningClock(name)
        self._keyed: Any = self._make_keyed() if self._credentials else None
        # Of the class: the instances that load markets are charged as well.
        self.costs = self._kind.fleet_costs = costs.load(config.exchange, float(self._ccxt.rateLimit), own=limits)
        self._kind.fleet_lane = name
        self._kind.fleet_budget = budget
        self._kind.fleet_bulk_turns = WeakValueDictionary()
        self._kind.fleet_bulk_waits = set[asyncio.Timeout]()
        self.answering = self._kind.fleet_answering = Answering()
        self.tallies = self._kind.fleet_tallies = Tallies(name)
        self._budget = budget
        self._takes: dict[str, arguments.Takes] = {}
        self._in_path = arguments.path_keys(self._ccxt.api)
        # Compared without underscores: ccxt's own translation makes fetch_adlrank of fetchADLRank.
        supported = {name.lower() for name, has in self._ccxt.has.items() if has}
        self.methods = sorted(
            method
            for method in PUBLIC_READS | (PRIVATE_READS if self._keyed else frozenset[str]())
            if (method.replace("_", "") in supported or method == "load_markets")
            and callable(getattr(self._ccxt, method, None))
        )

    def _make(self, credentials: Mapping[str, str] | None = None, **settings: object) -> Any:
        try:
            exchange = self._kind({**self._settings, **settings, **(credentials or {})})
        except Exception as error:
            raise ConfigError(f"lanes.{self.name}.ccxt: ccxt can't be made with it: {self.say(error)}") from None
        exchange.enableLastHttpResponse = False  # it would keep the last body
        exchange.options["maxRetriesOnFailure"] = 0
        exchange.options["maxRetries"] = 0
        exchange.timeout_on_exit = 0
        return exchange

    @property
    def markets_known(self) -> int:
        """How many markets of its exchange it knows."""
        return len(self._ccxt.markets or ())

    def _make_keyed(self) -> Any:
        # Verbose, ccxt prints what it signs.
        keyed = self._make({key: secret.reveal() for key, secret in self._credentials.items()}, verbose=False)
        wanted = [key for key, needed in keyed.requiredCredentials.items() if needed]
        if missing := [key for key in wanted if key not in self._credentials]:
            raise ConfigError(f"accounts.{self.config.account}: {self.exchange} wants {', '.join(missing)} too")
        if "timeDifference" in keyed.options:
            keyed.options["timeDifference"] = 0  # ccxt's own measure of what `SigningClock` measures
        keyed.fleet_clock = self._clock
        return keyed

    def say(self, error: BaseException) -> str:
        """An error in one line, without the account's and the proxy's secrets."""
        return in_one_line(error, self.redactor.hide)

    async def open(self, *, max_age_s: float = float("inf"), timeout_s: float = OPEN_TIMEOUT_S) -> None:
        """Takes the fleet's markets if they are younger than `max_age_s`, else loads them within the budget.

        Call it again to renew them.

        Raises what ccxt raises, `NoBudget` or TimeoutError: try again later; markets loaded before stay in use.
        """
        call = Call(self.exchange, max_wait_s=timeout_s, timeout_s=timeout_s, reserve_s=OPEN_RESERVE_S)
        call.holding = self._bounds.holding(self.exchange, "load_markets")
        token = _CALL.set(call)
        try:
            async with asyncio.timeout(timeout_s):
                before = self._ccxt.markets
                loaded = await self._markets.give(self._markets_key, self._ccxt, self._make, max_age_s)
                if self.costs.names_matter and self._ccxt.markets is not before:
                    self._kind.fleet_names = await asyncio.to_thread(Names, self._ccxt.markets.values())
                if self._keyed:
                    await self._markets.give(self._markets_key, self._keyed, self._make, math.inf)
                if not self.knowledge:
                    await self._connect()
                self.knowledge = await self._markets.publish(self._markets_key)
                if loaded and any(bucket.kind == "fixed" for bucket in self.costs.buckets.values()):
                    await self._set_clock(call)
        finally:
            _CALL.reset(token)
            call.holding.close()

    async def _connect(self) -> None:
        """Sees to it that the first calls find connections."""
        rehearsal = self._make()
        try:
            await self._markets.give(self._markets_key, rehearsal, self._make, math.inf)
            await self._egress.open(await places(rehearsal, self.methods))
        finally:
            await rehearsal.close()

    async def call(self, method: str, args: Mapping[str, Any], call: Call) -> Any:
        """Runs one read.

        Args:
            method: one of `methods`.
            args: its arguments by their ccxt names.
            call: what it may use; shows afterwards what was used, also when this raises.

        Returns:
            What ccxt returns.

        Raises:
            InvalidMessage: the arguments are wrong.
            NoBudget: it was not sent.
            TimeoutError: the attempt's time ended before it was sent.
            Exception: whatever ccxt raises: see `verdict.judge`.
        """
        if call.account is not None and call.account != self.config.account:
            raise NotSupported(f"lane {self.name} does not have the account {call.account!r}")
        if self._keyed and call.account is None and method in PRIVATE_READS:
            raise InvalidMessage(ErrorCode.METHOD_NOT_ALLOWED, f"{method!r} reads an account, and none is named")
        accepted = self._takes.get(method)
        if accepted is None:
            if method not in self.methods:
                raise NotSupported(f"{self.exchange} {method}: not supported by ccxt")
            accepted = self._takes[method] = arguments.takes(getattr(self._ccxt, method))
        arguments.check(method, accepted, args, self._in_path, self.costs.written)
        timeframe = args.get("timeframe")
        if timeframe is not None and self._ccxt.timeframes and timeframe not in self._ccxt.timeframes:
            raise NotSupported(f"{self.exchange} {method}: timeframes are {', '.join(self._ccxt.timeframes)}")
        call.holding = self._bounds.holding(self.exchange, method)
        token = _CALL.set(call)
        try:
            data = await self._read(method, args, call)
        finally:
            _CALL.reset(token)
            call.holding.close()
        arguments.check_answer(method, args, data, call.http_calls, blank=call.blank)
        return data

    async def _read(self, method: str, args: Mapping[str, Any], call: Call) -> Any:
        """Asks; once more where the exchange finds the time of a signed call wrong, with its clock measured anew."""
        if not call.account:
            return await getattr(self._ccxt, method)(**args)
        read = getattr(self._keyed, method)
        try:
            return await read(**args)
        except BaseError as error:
            if "fetch_time" not in self.methods or not clock_refused(error, call.body):
                raise
        await self._clock.measure(self._ccxt.fetch_time, lambda: call.trip_s, since_s=call.started_s)
        return await read(**args)

    def hurry(self) -> None:
        """Bulk calls that wait for room, and those that still come, are handed back."""
        self._kind.fleet_hurries = True
        now_s = asyncio.get_running_loop().time()
        for limit in self._kind.fleet_bulk_waits:
            if not limit.expired():
                limit.reschedule(now_s)

    async def close(self) -> None:
        """Lets ccxt go; the egress stays open for the other lanes."""
        await self._ccxt.close()
        if self._keyed:
            await self._keyed.close()

    async def _set_clock(self, call: Call) -> None:
        """Windows that start on the exchange's minute need its clock; half a round trip is the error.

        On a busy machine a round trip may take seconds: then it is measured again, and what the best one leaves
        unknown is kept away from the windows' ends.
        """
        if "fetch_time" not in self.methods:
            return
        fixed = [bucket for bucket in self.costs.buckets.values() if bucket.kind == "fixed"]
        error_s, ahead_s = math.inf, 0.0
        for _ in range(CLOCK_TRIES):
            server_ms = await self._ccxt.fetch_time()
            if call.trip_s / 2 < error_s:
                error_s = call.trip_s / 2
                ahead_s = server_ms / 1000 - call.left_us / 1e6 - error_s
            if error_s * 1000 <= min(bucket.margin_ms for bucket in fixed) / 2:
                break
        # Where its windows start is all that matters; and a wrong answer must not hold calls up for years.
        window_s = max(bucket.window_s for bucket in fixed)
        await self._budget.set_clock((ahead_s + window_s / 2) % window_s - window_s / 2, error_s)
