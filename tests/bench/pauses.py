"""How long the garbage collector stops a worker, with what lasts frozen and without: ``--only pauses``.

A worker of each kind in turn, in one run, on the simulator; `gc.freeze` does nothing in the second. Python calls both
back at each collection (`gc.callbacks`), so the pauses are what the worker itself sees. The markets are renewed
meanwhile, as they are every half an hour.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Final

from schemas.messages import Request, Result

from .measure import Options, percentile
from .stage import Servers, Stage

REQUESTS: Final = 3_000
PER_S: Final = 60
RENEW_EVERY_S: Final = 20.0

# Python runs this module, if it finds one of its name, when it starts.
TOLD: Final = """
import gc, os, time
if {thawed}:
    gc.freeze = lambda: None
_file = open(os.path.join({folder!r}, f"{{os.getpid()}}.txt"), "w", buffering=1)
_begun = 0.0
def _note(phase, info):
    global _begun
    if phase == "start":
        _begun = time.perf_counter()
    else:
        _file.write(f"{{time.time()}} {{info['generation']}} {{(time.perf_counter() - _begun) * 1000}}\\n")
gc.callbacks.append(_note)
"""


async def run(options: Options) -> None:
    """Measures and prints."""
    requests = int((options.seconds or REQUESTS / PER_S) * PER_S)
    table = options.table(
        f"Pauses of a worker's garbage collector: {requests:,} requests, {PER_S} a second; markets renewed every "
        f"{RENEW_EVERY_S:.0f} s",
        *(
            "what lasts is",
            "collections",
            "of the oldest",
            "longest, ms",
            "all, ms",
            "request median, ms",
            "99 %",
            "slowest",
        ),
    )
    async with Servers.started() as servers:
        for _ in range(options.rounds):
            for title, thawed in (("frozen", False), ("not frozen", True)):
                table.row(title, *await _measure(servers, requests, thawed=thawed))


async def _measure(servers: Servers, requests: int, *, thawed: bool) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-pauses-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(TOLD.format(thawed=thawed, folder=str(folder)), encoding="utf-8")
        path = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(folder)  # the services inherit it
        try:
            async with servers.stage(config={"worker": {"renew_every_s": RENEW_EVERY_S}}) as stage:
                begun_s = time.time()
                slow_ms = await _load(stage, requests)
                text = (folder / f"{stage.fleet.workers[0].pid}.txt").read_text(encoding="utf-8")
        finally:
            if path is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = path
    noted = [[float(word) for word in line.split()] for line in text.splitlines()]
    pauses = [(generation, pause_ms) for at_s, generation, pause_ms in noted if at_s >= begun_s]
    every_ms = [pause_ms for _, pause_ms in pauses]
    oldest = sum(generation == 2 for generation, _ in pauses)
    times_ms = [percentile(slow_ms, 0.5), percentile(slow_ms, 0.99), max(slow_ms)]
    return [len(pauses), oldest, max(every_ms, default=0.0), sum(every_ms), *times_ms]


async def _load(stage: Stage, requests: int) -> list[float]:
    """Asks at a steady rate that the limits allow; how long each answer took, milliseconds."""
    took_ms: list[float] = []

    async def ask() -> None:
        begun_s = time.perf_counter()
        result: Result = await stage.client.ask(
            Request("fetch_ticker", {"symbol": "BTC/USDT"}, exchanges=["binance", "okx", "htx"])
        )
        if result.ok:
            took_ms.append((time.perf_counter() - begun_s) * 1000)

    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(requests):
            await asyncio.sleep(max(0.0, begun_s + number / PER_S - time.perf_counter()))
            group.create_task(ask())
    return took_ms
