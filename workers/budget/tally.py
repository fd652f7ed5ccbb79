"""What a lane's budget did since the last report, bucket by bucket: for the reports, and for Prometheus at once."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from .. import metrics
from ..limits.costs import Charge
from .grants import Grant, Refusal

# The label of refusals for which no single bucket is the reason: a pause, Redis away.
NO_BUCKET: Final = "none"


class Tally(Struct):
    """One bucket since the last report.

    Args:
        granted: what calls took of it, in its own units.
        waited_ms: how long calls waited for it.
        refused: how many calls found no room in it in time.
    """

    granted: float = 0.0
    waited_ms: float = 0.0
    refused: int = 0


class Tallies:
    """Counts one lane's grants and refusals.

    A call waits for one of its buckets, the one that had room last: its wait counts there, and as none in the others.
    """

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._buckets: dict[str, Tally] = {}
        self._series: dict[str, tuple[Any, Any]] = {}  # kept, as `labels` takes longer than counting

    def granted(self, charges: Sequence[Charge], grant: Grant, waited_s: float) -> None:
        """A call was granted.

        Args:
            charges: what it took.
            grant: says which of them it waited for.
            waited_s: how long it waited.
        """
        for number, charge in enumerate(charges):
            name = charge.bucket.name
            mine_s = waited_s if number == grant.held_by else 0.0
            tally = self._buckets.setdefault(name, Tally())
            tally.granted += charge.cost
            tally.waited_ms += mine_s * 1000
            series = self._series.get(name)
            if series is None:
                labels = self._lane, name
                series = metrics.GRANTED.labels(*labels), metrics.BUCKET_WAITED.labels(*labels)
                self._series[name] = series
            series[0].inc(charge.cost)
            series[1].observe(mine_s)

    def refused(self, charges: Sequence[Charge], refusal: Refusal) -> None:
        """A call was not granted in time.

        Args:
            charges: what it would have taken.
            refusal: says which of them had no room.
        """
        bucket = NO_BUCKET
        if refusal.held_by is not None:
            bucket = charges[refusal.held_by].bucket.name
            self._buckets.setdefault(bucket, Tally()).refused += 1
        metrics.REFUSED.labels(self._lane, bucket, refusal.reason).inc()

    def paused(self, source: str) -> None:
        """A pause was set, or became longer: its length is from the ``header``, the ``text`` or our ``backoff``."""
        metrics.PAUSES.labels(self._lane, source).inc()

    def __len__(self) -> int:
        """In how many buckets something was counted since the last time."""
        return len(self._buckets)

    def take(self) -> dict[str, Tally]:
        """What was counted since the last time, by bucket."""
        taken, self._buckets = self._buckets, {}
        return taken
