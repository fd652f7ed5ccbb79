"""Makes an error of msgspec's one that people can act on: the key's path, and what would work there. Pure."""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

# An entry in a path of msgspec's, as in ``groups[...].strategy``.
_ENTRY: Final = re.compile(r"\[[^]]*\]")
# What people write in place of the patterns that values have (`config.BrokerUrl` and others).
_FORMS: Final = {
    "^amqps?://": "a URL like amqp://user:password@host:5672/ or amqps://…",
    "^(rediss?([+](sentinel|cluster))?|unix)://": (
        "a URL like redis://host:6379/0, or one that begins with rediss://, redis+sentinel://, redis+cluster:// or unix://"
    ),
    "^https?://": "a URL like http://user:password@host:8080",
}
_PATTERN: Final = re.compile(r"Expected `str` matching regex '([^']*)'")


def explained(error: msgspec.ValidationError, kind: type[Struct]) -> str:
    """Says what is wrong in this Struct, and which keys there are where one is unknown.

    Turns msgspec's ``… - at `$.worker.in_flight``` into ``worker.in_flight: …``.
    """
    what, _, where = str(error).partition(" - at `$")
    if words := choices(str(error), kind):
        what += f"; expected one of {', '.join(words)}"
    what = _PATTERN.sub(lambda found: f"expected {_FORMS.get(found[1], found[0])}", what)
    where = where.rstrip("`").lstrip(".")
    if "unknown field" in what:
        for name in filter(None, _ENTRY.sub("", where).split(".")):
            kind = next(_structs(get_type_hints(kind)[name]), kind)
        what += f"; expected one of {', '.join(field.encode_name for field in msgspec.structs.fields(kind))}"
    return f"{where}: {what}" if where else what


def choices(error: str, kind: type[Struct]) -> tuple[str, ...]:
    """The words that may stand where an error of msgspec's says that one is none of them; else none."""
    what, _, where = error.partition(" - at `$")
    if "Invalid enum value" not in what:
        return ()
    hint: Any = kind
    for name in filter(None, _ENTRY.sub("", where.rstrip("`")).split(".")):
        inside = next(_structs(hint), None)
        hint = None if inside is None else get_type_hints(inside).get(name)
    return tuple(_words(hint))


def _words(hint: Any) -> Iterator[str]:
    """The texts of the Literals in a type."""
    for part in get_args(hint):
        if get_origin(hint) is Literal:
            yield str(part)
        else:
            yield from _words(part)


def _structs(hint: Any) -> Iterator[type[Struct]]:
    """The Structs in a field's type: in a dict, or with None beside it."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        yield hint
    for part in get_args(hint):
        yield from _structs(part)
