"""A process's HTTP server: ``/metrics`` for Prometheus, ``/status`` for people, ``/healthz``, ``/readyz``.

It runs in the service's own event loop: a process whose loop is stuck does not answer ``/healthz``.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from msgspec import json

from ..config import Config
from ..errors import ConfigError
from ..status import AnyStatus, ConfigurationStatus


class Service(Protocol):
    """What a process runs."""

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


async def serve(service: Service, configuration: Callable[[], ConfigurationStatus], address: str, port: int) -> Any:
    """Starts the server; `cleanup` of the runner that is returned stops it.

    Args:
        service: the service that answers.
        configuration: returns the status of the configuration in use.
        address: where to listen.
        port: where to listen.

    Raises:
        ConfigError: it can't listen there.
    """
    if not 0 <= port <= 65_535:
        raise ConfigError(f"can't listen on {address} port {port}: expected a port from 0 to 65535")
    # Only the services have these installed.
    from aiohttp import web  # noqa: PLC0415
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

    async def metrics(_: web.Request) -> web.Response:
        # In a thread: rendering hundreds of series must not delay calls that are due.
        body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: web.Request) -> web.Response:
        return web.Response(body=json.encode(service.status(configuration())), content_type="application/json")

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(await service.unhealthy())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(service.unready())

    def _verdict(why: str) -> web.Response:
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    application = web.Application()
    for handler in (metrics, status, healthz, readyz):
        application.router.add_get(f"/{handler.__name__}", handler)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError(f"can't listen on {address} port {port}: {error.strerror}") from error
    return runner
