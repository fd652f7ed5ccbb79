"""Charges a program's own ccxt to the fleet's budgets: it keeps its class, its keys and its orders.

Each HTTP call is charged in Redis before it leaves, waits for its turn as the fleet's calls do, and heeds the fleet's
pauses. A refusal that it gets pauses the fleet. RabbitMQ is not needed. While Redis is away the program goes on with
its part of each limit, as a worker does (`budget.membership`).
"""

import ipaddress
import os
from pathlib import Path
from typing import Any, Final, TypeVar

import ccxt as blocking_ccxt  # pyright: ignore[reportMissingTypeStubs]

from schemas.config import LaneConfig, LimitsConfig, RedisConfig, load, redis_url
from schemas.errors import ConfigError

from ..exchange.charged import ccxt
from ..limits.tables import shipped
from .blocking import BlockingCalls, BlockingShadow
from .calls import Calls, Shadow
from .purse import Purse

T = TypeVar("T")

MAX_WAIT_S: Final = 60.0
# By whether the instance is of `async_support`, and whether its calls are only counted.
KINDS: Final = {
    (True, False): Calls,
    (True, True): Shadow,
    (False, False): BlockingCalls,
    (False, True): BlockingShadow,
}


def charged(
    exchange: T,
    redis: str = "",
    *,
    local_addr: str | None = None,
    config: str | Path | None = None,
    max_wait_s: float = MAX_WAIT_S,
    shadow: bool = False,
) -> T:
    """Charges every call of an instance of ccxt's class from now on, and returns the instance.

    A call that would have to wait for longer than `max_wait_s` is not sent, and raises ccxt's `RateLimitExceeded`.
    `exchange.purse` says how many calls there were and how long they waited.

    Args:
        exchange: of ``ccxt.async_support`` or of ``ccxt``. ccxt's own limiter is switched off.
        redis: the fleet's Redis; without it that of `config`, of ``FLEET_REDIS_URL``, or this machine's.
        local_addr: as in the fleet's lane: its calls leave from this address, which has a budget of its own. Calls
            through the instance's ``httpProxy`` or ``httpsProxy`` have that proxy's budget, as the lane with it.
        config: the fleet's configuration, for its `limits` and its Redis.
        max_wait_s: the longest that one call may wait.
        shadow: only count: calls are charged and sent at once, and `exchange.purse` says how long they would have
            waited. They may be more than the exchange allows, as without the fleet.

    Raises:
        ConfigError: the instance, the URL, the address or the file can't be used.
        TypeError: it is no instance of ccxt's classes.
    """
    whole: Any = exchange
    is_async = isinstance(exchange, ccxt.Exchange)
    if not is_async and not isinstance(exchange, blocking_ccxt.Exchange):
        raise TypeError(f"charged: expected an instance of a ccxt class, as ccxt.binance(), not {exchange!r:.60}")
    if getattr(whole, "purse", None) is not None:
        raise ConfigError(f"{whole.id}: it is charged already")
    url, limits = _of_fleet(whole.id, redis, config)
    sandbox: bool = whole.isSandboxModeEnabled
    lane = LaneConfig(exchange=whole.id, local_addr=_address(local_addr), proxy=_proxy_of(whole), sandbox=sandbox)
    purse = Purse(whole, url, lane, limits, max_wait_s=max_wait_s)
    kind: Any = KINDS[is_async, shadow]
    kind.check(whole)
    original: Any = whole.__class__
    whole.__class__ = type(original.__name__, (kind, original), {})
    whole.enableRateLimit = False
    whole.purse = purse
    return exchange


def _of_fleet(exchange: str, url: str, config: str | Path | None) -> tuple[str, LimitsConfig | None]:
    """The fleet's Redis, and its own limits for an exchange."""
    if config is not None:
        fleet = load(Path(config))
        return (
            redis_url("charged's redis", url) if url else fleet.redis.url,
            fleet.limits.get(shipped().limits_of(exchange)),
        )
    if url:
        return redis_url("charged's redis", url), None
    said = os.environ.get("FLEET_REDIS_URL", "")
    return (redis_url("FLEET_REDIS_URL in the environment", said) if said else RedisConfig().url), None


def _address(text: str | None) -> str | None:
    if text is not None:
        try:
            ipaddress.ip_address(text)
        except ValueError as error:
            raise ConfigError(f"charged's local_addr: expected an IP address, not {text!r}") from error
    return text


def _proxy_of(exchange: Any) -> str | None:
    for name in ("httpsProxy", "https_proxy", "httpProxy", "http_proxy", "aiohttp_proxy"):
        if proxy := getattr(exchange, name, None):
            return str(proxy)
    return None
