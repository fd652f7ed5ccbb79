"""The connection to the fleet that all instances of a process share, with an event loop in a thread of its own.

So it serves threads and any number of event loops, one after the other too, and is closed at the program's end. A fork
makes another.
"""

import asyncio
import copy
import http
import os
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from ccxt.base.errors import NotSupported  # pyright: ignore[reportMissingTypeStubs]
from msgspec import Struct

from schemas.client.blocking import FleetSync
from schemas.client.http import HttpAnswer
from schemas.runtime.clock import clock_s

from . import reads, settings, way
from .settings import Settings

# How long a first call tries to connect.
PATIENCE: Final = timedelta(seconds=10)
# How headers are written that ccxt and programs look up by their usual names; the fleet has all in lower case.
_USUAL: Final = {
    name.lower(): name
    for name in (
        "Age Cache-Control Content-Language Content-Type Date ETag Expires Last-Modified Link Location Retry-After "
        "Server Vary Via X-Request-Id"
    ).split()
}


class Answered(Struct, frozen=True):
    """The exchange's answer, in the words of HTTP libraries."""

    status: int
    reason: str
    headers: dict[str, str]
    content: bytes


class _Door:
    def __init__(self, url: str) -> None:
        self.fleet = FleetSync(url, patience=PATIENCE)
        self._opening = threading.Lock()
        self._is_open = False
        self._failed: tuple[float, Exception] | None = None

    def open(self) -> FleetSync:
        """Connects, once. Who waited while another one tried and could not does not try again."""
        begun_s = clock_s()
        with self._opening:
            if self._failed is not None and self._failed[0] > begun_s:
                raise copy.copy(self._failed[1])
            try:
                self.fleet.__enter__()
            except Exception as error:
                self._failed = clock_s(), error
                raise
            self._is_open = True
        return self.fleet

    async def opened(self) -> FleetSync:
        """The same, beside the event loop that asks."""
        return self.fleet if self._is_open else await asyncio.to_thread(self.open)


_doors: Final = dict[tuple[int, str], _Door]()
_making: Final = [threading.Lock()]


def _of_a_fork() -> None:
    _making[0] = threading.Lock()  # somebody may have held it


os.register_at_fork(after_in_child=_of_a_fork)


def _door(url: str) -> _Door:
    where = os.getpid(), url or os.environ.get("FLEET_BROKER_URL", "")
    with _making[0]:
        if (door := _doors.get(where)) is None:
            door = _doors[where] = _Door(where[1])
        return door


def ask(exchange: Any, method: str, url: str, body: Any) -> Answered:
    """Has the fleet make a call for an instance of ccxt's class; see `Fleet.http` for what it raises."""
    said = settings.of(exchange)
    return _answered(_door(said.broker).open().http(url, **_how(said, exchange, method, body)))


async def ask_beside(exchange: Any, method: str, url: str, body: Any) -> Answered:
    """The same for an event loop, which goes on meanwhile."""
    said = settings.of(exchange)
    how = _how(said, exchange, method, body)
    fleet = await _door(said.broker).opened()
    return _answered(await asyncio.wrap_future(fleet.begin_http(url, **how)))


def _how(said: Settings, exchange: Any, method: str, body: Any) -> dict[str, Any]:
    if method not in ("GET", "POST"):
        raise NotSupported(f"{exchange.id}: a {method} is no read; the fleet makes public reads only")
    name = reads.name_of(exchange)
    post = None
    if method == "POST":
        post = body.decode() if isinstance(body, bytes) else str(body or "")
    return {
        "exchanges": settings.lanes(said, exchange, name),
        "post": post,
        **settings.how(said, exchange, markets=way.LOADING.get()),
    }


def _answered(answer: HttpAnswer) -> Answered:
    return Answered(answer.status, _reason(answer.status), _written(answer.headers), answer.content)


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def _written(headers: Mapping[str, str]) -> dict[str, str]:
    return {_USUAL.get(name, name): value for name, value in headers.items()}


def close() -> None:
    """Closes this process's connections, which its end would do as well."""
    with _making[0]:
        mine = [_doors.pop(where) for where in list(_doors) if where[0] == os.getpid()]
    for door in mine:
        door.fleet.close()
