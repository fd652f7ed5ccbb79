"""What `doctor` looks at in RabbitMQ: its version, queues and their arguments, whether it takes messages."""

import asyncio
import contextlib
import datetime
import re
import time
from collections.abc import Iterable
from typing import Any, Final

import aio_pika
import aiormq.exceptions
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from .. import topology
from ..topology import Queue
from . import servers
from .shapes import Finding, QueueView

OLDEST: Final = (3, 10)
# From this version on what expires is not held up by a node that is away (docs/operations.md, A RabbitMQ cluster).
CLUSTERS: Final = (3, 12, 5)
# RabbitMQ confirms in milliseconds; one that is short of memory or disk space reads nothing at all.
CONFIRM_S: Final = 3.0
# A queue that is so full will soon refuse, or drop its oldest.
NEARLY_FULL: Final = 0.8
_QUEUES: Final = "docs/operations.md, Queues, says how to replace it"


def version(said: str) -> Finding:
    """Whether RabbitMQ, e.g. ``RabbitMQ 3.10.8``, is recent enough."""
    numbers = tuple(map(int, re.findall(r"\d+", said)[:3]))
    if numbers < OLDEST:
        return Finding("RabbitMQ", "wrong", f"{said} is too old", "install 3.10 or later")
    if numbers < CLUSTERS:
        return Finding("RabbitMQ", "ok", f"{said}; a cluster of several nodes should have 3.12.5 or later")
    return Finding("RabbitMQ", "ok", said)


async def exchanges(connection: AbstractConnection) -> list[Finding]:
    """Whether the fleet's exchanges are there."""
    missing: list[str] = []
    for each in topology.EXCHANGES:
        channel = await connection.channel()
        try:
            await channel.declare_exchange(each.name, each.kind, passive=True)
            await channel.close()
        except aiormq.exceptions.ChannelNotFoundEntity:
            missing.append(each.name)
    if not missing:
        return [Finding("exchanges", "ok", f"all {len(topology.EXCHANGES)} are there")]
    return [
        Finding(
            "exchanges",
            "wrong",
            f"not there: {', '.join(missing)}",
            "start a dispatcher or a worker, or import `ccxt-fleet definitions`",
        )
    ]


async def queues(connection: AbstractConnection, lanes: Iterable[str]) -> tuple[list[Finding], dict[str, QueueView]]:
    """Whether the fleet's queues are there with their arguments, and how full they are."""
    found: list[Finding] = []
    seen: dict[str, QueueView] = {}
    missing: list[str] = []
    unchecked = 0
    wanted = topology.queues(lanes)
    for each in wanted:
        try:
            seen[each.name] = await _look(connection, each)
        except aiormq.exceptions.ChannelNotFoundEntity:
            missing.append(each.name)
            continue
        try:
            await _compare(connection, each)
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            found.append(Finding("queues", "wrong", f"{each.name} has other arguments: {_short(error)}", _QUEUES))
        except aiormq.exceptions.ChannelAccessRefused:
            unchecked += 1
        found += full(each, seen[each.name])
    if missing:
        do = "start a dispatcher or a worker, or import `ccxt-fleet definitions`"
        found.append(Finding("queues", "wrong", f"not there: {', '.join(missing)}", do))
    if unchecked:
        text = f"the arguments of {unchecked} could not be compared: this user may not declare them"
        found.append(Finding("queues", "note", text, "take the URL of the user fleet-operator"))
    if not found:
        found.append(Finding("queues", "ok", f"all {len(wanted)} are there, with their arguments"))
    return found, seen


async def _look(connection: AbstractConnection, queue: Queue) -> QueueView:
    channel = await connection.channel()
    declared = (await channel.declare_queue(queue.name, passive=True)).declaration_result
    await channel.close()
    return QueueView(queue.name, declared.message_count or 0, declared.consumer_count or 0)


async def _compare(connection: AbstractConnection, queue: Queue) -> None:
    """Declares a queue that is there: nothing happens where its arguments are ours, else RabbitMQ says which differ."""
    channel = await connection.channel()
    await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
    await channel.close()


def full(queue: Queue, seen: QueueView) -> list[Finding]:
    """Whether a queue holds nearly all that it may."""
    most = queue.arguments.get("x-max-length")
    if not isinstance(most, int) or seen.messages < NEARLY_FULL * most:
        return []
    what = "drops its oldest" if queue.arguments.get("x-overflow") == "drop-head" else "refuses"
    level = "note" if queue.name == topology.RESULTS else "wrong"
    text = f"{seen.name} holds {seen.messages:,} of at most {most:,} messages; full, it {what}"
    return [Finding("queues", level, text, "docs/operations.md, Queues, says what it means when it is long")]


def _short(error: BaseException) -> str:
    """RabbitMQ's sentence on a queue: only what differs."""
    said = re.search(r"inequivalent arg .*?(?=, class|$)", str(error))
    return (said[0] if said else str(error)).replace("inequivalent arg ", "")


async def takes_messages(urls: tuple[str, ...]) -> Finding:
    """Whether RabbitMQ takes what is published: it reads nothing while it is short of memory or disk space.

    On a connection of its own, as it then reads nothing else from it either.

    Raises:
        ServerAway: there is no connection any more.
    """
    async with servers.rabbitmq(urls) as connection:
        channel = await connection.channel()
        queue = await servers.own_queue(channel)
        try:
            async with asyncio.timeout(CONFIRM_S):
                await channel.default_exchange.publish(aio_pika.Message(b"doctor"), queue.name)
        except TimeoutError:
            return Finding(
                "RabbitMQ's alarms",
                "wrong",
                f"it confirmed no message within {CONFIRM_S:.0f} s: it is short of memory or disk space",
                "`rabbitmq-diagnostics alarms` says which; free some, or raise vm_memory_high_watermark or "
                "disk_free_limit",
            )
    return Finding("RabbitMQ's alarms", "ok", "it takes messages")


async def clock_s(connection: AbstractConnection) -> tuple[float, float] | None:
    """How far this machine's clock is ahead of RabbitMQ's, at least and at most, seconds; None where it does not show.

    RabbitMQ writes its time, in whole seconds, into what it dead-letters.
    """
    channel: AbstractChannel = await connection.channel()
    after = await servers.own_queue(channel)
    before = await servers.own_queue(
        channel, arguments={"x-message-ttl": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": after.name}
    )
    came: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

    async def take(message: AbstractIncomingMessage) -> None:
        if not came.done():
            came.set_result(message)

    await after.consume(take, no_ack=True)
    begun_s = time.time()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONFIRM_S):
            await channel.default_exchange.publish(aio_pika.Message(b"doctor"), before.name)
            headers: dict[str, Any] = dict((await came).headers)
            said = headers["x-death"][0]["time"]
            if isinstance(said, datetime.datetime):
                return begun_s - said.timestamp() - 1.0, time.time() - said.timestamp()
    return None
