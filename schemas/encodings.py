"""Reads requests as programs in any language write them: in JSON or MessagePack.

Two things are taken that a strict decoder refuses, and the JSON Schema says the same. A whole number may be written as
a float (`4.1e12`; JavaScript's packers of MessagePack make floats of large numbers). And null stands for the default,
as where a program writes out every field.
"""

from typing import Any, Final

from msgspec import ValidationError, convert, json, msgpack
from msgspec.structs import fields as fields_of

from .messages import Request, decode_with

# From here on a float no longer stands for one whole number alone.
EXACT_BELOW: Final = 2**53
# RFC 8259, section 8.1: a parser may ignore it. .NET and PowerShell write it.
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# How msgpackr writes JavaScript's undefined, which `@msgpack/msgpack` writes as nil.
_UNDEFINED: Final = msgpack.Ext(0, b"\0")
# The first bytes of maps and arrays in MessagePack. No text in ASCII begins with one of them.
_PACKED: Final = frozenset([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_EMPTY_MAP: Final = 0x80
_OPTIONAL: Final = frozenset(field.encode_name for field in fields_of(Request) if not field.required)
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
        said = {name: whole(value) for name, value in fields.items() if name not in _OPTIONAL or not absent(value)}
        if isinstance(said.get("http"), dict):
            said["http"] = {name: value for name, value in said["http"].items() if not absent(value)}
        return convert(said, Request)
