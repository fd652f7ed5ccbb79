"""A producer that keeps a steady rate through every fault, and records each result."""

import asyncio
import itertools
import os
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import msgspec

from schemas import topology
from schemas.config import BrokerConfig
from schemas.errors import BrokerLost
from schemas.messages import JSON, Result
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery
from schemas.runtime.results import now_ms
from tests.support.fleet import wait_until

PER_S: Final = 30
DEADLINE_MS: Final = 120_000


class Load:
    """Publishes requests, and takes the results from the results' own queue: both outlive the broker's restart.

    By id are `asked`, `sent_ms` and `deadline_ms`, and `results` with, beside each of them, when it came: `arrived_ms`.
    """

    def __init__(self, broker: Broker, per_s: float) -> None:
        self._broker = broker
        self._per_s = per_s
        self._numbers = itertools.count()
        # What another load has left behind is not taken for ours.
        self._prefix = f"load-{os.urandom(3).hex()}"
        self.sent: list[str] = []
        self.asked: dict[str, dict[str, Any]] = {}
        self.sent_ms: dict[str, int] = {}
        self.deadline_ms: dict[str, int] = {}
        self.results: defaultdict[str, list[Result]] = defaultdict(list)
        self.arrived_ms: defaultdict[str, list[int]] = defaultdict(list)

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str, lanes: Sequence[str], *, per_s: float = PER_S) -> AsyncGenerator[Self, None]:
        """A producer at this broker (several URLs: separated by commas), which keeps this rate."""
        config = BrokerConfig(urls=tuple(url.split(",")), heartbeat_s=5, timeout_s=3.0, patience_s=90.0)
        load = cls(Broker(config, "load", list(lanes)), per_s)
        try:
            await load._broker.start()
            await load._broker.subscribe(topology.RESULTS, load._take, prefetch=100)
            yield load
        finally:
            await load._broker.close()

    async def run(self, requests: int, **fields: Any) -> None:
        """Publishes so many requests at a steady rate, each until the broker has it, and waits for all results."""
        await self.publish(requests, lambda _: dict(fields))
        await wait_until(lambda: not self.unanswered, "every request is answered", timeout_s=120, every_s=0.1)

    async def publish(self, requests: int, fields: Callable[[int], dict[str, Any]]) -> None:
        """Publishes so many requests at a steady rate; returns when the broker has them all.

        Args:
            requests: how many.
            fields: what differs from a ticker of Bitcoin within two minutes, by the request's number.
        """
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(requests):
                await asyncio.sleep(max(0.0, started_s + number / self._per_s - time.monotonic()))
                group.create_task(self._publish(fields(number)))

    async def answered(self, count: int) -> None:
        """Returns when so many requests have their result."""
        await wait_until(lambda: len(self.results) >= count, f"{count} results", timeout_s=60)

    @property
    def unanswered(self) -> list[str]:
        """What has no result yet."""
        return [one for one in self.sent if one not in self.results]

    @property
    def errors(self) -> list[Result]:
        """The results without data."""
        return [result for results in self.results.values() for result in results if not result.ok]

    @property
    def duplicates(self) -> int:
        """Results beyond the first of each request."""
        return sum(len(results) - 1 for results in self.results.values())

    async def _publish(self, fields: dict[str, Any]) -> None:
        name = f"{self._prefix}-{next(self._numbers)}"
        self.sent_ms[name] = now_ms()
        self.deadline_ms[name] = now_ms() + int(fields.pop("within_ms", DEADLINE_MS))
        request = {
            "id": name,
            "method": "fetch_ticker",
            "args": {"symbol": "BTC/USDT"},
            "deadline_ms": self.deadline_ms[name],
            **fields,
        }
        self.asked[name] = request
        body = msgspec.json.encode(request)
        while True:
            try:
                await self._broker.publish(body, "", exchange=topology.REQUESTS, content_type=JSON)
                break
            except BrokerLost:
                continue  # It was away for longer than a publish is patient; a producer asks again.
        self.sent.append(name)

    async def _take(self, delivery: Delivery) -> None:
        result = msgspec.json.decode(delivery.body, type=Result)
        if result.id.startswith(self._prefix):
            self.results[result.id].append(result)
            self.arrived_ms[result.id].append(now_ms())
        await delivery.ack()
