"""One lane's signed calls, without the gateway around it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.config import Config, LaneConfig, RedisConfig, WorkerConfig
from schemas.gateway.signed import Answered, End, SignedCall, Unsent
from schemas.runtime import store
from schemas.runtime.tasks import end_tasks
from tests.support.signed import keys
from workers.direct.known_keys import KEPT, KnownKeys
from workers.direct.sender import Sender
from workers.direct.signed_lane import NEW, SignedLane
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


async def test_who_invents_keys_has_one_account_s_limit_with_all_of_them_and_leaves_room_for_others(
    redis_url: str,
) -> None:
    """Kraken's private calls count for their account alone: 15 at once, then one in 3 s."""
    async with Simulator(exchanges=["kraken"]) as simulator:
        lane = LaneConfig(exchange="kraken", ccxt=ccxt_config("kraken", simulator.urls["kraken"]))
        sender = Sender(Config(lanes={"kraken": lane}, redis=RedisConfig(url=redis_url)))
        kraken: Any = ccxt.kraken
        signs = kraken(keys())
        signs.timeout_on_exit = 0

        async def ask(key: str, wait_s: float) -> End:
            made = signs.sign("BalanceEx", ["private"], "POST", {})
            headers = {**made["headers"], "API-Key": key} if key else made["headers"]
            until_s = asyncio.get_running_loop().time() + wait_s
            return await sender.send(SignedCall("kraken", "POST", made["url"], headers, made["body"]), until_s)

        async def came() -> int:
            return int((await simulator.counters())["exchanges"]["kraken"]["requests"])

        try:
            mine = await ask("", 30)
            assert isinstance(mine, Answered)
            before = await came()
            ends = await asyncio.gather(*(ask(f"invented-{number}", 6) for number in range(4 * NEW)))
            assert 0 < await came() - before <= 17, Counter(map(str, ends))
            assert Counter(type(end) for end in ends)[Unsent] >= 4 * NEW - 17
            assert isinstance(await ask("", 5), Answered)
            assert (await simulator.counters())["violations"] == 0
        finally:
            await signs.close()
            await sender.close(cuts=True)


def test_accepted_keys_are_forgotten_again_the_last_used_ones_last() -> None:
    known = KnownKeys()
    for number in range(KEPT + 10):
        known.accept(str(number))
        known.accept("used")
    assert len(known) == KEPT
    assert "used" in known
    assert "0" not in known
