"""Checks a request's arguments before ccxt gets them, and ccxt's answers before a producer gets them.

ccxt checks neither. A wrong argument uses up budget before it fails somewhere inside, and an empty object at status 200
becomes a ticker of Nones (measured on six exchanges, ccxt 4.5.90).
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any, Final, NoReturn

from ccxt.base.errors import BadResponse, NotSupported  # pyright: ignore[reportMissingTypeStubs]

from schemas import times
from schemas.errors import InvalidMessage
from schemas.messages import ErrorCode

Takes = Mapping[str, inspect.Parameter]

_TEXT: Final = frozenset({"symbol", "timeframe", "code", "id", "type", "side"})
_TEXT_LISTS: Final = frozenset({"symbols", "codes"})
# Parameters that are Unix milliseconds at every exchange, as ccxt converts them. An exchange's own are in its own unit.
_TIMES: Final = frozenset({"until", "till"})
_TIME_DIGITS: Final = 40
_TEXT_LIMIT: Final = 256
_IN_PATH: Final = re.compile(r"\{([\w-]+)\}")
_SLASHES: Final = re.compile(r"[/\\%]")
_STRAYS: Final = re.compile(r"\.\.|[?#\r\n]")

_KEYS_ELSEWHERE: Final = "an account's keys are set in the configuration; the request names it as account"
# Keys of `params` that would change how ccxt works, not what it asks for; each with what to do instead.
_CLOSED_PARAMS: Final = {
    "paginate": "ask for each page with since and limit: every page is then budgeted and retried by itself",
    "paginationcalls": "the fleet does not paginate",
    "paginationdirection": "the fleet does not paginate",
    "maxentriesperrequest": "the fleet does not paginate; use limit",
    "maxretries": "the fleet retries by itself",
    "maxretriesonfailure": "the fleet retries by itself",
    "maxretriesonfailuredelay": "the fleet retries by itself",
    "callermethodname": "it is ccxt's own",
    "headers": "the fleet sets the headers",
    "urls": "a lane's addresses are set in its configuration",
    "hostname": "a lane's addresses are set in its configuration",
    "options": "ccxt's options are set in the lane's configuration",
    "timeout": "use the request's deadline_ms",
    "version": "the fleet calls the version that ccxt knows",
    "reload": "use fetch_markets for a fresh list",
    "apikey": _KEYS_ELSEWHERE,
    "secret": _KEYS_ELSEWHERE,
    "password": _KEYS_ELSEWHERE,
}


def takes(function: Callable[..., Any]) -> Takes:
    """The arguments a ccxt method takes, as its signature says."""
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in ("self", "reload")
    }


def path_keys(api: object) -> frozenset[str]:
    """The placeholders in the paths of an exchange's URLs, from ccxt's table `api`: ``products/{product_id}``.

    ccxt fills them from `params` too: a value with a slash would reach another endpoint.
    """
    if isinstance(api, Mapping):
        table: Mapping[str, object] = api  # pyright: ignore[reportUnknownVariableType]
        return path_keys([*table.keys(), *table.values()])
    if isinstance(api, list):
        items: list[object] = api  # pyright: ignore[reportUnknownVariableType]
        return frozenset[str]().union(*map(path_keys, items))
    return frozenset(_IN_PATH.findall(api)) if isinstance(api, str) else frozenset()


def check(
    method: str,
    accepted: Takes,
    args: Mapping[str, Any],
    in_path: Set[str] = frozenset(),
    written: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Checks names and shapes.

    Args:
        method: the ccxt method.
        accepted: the arguments it takes.
        args: those of the request.
        in_path: parameters that become part of a URL's path.
        written: the spelling of the parameters that costs depend on, by their names in lower case.

    Raises:
        InvalidMessage: `invalid_arguments`, naming the argument and what is taken.
    """
    for name, value in args.items():
        if name not in accepted:
            if name == "reload":
                _refuse(f"{method}: reload is not taken: {_CLOSED_PARAMS[name]}")
            _refuse(f"{method} takes no argument {name!r}; it takes {', '.join(accepted) or 'none'}")
        if value is not None:
            _check_shape(method, name, value)
            if name == "params":
                _check_paths(method, value, in_path)
                _check_counted(method, value, written)
    for name, parameter in accepted.items():
        if parameter.default is parameter.empty and args.get(name) is None:
            _refuse(f"{method} needs the argument {name!r}; it takes {', '.join(accepted)}")


def _check_shape(method: str, name: str, value: Any) -> None:
    if name == "params":
        _check_params(method, value)
    elif name in _TEXT_LISTS:
        if not isinstance(value, list):
            _refuse(f"{method}: {name} must be a list of texts, not {_kind(value)}")
        for item in _items(value):
            _check_text(method, name, item)
    elif name in _TEXT:
        _check_text(method, name, value)
    elif name == "since":
        if not _is_int(value) or value < 0:
            _refuse(f"{method}: since must be Unix milliseconds, a whole number, not {_kind(value)}")
        _check_time(f"{method}: since", value)
    elif name == "limit":
        if not _is_int(value) or value < 1:
            _refuse(f"{method}: limit must be a whole number from 1, not {_kind(value)}")
    else:
        _check_plain(f"{method}: {name}", value)


def _check_text(method: str, name: str, value: Any) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_LIMIT:
        _refuse(f"{method}: {name} must be text of 1 to {_TEXT_LIMIT} characters, not {_kind(value)}")
    _check_plain(f"{method}: {name}", value)


