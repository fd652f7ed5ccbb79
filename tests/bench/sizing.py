"""What RabbitMQ and Redis need: memory for each 1,000 requests that wait, messages a second, bytes for each lane.

``--only sizing``. The requests are tickers, of some 90 bytes; the answers that are kept are of 20 candles. A server's
memory is what Erlang says that it has allocated, and what Redis says of each key (MEMORY USAGE).
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import aio_pika
import aiormq
from msgspec import msgpack
from msgspec.structs import replace

from deploy.servers import RabbitMQ, Redis
from schemas import topology
from schemas.config import BrokerConfig
from schemas.messages import MSGPACK, Attempt, Request, encode
from schemas.runtime import answers
from schemas.runtime.broker import Broker
from schemas.runtime.once import Answered
from schemas.runtime.store import connect
from workers.budget.budget import Budget
from workers.budget.ledger import Ledger
from workers.budget.membership import Membership
from workers.limits.costs import Bucket, Charge, Kind

from . import costs
from .measure import Cpu, Options
from .stage import Servers

WAITING: Final = 30_000
CONNECTIONS: Final = (1, 4)
FLOW: Final = 10_000
SCOPES: Final = 200
KEPT: Final = 1_000
DEADLINE_MS: Final = 4_102_444_800_000
REQUEST: Final = Request("fetch_ticker", {"symbol": "BTC/USDT"}, "sizing-000000")
# A limit of OKX's, a large one, and Binance's.
BUCKETS: Final[tuple[tuple[str, Kind, float, float], ...]] = (
    ("rolling, 20 in 2 s, full", "rolling", 20, 2),
    ("rolling, 1,000 in 10 s, full", "rolling", 1_000, 10),
    ("fixed, 6,000 a minute", "fixed", 6_000, 60),
    ("decaying", "decaying", 15, 15),
    ("paced, without a table", "paced", 1, 0.05),
)


async def run(options: Options) -> None:
    """Measures and prints."""
    table = options.table(
        "RabbitMQ: what waits in a queue", "messages of a request", "MiB", "KiB each 1,000", "disk, KiB each 1,000"
    )
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-bench-") as folder:
        async with RabbitMQ(Path(folder) / "rabbitmq") as rabbitmq:
            await _declare(rabbitmq.url)
            await _waiting(rabbitmq, table)
            await _flow(options, rabbitmq)
        async with Redis(Path(folder) / "redis") as redis:
            await _redis(options, redis)
    async with Servers.started() as servers, costs.small(servers) as stage:
        found = await costs.measured(stage, options.seconds or costs.SECONDS)
    show(options, found)


def show(options: Options, found: costs.Costs) -> None:
    """Prints what one request costs each part."""
    table = options.table(
        f"CPU µs of a request, one dispatcher, one worker: at {costs.RATES[1]} a second, {costs.AT_ONCE} at once",
        *("part", "low rate", "at once", "a second on one core", "without requests, % of a core"),
    )
    for part in costs.PARTS:
        us = found.busy_us[part]
        table.row(part, found.request_us[part], us, 1e6 / max(us, 1.0), found.base[part] * 100)
    for name, us in found.serial_us.items():
        table.row(f"of RabbitMQ: {name}", "", us, 1e6 / max(us, 1.0), "")


async def _declare(url: str) -> None:
    broker = Broker(BrokerConfig(urls=(url,)), "sizing", ["okx"])
    await broker.start()
    await broker.close()


@asynccontextmanager
async def _channel(url: str) -> AsyncGenerator[aiormq.Channel]:
    async with await aio_pika.connect(url) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        yield channel


async def _publish(channel: aiormq.Channel, count: int) -> None:
    """Publishes so many requests, confirmed, some hundred at a time."""
    body = encode(REQUEST)
    properties = aiormq.spec.Basic.Properties(
        content_type=MSGPACK, delivery_mode=2, reply_to="amq.gen-sizing-0123456789"
    )
    for _ in range(0, count, 500):
        await asyncio.gather(
            *(channel.basic_publish(body, exchange=topology.REQUESTS, properties=properties) for _ in range(500))
        )


async def _waiting(rabbitmq: RabbitMQ, table: Any) -> None:
    async with _channel(rabbitmq.url) as channel:
        await _publish(channel, 2_000)  # what is allocated once
        before, disk = await _memory(rabbitmq), _disk_kib(rabbitmq)
        table.row("at rest, 2,000 wait", before, "", "")
        for times in (1, 2):
            await _publish(channel, WAITING)
            now, count = await _memory(rabbitmq), times * WAITING
            table.row(
                f"{count:,} more",
                now,
                (now - before) * 1024 / (count / 1000),
                (_disk_kib(rabbitmq) - disk) / (count / 1000),
            )


async def _memory(rabbitmq: RabbitMQ) -> float:
    """What Erlang has allocated, MiB, after what can be collected was."""
    await rabbitmq.ctl("force_gc")
    return int(await rabbitmq.eval("erlang:memory(total).")) / 2**20


def _disk_kib(rabbitmq: RabbitMQ) -> float:
    files = [Path(folder) / name for folder, _, names in os.walk(rabbitmq.folder / "data") for name in names]
    return sum(each.stat().st_blocks * 512 for each in files if each.exists()) / 1024


class _Consumers:
    """Take what lies in a queue until there was enough of it."""

    def __init__(self, url: str, wanted: int) -> None:
        self._url, self._left = url, wanted
        self.done = asyncio.Event()

    async def take(self, ready: asyncio.Event) -> None:
        """One of them."""
        async with _channel(self._url) as channel:

            async def on(message: Any) -> None:
                await channel.basic_ack(message.delivery.delivery_tag, wait=False)
                self._left -= 1
                if not self._left:
                    self.done.set()

            await channel.basic_qos(prefetch_count=500)
            await channel.basic_consume(topology.REQUESTS, on)
            ready.set()
            await self.done.wait()


async def _flow(options: Options, rabbitmq: RabbitMQ) -> None:
    """Publishes, each confirmed, and consumes at the same time."""
    table = options.table(
        f"RabbitMQ: {FLOW:,} requests through fleet.requests, confirmed and acknowledged",
        *("connections each way", "messages a second", "CPU µs a message, RabbitMQ"),
    )
    async with _channel(rabbitmq.url) as channel:
        await channel.queue_purge(topology.REQUESTS)
    for count in CONNECTIONS:
        taking = _Consumers(rabbitmq.url, FLOW)
        events = [asyncio.Event() for _ in range(count)]
        consumers = [asyncio.create_task(taking.take(event)) for event in events]
        await asyncio.gather(*(event.wait() for event in events))
        cpu, begun_s = Cpu({"rabbitmq": rabbitmq.pid}), time.perf_counter()
        await asyncio.gather(*(_produce(rabbitmq.url, FLOW // count) for _ in range(count)), taking.done.wait())
        took_s = time.perf_counter() - begun_s
        await asyncio.gather(*consumers)
        table.row(count, FLOW / took_s, cpu.us_each(FLOW)["rabbitmq"])


async def _produce(url: str, count: int) -> None:
    async with _channel(url) as channel:
        await _publish(channel, count)


async def _redis(options: Options, redis: Redis) -> None:
    table = options.table("Redis: what it keeps", "", "bytes each")
    client: Any = connect(redis.url, timeout_s=5)
    async with client:

        async def sizes() -> dict[bytes, int]:
            return {key: await client.memory_usage(key, samples=0) async for key in client.scan_iter(count=1000)}

        async def grown(count: int, fill: Callable[[], Awaitable[None]]) -> float:
            before = await sizes()
            await fill()
            return sum(size for key, size in (await sizes()).items() if key not in before) / count

        budget = Budget(Ledger(client, "x:first", member=Membership()))
        await budget.beat()  # the library

        async def scopes() -> None:
            for number in range(SCOPES):
                one = Budget(Ledger(client, f"x:127.0.{number // 200}.{number % 200}", member=Membership()))
                for _ in range(2):
                    await one.beat()

        table.row("a lane's address, one worker, at rest", await grown(SCOPES, scopes))
        for title, kind, amount, window_s in BUCKETS:
            table.row(f"a bucket: {title}", await grown(20, partial(_buckets, client, kind, amount, window_s)))
        answered = Answered(client)

        async def marks() -> None:
            for number in range(KEPT):
                request = replace(REQUEST, id=f"sizing-{number:06}", deadline_ms=DEADLINE_MS)
                answered.note(Attempt(request, "okx", 1, DEADLINE_MS, taken=f"{number:016}"))
            await answered.close()

        table.row("a request that was answered, for 120 s", await grown(KEPT, marks))
        kept = answers.Answers(client)
        body = answers.pack(
            "okx", "okx", msgpack.encode([[1_700_000_000_000, 60_000.1, 60_010.2, 59_990.3, 60_005.4, 12.5]] * 20)
        )

        async def shared() -> None:
            for number in range(KEPT):
                lease = f"fleet:{{answers}}:asked:{number:032}"
                found = answers.Answer(1, 1, 0, body)
                key = f"fleet:{{answers}}:answer:{number:032}"
                await kept.keep(key, lease, "i", found, kept_ms=60_000, most_bytes=2**30)

        table.row(f"a shared answer of {len(body)} bytes", await grown(KEPT, shared))


async def _buckets(client: Any, kind: Kind, amount: float, window_s: float) -> None:
    """Fills twenty of a kind."""
    bucket = Bucket(name=kind, amount=amount, window_s=window_s, kind=kind, margin_ms=50, source="")
    for number in range(20):
        budget = Budget(Ledger(client, f"y:{kind}{amount}{number}"))
        await asyncio.gather(*(budget.reserve([Charge(bucket, 1, kind)], max_wait_s=0) for _ in range(int(amount))))
