"""Starts the parent: imports what workers need, and says what each forked process does."""

import functools
import gc
import importlib
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from schemas.config import Config
from schemas.errors import ConfigError, FleetError, TopologyError
from schemas.runtime import http, processes
from schemas.runtime.reload import ConfigFile

from .slot import PERMANENT_EXIT


def run(
    count: int,
    prepare: Callable[[Config], None],
    make: Callable[[Config], http.Service],
    config: Path,
    where: tuple[str, int] | None,
) -> int:
    """Runs so many workers until a signal comes.

    Args:
        count: how many.
        prepare: imports what they need, and raises FleetError where the configuration can't be used. It leaves no
            event loop, thread or connection behind.
        make: makes one.
        config: the configuration's file.
        where: where to serve what all of them say, None for nowhere.

    Returns:
        The exit code.
    """
    # A collection leaves holes in memory that is shared later, and whoever writes into one copies the page.
    gc.disable()
    # One that comes while ccxt is imported waits until it can be handled.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*processes.SIGNALS, signal.SIGCHLD})
    try:
        prepare(ConfigFile(config).load())
    except FleetError as error:
        print(f"workers: {error}", file=sys.stderr)
        return 1
    # uvloop itself: each makes its loop after the fork.
    importlib.import_module("uvloop")

    # What they import is there by now: it has to be before the fork.
    from . import port  # noqa: PLC0415
    from .parent import Parent  # noqa: PLC0415

    def work(parent: socket.socket, pages: socket.socket) -> int:
        errors = processes.serve("workers", make, config, pages, parent=parent)
        if any(isinstance(error, (ConfigError, TopologyError)) for error in errors):
            return PERMANENT_EXIT
        return 1 if errors else 0

    return Parent([work] * count, functools.partial(port.serve, where) if where else None).run()
