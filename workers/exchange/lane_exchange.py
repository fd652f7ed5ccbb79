"""An exchange as one lane reaches it: opened, called within the budget, closed."""

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from ccxt.base.errors import BadSymbol, BaseError, NotSupported  # pyright: ignore[reportMissingTypeStubs]
from msgspec import Struct, field
from msgspec.structs import asdict

from schemas.accounts import Secret
from schemas.config import LaneConfig, LimitsConfig, WorkerConfig
from schemas.errors import ConfigError, InvalidMessage
from schemas.messages import Bound, ErrorCode, Http
from schemas.methods import HTTP, PRIVATE_READS, PUBLIC_READS
from schemas.runtime.results import now_ms

from ..budget.budget import Budget
from ..limits import costs, wire
from ..limits.tables import shipped
from . import arguments, http_answer, instances, settings
from .bounds import Bounds
from .call import CALL, Call
from .charged import CCXT_VERSION, charged, give_back
from .clock import SigningClock, clock_refused, set_windows
from .egress import Egress
from .errors import NoBudget, judge
from .markets import Markets
from .meter import Meter
from .public_urls import PublicUrls
from .redaction import Redactor, in_one_line
from .rehearsal import places
from .unlisted import RELIST_S, Unlisted

OPEN_TIMEOUT_S: Final = 60.0
# After Redis has lost its data nothing is granted until every instant has passed that may have been reserved. So the
# calls that open a lane, which may wait long, reserve none that is further ahead than this.
OPEN_RESERVE_S: Final = 2.0


class Setup(Struct, frozen=True, kw_only=True):
    """What the configuration says of one lane.

    Args:
        lane: the lane's own part.
        http_timeout_s: the longest one HTTP call may take.
        limits: what holds instead of the exchange's table.
        credentials: the account's, by ccxt's names; empty for a lane without one.
    """

    lane: LaneConfig
    http_timeout_s: float
    limits: LimitsConfig | None = None
    credentials: Mapping[str, Secret] = field(default_factory=dict[str, Secret])


