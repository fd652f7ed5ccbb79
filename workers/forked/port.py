"""The process that serves the one HTTP port of several workers: it asks each, and puts their answers together.

``/metrics`` has the samples of all, each with the label `process`; ``/healthz`` and ``/readyz`` are as bad as the
worst.
"""

import asyncio
import socket
import sys
import time
from typing import Final

import aiohttp
import msgspec
from prometheus_client import generate_latest

from schemas.errors import ConfigError
from schemas.runtime import http, processes
from schemas.status import WorkerProcess, WorkersStatus, WorkerStatus

from .. import metrics
from .merged import merged
from .parent import News
from .slot import PERMANENT_EXIT, STEADY_S, Slot

# How long a worker has to answer; an orchestrator's probe waits for a few seconds.
ANSWER_S: Final = 3.0
NOT_THERE: Final = "does not answer"


class Pages:
    """The pages of all workers together."""

    def __init__(self) -> None:
        self._news = News([], stopping=False)
        self._starts: dict[int, int] = {}

    def learn(self, news: News) -> None:
        """The parent says how it stands with them."""
        self._news = news
        for slot, _ in news.workers:
            more = slot.starts - self._starts.get(slot.number, 0)
            metrics.PROCESS_STARTS.labels(str(slot.number)).inc(more)
            self._starts[slot.number] = slot.starts

    async def metrics(self) -> bytes:
        """The metrics of those that answer."""
        answers = await self._ask("metrics")
        for slot, (status, _) in answers:
            metrics.PROCESS_UP.labels(str(slot.number)).set(status == 200)
        text = merged({str(slot.number): text for slot, (status, text) in answers if status == 200})
        return text.encode() + generate_latest(metrics.OF_THE_PORT)

    async def status(self) -> bytes:
        """The statuses of those that answer."""
        now_s = time.monotonic()
        return msgspec.json.encode(
            WorkersStatus([_status(slot, text, now_s) for slot, (_, text) in await self._ask("status")])
        )

    async def healthz(self) -> str:
        """What is wrong with any of them. One that has just begun need not answer yet."""
        now_s = time.monotonic()
        wrong: list[str] = []
        for slot, (status, text) in await self._ask("healthz"):
            why = "" if self._news.stopping else slot.ill(now_s)
            if not why and slot.pid is not None and status != 200 and (status or now_s - slot.began_s >= STEADY_S):
                why = text.strip() or NOT_THERE
            if why:
                wrong.append(f"process {slot.number}: {why}")
        return "; ".join(wrong)

    async def readyz(self) -> str:
        """Which of them do not take attempts, and why."""
        answers = await self._ask("readyz")
        wrong = [
            f"process {slot.number}: {text.strip() or slot.why or 'it has just begun'}"
            for slot, (status, text) in answers
            if status != 200
        ]
        return "; ".join(wrong) or ("" if answers else "they have just begun")

    async def _ask(self, page: str) -> list[tuple[Slot, tuple[int, str]]]:
        """A page of each worker: the HTTP status and the text, 0 and nothing where it does not answer."""
        workers = self._news.workers
        answers = await asyncio.gather(
            *(_page(address, page) if slot.pid is not None else _none() for slot, address in workers)
        )
        return [(slot, answer) for (slot, _), answer in zip(workers, answers, strict=True)]


async def _none() -> tuple[int, str]:
    return 0, ""


async def _page(address: str, page: str) -> tuple[int, str]:
    # A connection for each question: the process behind the address may be another one by now.
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(address)) as session,
            session.get(f"http://worker/{page}") as answer,
        ):
            return answer.status, await answer.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0, ""


def _status(slot: Slot, text: str, now_s: float) -> WorkerProcess:
    status = msgspec.json.decode(text, type=WorkerStatus) if text else None
    error = slot.ill(now_s) or ("" if status else slot.why or NOT_THERE)
    return WorkerProcess(slot.number, slot.pid, slot.starts, error, status)


def serve(where: tuple[str, int], parent: socket.socket, unused: socket.socket) -> int:
    """Serves until the parent ends or says so; returns the exit code.

    Args:
        where: the address and the port.
        parent: brings its news.
        unused: of its own pages, which it has none of.
    """
    unused.close()
    return asyncio.run(_serve(where, parent))


async def _serve(where: tuple[str, int], parent: socket.socket) -> int:
    pages, over = Pages(), asyncio.Event()

    def on_word(said: bytes) -> None:
        if said:
            pages.learn(msgspec.json.decode(said, type=News))
        else:
            over.set()

    processes.hear(parent, on_word)
    try:
        runner = await http.serve_pages(pages, where)
    except ConfigError as error:
        print(f"workers: {error}", file=sys.stderr)
        return PERMANENT_EXIT
    await over.wait()
    await runner.cleanup()
    return 0
