"""Who asks: callers by their tokens, each with a connection to RabbitMQ of its own.

The fleet shares its limits out among reply addresses (`docs/health.md`, Several callers), and a connection has one. So
a caller that asks for much delays only itself. One of more weight has more connections, and asks by turns.
"""

import asyncio
import hmac
import itertools
import logging
import math
import time
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from ..accounts import Secret
from ..client import asking
from ..client.errors import NotAllowed, NotConnected
from ..client.post import LATE_S, Letter, Post
from ..client.results import Answer
from ..config import BrokerConfig
from ..errors import ConfigError
from ..gateway_config import ANYONE, GatewayConfig
from ..messages import Request
from ..runtime.room import Room
from ..runtime.tasks import end_tasks
from .bodies import ROOM_BYTES, Sending

log = logging.getLogger(__name__)

# After RabbitMQ refused a caller's connection it is tried again after so long.
AGAIN_S: Final = 2.0
# The fleet's own error comes soon after the deadline; what is left of the caller's time is for its way back.
BACK_S: Final = 0.2


class Connection:
    """One connection of a caller.

    Args:
        name: the caller's.
        broker: where RabbitMQ is.
    """

    def __init__(self, name: str, broker: BrokerConfig) -> None:
        self.name = name
        self.trouble = "it is not connected to RabbitMQ yet"
        self._broker = replace(broker, patience_s=AGAIN_S * 5, give_up_s=math.inf, declare=False)
        self._post: Post | None = None
        self._opened = asyncio.Event()
        self._opening = asyncio.create_task(self._open(), name=f"caller {name}")

    @property
    def connects(self) -> int:
        """How often it connected."""
        return 0 if self._post is None else self._post.link.connects

    @property
    def why_not(self) -> str:
        """Why its connection is not up; empty where it is."""
        if self._post is None:
            return self.trouble
        return "" if self._post.link.up() else self._post.link.trouble or "its connection to RabbitMQ was lost"

    async def opened(self) -> Post:
        """Its way to the fleet, once there is one."""
        await self._opened.wait()
        assert self._post is not None
        return self._post

    async def close(self) -> None:
        """Ends all that is under way, and the connection."""
        await end_tasks([self._opening])
        if self._post is not None:
            await self._post.close()

    async def _open(self) -> None:
        """Connects for the first time, however long that takes; from then on the connection comes back by itself."""
        while True:
            post = Post(self._broker, f"gateway {self.name}")
            try:
                await post.open()
            except (NotConnected, NotAllowed) as error:
                self.trouble = str(error)
                log.warning("caller_not_connected", extra={"caller": self.name, "error": str(error)})
                await asyncio.sleep(AGAIN_S)
            except BaseException:
                await post.close()
                raise
            else:
                self._post, self.trouble = post, ""
                self._opened.set()
                return


