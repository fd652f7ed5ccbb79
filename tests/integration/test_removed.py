"""A removed lane's queues: emptied, and deleted once nobody uses them, whatever lay unread in between."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiormq
import pytest

from dispatcher import removed
from dispatcher.removed import OLD_S, Removed
from schemas import topology
from schemas.errors import Unroutable
from schemas.runtime.broker import Broker
from schemas.runtime.tasks import end_tasks
from tests.support.broker import Handler, config, connected
from tests.support.fleet import wait_until

QUIET_S = 5.0
QUEUE = topology.work_name("okx", bulk=False)


class Unread(Broker):
    """A broker whose first answer to a look at `QUEUE` lies unread, while a message comes and this process is still."""

    def __init__(self, other: Broker, url: str) -> None:
        super().__init__(config(url), "test", ["okx"])
        self._other = other
        self.was_late = False

    def aside(self) -> AbstractAsyncContextManager[aiormq.Channel]:
        return self._late()

    @asynccontextmanager
    async def _late(self) -> AsyncGenerator[aiormq.Channel, None]:
        async with super().aside() as channel:
            yield channel if self.was_late else _Late(self, channel)  # type: ignore[misc]

    async def stand_still(self) -> None:
        self.was_late = True
        await self._other.publish(b"work", QUEUE)
        time.sleep(OLD_S + 0.1)  # noqa: ASYNC251


class _Late:
    def __init__(self, broker: Unread, channel: aiormq.Channel) -> None:
        self._broker = broker
        self._channel: Any = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    async def queue_declare(self, queue: str, **words: Any) -> Any:
        found: Any = await self._channel.queue_declare(queue, **words)
        if queue == QUEUE:
            await self._broker.stand_still()
        return found


async def exists(broker: Broker) -> bool:
    try:
        await broker.length(QUEUE)
    except Unroutable:
        return False
    return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removed, "LOOK_EVERY_S", 0.05)


async def test_a_queue_stays_while_the_process_stands_still(vhost: str) -> None:
    now_s, looks = 0.0, 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return now_s

    async with connected(vhost, lanes=("okx",)) as broker:
        gone = Removed(broker, Handler(), QUIET_S, clock)
        gone.change({"okx"}, set())
        running = asyncio.create_task(gone.run())
        await wait_until(lambda: looks > 50, "it has looked often")
        assert await exists(broker)
        now_s = QUIET_S

        async def deleted() -> bool:
            return not await exists(broker)

        await wait_until(deleted, "the queue is deleted")
        await end_tasks([running])


async def test_an_answer_that_lay_unread_deletes_no_queue_that_is_in_use_again(vhost: str) -> None:
    now_s = 0.0
    handler = Handler()
    handler.go_on.set()
    async with connected(vhost, lanes=("okx",)) as other:
        broker = Unread(other, vhost)
        await broker.start()
        try:
            gone = Removed(broker, handler, QUIET_S, lambda: now_s)
            gone.change({"okx"}, set())
            now_s = QUIET_S
            running = asyncio.create_task(gone.run())
            await wait_until(lambda: handler.done, "what came meanwhile is taken")
            assert broker.was_late
            await end_tasks([running])
        finally:
            await broker.close()
