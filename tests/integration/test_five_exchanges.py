"""Five exchanges, each through every public read the fleet is made for; and a thousand attempts in one worker."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from deploy.local import Services, simulated
from deploy.simulator.process import Simulator
from tests.support.fleet import Client, Stand, wait_until
from tests.support.reads import LACKS, READS

EXCHANGES = ("binance", "okx", "htx", "coinbase", "kraken")


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_each_exchange_answers_every_read(stand: Stand, exchange: str) -> None:
    reads = {method: read for method, read in READS.items() if (exchange, method) not in LACKS}
    sent = {
        method: await stand.client.send({"method": method, "args": args, "exchanges": [exchange]})
        for method, (args, _) in reads.items()
    }
    for method, (_, is_right) in reads.items():
        result = (await stand.client.answer(sent[method])).result
        assert result.ok, result
        assert (result.exchange, result.method) == (exchange, method)
        assert is_right(result.data), (method, str(result.data)[:500])
    counters = await stand.simulator.counters()
    assert counters["exchanges"][exchange]["violations"] == 0


async def test_what_an_exchange_lacks_is_said_at_once(stand: Stand) -> None:
    for exchange, method in LACKS:
        answer = await stand.client.ask(method, exchanges=[exchange])
        assert answer.code == "not_supported"


async def test_one_worker_holds_a_thousand_attempts(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with Simulator(exchanges=["binance"]) as simulator:
        config = {**simulated(simulator.urls), "worker": {"in_flight": 1000, "http_timeout_s": 60.0}}
        async with (
            Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1) as fleet,
            Client.on(vhost) as client,
        ):
            worker = fleet.workers[0]
            assert simulator.pid is not None
            # All wait for an exchange that answers nobody: how long it takes to get there does not matter.
            os.kill(simulator.pid, signal.SIGSTOP)
            try:
                request = {"method": "fetch_time", "deadline_ms": int(time.time() * 1000) + 120_000}
                sent: list[str] = []

                async def all_in_flight() -> bool:
                    return (await worker.metrics()).get(("fleet_attempts_in_flight", "binance")) == len(sent)

                while len(sent) < 1000:  # step by step: to take them all at once would be a test of the machine
                    sent += await asyncio.gather(*(client.send(request) for _ in range(200)))
                    await wait_until(all_in_flight, f"{len(sent)} attempts in flight", timeout_s=60, every_s=0.1)
            finally:
                os.kill(simulator.pid, signal.SIGCONT)
            results = [(await client.answer(one, timeout_s=60)).result for one in sent]
            assert all(result.ok for result in results), [result for result in results if not result.ok][:3]
            assert all(len(client.answers[one]) == 1 for one in sent)
            assert (await simulator.counters())["violations"] == 0
