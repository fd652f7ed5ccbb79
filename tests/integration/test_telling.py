"""Dispatchers tell each other through Redis what they do to lines, and go by their own while it is away."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio as redis_client

from deploy.local import Services, simulated
from deploy.redis_servers import RedisCluster
from deploy.servers import Redis
from deploy.simulator.process import Simulator
from dispatcher import telling
from dispatcher.telling import CHANNEL, Telling
from dispatcher.told import SILENT_S, Change, Told
from schemas.messages import Bound, encode
from schemas.runtime import store
from schemas.runtime.results import now_ms
from schemas.runtime.standstill import Standstills
from schemas.runtime.tasks import SideTasks, end_tasks
from tests.support.fleet import QUICK, Client, opened, wait_until

ROOM = Change("all", "room", 100.0, bound=Bound("all", 5_000, 100.0), of_kind="fetch_ticker")
BOOK = Change("all", "book", 100.0, "anna")

HEARD = ("fleet_dispatchers_heard",)

Heard = list[tuple[str, Change]]


@pytest.fixture(params=[Redis, RedisCluster])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Redis | RedisCluster]:
    async with request.param(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def two(server: Redis | RedisCluster) -> AsyncIterator[list[tuple[Telling, Heard]]]:
    """Yield two dispatchers' parts, and what each heard."""
    async with AsyncExitStack() as stack:
        found: list[tuple[Telling, Heard]] = []
        tasks = await stack.enter_async_context(SideTasks())
        stills = Standstills()
        stack.push_async_callback(end_tasks, [tasks.create_task(stills.run())])
        for name in ("a", "b"):
            client = store.connect(server.url, timeout_s=0.5)
            stack.push_async_callback(client.aclose)
            heard: Heard = []

            def take(changes: Sequence[tuple[str, Change]], heard: Heard = heard) -> None:
                heard.extend(changes)

            part = Telling(client, name, take, stills.awake_s)
            running = [tasks.create_task(job()) for job in (part.tell, part.hear)]
            stack.push_async_callback(end_tasks, running)
            found.append((part, heard))
        yield found


def know_each_other(two: list[tuple[Telling, Heard]]) -> bool:
    return [part.others(2) for part, _ in two] == [1, 1]


async def test_each_hears_what_the_other_does_and_not_itself(two: list[tuple[Telling, Heard]]) -> None:
    (first, heard_by_first), (second, heard_by_second) = two
    await wait_until(lambda: know_each_other(two), "they know each other")
    first.note("okx", ROOM)
    first.note("okx", BOOK)
    second.note("kraken", BOOK)
    await wait_until(lambda: heard_by_first and len(heard_by_second) == 2, "all is heard")
    assert heard_by_first == [("kraken", BOOK)]
    assert heard_by_second == [("okx", ROOM), ("okx", BOOK)]


async def test_one_that_stood_still_knows_the_others_yet(two: list[tuple[Telling, Heard]]) -> None:
    await wait_until(lambda: know_each_other(two), "they know each other")
    time.sleep(SILENT_S + 0.5)  # noqa: ASYNC251  (what the others told lies unread)
    assert know_each_other(two)
    two[1][0].note("okx", ROOM)
    await wait_until(lambda: two[0][1], "what is told later is heard, too")


async def test_one_alone_tells_nothing(two: list[tuple[Telling, Heard]]) -> None:
    (first, _), (second, heard) = two
    assert first.others(1) == 0
    first.note("okx", BOOK)
    await wait_until(lambda: second.others(2) == 0 and not first._changes, "it was dropped")  # pyright: ignore[reportPrivateUsage]
    assert heard == []


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_they_find_each_other_again_when_redis_is_back(
    two: list[tuple[Telling, Heard]], server: Redis | RedisCluster, how: str
) -> None:
    await wait_until(lambda: know_each_other(two), "they know each other")
    nodes = server.nodes if isinstance(server, RedisCluster) else [server]
    for node in nodes:
        node.kill() if how == "killed" else node.freeze()
    await wait_until(lambda: [part.others(2) for part, _ in two] == [0, 0], "each is alone")
    for _ in range(3):
        two[0][0].note("okx", BOOK)  # nobody hears it
    for node in nodes:
        node.thaw()
        await node.start()
    await wait_until(lambda: know_each_other(two), "they know each other again", timeout_s=60)
    two[1][1].clear()

    def heard() -> bool:
        two[0][0].note("okx", ROOM)  # again each time: Redis may lose one, as long as it is not at rest
        return ("okx", ROOM) in two[1][1]

    await wait_until(heard, "it is heard")


async def test_what_cannot_be_read_is_passed_over(
    two: list[tuple[Telling, Heard]], server: Redis | RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    await wait_until(lambda: know_each_other(two), "they know each other")
    url = (server.nodes[0] if isinstance(server, RedisCluster) else server).url
    async with redis_client.from_url(url) as client:
        for body in (b"", b"\xff", b"\x90", encode(Told("c", [("okx", BOOK)]))[:-3]):
            await client.publish(CHANNEL, body)
        await client.publish(CHANNEL, encode(Told("c", [("mtgox", BOOK)])))
    await wait_until(lambda: all(("mtgox", BOOK) in heard for _, heard in two), "what comes after it is heard")
    assert [each.message for each in caplog.records].count("lines_unreadable") == 8


async def test_what_nobody_hears_is_not_kept_for_ever(
    two: list[tuple[Telling, Heard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "KEPT", 5)
    await wait_until(lambda: know_each_other(two), "they know each other")
    (first, _), (_, heard) = two
    for number in range(50):
        first.note("okx", Change("all", "book", float(number)))
    await wait_until(lambda: len(heard) == 5, "the last ones are heard")
    assert [change.step_ms for _, change in heard] == [45.0, 46.0, 47.0, 48.0, 49.0]


async def test_the_dispatchers_of_a_fleet_know_of_each_other(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with Simulator(exchanges=["okx"]) as simulator:
        config = {**simulated(simulator.urls), **QUICK}
        async with (
            Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, dispatchers=2, workers=1) as fleet,
            Client.on(vhost) as client,
        ):
            await opened(fleet)

            async def heard() -> bool:
                return [(await each.metrics()).get(HEARD) for each in fleet.dispatchers] == [1, 1]

            await wait_until(heard, "each hears the other")
            until_ms = now_ms() + 20_000
            sent = [
                await client.send({"method": "fetch_time", "exchanges": ["okx"], "deadline_ms": until_ms})
                for _ in range(300)
            ]
            answers = [await client.answer(each) for each in sent]
            ends = {answer.code for answer in answers}
            assert ends <= {None, "deadline_exceeded"}
            assert sum(answer.result.ok for answer in answers) > 80
            assert not (await simulator.counters())["violations"]
            assert "lines_unreadable" not in fleet.dispatchers[0].log.read_text(encoding="utf-8")
            await fleet.dispatchers[1].stop(grace_s=20)

            async def alone() -> bool:
                return (await fleet.dispatchers[0].metrics()).get(HEARD) == 0

            await wait_until(alone, "it is alone")
