"""What a fleet costs that nobody asks anything: ``--only idle``.

Many lanes of one simulated exchange, each from an address of its own, are open and at rest. Measured are the CPU time
of each process and of Redis, and the size of the workers' reports. ``--workers 100,200`` takes other numbers of lanes.
Before that: what one report of 200 lanes costs a dispatcher, where all of them work, where they rest, and without news.
"""

import asyncio
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import aio_pika

from dispatcher.router import Router
from schemas import topology
from schemas.config import Config, LaneConfig
from schemas.messages import encode
from schemas.reports import LaneReport, Report, decode_report

from .measure import Options, cpu_s
from .stage import Servers, Stage

EXCHANGE: Final = "okx"
LANES: Final = 100
WORKERS: Final = 2
SECONDS: Final = 20.0
REPORTED: Final = 200
REPEATS: Final = 200


async def run(options: Options) -> None:
    """Measures and prints."""
    costs = options.table(f"A worker's report of {REPORTED} lanes, in a dispatcher: CPU µs", "the lanes", "µs", "bytes")
    for title, make, whole in REPORTS:
        costs.row(title, *report_us(make, whole=whole))
    table = options.table(
        f"Lanes at rest, {WORKERS} workers, one dispatcher: CPU in % of a core",
        *("lanes", "a worker", "the dispatcher", "Redis", "reports a second", "bytes each", "bytes a second"),
    )
    async with Servers.started() as servers:
        for count in options.workers or (LANES,):
            async with servers.stage([EXCHANGE], workers=WORKERS, lanes=functools.partial(lanes_of, count)) as stage:
                await asyncio.sleep(5.0)  # what opening them left behind
                table.row(count, *await measure(stage, options.seconds or SECONDS))


def report_us(make: Callable[[str], LaneReport], *, whole: bool) -> tuple[float, int]:
    """What it costs to read one report and take it in, the router's part alone; and its size."""
    names = [f"lane{number}" for number in range(REPORTED)]
    router = Router(Config(lanes={name: LaneConfig(EXCHANGE) for name in names}))
    router.observe(Report("one", 0, [LaneReport(name) for name in names]), 0.0)
    body = encode(Report("one", 0, [make(name) for name in names] if whole else [], whole=whole))
    used_ns, took_us = time.process_time_ns(), list[float]()
    for number in range(REPEATS):
        router.observe(decode_report(body), 5.0 + number * 0.2)
        now_ns = time.process_time_ns()
        took_us.append((now_ns - used_ns) / 1000)
        used_ns = now_ns
    return statistics.median(took_us), len(body)


def _works(name: str) -> LaneReport:
    return LaneReport(name, ok=5, exchange_ms=20.0, in_flight=2, budget_ms=50.0)


REPORTS: Final = (("work", _works, True), ("are at rest", LaneReport, True), ("have no news", LaneReport, False))


def lanes_of(count: int, base: dict[str, Any]) -> dict[str, Any]:
    """So many lanes like the one that there is, from addresses of their own."""
    ((exchange, lane),) = base.items()
    return {
        f"{exchange}.n{number:04}": {**lane, "local_addr": f"127.1.{number // 200}.{number % 200 + 1}"}
        for number in range(count)
    }


async def measure(stage: Stage, seconds: float) -> list[float]:
    """CPU of a worker, a dispatcher and Redis, % of a core each; reports a second, bytes of each and a second."""
    sizes: list[int] = []

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        sizes.append(len(message.body))

    pids = [
        [each.pid for each in stage.fleet.workers],
        [each.pid for each in stage.fleet.dispatchers],
        [stage.redis.pid],
    ]
    async with await aio_pika.connect(stage.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(topology.REPORTS)
        await queue.consume(take, no_ack=True)
        before, begun_s = [[cpu_s(pid) for pid in group] for group in pids], time.monotonic()
        await asyncio.sleep(seconds)
        passed_s = time.monotonic() - begun_s
        used = [
            [cpu_s(pid) - was for pid, was in zip(group, old, strict=True)]
            for group, old in zip(pids, before, strict=True)
        ]
    parts = [100 * sum(group) / len(group) / passed_s for group in used]
    per_s = len(sizes) / passed_s
    return [*parts, per_s, sum(sizes) / max(1, len(sizes)), sum(sizes) / passed_s]
