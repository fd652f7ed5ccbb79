"""The pauses that this process knows of. Pure, but for the monotonic clock."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from schemas.runtime.clock import clock_s

from .rules import AT_ONCE_S, DOUBLINGS, PAUSE_KEPT_S


class _Known(NamedTuple):
    """A pause: until when it holds, by the monotonic clock, how often it was doubled, and why it was set."""

    till_s: float
    doublings: int
    why: str


_NONE: Final = _Known(0.0, 0, "")


class Pauses:
    """Pauses by their keys: from the exchange, or from Redis.

    Args:
        now_s: the monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float] = clock_s) -> None:
        self._now_s = now_s
        self._known: dict[str, _Known] = {}
        # When an operator last ended pauses here, microseconds of Redis's clock, as far as this process has seen.
        self.lifted_us = 0

    def keep(self, keys: Sequence[str], for_s: float, why: str = "", *, from_s: float | None = None) -> None:
        """Pauses these keys for so long; a longer pause stays as it is.

        Args:
            keys: of the pauses.
            for_s: how long.
            why: where the length is from and what the exchange said, as `said` puts it; empty where it isn't known.
            from_s: from when, on the monotonic clock; now without it.
        """
        self._forget()
        till_s = (self._now_s() if from_s is None else from_s) + for_s
        for key in keys:
            known = self._known.get(key, _NONE)
            if till_s > known.till_s:
                self._known[key] = _Known(till_s, known.doublings, why or known.why)
            elif why and not known.why:
                self._known[key] = known._replace(why=why)

    def refused(
        self, keys: Sequence[str], for_s: float, why: str, *, most_s: float, named: bool, at_s: float | None
    ) -> float:
        """As `keep`, and longer where the call was granted after the last pause: the rule of `pauses.lua`.

        Args:
            keys: of the pauses.
            for_s: how long.
            why: as in `keep`.
            most_s: the most that it may become.
            named: the exchange itself named the length.
            at_s: when the call left, on the monotonic clock; None where it isn't known.

        Returns:
            How long they hold now, seconds.
        """
        self._forget()
        for key in keys:
            till_s, doublings, _ = known = self._known.get(key, _NONE)
            mine_s = for_s
            if at_s is not None and at_s >= till_s:
                again = till_s > 0 and (not named or at_s < till_s + AT_ONCE_S)
                doublings = min(doublings + 1, DOUBLINGS) if again else 0 if named else doublings
                self._known[key] = known._replace(doublings=doublings)
            if not named or (at_s is not None and at_s >= till_s):
                mine_s = max(for_s, min(for_s * 2**doublings, most_s))
            self.keep([key], mine_s, why)
        return self.left_s(keys)

    def _forget(self) -> None:
        since_s = self._now_s() - PAUSE_KEPT_S
        self._known = {key: one for key, one in self._known.items() if one.till_s > since_s}

    def left_s(self, keys: Sequence[str]) -> float:
        """For how much longer the longest of these holds, seconds."""
        return max(0.0, self._longest(keys).till_s - self._now_s())

    def source(self, keys: Sequence[str]) -> str:
        """Where the length of the longest of these that hold is from; empty where none does, or it isn't known."""
        longest = self._longest(keys)
        return longest.why.partition("|")[0] if longest.till_s > self._now_s() else ""

    def _longest(self, keys: Sequence[str]) -> _Known:
        return max((self._known.get(key, _NONE) for key in keys), default=_NONE)

    def lifted(self, at_us: int) -> None:
        """An operator ended pauses: what was known before counts no more."""
        if at_us > self.lifted_us:
            self.lifted_us = at_us
            self._known.clear()

    def __iter__(self) -> Iterator[tuple[str, float, str]]:
        """The key of each pause that holds, how long it does, seconds, and why it was set."""
        now = self._now_s()
        return iter([(key, one.till_s - now, one.why) for key, one in self._known.items() if one.till_s > now])


def said(source: str, reason: str) -> str:
    """Where a pause's length is from, and what the exchange answered: as it is kept in Redis."""
    return f"{source.replace('|', '/')}|{reason}"[:200]
