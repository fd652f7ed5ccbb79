"""Redis as several servers, real ones: a Cluster, and a primary whose replica Sentinels promote.

Whichever server is lost, workers go on with their shares meanwhile, pass no limit together, and share again.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio
import redis.exceptions

from deploy.processes import free_port
from deploy.redis_servers import SERVICE, RedisCluster, RedisReplicated
from deploy.servers import Redis
from schemas.errors import ConfigError
from schemas.runtime import answers, presence, store
from schemas.runtime.clock import clock_s
from schemas.runtime.once import Answered
from schemas.runtime.shards import Shards, slot_of
from schemas.sharing import answer_key, lease_key
from tests.support.fleet import wait_until
from tests.support.redis_faults import answering, losses
from tests.support.spenders import Spender, on_their_own, spenders, whole
from tests.support.stores import STORES

# The slot of the spenders' budget.
SLOT = slot_of("fleet:{x}:1:epoch")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisCluster]:
    """Three shards without replicas."""
    async with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: RedisCluster) -> AsyncIterator[Any]:
    async with store.connect(cluster.url, timeout_s=5) as client:
        yield client
        for _, node in await store.nodes(client):
            await node.flushall()


async def test_commands_of_every_kind_reach_the_shards_that_have_their_keys(client: Any) -> None:
    names = [f"key {number}" for number in range(50)]
    async with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.set(name, name, ex=60)
        assert await pipeline.execute() == [True] * len(names)
    assert await client.mget(names) == [name.encode() for name in names]
    assert {key.decode() async for key in client.scan_iter(match="key *")} == set(names)
    sizes = [await node.dbsize() for _, node in await store.nodes(client)]
    assert len(sizes) == 3
    assert all(sizes)
    async with client.pipeline() as pipeline:
        pipeline.hset("one", mapping={"field": "value"})
        pipeline.pexpire("one", 60_000)
        assert await pipeline.execute() == [1, True]
    lock = client.lock("one:lock", timeout=60, blocking=False, thread_local=False)
    assert await lock.acquire()
    assert await lock.reacquire()
    assert not await client.lock("one:lock", timeout=60, blocking=False, thread_local=False).acquire()
    await lock.release()
    assert abs(await store.time_us(client, "one") / 1e6 - time.time()) < 60


async def test_an_error_of_one_command_is_that_command_s_alone(client: Any) -> None:
    await client.set("text", "x")
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.hget("text", "field")
        pipeline.get("text")
        wrong, right = await pipeline.execute(raise_on_error=False)
    assert isinstance(wrong, redis.exceptions.ResponseError)
    assert right == b"x"


@pytest.mark.parametrize("transaction", [True, False], ids=["transaction", "pipeline"])
async def test_an_error_of_several_commands_is_known_by_its_code(
    cluster: RedisCluster, replicated: RedisReplicated, redis_server: Redis, transaction: bool
) -> None:
    """redis-py up to 7.0 says of it nothing but the command."""
    for url in (cluster.url, replicated.url, redis_server.url):
        async with store.connect(url, timeout_s=5) as client:
            any_client: Any = client
            await any_client.set("text", "x", ex=60)
            pipeline = any_client.pipeline(transaction=transaction)
            pipeline.get("text")
            pipeline.hget("text", "field")
            with pytest.raises(redis.exceptions.ResponseError, match=r"^WRONGTYPE") as raised:
                await pipeline.execute()
            assert store.kind_of(raised.value) == "WRONGTYPE"


async def test_answers_are_shared_on_a_cluster_and_processes_are_found(client: Any) -> None:
    kept = answers.Answers(client)
    ask = partial(
        kept.ask, owner="o", lanes=["of"], new_id="1", lasts_ms=60_000, age_us=60_000_000, bar=False, takes_over=""
    )
    for number in range(20):
        lease, key = lease_key(str(number), ["of"], bulk=False), answer_key(str(number), "of")
        assert (await ask(lease, [key])).leads
        found = answers.Answer((await kept.by_redis())(clock_s()), 0, 0, answers.pack("okx", "okx", b"\xc0"))
        await kept.keep(key, lease, "1", found, kept_ms=60_000, most_bytes=10**6)
        assert (await ask(lease, [key])).answer == found
        assert (await kept.see(lease)).answer == found
    assert await presence.read(client) == presence.Presence([], [])


async def test_a_client_that_is_closed_just_as_it_asks_for_the_map_leaves_nothing(cluster: RedisCluster) -> None:
    """Python warns of a coroutine that never began, and a warning is an error here."""
    client = store.connect(cluster.url, timeout_s=5)
    assert isinstance(client, Shards)
    client._learn_soon()  # pyright: ignore[reportPrivateUsage]
    await client.aclose()


async def test_a_connection_that_ends_at_rest_is_a_loss(redis_server: Redis, replicated: RedisReplicated) -> None:
    """Another server may be behind it by then, so budgets have to hear of it."""
    for url in (redis_server.url, replicated.url):
        async with store.connect(url, timeout_s=5) as client:
            any_client: Any = client
            port = (await any_client.info("server"))["tcp_port"]
            async with redis.asyncio.Redis(port=port) as admin:
                any_admin: Any = admin
                await any_admin.execute_command("CLIENT", "KILL", "ID", await any_client.client_id())
            with pytest.raises(redis.exceptions.ConnectionError):
                await any_client.get("a")
            assert await any_client.get("a") is None


async def test_a_slot_that_moves_is_followed_and_nothing_is_lost(cluster: RedisCluster, client: Any) -> None:
    """ASK while it moves, MOVED once it has."""
    assert isinstance(client, Shards)
    any_client: Any = client
    slot, there, new = slot_of("{moves}"), "{moves}:there", "{moves}:new"
    await any_client.set(there, "1")
    nodes = dict(await client.primaries())
    source = await client.primary_of(there)
    target = next(node for node in nodes.values() if node is not source)
    ids = [(await node.execute_command("CLUSTER", "MYID")).decode() for node in (source, target)]
    await target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    await source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    try:
        await any_client.set(new, "2")  # is not there yet: the source sends us on
        assert [await any_client.get(there), await any_client.get(new)] == [b"1", b"2"]
        assert await any_client.mget(there, new) == [b"1", b"2"]
        port = next(port for (_, port), node in nodes.items() if node is target)
        await source.execute_command("MIGRATE", "127.0.0.1", port, there, 0, 5000)
    finally:
        for node in nodes.values():
            await node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    assert [await any_client.get(there), await any_client.get(new)] == [b"1", b"2"]
    async with any_client.pipeline(transaction=False) as pipeline:
        pipeline.get(there)
        pipeline.get(new)
        assert await pipeline.execute() == [b"1", b"2"]
    assert await client.primary_of(there) is target
    assert (await cluster.primary(slot)).port == port


async def away(workers: list[Spender]) -> None:
    """Returns when all of them have lost Redis."""
    lost: set[int] = set()

    def all_lost() -> bool:
        lost.update(number for number, worker in enumerate(workers) if worker.budget.own_part is not None)
        return len(lost) == len(workers)

    await wait_until(all_lost, "all have lost Redis", every_s=0.005)


@pytest.mark.parametrize("program", STORES)
async def test_a_shard_that_fails_over_breaks_no_limit(tmp_path: Path, program: str) -> None:
    """Two clusters at the same time: most of it is waiting."""

    async def lose(how: str) -> None:
        async with (
            RedisCluster(tmp_path / how, STORES[program], replicas=1) as cluster,
            spenders(*[cluster.url] * 3) as workers,
        ):
            lost = await cluster.primary(SLOT)
            lost.kill() if how == "killed" else lost.freeze()
            await away(workers)
            # When the replica is promoted, and knows what all of them sent meanwhile.
            await whole(workers)
            if how == "killed":
                await lost.start()
            else:
                lost.thaw()  # it believes to be primary still, until it has heard of the other
            await whole(workers)
            assert (await cluster.primary(SLOT)) is not lost

    async with asyncio.TaskGroup() as group:
        for how in ("killed", "frozen"):
            group.create_task(lose(how))


async def test_a_cluster_without_a_shard_is_away(tmp_path: Path) -> None:
    """It answers CLUSTERDOWN then, also for the slots that are served."""
    async with RedisCluster(tmp_path) as cluster, spenders(cluster.url, cluster.url) as workers:
        ours = await cluster.primary(SLOT)
        other = next(node for node in cluster.nodes if node is not ours)
        before = losses("ClusterDownError")
        other.kill()
        assert await on_their_own(workers, time.time()) >= 0.5
        assert losses("ClusterDownError") > before
        await other.start()
        await whole(workers)


@pytest.mark.parametrize("program", STORES)
async def test_a_promoted_replica_breaks_no_limit(tmp_path: Path, program: str) -> None:
    """Three fleets at the same time: most of it is waiting."""

    async def lose(how: str) -> None:
        async with (
            RedisReplicated(tmp_path / how, STORES[program]) as servers,
            spenders(*[servers.url] * 3) as workers,
        ):
            if how == "killed":
                servers.primary.kill()
            elif how == "frozen":
                servers.primary.freeze()
            else:
                async with redis.asyncio.Redis(port=servers.sentinels[0].port) as sentinel:
                    any_sentinel: Any = sentinel
                    await any_sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
            await away(workers)
            await wait_until(servers.promoted, "the replica is primary", timeout_s=60)
            await whole(workers)
            if how == "killed":
                await servers.primary.start()
            else:
                servers.primary.thaw()
            await whole(workers)

    async with asyncio.TaskGroup() as group:
        for how in ("killed", "frozen", "asked"):
            group.create_task(lose(how))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://127.0.0.1:{node}/0", r"it is a cluster: redis\+cluster://"),
        ("redis://127.0.0.1:{sentinel}/0", r"it is a sentinel: redis\+sentinel://"),
        ("redis+cluster://127.0.0.1:{alone}", "it is no cluster: redis://"),
        ("redis+cluster://nobody:wr0ng@127.0.0.1:{node}", "it refuses our user or password"),
        ("redis+sentinel://127.0.0.1:{alone}/fleet", "it is no Sentinel: redis://"),
        ("redis+sentinel://127.0.0.1:{sentinel}/other", "no Sentinel knows a service other"),
        ("redis+sentinel://127.0.0.1:{sentinel}/fleet/99", "DB index is out of range"),
    ],
)
async def test_a_url_for_another_kind_of_redis_says_which_is_right(
    cluster: RedisCluster, replicated: RedisReplicated, url: str, says: str
) -> None:
    places = {"node": cluster.nodes[0].port, "alone": replicated.replica.port}
    url = url.format(**places, sentinel=replicated.sentinels[0].port)
    client = store.connect(url, timeout_s=5)
    with pytest.raises(ConfigError, match=says) as raised:
        await store.check_access(client, url, timeout_s=5)
    await client.aclose()
    assert "127.0.0.1" in str(raised.value)
    assert "wr0ng" not in str(raised.value)


async def test_what_is_away_keeps_no_service_from_starting(replicated: RedisReplicated) -> None:
    nobody = free_port()
    for url in (
        f"redis+cluster://127.0.0.1:{nobody}",
        f"redis+sentinel://127.0.0.1:{nobody}/fleet",
        f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{replicated.sentinels[2].port}/{SERVICE}",
    ):
        client = store.connect(url, timeout_s=5)
        await store.check_access(client, url, timeout_s=5)
        await client.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicated(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisReplicated]:
    async with RedisReplicated(tmp_path_factory.mktemp("replicated")) as servers:
        yield servers


async def test_sentinels_with_a_password_of_their_own(tmp_path: Path) -> None:
    async with RedisReplicated(tmp_path) as servers:
        for node, secret in ((servers.primary, "data"), *((each, "watch") for each in servers.sentinels)):
            async with redis.asyncio.Redis(port=node.port) as at:
                any_node: Any = at
                await any_node.execute_command("ACL", "SETUSER", "default", "resetpass", f">{secret}")
        url = servers.url.replace("://", "://:data@")
        for tried, works in ((f"{url}?sentinel_password=watch", True), (url, False)):
            client = store.connect(tried, timeout_s=5)
            if works:
                await store.check_access(client, tried, timeout_s=5)
                await client.set("a", "1", ex=60)
            else:
                with pytest.raises(ConfigError, match="it refuses our user or password"):
                    await store.check_access(client, tried, timeout_s=5)
            await client.aclose()


async def test_a_server_alone_that_is_a_replica_is_left_for_the_one_that_is_none(redis_server: Redis) -> None:
    """As behind one name, which leads to another server after a fail-over: READONLY ends the connection."""
    client: Any = store.connect(redis_server.url, timeout_s=5)
    async with client, redis.asyncio.Redis(port=redis_server.port) as admin:
        await client.set("a", "1", ex=60)
        before = (await client.client_id(), (await client.info("stats"))["total_connections_received"])
        await admin.replicaof("127.0.0.1", 1)
        with pytest.raises(redis.exceptions.ReadOnlyError):
            await client.set("a", "2", ex=60)
        await admin.replicaof("NO", "ONE")
        await client.set("a", "3", ex=60)
        assert await client.client_id() != before[0]


async def test_a_replica_without_its_primary_is_away_for_reads_too(redis_server: Redis) -> None:
    async with store.connect(redis_server.url, timeout_s=5) as client:
        marks, before = Answered(client), losses("MasterDownError")
        async with answering(redis_server, "MASTERDOWN"):
            assert await marks.answered(["fleet:answered:one"]) == [False]
        assert losses("MasterDownError") == before + 1


async def test_one_slow_shard_holds_up_no_other(cluster: RedisCluster) -> None:
    async with store.connect(cluster.url, timeout_s=0.5) as client:
        assert isinstance(client, Shards)
        any_client: Any = client
        keys = {place: f"k{number}" for number in range(200) if (place := await client._place(f"k{number}"))}  # pyright: ignore[reportPrivateUsage]
        frozen = cluster.nodes[0]
        slow = keys[("127.0.0.1", frozen.port)]
        frozen.freeze()
        try:
            waiting = [asyncio.create_task(any_client.get(slow)) for _ in range(50)]
            for place, key in keys.items():
                if place[1] != frozen.port:
                    assert await any_client.get(key) is None
            lost = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(each, store.AWAY) for each in lost)
        finally:
            frozen.thaw()
