"""One AMQP connection, which can be closed from the moment at which it begins to be opened."""

import asyncio
from typing import Any

import aio_pika
import aiormq
from aio_pika.abc import UnderlayConnection
from aio_pika.connection import make_url
from aio_pika.tools import OneShotCallback


class Connection(aio_pika.Connection):
    """A connection of aio-pika; who gives up `connect`, or sees it fail, closes it.

    aio-pika 10.2.1 knows of a connection only some turns of the event loop after it is open. One whose opening is
    cancelled in between would stay open, and be read, for as long as the process lives.

    Args:
        url: where RabbitMQ is.
        heartbeat_s: how often both sides say that they are there.
        name: shown in RabbitMQ's list of connections.
    """

    def __init__(self, url: str, *, heartbeat_s: int, name: str) -> None:
        super().__init__(make_url(url, heartbeat=heartbeat_s), client_properties={"connection_name": name})
        settings: dict[str, Any] = self.kwargs
        lower = aiormq.Connection(self.url, **settings)
        on_close = OneShotCallback(self._on_connection_close)  # pyright: ignore[reportUnknownArgumentType]  (a bare Future)
        lower.closing.add_done_callback(on_close)
        self.transport: UnderlayConnection = UnderlayConnection(connection=lower, close_callback=on_close)

    async def connect(self, timeout: float | None = None) -> None:
        """Opens it, within a time in seconds; `timeout` is aio-pika's own name."""
        async with asyncio.timeout(timeout):
            await self.transport.connection.connect()
            await self.transport.connection.ready()
        await self._on_connected()
