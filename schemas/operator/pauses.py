"""Lists the pauses that exchanges asked for, and ends them.

A pause is a key in Redis, written by `budget.lua`: ``<place>:pause`` for all calls to an exchange from one address or
account, ``<place>:<bucket>:pause`` for one bucket; a place is ``fleet:{<exchange>}:<address>``, or
``fleet:{<exchange>}:account:<digest>``. Its value is ``<until, microseconds>:<doublings>:<source>|<reason>``.

Workers remember pauses too, and write them again into a Redis that lost them. So a pause is not deleted: its end is set
to now and its reason to `LIFTED`, for a while. A worker that sees this for its place forgets the pauses it remembers.
"""

import re
from typing import Any, Final

import redis.asyncio
from msgspec import Struct

from ..runtime import store

LIFTED: Final = "lifted"
# How long it stays to be seen, also by workers for which Redis is away just now.
SEEN_WITHIN_MS: Final = 10 * 60_000
_ACCOUNT: Final = re.compile(r"fleet:\{[^}]+\}:account:[0-9a-f]+")
_VALUE: Final = re.compile(r"(\d{1,18}):(\d{1,9}):(?:([^|]*)\|)?(.*)", re.DOTALL)
_EXCHANGE: Final = re.compile(r"fleet:\{[^}]+\}")
_CORRECTION: Final = re.compile(rb"-?\d{1,18}")


class Pause(Struct, frozen=True):
    """One pause.

    Args:
        place: the exchange, and the address or account at it: the prefix of its budget's keys.
        bucket: the bucket that is paused; empty where all calls are.
        left_s: how long it still lasts.
        doublings: how often it was doubled, as the exchange refused again.
        source: where its length is from: a header, the text of an answer, our backoff.
        reason: what the exchange answered, shortened.
    """

    place: str
    bucket: str
    left_s: float
    doublings: int
    source: str
    reason: str

    @property
    def exchange(self) -> str:
        """Whose budgets they are."""
        return self.place.partition("{")[2].partition("}")[0]

    @property
    def key(self) -> str:
        """Its key in Redis."""
        return f"{self.place}:{self.bucket}:pause" if self.bucket else f"{self.place}:pause"


async def held(client: redis.asyncio.Redis, exchange: str = "*") -> list[Pause]:
    """All pauses at the moment, of one exchange or of all, the longest first.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    any_client: Any = client
    prefix = f"fleet:{{{exchange}}}:"
    epochs = [key async for key in any_client.scan_iter(match=f"{prefix}*:epoch", count=1000)]
    addresses = [key.decode(errors="replace").removesuffix(":epoch") for key in epochs]
    pauses: list[Pause] = []
    async for found in any_client.scan_iter(match=f"{prefix}*:pause", count=1000):
        key = found.decode(errors="replace")  # anyone may have written it
        value = _VALUE.fullmatch((await any_client.get(found) or b"").decode(errors="replace"))
        if value and _EXCHANGE.match(key) and (left_us := int(value[1]) - await _now_us(client, key)) > 0:
            place, bucket = _split(key.removesuffix(":pause"), addresses)
            pauses.append(Pause(place, bucket, left_us / 1e6, int(value[2]), value[3] or "", value[4]))
    return sorted(pauses, key=lambda pause: -pause.left_s)


async def lift(client: redis.asyncio.Redis, exchange: str) -> list[Pause]:
    """Ends all pauses of an exchange now, and returns them.

    Budgets then start with half of what they hold, as after every pause, and the next refusal pauses for longer.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    any_client: Any = client
    pauses = await held(client, exchange)
    # A worker looks only at its place's own pause, so that one is ended also where only a bucket was paused.
    ended = {f"{pause.place}:pause": 0 for pause in pauses} | {pause.key: pause.doublings for pause in pauses}
    for key, doublings in ended.items():
        await any_client.set(key, f"{await _now_us(client, key)}:{doublings}:{LIFTED}", px=SEEN_WITHIN_MS)
    return pauses


def _split(name: str, addresses: list[str]) -> tuple[str, str]:
    """The place and the bucket of a key: both may contain colons, so the known places are needed to divide it."""
    if account := _ACCOUNT.match(name):
        return account[0], name[account.end() + 1 :]
    place = max((each for each in addresses if f"{name}:".startswith(f"{each}:")), key=len, default=name)
    return place, name[len(place) + 1 :]


async def _now_us(client: redis.asyncio.Redis, key: str) -> int:
    """The time for a key's budget: Redis's clock, corrected by how far it was set since (`clock.lua`)."""
    any_client: Any = client
    exchange = _EXCHANGE.match(key)
    assert exchange is not None
    now_us = await store.time_us(client, key)
    correction_us = _CORRECTION.match(await any_client.get(f"{exchange[0]}:set") or b"0")
    return now_us + int(correction_us[0] if correction_us else 0)
