"""What all services do as processes: read the configuration, run until a signal comes, say why they can't run."""

import argparse
import asyncio
import logging
import os
import resource
import signal
import socket
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
# The longest message of a parent.
MOST_BYTES: Final = 1 << 18

# What a parent tells a process that it forked; the end of the connection tells it that the parent has ended.
STOP: Final = b"s"
RELOAD: Final = b"r"
# Says nothing: the parent sees whether it is read, which takes an event loop that runs.
LOOK: Final = b"l"
# Those that a forked process gets with these blocked.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
        name: what its errors are printed with.
        options: those of `parser`, at least.
        make: makes the service from its configuration.
        announced: whether its status is written to Redis; one that is not needs no Redis.
    """
    prepare()
    return 1 if serve(name, make, options.config, site(options), announced=announced) else 0


def site(options: argparse.Namespace) -> tuple[str, int] | None:
    """Where to serve metrics, by the words that were given."""
    return None if options.metrics_port is None else (options.metrics_address, options.metrics_port)


def prepare() -> None:
    """Sets up what all processes of a service have in common, those that are forked too."""
    logs.setup()
    # A service holds a connection for each attempt or each caller; the usual soft limit of 1,024 files is too low.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(
    name: str,
    make: Callable[[Config], http.Service],
    config: Path,
    where: http.Site | None,
    *,
    parent: socket.socket | None = None,
    announced: bool = True,
) -> list[FleetError]:
    """Runs a service until SIGTERM or SIGINT, or until its parent says so or ends.

    Args:
        name: as in `main`.
        make: as in `main`.
        config: the configuration's file.
        where: where to serve metrics.
        parent: says `STOP` and `RELOAD`, where this process was forked.
        announced: as in `run`.

    Returns:
        Why it can't run, which is printed too; empty where it ended in order.
    """
    # Only the services have it installed.
    import uvloop  # noqa: PLC0415

    found: list[FleetError] = []
    try:
        uvloop.run(_alone(_until_signal(config, where, make, parent, announced=announced)))
    except* FleetError as errors:
        found = all_of(errors)
    for error in found:
        print(f"{name}: {error}", file=sys.stderr)
    return found


async def _until_signal(
    path: Path,
    where: http.Site | None,
    make: Callable[[Config], http.Service],
    parent: socket.socket | None,
    *,
    announced: bool,
) -> None:
    stop, asked = asyncio.Event(), asyncio.Event()
    listen(stop, asked, parent)
    file = ConfigFile(path)
    config = file.load()
    service = make(config)
    async with AsyncExitStack() as stack:
        if where is not None:
            runner = await http.serve(service, lambda: file.status, where)
            stack.push_async_callback(runner.cleanup)
        if announced:
            timeout_s = config.redis.timeout_s
            redis = await stack.enter_async_context(store.connect(config.redis.url, timeout_s=timeout_s))
            announcing = asyncio.create_task(
                presence.announce(redis, lambda: service.status(file.status), service.changed), name="presence"
            )
            stack.push_async_callback(end_tasks, [announcing])

        async def follow() -> None:
            await file.follow(service.configure, asked)

        await service.run(stop, follow)


def listen(stop: asyncio.Event, reload: asyncio.Event, parent: socket.socket | None) -> None:
    """From now on signals, and the words of a parent, set these events. A second signal ends the process at once.

    A parent's word and a signal are not two signals: Ctrl-C and systemd send theirs to the parent and to this process.
    """
    loop = asyncio.get_running_loop()
    signalled = False

    def on_signal() -> None:
        nonlocal signalled
        if signalled:
            # Unsettled messages go to another process, as after a crash. This has to end at once, whatever hangs.
            log.warning("forced_exit")
            os._exit(FORCED_EXIT)
        signalled = True
        stop.set()

    def on_word(said: bytes) -> None:
        if not said:
            log.warning("parent_gone")
        if RELOAD in said:
            reload.set()
        if not said or STOP in said:
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    if parent is not None:
        hear(parent, on_word)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def hear(parent: socket.socket, on_word: Callable[[bytes], None]) -> None:
    """Calls `on_word` with each message of a parent, and with an empty one when it has ended.

    Nothing is written to it: what it had not read when it was killed would be an error here, in place of its end.
    """
    loop = asyncio.get_running_loop()
    parent.setblocking(False)

    def read() -> None:
        said = parent.recv(MOST_BYTES)
        if not said:
            loop.remove_reader(parent)
        if said != LOOK:
            on_word(said)

    loop.add_reader(parent, read)


async def _alone(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main`, then ends what it left behind: `uvloop.run` would cancel that once, and wait as long as it takes."""
    try:
        await main
    finally:
        await end_tasks(task for task in asyncio.all_tasks() if task is not asyncio.current_task())


def all_of(errors: BaseExceptionGroup[FleetError]) -> list[FleetError]:
    """All errors in a group and in the groups in it."""
    found: list[FleetError] = []
    for error in errors.exceptions:
        found += all_of(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
