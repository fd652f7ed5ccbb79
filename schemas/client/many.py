"""Many requests at once: results as they come, so many under way, and no more than that in memory."""

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Sized,
)
from contextlib import contextmanager
from typing import Any, TypeAlias

from ..messages import Request
from ..runtime.tasks import end_tasks
from .results import Answer

Requests: TypeAlias = Iterable[Request] | AsyncIterable[Request]
Ask: TypeAlias = Callable[[Request], Awaitable[list[Answer]]]


async def mapped(ask: Ask, requests: Requests, concurrency: int) -> AsyncGenerator[Answer, None]:
    """Asks for each request, and gives the results as they come.

    Args:
        ask: asks for one, and raises what ends it all.
        requests: taken one by one, as there is room.
        concurrency: how many are under way; as many results may wait for the caller.
    """
    came: asyncio.Queue[Answer | BaseException | None] = asyncio.Queue(maxsize=concurrency)
    source, turn = _one_by_one(requests), asyncio.Lock()

    async def one_after_another() -> None:
        while True:
            async with turn:
                request = await anext(source, None)
            if request is None:
                return
            for answer in await ask(request):
                await came.put(answer)

    async def watch() -> None:
        done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        errors = [error for task in done if not task.cancelled() and (error := task.exception())]
        await came.put(errors[0] if errors else None)

    workers = [asyncio.create_task(one_after_another(), name="map") for _ in range(concurrency)]
    watching = asyncio.create_task(watch(), name="map's end")
    try:
        while (item := await came.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        await end_tasks([watching, *workers])


async def _one_by_one(requests: Requests) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


@contextmanager
def counted(requests: object, *, shown: bool) -> Generator[Callable[[Answer], None]]:
    """Shows a bar of results on stderr, where rich is installed; gives what is called with each.

    Args:
        requests: whose number is the bar's end, where they have one.
        shown: whether it is wanted.
    """
    if not shown or importlib.util.find_spec("rich") is None:
        yield lambda _: None
        return
    console: Any = importlib.import_module("rich.console")
    progress: Any = importlib.import_module("rich.progress")
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    # What a program prints to a terminal is kept above the bar; what it prints to a file stays there.
    below = console.Console(stderr=True)
    with progress.Progress(*columns, console=below, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("results", total=len(requests) if isinstance(requests, Sized) else None)
        failed = 0

        def count(answer: Answer) -> None:
            nonlocal failed
            failed += not answer.ok
            bar.update(task, advance=1, description=f"results, {failed} failed" if failed else "results")

        yield count