class LaneExchange:
    """An exchange as one lane reaches it.

    A lane with an account has two instances of ccxt: one without keys for what anybody may read, and one with them for
    requests that name the account. So no public read depends on a key, or is signed.

    Args:
        name: the lane's name.
        setup: what the configuration says of it.
        egress: the address it goes out from.
        budget: what it may send, with scope ``<exchange>:<egress>``.
        markets: shared by all lanes of the process.
        bounds: how much of answers the worker takes in; the default ones for a lane alone.

    Raises:
        ConfigError: the limits are wrong; ccxt does not know the exchange, or can't be made with these settings.
    """

    def __init__(
        self,
        name: str,
        setup: Setup,
        egress: Egress,
        budget: Budget,
        markets: Markets,
        bounds: Bounds | None = None,
    ) -> None:
        config = setup.lane
        settings.check_exchange(name, config.exchange)
        self.name = name
        self.config = config
        self.exchange = config.exchange
        self.known_as = config.known_as
        self._egress = egress
        self._bounds = bounds or Bounds(WorkerConfig())
        self._markets = markets
        self._markets_key = markets_key(config)
        self._credentials = setup.credentials
        self.redactor = Redactor([*self._credentials.values(), *egress.secrets])
        self._kind = charged(config.exchange)
        self._http_timeout_s = setup.http_timeout_s
        self.knowledge = ""  # the digest of what the lane lists, once it is open
        self._ccxt: Any = self._make()
        self._clock = SigningClock(name, budget.ledger.still_s)
        self._keyed: Any = self._make_keyed() if self._credentials else None
        self.costs = costs.load(config.exchange, float(self._ccxt.rateLimit), setup.limits)
        self._meter = Meter(name, budget, self.costs, shipped().answers(config.exchange), self.redactor)
        self._unlisted = self._kind.unlisted = Unlisted(name)
        self._kind.meter = self._meter  # of the class: the instances that load markets are charged as well
        self.answering = self._meter.answering
        self.still_s = self._meter.still_s
        self.tallies = self._meter.tallies
        self._budget = budget
        self._takes: dict[str, arguments.Takes] = {}
        self._in_path = arguments.path_keys(self._ccxt.api)
        self._urls: PublicUrls | None = None
        self._urls_lock = asyncio.Lock()
        self.methods = self._supported()
        markets.join(self._markets_key, self)

    def _supported(self) -> list[str]:
        """The reads that ccxt has for the exchange, and HTTP calls; those of accounts only with keys."""
        # Compared without underscores: ccxt's own translation makes fetch_adlrank of fetchADLRank.
        supported = {name.lower() for name, has in self._ccxt.has.items() if has}
        reads = (
            method
            for method in PUBLIC_READS | (PRIVATE_READS if self._keyed else frozenset[str]())
            if (method.replace("_", "") in supported or method == "load_markets")
            and callable(getattr(self._ccxt, method, None))
        )
        return sorted([*reads, HTTP])

    def _make(self, credentials: Mapping[str, str] | None = None, **more: object) -> Any:
        more |= credentials or {}
        return instances.made(
            self._kind, self.name, self.config, self._egress, self._http_timeout_s, self.redactor.hide, more
        )

    def _make_keyed(self) -> Any:
        # Verbose, ccxt prints what it signs.
        keyed = self._make({key: secret.reveal() for key, secret in self._credentials.items()}, verbose=False)
        wanted = [key for key, needed in keyed.requiredCredentials.items() if needed]
        if missing := [key for key in wanted if key not in self._credentials]:
            raise ConfigError(f"accounts.{self.config.account}: {self.exchange} wants {', '.join(missing)} too")
        if "timeDifference" in keyed.options:
            keyed.options["timeDifference"] = 0  # ccxt's own measure of what `SigningClock` measures
        keyed.signing_clock = self._clock
        return keyed

    @property
    def markets_known(self) -> int:
        """How many markets of its exchange it knows."""
        return len(self._ccxt.markets or ())

    def error_text(self, error: BaseException) -> str:
        """An error in one line, without the account's and the proxy's secrets."""
        return in_one_line(error, self.redactor.hide)

    async def open(self, *, max_age_s: float = float("inf"), timeout_s: float = OPEN_TIMEOUT_S) -> None:
        """Takes the fleet's copy of the markets if it is younger than `max_age_s`, else loads them within the budget.

        Call it again to refresh them.

        Raises:
            NoBudget, TimeoutError, or what ccxt raises: try again later; markets that were loaded before stay in use.
        """
        call = Call(self.exchange, max_wait_s=timeout_s, timeout_s=timeout_s, reserve_s=OPEN_RESERVE_S)
        call.holding = self._bounds.holding(self.known_as, "load_markets")
        token = CALL.set(call)
        try:
            async with asyncio.timeout(timeout_s):
                before = self._ccxt.markets
                loaded = await self._markets.give(self._markets_key, self._ccxt, self._make, max_age_s)
                if self.costs.names_matter and self._ccxt.markets is not before:
                    self._meter.names = await asyncio.to_thread(self.costs.names, self._ccxt.markets.values())
                if self._keyed:
                    await self._markets.give(self._markets_key, self._keyed, self._make, math.inf)
                if not self.knowledge:
                    await self._connect()
                self.knowledge = await self._markets.publish(self._markets_key)
                self._unlisted.settle(self._markets.read_s(self._markets_key))
                if loaded and "fetch_time" in self.methods:
                    await set_windows(self._ccxt.fetch_time, call, self._budget, self.costs)
        except BaseError as error:
            if hint := self._kinds_hint(error, call):
                raise type(error)(f"{hint}; {error}") from error
            raise
        finally:
            CALL.reset(token)
            call.over()

    def _kinds_hint(self, error: BaseError, call: Call) -> str:
        """How to leave out a kind of markets that the exchange does not serve here; empty for any other error."""
        setting = self._ccxt.options.get("fetchMarkets")
        kinds: Any = setting.get("types") if isinstance(setting, dict) else None  # pyright: ignore
        if not kinds or judge(error, call).code is not ErrorCode.RESTRICTED:
            return ""
        where = f"lanes.{self.name}.ccxt.options.fetchMarkets.types"
        return f"if it serves other kinds of markets here, name them alone in {where}, now {kinds}"

    async def refresh(self, *, every_s: float, max_age_s: float) -> None:
        """Waits, then takes markets that are younger than `max_age_s`.

        An answer that names a market which is not listed ends the wait. Then the markets must be younger than
        `RELIST_S`.

        Args:
            every_s: how long it waits.
            max_age_s: counted from when they were read from the exchange.

        Raises:
            Exception: what `open` raises.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await self._unlisted.wait()
        await self.open(max_age_s=min(max_age_s, RELIST_S) if len(self._unlisted) else max_age_s)

    async def _connect(self) -> None:
        """Opens connections for the first calls."""
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
            Exception: whatever ccxt raises: see `errors.judge`.
        """
        call.args = args
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
        call.holding = self._bounds.holding(self.known_as, method)
        call.usual_s = self.answering.usual_s(method)
        token = CALL.set(call)
        try:
            data = await self._read(method, args, call)
        except (BadSymbol, KeyError) as error:
            call.settle(error)
            if call.data:  # ccxt can't read data of a market that it does not list
                self._unlisted.note(str(error))
            raise
        finally:
            CALL.reset(token)
            call.over()
        arguments.check_answer(method, args, data, call.http_calls, blank=call.blank)
        return data

    async def call_http(self, http: Http, call: Call) -> dict[str, Any]:
        """Sends one HTTP call of the producer's own to the public API, charged as ccxt's would be.

        Args:
            http: the call.
            call: what it may use; shows afterwards what was used, also when this raises.

        Returns:
            The answer: `status`, `headers`, and `body` or `body_gzip`; also one that says what is wrong with the call,
            which is `refused` then.

        Raises:
            NotSupported: the exchange has no such public endpoint.
            NoBudget: it was not sent.
            Exception: what speaks of the exchange or of limits, and not of the call: see `errors.judge`.
        """
        found = (await self._public_urls()).find(http)
        endpoint, signed = found.endpoint, asdict(found.call)
        params = wire.as_params(wire.read(endpoint.path, signed))
        call.holding = self._bounds.holding(self.known_as, HTTP)
        call.holding.keeps = True
        call.usual_s = self.answering.usual_s(HTTP)
        call.signed = signed
        token = CALL.set(call)
        try:
            await self._ccxt.fetch2(endpoint.path, endpoint.api, endpoint.method, params, endpoint.config)
        except Exception as error:
            if not http_answer.is_answer(error, judge(error, call), call):
                raise
            call.refused = True
        finally:
            CALL.reset(token)
            call.over()
        return await asyncio.to_thread(http_answer.answer, call)

    async def _public_urls(self) -> PublicUrls:
        async with self._urls_lock:
            if self._urls is None:
                usual = None if self.config.sandbox else self._kind({"enableRateLimit": False})
                self._urls = await asyncio.to_thread(PublicUrls, self._make(), usual, self.costs)
        return self._urls

    async def _read(self, method: str, args: Mapping[str, Any], call: Call) -> Any:
        """Runs a read. Where the time of a signed call is refused, measures the clock offset and runs it once more."""
        if not call.account:
            return await getattr(self._ccxt, method)(**args)
        read = getattr(self._keyed, method)
        try:
            return await read(**args)
        except BaseError as error:
            call.settle(error)
            if "fetch_time" not in self.methods or not clock_refused(error, call):
                raise
        await self._clock.measure(self._ccxt.fetch_time, lambda: call.trip_s, since_s=call.started_s)
        return await read(**args)

    def bound(self, error: NoBudget) -> Bound | None:
        """The limit that had no room for a call, and when it has some; None where there is another reason."""
        charge = error.lacked
        if charge is None:
            return None
        told_ms, step_ms = now_ms(), round(self._budget.step_s(charge) * 1000, 3)
        rooms = [(told_ms + int(room_s * 1000), calls) for room_s, calls in error.rooms]
        return Bound(charge.key, told_ms + int(error.wait_s * 1000), step_ms, bool(charge.bucket.per), rooms)

    def hurry(self) -> None:
        """Hands back the bulk calls that wait for room, and those that still come."""
        self._meter.hurry()

    async def close(self) -> None:
        """Closes ccxt's instances; the egress stays open for the other lanes."""
        await self._ccxt.close()
        if self._keyed:
            await self._keyed.close()
        self._markets.leave(self._markets_key, self)
        give_back(self.exchange, self._kind)


def markets_key(config: LaneConfig) -> str:
    """Where Redis keeps the markets of an exchange with these settings, as other settings may give other markets."""
    said = f"{CCXT_VERSION} {json.dumps(config.ccxt, sort_keys=True, default=str)}"
    return f"fleet:{{{config.known_as}}}:markets:{hashlib.sha256(said.encode()).hexdigest()[:16]}"
