"""Five exchanges, each through every public read the fleet is made for; and a thousand attempts in one worker."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deploy.local import Fleet, simulated
from deploy.simulator.process import Simulator
from tests.integration.fleet import Client, Stand, wait_until

EXCHANGES = ("binance", "okx", "htx", "coinbase", "kraken")
SYMBOL = "BTC/USDT"
BTC: dict[str, Any] = {"symbol": SYMBOL}
MINUTE_MS = 60_000
SINCE_MS = (int(time.time() * 1000) // MINUTE_MS - 30) * MINUTE_MS


def is_time(data: Any) -> bool:
    return bool(abs(data - time.time() * 1000) < 3_600_000)


def is_status(data: Any) -> bool:
    return bool(data["status"] == "ok")


def is_ticker(data: Any) -> bool:
    return bool(data["symbol"] == SYMBOL and data["last"] > 0)


def are_tickers(data: Any) -> bool:
    return len(data) > 1 and all(each["symbol"] == symbol for symbol, each in data.items())


def are_candles(data: Any) -> bool:
    opened = [candle[0] for candle in data]
    return opened[0] == SINCE_MS and len(data) == 10 and all(b - a == MINUTE_MS for a, b in pairwise(opened))


def are_trades(data: Any) -> bool:
    return 0 < len(data) <= 20 and all(trade["symbol"] == SYMBOL and trade["price"] > 0 for trade in data)


def is_book(data: Any) -> bool:
    bids, asks = [level[0] for level in data["bids"]], [level[0] for level in data["asks"]]
    return bids == sorted(bids, reverse=True) and asks == sorted(asks) and bids[0] < asks[0]


READS: dict[str, tuple[Mapping[str, object], Callable[[Any], bool]]] = {
    "fetch_time": ({}, is_time),
    "fetch_status": ({}, is_status),
    "fetch_ticker": (BTC, is_ticker),
    "fetch_tickers": ({}, are_tickers),
    "fetch_ohlcv": ({**BTC, "timeframe": "1m", "since": SINCE_MS, "limit": 10}, are_candles),
    "fetch_trades": ({**BTC, "limit": 20}, are_trades),
    "fetch_order_book": ({**BTC, "limit": 20}, is_book),
}
# ccxt 4.5.90 knows no status of it.
LACKS = {("coinbase", "fetch_status")}


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
            Fleet(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1) as fleet,
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
