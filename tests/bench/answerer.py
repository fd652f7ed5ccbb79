"""Answers every request at once with a ticker, in the place of a fleet: ``python -m tests.bench.answerer URL``.

So what is measured is what the producer does. It publishes as workers do: persistent, and confirmed before the request
is acknowledged.
"""

import asyncio
import sys
from typing import Any, Final

import aio_pika
import aiormq
from aiormq.abc import DeliveredMessage

from schemas import topology
from schemas.messages import MSGPACK, Outcome, Result, Try, encode

FIELDS: Final = "high low bid bidVolume ask askVolume vwap open close last previousClose change percentage average"
TICKER: Final[dict[str, Any]] = {
    "symbol": "BTC/USDT",
    "timestamp": 1795334460000,
    "datetime": "2026-11-22T08:01:00.000Z",
    **dict.fromkeys(FIELDS.split(), 55301.25),
    "info": dict.fromkeys(FIELDS.split(), "55301.25000000"),
}


async def main(url: str) -> None:
    """Declares what a dispatcher would, prints that it is ready, and answers until it is stopped."""
    async with await aio_pika.connect(url) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        (queue,) = (each for each in topology.QUEUES if each.name == topology.REQUESTS)
        await channel.queue_declare(queue.name, durable=True, arguments={**queue.arguments})
        await channel.exchange_declare(queue.exchange, exchange_type="fanout", durable=True)
        await channel.queue_bind(queue.name, queue.exchange)
        await channel.basic_qos(prefetch_count=500)

        async def answer(message: DeliveredMessage) -> None:
            asked = message.header.properties
            tries = [Try("okx", Outcome.OK, waited_ms=0.5, exchange_ms=20.0)]
            result = Result(asked.message_id or "", True, "fetch_ticker", "okx", "okx", TICKER, attempts=tries)
            direct = (asked.reply_to or "").startswith("amq.rabbitmq.reply-to")
            await channel.basic_publish(
                encode(result),
                routing_key=asked.reply_to or "",
                properties=aiormq.spec.Basic.Properties(
                    content_type=MSGPACK, correlation_id=asked.correlation_id, delivery_mode=2
                ),
                mandatory=not direct,
                wait=False,
            )
            assert message.delivery_tag is not None
            await channel.basic_ack(message.delivery_tag, wait=False)

        await channel.basic_consume(queue.name, answer)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
