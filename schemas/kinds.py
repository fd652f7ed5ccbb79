"""Tells the fleet's own messages from requests, wherever they turn up.

Each of them has fields that it can't be without, and that no request may have.
"""

from typing import Final

from msgspec import DecodeError, Raw, Struct, json, msgpack
from msgspec.structs import fields

from .messages import Attempt, DeadLetter, Report, Result, decode_with, is_json
from .status import DispatcherStatus, WorkerStatus

_KINDS: Final[dict[str, tuple[type[Struct], ...]]] = {
    "a result": (Result,),
    "an attempt": (Attempt,),
    "a report": (Report,),
    "a dead letter": (DeadLetter,),
    "a status": (DispatcherStatus, WorkerStatus),
}
_NEEDED: Final = [
    (name, frozenset(field.encode_name for field in fields(each) if field.required))
    for name, kinds in _KINDS.items()
    for each in kinds
]
# Their values stay encoded: a result may be large.
_JSON: Final = json.Decoder(dict[str, Raw])
_MSGPACK: Final = msgpack.Decoder(dict[str, Raw])


def kind(content_type: str, body: bytes) -> str:
    """Which of the fleet's own messages a body is, e.g. ``a result``; empty for any other, and for a request."""
    try:
        found = decode_with(_JSON if is_json(content_type, body) else _MSGPACK, body).keys()
    except DecodeError:
        return ""
    return next((name for name, needed in _NEEDED if needed <= found), "")
