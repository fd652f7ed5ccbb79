"""The gateway's part of the configuration: where it listens, who may ask, and how old its answers may be."""

import ipaddress
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from .accounts import SecretSource
from .quantities import Count, Seconds

Age: TypeAlias = Annotated[float, Meta(ge=0, le=1e6)]
CallerName: TypeAlias = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]
# Each share is a connection to RabbitMQ.
Weight: TypeAlias = Annotated[int, Meta(ge=1, le=16)]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65_535)]
# The name of those who need no token.
ANYONE: Final = "anyone"


class MaxAgeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How old an answer of the gateway may be, by what a URL's path asks for; 0: only equal calls under way share one.

    Args:
        tickers: prices of now.
        books: order books.
        trades: the last trades.
        candles: candles and other series of numbers over time; ``bar`` until the next bar ends.
        markets: what the exchange lists.
        other: all else.
    """

    tickers: Age = 1.0
    books: Age = 0.0
    trades: Age = 0.0
    candles: Age | Literal["bar"] = "bar"
    markets: Age = 300.0
    other: Age = 0.0


class TokenConfig(SecretSource, frozen=True, forbid_unknown_fields=True):
    """One caller: where its token is, and how much of a limit is its own.

    Args:
        weight: so many shares of each limit, where callers ask for more than there is.
    """

    weight: Weight = 1


class GatewayConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The gateway: the fleet for programs that speak HTTP.

    Args:
        address: where it listens. Other addresses than this machine's own want `tokens`.
        port: and on which port; 0 for a free one.
        hosts: names under which programs reach it, beside this machine's own; without `tokens` others are refused.
        wait_s: how long a caller waits for an answer where its request does not say.
        max_wait_s: the longest that a request may say.
        in_flight: requests of one caller that are under way at a time; the others wait.
        connections: open at a time; beyond it one of the caller's that has most is closed.
        grace_s: how long it may finish what it holds after a signal to stop.
        max_age_s: see `MaxAgeConfig`.
        tokens: callers by their names, and where each one's bearer token is, with its weight; none lets everybody in.
        signed: whether it takes signed calls, charges them, and sends them itself; it needs ccxt and Redis then.
    """

    address: str = "127.0.0.1"
    port: Port = 8080
    hosts: tuple[str, ...] = ()
    wait_s: Seconds = 9.0
    max_wait_s: Seconds = 60.0
    in_flight: Count = 500
    connections: Count = 4096
    grace_s: Seconds = 10.0
    max_age_s: MaxAgeConfig = MaxAgeConfig()
    tokens: dict[CallerName, TokenConfig] = {}
    signed: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether only programs on this machine reach it."""
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            return self.address == "localhost"

    @property
    def wrong(self) -> str:
        """What is wrong with it whatever the environment has, behind the section's name; empty if nothing is."""
        if self.wait_s > self.max_wait_s:
            return f".wait_s: expected at most {self.max_wait_s:g}, which is gateway.max_wait_s"
        if not self.is_alone and not self.tokens:
            why = f"whoever reaches {self.address} could use up the limits"
            return f".address: expected 127.0.0.1, or gateway.tokens: {why}"
        wrong = (name for name, source in self.tokens.items() if not source.one)
        return next((f".tokens.{name}: expected either env or file" for name in wrong), "")
