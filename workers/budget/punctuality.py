"""How late this process tends to be.

A call that leaves after its instant lands among calls that were granted later, and the exchange counts them in one
window. So a process that is slow (many attempts at once, a busy machine) asks for instants as far ahead as it needs to
be ready.
"""

from typing import Final

# With each answer the lead falls by this part of what it is too long: one bad second must not slow down the next ones.
FORGET: Final = 0.02
LEAD_LIMIT_US: Final = 250_000
SHORTEST_LEAD_US: Final = 500


class Punctuality:
    """Learns from what came late how far ahead instants have to lie."""

    def __init__(self) -> None:
        self._lead_us = 0.0

    def late(self, late_us: float) -> None:
        """Takes in how late an answer was read, or the process woke for an instant.

        More than the longest lead would only take longer to be forgotten, as after a standstill.
        """
        late_us = min(late_us, LEAD_LIMIT_US)
        self._lead_us += max(late_us - self._lead_us, (late_us - self._lead_us) * FORGET)

    def lead_us(self) -> int:
        """How far ahead an instant must lie for this process to be ready."""
        return 0 if self._lead_us < SHORTEST_LEAD_US else int(self._lead_us)
