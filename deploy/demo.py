"""The fleet at work in about a minute: ``python -m deploy.demo`` (``make demo``).

Starts a private RabbitMQ and Redis, five simulated exchanges, a dispatcher and two workers; publishes a few hundred
requests, takes one exchange down meanwhile and brings it back. It ends well only if every request was answered with
data (an error counts like a lost request) and no exchange saw a limit broken.

With ``--as-shipped`` it runs `deploy/fleet.toml` as it stands: the exchanges' real names lead to the simulated ones.
With ``--cluster`` RabbitMQ has three nodes, and Redis is a Cluster of three shards.

`Producer` shows what a program does without the client for Python: it needs nothing but RabbitMQ's address.
"""

import argparse
import asyncio
import contextlib
import math
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import aio_pika
import msgspec
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.cluster import Cluster
from deploy.demo_view import View, Watch
from deploy.local import Services, simulated
from deploy.processes import ProcessError
from deploy.redis_servers import RedisCluster
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator, SimulatorError
from deploy.standin import NAMES, StandIns
from schemas.messages import Outcome, Request, Result
from schemas.runtime import modules
from schemas.runtime.tasks import done_before

FALLS: Final = "okx"
FALLS_AT, RISES_AT = 0.35, 0.6  # parts of the time in which requests are published
# A request for the exchange that is down waits for it: this must cover the outage and the way back.
DEADLINE_S: Final = 40.0
PINNED: Final = 0.2
WEIGHTS: Final = {"binance": 3.0, "okx": 3.0, "htx": 2.0, "coinbase": 2.0, "kraken": 1.0}
SYMBOLS: Final = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT")
ARGS: Final[dict[str, dict[str, Any]]] = {
    "fetch_ticker": {},
    "fetch_ohlcv": {"timeframe": "1m", "limit": 100},
    "fetch_order_book": {"limit": 20},
    "fetch_trades": {"limit": 50},
}
REFRESH_EVERY_S: Final = 0.2
OPEN_TIMEOUT_S: Final = 60.0


class Planned(NamedTuple):
    """A request and when it is published, in seconds from the start."""

    at_s: float
    request: Request


def plan(seed: int, seconds: float, rate: float) -> list[Planned]:
    """The requests of a run: `rate` a second, a little uneven; four in five for any exchange, one for a named one."""
    draw = random.Random(seed)
    planned: list[Planned] = []
    at_s = 0.0
    while (at_s := at_s + draw.uniform(0.5, 1.5) / rate) < seconds:
        symbol = draw.choice(SYMBOLS)
        method = draw.choice(list(ARGS))
        exchanges = draw.choices(list(WEIGHTS), list(WEIGHTS.values())) if draw.random() < PINNED else []
        name = f"demo-{len(planned) + 1}"
        planned.append(Planned(at_s, Request(method, {"symbol": symbol, **ARGS[method]}, name, exchanges)))
    return planned


class Answer(NamedTuple):
    """A result and how long it took from the request's publication, in seconds."""

    result: Result
    after_s: float


