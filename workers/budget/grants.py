"""What asking for budget answers: room at an instant, or none and when; and what is known of a bucket."""

import math
from typing import Literal, TypeAlias

from msgspec import Struct

Reason: TypeAlias = Literal["budget", "paused", "redis_lost", "share_too_small"]


class Grant(Struct, frozen=True):
    """Room is reserved.

    Args:
        delay_us: sleep so long, then send.
        at_us: the reserved instant on Redis's clock, microseconds since 1970.
        ranks: what each of its buckets had spent with it, thousandths; tells our calls from others in what the exchange
            counts.
        due_s: the instant on the monotonic clock, at the latest.
        early_s: the same at the earliest: the clocks' difference is known no better.
        spare_us: how late the call may leave; beyond that it must not.
        margin_us: how late it may arrive without making others wait.
        must_tell: its arrival has to be told in any case (`Budget.arrived`).
        sure: it may leave without being looked at again (`Budget.again`): all were heard of in whose room it is.
        own: this worker granted it itself, from its share.
        held_by: which of the call's charges it waits for, None where there is no wait, or it isn't known.
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
        """From when lateness counts: a worker that granted itself a call knows the instant by its own clock."""
        return self.due_s if self.own else self.early_s


class Refusal(Struct, frozen=True):
    """Nothing is reserved.

    Args:
        earliest_ms: when there would be room, on Redis's clock, milliseconds since 1970.
        wait_s: the same as seconds from now.
        reason: no room in time; the exchange told us to pause; Redis can't be asked; or it can't be asked, and this
            worker's share of a bucket never holds the call.
        held_by: which of the call's charges had no room; None where that is not why.
    """

    earliest_ms: int
    wait_s: float
    reason: Reason
    held_by: int | None = None


class Use(Struct, frozen=True):
    """One bucket now.

    Args:
        used: the used part of what it may hold, 0 to 1, strangers' calls included.
        effective: the part of its table's amount that it may hold: less than 1 where the exchange said "too many".
        paused_s: how long the exchange asked it, and not the whole scope, still to be silent.
    """

    used: float
    effective: float
    paused_s: float = 0.0


class Learned(Struct, frozen=True):
    """A bucket holds less from now on: its count's key, its amount by the table, and the one it has now."""

    bucket: str
    amount: float
    effective: float
