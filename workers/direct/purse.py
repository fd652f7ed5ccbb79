"""What a program's own ccxt is charged to: one scope's budgets, and how its calls fared."""

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ccxt.base.errors import BaseError, RateLimitExceeded  # pyright: ignore[reportMissingTypeStubs]

from schemas.accounts import Secret
from schemas.config import LaneConfig, LimitsConfig
from schemas.runtime.clock import clock_s
from schemas.runtime.store import AWAY
from schemas.runtime.tasks import CLOSING_S, end_tasks

from ..budget.grants import Grant
from ..budget.rules import CLOCK_DUE_S, CLOCK_TTL_S
from ..exchange import settings
from ..exchange.bounds import Holding
from ..exchange.call import CALL, Call
from ..exchange.clock import set_windows
from ..exchange.errors import NoBudget
from ..exchange.meter import Meter
from ..exchange.redaction import Redactor
from ..exchange.rows import Rows
from ..limits import costs
from ..limits.costs import Charge
from ..limits.tables import shipped
from .address import Address, Place, take

log = logging.getLogger(__name__)

# A slot that is further ahead is asked for again later: less than Redis grants to one of several workers.
RESERVE_S: Final = 2.0
# The program reads what it asked for, however much that is.
_ANY_BYTES: Final = 1 << 62
_ANY_ROWS: Final = Rows(1 << 62, 1 << 62)

WHY: Final = {
    "budget": "the limits have no room",
    "busy": "this program was too busy to send it in its turn",
    "paused": "the exchange has to be left alone",
    "redis_lost": "Redis is away, and this program has no part of the limits without it",
}


