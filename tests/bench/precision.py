"""How close to a limit several processes come together, and that they never pass it: ``--only precision``.

Each process asks for more than there is; what counts is the reserved instants on Redis's clock. The processes' own
clocks are wrong by 5 s, one this way, the next that way. Mixed calls weigh from 1 to a quarter of the limit, and each
is to wait for its turn and no longer: what was asked for before it, at the limit's rate. In that order heavy calls
leave gaps that must stay empty (a quarter does not fit where a fifth is free), so what was granted stands beside the
most that this order allows, too.
"""

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from deploy.servers import Redis
from schemas.runtime.store import connect
from workers.budget.budget import Budget
from workers.budget.grants import Grant
from workers.budget.ledger import Ledger
from workers.limits.costs import Bucket, Charge

from .measure import Options, Table, met, percentile

SECONDS: Final = 60.0
PROCESSES: Final = (1, 2, 4, 8)
SKEW_S: Final = 5.0
WINDOW_S: Final = 1
AIM: Final = 0.99
# For the first window, which is empty, and until all processes are at work.
WARM_UP_S: Final = 2.0
START_S: Final = 2.0
# So much is asked for at any time, in seconds of the limit.
BACKLOG_S: Final = 1.5
# The weights of mixed calls, as parts of the limit.
PARTS: Final = (0.25, 0.1, 0.05, 0.0, 0.0, 0.0)
# Beyond its turn a call waits for what others moved, and for its process to get a CPU.
TURN_TOLERANCE: Final = 1.2


class Limit(NamedTuple):
    """An amount per second, and whether calls of many weights are charged to it."""

    amount: int
    mixed: bool = False

    @property
    def name(self) -> str:
        """Names it in Redis and in the table."""
        return f"{self.amount}/s{', mixed weights' if self.mixed else ''}"

    def weights(self, processes: int) -> list[int]:
        """What each of a process's tasks asks for, again and again."""
        wanted = BACKLOG_S * self.amount / processes
        if not self.mixed:
            return [1] * max(2, round(wanted))
        once = [max(1, int(self.amount * part)) for part in PARTS]
        return once * max(1, round(wanted / sum(once)))


# Those in one line are measured at the same time.
TOGETHER: Final = (
    (Limit(1), Limit(10), Limit(100), Limit(100, True), Limit(1000, True), Limit(2000, True)),
    (Limit(1000),),
    (Limit(2000),),
)


class Granted(NamedTuple):
    """One call: its instant by Redis's clock, its weight, and how long it waited."""

    at_us: int
    weight: int
    waited_s: float


async def run(options: Options) -> None:
    """Measures and prints."""
    seconds = round(options.seconds or SECONDS)
    table = options.table(
        f"Granted of what is allowed, {seconds} s each, clocks wrong by {SKEW_S:.0f} s",
        *("limit", "processes", "granted", "part", "of this order", "aim", "", "most in 1 s", "aim", ""),
        *("turn", "heaviest wait p99", ""),
    )
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-bench-") as folder:
        async with Redis(Path(folder)) as server:
            for processes in options.workers or PROCESSES:
                for limits in TOGETHER:
                    await _measure(table, server.url, processes, limits, seconds)


async def _measure(table: Table, url: str, processes: int, limits: Sequence[Limit], seconds: int) -> None:
    loop = asyncio.get_running_loop()
    begins_s = time.time() + START_S + processes * 0.5
    until_s = begins_s + WARM_UP_S + seconds
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = await asyncio.gather(
            *(
                loop.run_in_executor(pool, _process, url, limits, processes, number, until_s)
                for number in range(processes)
            )
        )
    for limit in limits:
        granted = sorted(one for process in found for one in process[limit.name])
        _show(table, limit, processes, granted, until_s - seconds, seconds)


def _show(table: Table, limit: Limit, processes: int, granted: Sequence[Granted], from_s: float, seconds: int) -> None:
    from_us = int(from_s * 1e6)
    counted = [one for one in granted if from_us <= one.at_us < from_us + seconds * 1_000_000]
    total = sum(one.weight for one in counted)
    part = total / (limit.amount * seconds)
    most = _most(granted)
    least_s = _span_s(counted, limit.amount)
    possible = least_s / seconds
    cells = [f"{total:,}", f"{part:.2%}", f"{possible:.2%}", f"{AIM:.0%}", met(possible >= AIM)]
    cells += [str(most), f"<= {limit.amount}", met(most <= limit.amount)]
    weights = limit.weights(processes)
    turn_s = sum(weights) * processes * least_s / max(total, 1)
    heavy = [one.waited_s for one in counted if one.weight == max(weights)]
    if heavy:
        p99_s = percentile(heavy, 0.99)
        in_turn = met(p99_s <= turn_s * TURN_TOLERANCE) if limit.mixed else ""
        cells += [f"{turn_s:.2f} s", f"{p99_s:.2f} s", in_turn]
    else:
        cells += ["", "", ""]
    table.row(limit.name, str(processes), *cells)


def _most(granted: Sequence[Granted]) -> int:
    """The most that was granted within any window."""
    first = within = most = 0
    for one in granted:
        within += one.weight
        while granted[first].at_us <= one.at_us - WINDOW_S * 1_000_000:
            within -= granted[first].weight
            first += 1
        most = max(most, within)
    return most


def _span_s(granted: Sequence[Granted], amount: int) -> float:
    """The shortest time in which these calls fit one after another, in this order."""
    placed_s: list[float] = []
    first, within = 0, 0
    for one in granted:
        at_s = placed_s[-1] if placed_s else 0.0
        within += one.weight
        while within > amount:
            at_s = max(at_s, placed_s[first] + WINDOW_S)
            within -= granted[first].weight
            first += 1
        placed_s.append(at_s)
    return placed_s[-1] + WINDOW_S if placed_s else 0.0


def _process(
    url: str, limits: Sequence[Limit], processes: int, number: int, until_s: float
) -> dict[str, list[Granted]]:
    """One process, with a clock of its own."""
    skew_s = SKEW_S if number % 2 else -SKEW_S
    true_s, true_ns = time.time, time.time_ns
    time.time = lambda: true_s() + skew_s
    time.time_ns = lambda: true_ns() + int(skew_s * 1e9)
    try:
        return asyncio.run(_ask(url, limits, processes, until_s + skew_s))
    finally:
        time.time, time.time_ns = true_s, true_ns


async def _ask(url: str, limits: Sequence[Limit], processes: int, until_s: float) -> dict[str, list[Granted]]:
    client = connect(url, timeout_s=5)
    budget = Budget(Ledger(client, "x:bench"))
    granted: dict[str, list[Granted]] = {limit.name: [] for limit in limits}

    async def go_on(limit: Limit, weight: int) -> None:
        bucket = Bucket(name=limit.name, amount=limit.amount, window_s=WINDOW_S, kind="rolling", margin_ms=0, source="")
        charges = [Charge(bucket, weight, f"{processes} {limit.name}")]
        log = granted[limit.name]
        while (left_s := until_s - time.time()) > 0:
            asked_s = time.monotonic()
            answer = await budget.acquire(charges, max_wait_s=left_s)
            if not isinstance(answer, Grant):
                return
            log.append(Granted(answer.at_us, weight, time.monotonic() - asked_s))

    tasks = [go_on(limit, weight) for limit in limits for weight in limit.weights(processes)]
    await asyncio.gather(*tasks)
    await client.aclose()
    return granted
