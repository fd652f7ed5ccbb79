"""Recognises the fleet's own messages where a request is expected.

Each of them has required fields that no request may have.
"""

from typing import Final

from msgspec import DecodeError, Raw, Struct, json, msgpack
from msgspec.structs import fields

from .encodings import is_json
from .messages import Attempt, DeadLetter, Result, decode_with
from .reports import Report
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
# The values stay encoded: a result may be large.
_JSON: Final = json.Decoder(dict[str, Raw])
_MSGPACK: Final = msgpack.Decoder(dict[str, Raw])


def kind(content_type: str, body: bytes) -> str:
    """Which of the fleet's own messages a body is, e.g. ``a result``; empty for a request and for anything else."""
    try:
        found = decode_with(_JSON if is_json(content_type, body) else _MSGPACK, body).keys()
    except DecodeError:
        return ""
    return next((name for name, needed in _NEEDED if needed <= found), "")
