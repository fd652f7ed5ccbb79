"""The answers of a budget: room at an instant, or none and when there is some; and what is known of a bucket."""

import math
import time
from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from ..limits.costs import Charge

# How long a request waits for Redis to come back before it is offered again.
LOST_WAIT_S: Final = 1.0

Reason: TypeAlias = Literal["budget", "busy", "paused", "redis_lost", "share_too_small"]


class Grant(Struct, frozen=True):
    """Room is reserved.

    Args:
        delay_us: sleep so long, then send.
        at_us: the reserved instant on Redis's clock, microseconds since 1970.
        ranks: what each of its buckets had spent with it, thousandths; tells our calls from others in what the exchange
            counts.
        due_s: the instant on the monotonic clock, at the latest.
        early_s: the same at the earliest, as the clock offset is not known exactly.
        spare_us: how late the call may leave; beyond that it must not.
        margin_us: how late it may arrive without delaying others.
        must_tell: its arrival has to be reported in any case (`Budget.arrived`).
        sure: it may leave without being looked at again (`Budget.again`): it uses no room of calls without an answer.
        own: this worker granted it itself, from its share.
        held_by: which of the call's charges it waits for; None where there is no wait, or it isn't known.
    """

    delay_us: int
    at_us: int
    ranks: tuple[int, ...] = ()
    due_s: float = 0.0
    early_s: float = 0.0
    spare_us: float = math.inf
    margin_us: float = math.inf
    must_tell: bool = False
    sure: bool = True
    own: bool = False
    held_by: int | None = None

    @property
    def counts_from_s(self) -> float:
        """From when lateness counts. A worker that granted a call itself knows the instant by its own clock."""
        return self.due_s if self.own else self.early_s


class Refusal(Struct, frozen=True):
    """Nothing is reserved.

    Args:
        earliest_ms: when there would be room, on Redis's clock, milliseconds since 1970.
        wait_s: the same as seconds from now.
        reason: no room in time; there was, but this process woke too late for it, again and again; the exchange asked
            for a pause; Redis can't be asked; or it can't be asked, and this worker's share of a bucket never holds the
            call.
        held_by: which of the call's charges had no room; None where that is not why.
        rooms: how room comes there: pairs of seconds from now and how many such calls have had room by then, in order.
            Empty where it comes as evenly as calls can be apart, and where it is not known.
    """

    earliest_ms: int
    wait_s: float
    reason: Reason
    held_by: int | None = None
    rooms: Sequence[tuple[float, int]] = ()


class Use(Struct, frozen=True):
    """One bucket now.

    Args:
        used: the used part of what it may hold, 0 to 1, strangers' calls included.
        effective: the part of its table's amount that it may hold: less than 1 where the exchange said "too many".
        paused_s: how long the exchange asked it, and not the whole scope, still to be silent.
        amount: its table's amount.
        window_s: the window of that.
    """

    used: float
    effective: float
    paused_s: float = 0.0
    amount: float = 0.0
    window_s: float = 0.0


class Learned(Struct, frozen=True):
    """A bucket holds less from now on: its count's key, its amount by the table, and the one it has now."""

    bucket: str
    amount: float
    effective: float


class Grants(Protocol):
    """What grants calls: the ledger in Redis, or this worker's own share without it.

    What Redis does not answer raises one of `store.AWAY`.
    """

    async def reserve(
        self, charges: Sequence[Charge], *, max_wait_us: int, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal:
        """Reserves room for one call in all its buckets.

        Args:
            charges: what the call costs (`Costs.charges`).
            max_wait_us: refuse when the room would come later than this, the lead not counted.
            bulk: leave the reserve.
            lead_us: how long the caller needs to be ready to send.
        """
        ...

    async def again(
        self, charges: Sequence[Charge], grant: Grant, *, max_wait_us: int, bulk: bool = False, lead_us: int = 0
    ) -> Grant | Refusal | None:
        """Checks a reservation again. A refusal has given it back; None where it was forgotten and may be made anew."""
        ...

    async def arrived(self, charges: Sequence[Charge], grant: Grant, late_us: float, *, answered: bool = True) -> None:
        """Takes in that a call has arrived, and how late; without an answer it may arrive still."""
        ...

    async def back(self, charges: Sequence[Charge], grant: Grant) -> None:
        """Takes back a reservation whose call is not sent."""
        ...


def refused(reason: Reason, wait_s: float = 0.0) -> Refusal:
    """A refusal that Redis did not give: ask again after this time, and not at once."""
    wait_s = max(LOST_WAIT_S, wait_s)
    return Refusal(int((time.time() + wait_s) * 1000), wait_s, reason)
