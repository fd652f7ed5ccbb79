"""A discrete-event model of a fleet: ``--only model``.

It takes what a request and an open lane cost each part (`costs`, measured first, in the same run), and says what a
fleet of any size carries, and how much time it adds. Requests come at random (Poisson). Each part is processes that
do one thing at a time, on machines whose cores they share; what waits, waits in order. RabbitMQ uses all cores of its
machine, but for what it does one message after another. Reports of lanes and beats of budgets take their time too.

One thing is fitted: what passes between two parts without using a CPU (the network, waking up). It makes the median at
the lowest rate right. All other rates and sizes are then predicted, and set beside what was measured.

Not in it: failures, retries, requests that wait for a limit, networks that are full, garbage collection, and memory.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from . import idle
from .costs import (
    AT_ONCE,
    PARTS,
    RATES,
    SATURATED,
    SECONDS,
    SERIAL,
    Costs,
    Reports,
    Steady,
    measured,
    reports,
    saturated,
    small,
    steady,
)
from .measure import Options, percentile
from .simulated import Cores, Part, World
from .stage import Servers

# What is left to the exchange: the simulator's own answer takes no time of its own.
REPORT_EVERY_S: Final = 0.2
WHOLE_EVERY_S: Final = 1.0
REPORTS_PER_S: Final = 1 / REPORT_EVERY_S
# Hops between processes: to RabbitMQ, the dispatcher, RabbitMQ, a worker, Redis and back, the exchange and back,
# RabbitMQ, the caller.
HOPS: Final = 10
CHECKED_RATES: Final = (40, 120)
# The parts of a request's cost before the exchange is called: the worker's, the caller's.
BEFORE: Final = 0.6
# How long a process runs where others want the core, by Linux's scheduler (sched_base_slice_ns, 2 CPUs).
TURN_S: Final = 0.003


class Size(Struct, frozen=True):
    """A fleet, and the machines that it has.

    Args:
        lanes: open lanes, each one address at one exchange.
        workers: processes.
        dispatchers: processes.
        each: how many workers have each lane open.
        cores: of the one machine that has all; 0 where each process has a core of its own.
        rabbitmq_cores: of RabbitMQ's machine, where it has one of its own.
        shards: of Redis.
        exchange_ms: until an exchange answers.
    """

    lanes: int
    workers: int
    dispatchers: int
    each: int
    cores: int = 0
    rabbitmq_cores: int = 16
    shards: int = 1
    exchange_ms: float = 0.0


class PerLane(Struct, frozen=True):
    """What open lanes cost, CPU seconds.

    Args:
        reports: what a report costs RabbitMQ, and who takes it.
        news_s: in a dispatcher, for each lane with news in a report.
        rest_s: in a dispatcher, for each lane without any in a report of all lanes.
        report_s: in a dispatcher, for a report itself.
        worker: of a worker, in cores, for each open lane.
        worker_base: of a worker, in cores, without any.
        redis: of Redis, in cores, for each open lane of each worker.
    """

    reports: Reports
    news_s: float
    rest_s: float
    report_s: float
    worker: float
    worker_base: float
    redis: float


class Fleet:
    """A fleet of some size, as the model has it."""

    def __init__(self, size: Size, costs: Costs, lane: PerLane, hop_s: float, seed: int = 1) -> None:
        self.world, self._size, self._costs, self._lane, self._hop_s = World(), size, costs, lane, hop_s
        self._draw = random.Random(seed)
        one = Cores(size.cores or None)
        own = Cores(size.rabbitmq_cores) if not size.cores else one
        us = self._us = {name: each / 1e6 for name, each in costs.request_us.items()}
        # What is done one after another keeps its part of RabbitMQ's cost, however busy that is.
        ratio = us["rabbitmq"] / max(1e-9, costs.busy_us["rabbitmq"] / 1e6)
        self._serial_s = {name: each / 1e6 * ratio for name, each in costs.serial_us.items()}
        self._cores = one

        def parts(name: str, count: int = 1, cores: Cores = one, threads: int = 1) -> list[Part]:
            busy = min(1.0, costs.busy_us[name] / 1e6 / max(1e-9, us[name]))
            return [Part(self.world, cores, threads, busy) for _ in range(count)]

        many = 1 if size.cores else 1_000_000  # callers and exchanges are many machines
        self.parts: dict[str, list[Part]] = {
            "client": parts("client", threads=many),
            "rabbitmq": parts("rabbitmq", cores=own, threads=size.cores or size.rabbitmq_cores),
            "dispatcher": parts("dispatcher", size.dispatchers),
            "worker": parts("worker", size.workers),
            "redis": parts("redis", size.shards),
            "exchange": parts("exchange", threads=many),
            **{name: [Part(self.world, own, 1, min(1.0, 1 / ratio))] for name in SERIAL},
        }
        # The workers that have each lane open, as even as can be.
        self._serving = [
            [self.parts["worker"][(number * size.each + place) % size.workers] for place in range(size.each)]
            for number in range(size.lanes)
        ]
        self._news: dict[int, set[int]] = {id(worker): set() for worker in self.parts["worker"]}
        self._turns = itertools.count()
        self.took_ms: list[tuple[float, float]] = []
        self._at_rest()

    def ask(self, then: Callable[[], None] = lambda: None) -> None:
        """One request, on its way from the caller and back."""
        size, us, number = self._size, self._us, next(self._turns)
        lane = self._draw.randrange(size.lanes)
        worker = self._draw.choice(self._serving[lane])
        dispatcher = self.parts["dispatcher"][number % size.dispatchers]
        # The lanes of one exchange lie in one shard; there are more exchanges than shards.
        redis = self.parts["redis"][lane % size.shards]
        serial_s = self._serial_s
        rabbitmq_s = max(0.0, us["rabbitmq"] - sum(serial_s.values())) / 3
        (client,), (rabbitmq,), (exchange,) = (self.parts[name] for name in ("client", "rabbitmq", "exchange"))
        queue, wal = (self.parts[name][0] for name in SERIAL)
        begun_s = self.world.now_s

        def noted() -> None:
            self._news[id(worker)].add(lane)

        steps: list[tuple[Part | None, float]] = [
            (client, us["client"] * BEFORE),
            (rabbitmq, rabbitmq_s),
            (queue, serial_s[SERIAL[0]]),
            (wal, serial_s[SERIAL[1]] / 2),
            (dispatcher, us["dispatcher"]),
            (rabbitmq, rabbitmq_s),
            (wal, serial_s[SERIAL[1]] / 2),
            (worker, us["worker"] * BEFORE),
            (redis, us["redis"]),
            (exchange, us["exchange"]),
            (None, size.exchange_ms / 1000),
            (worker, us["worker"] * (1 - BEFORE)),
            (rabbitmq, rabbitmq_s),
            (client, us["client"] * (1 - BEFORE)),
        ]
        way = iter(steps)

        def go_on() -> None:
            part, cost_s = next(way, (client, -1.0))
            if cost_s < 0:
                self.took_ms.append((begun_s, (self.world.now_s - begun_s) * 1000))
                noted()
                then()
            elif part is None:
                self.world.after(cost_s, go_on)
            else:
                self.world.after(self._hop_s * HOPS / len(steps), lambda: part.do(cost_s, go_on))

        go_on()

    def _at_rest(self) -> None:
        """What is done without any request: reports, beats, and the rest of what processes take at rest."""
        size, lane = self._size, self._lane
        open_lanes = size.lanes * size.each / size.workers
        shares = {
            "rabbitmq": lane.reports.rabbitmq(size.workers, size.dispatchers) * REPORTS_PER_S,
            "worker": lane.worker_base + lane.worker * open_lanes,
            "redis": lane.redis * open_lanes * size.workers / size.shards,
        }
        for name, share in shares.items():
            for part in self.parts[name]:
                self._every(0.05, lambda part=part, share=share: part.do(share * 0.05, lambda: None))  # type: ignore[misc]
        for worker in self.parts["worker"]:
            counter = itertools.count(self._draw.randrange(5))
            self._every(REPORT_EVERY_S, lambda worker=worker, counter=counter: self._report(worker, counter))  # type: ignore[misc]

    def _every(self, seconds: float, what: Callable[[], None]) -> None:
        def again() -> None:
            what()
            self.world.after(seconds, again)

        self.world.after(self._draw.random() * seconds, again)

    def _report(self, worker: Part, counter: Iterator[int]) -> None:
        lane, news = self._lane, self._news[id(worker)]
        cost_s = lane.reports.taken_s + lane.report_s + lane.news_s * len(news)
        if next(counter) % round(WHOLE_EVERY_S / REPORT_EVERY_S) == 0:
            cost_s += lane.rest_s * (self._size.lanes * self._size.each / self._size.workers - len(news))
        news.clear()
        for dispatcher in self.parts["dispatcher"]:
            dispatcher.do(cost_s, lambda: None)

    def beside(self, cores: float) -> None:
        """Others use so many of the machine's cores meanwhile, each for a scheduler's turn at a time."""
        others = Part(self.world, self._cores, 1_000_000)
        if cores > 0:
            self._every(TURN_S / cores, lambda: others.do(TURN_S, lambda: None))

    def busy(self, seconds: float) -> dict[str, float]:
        """The part of each part's time that was used, of the busiest process."""
        return {name: max(part.busy_s / part.threads for part in parts) / seconds for name, parts in self.parts.items()}


