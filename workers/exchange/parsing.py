"""Parses JSON of many megabytes in steps, none of which holds up the event loop for long.

`json.loads` holds the interpreter's lock (the GIL) until it is done, in whatever thread it runs: 16 MB of small lists
stop everything else for 1 to 3 s. So a long text is parsed a window at a time. The decoder in C reads values that lie
within the window; longer ones are read in Python. Between two values another thread may take the lock.
"""

import json
import re
from typing import Any, Final, TypeAlias

from .rows import Rows

# Characters that the decoder in C gets at once: 1 to 3 ms of small lists.
WINDOW: Final = 32 * 1024
# Real answers are nested about ten deep. Below that windows are smaller, as each may be read in vain. Python 3.14's
# decoder goes as deep as the stack: 32 KiB of `[` take it about 3 ms, and 500 levels held a worker up for 5 s.
_DEEP: Final = 10
_DEPTH_LIMIT: Final = 100
_SPACE: Final = re.compile(r"[ \t\n\r]*").match
# Characters that may follow a value.
_ENDS: Final = frozenset(" \t\n\r,]}:")

Decoder: TypeAlias = json.JSONDecoder


class _Text:
    """A text, and the window of it that is being read."""

    def __init__(self, text: str, decoder: Decoder, rows: Rows) -> None:
        self.text = text
        self.rows = rows
        self.decoder = decoder
        self.scan: Any = getattr(decoder, "scan_once")  # noqa: B009 (what `raw_decode` calls, without its own call)
        self.start = 0
        self.window = text[:WINDOW]

    def skip(self, at: int) -> int:
        """The index of the next character that is no white space."""
        match = _SPACE(self.text, at)
        assert match is not None
        return match.end()

    def value(self, at: int, depth: int = 0) -> tuple[Any, int]:
        """The value that begins here, and the index where it ends."""
        for fresh in (False, True):
            if fresh:
                size = WINDOW if depth < _DEEP else WINDOW // 16 + 1
                self.start, self.window = at, self.text[at : at + size]
            if not self.start <= at < self.start + len(self.window):
                continue
            try:
                value, end = self.decoder.raw_decode(self.window, at - self.start)
            except ValueError:
                continue  # the window's end cuts it off, or it is wrong
            # A number that the window cuts off looks like another number.
            if self.start + end == len(self.text) or self.window[end : end + 1] in _ENDS:
                return value, self.start + end
        opening = self.text[at : at + 1]
        if depth > _DEPTH_LIMIT:
            raise RecursionError("JSON is nested too deep")
        if opening == "[":
            return self.array(at + 1, depth + 1)
        if opening == "{":
            return self.object(at + 1, depth + 1)
        return self.decoder.raw_decode(self.text, at)

    def array(self, at: int, depth: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at = self.skip(at)
        if self.text[at : at + 1] == "]":
            return values, at + 1
        while True:
            at, ended = self.run(values, at)
            self.rows.check_one(len(values))
            if ended:
                return values, at
            value, at = self.value(self.skip(at), depth)
            values.append(value)
            at = self.skip(at)
            follows = self.text[at : at + 1]
            if follows == "]":
                return values, at + 1
            if follows != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter", "", 0)
            at = self.skip(at + 1)

    def run(self, values: list[Any], at: int) -> tuple[int, bool]:
        """Adds the values of an array that lie in the window.

        Returns:
            The index where the next value begins, or where the array ends; and whether it ends there.
        """
        scan, window, start = self.scan, self.window, self.start
        at -= start
        if at < 0:
            return start + at, False
        try:
            while True:
                value, end = scan(window, at)
                follows = window[end]
                if follows == "]":
                    values.append(value)
                    return start + end + 1, True
                if follows != ",":
                    break  # white space, or wrong
                after = end + 2 if window[end + 1] == " " else end + 1
                values.append(value)
                at = after
        except (ValueError, StopIteration, IndexError):
            pass  # white space, or wrong, or the window ends
        return start + at, False

    def object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        at = self.skip(at)
        if self.text[at : at + 1] == "}":
            return values, at + 1
        while True:
            if self.text[at : at + 1] != '"':
                raise json.JSONDecodeError("Expecting property name enclosed in double quotes", "", 0)
            name, at = self.value(at, depth)
            at = self.skip(at)
            if self.text[at : at + 1] != ":":
                raise json.JSONDecodeError("Expecting ':' delimiter", "", 0)
            values[name], at = self.value(self.skip(at + 1), depth)
            self.rows.check_one(len(values))
            at = self.skip(at)
            follows = self.text[at : at + 1]
            if follows == "}":
                return values, at + 1
            if follows != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter", "", 0)
            at = self.skip(at + 1)


def loads(text: str, decoder: Decoder, rows: Rows) -> Any:
    """Returns what `decoder.decode` would. Call it in a thread of its own.

    Args:
        text: JSON.
        decoder: makes the values.
        rows: the most of them; a single list or object beyond it is found early, the rest by `Rows.check`.

    Raises:
        TooLarge: it has more rows.
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    reader = _Text(text, decoder, rows)
    value, end = reader.value(reader.skip(0))
    if reader.skip(end) != len(text):
        raise json.JSONDecodeError("Extra data", "", 0)
    return value
