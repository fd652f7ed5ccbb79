"""What one request and one open lane cost each part of a fleet, as measured on this machine.

A small fleet on a simulator whose limits are far away: five OKX-like lanes of one address each. Requests come at fixed
times. The CPU time at two rates says what a request costs and what a second costs without any.
"""

import asyncio
import functools
import os
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import aio_pika
import aiormq
from aiormq.abc import DeliveredMessage
from msgspec import Struct

from deploy.servers import RabbitMQ
from schemas.messages import Request

from . import idle
from .measure import Cpu, percentile
from .stage import Servers, Stage

# Trades: 100 in 2 s each.
LANES: Final = 5
ASKED: Final = Request("fetch_trades", {"symbol": "BTC/USDT", "limit": 20})
RATES: Final = (20, 80)
SECONDS: Final = 10.0
AT_ONCE: Final = 100
SATURATED: Final = 3_000
PARTS: Final = ("client", "rabbitmq", "dispatcher", "worker", "redis", "exchange")
# Reports of 80 workers, five a second each.
REPORTS: Final = 2_000
REPORTS_PER_S: Final = 400
REPORT_BYTES: Final = 1_000
FANS: Final = (1, 5)
# What RabbitMQ does one message after another: the queue of all requests, and its write-ahead log.
SERIAL: Final = ("the queue fleet.requests", "the write-ahead log")
# Work of all of Erlang's processes, of the queue's leader, and of the log's writer, in reductions.
_REDUCTIONS: Final = """
{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"VHOST">>, queue, <<"fleet.requests">>)),
{Name, _} = amqqueue:get_pid(Queue),
Of = fun(Process) -> {reductions, Count} = erlang:process_info(whereis(Process), reductions), Count end,
Wal = hd([Each || Each <- registered(), lists:suffix("ra_log_wal", atom_to_list(Each)), is_pid(whereis(Each))]),
io_lib:format("~b ~b ~b", [element(1, erlang:statistics(exact_reductions)), Of(Name), Of(Wal)]).
"""


class Steady(Struct, frozen=True):
    """A load at a fixed rate, or of so many at a time.

    Args:
        per_s: requests answered a second.
        p50_ms: from when a request was due to its decoded answer.
        p99_ms: the same.
        busy: each part's CPU time, in cores.
        failed: requests that ended in an error.
        others: what else ran on this machine meanwhile, in cores.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    busy: Mapping[str, float]
    failed: int
    others: float = 0.0


class Costs(Struct, frozen=True):
    """What each part costs.

    Args:
        request_us: CPU of one request at low rates, by part (`PARTS`), all processes of a part together.
        busy_us: the same where a hundred are under way: what comes together is read, sent and written together.
        base: CPU without any request, in cores, by part.
        serial_us: of RabbitMQ's `busy_us`, what it does one message after another, by `SERIAL`.
        steady: the loads that say so.
    """

    request_us: Mapping[str, float]
    busy_us: Mapping[str, float]
    base: Mapping[str, float]
    serial_us: Mapping[str, float]
    steady: list[Steady]


class Reports(Struct, frozen=True):
    """What a worker's report costs beside what is in it, CPU seconds.

    Args:
        published_s: RabbitMQ.
        delivered_s: RabbitMQ, for each dispatcher that gets it.
        taken_s: a dispatcher, to read it from its connection.
    """

    published_s: float
    delivered_s: float
    taken_s: float

    def rabbitmq(self, workers: int, dispatchers: int) -> float:
        """RabbitMQ, for one report of each worker to each dispatcher."""
        return workers * (self.published_s + dispatchers * self.delivered_s)


async def reports(rabbitmq: RabbitMQ) -> Reports:
    """Measures messages of a report's size, to one queue and to several."""
    (one_mq, one_own), (many_mq, many_own) = [await _fanned_out(rabbitmq, count) for count in FANS]
    more = FANS[1] - FANS[0]
    delivered_s, taken_s = (many_mq - one_mq) / more, (many_own - one_own) / more
    return Reports(max(0.0, one_mq - FANS[0] * delivered_s), max(0.0, delivered_s), max(0.0, taken_s))


