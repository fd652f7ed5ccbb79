"""Reads workers' reports, those of lanes at rest without reading the same again."""

from typing import Any, Final

from msgspec import NODEFAULT, Raw, defstruct, msgpack, structs

from schemas.messages import decode_with
from schemas.reports import LaneReport, Report

# A report whose lanes are not read yet.
_UNREAD: Final = msgpack.Decoder[Any](
    defstruct(
        "Unread",
        [
            (each.name, Raw if each.name == "lanes" else each.type)
            if each.required
            else (each.name, each.type, dict(each.default_factory()) if each.default is NODEFAULT else each.default)
            for each in structs.fields(Report)
        ],
    )
)
_LANES: Final = msgpack.Decoder(list[LaneReport])
# A worker that is not among so many is read in full each time.
_KEPT: Final = 256


class ReportReader:
    """Reads the reports of many workers. A worker at rest lists the same lanes with the same words again and again.

    Such a list is read once, and is the same object in each of its reports. Lists with methods are large, and not kept.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[bytes, list[LaneReport]]] = {}

    def read(self, body: bytes) -> Report:
        """Reads a report; raises msgspec.DecodeError if it is none."""
        unread = decode_with(_UNREAD, body)
        lanes_body = bytes(unread.lanes)
        last = self._last.get(unread.worker)
        lanes = last[1] if last is not None and last[0] == lanes_body else decode_with(_LANES, lanes_body)
        if unread.whole and not any(lane.methods for lane in lanes):
            self._last.pop(unread.worker, None)
            self._last[unread.worker] = lanes_body, lanes
            if len(self._last) > _KEPT:
                del self._last[next(iter(self._last))]
        fields: dict[str, Any] = structs.asdict(unread)
        fields["lanes"] = lanes
        return Report(**fields)
