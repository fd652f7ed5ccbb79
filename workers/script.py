"""The budgets' Lua script on its way to Redis and back: its text, what a loss looks like, who is asked together."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import redis.asyncio
import redis.exceptions

from . import membership

PARTS: Final = ("kinds.lua", "rolling.lua", "budget.lua", "turns.lua", "shares.lua")
SCRIPT: Final = membership.CONSTANTS + "".join(
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in PARTS
)
REDIS_CLOCK: Final = "local function clock() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end\n"

# Redis is away, starts, or has become a replica; anything else it says is a fault of ours.
LOST: Final = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.OutOfMemoryError,
    OSError,
)
# So many go out together at most: Redis answers other clients in between.
BATCH: Final = 64

Command: TypeAlias = tuple[str | int, ...]


class Script:
    """Runs the script.

    Args:
        client: made by `schemas.store.connect`.
        clock: the line that tells the time; tests bring their own.
    """

    def __init__(self, client: redis.asyncio.Redis, clock: str = REDIS_CLOCK) -> None:
        self._client: Any = client
        self._text = clock + SCRIPT
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None
        self._busy = False

    async def run(self, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Ask. What is asked while an answer is awaited goes out together next, in the order of asking.

        One reservation at a time costs the client about 300 us of CPU, ten sent together 90 us each.
        """
        command = (self._sha, len(keys), *keys, *args)
        try:
            if self._busy:
                answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                self._waiting.append((command, answer))
                return await answer
            self._busy = True
            try:
                return await self._client.evalsha(*command)
            finally:
                self._sender = asyncio.create_task(self._send()) if self._waiting else None
                self._busy = bool(self._sender)
        except redis.exceptions.NoScriptError:
            # It ran nothing, so that asking again charges once.
            return await self._client.eval(self._text, len(keys), *keys, *args)

    async def _send(self) -> None:
        batch: list[tuple[Command, asyncio.Future[Any]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                pipeline = self._client.pipeline(transaction=False)
                for command, _ in batch:
                    pipeline.evalsha(*command)
                try:
                    results: list[Any] = await pipeline.execute(raise_on_error=False)
                except Exception as error:
                    batch, self._waiting = batch + self._waiting, []  # One time-out is enough for all.
                    results = [error] * len(batch)
                for (_, answer), result in zip(batch, results, strict=True):
                    if answer.done():  # Its caller was cancelled; what it reserved lapses.
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)
        finally:
            # When the loop ends this task is cancelled: nobody may wait for it for ever.
            for _, answer in batch + self._waiting:
                answer.cancel()
            self._waiting.clear()
            self._busy = False