def _check_params(method: str, params: Any) -> None:
    if not isinstance(params, dict):
        _refuse(f"{method}: params must be a table, not {_kind(params)}")
    for key, value in _pairs(params):
        if not isinstance(key, str):
            _refuse(f"{method}: the keys of params must be text, not {_kind(key)}")
        plain = key.replace("_", "").lower().removeprefix("default")
        reason = "proxies are set in the lane's configuration" if "proxy" in plain else _CLOSED_PARAMS.get(plain)
        if reason is not None:
            _refuse(f"{method}: params.{key} is not taken: {reason}")
        for item in _items(value) if isinstance(value, list) else (value,):
            _check_plain(f"{method}: params.{key}", item)
        if key in _TIMES:
            _check_time(f"{method}: params.{key}", value)


def _check_time(where: str, value: Any) -> None:
    """Refuses a time in another unit, which would be another year. 0 stands for the beginning of all data."""
    time = int(value[:_TIME_DIGITS]) if isinstance(value, str) and value.isdecimal() else value  # ccxt takes text too
    if isinstance(time, (int, float)) and time and (reason := times.wrong_unit(time)):
        _refuse(f"{where} {time} {reason}")


def _check_paths(method: str, params: Any, in_path: Set[str]) -> None:
    for key, value in _pairs(params):
        # With a lone dot, or nothing, the path would have one part less.
        if key in in_path and (_SLASHES.search(str(value)) or str(value) in ("", ".")):
            _refuse(f"{method}: params.{key} is part of a path: not empty, no '.' alone, no '/', '\\' or '%'")


def _check_counted(method: str, params: Any, written: Mapping[str, str]) -> None:
    """Refuses parameters that costs depend on, where they are lists or are spelt otherwise.

    What the exchange would count for those is not known.
    """
    for key, value in _pairs(params):
        name = written.get(key.strip().casefold())
        if name not in (None, key):
            _refuse(f"{method}: params.{key} is not taken: it is written {name}")
        plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        if name is not None and not plain and not (name in _TEXT_LISTS and isinstance(value, list)):
            _refuse(f"{method}: params.{key} must be text or a number, not {_kind(value)}")


def _check_plain(where: str, value: Any) -> None:
    if isinstance(value, str):
        # ccxt puts some values into the URL's path unchanged: the call could reach another endpoint than it pays for.
        if _STRAYS.search(value):
            _refuse(f"{where} may not hold '..', '?', '#' or line breaks")
    elif value is not None and not isinstance(value, (bool, int, float)):
        _refuse(f"{where} must be text, a number, true or false, not {_kind(value)}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()  # pyright: ignore[reportUnknownVariableType]


def _pairs(value: Any) -> Sequence[tuple[Any, Any]]:
    return list(value.items())


def _kind(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    said = repr(value)
    return said if len(said) <= 40 else f"{said[:39]}…"


def _refuse(message: str) -> NoReturn:
    raise InvalidMessage(ErrorCode.INVALID_ARGUMENTS, message)


# --- answers -----------------------------------------------------------------------------------------------------

_TICKER_PRICES: Final = ("last", "bid", "ask", "close", "markPrice", "indexPrice")
_TICKERS: Final = frozenset({"fetch_ticker", "fetch_mark_price"})
_BOOKS: Final = frozenset({"fetch_order_book", "fetch_l2_order_book"})
_CANDLES: Final = "ohlcv"
# An exchange without any market contradicts itself.
_NEVER_EMPTY: Final = frozenset({"fetch_markets", "load_markets"})


def check_answer(method: str, args: Mapping[str, Any], data: Any, http_calls: int, *, blank: bool = False) -> None:
    """Refuses data that contradicts its own form. Well-formed but empty data passes: there may be none.

    Args:
        method: the ccxt method.
        args: its arguments.
        data: what it returned.
        http_calls: how many calls that took.
        blank: the exchange's answer had no body. Where a list was asked for that means an empty one, else no data.

    Raises:
        NotSupported: ccxt returned nothing without calling the exchange.
        BadResponse: the exchange answered with something else.
    """
    asks_for_none = any(isinstance(value, list) and not value for value in args.values())
    if not data and method != "fetch_status" and http_calls == 0 and not asks_for_none:
        raise NotSupported(f"{method}: ccxt has no data for it without an account")
    if data is None or (data and blank) or (method in _NEVER_EMPTY and not data):
        raise BadResponse(f"{method}: the exchange's answer holds no data")
    if wrong := _misshapen(method, data):
        raise BadResponse(f"{method}: {wrong}")


def _misshapen(method: str, data: Any) -> str:
    """What is wrong with the form of a method's data; empty if nothing is."""
    if method in _TICKERS:
        if not isinstance(data, dict):
            return "not a ticker"
        # The ticker of a market without trades has no price, but it has the exchange's raw data.
        silent = not data.get("info") and all(data.get(name) is None for name in _TICKER_PRICES)  # pyright: ignore
        return "a ticker with nothing in it" if silent else ""
    if method == "fetch_status" and not isinstance(data, dict):
        return "not a status"
    if method in _BOOKS:
        book: Mapping[str, Any] = data if isinstance(data, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        fair = all(_is_side(book.get(side)) for side in ("bids", "asks"))
        return "" if fair else "an order book whose bids or asks are not pairs of numbers"
    if method.endswith(_CANDLES):
        fair = isinstance(data, list) and all(_items(row) and _is_number(row[0]) for row in _items(data))
        return "" if fair else "candles whose times are not numbers"
    return ""


def _is_side(side: Any) -> bool:
    """Whether it is a list of orders: price and amount each, and perhaps more."""
    return isinstance(side, list) and all(
        len(_items(level)) >= 2 and _is_number(level[0]) and _is_number(level[1]) for level in _items(side)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
