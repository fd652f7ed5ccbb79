"""One lane's signed calls, without the gateway around it."""

import asyncio
from collections.abc import Callable
from typing import Any

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.config import Config, LaneConfig, WorkerConfig
from schemas.runtime import store
from schemas.runtime.tasks import end_tasks
from workers.direct.signed_lane import SignedLane
from workers.exchange.bounds import Bounds
from workers.exchange.egress import Egress, tls
from workers.exchange.markets import Markets


class Unreadable(Markets):
    """The exchange's markets, that can't be read at first."""

    def __init__(self, errors: list[Exception]) -> None:
        super().__init__(store.connect("redis://127.0.0.1:1", timeout_s=1), keep_s=1)
        self.errors = errors
        self.read = asyncio.Event()

    async def give(self, key: str, exchange: Any, make: Callable[[], Any], max_age_s: float) -> bool:
        if self.errors:
            raise self.errors.pop(0)
        self.read.set()
        return True


async def test_markets_that_can_t_be_renewed_are_said_and_renewed_later(caplog: pytest.LogCaptureFixture) -> None:
    egress = Egress(tls())
    markets = Unreadable([ccxt.ExchangeNotAvailable("it is closed"), KeyError("no base")])
    worker = WorkerConfig(renew_every_s=0.01)
    config = Config(lanes={"okx": LaneConfig(exchange="okx")}, worker=worker)
    lane = SignedLane("okx", config, egress, markets, Bounds(worker))
    renewing = asyncio.create_task(lane._renew())  # pyright: ignore[reportPrivateUsage]
    await markets.read.wait()
    await end_tasks([renewing])
    said = [record.__dict__["error"] for record in caplog.records if record.message == "markets_refresh_failed"]
    assert [("it is closed" in text, "no base" in text) for text in said] == [(True, False), (False, True)]
    await lane.close()
    await egress.close()
