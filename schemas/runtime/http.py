"""A process's HTTP server: ``/metrics`` for Prometheus, ``/status`` for people, ``/healthz``, ``/readyz``.

It runs in the service's own event loop: a process whose loop is stuck does not answer ``/healthz``.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from msgspec import Struct, json

from ..config import Config
from ..errors import ConfigError
from ..status import AnyStatus, ConfigurationStatus

Site: TypeAlias = tuple[str, int] | socket.socket
"""Where to listen: an address and a port, or a socket that listens already."""


class Service(Protocol):
    """What a process runs.

    Attributes:
        changed: set where its status changes in what people wait for: a lane's state, whether it is ready.
    """

    changed: asyncio.Event

    async def run(self, stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Serves until `stop` is set, then shuts down in order. Meanwhile `follow` runs, which calls `configure`."""
        ...

    async def configure(self, config: Config) -> None:
        """Takes over another configuration; where this raises, all is as before.

        Raises:
            ConfigError, TopologyError: it can't be used.
            BrokerLost: it can't be used now, as RabbitMQ does not answer.
        """
        ...

    def status(self, configuration: ConfigurationStatus) -> AnyStatus:
        """The body of ``/status``."""
        ...

    def unready(self) -> str:
        """Why it does not serve yet, in one line; empty if it serves."""
        ...

    async def unhealthy(self) -> str:
        """Why only a restart would help, in one line; empty if it works."""
        ...


class Pages(Protocol):
    """What stands on the four pages."""

    async def metrics(self) -> bytes:
        """The metrics in Prometheus's format."""
        ...

    async def status(self) -> bytes:
        """The status in JSON."""
        ...

    async def healthz(self) -> str:
        """Why only a restart would help; empty if it works."""
        ...

    async def readyz(self) -> str:
        """Why it does not serve yet; empty if it serves."""
        ...


class _Own(Struct):
    """The pages of the service that this process runs."""

    service: Service
    configuration: Callable[[], ConfigurationStatus]

    async def metrics(self) -> bytes:
        from prometheus_client import generate_latest  # noqa: PLC0415

        # In a thread: rendering hundreds of series must not delay calls that are due.
        return await asyncio.to_thread(generate_latest)

    async def status(self) -> bytes:
        return json.encode(self.service.status(self.configuration()))

    async def healthz(self) -> str:
        return await self.service.unhealthy()

    async def readyz(self) -> str:
        return self.service.unready()


async def serve(service: Service, configuration: Callable[[], ConfigurationStatus], where: Site) -> Any:
    """Serves the pages of a service; `cleanup` of the runner that is returned stops that.

    Args:
        service: the service that answers.
        configuration: returns the status of the configuration in use.
        where: where to listen.

    Raises:
        ConfigError: it can't listen there.
    """
    return await serve_pages(_Own(service, configuration), where)


async def serve_pages(pages: Pages, where: Site) -> Any:
    """Serves pages; `cleanup` of the runner that is returned stops that. Raises as `serve`."""
    if not isinstance(where, socket.socket) and not 0 <= where[1] <= 65_535:
        raise ConfigError(f"can't listen on {where[0]} port {where[1]}: expected a port from 0 to 65535")
    # Only the services have these installed.
    from aiohttp import web  # noqa: PLC0415
    from prometheus_client import CONTENT_TYPE_LATEST  # noqa: PLC0415

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await pages.metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: web.Request) -> web.Response:
        return web.Response(body=await pages.status(), content_type="application/json")

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(await pages.healthz())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(await pages.readyz())

    def _verdict(why: str) -> web.Response:
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    application = web.Application()
    for handler in (metrics, status, healthz, readyz):
        application.router.add_get(f"/{handler.__name__}", handler)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    if isinstance(where, socket.socket):
        await web.SockSite(runner, where).start()
        return runner
    address, port = where
    try:
        await web.TCPSite(runner, address, port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError(f"can't listen on {address} port {port}: {error.strerror}") from error
    return runner
