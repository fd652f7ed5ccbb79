"""A `Broker` with short times, and a handler that waits until a test lets it go on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from schemas.config import BrokerConfig
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery

QUICK = {"heartbeat_s": 2, "timeout_s": 1.0, "patience_s": 10.0}


def config(*urls: str, **changes: float) -> BrokerConfig:
    return BrokerConfig(urls=urls, **{**QUICK, **changes})  # type: ignore[arg-type]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@asynccontextmanager
async def connected(*urls: str, lanes: tuple[str, ...] = (), **changes: float) -> AsyncGenerator[Broker, None]:
    broker = Broker(config(*urls, **changes), "test", list(lanes))
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


class Handler:
    """Takes deliveries, finishes each when it is let, and acknowledges."""

    def __init__(self) -> None:
        self.begun: list[Delivery] = []
        self.done: list[bytes] = []
        self.go_on = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.begun.append(delivery)
        await self.go_on.wait()
        self.done.append(delivery.body)
        await delivery.ack()
