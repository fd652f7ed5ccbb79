"""Makes requests of what a program says: ccxt's arguments, and how it is to be asked.

What a program says may have any type. Python itself would fail over a wrong one somewhere inside, in words that do not
name the argument.
"""

import difflib
import itertools
import os
import time
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, Required, TypeAlias, TypedDict, Unpack

from msgspec.structs import replace

from ..messages import BODY_LIMIT_BYTES, ErrorCode, Http, Priority, Request, Strategy, encode
from ..methods import HTTP
from .results import All, Answer, unanswered

__all__ = [
    "EMPTY",
    "HTTP_NAMES",
    "AccountHow",
    "All",
    "How",
    "HttpHow",
    "MaxAge",
    "Mode",
    "PublicHow",
    "RequestHow",
    "call_of",
    "check_deadline",
    "check_duration",
    "check_map",
    "check_names",
    "encoded",
    "expect",
    "request_of",
    "sent",
]

Mode: TypeAlias = Literal["any", "all"]
MaxAge: TypeAlias = timedelta | Literal["bar"]
EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
# The longest text that a property of an AMQP message holds (AMQP 0-9-1, section 4.2.5.3).
ID_BYTES: Final = 255
_MILLISECOND: Final = timedelta(milliseconds=1)


class How(TypedDict, total=False):
    """How the fleet is to ask; every read takes these by name.

    Args:
        exchanges: which may answer, by ccxt's ids or lanes' names; none for any.
        strategy: how one of them is chosen.
        deadline: how long it may take, or until when; None for the client's.
        priority: ``live``, or ``bulk`` for what has time.
        hedge: without an answer after so long, a second exchange is asked too.
    """

    exchanges: str | Sequence[str]
    strategy: Strategy | None
    deadline: timedelta | datetime | None
    priority: Priority
    hedge: timedelta | None


class RequestHow(How, total=False):
    """`How`, for any method, and with the request's id.

    Args:
        account: the account that is read.
        id: names the request in its result and in the fleet's logs; without it one is made.
        max_age: see `PublicHow`.
    """

    account: str | None
    id: str
    max_age: MaxAge | None


class HttpHow(TypedDict, total=False):
    """How the fleet is to make an HTTP call; the exchanges stand apart, as each URL is of one.

    Args:
        strategy: see `How`, also for the rest.
        deadline: see `How`.
        priority: see `How`.
        hedge: see `How`.
        max_age: the answer to an equal call will do that is no older, or under way.
    """

    strategy: Strategy | None
    deadline: timedelta | datetime | None
    priority: Priority
    hedge: timedelta | None
    max_age: timedelta | None


class PublicHow(How, total=False):
    """`How`, for what anybody may read.

    Args:
        account: whose keys are used, where an exchange wants some for a public read.
        max_age: the answer to an equal read will do that is no older, or under way; ``bar``, for candles: one that has
            all bars that are finished.
    """

    account: str | None
    max_age: MaxAge | None


class AccountHow(How, total=False):
    """`How`, with the account that is read, by its name in the fleet's configuration."""

    account: Required[str]


NAMES: Final = RequestHow.__required_keys__ | RequestHow.__optional_keys__
HTTP_NAMES: Final = HttpHow.__required_keys__ | HttpHow.__optional_keys__


def expect(name: str, value: Any, kinds: type | tuple[type, ...], what: str, *, but: tuple[type, ...] = ()) -> None:
    """Refuses a value of another type, and what is both of these and one of `but`; raises TypeError."""
    if not isinstance(value, kinds) or isinstance(value, but):
        raise TypeError(f"{name}: expected {what}, not {repr(value)[:60]}")


def check_duration(name: str, value: Any) -> None:
    """Refuses what is no timedelta; raises TypeError."""
    expect(name, value, timedelta, "a timedelta, as in timedelta(seconds=5)")


def check_deadline(value: Any) -> None:
    """Refuses what is no deadline; raises TypeError."""
    expect("deadline", value, (timedelta, datetime), "a timedelta, as in timedelta(seconds=5), or a datetime")


def check_map(requests: Any, concurrency: Any, deadline: Any) -> None:
    """Refuses what `map` can't run with; raises TypeError or ValueError."""
    what = "a list of Requests, or another iterable"
    expect("requests", requests, (Iterable, AsyncIterable), what, but=(str, Mapping))
    expect("concurrency", concurrency, int, "a whole number")
    if concurrency < 1:
        raise ValueError("concurrency: expected at least 1")
    check_deadline(deadline)


def check_names(method: str, how: Mapping[str, Any], known: Collection[str] = NAMES) -> None:
    """Refuses what is neither an argument of a read nor the fleet's; raises TypeError, as Python would."""
    for name in how:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"; is {near[0]!r} meant?" if near else f"; beside ccxt's it takes {', '.join(sorted(known))}"
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}{meant}")