class Purse:
    """The budgets of one exchange as seen from one address, for one instance of ccxt's class.

    Args:
        exchange: the instance.
        url: Redis.
        lane: what the fleet's configuration would say of a lane that leaves from the same address.
        limits: what holds instead of the exchange's table.
        max_wait_s: the longest that a call may wait.
        name: what it is called in logs.
        redactor: takes secrets out of what the exchange says; without it the instance's keys.

    Attributes:
        calls: how many calls were sent.
        waited_s: how long they waited, or would have waited, all together.
        longest_s: the longest of these waits.
        refused: how many calls were not sent, or would not have been, as they would have waited for too long.
    """

    def __init__(
        self,
        exchange: Any,
        url: str,
        lane: LaneConfig,
        limits: LimitsConfig | None,
        *,
        max_wait_s: float,
        name: str = "",
        redactor: Redactor | None = None,
    ) -> None:
        self.calls = self.refused = 0
        self.waited_s = self.longest_s = 0.0
        self.lane = lane
        self._name = name or f"{exchange.id} of this program"
        self._redactor = redactor
        self._max_wait_s = max_wait_s
        pace_ms = float(exchange.rateLimit)
        self.costs = costs.load(exchange.id, pace_ms, limits)
        self._place = Place(url, f"{settings.budget_of(lane)}:{lane.egress}", repr((pace_ms, limits)))
        self._answers = shipped().answers(exchange.id)
        self._meter: Meter | None = None
        # By which correction of Redis's clock it is known where windows begin, and when that is to be measured again.
        self._measured: tuple[str, float] | None = None
        self._address: Address | None = None
        self._opening: asyncio.Lock | None = None
        self._process = 0
        self._named: Any = None
        self._kept = set[asyncio.Task[Any]]()
        self._is_cut = False

    @property
    def is_open(self) -> bool:
        """Whether it has something to give up."""
        return self._address is not None and self._process == os.getpid()

    @property
    def meter(self) -> Meter:
        """What calls are charged to, once it is open."""
        assert self._meter is not None
        return self._meter

    async def open(self, exchange: Any, fetch_time: Callable[[], Awaitable[Any]] | None) -> None:
        """Connects to Redis, in the event loop that it is used in from then on; does nothing where that is done.

        Args:
            exchange: the instance; its keys are read now.
            fetch_time: asks the exchange for its time, where it can tell it and has windows that start by it.
        """
        if self._process != os.getpid():  # a fork has neither the connection nor the event loop
            self._process, self._meter, self._address, self._opening = os.getpid(), None, None, asyncio.Lock()
            self._kept = set[asyncio.Task[Any]]()
        assert self._opening is not None
        async with self._opening:
            if self._meter is None:
                await self._open(exchange)
            if fetch_time is not None:
                await self._measure(exchange, fetch_time)
        if self.costs.names_matter and exchange.markets is not self._named:
            self._named = exchange.markets
            markets: dict[str, Any] = exchange.markets or {}
            self.meter.names = self.costs.names(markets.values())

    async def _open(self, exchange: Any) -> None:
        secrets = [Secret(str(value)) for name in exchange.requiredCredentials if (value := getattr(exchange, name))]
        account = str(exchange.apiKey or exchange.walletAddress or "")
        address = take(self._place)
        try:
            await address.open()
        except BaseException:  # the next call opens it
            await address.leave()
            raise
        # Who else has the account, and from where, is not known here.
        budget, redactor = address.budget_of(account), self._redactor or Redactor(secrets)
        self._address, self._meter = address, Meter(self._name, budget, self.costs, self._answers, redactor)
        self._measured = None

    async def _measure(self, exchange: Any, fetch_time: Callable[[], Awaitable[Any]]) -> None:
        """Measures where windows begin, where nobody has lately, or Redis's clock was corrected since."""
        assert self._address is not None
        ledger, budget = self.meter.budget.ledger, self.meter.budget
        corrected = ledger.member.frame.id if ledger.member else ""
        if self._measured is not None and self._measured[0] == corrected and clock_s() < self._measured[1]:
            return
        with contextlib.suppress(*AWAY):
            left_s = await self._address.client.pttl(ledger.keys.clock) / 1000
            if left_s < CLOCK_DUE_S:
                token = CALL.set(call := self.new_call(exchange))
                try:
                    await set_windows(fetch_time, call, budget, self.costs)
                except BaseError:
                    if left_s <= 0 or (self._measured is not None and self._measured[0] != corrected):
                        raise
                    return  # what was measured before still holds; the next call tries again
                finally:
                    CALL.reset(token)
                    self.over(call)
                left_s = CLOCK_TTL_S
            self._measured = corrected, clock_s() + left_s - CLOCK_DUE_S

    def new_call(self, exchange: Any) -> Call:
        """A call that may wait; once it is sent ccxt's own time-out holds."""
        call = Call(exchange.id, max_wait_s=self._max_wait_s, timeout_s=math.inf, reserve_s=RESERVE_S)
        call.holding = Holding(None, _ANY_BYTES, _ANY_ROWS, (exchange.id, ""))
        return call

    def over(self, call: Call) -> None:
        """A call is over: counts it."""
        self.calls += call.http_calls
        self._waited(call.waited_s)

    def may_wait(self, call: Call, error: NoBudget, exchange: Any, path: str, *, sent: bool) -> float:
        """How long a call that has no budget now has to wait, seconds: it counts as waited.

        Args:
            call: the call.
            error: why it has none.
            exchange: the instance, for the error.
            path: ccxt's, likewise.
            sent: it was sent before, and ccxt wants to repeat it. It does not wait, or all of it would be done again.

        Raises:
            RateLimitExceeded: it may not wait for so long.
        """
        if not sent and error.wait_s < call.room_s:
            call.waited_s += error.wait_s
            return error.wait_s
        self.refused += 1
        why = WHY.get(error.reason, error.reason)
        text = f"not sent: {why} for {error.wait_s:.1f} s more, and a call may wait for {self._max_wait_s:g} s"
        raise RateLimitExceeded(f"{exchange.id} {path}: {text}") from error

    async def note(self, charges: list[Charge]) -> None:
        """Charges a call that leaves at once, and counts how long it would have waited."""
        budget = self.meter.budget
        answer = await budget.reserve(charges, max_wait_s=self._max_wait_s)
        self.calls += 1
        if isinstance(answer, Grant):
            wait_s = max(0.0, budget.ledger.redis_clock.due(answer.at_us) - budget.ledger.now_s())
            self._waited(wait_s)
            if wait_s:
                log.info("call_would_have_waited", extra={"lane": self._name, "wait_s": round(wait_s, 3)})
        else:
            self.refused += 1
            log.info("call_would_not_have_left", extra={"lane": self._name, "why": answer.reason})

    def _waited(self, wait_s: float) -> None:
        self.waited_s += wait_s
        self.longest_s = max(self.longest_s, wait_s)

    def keep(self, sending: asyncio.Task[Any]) -> None:
        """Lets an HTTP call go on that nobody waits for any more: its answer may be a refusal, which has to be heeded.

        Args:
            sending: ends when all that its answer says of limits was told to the fleet.
        """
        self._kept.add(sending)
        sending.add_done_callback(self._over_alone)
        if self._is_cut:
            sending.cancel()

    def _over_alone(self, sending: asyncio.Task[Any]) -> None:
        self._kept.discard(sending)
        if not sending.cancelled():
            sending.exception()  # it had nobody to go to

    async def cut(self) -> None:
        """Ends the calls that nobody waits for, now and later."""
        self._is_cut = True
        await end_tasks(self._kept)

    async def close(self) -> None:
        """Gives up its part of the limits, and the connection. In a fork both are its parent's."""
        if self._process != os.getpid():
            return
        if self._kept:
            await asyncio.wait(self._kept, timeout=CLOSING_S)
            await end_tasks(self._kept)
        address, self._meter, self._address = self._address, None, None
        if address is not None:
            await address.leave()
