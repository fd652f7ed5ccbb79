"""Many calls through the client while RabbitMQ is restarted: ``python -m tests.bench --only restarted``.

The whole fleet on the simulator, two workers. When a third of the calls are answered RabbitMQ is stopped, and started
again at once. Counted is what came back: every call must be answered, and once.
"""

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from deploy.local import Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from schemas import Fleet, Request

from .measure import Options, Row, show

CALLS: Final = 5_000
AT_ONCE: Final = 500


async def run(options: Options) -> None:
    """Measures and prints."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ccxt-fleet-bench-")))
        rabbitmq = await stack.enter_async_context(RabbitMQ(folder / "rabbitmq"))
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        simulator = await stack.enter_async_context(Simulator())
        services = Services(
            folder, simulated(simulator.urls), broker_url=rabbitmq.url, redis_url=redis.url, dispatchers=1, workers=2
        )
        await stack.enter_async_context(services)
        await services.ready(services.lanes)
        fleet = await stack.enter_async_context(Fleet(rabbitmq.url))
        requests = [Request("fetch_time", id=f"restarted-{number}") for number in range(CALLS)]
        answered, errors = Counter[str](), Counter[str]()
        begun_s, away_s = time.perf_counter(), 0.0
        restarting: asyncio.Task[float] | None = None
        async for answer in fleet.map(requests, concurrency=AT_ONCE):
            answered[answer.id] += 1
            if answer.error is not None:
                errors[f"{answer.error.code}: {answer.error.message}"] += 1
            if restarting is None and len(answered) >= CALLS // 3:
                restarting = asyncio.create_task(_restart(rabbitmq))
        if restarting is not None:
            away_s = await restarting
        took_s = time.perf_counter() - begun_s
        violations = (await simulator.counters())["violations"]
    whole = len(answered) == CALLS and max(answered.values()) == 1 and not errors
    show(
        options,
        f"{CALLS:,} calls through Fleet.map, {AT_ONCE} at once, RabbitMQ restarted when a third were answered",
        [
            Row("calls that were answered", len(answered), CALLS, "", "all", whole),
            Row("answered twice", sum(count > 1 for count in answered.values())),
            Row("errors", sum(errors.values())),
            Row("RabbitMQ away, s", away_s),
            Row("took, s", took_s),
            Row("broken limits", violations),
        ],
    )
    for text, count in errors.most_common(5):
        print(f"{count} x {text}")


async def _restart(rabbitmq: RabbitMQ) -> float:
    begun_s = time.perf_counter()
    await rabbitmq.stop()
    await rabbitmq.start()
    return time.perf_counter() - begun_s