async def _fanned_out(rabbitmq: RabbitMQ, queues: int) -> tuple[float, float]:
    """CPU seconds of a message to so many queues: RabbitMQ's, and our own."""
    seen = 0

    async def take(_: DeliveredMessage) -> None:
        nonlocal seen
        seen += 1

    async with await aio_pika.connect(rabbitmq.url) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        await channel.exchange_declare(name := f"bench.reports.{queues}", exchange_type="fanout", auto_delete=True)
        for _ in range(queues):
            queue = (await channel.queue_declare("", exclusive=True)).queue or ""
            await channel.queue_bind(queue, name)
            await channel.basic_consume(queue, take, no_ack=True)
        cpu = Cpu({"rabbitmq": rabbitmq.pid, "own": os.getpid()})
        begun_s = time.perf_counter()
        for number in range(REPORTS):
            await asyncio.sleep(max(0.0, begun_s + number / REPORTS_PER_S - time.perf_counter()))
            await channel.basic_publish(bytes(REPORT_BYTES), exchange=name, wait=False)
        while seen < REPORTS * queues:
            await asyncio.sleep(0.01)
        used = cpu.us_each(REPORTS)
    return used["rabbitmq"] / 1e6, used["own"] / 1e6


def small(servers: Servers, *, workers: int = 1, dispatchers: int = 1) -> AbstractAsyncContextManager[Stage]:
    """The small fleet, as `Servers.stage` gives it."""
    return servers.stage(
        [idle.EXCHANGE], workers=workers, dispatchers=dispatchers, lanes=functools.partial(idle.lanes_of, LANES)
    )


async def measured(stage: Stage, seconds: float = SECONDS) -> Costs:
    """Measures this fleet."""
    await steady(stage, RATES[1], 2.0)  # what is done once
    low = await steady(stage, RATES[0], seconds)
    high = await steady(stage, RATES[1], seconds)
    before = await _reductions(stage)
    full = await saturated(stage, AT_ONCE, SATURATED)
    total, *serial = (after - was for after, was in zip(await _reductions(stage), before, strict=True))
    request_us = {part: (high.busy[part] - low.busy[part]) / (high.per_s - low.per_s) * 1e6 for part in PARTS}
    base = {part: max(0.0, low.busy[part] - request_us[part] * low.per_s / 1e6) for part in PARTS}
    busy_us = {part: full.busy[part] / full.per_s * 1e6 for part in PARTS}
    serial_us = [busy_us["rabbitmq"] * each / total for each in serial]
    return Costs(request_us, busy_us, base, dict(zip(SERIAL, serial_us, strict=True)), [low, high, full])


async def steady(stage: Stage, per_s: float, seconds: float) -> Steady:
    """Asks at fixed times."""
    count, start_s = int(per_s * seconds), time.perf_counter() + 0.05

    async def call(number: int) -> tuple[float, bool]:
        due_s = start_s + number / per_s
        await asyncio.sleep(due_s - time.perf_counter())
        result = await stage.client.ask(ASKED)
        return (time.perf_counter() - due_s) * 1000, result.ok

    return await _timed(stage, [call(number) for number in range(count)])


async def saturated(stage: Stage, at_once: int, count: int) -> Steady:
    """Asks so many at a time, as fast as they are answered."""
    room = asyncio.Semaphore(at_once)

    async def call() -> tuple[float, bool]:
        async with room:
            begun_s = time.perf_counter()
            result = await stage.client.ask(ASKED)
            return (time.perf_counter() - begun_s) * 1000, result.ok

    return await _timed(stage, [call() for _ in range(count)])


async def _timed(stage: Stage, calls: Sequence[Awaitable[tuple[float, bool]]]) -> Steady:
    groups = {
        "client": [os.getpid()],
        "rabbitmq": [stage.rabbitmq.pid],
        "dispatcher": [each.pid for each in stage.fleet.dispatchers],
        "worker": [each.pid for each in stage.fleet.workers],
        "redis": [stage.redis.pid],
        "exchange": [stage.simulator.pid or 0],
    }
    cpu = Cpu({f"{part} {pid}": pid for part, pids in groups.items() for pid in pids})
    begun_s, machine_s = time.perf_counter(), _machine_s()
    found = await asyncio.gather(*calls)
    took_s = time.perf_counter() - begun_s
    all_of_it = (_machine_s() - machine_s) / took_s
    used_us = cpu.us_each(1)
    busy = {part: sum(used_us[f"{part} {pid}"] for pid in pids) / 1e6 / took_s for part, pids in groups.items()}
    took_ms = [each for each, _ in found]
    failed = sum(not ok for _, ok in found)
    others = max(0.0, all_of_it - sum(busy.values()))
    return Steady(len(found) / took_s, percentile(took_ms, 0.5), percentile(took_ms, 0.99), busy, failed, others)


def _machine_s() -> float:
    """The CPU time of all processes so far: user, nice, system, interrupts, of /proc/stat (proc(5))."""
    fields = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
    return sum(fields[number] for number in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")


async def _reductions(stage: Stage) -> list[int]:
    said = await stage.rabbitmq.eval(_REDUCTIONS.replace("VHOST", stage.url.rpartition("/")[2]))
    return [
        int(word) for word in said.strip().strip('"[]').replace('"', " ").replace(",", " ").split() if word.isdigit()
    ]
