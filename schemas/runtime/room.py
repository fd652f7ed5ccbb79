"""Bounded memory, in number and bytes, for what a process holds of messages."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Room:
    """Who comes first gets it first; what is larger than all of it gets it alone.

    Args:
        most: so many may hold some of it at once.
        most_bytes: so much they may hold.

    Attributes:
        count: how many hold some now.
        size_bytes: how much they hold.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.count = self.size_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._open = asyncio.Event()
        self._open.set()

    async def opened(self) -> None:
        """Returns when not all of it is held."""
        await self._open.wait()

    @asynccontextmanager
    async def taken(self, size_bytes: int) -> AsyncGenerator[None, None]:
        """Holds so much of it, once it is there."""
        await self.take(size_bytes)
        try:
            yield
        finally:
            self.give(size_bytes)

    async def take(self, size_bytes: int) -> None:
        """Holds so much of it until `give`; returns when it does."""
        if not self._waiting and self._fits(size_bytes):
            self._change(1, size_bytes)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        self._open.clear()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._change(0, 0)  # it may have stood before others that fit
            else:
                self.give(size_bytes)
            raise

    def give(self, size_bytes: int) -> None:
        """Holds so much of it no more."""
        self._change(-1, -size_bytes)

    def crowded(self) -> bool:
        """Whether more than half of it is taken."""
        return self.count > self._most / 2 or self.size_bytes > self._most_bytes / 2

    def _fits(self, size_bytes: int) -> bool:
        return self.count < self._most and (not self.count or self.size_bytes + size_bytes <= self._most_bytes)

    def _change(self, count: int, size_bytes: int) -> None:
        self.count += count
        self.size_bytes += size_bytes
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size_bytes, turn = self._waiting.popleft()
            if not turn.done():
                self.count += 1
                self.size_bytes += size_bytes
                turn.set_result(None)
        if self._waiting or not self._fits(1):
            self._open.clear()
        else:
            self._open.set()
