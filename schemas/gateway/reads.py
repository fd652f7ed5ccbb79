"""Makes a request of ``/v1/<method>?<arguments>``: ccxt's reads, with ccxt's arguments. Pure.

The methods and the types of their arguments are those of the client (`schemas/client/reads.py`).
"""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from msgspec import json

from .. import methods
from ..client.reads import Reads
from ..explained import explained
from ..messages import Request
from ..messages import Result as Told
from .answers import Refusal, refused

# What the fleet takes beside a method's arguments, by its names in requests; an answer of an account is nobody else's.
HOW: Final[Mapping[str, Any]] = {
    "exchanges": Sequence[str],
    "exchanges_mode": str,
    "strategy": str,
    "priority": str,
    "hedge_ms": int,
    "max_age_ms": int | Literal["bar"],
}
_MOST_PAIRS: Final = 64
_NO: Final = object()


@lru_cache(512)
def arguments(method: str) -> dict[str, Any]:
    """A read's arguments and their types."""
    taken = inspect.signature(getattr(Reads, method)).parameters.values()
    return {each.name: each.annotation for each in taken if each.name not in ("self", "mode", "how")}


def read(target: str, body: bytes) -> Request | Refusal:
    """The request that a target and a body mean; or why there is none.

    Args:
        target: as it stands in the request's first line.
        body: JSON with more arguments; empty for none.
    """
    path, _, query = target.partition("?")
    method = path.removeprefix("/v1/").rstrip("/")
    if method in methods.PRIVATE_READS:
        return refused("signed_call", f"{method} reads an account: {_NO_ACCOUNT}")
    if why := methods.refusal(method):
        near = difflib.get_close_matches(method, methods.PUBLIC_READS, 1)
        return refused("not_found", why[:200] + (f"; is {near[0]!r} meant?" if near else ""))
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=_MOST_PAIRS)
        more: Any = json.decode(body) if body else {}
    except (ValueError, msgspec.DecodeError) as error:
        return refused("bad_call", f"the {'body is no JSON' if body else 'query can not be read'}: {error}"[:300])
    if not isinstance(more, dict):
        return refused("bad_call", "expected a JSON object as the body")
    kinds = {**arguments(method), **HOW}
    given: dict[str, Any] = {}
    told: list[tuple[str, Any]] = [*pairs, *more.items()]  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    for name, value in told:
        if why := _wrong(name, kinds, given):
            return refused("bad_call", why)
        given[name] = read_value(value, kinds[name]) if isinstance(value, str) else value
        if given[name] is _NO:
            wanted = _NAMES.get(_plain(kinds[name]), "text")
            return refused("bad_call", f"{name}: expected {wanted}, not {value[:60]!r}")
    how = {name: given.pop(name) for name in HOW if name in given}
    fields = {"method": method, "args": {name: each for name, each in given.items() if each is not None}, **how}
    try:
        return msgspec.convert(fields, Request)
    except msgspec.ValidationError as error:
        return refused("bad_call", explained(error, Request))


_NO_ACCOUNT: Final = "ask for it with the client or over RabbitMQ, whose permissions say who may"


def _wrong(name: str, kinds: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    if name == "account":
        return f"account: {_NO_ACCOUNT}"
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, 1)
        meant = f"is {near[0]!r} meant?" if near else f"expected some of {', '.join(kinds)}"
        return f"{name[:60]!r} is no argument; {meant}"
    return f"{name} stands there twice" if name in given else ""


def _plain(kind: Any) -> Any:
    """A type without `None`, and of a generic one its origin."""
    inside = [each for each in get_args(kind) if each is not type(None)]
    if type(None) in get_args(kind):
        kind = inside[0]
    return get_origin(kind) or kind


_NAMES: Final[Mapping[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Sequence: "a list, as a,b or in JSON",
    Mapping: "a JSON object",
}


def read_value(text: str, kind: Any) -> Any:
    """A value of a query, by its type; `_NO` where it is none. An empty one stands for the default."""
    plain = _plain(kind)
    if plain is str or (kind == HOW["max_age_ms"] and text == "bar"):
        return text
    if not text:
        return None
    if plain is Sequence and not text.startswith("["):
        return text.split(",")
    try:
        value = json.decode(text)
    except msgspec.DecodeError:
        return _NO
    fits = {
        int: isinstance(value, int) and not isinstance(value, bool),
        float: isinstance(value, (int, float)) and not isinstance(value, bool),
        bool: isinstance(value, bool),
        Sequence: isinstance(value, list),
        Mapping: isinstance(value, dict),
    }
    return value if fits.get(plain, True) else _NO


def plain(result: Told) -> dict[str, Any]:
    """A result as docs/messages.md has it, without what the client adds."""
    return {field.name: getattr(result, field.name) for field in msgspec.structs.fields(Told)}
