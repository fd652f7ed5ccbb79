"""Lanes that come while the fleet runs: ``--only changes``.

The configuration gets one more lane: first for a known exchange from another address, then for one that looks new, so
that its markets are loaded. Measured are the time until a worker has the markets, and from then until the first
result. Requests for the lane go out at least every 20 ms. The aim is a second.
"""

import asyncio
import time
import tomllib
from typing import Any, Final

import tomli_w

from schemas.messages import Request, Result

from .measure import Options, met, percentile
from .stage import Servers, Stage

EXCHANGE: Final = "okx"
AIM_S: Final = 1.0
POLL_S: Final = 0.01
ASK_EVERY_S: Final = 0.02
GIVE_UP_S: Final = 60.0


async def run(options: Options) -> None:
    """Measures and prints."""
    workers = (options.workers or (2,))[0]
    table = options.table(
        f"Lanes that come; workers: {workers}",
        *("lane", "change to markets, s", "markets to first result, s", "at most", "aim"),
    )
    async with Servers.started() as servers, servers.stage(workers=workers) as stage:
        before = tomllib.loads(stage.fleet.config_file.read_text(encoding="utf-8"))
        lane = before["lanes"][EXCHANGE]
        for title, is_new in ((f"{EXCHANGE} from another address", False), (f"{EXCHANGE}, as if it were new", True)):
            opened_s, first_s = list[float](), list[float]()
            for number in range(options.rounds):
                more = {**lane, "local_addr": f"127.0.{1 + is_new}.{1 + number}"}
                if is_new:  # other settings, so no worker has markets for them
                    more["ccxt"] = {**lane["ccxt"], "commonCurrencies": {"BENCHMARK": str(number)}}
                name = f"{EXCHANGE}.more{number}"
                times = await _come(stage, {**before, "lanes": {**before["lanes"], name: more}}, name)
                opened_s.append(times[0])
                first_s.append(times[1])
            middle = percentile(first_s, 0.5)
            table.row(title, percentile(opened_s, 0.5), middle, max(first_s), met(middle <= AIM_S))


async def _come(stage: Stage, config: dict[str, Any], name: str) -> tuple[float, float]:
    """Adds a lane; how long until a worker has its markets, and from then on until a result."""
    began_s = time.perf_counter()
    stage.fleet.config_file.write_text(tomli_w.dumps(config), encoding="utf-8")
    while not await _has_markets(stage, name):
        if time.perf_counter() - began_s > GIVE_UP_S:
            raise RuntimeError(f"no worker has opened {name}")
        await asyncio.sleep(POLL_S)
    opened_s = time.perf_counter()
    asking: set[asyncio.Task[Result]] = set()
    done: set[asyncio.Task[Result]] = set()
    try:
        while not any(task.result().ok for task in done):
            asking -= done
            asking.add(asyncio.create_task(stage.client.ask(Request("fetch_time", exchanges=[name]))))
            done, _ = await asyncio.wait(asking, timeout=ASK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        first_s = time.perf_counter()
    finally:
        await asyncio.gather(*asking)
    return opened_s - began_s, first_s - opened_s


async def _has_markets(stage: Stage, name: str) -> bool:
    for worker in stage.fleet.workers:
        lanes = {lane["lane"]: lane for lane in (await worker.status())["lanes"]}
        if name in lanes and lanes[name]["markets"]:
            return True
    return False
