"""The whole fleet on this machine until Ctrl-C: ``ccxt-fleet up``, in the checkout ``make up``.

It starts a RabbitMQ and a Redis of its own, a dispatcher and workers, and says where they are and which lanes open.
With ``--simulator`` the lanes lead to five simulated exchanges, and nothing leaves the machine.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from deploy.local import Services, simulated
from deploy.processes import ProcessError, Startable, claimed_port
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator, SimulatorError
from schemas import status
from schemas.config import BrokerConfig, RedisConfig, load
from schemas.errors import ConfigError
from schemas.runtime import modules
from schemas.runtime.tasks import done_before

# How long after the start it prints why a lane has not opened; a reason that may be mere slowness is printed later.
EXPLAIN_AFTER_S: Final = 3.0
SLOW_AFTER_S: Final = 10.0
EXPLAIN_EVERY_S: Final = 2.0
# The reasons of lanes that may just be slow.
SLOW: Final = (status.OPENING, status.NOT_OPENED, status.NOT_REPORTED, status.NOT_SERVED, "no budget in time")
# Where programs look for RabbitMQ and Redis that are not configured.
BROKER_URL: Final = BrokerConfig().urls[0]
REDIS_URL: Final = RedisConfig().url


async def up(config: Mapping[str, Any] | None, *, workers: int, gateway: int | None = None) -> None:
    """Runs the fleet until Ctrl-C or SIGTERM, also if that comes while it starts.

    Args:
        config: as TOML would give it; None for simulated exchanges.
        workers: how many.
        gateway: the port of a gateway; None for none.

    Raises:
        ProcessError, SimulatorError: a part did not start, or ended by itself.
        ConfigError: the configuration is wrong.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            await done_before(stop, _run(Path(folder), config, workers, gateway, stack))
            print("stopping", flush=True)


async def _run(
    folder: Path, config: Mapping[str, Any] | None, workers: int, gateway: int | None, stack: contextlib.AsyncExitStack
) -> None:
    """Starts all and watches it; `stack` stops what was started, in the opposite order."""
    rabbitmq = RabbitMQ(folder / "rabbitmq", port=claimed_port(_port(BROKER_URL)))
    redis = Redis(folder / "redis", port=claimed_port(_port(REDIS_URL)))
    simulator = Simulator(log=folder / "simulator.log") if config is None else None
    parts: list[Startable] = [rabbitmq, redis, *([simulator] if simulator else [])]
    print(f"starting RabbitMQ and Redis{' and simulated exchanges' if simulator else ''} in {folder}", flush=True)
    for part in parts:
        stack.push_async_callback(part.stop)
    async with asyncio.TaskGroup() as boot:
        for part in parts:
            boot.create_task(part.start())
    lanes = simulated(simulator.urls) if simulator else config or {}
    fleet = Services(folder, lanes, broker_url=rabbitmq.url, redis_url=redis.url, workers=workers)
    stack.push_async_callback(fleet.stop)
    for _ in range(workers):
        fleet.add_worker()
    dispatcher = fleet.add_dispatcher()
    print(f"RabbitMQ     {rabbitmq.url}\nRedis        {redis.url}")
    if simulator:
        print(f"simulator    {simulator.control}  what it counted: /counters")
    for service in (dispatcher, *fleet.workers):
        print(f"{service.name:<13}{service.metrics_url}  log {service.log}")
    if gateway is not None:
        print(f"gateway      {(await fleet.add_gateway(gateway)).url}")
    print(f"lanes        {', '.join(fleet.lanes)}; Ctrl-C ends it all", flush=True)
    # Before that nobody takes requests, and whoever pastes the line asks at once.
    await fleet.serves(dispatcher)
    print(
        _exports({"FLEET_BROKER_URL": (rabbitmq.url, BROKER_URL), "FLEET_REDIS_URL": (redis.url, REDIS_URL)}),
        flush=True,
    )
    await _watch(fleet)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _exports(urls: Mapping[str, tuple[str, str]]) -> str:
    """What other programs need in their environment: each variable with its value here and the default."""
    line = "export " + " ".join(f"{name}={here}" for name, (here, _) in urls.items())
    return line + ("  # the defaults" if all(here == default for here, default in urls.values()) else "")


async def _watch(fleet: Services) -> None:
    """Prints each lane that comes or goes, and why others don't come; raises if a service ends by itself."""
    known: dict[str, bool] = {}
    said: dict[str, str] = {}
    clock = asyncio.get_running_loop().time
    explain_s, slow_s = clock() + EXPLAIN_AFTER_S, clock() + SLOW_AFTER_S
    while True:
        for service in (*fleet.dispatchers, *fleet.workers, *fleet.gateways):
            if not service.running:
                raise ProcessError(f"{service.name} ended. The end of {service.log}:\n{service.tail()}")
        seen = await fleet.dispatchers[0].metrics()
        for lane in fleet.lanes:
            healthy = bool(seen.get(("fleet_lane_healthy", lane)))
            if known.get(lane, False) is not healthy:
                known[lane] = healthy
                said.pop(lane, None)
                print(f"{lane} is {'healthy' if healthy else 'offline'}", flush=True)
        ill = [lane for lane in fleet.lanes if not known.get(lane)]
        if ill and clock() > explain_s:
            for lane, reason in (await fleet.reasons(ill)).items():
                if said.get(lane) != reason and (clock() > slow_s or not any(each in reason for each in SLOW)):
                    said[lane] = reason
                    print(f"{lane} is not healthy: {reason}", flush=True)
            explain_s = clock() + EXPLAIN_EVERY_S
        await asyncio.sleep(0.5)


def _read(path: Path) -> dict[str, Any]:
    """A configuration as TOML gives it; ConfigError where it is wrong, before anything is started."""
    load(path, {})
    return tomllib.loads(path.read_text(encoding="utf-8"))


def main() -> int:
    """Runs `up` with what the command line says."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {modules.module('deploy.up')}", description="Run the whole fleet on this machine until Ctrl-C."
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--config", type=Path, default=modules.FLEET_TOML, help="the fleet's TOML file")
    which.add_argument("--simulator", action="store_true", help="simulated exchanges; nothing leaves the machine")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--gateway", type=int, metavar="PORT", help="the HTTP door too, on this port")
    options = parser.parse_args()
    wrong: list[BaseException] = []
    try:
        config = None if options.simulator else _read(options.config)
        asyncio.run(up(config, workers=options.workers, gateway=options.gateway))
    except* (ProcessError, SimulatorError, ConfigError, OSError) as errors:
        wrong += errors.exceptions
    for error in wrong:
        print(error, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
