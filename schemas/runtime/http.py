"""The HTTP door of a process: ``/metrics`` for Prometheus, ``/status`` for people, ``/healthz``, ``/readyz``.

It runs in the service's own event loop: a process whose loop stands still does not answer ``/healthz``.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from msgspec import Struct, json

from ..config import Config
from ..errors import ConfigError
from ..status import ConfigurationStatus


class Service(Protocol):
    """What a process runs."""

    async def run(self, stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Serves until `stop` is set, then leaves in order; while it serves, `follow` runs, which calls `configure`."""
        ...

    async def configure(self, config: Config) -> None:
        """Takes another configuration.

        Raises:
            ConfigError, TopologyError: it can't be used; all is as before.
            BrokerLost: not now; all is as before.
        """
        ...

    def status(self, configuration: ConfigurationStatus) -> Struct:
        """All that there is to know of it now."""
        ...

    def unready(self) -> str:
        """Why it does not serve yet, in one line; empty if it does."""
        ...

    async def ill(self) -> str:
        """Why only a fresh process would help, in one line; empty if it works."""
        ...


async def serve(service: Service, configuration: Callable[[], ConfigurationStatus], address: str, port: int) -> Any:
    """Opens the door; the runner that it gives closes it with `cleanup`.

    Args:
        service: who is asked.
        configuration: tells the one in use.
        address: where to listen.
        port: where to listen.

    Raises:
        ConfigError: nobody can listen there.
    """
    # The contract is installed without these two: they are for services only.
    from aiohttp import web  # noqa: PLC0415
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

    async def metrics(_: web.Request) -> web.Response:
        # In a thread: writing down hundreds of series must not hold up calls that are due.
        body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: web.Request) -> web.Response:
        return web.Response(body=json.encode(service.status(configuration())), content_type="application/json")

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(await service.ill())

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
