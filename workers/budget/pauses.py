"""The pauses that this process knows of. Pure, but for the monotonic clock."""

import time
from collections.abc import Iterator, Sequence


class Pauses:
    """Pauses by their keys: from the exchange, or from Redis."""

    def __init__(self) -> None:
        self._till_s: dict[str, float] = {}
        # When an operator last ended pauses here, microseconds of Redis's clock, as far as this process has seen.
        self.lifted_us = 0

    def keep(self, keys: Sequence[str], for_s: float) -> None:
        """Pauses these keys for so long; a longer pause stays as it is."""
        now = time.monotonic()
        self._till_s = {key: till for key, till in self._till_s.items() if till > now}
        for key in keys:
            self._till_s[key] = max(now + for_s, self._till_s.get(key, 0.0))

    def left_s(self, keys: Sequence[str]) -> float:
        """For how much longer the longest of these holds, seconds."""
        now = time.monotonic()
        return max(0.0, *(self._till_s.get(key, now) - now for key in keys))

    def lifted(self, at_us: int) -> None:
        """An operator ended pauses: what was known before counts no more."""
        if at_us > self.lifted_us:
            self.lifted_us = at_us
            self._till_s.clear()

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """Each pause's key, and how long it holds, seconds."""
        now = time.monotonic()
        return iter([(key, max(0.0, till - now)) for key, till in self._till_s.items()])