class Producer:
    """Publishes requests and takes their results from a queue of its own."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.duplicates = 0
        self.published_s: dict[str, float] = {}

    async def open(self, connection: aio_pika.abc.AbstractConnection) -> None:
        """Declares the queue for the results; RabbitMQ deletes it with the connection."""
        self._channel: AbstractChannel = await connection.channel(on_return_raises=True)
        self._requests: AbstractExchange = await self._channel.get_exchange("fleet.requests")
        self._results = await self._channel.declare_queue(exclusive=True)
        await self._results.consume(self._on_result, no_ack=True)

    async def publish(self, request: Request) -> None:
        """Returns when RabbitMQ has it: from then on a result will come."""
        request = msgspec.structs.replace(request, deadline_ms=int((time.time() + DEADLINE_S) * 1000))
        self.published_s[request.id] = time.perf_counter()
        message = aio_pika.Message(
            msgspec.json.encode(request),
            content_type="application/json",
            reply_to=self._results.name,
            message_id=request.id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._requests.publish(message, routing_key="", timeout=5)

    async def _on_result(self, message: AbstractIncomingMessage) -> None:
        result = msgspec.json.decode(message.body, type=Result)
        if result.id in self.answers:
            self.duplicates += 1
        else:
            self.answers[result.id] = Answer(result, time.perf_counter() - self.published_s[result.id])


async def run(
    console: Console, folder: Path, options: argparse.Namespace, stack: contextlib.AsyncExitStack
) -> list[str]:
    """Runs the demo and prints its summary.

    Args:
        console: what to print on.
        folder: for all files.
        options: what the command line says.
        stack: stops what was started, in the opposite order, however this ends.

    Returns:
        what went wrong, one sentence each; nothing if all went well.

    Raises:
        ProcessError, SimulatorError: a part did not start, or ended by itself.
    """
    rabbitmq, redis, what = _servers(folder, clusters=options.cluster)
    simulator = Simulator(options.seed, log=folder / "simulator.log")
    console.print(f"starting {what} and a simulator of five exchanges")
    for part in (simulator, redis, rabbitmq):
        stack.push_async_callback(part.stop)
    async with asyncio.TaskGroup() as boot:
        for part in (simulator, redis, rabbitmq):
            boot.create_task(part.start())
    stand_ins = await _stand_ins(console, folder, simulator, stack) if options.as_shipped else None
    console.print(f"starting a dispatcher and {options.workers} workers on it")
    fleet = Services(
        folder,
        modules.FLEET_TOML if stand_ins else simulated(simulator.urls, WEIGHTS),
        broker_url=rabbitmq.url,
        redis_url=redis.url,
        workers=options.workers,
        stand_ins=stand_ins,
    )
    stack.push_async_callback(fleet.stop)
    await fleet.start()
    await _all_open(fleet)
    connection = await stack.enter_async_context(await aio_pika.connect(rabbitmq.url.partition(",")[0]))
    producer = Producer()
    await producer.open(connection)
    planned = plan(options.seed, options.seconds, options.rate)
    view = View(console, fleet.lanes, options.seconds)
    watch = Watch(view, fleet.dispatchers[0])
    await watch.listen(connection)
    with view:
        await _play(view, watch, fleet, simulator, producer, planned, options.seconds)
    counters = await simulator.counters()
    return _summary(console, planned, producer, counters, view)


def _servers(folder: Path, *, clusters: bool) -> tuple[RabbitMQ | Cluster, Redis | RedisCluster, str]:
    """The two servers, and how they are called."""
    if clusters:
        cluster, shards = Cluster(folder / "rabbitmq"), RedisCluster(folder / "redis")
        return (
            cluster,
            shards,
            f"a RabbitMQ of {len(cluster.nodes)} nodes, a Redis Cluster of {len(shards.nodes)} shards",
        )
    return RabbitMQ(folder / "rabbitmq"), Redis(folder / "redis"), "RabbitMQ, Redis"


async def _stand_ins(
    console: Console, folder: Path, simulator: Simulator, stack: contextlib.AsyncExitStack
) -> StandIns:
    """Has the exchanges' names lead to the simulator."""
    urls = {name: simulator.urls[exchange] for name, exchange in NAMES.items()}
    console.print(f"leading these names to the simulator over TLS: {', '.join(urls)}", soft_wrap=True)
    console.print("taking deploy/fleet.toml as it stands")
    return await stack.enter_async_context(StandIns(folder / "stand-ins", urls))


async def _all_open(fleet: Services) -> None:
    """Waits until every worker has opened every lane: until then they load markets out of the same budgets."""
    give_up_s = time.monotonic() + OPEN_TIMEOUT_S
    for worker in fleet.workers:
        while True:
            seen = await worker.metrics()
            closed = [lane for lane in fleet.lanes if not seen.get(("fleet_lane_open", lane))]
            if not closed:
                break
            if time.monotonic() > give_up_s or not worker.running:
                raise ProcessError(f"{worker.name} did not open {', '.join(closed)}:\n{worker.tail()}")
            await asyncio.sleep(0.1)


async def _play(
    view: View,
    watch: Watch,
    fleet: Services,
    simulator: Simulator,
    producer: Producer,
    planned: Sequence[Planned],
    seconds: float,
) -> None:
    """Publishes, breaks and mends, and draws, until every request has its result or its deadline is past."""

    async def publish() -> None:
        for at_s, request in planned:
            await asyncio.sleep(at_s - view.now_s)
            await producer.publish(request)
        view.say("all requests are published")

    async def break_and_mend() -> None:
        await asyncio.sleep(seconds * FALLS_AT)
        await simulator.fault(FALLS, down="refused")
        view.say(f"{FALLS} goes down: it refuses connections", "red")
        await asyncio.sleep(seconds * (RISES_AT - FALLS_AT))
        await simulator.clear(FALLS)
        view.say(f"{FALLS} is up again; the next trial brings it back", "green")

    def settled() -> bool:
        lanes = view.lanes.values()
        return all(lane.healthy for lane in lanes) and sum(lane.ok for lane in lanes) >= len(planned)

    async with asyncio.TaskGroup() as tasks:
        acts = [tasks.create_task(publish()), tasks.create_task(break_and_mend())]
        give_up_s = seconds + DEADLINE_S + 2
        settle_until_s = math.inf
        while view.now_s < min(give_up_s, settle_until_s) and not (settle_until_s < math.inf and settled()):
            for service in (*fleet.dispatchers, *fleet.workers):
                if not service.running:
                    raise ProcessError(f"{service.name} ended. The end of {service.log}:\n{service.tail()}")
            await watch.look()
            view.requests, view.results = len(producer.published_s), len(producer.answers)
            if all(act.done() for act in acts) and view.results == len(planned) and settle_until_s == math.inf:
                view.say("every request has its result")
                settle_until_s = view.now_s + 2  # the last reports are on their way
            view.refresh()
            await asyncio.sleep(REFRESH_EVERY_S)


