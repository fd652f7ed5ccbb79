"""What a program may say of how the fleet is to make its calls: for all in the environment, for one instance in it."""

import os
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.client.asking import HttpHow
from schemas.errors import ConfigError
from schemas.messages import Priority

# The word in a class's configuration: ``ccxt.binance({"fleet": {"deadline_s": 20}})``.
WORD: Final = "fleet"
# ccxt's own limiter lets calls wait for their turn without an end: here the wait is part of the deadline.
DEADLINE_S: Final = 60.0


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the fleet is to make calls.

    Args:
        deadline_s: how long a call may take, with the wait for its turn. Never less than the instance's `timeout`.
        priority: ``bulk`` for what has time.
        max_age_s: how old an answer may be that an equal call had; 0 for none.
        markets_max_age_s: the same for calls that load markets, where it is longer; not for a reload.
        exchanges: lanes or groups to ask in place of the exchange's own name.
        private: what becomes of calls that are no public reads: ``refused``, or sent by this program itself with its
            keys, charged to the fleet's budgets (``direct``).
        local_addr: the address that these leave from, see `direct.charged`.
        redis: the fleet's Redis, for these.
        broker: the fleet's RabbitMQ; without it that of ``FLEET_BROKER_URL``, else this machine's.
    """

    deadline_s: Annotated[float, Meta(gt=0)] = DEADLINE_S
    priority: Priority = "live"
    max_age_s: Annotated[float, Meta(ge=0)] = 0.0
    markets_max_age_s: Annotated[float, Meta(ge=0)] = 0.0
    exchanges: tuple[str, ...] = ()
    private: Literal["refused", "direct"] = "refused"
    local_addr: str | None = None
    redis: str = ""
    broker: str = ""


# The environment's names, for what can hold for all.
VARIABLES: Final = {
    "FLEET_DEADLINE_S": "deadline_s",
    "FLEET_PRIORITY": "priority",
    "FLEET_MAX_AGE_S": "max_age_s",
    "FLEET_MARKETS_MAX_AGE_S": "markets_max_age_s",
    "FLEET_PRIVATE": "private",
}


def of(exchange: Any) -> Settings:
    """The settings of an instance: its own, else the environment's; raises ConfigError."""
    said = {name: os.environ[variable] for variable, name in VARIABLES.items() if variable in os.environ}
    where = "in the environment"
    try:
        msgspec.convert(said, Settings, strict=False)
        where = f"{exchange.id}'s {WORD!r}"
        return msgspec.convert({**said, **(getattr(exchange, WORD, None) or {})}, Settings, strict=False)
    except (msgspec.ValidationError, TypeError) as error:
        known = ", ".join((*VARIABLES, *Settings.__struct_fields__))
        raise ConfigError(f"{where}: {error}; known are {known}") from None


def how(settings: Settings, exchange: Any, *, markets: bool = False) -> HttpHow:
    """What the client is told of a call of an instance, which may be one of those that load its markets."""
    least_s = float(exchange.timeout) / 1000
    age_s = max(settings.max_age_s, settings.markets_max_age_s if markets else 0.0)
    return {
        "deadline": timedelta(seconds=max(settings.deadline_s, least_s)),
        "priority": settings.priority,
        "max_age": timedelta(seconds=age_s) if age_s else None,
    }


def lanes(settings: Settings, exchange: Any, name: str) -> tuple[str, ...]:
    """Who may answer: the lanes of an exchange, or those of its testnet."""
    return settings.exchanges or (f"{name}-sandbox" if exchange.isSandboxModeEnabled else name,)
