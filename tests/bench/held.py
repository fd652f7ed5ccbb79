"""What the processes of a long run hold, and whether that was flat.

Sockets to exchanges are apart from other handles. aiohttp takes the connection that was idle for longest (since 3.11,
https://github.com/aio-libs/aiohttp/pull/9672), so as long as calls come none is idle long enough to be closed: a worker
holds as many as it once needed at the same time. That steps up when a machine is busy for a moment, and says nothing of
a leak. A leak shows when no call has come for a while, nor a probe: then all that are still known are closed.
"""

import asyncio
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from yarl import URL

from schemas.runtime.store import connect

from .measure import resident_mib
from .stage import Servers, Stage

# What a process holds when it has done all it does once is the base; beyond it, this much is noise of the allocator.
GROWTH: Final = 0.05
GROWTH_MIB: Final = 4.0


class Handles(Struct, frozen=True):
    """What a process has open.

    Args:
        exchanges: sockets to exchanges.
        others: all other files and sockets.
    """

    exchanges: int
    others: int


class Sample(Struct, frozen=True):
    """What all hold at one moment.

    Args:
        memory_mib: by process.
        handles: by process.
        channels: of the broker.
        unsettled: deliveries that consumers hold.
        messages: in all queues.
        keys: in Redis.
        lasting: those of them that never expire.
    """

    memory_mib: dict[str, float]
    handles: dict[str, Handles]
    channels: int
    unsettled: int
    messages: int
    keys: int
    lasting: int


class Judged(Struct, frozen=True):
    """One thing that is to be flat.

    Args:
        what: what is held, and by which process.
        before: in the second quarter; empty where the end alone counts.
        after: in the last quarter, or at the end.
        aim: what was allowed.
        flat: whether it is within that.
    """

    what: str
    before: str
    after: str
    aim: str
    flat: bool


def handles(pid: int, ports: Collection[int]) -> Handles:
    """Counts what a process has open, TCP sockets to these ports apart (/proc/<pid>/fd and net/tcp, proc(5))."""
    inodes = _sockets(pid, ports)
    exchanges = others = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # Closed meanwhile.
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            exchanges += 1
        else:
            others += 1
    return Handles(exchanges, others)


def _sockets(pid: int, ports: Collection[int]) -> set[str]:
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        table = Path(f"/proc/{pid}/net/{name}")
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if int(fields[2].rpartition(":")[2], 16) in ports:
                found.add(fields[9])
    return found


def exchange_ports(stage: Stage) -> set[int]:
    """The ports of the simulator's exchanges."""
    return {port for url in stage.simulator.urls.values() if (port := URL(url).port)}


async def look(servers: Servers, stage: Stage) -> Sample:
    """Takes a sample; that needs seconds, as rabbitmqctl boots a machine of its own."""
    pids = {service.name: service.pid for service in (*stage.fleet.dispatchers, *stage.fleet.workers)}
    pids |= {"rabbitmq": servers.rabbitmq.pid, "redis": servers.redis.pid}
    vhost = stage.url.rpartition("/")[2]
    channels, queues = await asyncio.gather(
        servers.rabbitmq.ctl("list_channels", "pid"),
        servers.rabbitmq.ctl("list_queues", "-p", vhost, "messages", "messages_unacknowledged"),
    )
    counts = [line.split() for line in queues.splitlines() if line[:1].isdigit()]
    keys, lasting = await _keys(servers.redis.url)
    ports = exchange_ports(stage)
    return Sample(
        memory_mib={name: resident_mib(pid) for name, pid in pids.items()},
        handles={name: handles(pid, ports) for name, pid in pids.items()},
        channels=sum(word.startswith("<") for word in channels.split()),
        unsettled=sum(int(unsettled) for _, unsettled in counts),
        messages=sum(int(messages) for messages, _ in counts),
        keys=keys,
        lasting=lasting,
    )


async def _keys(url: str) -> tuple[int, int]:
    """How many keys Redis has, and how many of them never expire."""
    async with connect(url, timeout_s=5) as store:
        client: Any = store
        keys = [key async for key in client.scan_iter(count=1000)]
        lasting = 0
        for start in range(0, len(keys), 500):
            pipeline = client.pipeline(transaction=False)
            for key in keys[start : start + 500]:
                pipeline.ttl(key)
            lasting += (await pipeline.execute()).count(-1)
        return len(keys), lasting


def judge(samples: Sequence[Sample], last: Sample, idle: Mapping[str, int], exchanges: int) -> list[Judged]:
    """Sets the end beside the second quarter: by then everything has been done once. Pure.

    Args:
        samples: those taken under load, in their order.
        last: the one after the load.
        idle: each worker's sockets to exchanges when no call had come for so long that all should be closed.
        exchanges: how many there are. A call of the worker's own may have opened one connection to each again.
    """
    quarter = len(samples) // 4
    base, end = samples[quarter : 2 * quarter + 1], samples[-quarter - 1 :]
    rows: list[Judged] = []

    def row(what: str, after: float, most: float, before: float | None = None) -> None:
        text = "" if before is None else f"{before:.0f}"
        rows.append(Judged(what, text, f"{after:.0f}", f"<= {most:.0f}" if most else "0", after <= most))

    for name in last.memory_mib:
        before = statistics.median(sample.memory_mib[name] for sample in base)
        after = statistics.median(sample.memory_mib[name] for sample in end)
        row(f"memory of {name}, MiB", after, max(before * (1 + GROWTH), before + GROWTH_MIB), before)
    for name in last.handles:
        most = max(sample.handles[name].others for sample in base)
        row(f"file handles of {name}", min(sample.handles[name].others for sample in end), most, most)
    for name, count in idle.items():
        under_load = max(sample.handles[name].exchanges for sample in samples)
        row(f"connections of {name} to exchanges: most, then idle", count, exchanges, under_load)
    channels = max(sample.channels for sample in base)
    row("channels", last.channels, channels, channels)
    row("keys in Redis that never expire", last.lasting, 0)
    row("unsettled deliveries", last.unsettled, 0)
    return rows
