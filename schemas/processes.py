"""What both services do alike as processes: run until told to stop."""

import asyncio
import signal
from collections.abc import Awaitable, Callable


async def until_told(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Runs a service until SIGTERM or SIGINT sets the event it was given."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(stop)
