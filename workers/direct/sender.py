"""Sends the gateway's signed calls, each by the lane that it names (`schemas.gateway.signed`)."""

import asyncio
import logging

import redis.asyncio

from schemas import old_names
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.gateway.signed import End, SignedCall, Unsent
from schemas.messages import ErrorCode, Http
from schemas.runtime import store
from schemas.runtime.tasks import Asides
from schemas.urls import place

from ..exchange import settings
from ..exchange.bounds import Bounds
from ..exchange.egress import Egress, tls
from ..exchange.markets import Markets
from .signed_lane import SignedLane

log = logging.getLogger(__name__)


class Sender:
    """Sends signed calls; see `schemas.gateway.signed.Sender`. Must be made inside the running event loop.

    Args:
        config: the fleet's.

    Raises:
        ConfigError: something in the configuration would have no effect on ccxt, or be wrong for it.
    """

    def __init__(self, config: Config) -> None:
        settings.check(config)
        self._config = config
        self._tls = tls()
        self._client: redis.asyncio.Redis = store.connect(config.redis.url, timeout_s=config.redis.timeout_s)
        self._place = place(config.redis.url)
        self._markets = Markets(self._client, keep_s=2 * config.worker.renew_every_s)
        self._bounds = Bounds(config.worker)
        self._egresses: dict[str, Egress] = {}
        self._open = set[SignedLane]()  # those too that end when their last call is over
        self._asides = Asides()
        self._left = False
        self._lanes = {name: self._made(name, config) for name in config.lanes}

    async def open(self) -> None:
        """Says where calls are charged, and whether that can be reached: they are refused while it can't."""
        try:
            await self._client.ping()
        except store.AWAY as error:
            log.warning("signed_calls_wait_for_redis", extra={"redis": self._place, "error": repr(error)})
        else:
            log.info("signed_calls_taken", extra={"redis": self._place})

    async def is_read(self, exchange: str, call: Http) -> bool:
        """Whether a call without a signature is one that the fleet makes: a public read, or to an unknown exchange."""
        names = self._names(exchange)
        return self._left or not names or await self._lanes[names[0]].is_read(call)

    async def send(self, call: SignedCall, until_s: float) -> End:
        """Charges a call and sends it, once."""
        if self._left:
            return Unsent("leaving", "not sent: the gateway is being stopped, or takes signed calls no more", 1.0)
        names = self._names(call.exchange)
        if not names:
            known = ", ".join(self._config.lanes)
            return Unsent(str(ErrorCode.UNKNOWN_EXCHANGE), f"no lane reaches {call.exchange!r}; lanes are {known}")
        if len({self._config.lanes[name].egress for name in names}) > 1:
            text = f"{call.exchange} has lanes with addresses of their own: name one of {', '.join(names)} in its place"
            return Unsent("bad_call", text)
        lane = self._lanes[names[0]]
        with lane.calls.one():
            return await lane.send(call, until_s)

    def configure(self, config: Config) -> None:
        """Takes another configuration for the next calls; raises ConfigError as at first."""
        settings.check(config)
        parts = ("limits", "worker", "redis", "gateway")
        same = all(getattr(self._config, part) == getattr(config, part) for part in parts)
        kept = {name for name, lane in config.lanes.items() if same and self._config.lanes.get(name) == lane}
        lanes = {name: self._lanes[name] for name in kept}
        try:
            for name in config.lanes.keys() - kept:
                lanes[name] = self._made(name, config)
        except ConfigError:
            for name in lanes.keys() - kept:
                self._asides.start(self._close(lanes[name]))
            raise
        for name in self._lanes.keys() - kept:
            self._asides.start(self._close(self._lanes[name]))
        self._config, self._lanes = config, lanes
        self._bounds.configure(config.worker)

    async def close(self, *, cuts: bool = False) -> None:
        """Gives up what it holds of limits, and closes all connections, when no call is under way any more.

        Args:
            cuts: see `schemas.gateway.signed.Sender`.
        """
        self._left = True
        if cuts:
            await asyncio.gather(*(lane.cut() for lane in self._open))
        for lane in self._lanes.values():
            self._asides.start(self._close(lane))
        self._lanes = {}
        await self._asides.ended()
        await self._client.aclose()

    def _names(self, exchange: str) -> list[str]:
        """The lanes that a name stands for: a lane's own, or an exchange's."""
        if exchange in self._config.lanes:
            return [exchange]
        today = old_names.today(exchange)
        return [name for name, lane in self._config.lanes.items() if lane.known_as == today]

    def _made(self, name: str, config: Config) -> SignedLane:
        lane = config.lanes[name]
        if lane.egress not in self._egresses:
            self._egresses[lane.egress] = Egress(self._tls, lane.local_addr, lane.proxy)
        made = SignedLane(name, config, self._egresses[lane.egress], self._markets, self._bounds)
        self._open.add(made)
        return made

    async def _close(self, lane: SignedLane) -> None:
        await lane.close()
        self._open.discard(lane)
        place = lane.config.egress
        if self._egresses.get(place) is lane.egress and all(other.egress is not lane.egress for other in self._open):
            await self._egresses.pop(place).close()
