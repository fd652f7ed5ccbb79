"""Shuts the door that requests come in by, before queues are replaced.

The exchanges are deleted. RabbitMQ then refuses every publication, also those that are not mandatory: it closes the
channel with NOT_FOUND, and confirms nothing. Services that start, or connect again, declare the exchanges once more.
"""

import aio_pika

from .. import topology


async def shut(url: str) -> None:
    """Deletes the exchanges that requests are published to; those that are not there stay away.

    Raises:
        OSError, AMQPError: RabbitMQ is not there, or does not allow it.
    """
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for name in (topology.REQUESTS, topology.BULK_REQUESTS):
            await channel.exchange_delete(name)
