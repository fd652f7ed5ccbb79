"""One attempt's calls to an exchange: what they may use, and what was seen of them."""

import math
import time
from contextvars import ContextVar
from typing import Final

from msgspec import Struct

from ..limits.answers import Means
from ..limits.tables import shipped
from .bounds import NOTHING, Holding
from .signals import Pause


class Seen(Struct):
    """What was seen of an attempt's HTTP calls; the last one counts.

    Args:
        exchange: the ccxt id.
        http_calls: how many HTTP calls were sent.
        status: the status of the last answer, None if there was none.
        body: the start of its body.
        pause: the pause that it asked for.
    """

    exchange: str
    http_calls: int = 0
    status: int | None = None
    body: str = ""
    pause: Pause | None = None

    def says(self, means: Means) -> bool:
        """Whether the last answer means this in the exchange's own words."""
        return shipped().answers(self.exchange).find(means, self.status, self.body) is not None


class Call(Seen):
    """One attempt's calls. All times in seconds.

    Args:
        max_wait_s: the longest it may wait for budget, all its HTTP calls together.
        timeout_s: the longest it may take, from now.
        bulk: it may use only what live requests leave, and waits without a reservation.
        account: whose keys sign it; None for none.
        reserve_s: the furthest ahead it may reserve; a slot that is further ahead is asked for again later.
        waited_s: the time it waited for budget.
        exchange_s: the time between sending and the end of the answer, all HTTP calls together.
        budget_s: how long the budget that it used takes to refill, each HTTP call in its slowest bucket.
        started_s: when it began, by the monotonic clock.
        left_us: when its last answered HTTP call was sent, on Redis's clock, microseconds since 1970.
        trip_s: from then to the head of the answer, plus the uncertainty of `left_us`.
        windowed: its last HTTP call counted in a fixed window of the exchange's clock.
        blank: the last answer had no body, as an answer that says "none" may.
        holding: what it holds of answers.
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
    windowed: bool = False
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
        return max(min(self.max_wait_s - self.waited_s, self.left_s), 0.0)


# The call of the running attempt. Pages that ccxt fetches side by side belong to one call.
CALL: Final[ContextVar[Call]] = ContextVar("call")
