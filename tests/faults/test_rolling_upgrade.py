"""A fleet of the last version becomes one of this version, process by process, under a load above some limits.

Both versions are at work on the same queues and the same budgets meanwhile. Nothing is lost, and no limit is broken.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.local import Service, Services, simulated
from deploy.simulator.process import Simulator
from tests.faults.load import Load
from tests.support.fleet import QUICK, opened, wait_until
from tests.support.versions import checked_out, last

# Beside others on two CPUs the load would wait for the machine, and not for the limits.
pytestmark = pytest.mark.alone
PER_S = 40
# What is asked of each exchange, of forty requests: more than OKX and HTX allow (10 a second).
ASKED = ["okx"] * 12 + ["htx"] * 12 + ["binance"] * 14 + ["coinbase"] * 2
# Answers between two steps: seconds of both versions side by side.
STEP = 80


def asked(number: int) -> dict[str, Any]:
    """One request of the load: neighbours are of different exchanges."""
    return {"exchanges": [ASKED[number * 7 % len(ASKED)]]}


async def leaves(service: Service) -> None:
    """Ends it as an update does."""
    await service.stop(grace_s=30)
    assert service.exit_code == 0, service.tail()


@pytest.mark.parametrize("order", [("workers", "dispatchers"), ("dispatchers", "workers")], ids="-".join)
async def test_a_fleet_is_renewed_process_by_process(
    vhost: str, redis_url: str, tmp_path: Path, order: Sequence[str]
) -> None:
    version = last()
    before = checked_out(version, tmp_path / "last")
    async with Simulator() as simulator:
        config = {**simulated(simulator.urls), **QUICK}
        fleet = partial(Services, config=config, broker_url=vhost, redis_url=redis_url)
        async with (
            fleet(tmp_path / "old", dispatchers=2, workers=2, checkout=before) as old,
            fleet(tmp_path / "new", dispatchers=0, workers=0) as new,
            Load.on(vhost, old.lanes, per_s=PER_S) as load,
        ):
            await opened(old)

            async def renew() -> None:
                for kind in order:
                    for service in getattr(old, kind):
                        await load.answered(len(load.results) + STEP)
                        if kind == "workers":
                            new.add_worker()
                            await opened(new)
                        else:
                            await new.serves(new.add_dispatcher())
                        await load.answered(len(load.results) + STEP)
                        await leaves(service)

            renewing = asyncio.create_task(renew())
            while not renewing.done():
                await load.publish(PER_S, asked)
            await renewing
            await load.publish(PER_S, asked)
            await wait_until(lambda: not load.unanswered, "every request is answered", timeout_s=120, every_s=0.1)
            counters = await simulator.counters()
            broken = {name: count["broken"] for name, count in counters["exchanges"].items() if count["broken"]}
            assert not counters["violations"], broken
            assert not load.errors, Counter(str(result.error) for result in load.errors).most_common(5)
            assert load.duplicates == 0
            fullest = {name: max(b["peak"] for b in c["buckets"].values()) for name, c in counters["exchanges"].items()}
            assert min(fullest["okx"], fullest["htx"]) >= 0.9, fullest
