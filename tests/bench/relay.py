"""The hop's reference: a relay as one would write it with aio-pika, which does nothing but relay.

``python -m tests.bench.relay <AMQP URL> <source queue> <exchange> <routing key>...`` deals messages out to the keys in
turn: consumes with prefetch 500, publishes persistent with confirm, then acknowledges.
"""

import asyncio
import itertools
import signal
import sys

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage


async def relay(url: str, source: str, target: str, keys: list[str]) -> None:
    """Relays until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    turn = itertools.cycle(keys)
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=500)
        exchange = await channel.get_exchange(target)
        queue = await channel.get_queue(source)

        async def on_message(message: AbstractIncomingMessage) -> None:
            async with message.process():
                await exchange.publish(
                    aio_pika.Message(
                        message.body,
                        content_type=message.content_type,
                        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    ),
                    next(turn),
                )

        await queue.consume(on_message)
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(relay(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
