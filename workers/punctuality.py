"""When a granted instant of Redis's clock is here, and how late this process tends to be.

A grant is an instant on Redis's clock. What counts is that the call leaves then: one that leaves late lands among calls
that were granted later, and the exchange counts them in one window. So the difference of the two clocks is measured,
lateness with it, and a process that is slow (many attempts at once, a busy machine) asks for instants as far ahead as
it needs to be ready. Pure: clocks are arguments; seconds of the monotonic clock here, microseconds there.
"""

from typing import Final

# How long a measured difference is believed: clocks drift, and Redis's may be set.
EPOCH_S: Final = 10.0
# With each answer the lead forgets this part of itself, so that one bad second is not held against the next ones.
FORGET: Final = 0.02
LEAD_LIMIT_US: Final = 250_000
SHORTEST_LEAD_US: Final = 500


ANYTHING_S: Final = (float("-inf"), float("inf"))


def _closer(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return max(one[0], other[0]), min(one[1], other[1])


class Punctuality:
    """Follows one Redis's clock from this process."""

    def __init__(self) -> None:
        # Our clock less Redis's, at least and at most: the closest of two spans' questions and answers.
        self._difference_s = self._span_s = ANYTHING_S
        self._span_end = 0.0
        self._lead_us = 0.0

    def answered(self, now: float, redis_us: float, *, asked: float) -> None:
        """Takes in an answer that Redis gave when its clock showed `redis_us`, to what was asked at `asked`."""
        seen_s = (asked - redis_us / 1e6, now - redis_us / 1e6)
        if now >= self._span_end:
            self._difference_s, self._span_s, self._span_end = self._span_s, ANYTHING_S, now + EPOCH_S
        self._span_s = _closer(self._span_s, seen_s)
        self._difference_s = _closer(self._difference_s, seen_s)
        self._learn((seen_s[1] - self._difference_s[1]) * 1e6)

    def forget(self) -> None:
        """Redis's clock was set: what was seen of it before says nothing."""
        self._difference_s = self._span_s = ANYTHING_S

    def due(self, at_us: float, *, not_before: float) -> float:
        """The instant `at_us` of Redis's clock on ours: never early, and late by the fastest answer's way at most.

        Args:
            at_us: the granted instant.
            not_before: our clock when we asked, and the delay that was granted: it can't be earlier than that.
        """
        return max(at_us / 1e6 + self._difference_s[1], not_before)

    def earliest(self, at_us: float) -> float:
        """When `at_us` of Redis's clock was here on ours at the earliest: who counts lateness counts from then."""
        return at_us / 1e6 + self._difference_s[0]

    def woke(self, late_us: float) -> None:
        """Takes in how late the process woke for an instant."""
        self._learn(late_us)

    def lead_us(self) -> int:
        """How far ahead an instant must lie for this process to be ready."""
        return 0 if self._lead_us < SHORTEST_LEAD_US else min(int(self._lead_us), LEAD_LIMIT_US)

    def _learn(self, late_us: float) -> None:
        self._lead_us += max(late_us - self._lead_us, (late_us - self._lead_us) * FORGET)
