"""Redis fails over under a load above what exchanges allow: every request is answered, and no limit is broken."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deploy.local import Services, simulated
from deploy.redis_servers import RedisCluster, RedisReplicated
from deploy.simulator.process import Simulator
from schemas.runtime.shards import slot_of
from tests.faults.load import Load
from tests.support.fleet import QUICK, opened, wait_until

# Beside others on two CPUs the load would wait for the machine, and not for the limits.
pytestmark = pytest.mark.alone
PER_S = 40
# What is asked of each exchange, of forty requests: more than OKX and HTX allow (10 a second).
ASKED = ["okx"] * 12 + ["htx"] * 12 + ["binance"] * 14 + ["coinbase", "kraken"]
BEFORE, AFTER = 200, 400


def asked(number: int) -> dict[str, Any]:
    """One request of the load: neighbours are of different exchanges."""
    return {"exchanges": [ASKED[number * 7 % len(ASKED)]]}


async def fail_over(servers: RedisCluster | RedisReplicated) -> None:
    """Kills the server that has OKX's budgets, and returns when another has them."""
    if isinstance(servers, RedisReplicated):
        servers.primary.kill()
        await wait_until(servers.promoted, "the replica is primary", timeout_s=60)
        return
    slot = slot_of("fleet:{okx}:default:epoch")
    lost = await servers.primary(slot)
    lost.kill()

    async def elsewhere() -> bool:
        return await servers.primary(slot) is not lost

    await wait_until(elsewhere, "another node serves the slot", timeout_s=60)


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_a_fail_over_under_load_costs_no_request_and_breaks_no_limit(
    vhost: str, tmp_path: Path, kind: str
) -> None:
    servers = RedisReplicated(tmp_path / kind) if kind == "sentinel" else RedisCluster(tmp_path / kind, replicas=1)
    async with servers, Simulator() as simulator:
        config = {**simulated(simulator.urls), **QUICK}
        async with (
            Services(tmp_path, config, broker_url=vhost, redis_url=servers.url, dispatchers=2) as fleet,
            Load.on(vhost, fleet.lanes, per_s=PER_S) as load,
        ):
            await opened(fleet)
            await load.publish(BEFORE, asked)
            before = len(load.results)
            await fail_over(servers)
            await load.publish(AFTER, asked)
            await wait_until(lambda: not load.unanswered, "every request is answered", timeout_s=120, every_s=0.1)
            assert len(load.results) > before
            counters = await simulator.counters()
            assert not counters["violations"], {
                name: count["broken"] for name, count in counters["exchanges"].items() if count["broken"]
            }
            assert not load.errors, Counter(str(result.error) for result in load.errors).most_common(5)

            async def shared() -> bool:
                seen = [await worker.metrics() for worker in fleet.workers]
                return all(each.get(("fleet_budget_shared", lane)) for each in seen for lane in fleet.lanes)

            await wait_until(shared, "all workers share all budgets again", timeout_s=120)
    assert {service.exit_code for service in (*fleet.dispatchers, *fleet.workers)} == {0}
