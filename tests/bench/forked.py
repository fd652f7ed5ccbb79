"""The memory of workers that one parent forks, beside that of as many on their own: ``--only forked``.

Both fleets in turn, on the simulator, in one run. Summed up is the proportional set size (PSS in proc(5), smaps_rollup)
of all their processes: a page that several share counts for each by its part. It is read when all lanes are open and
again after a load, which writes into pages that were shared until then.
"""

import asyncio
import time
from pathlib import Path
from typing import Final

from deploy.local import Service
from schemas.messages import Request, Result
from tests.support.forked import children

from .measure import Options
from .stage import Servers, Stage

COUNT: Final = 8
REQUESTS: Final = 4_000
AT_ONCE: Final = 100


async def run(options: Options) -> None:
    """Measures and prints."""
    count = (options.workers or (COUNT,))[0]
    table = options.table(
        f"Memory of {count} workers, five lanes each, and after {REQUESTS:,} requests: PSS in MiB",
        *("", "processes", "open", "a worker", "after the load", "a worker", "answered", "broken limits"),
    )
    async with Servers.started() as servers:
        for title, workers, processes in ((f"{count} on their own", count, None), (f"{count} forked", 1, count)):
            async with servers.stage(workers=workers, processes=processes) as stage:
                before, there = _pss_mib(stage.fleet.workers)
                answered = await _load(stage)
                after, _ = _pss_mib(stage.fleet.workers)
                broken = (await stage.simulator.counters())["violations"]
            table.row(title, there, before, before / count, after, after / count, answered, broken)


async def _load(stage: Stage) -> int:
    """Asks five exchanges, and returns how many requests were answered with data."""
    room, results = asyncio.Semaphore(AT_ONCE), list[Result]()

    async def ask(number: int) -> None:
        async with room:
            symbol = ("BTC/USDT", "ETH/USDT", "SOL/USDT")[number % 3]
            deadline_ms = int((time.time() + 60) * 1000)
            results.append(await stage.client.ask(Request("fetch_ticker", {"symbol": symbol}, deadline_ms=deadline_ms)))

    await asyncio.gather(*map(ask, range(REQUESTS)))
    return sum(each.ok for each in results)


def _pss_mib(workers: list[Service]) -> tuple[float, int]:
    """The memory of these services and of all that they forked, and how many processes they are."""
    pids = [pid for worker in workers for pid in (worker.pid, *children(worker.pid))]
    return sum(map(pss_kib, pids)) / 1024, len(pids)


def pss_kib(pid: int) -> int:
    """A process's proportional set size."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