class Caller:
    """One caller: its connections, and how many of its requests are under way.

    Args:
        name: in metrics and logs.
        broker: where RabbitMQ is.
        in_flight: how many requests it may have under way.
        weight: how many connections it has, each with a share of the limits.

    Attributes:
        places: how many of its requests are under way, and the bound.
        sending: what is held of its answers until they have been read.
    """

    def __init__(self, name: str, broker: BrokerConfig, in_flight: int, weight: int) -> None:
        self.name = name
        self.weight = weight
        self.sending = Sending(name, ROOM_BYTES)
        self.places = Room(in_flight, 0)  # a request takes one of them, and no bytes
        self._ids = asking.Ids()
        self._connections = [Connection(name, broker) for _ in range(weight)]
        self._turns = itertools.cycle(self._connections)

    @property
    def connects(self) -> int:
        """How often the connection was made that was lost most often."""
        return max(each.connects for each in self._connections)

    @property
    def why_not(self) -> str:
        """Why one of its connections is not up; empty where all are."""
        return next((each.why_not for each in self._connections if each.why_not), "")

    async def ask(self, request: Request, until_s: float) -> list[Answer]:
        """Asks the fleet; no answer in time is an error as the fleet's.

        Args:
            request: without a deadline.
            until_s: when the caller has to have an answer, on the event loop's clock.

        Raises:
            TimeoutError: there is no connection to RabbitMQ.
            NoDispatcher, NotAllowed, Closed: it could not be asked.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(until_s):
            post = await next(self._turns).opened()
        left_s = until_s - loop.time()
        # Where there is little time, the fleet has most of it.
        deadline_ms = time.time_ns() / 1e6 + max(left_s - LATE_S - BACK_S, left_s / 2) * 1000
        request = replace(request, id=self._ids.new(), deadline_ms=int(deadline_ms))
        body = asking.encoded(request)
        if isinstance(body, Answer):
            return [body]
        letter = Letter(request, body)
        letter.limit = asyncio.timeout_at(until_s - BACK_S / 2)
        return await post.ask(letter)

    async def close(self) -> None:
        """Ends all that is under way, and its connections."""
        await asyncio.gather(*(each.close() for each in self._connections))


class Callers:
    """All callers.

    Args:
        broker: where RabbitMQ is.
        config: the gateway's.
        environment: where tokens are looked up.

    Raises:
        ConfigError: a token is missing; or two callers have the same.
    """

    def __init__(self, broker: BrokerConfig, config: GatewayConfig, environment: Mapping[str, str]) -> None:
        self._broker, self._environment = broker, environment
        self._tokens = _tokens(config, environment)
        self._all: dict[str, Caller] = {}
        self._in_flight, self._weights = config.in_flight, _weights(config)

    @property
    def all(self) -> list[Caller]:
        """Those that have a connection, or will have one."""
        return list(self._all.values())

    @property
    def need_tokens(self) -> bool:
        """Whether a request without a token is refused."""
        return bool(self._tokens)

    def open(self) -> None:
        """Begins to connect those that are not there yet."""
        for name, weight in self._weights.items():
            if name not in self._all:
                self._all[name] = Caller(name, self._broker, self._in_flight, weight)
        shares = sum(self._weights.values())
        for caller in self._all.values():
            caller.sending.resize(ROOM_BYTES * caller.weight // shares)

    def check(self, config: GatewayConfig) -> None:
        """Raises ConfigError where `configure` would."""
        _tokens(config, self._environment)

    async def configure(self, config: GatewayConfig) -> None:
        """Takes other tokens: callers that are gone end, new ones connect; raises ConfigError as at first."""
        self._tokens = _tokens(config, self._environment)
        self._weights = _weights(config)
        gone = [self._all.pop(name) for name in list(self._all) if self._weights.get(name) != self._all[name].weight]
        self._in_flight = config.in_flight
        for caller in self._all.values():
            caller.places.resize(config.in_flight, 0)
        self.open()
        await asyncio.gather(*(caller.close() for caller in gone))

    def of(self, token: str) -> Caller | None:
        """The caller with this token; whoever it is, where no tokens are needed. Takes as long whichever it is."""
        if not self._tokens:
            return self._all.get(ANYONE)
        shown, found = token.encode(errors="replace"), None
        for name, secret in self._tokens.items():
            if hmac.compare_digest(secret.reveal().encode(), shown):
                found = self._all.get(name)
        return found

    def is_token(self, shown: str) -> bool:
        """Whether it is a caller's, whoever shows it."""
        return self.need_tokens and self.of(shown) is not None

    async def close(self) -> None:
        """Ends all of them."""
        await asyncio.gather(*(caller.close() for caller in self._all.values()))


def _weights(config: GatewayConfig) -> dict[str, int]:
    """The callers, and how many connections each has."""
    return {name: each.weight for name, each in config.tokens.items()} or {ANYONE: 1}


def _tokens(config: GatewayConfig, environment: Mapping[str, str]) -> dict[str, Secret]:
    found: dict[str, Secret] = {}
    for name, source in config.tokens.items():
        try:
            found[name] = source.read(environment)
        except ConfigError as error:
            raise ConfigError(f"gateway.tokens.{name}: {error}") from None
        if not found[name].reveal().isascii() or not found[name].reveal().isprintable() or " " in found[name].reveal():
            raise ConfigError(f"gateway.tokens.{name}: expected a token of letters, digits and signs in ASCII")
    if len({secret.reveal() for secret in found.values()}) < len(found):
        raise ConfigError("gateway.tokens: expected another token for each caller")
    return found
