"""Markets that answers name and the lane does not list: new ones, mostly. Then its markets are read again."""

import asyncio
import logging
import math
from typing import Final

from schemas.runtime.clock import clock_s

log = logging.getLogger(__name__)

# The least time between two readings of an exchange's markets for this reason, by the whole fleet.
RELIST_S: Final = 120.0
# How many names are remembered, new ones and ones that stay unlisted each.
KEPT: Final = 1_000
# No market's name is longer.
LONGEST: Final = 128
# Options that have ended, of which ccxt makes markets as it goes (4.5.90: `create_expired_option_market`).
_ENDED: Final = ("-C", "-P")


class Unlisted:
    """The names in answers that no market of one lane has.

    An exchange also names what it never lists, as indices and contracts that have ended. So a name that is missing in
    markets that were read after it was seen is not looked for again.

    Args:
        lane: for the log.
    """

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._seen = asyncio.Event()
        self._due_s = -math.inf
        self._new: dict[str, float] = {}
        self._strange: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._new)

    async def wait(self) -> None:
        """Returns when there is a new name, but not within `RELIST_S` of the last time: reading may have failed."""
        await asyncio.sleep(max(self._due_s - clock_s(), 0.0))
        await self._seen.wait()
        self._seen.clear()
        self._due_s = clock_s() + RELIST_S

    def note(self, name: str) -> None:
        """An answer names it, and it is not listed."""
        name = name[:LONGEST]
        if name.endswith(_ENDED):
            return
        if name in self._strange or name in self._new or len(self._new) >= KEPT:
            return
        self._new[name] = clock_s()
        self._seen.set()

    def settle(self, read_s: float) -> None:
        """The lane has markets now that were read from the exchange at `read_s`, by the monotonic clock."""
        old = [name for name, at_s in self._new.items() if at_s <= read_s]
        if old:
            log.info("markets_relisted", extra={"lane": self._lane, "names": old[:5], "count": len(old)})
        for name in old:
            del self._new[name]
            self._strange[name] = None
        while len(self._strange) > KEPT:
            del self._strange[next(iter(self._strange))]
