"""What all services do as processes: read the configuration, run until a signal comes, say why they can't run."""

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from ..config import Config
from ..errors import FleetError
from . import http, logs, modules, presence, store
from .reload import ConfigFile
from .tasks import end_tasks

log = logging.getLogger(__name__)

# The exit code of a service that got a second signal to stop before it had finished.
FORCED_EXIT: Final = 3


def main(name: str, make: Callable[[Config], http.Service]) -> int:
    """Runs a service until SIGTERM or SIGINT; one that can't run ends with a line that says why.

    Args:
        name: the package in the checkout, as in ``python -m dispatcher``.
        make: makes the service from its configuration.

    Returns:
        The exit code.
    """
    return run(name, parser(name).parse_args(), make)


def parser(name: str) -> argparse.ArgumentParser:
    """The options that all services have."""
    made = argparse.ArgumentParser(prog=f"python -m {modules.module(name)}")
    made.add_argument("--config", type=Path, default=modules.FLEET_TOML, help="the fleet's TOML file")
    made.add_argument("--metrics-port", type=int, help="serve metrics, status and health over HTTP on this port")
    made.add_argument("--metrics-address", default="127.0.0.1", help="and on this address, by default %(default)s")
    return made


def run(
    name: str, options: argparse.Namespace, make: Callable[[Config], http.Service], *, announced: bool = True
) -> int:
    """Runs a service with these options; see `main`.

    Args:
        name: the package in the checkout.
        options: those of `parser`, at least.
        make: makes the service from its configuration.
        announced: whether its status is written to Redis; one that is not needs no Redis.
    """
    # Only the services have it installed.
    import uvloop  # noqa: PLC0415

    logs.setup()
    # A service holds a connection for each attempt or each caller; the usual soft limit of 1,024 files is too low.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    code = 0
    try:
        uvloop.run(_alone(_until_signal(options, make, announced=announced)))
    except* FleetError as errors:
        for error in _all(errors):
            print(f"{name}: {error}", file=sys.stderr)
        code = 1
    return code


async def _until_signal(
    options: argparse.Namespace, make: Callable[[Config], http.Service], *, announced: bool
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            # Unsettled messages go to another process, as after a crash. This has to end at once, whatever hangs.
            log.warning("forced_exit")
            os._exit(FORCED_EXIT)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    file = ConfigFile(options.config)
    config = file.load()
    service = make(config)
    async with AsyncExitStack() as stack:
        if options.metrics_port is not None:
            where = options.metrics_address, options.metrics_port
            runner = await http.serve(service, lambda: file.status, *where)
            stack.push_async_callback(runner.cleanup)
        if announced:
            timeout_s = config.redis.timeout_s
            redis = await stack.enter_async_context(store.connect(config.redis.url, timeout_s=timeout_s))
            announcing = asyncio.create_task(
                presence.announce(redis, lambda: service.status(file.status)), name="presence"
            )
            stack.push_async_callback(end_tasks, [announcing])

        async def follow() -> None:
            await file.follow(service.configure, asked)

        await service.run(stop, follow)


async def _alone(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main`, then ends what it left behind: `uvloop.run` would cancel that once, and wait as long as it takes."""
    try:
        await main
    finally:
        await end_tasks(task for task in asyncio.all_tasks() if task is not asyncio.current_task())


def _all(errors: BaseExceptionGroup[FleetError]) -> list[FleetError]:
    found: list[FleetError] = []
    for error in errors.exceptions:
        found += _all(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
