"""What a budget costs, and how close to a limit it comes: ``python -m tests.bench.budget [seconds per run]``.

Everything is measured in one run on one Redis: a reservation beside a script that does nothing, taken in turns.
"""

import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from deploy.servers import Redis
from schemas.store import connect
from workers.budget import Budget, Grant
from workers.costs import JITTER_MS, Bucket, Charge, Kind, load

ROUNDS, CALLS = 15, 200
WINDOW_S = 1.0


def bucket(amount: float, *, kind: Kind = "rolling", margin_ms: float = 0, window_s: float = WINDOW_S) -> Bucket:
    return Bucket(name="b", amount=amount, window_s=window_s, kind=kind, margin_ms=margin_ms, source="")


async def micros(call: Callable[[], Awaitable[object]], calls: int = CALLS) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - started) / calls * 1e6


async def cost(url: str) -> None:
    """One reservation beside one bare script, by turns."""
    client: Any = connect(url, timeout_s=5)
    sha = await client.script_load("return 1")
    budget = Budget(client, "x:bench")
    two = load("coinbase", 34).charges(("v2", "public"), "GET", "time", {}, 1)
    # Full windows: every reservation finds the one that must have left first.
    cases = {
        "rolling, 1000 in the window": [Charge(bucket(1000), 1, "rolling")],
        "fixed": [Charge(bucket(6000, kind="fixed", window_s=60), 2, "fixed")],
        "paced": [Charge(bucket(1, kind="paced", window_s=0.001), 1, "paced")],
        "two rolling buckets (coinbase v2)": two,
    }
    bare: list[float] = []
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for charges in cases.values():
        await micros(lambda charges=charges: budget.reserve(charges, max_wait_s=1e6), calls=1200)  # type: ignore[misc]
    for _ in range(ROUNDS):
        bare.append(await micros(lambda: client.evalsha(sha, 0)))
        for name, charges in cases.items():
            taken[name].append(await micros(lambda charges=charges: budget.reserve(charges, max_wait_s=1e6)))  # type: ignore[misc]
    base = statistics.median(bare)
    print(f"a script that does nothing: {base:.0f} us")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"reserve, {name}: {median:.0f} us, {median / base:.2f} times")

    for waiting in (1, 10, 200):
        started, used = time.perf_counter(), time.process_time()
        wide = [Charge(bucket(1e6), 1, "wide")]

        async def many(calls: int, wide: list[Charge] = wide) -> None:
            for _ in range(calls):
                await budget.reserve(wide, max_wait_s=1)

        await asyncio.gather(*(many(4000 // waiting) for _ in range(waiting)))
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        print(f"{waiting} at once in one process: {4000 / wall:.0f} reserves/s, {cpu / 4000 * 1e6:.0f} us of CPU each")
    await client.aclose()


def _saturate(url: str, key: str, rate: int, margin_ms: float, tasks: int, until: float) -> list[int]:
    return asyncio.run(_ask(url, key, rate, margin_ms, tasks, until))


async def _ask(url: str, key: str, rate: int, margin_ms: float, tasks: int, until: float) -> list[int]:
    client = connect(url, timeout_s=5)
    budget = Budget(client, "x:bench")
    charges = [Charge(bucket(rate, margin_ms=margin_ms), 1, key)]
    granted: list[int] = []

    async def ask() -> None:
        while time.time() < until:
            answer = await budget.acquire(charges, max_wait_s=10)
            if isinstance(answer, Grant):
                granted.append(answer.at_us)

    await asyncio.gather(*(ask() for _ in range(tasks)))
    await client.aclose()
    return granted


async def precision(url: str, seconds: int) -> None:
    """Ask for more than there is, and count what was granted beside what was allowed."""
    loop = asyncio.get_running_loop()
    for processes in (1, 4):
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for rate, margin_ms in ((10, 0.0), (100, 0.0), (1000, 0.0), (10, JITTER_MS), (100, JITTER_MS)):
                key, tasks = f"p{processes}-{rate}-{margin_ms}", max(8, rate // 2 // processes)
                until = time.time() + seconds + 3
                logs = await asyncio.gather(
                    *(
                        loop.run_in_executor(pool, _saturate, url, key, rate, margin_ms, tasks, until)
                        for _ in range(processes)
                    )
                )
                times = sorted(at for log in logs for at in log)
                counted = sum(1 for at in times if at < times[0] + seconds * 1_000_000)
                worst = max(
                    (number - first + 1)
                    for number, first in zip(range(len(times)), _firsts(times, 1_000_000), strict=True)
                )
                print(
                    f"{processes} processes, {rate}/s, margin {margin_ms:.0f} ms: {counted} of {rate * seconds} "
                    f"= {counted / rate / seconds:.4f}; most in any second {worst}"
                )


def _firsts(times: list[int], window_us: int) -> list[int]:
    """For every time the index of the first one in the window that ends with it."""
    first, found = 0, list[int]()
    for at in times:
        while times[first] <= at - window_us:
            first += 1
        found.append(first)
    return found


async def main(seconds: int = 20) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Redis(Path(folder)) as server:
            await cost(server.url)
            if seconds:
                await precision(server.url, seconds)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:2])))