def at_rate(fleet: Fleet, per_s: float, seconds: float) -> Steady:
    """Asks so often, at random, for so long, the first fifth not counted."""
    draw, ends_s = random.Random(2), seconds

    def come() -> None:
        fleet.ask()
        if fleet.world.now_s < ends_s:
            fleet.world.after(draw.expovariate(per_s), come)

    come()
    fleet.world.run(seconds)
    return _counted(fleet, seconds)


def together(fleet: Fleet, at_once: int, seconds: float) -> Steady:
    """Has so many under way all the time."""

    def again() -> None:
        fleet.ask(again)

    for _ in range(at_once):
        again()
    fleet.world.run(seconds)
    return _counted(fleet, seconds)


def _counted(fleet: Fleet, seconds: float) -> Steady:
    begun_s = seconds / 5
    # By when they ended, so that a line that grows shows.
    ended = [took for at, took in fleet.took_ms if at + took / 1000 >= begun_s]
    took = ended or [float("nan")]
    busy = fleet.busy(seconds)
    return Steady(len(ended) / (seconds - begun_s), percentile(took, 0.5), percentile(took, 0.99), busy, 0)


def fitted(size: Size, costs: Costs, lane: PerLane, wanted_ms: float) -> float:
    """The hop that makes the median at the lowest rate what was measured, seconds."""
    fleet = Fleet(size, costs, lane, 0.0)
    fleet.beside(costs.steady[0].others)
    without = at_rate(fleet, RATES[0], 20.0)
    return max(0.0, (wanted_ms - without.p50_ms) / 1000 / HOPS)


