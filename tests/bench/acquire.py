"""What one reservation of budget costs: ``--only acquire``.

Its round trip beside that of a script that does nothing, on the same Redis by turns; and how many of them one Redis,
which uses one CPU, does in a second.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from deploy.servers import Redis
from schemas.runtime.store import connect
from workers.budget.budget import Budget
from workers.budget.ledger import Ledger
from workers.limits.costs import Bucket, Charge, Kind, load

from .measure import Options, cpu_s, met

CALLS: Final = 200
TURNS: Final = 5
AIM: Final = 1.2
TOGETHER: Final = (1, 10, 200)
RESERVES: Final = 4_000
# No call waits: each reserves the next free instant, however far off.
FOR_EVER_S: Final = 1e6


def bucket(amount: float, window_s: float, kind: Kind = "rolling") -> Bucket:
    """A limit without margins."""
    return Bucket(name="b", amount=amount, window_s=window_s, kind=kind, margin_ms=0, source="")


# In full windows: every reservation finds those that must leave first.
CASES: Final = {
    "20 in 2 s (OKX's tickers)": [Charge(bucket(20, 2), 1, "twenty")],
    "1000 in a second": [Charge(bucket(1000, 1), 1, "thousand")],
    "fixed minute (Binance)": [Charge(bucket(6000, 60, "fixed"), 2, "fixed")],
    "one after another (a table's default)": [Charge(bucket(1, 0.001, "paced"), 1, "paced")],
    "two limits at once (Coinbase v2)": load("coinbase", 34).charges(("v2", "public"), "GET", "time", {}, 1),
}


async def run(options: Options) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-bench-") as folder:
        async with Redis(Path(folder)) as server:
            client: Any = connect(server.url, timeout_s=5)
            try:
                budget = Budget(Ledger(client, "x:bench"))
                await _round_trips(options, client, budget)
                await _rates(options, server.pid, client, budget)
            finally:
                await client.aclose()


async def _us(call: Callable[[], Awaitable[object]], calls: int = CALLS) -> float:
    started_s = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - started_s) / calls * 1e6


async def _round_trips(options: Options, client: Any, budget: Budget) -> None:
    sha = await client.script_load("return 1")
    turns = TURNS * options.rounds
    table = options.table(
        f"One reservation beside a script that does nothing (medians of {turns} turns of {CALLS})",
        *("reservation in", "us", "bare EVALSHA, us", "ratio", "aim", ""),
    )

    async def bare() -> object:
        return await client.evalsha(sha, 0)

    for name, charges in CASES.items():

        async def reserve(charges: list[Charge] = charges) -> object:
            return await budget.reserve(charges, max_wait_s=FOR_EVER_S)

        await _us(reserve, 1_200)
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(turns):
            theirs.append(await _us(bare))
            ours.append(await _us(reserve))
        ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
        table.row(
            name,
            f"{statistics.median(ours):.0f}",
            f"{statistics.median(theirs):.0f}",
            f"{ratio:.2f}",
            f"<= {AIM}",
            met(ratio <= AIM),
        )


async def _rates(options: Options, redis_pid: int, client: Any, budget: Budget) -> None:
    table = options.table(
        f"Reservations from one process ({RESERVES:,} in an empty limit)",
        *("at once", "reservations/s", "CPU us each, process", "CPU us each, Redis", "a second on one core of Redis"),
    )
    sha = await client.script_load("return 1")
    wide = [Charge(bucket(1e6, 1), 1, "wide")]

    async def bare() -> object:
        return await client.evalsha(sha, 0)

    async def reserve() -> object:
        return await budget.reserve(wide, max_wait_s=1)

    for title, call in (("", reserve), (" (bare EVALSHA)", bare)):
        for together in TOGETHER:

            async def many(calls: int, call: Callable[[], Awaitable[object]] = call) -> None:
                for _ in range(calls):
                    await call()

            started_s, own_s, redis_s = time.perf_counter(), time.process_time(), cpu_s(redis_pid)
            await asyncio.gather(*(many(RESERVES // together) for _ in range(together)))
            took_s, own_s = time.perf_counter() - started_s, time.process_time() - own_s
            redis_s = max(cpu_s(redis_pid) - redis_s, 0.01)
            table.row(
                f"{together}{title}",
                f"{RESERVES / took_s:,.0f}",
                f"{own_s / RESERVES * 1e6:.0f}",
                f"{redis_s / RESERVES * 1e6:.0f}",
                f"{RESERVES / redis_s:,.0f}",
            )
