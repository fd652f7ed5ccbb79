"""Budgets while Redis is away: each worker goes on with its share, and all of them together never pass a limit.

First the real script and the real `Budget` against a model of everything that can go wrong between them, in a time
that the test moves: lines cut one by one, commands that arrive late or whose answers are lost, a Redis that forgets,
workers that come, leave and die. Then real losses of a real Redis.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from redis.exceptions import ConnectionError as Lost

from deploy.servers import Redis
from schemas.runtime.store import connect
from schemas.runtime.tasks import end_tasks
from tests.support.fleet import Stand, wait_until
from tests.support.tcp_proxy import Proxy
from workers.budget.budget import Budget, Grant, Refusal
from workers.budget.ledger import Ledger
from workers.budget.membership import BEAT_EVERY_S, Membership
from workers.budget.rules import PARTS
from workers.budget.script import Library
from workers.limits.costs import Bucket, Charge, Kind

NOW_KEY = "test:now"
TEST_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}')) end\n"
# Redis drops keys by its own clock: far enough ahead that it drops none, the test drops them by the test's clock.
START_US = 4_000_000_000_000_000
TICK_US = 100_000
MARGIN_MS = 50.0


class Line:
    """One worker's way to Redis."""

    def __init__(self, net: "Net") -> None:
        self.net = net
        self.state = "good"

    async def info(self, section: str) -> Any:
        if self.state != "good":
            raise Lost
        return await self.net.client.info(section)

    async def fcall(self, *command: Any) -> Any:
        if self.state == "cut":
            raise Lost
        if self.state == "late":
            self.net.late.append(command)
            raise Lost
        await self.net.pass_time(self.net.chance.choice([0, 0, 500, 30_000]))
        answer = await self.net.client.fcall(*command)
        await self.net.pass_time(self.net.chance.choice([0, 0, 500, 30_000]))
        if self.state == "deaf":
            raise Lost
        return answer


@dataclass
class Net:
    """Redis, its clock, and what is still on its way to it."""

    client: Any
    chance: random.Random
    now_us: int = START_US
    set_by_us: int = 0  # how far Redis's clock was set
    unseen: bool = False  # it was set, and nobody can have noticed
    late: list[Any] = field(default_factory=list[Any])

    async def pass_time(self, us: int) -> None:
        if us:
            self.now_us += us
            await self.show()

    async def show(self) -> None:
        """What Redis's clock shows now."""
        await self.client.set(NOW_KEY, self.now_us + self.set_by_us)

    async def true_us(self, at_us: int) -> int:
        """When an instant of the corrected clock is."""
        found: Any = await self.client.get("fleet:{x}:set")
        return at_us - self.set_by_us - (int(found.split(b":")[0]) if found else 0)

    async def expire(self) -> None:
        async for key in self.client.scan_iter("fleet:*"):
            at_ms = await self.client.pexpiretime(key)
            assert at_ms > 0, f"{key!r} stays for ever"
            if START_US <= at_ms * 1000 <= self.now_us + self.set_by_us:
                await self.client.delete(key)


class Simulated:
    """A worker with a clock of its own, which runs a little fast or slow."""

    def __init__(self, net: Net) -> None:
        self.line = Line(net)
        self.net = net
        self.rate = 1 + net.chance.uniform(-4e-4, 4e-4)
        self.member = Membership(clock=lambda: (net.now_us - START_US) / 1e6 * self.rate + 1000)
        self.budget = Budget(Ledger(cast("Any", self.line), "x:1", clock=TEST_CLOCK, member=self.member))
        self.next_beat_us = 0

    async def ask(self, charges: list[Charge], *, max_wait_s: float, bulk: bool) -> int | None:
        """The instant that is granted."""
        answer = await self.budget.reserve(charges, max_wait_s=max_wait_s, bulk=bulk)
        if not isinstance(answer, Grant):
            return None
        if self.budget.own_part is None:
            return await self.net.true_us(answer.at_us)
        return self.net.now_us + round(answer.delay_us / self.rate)


KINDS: tuple[Kind, ...] = ("rolling", "fixed", "decaying", "paced")


@st.composite
def buckets(draw: st.DrawFn) -> list[Bucket]:
    return [
        Bucket(
            name=f"b{number}",
            kind=draw(st.sampled_from(KINDS)),
            amount=draw(st.sampled_from([1, 3, 8, 20])),
            window_s=draw(st.sampled_from([1.0, 2.0, 5.0])),
            margin_ms=MARGIN_MS,
            source="",
        )
        for number in range(draw(st.integers(1, 2)))
    ]


