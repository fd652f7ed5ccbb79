"""The bodies of answers, from their arrival until their readers have taken them, and how much memory they may hold.

A reader has some time for its answer (`connections.py`), and one caller may have many readers. So what is held for
them is bounded in bytes, each caller has a part of it, and equal answers are held once.
"""

import base64
import sys
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

from msgspec import Struct

from ..runtime.room import Room
from . import metrics

# What all callers' answers may hold together, in memory and as they came: most long ones are compressed.
ROOM_BYTES: Final = 128 * 1024 * 1024
# A body is sent in pieces of this size, so that no answer is held whole and unpacked.
PIECE_BYTES: Final = 64 * 1024
# What a reader of more than a piece holds beside the body, as measured: pieces that wait to be sent, one that is
# unpacked, and what unpacks it.
READER_BYTES: Final = 4 * PIECE_BYTES
# As much of a compressed body is unpacked at a time: zlib copies what it leaves over.
_FED_BYTES: Final = 16 * 1024


class Body(Struct, frozen=True):
    """A body as it is held.

    Args:
        held: its bytes, or what they are compressed to.
        is_packed: whether they are compressed, by gzip.
    """

    held: bytes
    is_packed: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """The body of an exchange's answer to the letter (`docs/messages.md`, HTTP calls)."""
        packed = data.get("body_gzip")
        return cls(str(data["body"]).encode()) if packed is None else cls(base64.b64decode(packed), is_packed=True)

    @property
    def length(self) -> int:
        """How many bytes are sent."""
        return int.from_bytes(self.held[-4:], "little") if self.is_packed else len(self.held)  # RFC 1952: at the end

    def pieces(self) -> Iterator[bytes | memoryview]:
        """What is sent."""
        if self.is_packed:
            return _unpacked(self.held)
        whole = memoryview(self.held)
        return (whole[start : start + PIECE_BYTES] for start in range(0, len(whole), PIECE_BYTES))


class Sending:
    """What is held of one caller's answers.

    Args:
        caller: whose they are.
        most_bytes: how much that may be. An answer that is larger is held alone.
    """

    def __init__(self, caller: str, most_bytes: int) -> None:
        self._room = Room(sys.maxsize, most_bytes)
        self._readers: dict[Body, tuple[Body, int]] = {}
        self._bytes = metrics.SENDING_BYTES.labels(caller)

    def resize(self, most_bytes: int) -> None:
        """Takes another bound; what is held beyond it stays."""
        self._room.resize(sys.maxsize, most_bytes)

    async def opened(self) -> None:
        """Returns when there is some room: what is asked for before that may have none."""
        await self._room.opened()

    @contextmanager
    def held(self, body: Body) -> Generator[Body | None, None, None]:
        """Holds a body inside the `with` block, and gives the one to send; None where there is no room for it.

        A short one always has room: the buffers of its connection may hold as much.
        """
        if not body.is_packed and len(body.held) <= PIECE_BYTES:
            yield body
            return
        body, readers = self._readers.get(body, (body, 0))
        if not self._take(READER_BYTES + (0 if readers else len(body.held))):
            yield None
            return
        self._readers[body] = (body, readers + 1)
        try:
            yield body
        finally:
            _, readers = self._readers.pop(body)
            if readers > 1:
                self._readers[body] = (body, readers - 1)
            self._give(READER_BYTES + (0 if readers > 1 else len(body.held)))

    def _take(self, size_bytes: int) -> bool:
        if taken := self._room.take_now(size_bytes):
            self._bytes.inc(size_bytes)
        return taken

    def _give(self, size_bytes: int) -> None:
        self._room.give(size_bytes)
        self._bytes.dec(size_bytes)


def _unpacked(packed: bytes) -> Iterator[bytes]:
    unpacking = zlib.decompressobj(wbits=31)
    for start in range(0, len(packed), _FED_BYTES):
        left = packed[start : start + _FED_BYTES]
        while piece := unpacking.decompress(left, PIECE_BYTES):
            yield piece
            left = unpacking.unconsumed_tail
