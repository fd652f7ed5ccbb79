"""From request to result through the whole fleet, beside the same ccxt calls made directly: ``--only fleet``.

Both send 50 calls a second at fixed times, by turns, to the same simulator with the same connection settings: Binance
tickers (half of its weight a minute) and OKX trades (half of its limit), so that nothing waits for budget. Latency
counts from the time a call was due to the decoded answer.
"""

import asyncio
import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp

from deploy.local import Services, simulated
from deploy.processes import ProcessError
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.messages import Request
from workers.exchange.charged import ccxt
from workers.exchange.egress import IDLE_S

from .client import Client
from .measure import Cpu, Options, Row, medians, percentile, show

RATE_PER_S: Final = 50
ROUND_S: Final = 4.0
EXCHANGE_LATENCY_MS: Final = (0, 20)
WORKERS: Final = (1, 2)
AIM_MS: Final = 10.0
OPEN_TIMEOUT_S: Final = 120.0
CALLS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "binance": ("fetch_ticker", {"symbol": "BTC/USDT"}),
    "okx": ("fetch_trades", {"symbol": "BTC/USDT", "limit": 20}),
}

Ask = Callable[[str, str, dict[str, Any]], Awaitable[float]]
"""Makes one call (exchange, method, arguments); returns the milliseconds it waited for budget."""


async def run(options: Options) -> None:
    """Measures and prints."""
    rounds, round_s = options.rounds, options.seconds or ROUND_S
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ccxt-fleet-bench-")))
        rabbitmq = await stack.enter_async_context(RabbitMQ(folder / "rabbitmq"))
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        simulator = await stack.enter_async_context(Simulator(exchanges=list(CALLS)))
        fleet = Services(
            folder, simulated(simulator.urls), broker_url=rabbitmq.url, redis_url=redis.url, dispatchers=1, workers=1
        )
        await stack.enter_async_context(fleet)
        client = await stack.enter_async_context(Client.on(rabbitmq.url))

        async def ours_asked(exchange: str, method: str, args: dict[str, Any]) -> float:
            result = await client.ask(Request(method, args, exchanges=[exchange]))
            if not result.ok:
                raise RuntimeError(f"{exchange} {method}: {result.error}")
            return result.attempts[-1].waited_ms

        direct = await stack.enter_async_context(_direct(simulator.urls))
        pids = {"client": os.getpid(), "dispatcher": fleet.dispatchers[0].pid, "rabbitmq": rabbitmq.pid}
        pids |= {"redis": redis.pid, "simulator": simulator.pid or 0}
        for workers in WORKERS:
            while len(fleet.workers) < workers:
                await _add_worker(fleet)
            busy = pids | {worker.name: worker.pid for worker in fleet.workers}
            for latency_ms in EXCHANGE_LATENCY_MS:
                for exchange in CALLS:
                    await simulator.fault(exchange, latency_ms=latency_ms)
                for ask in (direct, ours_asked):  # warm up
                    await _round(ask, {}, 1.0)
                ours: list[dict[str, float]] = []
                theirs: list[dict[str, float]] = []
                for _ in range(rounds):
                    theirs.append(
                        await _round(direct, {"client": pids["client"], "simulator": pids["simulator"]}, round_s)
                    )
                    ours.append(await _round(ours_asked, busy, round_s))
                _show(options, workers, latency_ms, medians(ours), medians(theirs))
        violations = (await simulator.counters())["violations"]
        print(f"Limits broken at the simulator in all of this: {violations}")


def _show(options: Options, workers: int, latency_ms: int, ours: dict[str, float], theirs: dict[str, float]) -> None:
    extra_ms = ours["p50"] - theirs["p50"]
    rows = [
        Row(
            "latency p50, ms",
            ours["p50"],
            theirs["p50"],
            f"{extra_ms:+.1f} ms",
            f"<= +{AIM_MS:.0f} ms",
            extra_ms <= AIM_MS,
        ),
        Row("latency p99, ms", ours["p99"], theirs["p99"], f"{ours['p99'] - theirs['p99']:+.1f} ms"),
        Row("of it asking for budget p50, ms", ours["waited p50"]),
    ]
    for name, figure in ours.items():
        if name not in ("p50", "p99", "waited p50"):
            rows += [Row(f"CPU us/request, {name}", figure, theirs.get(name))]
    show(
        options,
        f"Request to result, {workers} worker{'s' if workers > 1 else ''}, exchange answers after {latency_ms} ms, "
        f"beside ccxt alone ({RATE_PER_S}/s, medians of {options.rounds} rounds by turns)",
        rows,
    )


async def _round(ask: Ask, pids: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Makes calls at fixed times for so long, and says how they went."""
    waited_ms: list[float] = []

    async def call(exchange: str, due_s: float) -> float:
        await asyncio.sleep(due_s - time.perf_counter())
        waited_ms.append(await ask(exchange, *CALLS[exchange]))
        return (time.perf_counter() - due_s) * 1000

    cpu = Cpu(pids)
    count, turn, start_s = int(seconds * RATE_PER_S), itertools.cycle(CALLS), time.perf_counter() + 0.05
    took_ms = await asyncio.gather(*(call(next(turn), start_s + n / RATE_PER_S) for n in range(count)))
    used = cpu.us_each(count)
    return {
        "p50": percentile(took_ms, 0.5),
        "p99": percentile(took_ms, 0.99),
        "waited p50": percentile(waited_ms, 0.5),
        **used,
    }


@contextlib.asynccontextmanager
async def _direct(urls: Mapping[str, str]) -> AsyncGenerator[Ask]:
    """Calls ccxt in this process: its own limiter off, the workers' connection settings."""
    # As `workers.exchange.egress.Egress` sets up its own.
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, ttl_dns_cache=300, keepalive_timeout=IDLE_S)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
    exchanges: dict[str, Any] = {}
    for name in CALLS:
        settings = {**ccxt_config(name, urls[name]), "enableRateLimit": False, "session": session}
        exchanges[name] = getattr(ccxt, name)(settings)
        exchanges[name].timeout_on_exit = 0

    async def ask(exchange: str, method: str, args: dict[str, Any]) -> float:
        await getattr(exchanges[exchange], method)(**args)
        return 0.0

    try:
        for exchange in exchanges.values():
            await exchange.load_markets()
        yield ask
    finally:
        for exchange in exchanges.values():
            await exchange.close()
        await session.close()


async def _add_worker(fleet: Services) -> None:
    """Starts one more and returns when it has opened all lanes."""
    worker = fleet.add_worker()
    deadline_s = time.monotonic() + OPEN_TIMEOUT_S
    while time.monotonic() < deadline_s:
        await fleet.ready(fleet.lanes)  # raises if a service ended
        seen = await worker.metrics()
        if all(seen.get(("fleet_lane_open", lane)) for lane in fleet.lanes):
            return
        await asyncio.sleep(0.1)
    raise ProcessError(f"not up after {OPEN_TIMEOUT_S:.0f} s; the end of {worker.log}:\n{worker.tail()}")
