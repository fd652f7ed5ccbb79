"""Half an hour at half of what the machine can carry: ``python -m tests.bench.soak`` (``make soak``).

First the fleet is asked for all it can do, then for half of that, at fixed times, on five exchanges. Every minute a row
shows what its processes hold: memory, file handles, channels, keys, unsettled deliveries. At the end the load
stops, everything is answered, and a table says which of it was flat. It leaves with 1 where something was not.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import redis.asyncio
import uvloop
from msgspec import Struct

from schemas.messages import Request
from schemas.runtime.store import connect
from schemas.runtime.tasks import end_tasks
from tests.faults.verdict import least, spare_by_limit

from .load import METHODS, PAIRS
from .measure import Options, met, percentile, resident_mib
from .stage import Servers, Stage

MINUTES: Final = 30.0
SAMPLES: Final = 30
# One look takes seconds: rabbitmqctl boots a machine of its own.
LOOK_EVERY_S: Final = 10.0
WORKERS: Final = 2
DISPATCHERS: Final = 2
CAPACITY_S: Final = 30.0
WARM_UP_S: Final = 10.0
AT_ONCE: Final = 200
# What a process holds when it has done all it does once is the base; beyond it, this much is noise of the allocator.
GROWTH: Final = 0.05
GROWTH_MIB: Final = 4.0
SETTLE_S: Final = 60.0


class Sample(Struct, frozen=True):
    """What all hold at one moment.

    Args:
        memory_mib: by process.
        handles: open files and sockets, by process.
        channels: of the broker.
        unsettled: deliveries that consumers hold.
        messages: in all queues.
        keys: in Redis.
        lasting: those of them that never expire.
    """

    memory_mib: dict[str, float]
    handles: dict[str, int]
    channels: int
    unsettled: int
    messages: int
    keys: int
    lasting: int


class Load:
    """Requests of all methods for any exchange."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._calls = itertools.cycle([(method, args, pair) for pair in PAIRS for method, args in METHODS.items()])
        self.sent = self.answered = self.errors = 0
        self.took_ms: list[float] = []

    async def ask(self) -> None:
        """Sends the next and waits for its result."""
        method, args, pair = next(self._calls)
        self.sent += 1
        begun_s = time.monotonic()
        result = await self._stage.client.ask(Request(method, {"symbol": pair, **args}))
        self.took_ms.append((time.monotonic() - begun_s) * 1000)
        self.answered += 1
        self.errors += not result.ok

    async def capacity_per_s(self) -> float:
        """What the fleet answers in a second when it is asked for all it can do."""

        async def go_on() -> None:
            while True:
                await self.ask()

        tasks = [asyncio.create_task(go_on()) for _ in range(AT_ONCE)]
        await asyncio.sleep(WARM_UP_S)
        before = self.answered
        await asyncio.sleep(CAPACITY_S)
        found = (self.answered - before) / CAPACITY_S
        await end_tasks(tasks)
        return found

    async def steady(self, per_s: float, seconds: float) -> None:
        """Sends at fixed times for so long, and waits for the results."""
        begun_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_s * seconds)):
                await asyncio.sleep(max(0.0, begun_s + number / per_s - time.monotonic()))
                group.create_task(self.ask())


async def main(minutes: float, options: Options) -> bool:
    """Runs and prints; whether all was flat."""
    async with (
        Servers.started() as servers,
        servers.stage(workers=WORKERS, dispatchers=DISPATCHERS) as stage,
        connect(servers.redis.url, timeout_s=5) as store,
    ):
        load = Load(stage)
        capacity = await load.capacity_per_s()
        print(f"The fleet answers {capacity:.0f} requests a second at most; half of that for {minutes:g} minutes.")
        table = options.table(
            "Every row a moment",
            *("minute", "answered", "open", "errors", "p99, ms", "memory, MiB", "handles", "channels"),
            *("unsettled", "messages", "keys", "lasting keys"),
        )
        load = Load(stage)
        running = asyncio.create_task(load.steady(capacity / 2, minutes * 60))
        samples: list[Sample] = []
        begun_s = time.monotonic()
        every_s = max(minutes * 60 / SAMPLES, LOOK_EVERY_S)
        for number in itertools.count(1):
            await asyncio.wait([running], timeout=max(0.1, begun_s + number * every_s - time.monotonic()))
            if running.done():
                break
            samples.append(await _sample(servers, stage, store))
            cells = _cells(samples[-1])
            recent_ms, load.took_ms = load.took_ms or [0.0], []
            counts = [f"{load.answered:,}", str(load.sent - load.answered), str(load.errors)]
            table.row(f"{(time.monotonic() - begun_s) / 60:.1f}", *counts, percentile(recent_ms, 0.99), *cells)
        await running
        # The last acknowledgements are on their way.
        give_up_s = time.monotonic() + SETTLE_S
        while (last := await _sample(servers, stage, store)).unsettled and time.monotonic() < give_up_s:
            await asyncio.sleep(0.5)
        table.row("the end", f"{load.answered:,}", "0", str(load.errors), "", *_cells(last))
        counters = await stage.simulator.counters()
        for name, counts in counters["exchanges"].items():
            for broken in counts["broken"]:
                print(f"{name} broken: {broken}", flush=True)
        spare_ms = least(spare_by_limit(counters["exchanges"]))
        return _verdict(options, load, samples, last, counters["violations"], spare_ms)


