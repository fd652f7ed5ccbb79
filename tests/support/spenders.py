"""Workers that send all they may on one bucket, on a real Redis."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from schemas.runtime.clock import clock_s
from schemas.runtime.store import connect
from schemas.runtime.tasks import end_tasks
from tests.support.fleet import wait_until
from workers.budget.budget import Budget
from workers.budget.grants import Refusal
from workers.budget.ledger import Ledger
from workers.budget.membership import BEAT_EVERY_S, Membership
from workers.budget.rules import PARTS
from workers.limits.costs import Bucket, Charge

MARGIN_MS = 50.0
WINDOW_S = 0.5
LIMIT = Bucket(name="b", kind="rolling", amount=60, window_s=WINDOW_S, margin_ms=MARGIN_MS, source="")
CALL = [Charge(LIMIT, 1.0, "b")]


@dataclass
class Spender:
    """A worker that sends all it may; `sent` are its instants on the machine's clock, and whether from its share."""

    member: Membership
    budget: Budget
    sent: list[tuple[float, bool]] = field(default_factory=list[tuple[float, bool]])

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str) -> AsyncGenerator["Spender", None]:
        """At work on this Redis until it leaves."""
        client = connect(url, timeout_s=0.5)
        member = Membership()
        spender = cls(member, Budget(Ledger(client, "x:1", member=member)))
        tasks = [asyncio.create_task(spender.budget.follow(BEAT_EVERY_S))]
        tasks += [asyncio.create_task(spender.spend()) for _ in range(6)]
        try:
            yield spender
        finally:
            await end_tasks(tasks)
            await spender.budget.leave()
            await client.aclose()

    async def spend(self) -> None:
        """Asks again and again."""
        while True:
            answer = await self.budget.acquire(CALL, max_wait_s=0.3)
            if isinstance(answer, Refusal):
                await asyncio.sleep(0.02)
                continue
            self.budget.tell(CALL, answer, 0.0)
            if answer.ranks != (0,):  # Redis granted it
                self.sent.append((answer.at_us / 1e6, False))
            else:
                self.sent.append((answer.due_s + time.time() - clock_s(), True))

    @property
    def own(self) -> list[float]:
        """What it sent from its share."""
        return [at for at, own in self.sent if own]


@asynccontextmanager
async def spenders(*urls: str) -> AsyncGenerator[list[Spender], None]:
    """Workers that know of each other and share the whole limit; none of them passes it, together, whatever happens."""
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(Spender.on(url)) for url in urls]
        await whole(workers)
        yield workers
        sent = sorted(at for worker in workers for at, _ in worker.sent)
        last = 0
        for first, at in enumerate(sent):
            while last < len(sent) and sent[last] < at + WINDOW_S:
                last += 1
            assert last - first <= LIMIT.amount, f"{last - first} calls in the window from {at}"


async def whole(workers: list[Spender]) -> None:
    """Returns when all share the whole limit again and use most of it."""
    await wait_until(
        lambda: all(
            worker.budget.own_part is None and worker.member.part == PARTS // len(workers) for worker in workers
        ),
        "all share the whole limit",
    )
    begun = time.time()

    def used() -> bool:
        last = max((at for worker in workers for at, _ in worker.sent), default=0.0) - 3 * WINDOW_S
        if last < begun:
            return False
        return sum(last <= at for worker in workers for at, _ in worker.sent) >= 3 * LIMIT.amount * 0.7

    await wait_until(used, "most of the limit is in use")


async def on_their_own(workers: list[Spender], since: float) -> float:
    """Returns the part of the limit that these workers use by themselves, when they have done so for a while."""
    await wait_until(lambda: all(worker.own for worker in workers), "they send from their shares")
    assert all(min(worker.own) > since + WINDOW_S for worker in workers)
    begun = max(min(worker.own) for worker in workers) + WINDOW_S
    ends = begun + 6 * WINDOW_S
    await wait_until(lambda: all(max(worker.own) >= ends for worker in workers), "they go on sending from their shares")
    return sum(begun <= at < ends for worker in workers for at in worker.own) / (6 * LIMIT.amount)
