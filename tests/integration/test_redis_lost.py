"""A real Redis is lost: workers go on with their shares, pass no limit together, and share again."""

import asyncio
import contextlib
import logging
import multiprocessing
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from deploy.servers import Redis
from schemas.runtime.clock import clock_s
from schemas.runtime.store import connect
from tests.support.fleet import Stand, wait_until
from tests.support.spenders import CALL, LIMIT, Spender, on_their_own, spenders, whole
from tests.support.stores import STORES
from tests.support.tcp_proxy import Proxy
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.ledger import Ledger
from workers.budget.membership import BEAT_EVERY_S, Membership
from workers.budget.rules import PARTS
from workers.limits.costs import Charge


@pytest.mark.parametrize("store", STORES)
async def test_workers_go_on_with_their_shares_and_share_again(
    tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One server is killed and one is frozen, at the same time: most of it is waiting."""
    caplog.set_level(logging.INFO)

    async def lose(how: str) -> None:
        async with Redis(tmp_path / how, STORES[store]) as server, spenders(*[server.url] * 3) as workers:
            lost = time.time()
            server.kill() if how == "killed" else server.freeze()
            used = await on_their_own(workers, lost)
            assert [worker.budget.own_part for worker in workers] == [pytest.approx(1 / 3)] * 3, how  # pyright: ignore[reportUnknownMemberType]
            first = min(at for worker in workers for at in worker.own)
            assert used >= 0.5, how
            back = time.time()
            if how == "killed":
                await server.start()
            else:
                server.thaw()
            await whole(workers)
            logging.info(
                "%s: first call of its own after %.1f s, %.0f %% used meanwhile, all shared %.1f s after its return",
                *(how, first - lost, used * 100, time.time() - back),
            )

    async with asyncio.TaskGroup() as group:
        for how in ("killed", "frozen"):
            group.create_task(lose(how))
    said = [
        (record.message, getattr(record, "share", None))
        for record in caplog.records
        if record.name == "workers.budget.course"
    ]
    # Each of them; a busy machine may lose Redis once more, and not be back when this ends.
    assert said.count(("budget_on_its_own", 0.3333)) >= 6
    assert said.count(("budget_shared_again", None)) >= 6


async def test_one_that_is_cut_off_has_its_share_and_the_others_the_rest(redis_server: Redis, redis_url: str) -> None:
    async with (
        Proxy.before(redis_server.port) as proxy,
        spenders(redis_url, redis_url, f"redis://127.0.0.1:{proxy.port}/0") as workers,
    ):
        lost = time.time()
        proxy.freeze()
        assert await on_their_own(workers[2:], lost) >= 0.5 / 3
        assert workers[0].budget.own_part is None
        assert not workers[0].own
        # What was held back arrives at last, and changes nothing.
        proxy.thaw()
        await whole(workers)


async def test_a_worker_that_never_reached_redis_sends_nothing(redis_server: Redis, redis_url: str) -> None:
    async with spenders(redis_url) as workers:
        redis_server.kill()
        async with Spender.on(redis_url) as newcomer:
            await on_their_own(workers, time.time())
            assert not newcomer.sent
            assert newcomer.budget.own_part == 0


@asynccontextmanager
async def alone(url: str) -> AsyncGenerator[Budget, None]:
    """The budget of a worker that beats when the test says so."""
    client = connect(url, timeout_s=0.5)
    try:
        yield Budget(Ledger(client, "x:1", member=Membership()))
    finally:
        await client.aclose()


async def test_a_share_that_began_with_a_loss_grants_instants_that_are_ahead(
    redis_server: Redis, redis_url: str
) -> None:
    async with alone(redis_url) as budget:
        await budget.beat()
        await budget.beat()
        redis_server.kill()
        # Its long window keeps the share in use for a while after Redis is back.
        slow = [Charge(replace(LIMIT, name="slow", window_s=20.0), 1.0, "slow")]
        assert isinstance(await budget.reserve(slow, max_wait_s=1.0), Refusal)
        await redis_server.start()
        async with asyncio.timeout(60):
            while isinstance(grant := await budget.acquire(CALL, max_wait_s=1.0), Refusal):
                await budget.beat()
                await budget.reserve(slow, max_wait_s=1.0)
        assert budget.own_part == 1
        assert grant.due_s - 1.0 < grant.early_s <= grant.due_s <= clock_s()


async def on_its_own(budget: Budget, call: Sequence[Charge], redis_server: Redis) -> Grant:
    """Kills Redis, and returns a grant from the share that the budget then has."""
    await budget.beat()
    await budget.reserve(call, max_wait_s=0)  # Redis keeps a part for windows that it has seen
    await budget.beat()
    await budget.beat()
    redis_server.kill()
    async with asyncio.timeout(60):
        while isinstance(grant := await budget.acquire(call, max_wait_s=1.0), Refusal):
            await budget.beat()
    assert grant.own
    return grant


async def soon(budget: Budget) -> Grant:
    """Returns a reservation as soon as there is one within the time that a share reserves ahead."""
    async with asyncio.timeout(30):
        while isinstance(grant := await budget.reserve(ONE, max_wait_s=2.0), Refusal):
            await asyncio.sleep(0.1)
    return grant


ONE = [Charge(replace(LIMIT, amount=1.0, window_s=1.0), 1.0, "one")]


async def test_a_late_call_of_a_share_delays_that_share_and_is_reported_to_redis(
    redis_server: Redis, redis_url: str
) -> None:
    async with alone(redis_url) as budget:
        first = await on_its_own(budget, ONE, redis_server)
        await budget.arrived(ONE, first, 600_000)
        second = await soon(budget)
        assert second.at_us >= first.at_us + 1_600_000
        looked_at = await budget.again(ONE, second, max_wait_s=1.0)
        assert isinstance(looked_at, Grant)
        assert (looked_at.at_us, looked_at.sure) == (second.at_us, True)
        # Of this one nothing is heard.
        third = await soon(budget)
        assert isinstance(await budget.again(ONE, third, max_wait_s=1.0), Refusal)
        await redis_server.start()
        async with asyncio.timeout(60):
            while budget.own_part is not None:
                await budget.beat()
        late_us = 20_000_000
        await budget.arrived(ONE, second, late_us)
        refusal = await budget.reserve(ONE, max_wait_s=0)
        assert isinstance(refusal, Refusal)
        assert refusal.earliest_ms >= (second.at_us + late_us) / 1000 + 1_000


def _follow(url: str) -> None:
    async def follow() -> None:
        client = connect(url, timeout_s=0.5)
        await Budget(Ledger(client, "x:1", member=Membership())).follow(BEAT_EVERY_S)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(follow())


async def test_the_part_of_one_that_died_or_left_goes_to_the_others(redis_url: str) -> None:
    async with Spender.on(redis_url) as worker:
        other = multiprocessing.get_context("spawn").Process(target=_follow, args=(redis_url,))
        other.start()
        try:
            await wait_until(lambda: worker.member.part == PARTS // 2, "the other one has its part")
        finally:
            other.kill()
            await asyncio.to_thread(other.join)
        await wait_until(lambda: worker.member.part == PARTS, "its part is given back")
        async with Spender.on(redis_url):
            await wait_until(lambda: worker.member.part == PARTS // 2, "another one has come")
        await wait_until(lambda: worker.member.part == PARTS, "it has left")


async def test_the_part_of_one_that_died_while_redis_was_away_goes_to_the_others_too(
    redis_server: Redis, redis_url: str
) -> None:
    """Redis has forgotten the workers; those that come back name them. It is repeated, as parts must not dwindle."""
    async with Spender.on(redis_url) as worker:
        for _ in range(2):
            other = multiprocessing.get_context("spawn").Process(target=_follow, args=(redis_url,))
            other.start()
            try:
                await wait_until(lambda: worker.member.part == PARTS // 2, "the other one has its part")
                redis_server.kill()
            finally:
                other.kill()
                await asyncio.to_thread(other.join)
            await redis_server.start()
            await wait_until(lambda: worker.member.part == PARTS, "its part is given back")


async def test_a_fleet_answers_while_redis_is_away_and_says_so(stand: Stand) -> None:
    async def shared() -> float:
        return await stand.metric(stand.fleet.workers, "fleet_budget_shared", "okx")

    def said(event: str) -> bool:
        return all(event in worker.log.read_text(encoding="utf-8") for worker in stand.fleet.workers)

    def unknown() -> Counter[tuple[str, str]]:
        logs = {worker.name: worker.log.read_text(encoding="utf-8") for worker in stand.fleet.workers}
        return Counter(
            (name, lane) for name, text in logs.items() for lane in re.findall(r" budget_unknown lane=(\S+)", text)
        )

    async def ask() -> bool:
        answer = await stand.client.ask(
            "fetch_order_book", {"symbol": "BTC/USDT"}, exchanges=["okx"], deadline_ms=int(time.time() * 1000) + 3000
        )
        return answer.result.ok

    async def all_share() -> bool:
        return await shared() == len(stand.fleet.workers)

    await wait_until(lambda: said("lane_open"), "lanes are open")
    assert await ask()
    await wait_until(all_share, "all share the budget: a test before this one may have taken Redis away")
    before = unknown()
    stand.redis.freeze()
    await wait_until(lambda: said("budget_on_its_own"), "the logs say it")
    await wait_until(ask, "an answer from a worker's share", timeout_s=60)
    assert await shared() == 0
    assert max((unknown() - before).values()) == 1  # of each lane, not with each report
    stand.redis.thaw()
    await wait_until(all_share, "all share the budget again")
    assert said("budget_shared_again")
    assert await ask()
