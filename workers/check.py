"""Checks a configuration as a worker does when it starts, for `ccxt-fleet config check`."""

from schemas.config import Config
from schemas.runtime import store
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery

from .heap import Heap
from .lanes import Lanes
from .part import ALL, Part
from .reports import Reports
from .spread import Spread


async def check(config: Config, part: Part = ALL) -> None:
    """Makes every lane as a worker would, connects to nothing, and drops them again.

    Args:
        config: the configuration.
        part: which of its lanes.

    Raises:
        ConfigError: a worker would not start with it; says which key it is, and what would work.
    """
    client = store.connect(config.redis.url, timeout_s=config.redis.timeout_s)
    broker, served = Broker(config.broker, "check", []), Spread("check", part, {})
    lanes = Lanes(config, client, broker, Reports(), _take, Heap(), served)
    try:
        await lanes.discard(await lanes.plan(config))
    finally:
        await lanes.close()
        await client.aclose()


async def _take(lane: str, delivery: Delivery) -> None:
    """Never called: no lane is opened."""
    raise AssertionError(lane, delivery)
