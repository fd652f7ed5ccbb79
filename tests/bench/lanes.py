"""Many lanes in one fleet: ``--only lanes`` for opening them, ``--only reports`` for what 16 workers' reports cost.

``lanes``: four workers share out 2,000 lanes of one simulated exchange (``--workers 200,2000`` for other numbers), each
lane to two of them (``worker.spread``). Measured are the time until each lane has both, memory, and the CPU at rest.

``reports``: a real dispatcher and one real worker with 200 lanes. Fifteen more workers are made of its reports: what it
said of its lanes is published in their names too, as often as each would. A machine that measures need not carry them.
"""

import asyncio
import contextlib
import functools
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final

import aio_pika
from msgspec.structs import replace

from deploy.local import Service, Services
from schemas import topology
from schemas.config import DispatcherConfig
from schemas.messages import encode
from schemas.reports import BucketReport, LaneReport, Report, decode_report
from schemas.runtime.results import now_ms
from schemas.runtime.tasks import end_tasks
from workers.reports import METHODS_EVERY
from workers.service import QUIET_PART

from .idle import EXCHANGE, lanes_of
from .measure import Options, cpu_s, resident_mib
from .stage import Servers, Stage

LANES: Final = 2_000
WORKERS: Final = 4
SPREAD: Final = 2
# Two workers can use up its limits; OKX's lanes would have four, which is all.
SPREAD_OVER: Final = "coinbase"
SECONDS: Final = 20.0
OPEN_TIMEOUT_S: Final = 900.0
REPORTED: Final = 200
REPORTERS: Final = 16
EVERY_S: Final = 0.2


async def run(options: Options) -> None:
    """Opens many lanes and prints what that takes."""
    table = options.table(
        f"Lanes of one exchange, {WORKERS} workers, two for each lane, one dispatcher; CPU in % of a core, at rest",
        *("lanes", "queues s", "all open s", "a worker has", "MiB", "% of a core", "dispatcher MiB", "% of a core"),
        *("RabbitMQ MiB", "Redis MiB", "% of a core"),
    )
    async with Servers.started() as servers:
        for count in options.workers or (LANES,):
            lanes = functools.partial(lanes_of, count)
            config = {"worker": {"spread": SPREAD}, "broker": {"timeout_s": 60.0}}
            async with servers.stage([SPREAD_OVER], dispatchers=0, workers=0, lanes=lanes, config=config) as stage:
                fleet, begun_s = stage.fleet, time.monotonic()
                dispatcher = fleet.add_dispatcher()
                await _until(functools.partial(_serves, dispatcher))
                queues_s, begun_s = time.monotonic() - begun_s, time.monotonic()
                for _ in range(WORKERS):
                    fleet.add_worker()
                await _until(functools.partial(_all_open, fleet))
                opened_s = time.monotonic() - begun_s
                await asyncio.sleep(10.0)  # what opening them left behind
                each = [len(await _open_at(worker)) for worker in fleet.workers]
                pids = [[worker.pid for worker in fleet.workers], [dispatcher.pid], [stage.redis.pid]]
                workers, one, redis = await _busy(pids, options.seconds or SECONDS)
                memory = [sum(map(resident_mib, group)) / len(group) for group in (*pids, [stage.rabbitmq.pid])]
                table.row(
                    *(count, queues_s, opened_s, f"{min(each)} to {max(each)}", memory[0], workers, memory[1], one),
                    *(memory[3], memory[2], redis),
                )


async def _until(done: Callable[[], Awaitable[bool]]) -> None:
    give_up_s = time.monotonic() + OPEN_TIMEOUT_S
    while not await done():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"not open after {OPEN_TIMEOUT_S:.0f} s")
        await asyncio.sleep(1.0)


async def _serves(service: Service) -> bool:
    return (await service.ask("readyz"))[0] == 200


async def _open_at(worker: Service) -> list[str]:
    return [each["lane"] for each in (await worker.status()).get("lanes", ()) if each["open"]]


async def _all_open(fleet: Services) -> bool:
    """Whether each lane is open at as many workers as it should be, and no more."""
    counts = Counter([lane for worker in fleet.workers for lane in await _open_at(worker)])
    return len(counts) == len(fleet.lanes) and set(counts.values()) == {SPREAD}


async def _busy(pids: Sequence[Sequence[int]], seconds: float) -> list[float]:
    """What a process of each group uses of a core, on average, in %."""
    before, begun_s = [[cpu_s(pid) for pid in group] for group in pids], time.monotonic()
    await asyncio.sleep(seconds)
    passed_s = time.monotonic() - begun_s
    used = [sum(map(cpu_s, group)) - sum(old) for group, old in zip(pids, before, strict=True)]
    return [100 * each / len(group) / passed_s for each, group in zip(used, pids, strict=True)]