async def run(options: Options) -> None:
    """Measures a small fleet, checks the model by it, and prints what it says of large ones."""
    seconds = options.seconds or SECONDS
    async with Servers.started() as servers:
        lane = await _per_lane(servers, seconds)
        async with small(servers) as stage:
            costs = await measured(stage, seconds)
        one = Size(lanes=5, workers=1, dispatchers=1, each=1, cores=2)
        hop_s = fitted(one, costs, lane, costs.steady[0].p50_ms)
        _show_costs(options, costs, lane, hop_s)
        table = options.table(
            "The model beside a fleet on this machine, 2 cores for all: measured, the model, their ratio",
            *(
                "fleet",
                "load",
                "others, cores",
                "answered/s",
                "model",
                "ratio",
                "p50, ms",
                "model",
                "ratio",
                "p99, ms",
                "model",
                "ratio",
            ),
        )
        for workers, dispatchers in ((1, 1), (2, 1), (2, 2)):
            size = replace(one, workers=workers, dispatchers=dispatchers, each=workers)
            async with small(servers, workers=workers, dispatchers=dispatchers) as stage:
                await steady(stage, RATES[1], 3.0)
                name = f"{dispatchers} dispatcher(s), {workers} worker(s)"
                for rate in CHECKED_RATES:
                    found = await steady(stage, rate, seconds)
                    fleet = Fleet(size, costs, lane, hop_s)
                    fleet.beside(found.others)
                    said = at_rate(fleet, rate, 30.0)
                    table.row(name, f"{rate} a second", f"{found.others:.1f}", *_beside(found, said))
                found = await saturated(stage, AT_ONCE, SATURATED)
                fleet = Fleet(size, costs, lane, hop_s)
                fleet.beside(found.others)
                said = together(fleet, AT_ONCE, 30.0)
                table.row(name, f"{AT_ONCE} at once", f"{found.others:.1f}", *_beside(found, said))
    _large(options, costs, lane, hop_s)


def _beside(found: Steady, said: Steady) -> list[str]:
    pairs = ((found.per_s, said.per_s), (found.p50_ms, said.p50_ms), (found.p99_ms, said.p99_ms))
    return [text for real, model in pairs for text in (f"{real:.1f}", f"{model:.1f}", f"{model / real:.2f}")]


async def _per_lane(servers: Servers, seconds: float) -> PerLane:
    """What open lanes cost, from fleets with few and with many of them."""
    counts, found = (20, 120), list[list[float]]()
    for count in counts:
        async with servers.stage(
            [idle.EXCHANGE],
            workers=1,
            lanes=lambda base, count=count: idle.lanes_of(count, base),  # type: ignore[misc]
        ) as stage:
            found.append(await idle.measure(stage, seconds))
    (few_worker, _, few_redis, *_), (worker, _, redis, *_) = found
    between = counts[1] - counts[0]
    each = max(0.0, worker - few_worker) / 100 / between
    works, rests, empty = (idle.report_us(make, whole=whole)[0] for _, make, whole in idle.REPORTS)
    return PerLane(
        reports=await reports(servers.rabbitmq),
        news_s=max(0.0, works - empty) / idle.REPORTED / 1e6,
        rest_s=max(0.0, rests - empty) / idle.REPORTED / 1e6,
        report_s=empty / 1e6,
        worker=each,
        worker_base=max(0.0, few_worker / 100 - each * counts[0]),
        redis=max(0.0, redis - few_redis) / 100 / between,
    )


