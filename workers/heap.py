"""What lasts is kept out of the garbage collector's sight: markets, ccxt's classes, all that was imported.

A collection of the oldest generation looks at every object there is, and nothing else runs meanwhile: with the markets
of five exchanges for about 0.1 s. Frozen objects (`gc.freeze`) are not looked at, and go as soon as nothing refers to
them. Only a circle among them would stay for ever. So what can be collected is collected first, and what is dropped
later must be no circle: old markets are none, and a closed lane gives back the one that it has, its class of ccxt.

Nothing is thawed. A forked worker shares its parent's frozen objects as long as it does not write to them, and a
collection writes into every object that it looks at.
"""

import asyncio
import gc
import logging
import time
from typing import Final

log = logging.getLogger(__name__)

# Lanes open and are renewed together. For so long after one the next is waited for.
SETTLE_S: Final = 1.0


class Heap:
    """Freezes what is there when lanes have opened or their markets were read again."""

    def __init__(self) -> None:
        self._grown = asyncio.Event()
        self._grown.set()  # all that was imported

    def grew(self) -> None:
        """Something came that will last."""
        self._grown.set()

    async def freeze(self) -> None:
        """Freezes each time that something came; never returns."""
        while True:
            await self._grown.wait()
            await asyncio.sleep(SETTLE_S)
            self._grown.clear()
            frozen, took_s = freeze()
            log.info("heap_frozen", extra={"objects": frozen, "pause_ms": round(took_s * 1000, 1)})


def freeze() -> tuple[int, float]:
    """Collects what is no longer used, and freezes the rest; all else waits for that.

    Returns:
        How many objects are frozen now, and how long it took, seconds.
    """
    begun_s = time.perf_counter()
    gc.collect()
    gc.freeze()
    return gc.get_freeze_count(), time.perf_counter() - begun_s