def _summary(
    console: Console, planned: Sequence[Planned], producer: Producer, counters: dict[str, Any], view: View
) -> list[str]:
    """Prints what happened in numbers, and returns what was wrong with it."""
    answers = producer.answers
    errors = [answer.result for answer in answers.values() if not answer.result.ok]
    missing = len(planned) - len(answers)
    violations = counters["violations"]
    pinned = {request.id for _, request in planned if request.exchanges}
    elsewhere = [
        {item.outcome for item in result.attempts[:-1] if item.lane != result.lane}
        for result, _ in answers.values()
        if result.ok
    ]
    failed_over = sum(Outcome.FAILED in outcomes for outcomes in elsewhere)
    no_budget = sum(outcomes == {Outcome.THROTTLED} for outcomes in elsewhere)

    facts = Table(box=None, show_header=False, padding=(0, 1), pad_edge=True)
    facts.add_column(style="dim")
    facts.add_column(justify="right")
    facts.add_column()
    facts.add_row("requests", str(len(planned)), f"{len(pinned)} of them for one named exchange")
    story = f"{len(answers) - len(errors)} with data, {len(errors)} errors, {missing} missing"
    facts.add_row("results", str(len(answers)), story)
    facts.add_row(
        "failovers", str(failed_over + no_budget), f"{failed_over} after a failure, {no_budget} for want of budget"
    )
    for word, chosen in (("any exchange", answers.keys() - pinned), ("one exchange", answers.keys() & pinned)):
        times_s = [answers[name].after_s for name in chosen]
        story = f"p50 {_time(times_s, 0.5)}, p99 {_time(times_s, 0.99)}"
        if word == "one exchange":
            story += f"; those for {FALLS} waited for it"
        facts.add_row("time, " + word, "", story)
    facts.add_row("violations", str(violations), "of the limits, as the exchanges counted")

    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
    for word in ("exchange", "HTTP calls", "fullest bucket", "of", "violations"):
        table.add_column(word, justify="left" if word in {"exchange", "of"} else "right")
    for name, count in counters["exchanges"].items():
        most = max(count["buckets"].values(), key=lambda bucket: bucket["peak"], default=None)
        limit = f"{most['amount']} in {most['window_s']:g} s" if most else ""
        peak = f"{most['peak']:.0%}" if most else ""
        table.add_row(name, str(count["requests"]), peak, limit, str(count["violations"]))
    console.print("", facts, "", table, "", view.buckets(), "")

    wrong: list[str] = []
    if missing:
        wrong.append(f"{missing} requests got no result")
    if errors:
        story = f"{errors[0].error.code}: {errors[0].error.message}" if errors[0].error else ""
        wrong.append(f"{len(errors)} requests ended in an error, the first with {story}")
    if violations:
        wrong.append(f"{violations} times an exchange's limit was broken")
    wrong += [f"{name} is not healthy at the end" for name, lane in view.lanes.items() if not lane.healthy]
    return wrong


def _time(times_s: Sequence[float], part: float) -> str:
    """A percentile (nearest rank) as people read it."""
    if not times_s:
        return "-"
    found_s = sorted(times_s)[math.ceil(part * len(times_s)) - 1]
    return f"{found_s * 1000:.0f} ms" if found_s < 1 else f"{found_s:.1f} s"


async def _until_signal(console: Console, folder: Path, options: argparse.Namespace) -> int:
    """Runs the demo until it ends or a signal comes; returns the exit code.

    What was started is stopped outside of what a signal cancels: a library may swallow a cancellation, so it is
    repeated until it is heeded (`end_tasks`).
    """
    loop, stop, signals = asyncio.get_running_loop(), asyncio.Event(), list[int]()

    def on_signal(number: int) -> None:
        signals.append(number)
        stop.set()
        loop.remove_signal_handler(number)  # the second one ends it at once

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    wrong = list[str]()

    async def play() -> None:
        wrong.extend(await run(console, folder, options, stack))

    async with contextlib.AsyncExitStack() as stack:
        if not await done_before(stop, play()):
            console.print("stopping")
            return 128 + signals[0]
    console.print(Text("\n".join(wrong), "red") if wrong else Text("Every request has its data.", "green"))
    return 1 if wrong else 0


def main() -> int:
    """Runs the demo with what the command line says; 0 only if all went well, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog=f"python -m {modules.module('deploy.demo')}", description=__doc__)
    parser.add_argument("--seconds", type=float, default=24, help="how long requests are published (default: 24)")
    parser.add_argument("--rate", type=float, default=16, help="requests a second (default: 16)")
    parser.add_argument("--seed", type=int, default=1, help="requests and prices follow from it (default: 1)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--as-shipped", action="store_true", help="run deploy/fleet.toml as it stands")
    parser.add_argument("--cluster", action="store_true", help="on three nodes of RabbitMQ and three shards of Redis")
    options = parser.parse_args()
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="ccxt-fleet-demo-"))
    code = 1
    try:
        code = asyncio.run(_until_signal(console, folder, options))
    except* (ProcessError, SimulatorError) as group:
        for error in group.exceptions:
            console.print(Text(str(error), "red"), soft_wrap=True)
    except* KeyboardInterrupt:
        code = 128 + signal.SIGINT
    finally:
        if code == 1:
            console.print(f"logs: {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
