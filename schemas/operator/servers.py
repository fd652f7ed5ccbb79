"""RabbitMQ and Redis as a command reaches them, and what to do where it does not. No password is ever repeated."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import aio_pika
import aiormq.exceptions
import redis.asyncio
from aio_pika.abc import AbstractChannel, AbstractConnection

from .. import topology
from ..errors import ConfigError, FleetError
from ..runtime import permanent, properties, store, tasks
from ..runtime.amqp import refusals
from ..urls import place

properties.read_leniently()

TIMEOUT_S: Final = 5.0
CLOSING_S: Final = 1.0
HINT: Final = "Is it running? `ccxt-fleet up` starts one for trying out; --url or FLEET_BROKER_URL names another"
REFUSED: Final = "--url or FLEET_BROKER_URL says where it is, and as whom we come: amqp://user:password@host:5672/vhost"
REDIS_HINT: Final = (
    "Is it running? `ccxt-fleet up` starts one for trying out; --redis-url or FLEET_REDIS_URL names another"
)


class ServerAway(FleetError):
    """A server can't be reached, or refuses; the message says what to do."""

    retryable = True


@contextlib.asynccontextmanager
async def rabbitmq(urls: tuple[str, ...]) -> AsyncGenerator[AbstractConnection, None]:
    """A connection to the first of these nodes that answers.

    Raises:
        ServerAway: none does; also where the connection is lost on the way, or RabbitMQ forbids something.
    """
    connection = await _connected(urls)
    try:
        yield connection
    except (Exception, asyncio.CancelledError) as error:
        if not isinstance(error, (aiormq.exceptions.AMQPError, OSError)) and not tasks.lost(error):
            raise
        raise ServerAway(f"RabbitMQ at {place(urls[0])}: {_refused(error)}") from error
    finally:
        # RabbitMQ reads nothing from a connection that it blocks, not even that it is to be closed.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSING_S):
                await connection.close()


async def _connected(urls: tuple[str, ...]) -> AbstractConnection:
    said: list[str] = []
    refused = ""
    for url in urls:
        try:
            return await aio_pika.connect(
                url, timeout=TIMEOUT_S, client_properties={"connection_name": "ccxt-fleet (command line)"}
            )
        except Exception as error:
            if (
                not isinstance(error, (aiormq.exceptions.AMQPError, OSError, TimeoutError))
                and type(error) is not Exception
            ):
                raise
            refused = await permanent.why_cut(error, url, TIMEOUT_S, refusals.why)
            said.append(f"RabbitMQ at {place(url)}: {refused or permanent.words(error)}")
    raise ServerAway("\n".join([*said, REFUSED if refused else HINT]))


@contextlib.asynccontextmanager
async def redis_at(url: str) -> AsyncGenerator[redis.asyncio.Redis, None]:
    """Redis.

    Raises:
        ServerAway: it does not answer, or refuses; also on the way.
    """
    client = store.connect(url, timeout_s=TIMEOUT_S)
    try:
        async with client:
            await store.check_access(client, url, timeout_s=TIMEOUT_S)
            any_client: Any = client
            await any_client.ping()
            yield client
    except ConfigError as error:
        raise ServerAway(f"{error}\n--redis-url or FLEET_REDIS_URL names another") from error
    except store.AWAY as error:
        raise ServerAway(f"Redis at {place(url)}: {permanent.words(error)}\n{REDIS_HINT}") from error


def product(info: Mapping[str, Any]) -> tuple[str, str]:
    """``Redis`` or ``Valkey``, and the version, from what INFO says; the version is empty where it does not say."""
    if "valkey_version" in info:
        return "Valkey", str(info["valkey_version"])
    return "Redis", str(info.get("redis_version", ""))


async def own_queue(channel: AbstractChannel, **options: Any) -> Any:
    """A queue for this command alone, with a name that the fleet's users may declare."""
    return await channel.declare_queue(
        f"{topology.CLIENT}.{secrets.token_hex(8)}", exclusive=True, auto_delete=True, **options
    )


def _refused(error: BaseException) -> str:
    if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
        return f"this user may not do that: {error}\nTake the URL of the user fleet-operator (docs/operations.md)"
    if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
        return f"{error}\nThe fleet has never run here, or with another virtual host: start a dispatcher or a worker"
    return permanent.words(error)
