"""Which Redis is primary, as Sentinels say: each connection asks them before it is made.

All Sentinels are asked at once, and the first that knows is believed. One that is wrong, as another server is being
promoted, costs a connection: the server that it names takes no writes (READONLY), or does not answer.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import Connection

COMMAND: Final = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME")


class UnknownService(redis.exceptions.ConnectionError):
    """The Sentinels answer, and none of them knows the service."""


class Sentinels:
    """Those that know one service.

    Args:
        clients: one for each.
        service: its name.
    """

    def __init__(self, clients: Sequence[redis.asyncio.Redis], service: str) -> None:
        self._clients: Sequence[Any] = clients
        self._service = service
        self._asking: asyncio.Task[tuple[str, int]] | None = None
        self._asked = set[asyncio.Task[tuple[str, int] | Exception | None]]()

    async def primary(self) -> tuple[str, int]:
        """Host and port of the primary; connections that are made at the same time ask together.

        Raises:
            RedisError: none of the Sentinels says.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="sentinels")
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Ends the connections to them."""
        await asyncio.gather(*self._asked)
        for client in self._clients:
            await client.aclose()

    async def _ask(self) -> tuple[str, int]:
        asked = [asyncio.create_task(self._say(client)) for client in self._clients]
        # Those that are slower go on: a question that is cut off costs its connection.
        self._asked = {task for task in (*self._asked, *asked) if not task.done()}
        error: BaseException = UnknownService(f"no Sentinel knows a service {self._service}")
        for answer in asyncio.as_completed(asked):
            found = await answer
            if isinstance(found, tuple):
                return found
            error = found or error
        raise error

    async def _say(self, client: Any) -> tuple[str, int] | Exception | None:
        try:
            found: Any = await client.execute_command(*COMMAND, self._service)
        except (redis.exceptions.RedisError, OSError) as lost:
            return lost
        return (found[0].decode(), int(found[1])) if found else None


class ToPrimary(Connection):
    """A connection to whichever server is primary when it is made; `sentinels` is set by a subclass."""

    sentinels: Sentinels

    async def _connect(self) -> None:
        self.host, self.port = await self.sentinels.primary()
        connect: Any = super()._connect
        await connect()
