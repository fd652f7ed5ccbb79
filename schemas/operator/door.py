"""Makes RabbitMQ refuse requests, before queues are replaced: deletes the exchanges that they are published to.

Every publication is then refused, also those that are not mandatory: RabbitMQ closes the channel with NOT_FOUND, and
confirms nothing. Services that start, or connect again, declare the exchanges once more.
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
