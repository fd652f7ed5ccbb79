"""What every exchange of the simulator is made of: routes, listings and its ways to say no."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

from .accounts import Account, Signed
from .board import COINS, Board, Coin, Listing
from .clock import Clock
from .ledger import Verdict
from .limits import Query
from .prices import Tape

encode = msgspec.json.Encoder(decimal_format="string").encode
Json = dict[str, object]


class Answer(NamedTuple):
    """A whole HTTP answer but for the usage headers."""

    status: int
    body: bytes
    content_type: str = "application/json"


class UnknownSymbol(Exception):
    """The request names a pair that the exchange does not list."""


class BadParameter(Exception):
    """The request has a parameter that can't be read; the text names it."""


class Endpoint(msgspec.Struct, frozen=True):
    """One endpoint: the name it is counted under, what answers it, and how long an answer stays true.

    `tick`: until the next trade; `start`: as long as the simulator runs; `never`: made anew each time. `signed`: the
    request must be signed by an account, whose key `answer` then finds in the query as `account`.
    """

    name: str
    answer: Callable[[Query], object]
    life: Literal["tick", "start", "never"] = "tick"
    signed: bool = False


def reply(body: object, status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(status, encode(body))


def plain(text: str, status: int) -> Answer:
    """A text answer."""
    return Answer(status, text.encode(), "text/plain")


def iso(at_ms: int) -> str:
    """A time in ISO 8601, to the microsecond."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def whole(query: Query, key: str, default: int, most: int) -> int:
    """A positive whole parameter, at most `most`.

    Raises:
        BadParameter: it is not a positive whole number.
    """
    text = query.get(key)
    if text is None:
        return default
    if not text.isdecimal() or int(text) == 0:
        raise BadParameter(key)
    return min(int(text), most)


def moment(query: Query, key: str) -> float | None:
    """A point in time or None where absent, in the unit the exchange uses.

    Raises:
        BadParameter: it is not a finite number.
    """
    text = query.get(key)
    if text is None:
        return None
    try:
        at = float(text)
    except ValueError:
        raise BadParameter(key) from None
    if not math.isfinite(at):
        raise BadParameter(key)
    return at


class Venue(ABC):
    """One exchange.

    Args:
        clock: the simulator's clock.
        tapes: the prices by coin.
    """

    name: str
    quotes: tuple[str, ...] = ("USDT",)
    status_endpoint = ""
    """The endpoint that still answers during maintenance, where there is one."""

    def __init__(self, clock: Clock, tapes: dict[str, Tape]) -> None:
        self.clock = clock
        listings = [
            Listing(self.name, self.pair_id(coin.code, quote), coin, quote, tapes[coin.code], self.decimals(coin))
            for coin in COINS
            for quote in self.quotes
        ]
        self.board = Board(self.name, clock, listings)
        self.routes = {endpoint.name: endpoint for endpoint in self.endpoints()}

    @abstractmethod
    def pair_id(self, coin: str, quote: str) -> str:
        """The exchange's id of a pair."""

    def decimals(self, coin: Coin) -> int:
        """The decimals of a coin's price on this exchange."""
        return coin.decimals

    @abstractmethod
    def endpoints(self) -> list[Endpoint]:
        """All that it answers."""

    def resolve(self, path: str, query: Query) -> Endpoint | None:
        """The endpoint of a path; one with parts that vary may add them to `query`."""
        return self.routes.get(path)

    def pair(self, query: Query, key: str) -> Listing:
        """The pair a parameter names.

        Raises:
            BadParameter: the parameter is absent.
            UnknownSymbol: the exchange does not list it.
        """
        if key not in query:
            raise BadParameter(key)
        return self.listing(query[key])

    def listing(self, pair_id: str) -> Listing:
        """The pair with this id.

        Raises:
            UnknownSymbol: the exchange does not list it.
        """
        found = self.board.listings.get(pair_id)
        if found is None:
            raise UnknownSymbol(pair_id)
        return found

    def counted_as(self, name: str, value: str) -> str:
        """What a parameter's value is counted as where a limit is kept per value: the pair, whatever it is called.

        All that it does not list is one.
        """
        try:
            return self.listing(value).id
        except UnknownSymbol:
            return ""

    def authenticate(self, signed: Signed) -> Account | Answer:
        """The account of a request, or what is wrong with its signature; for exchanges that have signed endpoints."""
        raise NotImplementedError

    @abstractmethod
    def usage_headers(self, endpoint: str, verdict: Verdict) -> dict[str, str]:
        """The headers about the use of its limits."""

    @abstractmethod
    def refuse(self, verdict: Verdict) -> Answer:
        """Its answer past a limit or during a ban."""

    @abstractmethod
    def unknown_symbol(self, pair_id: str) -> Answer:
        """Its answer to a pair it does not list."""

    @abstractmethod
    def bad_parameter(self, name: str) -> Answer:
        """Its answer to a parameter that is missing or can't be read."""

    @abstractmethod
    def unknown_path(self) -> Answer:
        """Its answer to a path it does not have."""

    @abstractmethod
    def error(self, status: Literal[500, 503]) -> Answer:
        """Its answer when something inside it fails."""

    @abstractmethod
    def maintenance(self, endpoint: str) -> Answer:
        """Its answer during maintenance, also of its status endpoint."""
