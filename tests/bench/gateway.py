"""The HTTP door and its neighbours: ``--only gateway`` and ``--only bots``.

The first is what each adds to a call: the same call at fixed times, straight to the exchange, through the client, the
gateway and the drop-in, by turns. The second is 32 bots, which know nothing of each other and want the same candles of
100 pairs at each bar's end: through the gateway, and beside that with plain ccxt straight to an exchange of their own.
The simulator has fewer pairs; what stands for the others are other numbers of candles, as each of these is a call of
its own.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas import Fleet
from schemas.gateway.leads import leads
from workers.dropin import ccxt_async

from .measure import Options, Table, met, percentile
from .stage import Servers, Stage

PER_S: Final = 50.0
SECONDS: Final = 20.0
LATENCY_MS: Final = 20
BOTS: Final = 32
PAIRS: Final = 100
BARS: Final = 3
BAR_S: Final = 60.0
# A bot begins so long after a bar's end, at the latest.
SPREAD_S: Final = 5.0
AT_ONCE: Final = 10
HOST: Final = "https://api.binance.com"
# The bots without a fleet have an address of their own.
ELSEWHERE: Final = "127.0.0.9"

Ask = Callable[[int], Awaitable[int]]


async def run(options: Options) -> None:
    """Measures what it adds to a call, and prints."""
    async with Servers.started() as servers, servers.stage(["binance"], workers=1) as stage:
        await _added(stage, options)


async def run_bots(options: Options) -> None:
    """Lets the bots ask, and prints."""
    async with (
        Servers.started() as servers,
        servers.stage(["binance"], workers=1, dispatchers=options.dispatchers) as stage,
    ):
        await _bots(stage, options)


async def _added(stage: Stage, options: Options) -> None:
    gateway = await stage.fleet.add_gateway()
    await stage.simulator.fault("binance", latency_ms=LATENCY_MS)
    seconds = options.seconds or SECONDS
    table = options.table(
        f"One call, {PER_S:.0f} a second, of an exchange that takes {LATENCY_MS} ms ({options.rounds} rounds by turns)",
        *("", "answered", "p50, ms", "p99, ms", "added p50, ms", "added p99, ms"),
    )
    elsewhere = aiohttp.TCPConnector(local_addr=(ELSEWHERE, 0))
    without_limiter = {**ccxt_config("binance", stage.simulator.urls["binance"]), "enableRateLimit": False}
    dropin: Any = ccxt_async
    async with (
        Fleet(stage.url) as fleet,
        _bot(without_limiter, ELSEWHERE) as alone,
        dropin.binance({"enableRateLimit": False, "fleet": {"broker": stage.url}}) as led,
        aiohttp.ClientSession() as session,
        aiohttp.ClientSession(connector=elsewhere) as beside,
    ):

        async def straight(number: int) -> int:
            async with beside.get(f"{stage.simulator.urls['binance']}/api/v3/time?n={number}") as answer:
                await answer.read()
                return answer.status

        async def client(number: int) -> int:
            return (await fleet.http(f"{HOST}/api/v3/time?n={number}", exchanges="binance")).status

        async def door(number: int) -> int:
            async with session.get(f"{gateway.url}/binance/api.binance.com/api/v3/time?n={number}") as answer:
                await answer.read()
                return answer.status

        def by(program: Any) -> Ask:
            async def ask(number: int) -> int:
                return 200 if (await program.public_get_time({"n": number}))["serverTime"] else 0

            return ask

        # By what each goes without: the call without a door comes first.
        asks: dict[str, dict[str, Ask]] = {
            "HTTP": {"straight to the exchange": straight, "the client": client, "the gateway": door},
            "ccxt": {"ccxt, straight to the exchange": by(alone), "ccxt, the drop-in": by(led)},
        }
        took: dict[str, list[tuple[float, int]]] = {}
        for number in range(options.rounds):
            for name, ask in [each for of_kind in asks.values() for each in of_kind.items()]:
                await _at_fixed_times(ask, 0.5, -1 - number)  # connections are there, and what is slow once
                took.setdefault(name, []).extend(await _at_fixed_times(ask, seconds / options.rounds, number))
    least = {
        name: [percentile([ms for ms, _ in took[first]], part) for part in (0.5, 0.99)]
        for of_kind in asks.values()
        for first in [next(iter(of_kind))]
        for name in of_kind
    }
    for name, found in took.items():
        p50, p99 = (percentile([ms for ms, _ in found], part) for part in (0.5, 0.99))
        good = sum(status == 200 for _, status in found)
        table.row(name, f"{good} of {len(found)}", p50, p99, p50 - least[name][0], p99 - least[name][1])


async def _at_fixed_times(ask: Ask, seconds: float, round_number: int) -> list[tuple[float, int]]:
    start_s = time.perf_counter() + 0.05

    async def one(number: int) -> tuple[float, int]:
        due_s = start_s + number / PER_S
        await asyncio.sleep(due_s - time.perf_counter())
        status = await ask(round_number * 1_000_000 + number)
        return (time.perf_counter() - due_s) * 1000, status

    return await asyncio.gather(*(one(number) for number in range(int(seconds * PER_S))))


async def _bots(stage: Stage, options: Options) -> None:
    bars = max(1, round((options.seconds or BARS * BAR_S) / BAR_S))
    table = options.table(
        f"{BOTS} bots want the candles of {PAIRS} pairs at the end of each bar ({bars} bars)",
        *("", "asked", "answered", "p50, s", "p99, s", "calls", "asked/calls", "refused", "bans", ""),
    )
    gateway = await stage.fleet.add_gateway()
    settings = leads("binance", gateway.url, token=False).ccxt
    await _row(table, "through the gateway", settings, "", stage.simulator, bars, good=True)
    async with Simulator(exchanges=["binance"]) as alone:
        settings = ccxt_config("binance", alone.urls["binance"])
        await _row(table, "plain ccxt", settings, ELSEWHERE, alone, bars, good=False)


async def _row(
    table: Table, name: str, settings: dict[str, Any], address: str, simulator: Simulator, bars: int, *, good: bool
) -> None:
    before = (await simulator.counters())["exchanges"]["binance"]
    took_s: list[float] = []
    failed = Counter[str]()
    async with AsyncExitStack() as stack:
        bots = [await stack.enter_async_context(_bot(settings, address)) for _ in range(BOTS)]
        await asyncio.gather(*(_loaded(bot, failed) for bot in bots))
        symbols = next(([*bot.markets] for bot in bots if bot.markets), ["BTC/USDT"])
        pairs = [(symbols[number % len(symbols)], 20 + number) for number in range(PAIRS)]
        for _ in range(bars):
            await asyncio.sleep(BAR_S - time.time() % BAR_S)
            await asyncio.gather(*(_bar(bot, pairs, took_s, failed) for bot in bots))
    after = (await simulator.counters())["exchanges"]["binance"]
    calls = after["requests"] - before["requests"]
    refused = after["violations"] - before["violations"]
    bans = after["bans"] - before["bans"]
    asked = len(took_s) + failed.total()
    p50, p99 = (percentile(took_s, part) if took_s else 0.0 for part in (0.5, 0.99))
    fine = not refused and not bans and not failed
    table.row(
        *(name, f"{asked:,}", f"{len(took_s):,}", p50, p99, f"{calls:,}", asked / max(calls, 1), refused, bans),
        met(fine) if good else "",
    )
    if failed:
        print(dict(failed), flush=True)


def _bot(settings: dict[str, Any], address: str) -> Any:
    binance: Any = ccxt.binance
    bot = binance({**settings, "options": {"fetchMarkets": {"types": ["spot"]}}})
    if address:
        bot.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0)))
        bot.own_session = True
    return bot


async def _loaded(bot: Any, failed: Counter[str]) -> None:
    try:
        await bot.load_markets()
    except ccxt.BaseError as error:
        failed[type(error).__name__] += 1


async def _bar(bot: Any, pairs: list[tuple[str, int]], took_s: list[float], failed: Counter[str]) -> None:
    await asyncio.sleep(random.uniform(0, SPREAD_S))
    places = asyncio.Semaphore(AT_ONCE)

    async def one(symbol: str, limit: int) -> None:
        async with places:
            began_s = time.perf_counter()
            try:
                await bot.fetch_ohlcv(symbol, "1m", limit=limit)
            except ccxt.BaseError as error:
                failed[type(error).__name__] += 1
            else:
                took_s.append(time.perf_counter() - began_s)

    await asyncio.gather(*(one(*pair) for pair in pairs))
