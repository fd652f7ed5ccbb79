"""One attempt's calls to an exchange: what they may use, and what was seen of them."""

import asyncio
import math
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast

from msgspec import Struct, field

from schemas.runtime.clock import clock_s
from schemas.runtime.standstill import AT_THE_END_S, DECIDES_S, StillFor

from ..limits.answers import Means
from ..limits.tables import shipped
from .bounds import NOTHING, Holding
from .signals import Pause

# Names of parameters that name a market or a currency: symbol, instId, currency_pair, contract_code, uly.
_NAMES: Final = re.compile(r"(?i)symbol|inst|pair|contract|product|market|coin|currency|asset|uly|ticker")


# The name of an error's attribute: what was heard of the HTTP call that raised it.
_HEARD: Final = "fleet_heard"


class Heard(Struct):
    """What was heard of one HTTP call.

    Args:
        status: of its answer, None if there was none.
        body: its start.
        pause: that it asked for.
        headers: its headers.
        by_status: ccxt found no error in its body, so what ccxt raises is due to its status alone.
        unread: this process stood still as it ended: an answer may have come, and nobody could read it.
    """

    status: int | None = None
    body: str = ""
    pause: Pause | None = None
    headers: Mapping[str, str] = {}
    by_status: bool = False
    unread: bool = False

    def says(self, exchange: str, *means: Means) -> bool:
        """Whether the answer means one of these in the words of the exchange, a ccxt id."""
        answers = shipped().answers(exchange)
        return any(answers.find(each, self.status, self.body, self.headers) is not None for each in means)


def blame(error: Exception, heard: Heard) -> None:
    """An HTTP call raised an error: that keeps what was heard of it."""
    setattr(error, _HEARD, heard)


class Seen(Struct):
    """What was seen of an attempt's HTTP calls.

    Args:
        exchange: the ccxt id.
        http_calls: how many were sent.
        heard: of the last one that was sent or passed for data; of the one that raised an error, once it is settled.
        data: the answer to one of them passed for data.
        args: the request's arguments; None where they are not known.
        written: the last one was written to a connection: without an answer, it may have arrived.
        still_s: for how long this process stood still while one of them was out.
    """

    exchange: str
    http_calls: int = 0
    heard: Heard = field(default_factory=Heard)
    data: bool = False
    args: Mapping[str, Any] | None = None
    written: bool = False
    still_s: float = 0.0

    def stood(self, heard: Heard, still_s: StillFor, sent_s: float, ended_s: float) -> float:
        """Notes for how long this process stood still while a call was out, and returns it."""
        still = still_s(sent_s, ended_s)
        self.still_s = max(self.still_s, still)  # pages side by side share one standstill
        heard.unread = still_s(ended_s - AT_THE_END_S, ended_s) >= DECIDES_S
        return still

    def sends(self) -> Heard:
        """An HTTP call is sent; returns what will be heard of it."""
        self.http_calls += 1
        self.written = False
        self.heard = Heard()
        return self.heard

    def settle(self, error: BaseException) -> None:
        """Makes `heard` and `data` those of the HTTP call that raised an error, if one did.

        Pages that ccxt fetches side by side have one attempt: the call that was sent last may be another one.
        """
        heard: Heard | None = getattr(error, _HEARD, None)
        if heard is not None:
            self.heard, self.data = heard, False

    @property
    def named(self) -> list[str]:
        """The symbols and currencies that the request names; in `params` as the exchange calls them."""
        args = self.args or {}
        values = [args.get(name) for name in ("symbol", "symbols", "code", "codes")]
        params: Mapping[str, Any] = args.get("params") or {}
        values += [value for name, value in params.items() if _NAMES.search(name)]
        texts: list[Any] = []
        for value in values:
            texts += value if isinstance(value, list) else [value]
        return [text for text in texts if isinstance(text, str) and text]

    @property
    def names_any(self) -> bool:
        """Whether the request names a symbol, a currency or the like; where its arguments are not known it may."""
        return self.args is None or bool(self.named)


