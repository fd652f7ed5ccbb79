"""What a body is that holds no request in JSON or MessagePack, and what can still be read of it. Pure.

The author of the program that published it learns it from the error. Marks of formats: gzip RFC 1952, zlib RFC 1950,
Zstandard RFC 8878, CBOR RFC 8949 (3.4.6), byte order marks RFC 3629 and the Unicode standard (23.8), pickle and Java by
their own documentation.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import DecodeError, Raw

from schemas.encodings import BYTE_ORDER_MARK, is_json
from schemas.messages import BODY_LIMIT_BYTES, JSON, MSGPACK, SHORT_LIMIT_BYTES, decode_with

from . import nearly_json

_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "LZ4",
    b"\xff\x06\x00\x00sNaPpY": "Snappy",
    **{b"x" + level: "zlib" for level in (b"\x01", b"\x9c", b"\xda")},
}
_SERIALIZED: Final = {
    **{b"\x80" + bytes([version]): "Python's pickle" for version in range(2, 6)},
    b"\xac\xed\x00\x05": "Java's serialization",
    b"\xd9\xd9\xf7": "CBOR",
}
# The longer marks come first: that of UTF-32 begins like that of UTF-16.
_WIDE_MARKS: Final = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# How text in ASCII, like an object in JSON, begins in each. Two characters are looked at, as the length that some
# programs write before a body may look like one.
_WIDE_TEXTS: Final = {
    "utf-32-le": re.compile(rb"[!-~]\0\0\0[\t-~]\0\0\0"),
    "utf-32-be": re.compile(rb"\0\0\0[!-~]\0\0\0[\t-~]"),
    "utf-16-le": re.compile(rb"[!-~]\0[\t-~]\0"),
    "utf-16-be": re.compile(rb"\0[!-~]\0[\t-~]"),
}
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{8,}={0,2}\s*")
_SINGLE_QUOTES: Final = re.compile(rb"\s*\{\s*b?'")
# By the first byte of a map in MessagePack, how many bytes say how many members it has.
_HEAD_BYTES: Final = {**dict.fromkeys(range(0x80, 0x90), 1), 0xDE: 3, 0xDF: 5}
# The longest map of which whole members are looked for: requests have fewer fields.
_MOST_MEMBERS: Final = 40
_TRUNCATED: Final = "truncated"
_GOES_ON: Final = re.compile(r"trailing characters \(byte ([0-9]+)\)")
# How other programs spell the names of these fields, in lower case and without underscores.
_SPELT: Final = {"id": ("id", "requestid"), "method": ("method",)}
_CBOR_MAP: Final = re.compile(rb"[\xa1-\xb7\xbf].*fmethod", re.DOTALL)
_JSON_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])
# Keys may be texts that were packed as bytes.
_MSGPACK_FIELDS: Final = msgspec.msgpack.Decoder(dict[Any, Raw])


def what(content_type: str, content_encoding: str, body: bytes) -> str:
    """What a body is, and what to do about it; empty where that is not known.

    Args:
        content_type: as the message has it.
        content_encoding: as the message has it.
        body: what could not be decoded.
    """
    if not body:
        return "the body is empty"
    if content := _first(_COMPRESSED, body):
        return f"the body is compressed with {content}: send it as it is"
    if coding := _wide(body):
        return f"the body is text in {coding[:-3].upper()}: encode it in UTF-8"
    if _SINGLE_QUOTES.match(body):
        return "the body is a Python dict as text: make JSON of it with json.dumps"
    if content := _first(_SERIALIZED, body) or ("CBOR" if _CBOR_MAP.match(body) else ""):
        return f"the body looks like {content}: encode it as JSON or MessagePack"
    as_json = is_json(content_type, body)
    if _fields(body, is_text=not as_json) is not None:
        content, said = ("MessagePack", "JSON") if as_json else ("JSON", "MessagePack")
        right = MSGPACK if as_json else JSON
        return f"the body is {content}, but its content_type says {said}: set it to {right}"
    return _inside(body) or _as_json(body) or _of_encoding(content_encoding)


def named(content_type: str, body: bytes) -> tuple[str, str]:
    """The id and the method of a body that is no valid request, each empty where it can't be read or used."""
    as_json = is_json(content_type, body)
    for text in _readings(body):
        for is_text in (as_json, not as_json):
            if (fields := _fields(text, is_text=is_text)) is not None:
                id_, method = (_value(fields, _spelt(fields, name), is_text=is_text) for name in _SPELT)
                if isinstance(id_, int) and not isinstance(id_, bool):
                    id_ = str(id_)
                return _usable(id_), _usable(method)
    return "", ""


def _readings(body: bytes) -> Iterator[bytes]:
    yield body
    if len(body) > BODY_LIMIT_BYTES:  # looking further would hold up other requests
        return
    if coding := _wide(body):
        yield body.decode(coding, errors="replace").removeprefix("\ufeff").encode(errors="replace")
    if inner := _unwrapped(body):
        yield inner
    yield nearly_json.read(body).body
    if first := _first_of_several(body) or _before_the_cut(body):
        yield first


def _spelt(fields: dict[str, Raw], name: str) -> str:
    """The name of a field as the body has it: itself, else as another program may spell it."""
    if name in fields:
        return name
    return next((each for each in fields if each.replace("_", "").casefold() in _SPELT[name]), name)


