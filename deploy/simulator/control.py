"""The simulator's control port: what was counted, faults, limits, the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from .clock import Clock
from .faults import HEALTHY, Faults
from .ledger import ExchangeCount
from .server import Door
from .venue import Json, encode


class LimitsSwitch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether limits are enforced; they are counted either way."""

    enforced: bool


class ClockChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Freeze the clock or let it run, then move it forward by `advance_s` seconds."""

    frozen: bool | None = None
    advance_s: float = 0.0


class CountersReport(msgspec.Struct, frozen=True):
    """What `GET /counters` answers."""

    violations: int
    exchanges: dict[str, ExchangeCount]


class Control:
    """The control port's HTTP interface.

    GET /exchanges, /counters, /faults, /clock; POST /counters/reset; PUT and DELETE /faults/{exchange};
    PUT /limits; PUT /clock. Bad input is answered 400 with `{"error": ...}`.
    """

    def __init__(self, doors: dict[str, Door], clock: Clock) -> None:
        self._doors = doors
        self._clock = clock
        self.app = web.Application(middlewares=[_bad_input])
        self.app.add_routes(
            [
                web.get("/exchanges", self._exchanges),
                web.get("/counters", self._counters),
                web.post("/counters/reset", self._reset),
                web.get("/faults", self._faults),
                web.put("/faults/{exchange}", self._set_faults),
                web.delete("/faults/{exchange}", self._clear_faults),
                web.put("/limits", self._limits),
                web.get("/clock", self._time),
                web.put("/clock", self._set_time),
            ]
        )

    def _door(self, request: web.Request) -> Door:
        name = request.match_info["exchange"]
        if name not in self._doors:
            raise web.HTTPNotFound(text=encode({"error": f"no exchange {name!r} here"}).decode())
        return self._doors[name]

    async def _exchanges(self, _: web.Request) -> web.Response:
        return _json({name: door.url for name, door in self._doors.items()})

    async def _counters(self, _: web.Request) -> web.Response:
        exchanges = {name: door.ledger.counts for name, door in self._doors.items()}
        return _json(CountersReport(sum(count.violations for count in exchanges.values()), exchanges))

    async def _reset(self, _: web.Request) -> web.Response:
        for door in self._doors.values():
            door.ledger.reset_counts()
        return _json({})

    async def _faults(self, _: web.Request) -> web.Response:
        return _json({name: door.faults for name, door in self._doors.items()})

    async def _set_faults(self, request: web.Request) -> web.Response:
        door = self._door(request)
        await door.set_faults(msgspec.json.decode(await request.read(), type=Faults))
        return _json(door.faults)

    async def _clear_faults(self, request: web.Request) -> web.Response:
        await self._door(request).set_faults(HEALTHY)
        return _json(HEALTHY)

    async def _limits(self, request: web.Request) -> web.Response:
        switch = msgspec.json.decode(await request.read(), type=LimitsSwitch)
        for door in self._doors.values():
            door.ledger.enforced = switch.enforced
        return _json(switch)

    def _clock_state(self) -> Json:
        return {"now_ms": self._clock.now_ms(), "frozen": self._clock.frozen}

    async def _time(self, _: web.Request) -> web.Response:
        return _json(self._clock_state())

    async def _set_time(self, request: web.Request) -> web.Response:
        change = msgspec.json.decode(await request.read(), type=ClockChange)
        if change.advance_s < 0:
            raise msgspec.ValidationError("`advance_s` must not be negative")
        if change.frozen is not None:
            self._clock.freeze(change.frozen)
        self._clock.advance(change.advance_s)
        return _json(self._clock_state())


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=encode(body), content_type="application/json")


@web.middleware
async def _bad_input(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except msgspec.DecodeError as error:
        return _json({"error": str(error)}, 400)
