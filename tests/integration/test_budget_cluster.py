"""The script on a real Redis Cluster of three nodes: a scope's keys lie in one slot, and it reaches for no other."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.exceptions
from redis.crc import key_slot

from deploy.processes import Process, free_port
from schemas.runtime.store import connect
from tests.support.fleet import wait_until
from tests.support.redis_faults import losses
from tests.support.stores import STORES, known_here
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.ledger import Ledger
from workers.budget.membership import Membership
from workers.limits.costs import Bucket, Charge, Kind

SLOTS = 16384
SPANS = ((0, 5460), (5461, 10922), (10923, SLOTS - 1))
# One in each span.
EXCHANGES = ("kraken", "okx", "binance", "htx", "coinbase", "bybit", "gate", "kucoin")


@pytest_asyncio.fixture(loop_scope="function", params=STORES)
async def nodes(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[list[Any]]:
    """A client for each node of a cluster that serves all slots."""
    program = STORES[request.param]
    assert program is not None, "this test starts a cluster of redis-server or valkey-server: install one of them"
    clients: list[Any] = []
    async with AsyncExitStack() as stack:
        ports = [(free_port(), free_port()) for _ in SPANS]
        for port, bus in ports:
            folder = tmp_path / str(port)
            folder.mkdir()
            argv = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
            argv += ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
            process = Process(argv, log=folder / "redis.log", env={"PATH": os.environ["PATH"]}, cwd=folder)
            process.start()
            stack.callback(process.kill)
            client: Any = connect(f"redis://127.0.0.1:{port}/0", timeout_s=5)
            stack.push_async_callback(client.aclose)
            clients.append(client)

        async def serves(client: Any) -> bool:
            try:
                return bool(await client.ping())
            except redis.exceptions.RedisError:
                return False

        async def whole(client: Any) -> bool:
            info: dict[str, str] = await client.execute_command("CLUSTER INFO")
            return info["cluster_state"] == "ok"

        for client, span in zip(clients, SPANS, strict=True):
            await wait_until(lambda client=client: serves(client), "a node serves")  # type: ignore[misc]
            await client.execute_command("CLUSTER ADDSLOTSRANGE", *span)
        for port, bus in ports[1:]:
            await clients[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        for client in clients:
            await wait_until(lambda client=client: whole(client), "the cluster is whole")  # type: ignore[misc]
        yield clients


def charge(kind: Kind) -> Charge:
    return Charge(Bucket(name=kind, amount=3, window_s=60, kind=kind, margin_ms=50, source=""), 1, kind)


async def test_all_that_the_script_does_stays_in_one_slot(nodes: list[Any]) -> None:
    kinds: tuple[Kind, ...] = ("rolling", "fixed", "decaying", "paced")
    calls = [charge(kind) for kind in kinds]
    for exchange in EXCHANGES:
        slot = key_slot(exchange.encode())
        for client, (first, last) in zip(nodes, SPANS, strict=True):
            budget = Budget(Ledger(client, f"{exchange}:10.0.0.1", member=Membership()))
            if not first <= slot <= last:
                lost = losses("MovedError")
                await budget.beat()
                refusal = await budget.reserve(calls, max_wait_s=60)
                assert isinstance(refusal, Refusal)
                assert (refusal.reason, losses("MovedError")) == ("redis_lost", lost + 1)
                continue
            await known_here(client, exchange)
            for _ in range(2):  # the second says that it heard the first's answer
                await budget.beat()
            grants = [await budget.reserve(calls, max_wait_s=60) for _ in range(3)]
            assert all(isinstance(grant, Grant) for grant in grants), grants
            assert isinstance(await budget.reserve(calls, max_wait_s=0), Refusal)
            one, two, three = (grant for grant in grants if isinstance(grant, Grant))
            assert isinstance(await budget.again(calls, one, max_wait_s=60, lead_us=1_000_000), Grant)
            await budget.arrived(calls, two, 400_000)
            await budget.back(calls, three)
            await budget.set_clock(0.5)
            await budget.observe(calls[1], one.ranks[1], one, 2, late_us=0, span_s=60)
            await budget.limited(calls, one)
            await budget.pause(1, "all")
            await budget.pause(1, "some", calls)
            assert await budget.paused(calls) > 0
            assert set(await budget.usage()) == set(kinds)
            await budget.leave()