def _cells(sample: Sample) -> list[str]:
    memory = ", ".join(f"{name} {mib:.0f}" for name, mib in sample.memory_mib.items())
    handles = ", ".join(str(count) for count in sample.handles.values())
    counts = (sample.channels, sample.unsettled, sample.messages, sample.keys, sample.lasting)
    return [memory, handles, *map(str, counts)]


async def _sample(servers: Servers, stage: Stage, store: redis.asyncio.Redis) -> Sample:
    pids = {service.name: service.pid for service in (*stage.fleet.dispatchers, *stage.fleet.workers)}
    pids |= {"rabbitmq": servers.rabbitmq.pid, "redis": servers.redis.pid}
    vhost = stage.url.rpartition("/")[2]
    channels, queues = await asyncio.gather(
        servers.rabbitmq.ctl("list_channels", "pid"),
        servers.rabbitmq.ctl("list_queues", "-p", vhost, "messages", "messages_unacknowledged"),
    )
    counts = [line.split() for line in queues.splitlines() if line[:1].isdigit()]
    client: Any = store
    keys = [key async for key in client.scan_iter(count=1000)]
    lasting = 0
    for start in range(0, len(keys), 500):
        pipeline = client.pipeline(transaction=False)
        for key in keys[start : start + 500]:
            pipeline.ttl(key)
        lasting += (await pipeline.execute()).count(-1)
    return Sample(
        memory_mib={name: resident_mib(pid) for name, pid in pids.items()},
        handles={name: _handles(pid) for name, pid in pids.items()},
        channels=sum(word.startswith("<") for word in channels.split()),
        unsettled=sum(int(unsettled) for _, unsettled in counts),
        messages=sum(int(messages) for messages, _ in counts),
        keys=len(keys),
        lasting=lasting,
    )


def _handles(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _verdict(
    options: Options, load: Load, samples: Sequence[Sample], last: Sample, violations: int, spare_ms: str
) -> bool:
    """The end beside the second quarter: by then everything has been done once."""
    table = options.table("Flat at the end?", "", "second quarter", "last quarter", "aim", "")
    quarter = len(samples) // 4
    base, end = samples[quarter : 2 * quarter + 1], samples[-quarter - 1 :]
    good: list[bool] = []

    def row(what: str, before: float | str, after: float, aim: str, flat: bool) -> None:
        good.append(flat)
        table.row(what, before, after, aim, met(flat))

    for name in last.memory_mib:
        before = statistics.median(sample.memory_mib[name] for sample in base)
        after = statistics.median(sample.memory_mib[name] for sample in end)
        most = max(before * (1 + GROWTH), before + GROWTH_MIB)
        row(f"memory of {name}, MiB", before, after, f"<= {most:.0f}", after <= most)
    for name in last.handles:
        before = max(sample.handles[name] for sample in base)
        after = min(sample.handles[name] for sample in end)
        row(f"file handles of {name}", str(before), after, f"<= {before}", after <= before)
    channels = max(sample.channels for sample in base)
    row("channels", str(channels), last.channels, f"<= {channels}", last.channels <= channels)
    row("keys in Redis that never expire", "", last.lasting, "0", last.lasting == 0)
    row("unsettled deliveries", "", last.unsettled, "0", last.unsettled == 0)
    row("requests without an answer", "", load.sent - load.answered, "0", load.sent == load.answered)
    row("requests that ended in an error", "", load.errors, "0", load.errors == 0)
    row("limits broken", "", violations, "0", violations == 0)
    table.row("  room to spare", "", spare_ms, "", "")
    return all(good)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"how long (default: {MINUTES:g})")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    words = parser.parse_args()
    sys.exit(0 if uvloop.run(main(words.minutes, Options(markdown=words.markdown))) else 1)
