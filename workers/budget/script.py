"""The Lua library of the budgets: its text, and how its function is called, alone or several times in a round trip."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import redis.asyncio
import redis.exceptions

from . import rules

FOLDER: Final = Path(__file__).parent / "lua"
# In this order: each uses the functions of those before it.
FILES: Final = (
    "clock.lua",
    "kinds.lua",
    "rolling.lua",
    "budget.lua",
    "turns.lua",
    "pauses.lua",
    "shares.lua",
    "corrections.lua",
    "give.lua",
)
TEXT: Final = rules.LUA + "".join((FOLDER / name).read_text(encoding="utf-8") for name in FILES)
REDIS_CLOCK: Final = "local function clock() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end\n"

# What Redis says where it has no such function: it was restarted, or never had it.
UNKNOWN: Final = "Function not found"
# So many go out together at most: Redis answers other clients in between.
BATCH: Final = 64

Argument: TypeAlias = str | int | bytes
Command: TypeAlias = tuple[Argument, ...]
# The last arguments, as they are when a question is sent: it may have waited for others.
Last: TypeAlias = Callable[[], Sequence[Argument]]


class Library:
    """The text as a library of one function.

    Redis runs a script's whole text at every call, a library's once. It is named by what is in it, so that versions
    live side by side while a fleet is renewed.

    Args:
        clock: the line that tells the time; tests bring their own.
    """

    def __init__(self, clock: str = REDIS_CLOCK) -> None:
        self.name = f"fleet_{hashlib.sha256((clock + TEXT).encode()).hexdigest()[:16]}"
        call = "function(keys, args) return answer(keys, args) end"
        ends = f"redis.register_function('{self.name}', {call})\n"
        self.text = f"#!lua name={self.name}\n{clock}{TEXT}{ends}"


class Script:
    """Runs the function.

    Args:
        client: made by `schemas.runtime.store.connect`.
        clock: as for `Library`.
    """

    def __init__(self, client: redis.asyncio.Redis, clock: str = REDIS_CLOCK) -> None:
        self._client: Any = client
        self._library = Library(clock)
        self._waiting: list[tuple[Command, Last, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None
        self._busy = False

    async def run(self, keys: Sequence[str], args: Sequence[Argument], last: Last = tuple) -> Any:
        """Ask. What is asked while an answer is awaited goes out together next, in the order of asking.

        One reservation at a time costs the client about 300 us of CPU, ten sent together 90 us each.
        """
        command = (self._library.name, len(keys), *keys, *args)
        try:
            if self._busy:
                answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                self._waiting.append((command, last, answer))
                return await answer
            self._busy = True
            try:
                return await self._client.fcall(*command, *last())
            finally:
                self._sender = asyncio.create_task(self._send()) if self._waiting else None
                self._busy = bool(self._sender)
        except redis.exceptions.ResponseError as error:
            if str(error) != UNKNOWN:
                raise
            # Nothing was run, so asking again charges once.
            await self._client.function_load(self._library.text, replace=True)
            return await self._client.fcall(*command, *last())

    async def _send(self) -> None:
        batch: list[tuple[Command, Last, asyncio.Future[Any]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                pipeline = self._client.pipeline(transaction=False)
                for command, last, _ in batch:
                    pipeline.fcall(*command, *last())
                try:
                    results: list[Any] = await pipeline.execute(raise_on_error=False)
                except Exception as error:
                    batch, self._waiting = batch + self._waiting, []  # One time-out is enough for all.
                    results = [error] * len(batch)
                for (_, _, answer), result in zip(batch, results, strict=True):
                    if answer.done():  # Its caller was cancelled; what it reserved lapses.
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)
        finally:
            # When the loop ends this task is cancelled: nobody may wait for it for ever.
            for _, _, answer in batch + self._waiting:
                answer.cancel()
            self._waiting.clear()
            self._busy = False