async def run_reports(options: Options) -> None:
    """Measures and prints what reports cost a dispatcher."""
    table = options.table(
        f"A dispatcher with {REPORTED} lanes and {REPORTERS} workers: CPU in % of a core",
        *("", "the dispatcher", "reports a second", "bytes a second"),
    )
    async with (
        Servers.started() as servers,
        servers.stage([EXCHANGE], workers=1, lanes=functools.partial(lanes_of, REPORTED)) as stage,
    ):
        await asyncio.sleep(10.0)
        crowd = Crowd(stage)
        dispatcher = [stage.fleet.dispatchers[0].pid]
        seconds = options.seconds or SECONDS
        kinds = (
            ("one worker", 0, REPORTED, 0.0),
            ("at rest, each serves all lanes", REPORTERS - 1, REPORTED, 0.0),
            (f"at rest, {SPREAD} serve each lane", REPORTERS - 1, REPORTED * SPREAD // REPORTERS, 0.0),
            ("200 answers a second, each serves all", REPORTERS - 1, REPORTED, 200.0),
            (f"200 answers a second, {SPREAD} serve each", REPORTERS - 1, REPORTED * SPREAD // REPORTERS, 200.0),
        )
        for title, workers, each, per_s in kinds:
            async with crowd.reporting(workers, each, per_s):
                await asyncio.sleep(5.0)
                crowd.seen.clear()
                begun_s = time.monotonic()
                (used,) = await _busy([dispatcher], seconds)
                passed_s = time.monotonic() - begun_s
                table.row(title, used, len(crowd.seen) / passed_s, sum(crowd.seen) / passed_s)


class Crowd:
    """Workers that are made of the reports of one."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._lanes: dict[str, LaneReport] = {}  # of the real worker, with methods and what they list
        self.seen: list[int] = []

    @contextlib.asynccontextmanager
    async def reporting(self, workers: int, each: int, per_s: float) -> AsyncGenerator[None]:
        """So many workers report, each of so many of the lanes, and of so many answers together a second."""
        async with await aio_pika.connect(self._stage.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(topology.REPORTS)
            await queue.consume(self._take, no_ack=True)
            while not self._lanes:
                await asyncio.sleep(0.1)
            exchange = await channel.get_exchange(topology.REPORTS, ensure=False)
            tasks = [
                asyncio.create_task(self._report(exchange, number, each, per_s / workers)) for number in range(workers)
            ]
            try:
                yield
            finally:
                await end_tasks(tasks)
                for number in range(workers):
                    report = Report(f"made-{number}", now_ms(), list(self._lanes.values()), leaving=True)
                    await exchange.publish(aio_pika.Message(encode(report)), "")

    async def _take(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        self.seen.append(len(message.body))
        report = decode_report(message.body)
        if not self._lanes and report.whole and all(lane.methods for lane in report.lanes):
            self._lanes = {
                lane.lane: replace(lane.at_rest(), methods=lane.methods, knowledge=lane.knowledge)
                for lane in report.lanes
            }

    async def _report(self, exchange: Any, which: int, each: int, per_s: float) -> None:
        """As a worker does: of all lanes once a second, of those with news in between, and seldom of nothing at all."""
        worker, names = f"made-{which}", sorted(self._lanes)
        lanes = [names[(which * each + one) % len(names)] for one in range(each)]
        chance, number, working = random.Random(worker), 0, set[str]()
        started_ms, quiet_until_s = now_ms() - 3_600_000, 0.0
        await asyncio.sleep(chance.uniform(0, EVERY_S))
        while True:
            whole = number % 5 == 0
            news = {chance.choice(lanes) for _ in range(_count(chance, per_s * EVERY_S))}
            told = lanes if whole else sorted(news | working)
            with_methods = whole and number % (5 * METHODS_EVERY) == 0
            bodies = [self._lane(name, news, with_methods=with_methods) for name in told]
            if bodies or time.monotonic() >= quiet_until_s:
                quiet_until_s = time.monotonic() + DispatcherConfig().silent_after_s * QUIET_PART
                report = Report(worker, now_ms(), bodies, started_ms=started_ms, busy=0.1, whole=whole, places=50)
                await exchange.publish(aio_pika.Message(encode(report)), "")
            number, working = number + 1, news
            await asyncio.sleep(EVERY_S)

    def _lane(self, name: str, news: set[str], *, with_methods: bool) -> LaneReport:
        known = self._lanes[name]
        lane = known if with_methods else replace(known, methods=None, knowledge="")
        if name not in news:
            return lane
        buckets = {"of_20": BucketReport(used=0.2, granted=1.0, amount=20.0, window_s=2.0)}
        return replace(lane, ok=1, exchange_ms=30.0, in_flight=1, budget_ms=100.0, buckets=buckets)


def _count(chance: random.Random, mean: float) -> int:
    """So many on average."""
    return int(mean) + (chance.random() < mean % 1)