class Call(Seen):
    """One attempt's calls. All times are seconds, but for `left_us`.

    Args:
        max_wait_s: the longest it may wait for budget, all its HTTP calls together.
        timeout_s: the longest it may take, from now.
        bulk: it may use only what live requests leave, and waits without a reservation.
        account: whose keys sign it; None for none.
        reserve_s: the furthest ahead it may reserve; a slot that is further ahead is asked for again later.
        waited_s: the time it waited for budget.
        exchange_s: the time between sending and the end of the answer, all HTTP calls together, without standstills.
        budget_s: how long the budget that it used takes to refill, each HTTP call in its slowest bucket.
        started_s: when it began, by the monotonic clock.
        sent_s: when its first HTTP call was sent, by the same; None if none was.
        there_s: when the answer to its last HTTP call began to come, or the call failed, by the same; 0 before.
        left_us: when its last answered HTTP call was sent, on Redis's clock, microseconds since 1970.
        trip_s: from then to the head of the answer, plus the uncertainty of `left_us`.
        windowed: its last HTTP call counted in a fixed window of the exchange's clock.
        blank: the last answer had no body, as an answer that says "none" may.
        holding: what it holds of answers.
        usual_s: how long the exchange usually takes for an answer. With no more time left than this it does not wait.
        signed: what is sent as it stands, in place of what ccxt would sign: an HTTP call of the producer's own.
        refused: that one's answer says what is wrong with it.
        cancellations: how often its task had been cancelled when it began.
        pages: its passes through `fetch2` that are under way.
        unsent: the tasks of those that were not written to a connection yet.
        is_over: it has ended. ccxt lets its other pages go on where one fails.
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
    sent_s: float | None = None
    there_s: float = 0.0
    left_us: float = 0.0
    trip_s: float = 0.0
    windowed: bool = False
    blank: bool = False
    holding: Holding = NOTHING
    usual_s: float = 0.0
    signed: Mapping[str, Any] | None = None
    refused: bool = False
    cancellations: int = 0
    pages: int = 0
    unsent: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])
    is_over: bool = False

    @contextmanager
    def page(self) -> Generator[None]:
        """Around one pass through `fetch2`; raises `CancelledError` where the attempt has ended."""
        if self.is_over:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        self.pages += 1
        self.unsent.add(task)
        try:
            yield
        finally:
            self.pages -= 1
            self.unsent.discard(task)
            self._let_go()

    def leaves(self) -> None:
        """An HTTP call is written to a connection."""
        self.written = True
        if self.unsent:  # there are none without an event loop
            self.unsent.discard(cast("asyncio.Task[Any]", asyncio.current_task()))

    def returns(self) -> None:
        """A page that was written is to be sent again; raises `CancelledError` where the attempt has ended."""
        if self.is_over:
            raise asyncio.CancelledError
        self.unsent.add(cast("asyncio.Task[Any]", asyncio.current_task()))

    def over(self) -> None:
        """The attempt has ended. Pages that were not sent never are. Others' answers are read: one may be a refusal."""
        self.is_over = True
        for task in self.unsent:
            task.cancel()
        self._let_go()

    def _let_go(self) -> None:
        if self.is_over and not self.pages:
            self.holding.close()

    def __post_init__(self) -> None:
        self.started_s = clock_s()

    @property
    def left_s(self) -> float:
        """The time left."""
        return self.started_s + self.timeout_s - clock_s()

    @property
    def room_s(self) -> float:
        """How long it may still wait before it is sent: a later call would be cut off before its answer."""
        return max(min(self.max_wait_s - self.waited_s, self.left_s - self.usual_s), 0.0)


# The call of the running attempt. Pages that ccxt fetches side by side belong to one call.
CALL: Final[ContextVar[Call]] = ContextVar("call")
