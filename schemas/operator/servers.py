"""RabbitMQ and Redis as a command reaches them, and what to do where it does not. No password is ever repeated."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

import aio_pika
import aiormq.exceptions
import redis.asyncio
import redis.exceptions
from aio_pika.abc import AbstractChannel, AbstractConnection

from ..errors import ConfigError, FleetError
from ..runtime import permanent, properties, store, tasks
from ..runtime.amqp import refusals
from ..urls import place

properties.read_leniently()

TIMEOUT_S: Final = 5.0
CLOSING_S: Final = 1.0
HINT: Final = "Is it running? `ccxt-fleet up` starts one for trying out; --url or FLEET_BROKER_URL names another"
# What `fleet-operator` and `fleet-producer` may both name their queues.
_OWN: Final = "fleet.client"


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
            why = await permanent.why_cut(error, url, TIMEOUT_S, refusals.why) or words(error)
            said.append(f"RabbitMQ at {place(url)}: {why}")
    raise ServerAway("\n".join([*said, HINT]))


@contextlib.asynccontextmanager
async def redis_at(url: str) -> AsyncGenerator[redis.asyncio.Redis, None]:
    """Redis.

    Raises:
        ServerAway: it does not answer, or refuses; also on the way.
    """
    client = store.connect(url, timeout_s=TIMEOUT_S)
    try:
        async with client:
            await store.admitted(client, url, timeout_s=TIMEOUT_S)
            any_client: Any = client
            await any_client.ping()
            yield client
    except ConfigError as error:
        raise ServerAway(f"{error}\n--redis-url or FLEET_REDIS_URL names another") from error
    except store.AWAY as error:
        raise ServerAway(
            f"Redis at {place(url)}: {words(error)}\n"
            "Is it running? `ccxt-fleet up` starts one for trying out; --redis-url or FLEET_REDIS_URL names another"
        ) from error


async def own_queue(channel: AbstractChannel, **options: Any) -> Any:
    """A queue for this command alone, with a name that the fleet's users may declare."""
    return await channel.declare_queue(f"{_OWN}.{secrets.token_hex(8)}", exclusive=True, auto_delete=True, **options)


def _refused(error: BaseException) -> str:
    if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
        return f"this user may not do that: {error}\nTake the URL of the user fleet-operator (docs/operations.md)"
    if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
        return f"{error}\nThe fleet has never run here, or with another virtual host: start a dispatcher or a worker"
    return words(error)


def words(error: BaseException) -> str:
    """What happened, in words of the innermost cause that has some."""
    causes = list(_causes(error))
    for each in causes:
        if isinstance(each, socket.gaierror):
            return "the host's name has no address"
        if isinstance(each, ConnectionRefusedError) or "Connect call failed" in str(each):
            return "connection refused"
        if isinstance(each, (TimeoutError, redis.exceptions.TimeoutError)):
            return "no answer in time"
    said = next((str(each) for each in reversed(causes) if str(each)), type(error).__name__)
    # What libraries say of an object whose connection has gone is its `repr`.
    return "the connection was lost" if said.startswith("<") or (error is causes[-1] and not str(error)) else said


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    seen = set[int]()
    while found is not None and id(found) not in seen:
        yield found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
