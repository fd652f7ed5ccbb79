"""What both services do alike as processes: read the configuration, run until told to stop, say why they can't."""

import argparse
import asyncio
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from . import logs
from .config import Config, load
from .errors import FleetError

Run: TypeAlias = Callable[[asyncio.Event], Awaitable[None]]


def main(name: str, make: Callable[[Config], Run]) -> int:
    """Runs a service until SIGTERM or SIGINT; what can't be run ends with one line that says why.

    Args:
        name: the package, as in ``python -m dispatcher``.
        make: the service from its configuration; what it returns serves until the event it is given is set.
    """
    # The contract is installed without these two: they are for services only.
    import uvloop  # noqa: PLC0415
    from prometheus_client import start_http_server  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("--config", type=Path, default=Path("deploy/fleet.toml"), help="the fleet's TOML file")
    parser.add_argument("--metrics-port", type=int, help="serve Prometheus metrics on this loopback port")
    options = parser.parse_args()
    logs.setup()
    # A worker holds a connection for each attempt at an exchange; the usual soft limit of 1,024 files is too few.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        config = load(options.config)
        if options.metrics_port is not None:
            start_http_server(options.metrics_port, addr="127.0.0.1")
        uvloop.run(_until_told(config, make))
    except FleetError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


async def _until_told(config: Config, make: Callable[[Config], Run]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await make(config)(stop)
