"""Signed calls of others by one lane: each is charged to the budgets of its address and its account, and sent once.

Whose account it is the call's key says, which is known by its place (`exchange.signed_urls`). Each account has budgets
as a program of its own has them (`purse`). A key that was never accepted is charged to one more, which all such share
(`known_keys`). There is no secret here to sign with: a call goes out as it came.
"""

import asyncio
import contextlib
import logging
import math
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

import msgspec
from ccxt.base.errors import (  # pyright: ignore[reportMissingTypeStubs]
    BaseError,
    NetworkError,
    NotSupported,
    RequestTimeout,
)

from schemas.accounts import HIDDEN
from schemas.config import Config, LaneConfig
from schemas.gateway.signed import Answered, End, Lost, SignedCall, Unsent
from schemas.messages import ErrorCode, Http
from schemas.methods import HTTP
from schemas.runtime.clock import clock_s
from schemas.runtime.tasks import Asides, UnderWay, end_tasks

from ..exchange import http_answer, instances
from ..exchange.bounds import Bounds, Crowded
from ..exchange.call import CALL, Call
from ..exchange.charged import ccxt, charges_of
from ..exchange.egress import Egress
from ..exchange.errors import NoBudget
from ..exchange.lane_exchange import markets_key
from ..exchange.markets import Markets
from ..exchange.public_urls import PublicUrls
from ..exchange.reading import Switched
from ..exchange.redaction import Redactor, in_one_line
from ..exchange.rows import TooLarge
from ..exchange.signed_urls import Signable, SignedUrls
from ..limits import wire
from ..limits.tables import shipped
from .calls import Calls
from .known_keys import KnownKeys
from .purse import RESERVE_S, WHY, Purse

log = logging.getLogger(__name__)

# So many accounts have budgets here at a time; beyond them one that is not in use gives its own up.
ACCOUNTS: Final = 64
# So many of them may have calls under way whose key was never accepted, so that invented ones leave room for others.
NEW: Final = ACCOUNTS // 2
# An account that was not used for so long does, too.
IDLE_S: Final = 600.0
# The part of its caller's time that a call may wait: the rest is for its answer. One that is sent without time for that
# is one of which nobody knows how it ended.
WAIT_PART: Final = 2 / 3
# The end of the exchange's time is so much before the caller's.
EARLY_S: Final = 0.05

_SIGNED: Final[ContextVar[Call | None]] = ContextVar("signed", default=None)


class Relayed(Calls):
    """Mixed into a lane's class: sends what others signed, once, and reads keys' budgets for it."""

    def may_repeat(self, method: str) -> bool:
        """Never: it is not known what a call does."""
        return False

    async def let_go(self, call: Call, sending: asyncio.Task[Any]) -> None:
        """Returns when the call is over: until then it counts as one of its caller's."""
        await super().let_go(call, sending)
        while call.signed is not None and not sending.done():
            with contextlib.suppress(asyncio.CancelledError):  # whoever cancelled it will be told when it is over
                await asyncio.wait([sending])

    def new_call(self) -> Call:
        """The signed call that is being sent; else, as for markets, one of our own."""
        return _SIGNED.get() or super().new_call()

    def prepare_request_headers(self, headers: Any = None) -> Any:
        """Called by ccxt for what it sends: of a header that came with a signed call ccxt's own does not count."""
        own: Any = super()
        made: dict[str, str] = own.prepare_request_headers(dict(headers or {}))  # it would add to the call's own
        call = CALL.get(None)
        if call is None or call.signed is None:
            return made
        theirs: Mapping[str, str] = call.signed["headers"]
        return {name: value for name, value in made.items() if name.lower() not in theirs} | dict(theirs)

    async def close(self, *words: Any) -> None:
        """Closes what is ccxt's: budgets and connections are the lane's."""
        whole: Any = super(Calls, self)
        await whole.close(*words)


class _Untold(Redactor):
    """Shows nothing of what the exchange says to a signed call: it may repeat any part of it, in any form.

    To look for all parts of a batch of orders in a text would take seconds, in which no other call leaves.
    """

    def hide(self, text: str) -> str:
        call = CALL.get(None)
        return HIDDEN if text and call is not None and call.signed is not None else super().hide(text)


class _Account:
    """One key's budgets, and the instance that sends with it."""

    def __init__(self, instance: Any, purse: Purse) -> None:
        self.instance = instance
        self.purse = purse
        self.used_s = clock_s()
        self.held = 0

    async def close(self) -> None:
        await self.instance.close()
        await self.purse.close()


