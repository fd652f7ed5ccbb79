"""The dispatcher's hop, beside a bare relay: ``python -m tests.bench --only hop``.

A round fills the source queue while the consumer is frozen, lets it go, and measures from the first message in the
targets to the last. Both read a quorum queue and publish to five with the arguments of the fleet's bulk queues (live
ones would expire after 5 s), on one broker, by turns. Nothing consumes the targets.
"""

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Final

import aio_pika
import aiormq
from msgspec import Struct

from deploy.local import Services
from deploy.processes import Process, ProcessError
from deploy.servers import RabbitMQ
from schemas import topology
from schemas.messages import JSON, MSGPACK, Request, encode
from schemas.reports import LaneReport, Report
from schemas.runtime import modules
from schemas.runtime.amqp.declaration import declare

from .measure import Cpu, Options, Row, medians, show

LANES: Final = ("binance", "okx", "htx", "coinbase", "kraken")
MESSAGES: Final = 5_000
AIM_RATIO: Final = 0.8
POLL_S: Final = 0.02
# A consumer that has not moved them all by then has lost some.
TIMEOUT_S: Final = 120.0
_RELAY: Final = "bench.relay"


class Way(Struct, frozen=True):
    """One way from a source to its targets, and the process that carries."""

    process: Process
    exchange: str
    source: str
    targets: list[str]


