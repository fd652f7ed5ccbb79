"""A RabbitMQ of three nodes that loses one: no request is lost, and clients of that node go to another."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.cluster import Cluster
from deploy.local import Services, simulated
from deploy.simulator.process import Simulator
from schemas import topology
from schemas.config import BrokerConfig
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery
from tests.conftest import LOGS
from tests.faults.load import Load
from tests.integration.test_reply_addresses import Direct
from tests.support.fleet import QUICK, Client, opened, wait_until
from tests.support.tcp_proxy import Proxy

# Beside others a cluster on two CPUs is too slow in choosing a leader.
pytestmark = pytest.mark.alone
# Nodes give a frozen one up after a minute, as is RabbitMQ's default: long after our tests want to be through.
PATIENT = ("cluster_partition_handling = pause_minority", "net_ticktime = 60")
REQUESTS = 150
# When the leader dies, with more still to be sent.
BEFORE = 25
# So many are answered while it is dead. RabbitMQ before 3.12.5 may keep what waits in a delay room until it is back.
MEANWHILE = 100
# Requests of one client that are under way when its node dies.
PENDING = 150


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    pytestconfig.stash[LOGS].append(folder)
    async with Cluster(folder, PATIENT) as cluster:
        yield cluster


async def all_moved(fleet: Services) -> bool:
    services = [(await service.status())["process"] for service in (*fleet.dispatchers, *fleet.workers)]
    return all(process["connected"] for process in services) and any(process["connects"] > 1 for process in services)


async def test_a_killed_leader_loses_no_request_and_services_go_to_the_other_nodes(
    cluster: Cluster, redis_url: str, tmp_path: Path
) -> None:
    url = ",".join(cluster.urls)
    async with Simulator() as simulator:
        config = {**simulated(simulator.urls), **QUICK}
        async with Services(tmp_path, config, broker_url=url, redis_url=redis_url) as fleet:
            await opened(fleet)
            queues = await cluster.replicas()
            assert all(len(queue.members) == len(queue.online) == 3 for queue in queues.values())
            # Its leader is the node to which the declaring service is connected: losing one loses the other too.
            leader = cluster.named(queues[topology.REQUESTS].leader)
            async with Load.on(url, fleet.lanes) as load:
                running = asyncio.create_task(load.run(REQUESTS))
                await load.answered(BEFORE)
                leader.kill()
                await load.answered(MEANWHILE)
                await wait_until(partial(all_moved, fleet), "all are connected, some of them anew")
                await leader.start()
                await running
                assert not load.errors, load.errors[:3]
    assert [service.exit_code for service in (*fleet.dispatchers, *fleet.workers)] == [0, 0, 0]


async def test_a_client_whose_node_dies_harms_no_other(whole: Cluster, redis_url: str, tmp_path: Path) -> None:
    """It waits for many answers by direct reply-to. RabbitMQ 3 closes the connection over each that comes then."""
    leader = await whole.leader(topology.REQUESTS)
    dies = next(node for node in whole.nodes if node is not leader)
    urls = [node.url for node in whole.nodes if node is not dies]
    async with Simulator() as simulator:
        config = {**simulated(simulator.urls), **QUICK}
        async with (
            Services(tmp_path, config, broker_url=",".join(urls), redis_url=redis_url) as fleet,
            Client.on(urls[0]) as other,
        ):
            await opened(fleet)
            before = [
                (await service.status())["process"]["connects"] for service in (*fleet.dispatchers, *fleet.workers)
            ]
            await simulator.fault("binance", latency_ms=1_200)
            async with (
                Direct.on(dies.url) as client,
                Load.on(",".join(urls), ["okx", "htx", "kraken"], per_s=20) as load,
            ):
                await asyncio.gather(
                    *(client.send(id=f"gone-{number}", exchanges=["binance"]) for number in range(PENDING))
                )

                async def pending() -> bool:
                    seen = [await worker.metrics() for worker in fleet.workers]
                    return sum(each.get(("fleet_attempts_in_flight", "binance"), 0) for each in seen) >= PENDING / 2

                await wait_until(pending, "its requests are under way")
                running = asyncio.create_task(load.run(REQUESTS, exchanges=["okx", "htx", "kraken"]))
                dies.kill()
                await running
                assert not load.errors, load.errors[:3]
                if not dies.version.startswith("4."):
                    await wait_until(
                        lambda: any("gone" in name for name in other.answers), "a result among the results"
                    )
            after = [
                (await service.status())["process"]["connects"] for service in (*fleet.dispatchers, *fleet.workers)
            ]
            assert after == before
            logs = [service.log.read_text(encoding="utf-8") for service in fleet.workers]
            assert all(log.count("direct_reply_closed_connection") <= 1 for log in logs)


@asynccontextmanager
async def connected(url: str, **changes: float) -> AsyncGenerator[Broker, None]:
    broker = Broker(BrokerConfig(urls=(url,), timeout_s=3.0, **changes), "test", [])  # type: ignore[arg-type]
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


@pytest.fixture
async def whole(cluster: Cluster) -> Cluster:
    """The cluster with all its nodes, and the fleet's queues."""
    for node in cluster.nodes:
        node.thaw()
    await cluster.start()
    async with connected(cluster.urls[0]):
        pass
    await wait_until(cluster.whole, "every queue is on every node", timeout_s=60, every_s=0.5)
    return cluster


async def test_while_a_node_is_frozen_publishes_are_confirmed_and_lost_connections_come_back(
    whole: Cluster,
) -> None:
    came: list[bytes] = []

    async def take(delivery: Delivery) -> None:
        came.append(delivery.body)
        await delivery.ack()

    frozen = await whole.leader(topology.RETURNED)
    stays, other = (node for node in whole.nodes if node is not frozen)
    async with Proxy.before(other.port) as proxy:
        through = other.url.replace(f":{other.port}/", f":{proxy.port}/")
        async with connected(stays.url) as calm, connected(through) as torn:
            await calm.subscribe(topology.RETURNED, take, prefetch=100)
            await calm.publish(b"before", topology.RETURNED)
            frozen.freeze()
            publishing = [asyncio.create_task(calm.publish(b"%d" % number, topology.RETURNED)) for number in range(50)]
            proxy.cut()
            await wait_until(lambda: not torn.connected, "the connection is lost")
            # RabbitMQ gives a silent node up after a minute (net_ticktime), and changes no binding before.
            await wait_until(lambda: torn.connected, "the connection is back")
            await asyncio.gather(*publishing)
            await wait_until(lambda: len(came) > 50, "all messages")
            assert sorted(came) == sorted([b"before", *(b"%d" % number for number in range(50))])
            assert (calm.connects, torn.connects) == (1, 2)
            frozen.thaw()


async def test_a_queue_that_had_no_leader_takes_messages_when_it_has_one(whole: Cluster) -> None:
    leader = await whole.leader(topology.RETURNED)
    stays, frozen = (node for node in whole.nodes if node is not leader)
    async with connected(stays.url, patience_s=20.0) as broker:
        frozen.freeze()  # no majority, so no election
        leader.kill()
        publishing = asyncio.create_task(broker.publish(b"early", topology.RETURNED))
        _, waits = await asyncio.wait({publishing}, timeout=1)
        assert waits
        frozen.thaw()
        await publishing
        assert not leader.running
