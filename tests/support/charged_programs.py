"""Programs with a ccxt of their own that is charged."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import ccxt as blocking  # pyright: ignore[reportMissingTypeStubs]
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]

from workers.direct import charged


def instance(exchange: str, settings: dict[str, Any], *, is_async: bool = True) -> Any:
    made: Any = getattr(ccxt if is_async else blocking, exchange)({**settings, "timeout": 20_000})
    if is_async:
        made.timeout_on_exit = 0
    return made


Read = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def program(exchange: Any, redis: str, **how: Any) -> AsyncGenerator[tuple[Any, Read]]:
    """A charged instance, and what runs one of its methods, whichever kind of class it is."""
    made = charged(exchange, redis, **how)

    async def read(method: str, *args: Any) -> Any:
        if isinstance(made, ccxt.Exchange):
            return await getattr(made, method)(*args)
        return await asyncio.to_thread(getattr(made, method), *args)

    try:
        yield made, read
    finally:
        if isinstance(made, ccxt.Exchange):
            await made.close()
        else:
            await asyncio.to_thread(made.close)
