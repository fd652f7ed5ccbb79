"""A gateway process: it listens, has a connection to RabbitMQ for each caller, and drains when it is stopped."""

import asyncio
import importlib
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec.structs import replace

from ..config import Config
from ..errors import ConfigError
from ..runtime import modules
from ..runtime.tasks import SideTasks, end_tasks
from ..status import CallerStatus, ConfigurationStatus, GatewayStatus, ProcessStatus
from ..version import VERSION
from .callers import Callers
from .connections import Connections
from .door import Door
from .signed import Sender

log = logging.getLogger(__name__)

# Connections that the system holds until they are taken.
BACKLOG: Final = 1024


class Gateway:
    """One gateway process; any number run side by side.

    Args:
        config: the fleet's.
        address: where to listen, in place of what the configuration says.
        port: likewise.

    Raises:
        ConfigError: a token is missing, or everybody could ask.
    """

    def __init__(self, config: Config, address: str | None = None, port: int | None = None) -> None:
        self._said = {name: value for name, value in (("address", address), ("port", port)) if value is not None}
        config = self._as_said(config)
        self._config = config.gateway
        self._callers = Callers(config.broker, config.gateway, os.environ)
        self._door = Door(self._callers, config)
        self._door.sender = _sender(config)
        self._server: Connections | None = None
        self._port = self._config.port
        self._started_ms = time.time_ns() // 1_000_000
        self.changed = asyncio.Event()  # nobody waits for it: this status is not in Redis

    async def run(self, stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Serves until `stop` is set, then ends what it holds and leaves; `follow` runs meanwhile."""
        self._callers.open()
        if self._door.sender is not None:
            await self._door.sender.open()
        server = self._server = Connections(self._door, self._config.connections)
        try:
            listener = await self._listen(server)
            async with SideTasks() as side_tasks:
                following = side_tasks.create_task(follow(), name="follow")
                await side_tasks.until(stop)
                await end_tasks([following])
            self._door.leaving = True
            listener.close()
            await server.drained(self._config.grace_s)
        finally:
            await self._callers.close()
            if self._door.sender is not None:
                await self._door.sender.close(cuts=True)  # they had the grace
        log.info("gateway_left")

    async def _listen(self, server: Connections) -> asyncio.Server:
        address, port = self._config.address, self._config.port
        try:
            listener = await asyncio.get_running_loop().create_server(server, address, port, backlog=BACKLOG)
        except OSError as error:
            raise ConfigError(f"can't listen on {address} port {port}: {error.strerror or error}") from error
        self._port = listener.sockets[0].getsockname()[1]
        log.info("gateway_ready", extra={"address": address, "port": self._port})
        return listener

    async def configure(self, config: Config) -> None:
        """Takes another configuration; where it listens stays as it was."""
        config = self._as_said(config)
        self._callers.check(config.gateway)
        before = self._door.sender
        if before is not None and config.gateway.signed:
            before.configure(config)
        else:
            self._door.sender = _sender(config)
            if self._door.sender is not None:
                await self._door.sender.open()
        await self._callers.configure(config.gateway)
        self._config = config.gateway
        self._door.configure(config)
        if before is not None and self._door.sender is None:
            await before.close()
        if self._server is not None:
            self._server.most = config.gateway.connections

    def status(self, configuration: ConfigurationStatus) -> GatewayStatus:
        """What ``/status`` says."""
        callers = [CallerStatus(caller.name, caller.why_not) for caller in self._callers.all]
        return GatewayStatus(
            process=ProcessStatus(
                service="gateway",
                name=f"{socket.gethostname()}-{os.getpid()}",
                started_ms=self._started_ms,
                unready=self.unready(),
                configuration=configuration,
                connected=not any(caller.error for caller in callers),
                connects=max((caller.connects for caller in self._callers.all), default=0),
                version=VERSION,
            ),
            address=self._config.address,
            port=self._port,
            callers=callers,
        )

    def unready(self) -> str:
        """Why it does not serve yet; empty if it serves."""
        if self._server is None:
            return "it does not listen yet"
        return next((f"caller {each.name}: {each.why_not}" for each in self._callers.all if each.why_not), "")

    async def unhealthy(self) -> str:
        """Why only a restart would help: never, as connections come back by themselves and the loop that asks runs."""
        return ""

    def _as_said(self, config: Config) -> Config:
        """A configuration with what the command line says; raises ConfigError where everybody could ask."""
        gateway = replace(config.gateway, **self._said)
        if wrong := gateway.wrong:
            raise ConfigError(f"gateway{wrong}")
        return replace(config, gateway=gateway)


def _sender(config: Config) -> Sender | None:
    """What sends signed calls; None where they are refused.

    Raises:
        ConfigError: it needs what is not installed, or the configuration is wrong for ccxt.
    """
    if not config.gateway.signed:
        return None
    try:
        # It has ccxt: all else of a gateway does without.
        found: Any = importlib.import_module(modules.module("workers.direct.sender"))
    except ImportError as error:
        text = "gateway.signed: to send signed calls it needs more: pip install 'ccxt-fleet[worker]'"
        raise ConfigError(f"{text} ({error})") from error
    made: Sender = found.Sender(config)
    return made