def most(bucket: Bucket, grants: list[tuple[int, float]]) -> float:
    """The most that any window held, as a part of the amount."""
    window = int(bucket.window_s * 1e6)
    grants = sorted(grants)
    worst = 0.0
    if bucket.kind == "fixed":
        counts: dict[int, float] = defaultdict(float)
        for at, cost in grants:
            counts[at // window] += cost
        worst = max(counts.values(), default=0.0)
    elif bucket.kind == "rolling":
        for start, _ in grants:
            worst = max(worst, sum(cost for at, cost in grants if start <= at < start + window))
    else:
        level, last = 0.0, 0
        for at, cost in grants:
            level = max(0.0, level - (at - last) * bucket.amount / window) + cost
            worst, last = max(worst, level), at
    return worst / bucket.amount


def limits(*kinds: tuple[Kind, int]) -> list[Bucket]:
    return [
        Bucket(name=f"b{number}", kind=kind, amount=amount, window_s=1.0, margin_ms=MARGIN_MS, source="")
        for number, (kind, amount) in enumerate(kinds)
    ]


@settings(
    max_examples=settings().max_examples // 7,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(chosen=limits(("rolling", 3), ("rolling", 1)), workers=2, seed=77_977)  # one dies before its call leaves
@example(chosen=limits(("decaying", 1), ("rolling", 3)), workers=1, seed=3_959)  # a clock that runs fast
@given(chosen=buckets(), workers=st.integers(1, 4), seed=st.integers(0, 2**32))
async def test_never_above_whatever_happens_to_whom(
    redis_url: str, chosen: list[Bucket], workers: int, seed: int
) -> None:
    client: Any = connect(redis_url, timeout_s=5)
    try:
        dead = set[str]()
        with patch("workers.budget.membership._is_dead", dead.__contains__):
            await play(client, chosen, workers, random.Random(seed), dead)
    finally:
        await client.aclose()


@settings(
    max_examples=settings().max_examples // 7,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chosen=buckets(), workers=st.integers(1, 4), seed=st.integers(0, 2**32))
async def test_never_above_however_the_clock_of_redis_is_set(
    redis_url: str, chosen: list[Bucket], workers: int, seed: int
) -> None:
    client: Any = connect(redis_url, timeout_s=5)
    steps_us = [10_000_000, -10_000_000, 500_000, -500_000]
    try:
        dead = set[str]()
        with patch("workers.budget.membership._is_dead", dead.__contains__):
            await play(client, chosen, workers, random.Random(seed), dead, steps_us)
    finally:
        await client.aclose()


async def play(
    client: Any,
    chosen: list[Bucket],
    workers: int,
    chance: random.Random,
    dead: set[str],
    set_by_us: Sequence[int] = (),
) -> None:
    """Half a minute of a fleet's life.

    Args:
        client: of the real Redis.
        chosen: the limits.
        workers: how many there are at first.
        chance: draws what happens.
        dead: the members that the others see to be dead.
        set_by_us: by what Redis's clock may be set.
    """
    await client.flushdb()
    await client.function_load(Library(TEST_CLOCK).text, replace=True)
    net = Net(client, chance)
    await net.pass_time(1)
    fleet = [Simulated(net) for _ in range(workers)]
    granted: list[tuple[Simulated, int, list[Charge]]] = []
    known = True
    # Each adds a round trip to what is not known of the exchange's clock; here that is a tenth of a window.
    steps = 2 if set_by_us else 0
    for tick in range(chance.choice([150, 300])):
        await net.pass_time(TICK_US)
        if tick % 10 == 0:
            await net.expire()
        if chance.random() < 0.06:
            states = ["good", "good", "cut", "late", "deaf"]
            state = chance.choice(states)
            for worker in fleet if chance.random() < 0.4 else [chance.choice(fleet)]:
                worker.line.state = state
        if chance.random() < 0.004 and known:
            await client.flushdb()
            await net.show()
            known = False
        if steps and chance.random() < 0.01 and not net.unseen:
            steps -= 1
            net.set_by_us += chance.choice(set_by_us)
            net.unseen = True
            await net.show()
        if chance.random() < 0.01 and len(fleet) > 1:
            worker = fleet.pop(chance.randrange(len(fleet)))
            if chance.random() < 0.5:
                await worker.budget.leave()
            elif chance.random() < 0.7:
                dead.add(worker.member.id)
                # What it was granted for later it does not send any more.
                granted = [one for one in granted if one[0] is not worker or one[1] <= net.now_us]
        if chance.random() < 0.02 and len(fleet) < 5 and known and not net.unseen:
            fleet.append(Simulated(net))
        if chance.random() < 0.1:
            # What a frozen Redis had in its sockets, run at last.
            for command in net.late:
                await client.fcall(*command)
            net.late.clear()
        for worker in fleet:
            if net.now_us >= worker.next_beat_us:
                await worker.budget.beat()
                known = known or worker.line.state == "good"
                net.unseen = net.unseen and not (worker.line.state == "good" and worker.member.count > 0)
                worker.next_beat_us = net.now_us + chance.choice([200_000, 200_000, 200_000, 1_000_000])
            for _ in range(chance.choice([0, 1, 1, 3])):
                asked = chance.sample(chosen, chance.randint(1, len(chosen)))
                charges = [Charge(one, chance.choice([1.0, 1.0, min(2.5, one.amount)]), one.name) for one in asked]
                at = await worker.ask(charges, max_wait_s=chance.choice([0, 0.2, 2, 2, 60]), bulk=chance.random() < 0.2)
                if at is not None:
                    granted.append((worker, at, charges))
    for bucket in chosen:
        spent = [(at, charge.cost) for _, at, charges in granted for charge in charges if charge.key == bucket.name]
        assert most(bucket, spent) <= 1 + 1e-9


async def test_who_are_all_back_after_long_share_all_of_it_at_once(redis_url: str) -> None:
    """A Redis that was killed has forgotten what it granted; but that has left every window meanwhile."""
    client: Any = connect(redis_url, timeout_s=5)
    await client.flushdb()
    await client.function_load(Library(TEST_CLOCK).text, replace=True)
    net = Net(client, random.Random(0))
    await net.pass_time(1)
    fleet = [Simulated(net) for _ in range(2)]
    limit = Bucket(name="b", kind="rolling", amount=20, window_s=5, margin_ms=MARGIN_MS, source="")
    calls = [Charge(limit, 1, "b")]

    async def beats(ticks: int) -> None:
        for _ in range(ticks):
            await net.pass_time(TICK_US)
            for worker in fleet:
                await worker.budget.beat()

    async def granted_at_once() -> int:
        return sum([await worker.ask(calls, max_wait_s=0, bulk=False) is not None for worker in fleet * 20])

    try:
        await beats(10)
        assert await granted_at_once() == 20
        for worker in fleet:
            worker.line.state = "cut"
        await beats(200)
        await client.flushdb()
        await client.set(NOW_KEY, net.now_us)
        fleet[0].line.state = "good"
        await beats(3)
        assert fleet[0].budget.own_part == 0.5  # the other one may have been granted something since
        fleet[1].line.state = "good"
        await beats(3)
        assert [worker.budget.own_part for worker in fleet] == [None, None]
        assert await granted_at_once() == 20
    finally:
        await client.aclose()


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
                self.sent.append((answer.due_s + time.time() - time.monotonic(), True))

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


@pytest.mark.both_stores
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_workers_go_on_with_their_shares_and_share_again(
    redis_server: Redis, redis_url: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with spenders(*[redis_url] * 3) as workers:
        lost = time.time()
        redis_server.kill() if how == "killed" else redis_server.freeze()
        used = await on_their_own(workers, lost)
        assert [worker.budget.own_part for worker in workers] == [pytest.approx(1 / 3)] * 3  # pyright: ignore[reportUnknownMemberType]
        first = min(at for worker in workers for at in worker.own)
        assert used >= 0.5
        back = time.time()
        if how == "killed":
            await redis_server.start()
        else:
            redis_server.thaw()
        await whole(workers)
        logging.info(
            "%s: first call of its own after %.1f s, %.0f %% used meanwhile, all shared %.1f s after its return",
            *(how, first - lost, used * 100, time.time() - back),
        )
    said = [
        (record.message, getattr(record, "share", None))
        for record in caplog.records
        if record.name == "workers.budget.course"
    ]
    # Each of them; a busy machine may lose Redis once more.
    assert said.count(("budget_on_its_own", 0.3333)) == said.count(("budget_shared_again", None)) >= 3


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


async def test_who_never_met_redis_sends_nothing(redis_server: Redis, redis_url: str) -> None:
    async with spenders(redis_url) as workers:
        redis_server.kill()
        async with Spender.on(redis_url) as newcomer:
            await on_their_own(workers, time.time())
            assert not newcomer.sent
            assert newcomer.budget.own_part == 0


@asynccontextmanager
async def alone(url: str) -> AsyncGenerator[Budget, None]:
    """The budget of a worker of which the test decides when it beats."""
    client = connect(url, timeout_s=0.5)
    try:
        yield Budget(Ledger(client, "x:1", member=Membership()))
    finally:
        await client.aclose()


async def test_whose_first_call_meets_the_loss_is_granted_instants_that_come(
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
        assert grant.due_s - 1.0 < grant.early_s <= grant.due_s <= time.monotonic()


async def on_its_own(budget: Budget, call: Sequence[Charge], redis_server: Redis) -> Grant:
    """Kills Redis, and returns a grant from the share that the budget then has."""
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
    """Returns a reservation when there is one within the time that the share reserves ahead."""
    async with asyncio.timeout(30):
        while isinstance(grant := await budget.reserve(ONE, max_wait_s=2.0), Refusal):
            await asyncio.sleep(0.1)
    return grant


ONE = [Charge(replace(LIMIT, amount=1.0, window_s=1.0), 1.0, "one")]


async def test_a_late_call_of_its_own_holds_its_share_up_and_redis_hears_of_it(
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
    """Redis has forgotten who there was; those that come back have not. Again and again, as parts must not dwindle."""
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
