"""A TCP proxy that cuts its connections off, delays them, or lets nothing through: a network that fails on demand."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self


class Proxy:
    """Stands before one port of this machine; `port` is its own, `delay_s` keeps back every piece for so long.

    `held` are the connections that have something which a freeze holds back, by their places.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0
        self.delay_s = 0.0
        self._frozen: tuple[int, ...] = ()
        self.held: set[int] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, target: int) -> AsyncGenerator[Self, None]:
        """A proxy that runs before this port."""
        proxy = cls(target)
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends all connections at once; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def freeze(self, *connections: int) -> None:
        """Lets nothing through, either way; connections stay open, and new ones are taken and not served.

        Args:
            connections: those to freeze, by their places among all that were accepted, from 1; none for all.
        """
        self._frozen = connections
        self._open.clear()

    def thaw(self) -> None:
        """Lets through what was held back."""
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number = self.accepted
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server behind us is away, so we are too
            writer.transport.abort()
            return
        self._writers |= {writer, there_writer}
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._pass_on(source, sink, number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, number: int) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if not self._open.is_set() and (not self._frozen or number in self._frozen):
                    self.held.add(number)
                    await self._open.wait()
                    self.held.discard(number)
                if sink.is_closing():
                    break
                sink.write(data)
                await sink.drain()
        self._writers.discard(sink)
        sink.close()
