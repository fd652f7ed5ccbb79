"""Request to result through the client, beside aio-pika by hand: ``python -m tests.bench --only client``.

Both run in this process by turns, on one RabbitMQ, and a process answers in the place of a fleet (`answerer`). By hand
is what docs/messages.md shows: an exclusive queue, or direct reply-to, publishes that are mandatory and confirmed, a
table of who waits. The CPU is this process's.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aio_pika
import msgspec

from deploy.processes import Process, ProcessError
from deploy.servers import RabbitMQ
from schemas import Fleet
from schemas.messages import MSGPACK, Request, Result, encode
from schemas.runtime.modules import CHECKOUT

from .measure import Options, Row, medians, percentile, show

CALLS: Final = {1: 500, 100: 4_000}
AIM: Final = 1.15
DIRECT: Final = "amq.rabbitmq.reply-to"
START_S: Final = 30.0

Ask = Callable[[], Awaitable[Any]]


async def run(options: Options) -> None:
    """Measures and prints."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ccxt-fleet-bench-")))
        rabbitmq = await stack.enter_async_context(RabbitMQ(folder / "rabbitmq"))
        answerer = Process(
            [sys.executable, "-m", "tests.bench.answerer", rabbitmq.url],
            log=folder / "answerer.log",
            env=os.environ,
            cwd=CHECKOUT,
        )
        answerer.start()
        stack.push_async_callback(answerer.stop, grace_s=5)
        give_up_s = time.monotonic() + START_S
        while "ready" not in answerer.tail():
            if time.monotonic() > give_up_s:
                raise ProcessError(f"no answers: {answerer.tail()}")
            await asyncio.sleep(0.1)
        fleet = await stack.enter_async_context(Fleet(rabbitmq.url))
        ways: dict[str, Ask] = {
            "by hand": await stack.enter_async_context(_by_hand(rabbitmq.url, "")),
            "by hand, direct reply-to": await stack.enter_async_context(_by_hand(rabbitmq.url, DIRECT)),
            "client": lambda: fleet.fetch_ticker("BTC/USDT", exchanges=["okx"]),
        }
        for at_once, calls in CALLS.items():
            figures: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
            for number in range(options.rounds + 1):
                for name, ask in ways.items():
                    found = await _round(ask, calls if number else calls // 4, at_once)
                    if number:  # the first one warms up
                        figures[name].append(found)
            _show(options, {name: medians(found) for name, found in figures.items()}, at_once)


def _show(options: Options, found: dict[str, dict[str, float]], at_once: int) -> None:
    ours, theirs, direct = found["client"], found["by hand"], found["by hand, direct reply-to"]
    rows: list[Row] = []
    for name in ours:
        ratio, aimed = ours[name] / theirs[name], name != "p99, ms"
        aim, met = (f"<= {AIM}", ratio <= AIM) if aimed else ("", None)
        rows.append(Row(f"{name}, client", ours[name], theirs[name], f"{ratio:.2f}", aim, met))
        rows.append(Row(f"{name}, direct", direct[name], theirs[name], f"{direct[name] / theirs[name]:.2f}"))
    show(
        options,
        f"Request to result through the client, beside aio-pika by hand with an exclusive queue ({at_once} at a time, "
        f"medians of {options.rounds} rounds by turns)",
        rows,
    )


async def _round(ask: Ask, calls: int, at_once: int) -> dict[str, float]:
    took_ms: list[float] = []

    async def one_after_another() -> None:
        for _ in range(calls // at_once):
            begun_s = time.perf_counter()
            await ask()
            took_ms.append((time.perf_counter() - begun_s) * 1000)

    begun_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - begun_s
    return {
        "time a request, us": took_s / calls * 1e6,
        "CPU a request, us": cpu_s / calls * 1e6,
        "p99, ms": percentile(took_ms, 0.99),
    }


@contextlib.asynccontextmanager
async def _by_hand(url: str, reply_to: str) -> AsyncGenerator[Ask]:
    """What a careful program writes by itself."""
    waiting: dict[str, asyncio.Future[Result]] = {}
    decoder = msgspec.msgpack.Decoder(Result)
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        if reply_to:
            answers = await channel.get_queue(reply_to, ensure=False)
        else:
            answers = await channel.declare_queue(exclusive=True)

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            result = decoder.decode(message.body)
            if (answer := waiting.pop(result.id, None)) is not None and not answer.done():
                answer.set_result(result)

        await answers.consume(take, no_ack=True)
        requests = await channel.get_exchange("fleet.requests")

        async def ask() -> Any:
            name = uuid.uuid4().hex
            deadline_ms = time.time_ns() // 1_000_000 + 30_000
            request = Request("fetch_ticker", {"symbol": "BTC/USDT"}, name, ["okx"], deadline_ms=deadline_ms)
            answer = waiting[name] = asyncio.get_running_loop().create_future()
            message = aio_pika.Message(
                encode(request),
                content_type=MSGPACK,
                message_id=name,
                correlation_id=name,
                reply_to=answers.name,
                delivery_mode=2,
            )
            await requests.publish(message, routing_key="")
            async with asyncio.timeout(31):
                result = await answer
            if not result.ok:
                raise RuntimeError(result.error)
            return result.data

        yield ask