class SignedLane:
    """One lane's signed calls.

    Args:
        name: the lane's.
        config: the fleet's.
        egress: the address it goes out from.
        markets: of all lanes of this process.
        bounds: how much of answers this process takes in.

    Attributes:
        calls: those that are under way, which `close` waits for.

    Raises:
        ConfigError: the limits are wrong, or ccxt can't be made with the lane's settings.
    """

    def __init__(self, name: str, config: Config, egress: Egress, markets: Markets, bounds: Bounds) -> None:
        self.name = name
        self.config: LaneConfig = config.lanes[name]
        self._fleet = config
        self.egress = egress
        self._markets, self._markets_key = markets, markets_key(self.config)
        self._bounds = bounds
        exchange = self.config.exchange
        self._limits = config.limits.get(shipped().limits_of(exchange))
        self._kind: Any = type(f"Relayed_{exchange}", (Relayed, getattr(ccxt, exchange)), {})
        self._redactor = _Untold(egress.secrets)
        self._public = self._account("")
        self._costs = self._public.purse.costs
        self._accounts: dict[str, _Account] = {}  # by keys, the last used ones last
        self._keys = KnownKeys()
        self._new = self._account(f"all keys that were never accepted, from {self.config.egress}")
        self._tables: tuple[PublicUrls, SignedUrls] | None = None
        self._making = asyncio.Lock()
        self._asides = Asides()
        self._loading: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.calls = UnderWay()

    async def is_read(self, call: Http) -> bool:
        """Whether a call is a public read."""
        public, _ = await self._urls()
        try:
            public.find(call)
        except NotSupported:
            return False
        return True

    async def send(self, call: SignedCall, until_s: float) -> End:
        """Charges a call and sends it; see `Sender.send`."""
        try:
            async with asyncio.timeout_at(until_s):
                found = (await self._urls())[1].find(call.method, call.url)
                signed = {
                    "url": found.url,
                    "method": call.method,
                    "body": call.body or None,
                    "headers": dict(call.headers),
                }
                params = wire.as_params(sent := wire.read(found.endpoint.path, signed))
                key = await self._key_of(found, call, sent)
                if isinstance(key, Unsent):
                    return key
                if self._is_new(key):
                    await self._pay_as_new(found, signed, params, until_s)
                account = await self._of(key)
                if isinstance(account, Unsent):
                    return account
        except NotSupported as error:
            return Unsent(str(ErrorCode.NOT_SUPPORTED), str(error))
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            return Unsent("bad_call", "the body looks like JSON, and is none")
        except TimeoutError:
            return _TIME_OVER
        except NoBudget as error:
            return _unsent(error)
        try:
            end, is_good = await self._send(account, found, signed, params, until_s, call)
            if key and is_good:
                self._keys.accept(key)
            return end
        finally:
            account.held -= 1
            account.used_s = clock_s()

    async def _send(
        self,
        account: _Account,
        found: Signable,
        signed: Mapping[str, Any],
        params: dict[str, str],
        until_s: float,
        asked: SignedCall,
    ) -> tuple[End, bool]:
        """How a call ended, and whether that speaks for its key."""
        endpoint, call = found.endpoint, self._call(signed, until_s)
        call.holding = self._bounds.holding(self.config.known_as, HTTP)
        call.holding.keeps = True
        failed: Exception | None = None
        token = _SIGNED.set(call)
        try:
            async with asyncio.timeout_at(until_s):
                await account.instance.fetch2(endpoint.path, endpoint.api, endpoint.method, params, endpoint.config)
        except Exception as error:  # ccxt's opinion of an answer is its caller's to have
            failed = error
        finally:
            asked.written = call.written
            _SIGNED.reset(token)
            call.over()
        if call.holding.kept is not None and (status := call.heard.status) is not None:
            data = await asyncio.to_thread(http_answer.answer, call)
            is_good = failed is None and 200 <= status < 300
            return Answered(self.name, self.config.exchange, data), is_good
        return _lost(failed) if call.written else _unsent(failed), False

    def _call(self, signed: Mapping[str, Any], until_s: float) -> Call:
        left_s = until_s - asyncio.get_running_loop().time() - EARLY_S
        wait_s = left_s * WAIT_PART
        return Call(self.config.exchange, max_wait_s=wait_s, timeout_s=left_s, reserve_s=RESERVE_S, signed=signed)

    async def _pay_as_new(
        self, found: Signable, signed: Mapping[str, Any], params: dict[str, str], until_s: float
    ) -> None:
        """Waits for the turn of a call whose key was never accepted among all such; raises NoBudget."""
        instance, purse, endpoint = self._new.instance, self._new.purse, found.endpoint
        await self._name(instance)  # where it can't, the call is not sent
        call = self._call(signed, until_s)
        token = CALL.set(call)
        try:
            await purse.open(instance, None)
            meter, how = purse.meter, (endpoint.path, endpoint.api, endpoint.method, params, endpoint.config)
            charges = [each for each in charges_of(instance, meter, *how) if each.bucket.scope == "account"]
            while charges:
                try:
                    grant = await meter.pay(call, charges, [])
                except NoBudget as error:
                    if error.wait_s >= call.room_s:
                        raise
                    call.waited_s += error.wait_s
                    await asyncio.sleep(error.wait_s)
                else:
                    await meter.budget.arrived(charges, grant, 0.0)
                    return
        finally:
            CALL.reset(token)

    async def _urls(self) -> tuple[PublicUrls, SignedUrls]:
        async with self._making:
            if self._tables is None:
                own = [self._instance() for _ in range(2)]
                usual = [None if self.config.sandbox else self._kind({"enableRateLimit": False}) for _ in own]
                self._tables = (
                    await asyncio.to_thread(PublicUrls, own[0], usual[0], self._costs),
                    await asyncio.to_thread(SignedUrls, own[1], usual[1], self._costs),
                )
        return self._tables

    async def _key_of(self, found: Signable, call: SignedCall, sent: wire.Sent) -> str | Unsent:
        """The key of a call; empty where it counts for its address alone."""
        headers = {name.lower(): value for name, value in call.headers.items()}
        key = found.place.key_of(headers, sent) if found.place else ""
        counts = any(bucket.scope == "account" for bucket in self._costs.buckets.values())
        if not key and counts and not await self._is_of_nobody(found, call):
            where = f"{found.place.name} has no key in it" if found.place else "it does not show whose key it has"
            return Unsent("signed_call", f"not sent, as it could be charged to no account: {where}")
        return key

    async def _of(self, key: str) -> _Account | Unsent:
        """The account of a call with that key, which is held from now on."""
        self._drop_idle()
        account = self._accounts.pop(key, None)
        if account is None:
            if not self._has_room(key):
                text = f"not sent: {ACCOUNTS} accounts have calls under way on this lane, or {NEW} with new keys"
                return Unsent("busy", text, 1.0)
            account = self._account(key)
        self._accounts[key] = account
        account.held += 1
        try:
            why_not = await self._name(account.instance)
        except BaseException:
            account.held -= 1
            raise
        account.held -= why_not is not None
        return why_not or account

    async def _is_of_nobody(self, found: Signable, call: SignedCall) -> bool:
        """Whether a call counts for its address alone: it is public, though it has a key."""
        if found.place is not None or call.method not in ("GET", "POST"):
            return False
        return await self.is_read(Http(call.url, "POST" if call.method == "POST" else "GET"))

    def _is_new(self, key: str) -> bool:
        return bool(key) and key not in self._keys

    def _has_room(self, key: str) -> bool:
        """Whether there may be one account more; one that is not in use makes room."""
        if self._is_new(key) and sum(self._is_new(each) and of.held > 0 for each, of in self._accounts.items()) >= NEW:
            return False
        if len(self._accounts) >= ACCOUNTS:
            idle = next((key for key, each in self._accounts.items() if not each.held), None)
            if idle is None:
                return False
            self._asides.start(self._accounts.pop(idle).close())
        return True

    def _drop_idle(self) -> None:
        since_s = clock_s() - IDLE_S
        for key, each in list(self._accounts.items()):
            if each.used_s > since_s:
                return
            if not each.held:
                self._asides.start(self._accounts.pop(key).close())

    def _account(self, key: str) -> _Account:
        instance = self._instance(apiKey=key)
        max_wait_s = self._fleet.gateway.max_wait_s
        url = self._fleet.redis.url
        purse = Purse(
            instance, url, self.config, self._limits, max_wait_s=max_wait_s, name=self.name, redactor=self._redactor
        )
        instance.purse = purse
        return _Account(instance, purse)

    def _instance(self, **more: Any) -> Any:
        timeout_s = self._fleet.worker.http_timeout_s
        more["verbose"] = False  # it would print what is signed
        made = instances.made(self._kind, self.name, self.config, self.egress, timeout_s, self._redactor.hide, more)
        made.egress = self.egress
        return made

    def _of_our_own(self) -> Any:
        """An instance that loads markets."""
        instance = self._instance()
        instance.purse = self._public.purse
        return instance

    async def _name(self, instance: Any) -> Unsent | None:
        """Gives an instance the markets, where limits count each pair alone. They are read on, whoever hangs up."""
        if not self._costs.names_matter:
            return None
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.create_task(self._load(math.inf), name=f"markets {self.name}")
        try:
            await asyncio.shield(self._loading)
        except (BaseError, NoBudget, OSError) as error:
            text = f"not sent: its markets could not be read, by which limits count ({type(error).__name__})"
            return Unsent(str(ErrorCode.EXCHANGE_UNAVAILABLE), text, 1.0)
        await self._markets.give(self._markets_key, instance, self._of_our_own, math.inf)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name=f"renewing markets {self.name}")
        return None

    async def _load(self, max_age_s: float) -> None:
        await self._markets.give(self._markets_key, self._of_our_own(), self._of_our_own, max_age_s)

    async def _renew(self) -> None:
        renew_s = self._fleet.worker.renew_every_s
        while True:
            await asyncio.sleep(renew_s)
            try:
                await self._load(renew_s)
            except Exception as error:  # the old ones stay in use, and the next try may read what ccxt can't now
                about = {"lane": self.name, "error": in_one_line(error, self._redactor.hide)}
                log.warning("markets_refresh_failed", extra=about)

    async def cut(self) -> None:
        """Ends the calls whose caller has gone, and of which only the answer is read."""
        await asyncio.gather(*(each.purse.cut() for each in (self._public, self._new, *self._accounts.values())))

    async def close(self) -> None:
        """Gives up its parts of limits when no call is under way any more."""
        await self.calls.none()
        await end_tasks(task for task in (self._loading, self._renewing) if task is not None)
        await asyncio.gather(*(each.close() for each in (self._public, self._new, *self._accounts.values())))
        await self._asides.ended()


