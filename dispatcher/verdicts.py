"""Where a request with `max_age_ms` gets its answer."""

import asyncio
from typing import Final, TypeAlias

from msgspec import Raw, Struct, json, msgpack

from schemas.messages import JSON, ErrorCode
from schemas.runtime.answers import Kept
from schemas.runtime.clock import clock_s

# From here on data is brought into another encoding beside the event loop.
LARGE_BYTES: Final = 256 * 1024


class Leads(Struct, frozen=True):
    """It asks, and its answer is for all who ask the same.

    Args:
        share: names the lease, as in `Attempt`.
    """

    share: str


class Alone(Struct, frozen=True):
    """It asks for itself alone."""


class Later(Struct, frozen=True):
    """It can't be held here: it is to come again a little later."""


class Failed(Struct, frozen=True):
    """The one that asked has failed with an error that this one would have, too."""

    code: ErrorCode
    why: str


class Given:
    """An answer to an equal request.

    Args:
        kept: the answer.
        at_us: when its call left for the exchange.
        now_us: when it was given, by the same clock.
        now_s: not after that, by the monotonic clock.
        waited: whether it was waited for.
    """

    def __init__(self, kept: Kept, at_us: int, now_us: int, now_s: float, *, waited: bool) -> None:
        self.waited = waited
        self.exchange, self.lane, self._data = kept.exchange, kept.lane, kept.data
        self._age_s = (now_us - at_us) / 1e6
        self._now_s = now_s
        self._as_json: asyncio.Task[Raw] | None = None

    @property
    def size_bytes(self) -> int:
        """How large it is, about."""
        return len(memoryview(self._data))

    @property
    def age_ms(self) -> int:
        """How old it is now, rounded up."""
        return int((self._age_s + clock_s() - self._now_s) * 1000) + 1

    async def data(self, content_type: str) -> Raw:
        """Its data in this encoding, made once for all."""
        if content_type != JSON:
            return self._data
        if self._as_json is None:
            self._as_json = asyncio.create_task(self._to_json())
        return await asyncio.shield(self._as_json)

    async def _to_json(self) -> Raw:
        return await asyncio.to_thread(_to_json, self._data) if self.size_bytes >= LARGE_BYTES else _to_json(self._data)


Verdict: TypeAlias = Leads | Alone | Later | Failed | Given


def _to_json(data: Raw) -> Raw:
    return Raw(json.encode(msgpack.decode(data)))