def _show_costs(options: Options, costs: Costs, lane: PerLane, hop_s: float) -> None:
    table = options.table(
        "What the model knows, measured on this machine",
        *("", "a request, CPU µs", f"{AT_ONCE} at once, CPU µs", "at rest, % of a core"),
    )
    for part in PARTS:
        table.row(part, costs.request_us[part], costs.busy_us[part], costs.base[part] * 100)
    for name in SERIAL:
        table.row(f"of RabbitMQ, one after another: {name}", "", costs.serial_us[name], "")
    table = options.table("Of lanes", "", "")
    table.row("a worker, each open lane, % of a core", f"{lane.worker * 100:.3f}")
    table.row("a worker without any, % of a core", f"{lane.worker_base * 100:.1f}")
    table.row("RabbitMQ, each report, µs", lane.reports.published_s * 1e6)
    table.row("RabbitMQ, each report to each dispatcher, µs", lane.reports.delivered_s * 1e6)
    table.row("Redis, each open lane of each worker, % of a core", f"{lane.redis * 100:.3f}")
    table.row("a dispatcher, each report, µs", (lane.reports.taken_s + lane.report_s) * 1e6)
    table.row("a dispatcher, each lane with news in a report, µs", lane.news_s * 1e6)
    table.row("a dispatcher, each lane at rest in a report of all, µs", lane.rest_s * 1e6)
    table.row("fitted: between two processes, ms", f"{hop_s * 1e3:.2f}")


# Each lane is open in two workers.
LARGE: Final[Mapping[str, Size]] = {
    "10 lanes, 2 workers, 1 dispatcher": Size(10, 2, 1, 2),
    "100 lanes, 20 workers, 2 dispatchers": Size(100, 20, 2, 2),
    "1,000 lanes, 200 workers, 5 dispatchers": Size(1_000, 200, 5, 2),
    "the same, 3 shards, RabbitMQ on 32 cores": Size(1_000, 200, 5, 2, shards=3, rabbitmq_cores=32),
}
LOADS: Final = (0.1, 0.5, 0.8, 0.95, 1.2)


def _large(options: Options, costs: Costs, lane: PerLane, hop_s: float) -> None:
    table = options.table(
        "The model: each process on a core of its own, RabbitMQ on 16; the exchange's time is not counted",
        *("fleet", "asked/s", "answered/s", "adds, p50, ms", "p99, ms", "busiest", "busy", "the next", "busy"),
    )
    for name, size in LARGE.items():
        most = _most(size, costs, lane)
        for part in LOADS:
            seconds = max(2.0, min(20.0, 20_000 / (most * part)))
            fleet = Fleet(size, costs, lane, hop_s)
            said = at_rate(fleet, most * part, seconds)
            full = sorted(((busy, which) for which, busy in said.busy.items()), reverse=True)
            (first, busiest), (second, other) = full[:2]
            table.row(
                name if part == LOADS[0] else "",
                *(f"{most * part:,.0f}", f"{said.per_s:,.0f}", said.p50_ms, said.p99_ms),
                *(busiest, f"{first:.0%}", other, f"{second:.0%}"),
            )


def _most(size: Size, costs: Costs, lane: PerLane) -> float:
    """What the fleet carries, by arithmetic: where the first part has no time left, requests a second."""
    most = float("inf")
    open_lanes = size.lanes * size.each / size.workers
    us, rabbitmq_us = costs.busy_us, costs.busy_us["rabbitmq"] - sum(costs.serial_us.values())
    rest = {
        "worker": lane.worker_base + lane.worker * open_lanes,
        "redis": lane.redis * open_lanes * size.workers / size.shards,
        "rabbitmq": lane.reports.rabbitmq(size.workers, size.dispatchers) * REPORTS_PER_S / size.rabbitmq_cores,
        "dispatcher": size.workers
        * (REPORTS_PER_S * (lane.reports.taken_s + lane.report_s) + lane.rest_s * open_lanes / WHOLE_EVERY_S),
    }
    parts = {
        "worker": (us["worker"] / size.workers, rest["worker"]),
        "redis": (us["redis"] / size.shards, rest["redis"]),
        "rabbitmq": (rabbitmq_us / size.rabbitmq_cores, rest["rabbitmq"]),
        # Each request is news of one lane in one report at most.
        "dispatcher": (us["dispatcher"] / size.dispatchers, rest["dispatcher"]),
        **{name: (each, 0.0) for name, each in costs.serial_us.items()},
    }
    for request_us, at_rest in parts.values():
        most = min(most, max(1.0, (1 - at_rest) / max(request_us, 0.01) * 1e6))
    return most
