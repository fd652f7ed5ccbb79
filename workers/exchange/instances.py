"""Instances of ccxt's classes as lanes have them: over the egress's connections, with nothing that repeats calls."""

from collections.abc import Mapping
from typing import Any

from schemas.config import LaneConfig
from schemas.errors import ConfigError

from . import settings
from .egress import Egress
from .redaction import Hide, in_one_line


def made(
    kind: Any,
    name: str,
    lane: LaneConfig,
    egress: Egress,
    http_timeout_s: float,
    hide: Hide,
    more: Mapping[str, object],
) -> Any:
    """An instance for a lane.

    Args:
        kind: its class.
        name: the lane's name.
        lane: what the configuration says of it.
        egress: the address it goes out from.
        http_timeout_s: the longest one HTTP call may take.
        hide: takes secrets out of an error's text.
        more: more of ccxt's settings.

    Raises:
        ConfigError: ccxt can't be made with these settings.
    """
    said: dict[str, Any] = {
        **lane.ccxt,
        "enableRateLimit": False,  # the budget does it, for all processes together
        "timeout": int(http_timeout_s * 1000),
        "session": egress.session,
        "ssl_context": egress.ssl_context,
        "httpsProxy": egress.proxy,
    }
    try:
        exchange = kind({**said, **more})
    except Exception as error:
        raise ConfigError(f"lanes.{name}.ccxt: ccxt can't be made with it: {in_one_line(error, hide)}") from None
    if lane.sandbox:
        settings.enter_sandbox(name, exchange)
    exchange.enableLastHttpResponse = False  # it would keep the last body
    exchange.options["maxRetriesOnFailure"] = 0
    exchange.options["maxRetries"] = 0
    exchange.timeout_on_exit = 0
    return exchange
