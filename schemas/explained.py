"""Makes an error of msgspec's one that people can act on: the key's path, and what would work there. Pure."""

import re
from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

import msgspec
from msgspec import Struct

from .messages import Strategy

# An entry in a path of msgspec's, as in ``groups[...].strategy``.
_ENTRY: Final = re.compile(r"\[[^]]*\]")


def explained(error: msgspec.ValidationError, kind: type[Struct]) -> str:
    """Says what is wrong in this Struct, and which keys there are where one is unknown.

    Turns msgspec's ``… - at `$.worker.in_flight``` into ``worker.in_flight: …``.
    """
    what, _, where = str(error).partition(" - at `$")
    if where.rstrip("`").endswith(".strategy"):
        what += f"; expected one of {', '.join(get_args(Strategy))}"
    where = where.rstrip("`").lstrip(".")
    if "unknown field" in what:
        for name in filter(None, _ENTRY.sub("", where).split(".")):
            kind = next(_structs(get_type_hints(kind)[name]), kind)
        what += f"; expected one of {', '.join(field.encode_name for field in msgspec.structs.fields(kind))}"
    return f"{where}: {what}" if where else what


def _structs(hint: Any) -> Iterator[type[Struct]]:
    """The Structs in a field's type: in a dict, or with None beside it."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        yield hint
    for part in get_args(hint):
        yield from _structs(part)
