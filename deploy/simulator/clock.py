"""The simulator's one clock: prices, windows and bans all read it, so that they agree."""

from __future__ import annotations

import time

NS = 1_000_000_000


class Clock:
    """Wall time that never steps: the time of day at the start plus the monotonic time since.

    Tests may freeze it or move it forward, which is how a window or a ban passes without waiting for it.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._frozen_ns: int | None = None

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        if self._frozen_ns is not None:
            return self._frozen_ns
        return time.monotonic_ns() + self._offset_ns

    def now_ms(self) -> int:
        """Milliseconds since the epoch, rounded down."""
        return self.now_ns() // 1_000_000

    @property
    def frozen(self) -> bool:
        """Whether time stands still."""
        return self._frozen_ns is not None

    def freeze(self, frozen: bool) -> None:
        """Stop time where it is, or let it run on from there."""
        now_ns = self.now_ns()
        self._frozen_ns = now_ns if frozen else None
        self._offset_ns = now_ns - time.monotonic_ns()

    def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`, which must not be negative: every window relies on that."""
        if seconds < 0:
            raise ValueError("the clock only moves forward")
        step_ns = round(seconds * NS)
        self._offset_ns += step_ns
        if self._frozen_ns is not None:
            self._frozen_ns += step_ns