def _first(marks: dict[bytes, str], body: bytes) -> str:
    return next((name for mark, name in marks.items() if body.startswith(mark)), "")


def _wide(body: bytes) -> str:
    """The encoding of a text whose characters have two or four bytes; empty for any other body."""
    by_mark = next((name for mark, name in _WIDE_MARKS.items() if body.startswith(mark)), "")
    return by_mark or next((name for name, begin in _WIDE_TEXTS.items() if begin.match(body)), "")


def _fields(body: bytes, *, is_text: bool) -> dict[str, Raw] | None:
    """The fields of an object in JSON or a map in MessagePack, still encoded; None for anything else."""
    try:
        if is_text:
            return decode_with(_JSON_FIELDS, body.removeprefix(BYTE_ORDER_MARK))
        found = decode_with(_MSGPACK_FIELDS, body)
        return {key if isinstance(key, str) else key.decode(): value for key, value in found.items()}
    except (DecodeError, AttributeError, UnicodeDecodeError):  # a key is neither text nor bytes, or no UTF-8
        return None


def _first_of_several(body: bytes) -> bytes:
    """The first of several requests in MessagePack, one behind the other; empty for any other body."""
    first = _first_map(body)
    return first if _fields(first, is_text=False) and body[len(first)] in _HEAD_BYTES else b""


def _before_the_cut(body: bytes) -> bytes:
    """A map in MessagePack of the members that are whole in one without an end; empty for any other body."""
    head_bytes = _HEAD_BYTES.get(body[0], 0) if body else 0
    if not head_bytes or len(body) > nearly_json.LONGEST_BYTES or _TRUNCATED not in _said_of_map(body):
        return b""
    members = body[0] & 0x0F if head_bytes == 1 else int.from_bytes(body[1:head_bytes])
    for whole in range(min(members - 1, _MOST_MEMBERS), 0, -1):
        made = b"\xde" + whole.to_bytes(2) + body[head_bytes:]
        if found := _first_map(made) or (made if _fields(made, is_text=False) else b""):
            return found
    return b""


def _first_map(body: bytes) -> bytes:
    """The map in MessagePack that a body goes on behind; empty where it does not begin with one, or ends with it."""
    goes_on = _GOES_ON.search(_said_of_map(body))
    return body[: int(goes_on[1])] if goes_on else b""


def _said_of_map(body: bytes) -> str:
    """What msgspec says is wrong with a map in MessagePack; empty where nothing is."""
    try:
        decode_with(_MSGPACK_FIELDS, body)
    except DecodeError as error:
        return str(error)
    return ""


def _value(fields: dict[str, Raw], name: str, *, is_text: bool) -> Any:
    if name not in fields:
        return ""
    try:
        value: Any = decode_with(msgspec.json.Decoder() if is_text else msgspec.msgpack.Decoder(), bytes(fields[name]))
        return value.decode() if isinstance(value, bytes) else value
    except (DecodeError, UnicodeDecodeError):
        return ""


def _usable(text: Any) -> str:
    """A text that can be an id or a method; empty for any other value."""
    return text if isinstance(text, str) and len(text.encode(errors="replace")) <= SHORT_LIMIT_BYTES else ""


def _unwrapped(body: bytes) -> bytes:
    """The object in a text that was encoded twice: as JSON, or in base64; empty where there is none."""
    try:
        text = msgspec.json.decode(body.removeprefix(BYTE_ORDER_MARK), type=str).encode()
    except (DecodeError, UnicodeError):
        text = _decoded(body) if _BASE64.fullmatch(body) else b""
    return text if any(_fields(text, is_text=is_text) is not None for is_text in (True, False)) else b""


def _decoded(body: bytes) -> bytes:
    text = body.strip().translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b""


def _inside(body: bytes) -> str:
    if not _unwrapped(body):
        return ""
    if _BASE64.fullmatch(body):
        return "the body is in base64: send the bytes that it stands for"
    return "the body is a text with JSON in it, encoded twice: send the inner one"


def _as_json(body: bytes) -> str:
    """What is wrong with a text, or with a value in JSON, that is no object."""
    text = body.removeprefix(BYTE_ORDER_MARK).lstrip()
    if text[:1] == b"[" or _is_array(body):
        return "the body is a list: send an object (a map with text keys), and each request as a message of its own"
    if mistake := nearly_json.read(body).mistake:
        return mistake
    if _first_of_several(body):
        return nearly_json.SEVERAL
    if _before_the_cut(body):
        return nearly_json.CUT_SHORT
    if text.startswith(b"method="):
        return "the body is a form: encode it as JSON or MessagePack"
    return "the body is XML: encode it as JSON or MessagePack" if text[:1] == b"<" else ""


def _is_array(body: bytes) -> bool:
    try:
        return isinstance(decode_with(msgspec.msgpack.Decoder(list[Raw]), body), list)
    except DecodeError:
        return False


def _of_encoding(content_encoding: str) -> str:
    name = content_encoding.lower()
    if name in ("", "identity", "binary", "utf-8", "utf8"):
        return ""
    return f"the message's content_encoding is {content_encoding[:40]!r}: send the body as it is"
