"""Bounds how many messages or requests a process holds, and how many bytes they have."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Room:
    """A bound in number and bytes, first come first served. A message larger than the bound is held alone.

    Args:
        most: how many messages may be held at once.
        most_bytes: how many bytes they may have together.

    Attributes:
        count: how many messages are held now.
        size_bytes: how many bytes they have.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.count = self.size_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._open = asyncio.Event()
        self._open.set()

    async def opened(self) -> None:
        """Returns when there is some room."""
        await self._open.wait()

    @asynccontextmanager
    async def taken(self, size_bytes: int) -> AsyncGenerator[None, None]:
        """Holds so many bytes inside the `with` block, once there is room for them."""
        await self.take(size_bytes)
        try:
            yield
        finally:
            self.give(size_bytes)

    async def take(self, size_bytes: int) -> None:
        """Waits until there is room for so many bytes, and holds them until `give`."""
        if self.take_now(size_bytes):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        self._open.clear()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._change(0, 0)  # those behind it may fit
            else:
                self.give(size_bytes)
            raise

    def take_now(self, size_bytes: int) -> bool:
        """Holds so many bytes until `give`, if there is room for them now."""
        if self._waiting or not self._fits(size_bytes):
            return False
        self._change(1, size_bytes)
        return True

    def give(self, size_bytes: int) -> None:
        """Gives back what `take` or `take_now` took."""
        self._change(-1, -size_bytes)

    def resize(self, most: int, most_bytes: int) -> None:
        """Takes other bounds. What is held beyond them stays until it is given back."""
        self._most, self._most_bytes = most, most_bytes
        self._change(0, 0)

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
