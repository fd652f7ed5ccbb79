"""Reads requests as programs in any language write them: in JSON or MessagePack.

Two things are taken that a strict decoder refuses, and the JSON Schema says the same. A whole number may be written as
a float (`4.1e12`; JavaScript's packers of MessagePack make floats of large numbers). Null stands for the default, as
where a program writes out every field. And an empty list stands for an empty table, or the other way round.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from msgspec import DecodeError, Raw, ValidationError, convert, json, msgpack
from msgspec.structs import fields as fields_of

from .messages import Http, Request, decode_with

# From here on a float no longer stands for one whole number alone.
EXACT_BELOW: Final = 2**53
# RFC 8259, section 8.1: a parser may ignore it. .NET and PowerShell write it.
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# The same of a float of 32 bits, in MessagePack behind this byte.
EXACT_SINGLE_BELOW: Final = 2**24
_SINGLE: Final = b"\xca"
# What an empty list or table stands for, by its name.
_TABLES: Final = frozenset({"args", "params"})
_LISTS: Final = frozenset({"exchanges", "symbols", "codes"})
_EMPTIES: Final[tuple[Any, ...]] = ([], {})
# How msgpackr writes JavaScript's undefined, which `@msgpack/msgpack` writes as nil.
_UNDEFINED: Final = msgpack.Ext(0, b"\0")
# The first bytes of maps and arrays in MessagePack. No text in ASCII begins with one of them.
_PACKED: Final = frozenset([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_EMPTY_MAP: Final = 0x80
_OPTIONAL: Final = frozenset(field.encode_name for field in fields_of(Request) if not field.required)
_OPTIONAL_OF_HTTP: Final = frozenset(field.encode_name for field in fields_of(Http) if not field.required)
# Of a request, its arguments, and what is in them. Deeper ones are refused.
_LEVELS: Final = 12
_INNER: Final[msgpack.Decoder[dict[Any, Raw] | list[Raw]]] = msgpack.Decoder(dict[Any, Raw] | list[Raw])
_JSON_REQUEST: Final = json.Decoder(Request)
_MSGPACK_REQUEST: Final = msgpack.Decoder(Request)


def is_json(content_type: str, body: bytes) -> bool:
    """Whether a body is JSON, or to be answered in JSON: all but MessagePack.

    The content type decides, or where that names no known encoding, the body's first byte.
    """
    if "json" in content_type:
        return True
    if "msgpack" in content_type:
        return False
    # What follows an empty map is not MessagePack: Python's pickles begin with the same byte.
    return not body or body[0] not in _PACKED or (body[0] == _EMPTY_MAP and len(body) > 1)


def whole(value: Any) -> Any:
    """A float that stands for one whole number, as that number; any other value as it is."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_BELOW:
        return int(value)
    return value


def filled(name: str, value: Any) -> Any:
    """A field or an argument, where an empty list stands for an empty table, or the other way round.

    PHP writes both as ``[]``, and Lua's packers both as ``{}``.
    """
    if value not in _EMPTIES:
        return value
    return {} if name in _TABLES else [] if name in _LISTS else value


def rounded(body: bytes) -> tuple[str, ...]:
    """Where a request in MessagePack holds a whole number as a float of 32 bits, which may have lost digits in it.

    A point in time in milliseconds would be up to a minute off.

    Returns:
        The names that lead to the first one; empty where there is none.
    """
    return next(_rounded(body, (), _LEVELS), ())


def _rounded(body: bytes, names: tuple[str, ...], levels: int) -> Iterator[tuple[str, ...]]:
    if body[:1] == _SINGLE:
        if EXACT_SINGLE_BELOW < abs(msgpack.decode(body, type=float)) < math.inf:
            yield names
    elif _SINGLE in body and levels:
        with suppress(DecodeError):
            inner = decode_with(_INNER, body)
            if isinstance(inner, dict):
                for name, each in inner.items():
                    yield from _rounded(bytes(each), (*names, str(name)), levels - 1)
            else:
                for each in inner:
                    yield from _rounded(bytes(each), names, levels - 1)


def absent(value: Any) -> bool:
    """Whether a value stands for the default, as if it were left out: null, or JavaScript's undefined."""
    return value is None or (isinstance(value, msgpack.Ext) and value == _UNDEFINED)


def decode_request(content_type: str, body: bytes) -> Request:
    """Reads a request in the encoding that its content type names. Its arguments are as they were written.

    Raises:
        msgspec.DecodeError: it is neither JSON nor MessagePack.
        msgspec.ValidationError: it is no request; the text names the field.
    """
    as_json = is_json(content_type, body)
    if as_json:
        body = body.removeprefix(BYTE_ORDER_MARK)
    try:
        return decode_with(_JSON_REQUEST if as_json else _MSGPACK_REQUEST, body)
    except ValidationError:
        tree: Any = decode_with(json.Decoder() if as_json else msgpack.Decoder(), body)
        if not isinstance(tree, dict):
            raise
        fields: dict[Any, Any] = tree  # pyright: ignore[reportUnknownVariableType]
        given = ((name, value) for name, value in fields.items() if name not in _OPTIONAL or not absent(value))
        said = {name: whole(filled(name, value)) for name, value in given}
        if isinstance(said.get("http"), dict):
            call = said["http"].items()
            said["http"] = {name: value for name, value in call if name not in _OPTIONAL_OF_HTTP or not absent(value)}
        return convert(said, Request)
