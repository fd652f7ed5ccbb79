"""Pauses as an operator sees them: which hold, and how to end them.

A pause is a key in Redis, written by `budget.lua`: ``<place>:pause`` for all of an exchange as seen from one
address or account, ``<place>:<bucket>:pause`` for one bucket of it; a place is ``fleet:{<exchange>}:<address>``, or
``fleet:{<exchange>}:account:<digest>``. Its value is ``<until, microseconds>:<doublings>:<reason>``.

Workers remember pauses too, and tell a Redis that forgot them. So a pause is not deleted but ended now, with the reason
`LIFTED`, which stays for a while. A worker that sees it for its place forgets what it remembers.
"""

import re
from typing import Any, Final

import redis.asyncio
from msgspec import Struct

LIFTED: Final = "lifted"
# So long it stays to be seen, also by workers that Redis is away for just now.
SEEN_WITHIN_MS: Final = 10 * 60_000
_ACCOUNT: Final = re.compile(r"fleet:\{[^}]+\}:account:[0-9a-f]+")
_VALUE: Final = re.compile(r"(\d+):(\d+):(.*)", re.DOTALL)
_EXCHANGE: Final = re.compile(r"fleet:\{[^}]+\}")
_CORRECTION: Final = re.compile(rb"-?\d+")


class Pause(Struct, frozen=True):
    """One pause that holds.

    Args:
        place: the exchange, and the address or account at it, as the keys of its budget begin.
        bucket: the bucket alone that is paused; empty where all is.
        left_s: how long it still holds.
        doublings: how often it was doubled, as the exchange named no time.
        reason: what the exchange answered, cut short.
    """

    place: str
    bucket: str
    left_s: float
    doublings: int
    reason: str

    @property
    def key(self) -> str:
        """Where it lies in Redis."""
        return f"{self.place}:{self.bucket}:pause" if self.bucket else f"{self.place}:pause"


async def held(client: redis.asyncio.Redis, exchange: str = "*") -> list[Pause]:
    """All pauses that hold now, of one exchange or of all, the longest first.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    any_client: Any = client
    prefix = f"fleet:{{{exchange}}}:"
    epochs = [key async for key in any_client.scan_iter(match=f"{prefix}*:epoch", count=1000)]
    addresses = [key.decode().removesuffix(":epoch") for key in epochs]
    pauses: list[Pause] = []
    async for key in any_client.scan_iter(match=f"{prefix}*:pause", count=1000):
        value = _VALUE.fullmatch((await any_client.get(key) or b"").decode(errors="replace"))
        if value and (left_us := int(value[1]) - await _now_us(client, key.decode())) > 0:
            place, bucket = _split(key.decode().removesuffix(":pause"), addresses)
            pauses.append(Pause(place, bucket, left_us / 1e6, int(value[2]), value[3]))
    return sorted(pauses, key=lambda pause: -pause.left_s)


async def lift(client: redis.asyncio.Redis, exchange: str) -> list[Pause]:
    """Ends all pauses of an exchange now, and says which they were.

    Budgets then start with half of what they hold, as after every pause, and a refusal that follows pauses for longer.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    any_client: Any = client
    pauses = await held(client, exchange)
    # A worker looks at its place's own pause, which speaks for those of the place's buckets too.
    ended = {f"{pause.place}:pause": 0 for pause in pauses} | {pause.key: pause.doublings for pause in pauses}
    for key, doublings in ended.items():
        await any_client.set(key, f"{await _now_us(client, key)}:{doublings}:{LIFTED}", px=SEEN_WITHIN_MS)
    return pauses


def _split(name: str, addresses: list[str]) -> tuple[str, str]:
    """The place and the bucket: both may hold colons, so that only the places that are known tell them apart."""
    if account := _ACCOUNT.match(name):
        return account[0], name[account.end() + 1 :]
    place = max((each for each in addresses if f"{name}:".startswith(f"{each}:")), key=len, default=name)
    return place, name[len(place) + 1 :]


async def _now_us(client: redis.asyncio.Redis, key: str) -> int:
    """The time that a key's budget goes by: Redis's, less what its clock was set meanwhile (`clock.lua`)."""
    any_client: Any = client
    exchange = _EXCHANGE.match(key)
    assert exchange is not None
    seconds, micros = await any_client.time()
    correction_us = _CORRECTION.match(await any_client.get(f"{exchange[0]}:set") or b"0")
    return int(seconds) * 1_000_000 + int(micros) + int(correction_us[0] if correction_us else 0)
