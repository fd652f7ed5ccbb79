"""A charged program beside a fleet on one address, which asks for all there is: ``--only direct``.

The program (`workers.direct.charged`) places an order and reads a ticker now and then, on Binance, whose minute
all share, and on OKX, whose orders have limits of their own. The fleet's requests are bulk, and then live. Then what
`charged` adds to a call of plain ccxt where nothing waits.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from msgspec import Struct

from deploy.simulator.accounts import ACCOUNTS
from deploy.simulator.ccxt_config import ccxt_config
from schemas.messages import Request
from workers.direct import charged
from workers.exchange.charged import ccxt

from .load import DEADLINE_S, PAIRS, Call, Door, next_minute, saturated, whole
from .measure import Options, Row, medians, met, percentile, show
from .stage import Servers, Stage

SECONDS: Final = 180.0
WORKERS: Final = (2,)
EXCHANGES: Final = ("binance", "okx")
EVERY_S: Final = 2.0
AIM_MS: Final = 1_000.0
# The latency of calls that wait for nothing.
RATE_PER_S: Final = 50
ROUND_S: Final = 10.0
CALLS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "binance": ("fetch_ticker", {"symbol": "BTC/USDT"}),
    "okx": ("fetch_trades", {"symbol": "BTC/USDT", "limit": 20}),
}

Ask = Callable[[str, str, dict[str, Any]], Awaitable[Any]]


class Calls(Struct):
    """How long one program's calls of a kind waited, milliseconds, and how many were not sent."""

    took_ms: list[float]
    unsent: int = 0


async def run(options: Options) -> None:
    """Measures and prints."""
    seconds = whole(options.seconds or SECONDS, EXCHANGES)
    table = options.table(
        f"A charged program beside a fleet that asks for all there is, {seconds:.0f} s; it calls every {EVERY_S:g} s",
        *("exchange, the fleet's requests", "calls", "number", "takes p50, ms", "p99, ms", "most, ms", "aim", ""),
        *("not sent", "refused", "limit used"),
    )
    async with Servers.started() as servers:
        for workers in options.workers or WORKERS:
            for bulk in (True, False):
                async with servers.stage(EXCHANGES, workers=workers) as stage:
                    await _beside(stage, table.row, seconds, bulk=bulk)
        await _latency(servers, options)


async def _beside(stage: Stage, row: Callable[..., None], seconds: float, *, bulk: bool) -> None:
    names = [name for name in EXCHANGES if name in stage.fleet.lanes]
    async with contextlib.AsyncExitStack() as stack:
        programs = {name: await stack.enter_async_context(_program(stage, name)) for name in names}
        for program in programs.values():
            await program.load_markets()
        async with saturated(_through(stage, bulk=bulk), names):
            await next_minute(names)
            door = await Door.at(stage.simulator)
            found = await asyncio.gather(*(_calls(programs[name], seconds) for name in names))
            filled = {name: (await door.filled(stage.simulator, name))[0].used for name in names}
        counters = (await stage.simulator.counters())["exchanges"]
        for name, kinds in zip(names, found, strict=True):
            for kind, calls in kinds.items():
                p50, p99, most = (percentile(calls.took_ms, part) for part in (0.5, 0.99, 1.0))
                aimed = bulk and kind == "orders"
                row(
                    f"{name}, {'bulk' if bulk else 'live'}",
                    kind,
                    str(len(calls.took_ms)),
                    *(p50, p99, most),
                    f"< {AIM_MS:,.0f}" if aimed else "",
                    met(most < AIM_MS) if aimed else "",
                    str(calls.unsent),
                    str(counters[name]["violations"]),
                    f"{filled[name]:.1%}",
                )
        await _agree(stage, programs["binance"], counters["binance"]["buckets"]["weight"]["weight"])


async def _agree(stage: Stage, program: Any, counted: int) -> None:
    """Prints what Binance counted of weight since its start, beside what fleet and program were charged."""
    spent = [
        sum(
            value
            for (name, *labels), value in (await worker.metrics()).items()
            if name == "fleet_budget_granted_total" and set(labels) == {"binance", "spot"}
        )
        for worker in stage.fleet.workers
    ]
    own = program.purse.meter.tallies.take()["spot"].granted
    print(f"Binance counted a weight of {counted:,}; charged: the fleet {sum(spent):,.0f}, the program {own:,.0f}")


