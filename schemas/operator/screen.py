"""The screen of `top`: its keys, and what it looks at every second."""

import asyncio
import contextlib
import os
import sys
import termios
import time
import tty
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from . import output
from . import picture as pictures
from .board import SORTS, Board
from .drawing import drawn
from .servers import ServerAway
from .shapes import ServerView, TopView

EVERY_S: Final = 1.0


class Keys:
    """What the user chose by keys.

    Attributes:
        sort: the column.
        backwards: whether the order is reversed.
        quit: set when the user wants to leave.
        pressed: set when something changed, and is to be shown.
    """

    def __init__(self, sort: str) -> None:
        self.sort = sort
        self.backwards = False
        self.quit = asyncio.Event()
        self.pressed = asyncio.Event()

    def press(self, key: str) -> None:
        """A key was pressed; those without a meaning do nothing."""
        if key in {"q", "Q", "\x03", "\x04", ""}:  # also Ctrl-C, Ctrl-D, and a terminal that is gone
            self.quit.set()
        elif key in {"s", "S", "\t"}:
            names = list(SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
        elif key in {"r", "R"}:
            self.backwards = not self.backwards
        self.pressed.set()

    def _typed(self, keys: str) -> None:
        for key in keys or [""]:
            self.press(key)

    @contextlib.contextmanager
    def read(self) -> Generator[None, None, None]:
        """Reads keys from the terminal as they are pressed, without Enter, inside the block."""
        number, loop = sys.stdin.fileno(), asyncio.get_running_loop()
        before = termios.tcgetattr(number)
        tty.setcbreak(number)
        loop.add_reader(number, lambda: self._typed(os.read(number, 64).decode(errors="replace")))
        try:
            yield
        finally:
            loop.remove_reader(number)
            termios.tcsetattr(number, termios.TCSADRAIN, before)


async def lines(urls: tuple[str, ...], redis: str, times: int | None) -> None:
    """Prints a JSON document a second; raises ServerAway."""
    async with contextlib.aclosing(_views(urls, redis, times, asyncio.Event())) as views:
        async for view in views:
            output.show_json_line(view)


async def screen(urls: tuple[str, ...], redis: str, sort: str, times: int | None) -> None:
    """Fills the terminal until the user leaves.

    Args:
        urls: RabbitMQ's.
        redis: Redis's.
        sort: one of `board.SORTS`.
        times: leave by itself after so many looks.

    Raises:
        ServerAway: RabbitMQ is away at the start; later it is waited for.
    """
    keys = Keys(sort)
    console = Console(no_color=not output.colours())
    with keys.read(), Live(console=console, screen=True, auto_refresh=False) as live:
        async with contextlib.aclosing(_views(urls, redis, times, keys.pressed)) as views:
            async for view in views:
                live.update(drawn(view, keys.sort, keys.backwards, *console.size), refresh=True)
                if keys.quit.is_set():
                    return


async def _views(
    urls: tuple[str, ...], redis: str, times: int | None, pressed: asyncio.Event
) -> AsyncGenerator[TopView, None]:
    """What there is to show, every second, and sooner where a key was pressed."""
    picture = pictures.Picture()
    await pictures.look_at_redis(redis, picture)
    board, shown = Board(picture, time.monotonic()), 0
    while True:
        try:
            async with pictures.listening(urls, picture) as connection:
                await pictures.listen(picture, redis)
                while True:
                    await pictures.look_at_queues(connection, picture)
                    yield board.view(time.monotonic(), int(time.time() * 1000))
                    shown += 1
                    if shown == times:
                        return
                    await _next(pressed, lambda: pictures.look_at_redis(redis, picture))
        except ServerAway as error:
            if not shown:
                raise
            picture.rabbitmq = ServerView(picture.rabbitmq.place, error=str(error).splitlines()[0])
        yield board.view(time.monotonic(), int(time.time() * 1000))  # RabbitMQ may be back in a moment
        await _next(pressed, lambda: pictures.look_at_redis(redis, picture))


async def _next(pressed: asyncio.Event, look: Callable[[], Any]) -> None:
    """Waits for the next look, or for a key."""
    await look()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(EVERY_S):
            await pressed.wait()
    pressed.clear()