def deadline_ms(deadline: timedelta | datetime) -> int:
    """A deadline as requests carry it: Unix milliseconds.

    Raises:
        TypeError: it is none.
        ValueError: a time without its zone.
    """
    check_deadline(deadline)
    if isinstance(deadline, timedelta):
        return time.time_ns() // 1_000_000 + deadline // _MILLISECOND
    if deadline.tzinfo is None:
        raise ValueError("a deadline needs its time zone, as in datetime.now(UTC) + timedelta(seconds=5)")
    return int(deadline.timestamp() * 1000)


def request_of(
    method: str,
    args: Mapping[str, Any] = EMPTY,
    *,
    id: str = "",
    exchanges: str | Sequence[str] = (),
    mode: Mode = "any",
    strategy: Strategy | None = None,
    deadline: timedelta | datetime | None = None,
    priority: Priority = "live",
    hedge: timedelta | None = None,
    account: str | None = None,
    max_age: MaxAge | None = None,
) -> Request:
    """The request for a read. What is left to the fleet to check are the words and the values that are sent.

    Args:
        method: as ccxt names it, in snake_case.
        args: by their names. None, an empty `params`, and the `reload` of `load_markets` where it is False, stand for
            the default and are left out.
        id: the request's; without it one is made when it is sent.
        exchanges: see `How`, also for the rest; a single text is one exchange.
        mode: ``any`` for one answer, ``all`` for one from each exchange.
        strategy: see `How`.
        deadline: see `How`.
        priority: see `How`.
        hedge: see `How`.
        account: see `PublicHow`, also for the last one.
        max_age: the fleet checks how long it may be, and what has bars.

    Raises:
        TypeError: something is of another type.
        ValueError: a deadline without its time zone.
    """
    expect("method", method, str, "a text, as 'fetch_ticker'")
    expect("args", args, Mapping, 'a table, as {"symbol": "BTC/USDT"}')
    expect("id", id, str, "a text")
    expect("exchanges", exchanges, Iterable, "a name, or a list of names")
    if hedge is not None:
        check_duration("hedge", hedge)
    if max_age is not None and max_age != "bar":
        expect("max_age", max_age, timedelta, 'a timedelta, as in timedelta(seconds=5), or "bar" for candles')
    given = {name: _plain(value) for name, value in args.items() if value is not None}
    if not given.get("params", True):
        del given["params"]
    if given.get("reload") is False:
        del given["reload"]
    return Request(
        method,
        given,
        id,
        [exchanges] if isinstance(exchanges, str) else list(exchanges),
        mode,
        strategy,
        None if deadline is None else deadline_ms(deadline),
        priority,
        None if hedge is None else hedge // _MILLISECOND,
        account,
        max_age_ms=max_age // _MILLISECOND if isinstance(max_age, timedelta) else max_age,
    )


def call_of(url: str, exchanges: str | Sequence[str], post: str | None = None, **how: Unpack[HttpHow]) -> Request:
    """The request for an HTTP call.

    Args:
        url: the whole address, with its query.
        exchanges: the exchange whose API it is.
        post: what is sent with a POST; None for a GET.
        how: see `HttpHow`.

    Raises:
        TypeError: something is of another type.
    """
    expect("url", url, str, "a text, as 'https://api.binance.com/api/v3/time'")
    if post is not None:
        expect("post", post, str, "the body as a text")
    call = Http(url) if post is None else Http(url, "POST", post)
    return replace(request_of(HTTP, exchanges=exchanges, **how), method="", http=call)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


class Ids:
    """Makes ids of requests that no other client makes, and no child of this process."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count()

    def new(self) -> str:
        """One that was not given out before."""
        return f"{self._prefix}-{next(self._numbers)}"


def sent(request: Request, ids: Ids, deadline: timedelta | datetime) -> Request:
    """A request as it is sent: with an id, and a deadline, without which a copy of it would not be recognised.

    Raises:
        TypeError: it is no `Request`.
    """
    expect("request", request, Request, 'a Request, as in Request("fetch_ticker", {"symbol": "BTC/USDT"})')
    if request.id and request.deadline_ms is not None:
        return request
    until_ms = deadline_ms(deadline) if request.deadline_ms is None else request.deadline_ms
    return replace(request, id=request.id or ids.new(), deadline_ms=until_ms)


def encoded(request: Request) -> bytes | Answer:
    """A request's body; or, for one that can't be sent, the error that the fleet would give."""
    try:
        body = encode(request)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return unanswered(request, ErrorCode.INVALID_ARGUMENTS, f"the arguments can't be encoded: {error}")
    if (length := len(request.id.encode())) > ID_BYTES:
        text = f"the id has {length:,} bytes; at most {ID_BYTES} are taken"
        return unanswered(request, ErrorCode.INVALID_REQUEST, text)
    if len(body) > BODY_LIMIT_BYTES:
        text = f"the request has {len(body):,} bytes; at most {BODY_LIMIT_BYTES:,} are taken"
        return unanswered(request, ErrorCode.TOO_LARGE, text)
    return body