async def _calls(program: Any, seconds: float) -> dict[str, Calls]:
    """Places an order and reads a ticker at fixed times, for so long."""
    found = {"orders": Calls([]), "tickers": Calls([])}
    pairs = itertools.cycle(PAIRS)

    async def one(kind: str, due_s: float, ask: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.sleep(due_s - time.monotonic())
        begun_s = time.monotonic()
        try:
            await ask()
        except ccxt.RateLimitExceeded:
            found[kind].unsent += 1
        else:
            found[kind].took_ms.append((time.monotonic() - begun_s) * 1000)

    begun_s = time.monotonic()
    asked: list[Awaitable[None]] = []
    for number in range(int(seconds / EVERY_S)):
        due_s, pair = begun_s + number * EVERY_S, next(pairs)
        asked.append(one("orders", due_s, lambda: program.create_order("BTC/USDT", "limit", "buy", 0.001, 10_000)))
        asked.append(one("tickers", due_s + EVERY_S / 2, lambda pair=pair: program.fetch_ticker(pair)))  # type: ignore[misc]
    await asyncio.gather(*asked)
    return found


@contextlib.asynccontextmanager
async def _program(stage: Stage, exchange: str, *, is_charged: bool = True) -> AsyncGenerator[Any]:
    account = next(iter(ACCOUNTS.values()))
    keys = {"apiKey": account.key, "secret": account.secret, "password": account.passphrase}
    made: Any = getattr(ccxt, exchange)({**ccxt_config(exchange, stage.simulator.urls[exchange]), **keys})
    made.timeout_on_exit = 0
    made.enableRateLimit = False
    made.has["fetchCurrencies"] = made.options["fetchMargins"] = False  # with keys ccxt asks, the simulator has none
    try:
        yield charged(made, stage.redis.url) if is_charged else made
    finally:
        await made.close()


def _through(stage: Stage, *, bulk: bool) -> Call:
    async def call(exchange: str, method: str, args: dict[str, Any]) -> bool:
        deadline_ms = int((time.time() + DEADLINE_S) * 1000)
        request = Request(
            method, args, exchanges=[exchange], deadline_ms=deadline_ms, priority="bulk" if bulk else "live"
        )
        return (await stage.client.ask(request)).ok

    return call


async def _latency(servers: Servers, options: Options) -> None:
    """What `charged` adds where nothing waits, beside plain ccxt by turns."""
    async with servers.stage(list(CALLS), workers=1) as stage, contextlib.AsyncExitStack() as stack:
        rounds: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        programs = {
            is_charged: {
                name: await stack.enter_async_context(_program(stage, name, is_charged=is_charged)) for name in CALLS
            }
            for is_charged in rounds
        }
        for each in programs.values():
            for program in each.values():
                await program.load_markets()
        for number in range(options.rounds + 1):
            for is_charged, found in rounds.items():
                figures = await _round(programs[is_charged], ROUND_S if number else 2.0)
                if number:  # the first one warms up
                    found.append(figures)
        ours, theirs = medians(rounds[True]), medians(rounds[False])
        show(
            options,
            f"A charged call beside plain ccxt, {RATE_PER_S}/s, medians of {options.rounds} rounds by turns",
            [Row(f"{name}, ms", ours[name], theirs[name], f"{ours[name] - theirs[name]:+.1f} ms") for name in ours],
        )
        print(f"Limits broken at the simulator: {(await stage.simulator.counters())['violations']}", flush=True)


async def _round(programs: dict[str, Any], seconds: float) -> dict[str, float]:
    start_s, turn = time.perf_counter() + 0.05, itertools.cycle(CALLS)

    async def one(number: int, exchange: str) -> float:
        due_s = start_s + number / RATE_PER_S
        await asyncio.sleep(due_s - time.perf_counter())
        method, args = CALLS[exchange]
        await getattr(programs[exchange], method)(**args)
        return (time.perf_counter() - due_s) * 1000

    took_ms = await asyncio.gather(*(one(number, next(turn)) for number in range(int(seconds * RATE_PER_S))))
    return {"p50": percentile(took_ms, 0.5), "p99": percentile(took_ms, 0.99)}
