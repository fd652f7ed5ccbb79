"""Buckets and charges for tests of budgets on a real Redis, and the clock that a test moves."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from schemas.runtime.store import connect
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.ledger import Ledger
from workers.limits.costs import Bucket, Charge, Kind, Scope

NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}') or 0) end\n"
MINUTE_US = 60_000_000
WINDOWS: tuple[Kind, ...] = ("fixed", "rolling")
# A minute's start, far enough ahead that Redis, by its own clock, drops nothing.
START_US = 4_000_000_000_000_000 // MINUTE_US * MINUTE_US


@asynccontextmanager
async def emptied(redis_url: str) -> AsyncGenerator[Any]:
    """A client of this Redis, emptied; no key may be left in it for ever."""
    client: Any = connect(redis_url, timeout_s=5)
    await client.flushdb()
    try:
        yield client
    finally:
        async for key in client.scan_iter("fleet:*"):
            assert await client.pttl(key) != -1, f"{key!r} stays for ever"  # -2: it is gone by now
        await client.aclose()


def bucket(
    amount: float, window_s: float, *, kind: Kind = "rolling", scope: Scope = "egress", margin_ms: float = 0
) -> Bucket:
    return Bucket(name="b", amount=amount, window_s=window_s, kind=kind, scope=scope, margin_ms=margin_ms, source="")


def charge(bucket: Bucket, cost: float = 1.0, key: str = "b") -> Charge:
    return Charge(bucket, cost, key)


async def grants(budget: Budget, charges: list[Charge], *, bulk: bool = False, at_most: int = 1000) -> int:
    """How many calls are granted at once."""
    for count in range(at_most):
        if isinstance(await budget.reserve(charges, max_wait_s=0, bulk=bulk), Refusal):
            return count
    return at_most


class Told:
    """A bucket on a clock of the test's own, and an exchange that tells what it has counted of it."""

    def __init__(self, client: Any, limit: Bucket) -> None:
        self.client = client
        self.budget = Budget(Ledger(client, "x:1", clock=TEST_CLOCK))
        self.calls = [charge(limit)]

    async def at(self, now_us: int) -> None:
        await self.client.set(NOW_KEY, now_us)

    async def call(self) -> Grant:
        answer = await self.budget.reserve(self.calls, max_wait_s=0)
        assert isinstance(answer, Grant)
        return answer

    async def counted(self, grant: Grant, used: float, *, late_us: float = 0) -> None:
        window_s = self.calls[0].bucket.window_s
        await self.budget.observe(self.calls[0], grant.ranks[0], grant, used, late_us=late_us, span_s=window_s)

    async def left(self) -> int:
        return await grants(self.budget, self.calls)
