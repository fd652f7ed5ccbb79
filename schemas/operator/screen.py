"""The screen of `top`, its keys, and what it looks at every second."""

import asyncio
import contextlib
import os
import sys
import termios
import time
import tty
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import output
from . import picture as pictures
from .board import SORTS, Board, ordered
from .servers import ServerAway
from .shapes import ServerView, TopView

EVERY_S: Final = 1.0
BAR: Final = 10
HELP: Final = "q quit   s sort by the next column   r reverse"


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
                live.update(drawn(view, keys), refresh=True)
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
                await pictures.listen(picture)
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


def drawn(view: TopView, keys: Keys) -> RenderableType:
    """What is on the screen."""
    return Group(_head(view), Text(""), _lanes(view, keys), Text(""), _queues(view), Text(HELP, style="dim"))


def _head(view: TopView) -> RenderableType:
    text = Text(overflow="ellipsis", no_wrap=True)
    for name, server in (("RabbitMQ", view.rabbitmq), ("Redis", view.redis)):
        said = server.error.splitlines()[0] if server.error else f"{server.version or name} at {server.place}"
        text.append(f"{output.plain(said)}   ", style="red" if server.error else "")
    text.append(f"{view.dispatchers} dispatchers   {view.workers} workers   ")
    text.append(output.when(view.at_ms).removesuffix("+00:00"), style="dim")
    return text


def _lanes(view: TopView, keys: Keys) -> RenderableType:
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    for name, sort in (
        ("lane", "lane"),
        ("state", ""),
        ("ok/s", "rate"),
        ("err/s", "errors"),
        ("no budget/s", ""),
        ("latency", "latency"),
        ("in flight", ""),
        ("waiting", "waiting"),
        ("share", ""),
        ("fullest limit", "budget"),
        ("why not", ""),
    ):
        mark = (" ▲" if keys.backwards else " ▼") if sort == keys.sort else ""
        words = name in {"lane", "state", "fullest limit", "why not"}
        ratio = 1 if name == "why not" else None
        table.add_column(name + mark, justify="left" if words else "right", no_wrap=True, ratio=ratio)
    for lane in ordered(view.lanes, keys.sort, backwards=keys.backwards):
        full = round(lane.used_part * BAR)
        bar = f"{'█' * full}{'░' * (BAR - full)} {lane.used_part:>4.0%} {lane.bucket}" if lane.bucket else ""
        table.add_row(
            Text(output.plain(lane.lane)),
            Text(lane.state, style=output.COLOURS.get(lane.state, "")),
            f"{lane.ok_per_s:.1f}",
            f"{lane.failed_per_s:.1f}",
            f"{lane.throttled_per_s:.1f}",
            f"{lane.latency_ms:.0f} ms" if lane.latency_ms else "",
            str(lane.in_flight),
            str(lane.waiting + lane.queued),
            f"{lane.share:.0%}",
            Text(output.plain(bar), style="red" if lane.used_part > 0.9 else ""),
            Text(output.plain(lane.why)),
        )
    return table


def _queues(view: TopView) -> RenderableType:
    said = "   ".join(f"{each.name} {each.messages:,}" for each in view.queues)
    return Text(f"queues  {output.plain(said) or 'empty'}")
