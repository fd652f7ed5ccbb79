"""Options that several commands have, and what completes their words. No server's client is imported here."""

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeAlias

import typer


def _checked(url: str | None) -> str | None:
    from ..config import broker_urls
    from ..errors import ConfigError

    if url is not None:
        try:
            broker_urls("--url, or FLEET_BROKER_URL", url)
        except ConfigError as error:
            raise typer.BadParameter(str(error)) from None
    return url


def _checked_redis(url: str | None) -> str | None:
    from ..config import redis_url
    from ..errors import ConfigError

    if url is not None:
        try:
            redis_url("--redis-url, or FLEET_REDIS_URL", url)
        except ConfigError as error:
            raise typer.BadParameter(str(error)) from None
    return url


def seconds(least: float, most: float) -> Callable[[str], float]:
    """Reads a number of seconds between two bounds."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise typer.BadParameter(f"expected seconds, from {least:g} to {most:g}, not {text!r}")
        return number

    return read


def age_ms(text: str) -> int:
    """Reads seconds as the age of an answer, in milliseconds."""
    from ..messages import MAX_AGE_MS

    return round(seconds(0, MAX_AGE_MS / 1000)(text) * 1000)


def age_ms_or_bar(text: str) -> int | str:
    """The same, or the word for all bars that are finished."""
    from ..bars import BAR

    return text if text == BAR else age_ms(text)


# Neither has a default that is shown: there may be a password in it.
Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="FLEET_BROKER_URL",
        callback=_checked,
        metavar="AMQP",
        help="RabbitMQ, several nodes with commas between; without it this machine's",
    ),
]
RedisUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar="FLEET_REDIS_URL",
        callback=_checked_redis,
        metavar="REDIS",
        help="Redis; without it this machine's",
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="JSON, for programs")]


def _begin(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """The reads that a request may name."""
    from ..methods import PRIVATE_READS, PUBLIC_READS

    return _begin(sorted(PUBLIC_READS | PRIVATE_READS), incomplete)


def complete_exchange(incomplete: str) -> list[str]:
    """ccxt's ids."""
    from ..exchange_ids import EXCHANGE_IDS

    return _begin(sorted(EXCHANGE_IDS), incomplete)


def complete_strategy(incomplete: str) -> list[str]:
    """The strategies."""
    from typing import get_args

    from ..messages import Strategy

    return _begin(get_args(Strategy), incomplete)


Exchange: TypeAlias = Annotated[
    str | None, typer.Argument(help="only this exchange, or lane", autocompletion=complete_exchange)
]


def broker_urls(url: str | None) -> tuple[str, ...]:
    """RabbitMQ's URLs: the option's, else this machine's."""
    from .. import config

    return config.broker_urls("--url", url) if url is not None else config.BrokerConfig().urls


def redis_url(url: str | None) -> str:
    """Redis's URL, likewise."""
    from ..config import RedisConfig

    return url if url is not None else RedisConfig().url


def selects(wanted: str | None) -> Any:
    """A condition on lanes: whether one is of the exchange that was asked for, or has that name."""
    from .. import old_names

    names = {wanted, old_names.today(wanted)} if wanted else set[str | None]()

    def fits(lane: str, exchange: str) -> bool:
        return not names or lane in names or exchange in names or lane.partition(".")[0] in names

    return fits
