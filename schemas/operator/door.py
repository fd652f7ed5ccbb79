"""Shuts the door that requests come in by, before queues are replaced.

The exchanges are deleted. RabbitMQ then refuses every publication, also those that are not mandatory: it closes the
channel with NOT_FOUND, and confirms nothing. Services that start, or connect again, declare the exchanges once more.
"""

from .. import topology
from . import servers


async def shut(urls: tuple[str, ...]) -> None:
    """Deletes the exchanges that requests are published to; those that are not there stay away.

    Raises:
        ServerAway: RabbitMQ is not there, or does not allow it.
    """
    async with servers.rabbitmq(urls) as connection:
        channel = await connection.channel()
        for name in (topology.REQUESTS, topology.BULK_REQUESTS):
            await channel.exchange_delete(name)