_TIME_OVER: Final = Unsent(str(ErrorCode.NO_BUDGET), "not sent: its caller's time was over", 1.0)


def _unsent(error: Exception | None) -> Unsent:
    """What a call ends in that was written to no connection. Nothing is told of ccxt's texts: they may have its URL."""
    why = error.__cause__ if error is not None and isinstance(error.__cause__, NoBudget) else error
    if isinstance(why, NoBudget):
        code = ErrorCode.PAUSED if why.reason == "paused" else ErrorCode.NO_BUDGET
        return Unsent(str(code), f"not sent: {WHY.get(why.reason, why.reason)} for {why.wait_s:.1f} s more", why.wait_s)
    if isinstance(why, TimeoutError):
        return _TIME_OVER
    if isinstance(why, Crowded):
        return Unsent(str(ErrorCode.EXPIRED), "not sent: the gateway holds too much of other answers", 1.0)
    if isinstance(why, NotSupported):
        return Unsent(str(ErrorCode.NOT_SUPPORTED), "not sent: the exchange has no such API")
    kind = type(why.__cause__ or why).__name__ if why is not None else "nothing"
    if isinstance(why, NetworkError):
        return Unsent(str(ErrorCode.EXCHANGE_UNAVAILABLE), f"not sent: no connection to the exchange ({kind})", 1.0)
    log.error("signed_call_broke", extra={"error": kind, "at": _place_of(why)})
    return Unsent("fault", "not sent: a fault of the gateway's own; its log has more")


def _lost(error: Exception | None) -> Lost:
    if isinstance(error, (RequestTimeout, TimeoutError)):
        return Lost("sent, outcome unknown: no answer came in time", timed_out=True)
    if isinstance(error, BaseError) and isinstance(error.__cause__, Switched):
        return Lost(f"sent, outcome unknown: {error.__cause__}", timed_out=False)
    if isinstance(error, TooLarge):
        return Lost("sent, outcome unknown: the answer is larger than worker.max_markets_mib", timed_out=False)
    return Lost("sent, outcome unknown: the connection ended without a whole answer", timed_out=False)


def _place_of(error: BaseException | None) -> str:
    """Where it was raised: a line of code, and nothing that was in it."""
    frames = traceback.extract_tb(None if error is None else error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
