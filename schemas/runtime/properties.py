"""Reads AMQP properties leniently: a property that can't be decoded counts as not set.

pamqp decodes text as UTF-8 and a timestamp as a date, and raises where that fails; aiormq then drops the connection.
RabbitMQ checks neither. So one message with an id in Latin-1 or a timestamp in nanoseconds would bring down every
consumer that gets it, again and again, until the messages around it have used up their delivery limit (aiormq 7.2.4,
RabbitMQ 3.10.8).
"""

from typing import Any, Final

from pamqp import decode
from pamqp.header import ContentHeader

_strict: Final[Any] = ContentHeader.unmarshal


def _length(kind: str, data: bytes) -> int:
    """How many bytes a property takes (AMQP 0-9-1, section 4.2.5)."""
    match kind:
        case "shortstr":
            return 1 + data[0]
        case "table":
            return 4 + int.from_bytes(data[:4])
        case "timestamp":
            return 8
        case _:
            return 1


def _unmarshal(self: Any, data: bytes) -> None:
    try:
        _strict(self, data)
    except (ValueError, OverflowError, OSError, RecursionError):
        offset, flags = self._get_flags(data[12:])
        rest = data[12 + offset :]
        for name in self.properties.__slots__:
            if flags & self.properties.flags[name] and rest:
                kind: str = getattr(self.properties, "_" + name)
                try:
                    value = decode.by_type(rest, kind)[1]
                except (ValueError, OverflowError, OSError, RecursionError):
                    value = None
                setattr(self.properties, name, value)
                rest = rest[_length(kind, rest) :]


def read_leniently() -> None:
    """From now on, in this process, a property that can't be decoded counts as not set and ends no connection."""
    setattr(ContentHeader, "unmarshal", _unmarshal)  # noqa: B010 (type checkers refuse the plain assignment)