async def run(options: Options, messages: int = MESSAGES) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-bench-") as folder:
        async with RabbitMQ(Path(folder) / "rabbitmq") as rabbitmq, _ways(rabbitmq, Path(folder)) as (ways, channel):
            figures: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
            for number in range(options.rounds + 1):
                for name, way in ways.items():
                    # The first round warms both up and is not counted.
                    found = await _round(channel, way, rabbitmq.pid, messages if number else messages // 4)
                    if number:
                        figures[name].append(found)
    _show(options, figures["dispatcher"], figures["relay"], messages)


def _show(options: Options, dispatcher: list[dict[str, float]], relay: list[dict[str, float]], messages: int) -> None:
    ours, theirs = medians(dispatcher), medians(relay)
    ratio = statistics.median(mine["rate"] / other["rate"] for mine, other in zip(dispatcher, relay, strict=True))
    rows = [Row("messages/s", ours["rate"], theirs["rate"], f"{ratio:.2f}", f">= {AIM_RATIO}", ratio >= AIM_RATIO)]
    for name in ("process", "rabbitmq"):
        rows += [Row(f"CPU us/message, {name}", ours[name], theirs[name], f"{ours[name] / theirs[name]:.2f}")]
    show(
        options,
        f"Hop fleet.requests -> fleet.work.<lane> beside a bare aio-pika relay "
        f"({messages:,} messages a round, medians of {options.rounds} rounds by turns)",
        rows,
    )


@contextlib.asynccontextmanager
async def _ways(rabbitmq: RabbitMQ, folder: Path) -> AsyncGenerator[tuple[dict[str, Way], aiormq.Channel]]:
    """A dispatcher with five healthy lanes, a relay with the same queues, and a channel to watch both with."""
    # Long enough that a frozen dispatcher takes its lanes for healthy when it goes on.
    config: dict[str, Any] = {"lanes": {lane: {} for lane in LANES}, "dispatcher": {"silent_after_s": 60.0}}
    fleet = Services(folder, config, broker_url=rabbitmq.url, redis_url="", dispatchers=1, workers=0)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(fleet)
        connection = await stack.enter_async_context(await aio_pika.connect(rabbitmq.url))
        channel = await (await connection.channel(on_return_raises=True)).get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        await declare(channel, list(LANES), timeout_s=10)  # the dispatcher may not have come to it yet
        heart = asyncio.create_task(_heartbeat(channel))
        stack.callback(heart.cancel)
        await fleet.ready(LANES)
        relay = await _start_relay(channel, rabbitmq.url, folder)
        stack.push_async_callback(relay.stop, grace_s=5)
        work = [topology.work_name(lane, bulk=True) for lane in LANES]
        ways = {
            "dispatcher": Way(fleet.dispatchers[0], topology.REQUESTS, topology.REQUESTS, work),
            "relay": Way(relay, _RELAY, _RELAY, [f"{_RELAY}.{lane}" for lane in LANES]),
        }
        yield ways, channel


async def _start_relay(channel: aiormq.Channel, url: str, folder: Path) -> Process:
    """Declares the relay's queues as the fleet declares its own, and starts it."""
    source = next(queue for queue in topology.QUEUES if queue.name == topology.REQUESTS)
    await channel.exchange_declare(_RELAY, exchange_type="fanout", durable=True)
    await channel.exchange_declare(f"{_RELAY}.work", exchange_type="direct", durable=True)
    await channel.queue_declare(_RELAY, durable=True, arguments={**source.arguments})
    await channel.queue_bind(_RELAY, _RELAY)
    bulk = {queue.name: queue for queue in topology.lane_queues(LANES)}
    for lane in LANES:
        arguments: dict[str, Any] = dict(bulk[topology.work_name(lane, bulk=True)].arguments)
        await channel.queue_declare(f"{_RELAY}.{lane}", durable=True, arguments=arguments)
        await channel.queue_bind(f"{_RELAY}.{lane}", f"{_RELAY}.work", lane)
    argv = [sys.executable, "-m", "tests.bench.relay", url, _RELAY, f"{_RELAY}.work", *LANES]
    relay = Process(argv, log=folder / "relay.log", env=os.environ, cwd=modules.CHECKOUT)
    relay.start()
    await _until(lambda: _consumers(channel, _RELAY), relay)
    return relay


async def _round(channel: aiormq.Channel, way: Way, broker_pid: int, messages: int) -> dict[str, float]:
    """Moves so many messages once."""
    way.process.freeze()
    try:
        await _fill(channel, way.exchange, messages)
        cpu = Cpu({"process": way.process.pid, "rabbitmq": broker_pid})
    finally:
        way.process.thaw()
    while not (first := await _count(channel, way.targets)):
        await asyncio.sleep(POLL_S)
    started_s = time.perf_counter()

    async def all_there() -> bool:
        return await _count(channel, way.targets) >= messages

    await _until(all_there, way.process)
    took_s = time.perf_counter() - started_s
    await asyncio.sleep(0.3)  # the last acknowledgements belong to the CPU time
    used = cpu.us_each(messages)
    for queue in way.targets:
        await channel.queue_purge(queue)
    return {"rate": (messages - first) / took_s, **used}


async def _fill(channel: aiormq.Channel, exchange: str, messages: int) -> None:
    """Publishes requests as a producer would, and returns when all are confirmed."""
    for start in range(0, messages, 1_000):
        await asyncio.gather(*(_publish_request(channel, exchange) for _ in range(start, min(start + 1_000, messages))))


async def _publish_request(channel: aiormq.Channel, exchange: str) -> None:
    name = uuid.uuid4().hex
    # An hour: no request may end for its deadline here.
    deadline_ms = time.time_ns() // 1_000_000 + 3_600_000
    request = Request("fetch_ticker", {"symbol": "BTC/USDT"}, name, deadline_ms=deadline_ms, priority="bulk")
    properties = aiormq.spec.Basic.Properties(
        message_id=name, correlation_id=name, reply_to="bench.replies", content_type=JSON, delivery_mode=2
    )
    await channel.basic_publish(encode(request, JSON), exchange=exchange, properties=properties, wait=False)


async def _heartbeat(channel: aiormq.Channel) -> None:
    """What a worker would report, so that the lanes are healthy."""
    lanes = [LaneReport(lane, ok=1, methods=["fetch_ticker"]) for lane in LANES]
    while True:
        report = Report("bench", time.time_ns() // 1_000_000, lanes)
        properties = aiormq.spec.Basic.Properties(content_type=MSGPACK)
        await channel.basic_publish(encode(report), exchange=topology.REPORTS, properties=properties)
        await asyncio.sleep(0.2)


async def _count(channel: aiormq.Channel, queues: list[str]) -> int:
    counts = [(await channel.queue_declare(queue, passive=True)).message_count or 0 for queue in queues]
    return sum(counts)


async def _consumers(channel: aiormq.Channel, queue: str) -> bool:
    return bool((await channel.queue_declare(queue, passive=True)).consumer_count)


async def _until(true: Callable[[], Any], process: Process) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not await true():
        if not process.running or time.monotonic() > deadline_s:
            raise ProcessError(f"the messages do not arrive; the end of {process.log}:\n{process.tail()}")
        await asyncio.sleep(POLL_S)
