"""Text that is nearly JSON: what is wrong with it, and the object that is meant, for the id and method in it. Pure.

RFC 8259 has no comments, no comma before a closing bracket, no words but true, false and null, and texts in double
quotes alone. Programs that write JSON by hand, or for JavaScript, do otherwise.
"""

import re
from typing import Final, NamedTuple

from schemas.encodings import BYTE_ORDER_MARK

# A longer body is not looked at: that would hold up the requests of others.
LONGEST_BYTES: Final = 8 * 1024
# Each part ends somewhere even if its own end is missing, so that every byte is read once.
_PARTS: Final = re.compile(
    rb"""(?P<text>"[^"\\]*(?:\\.[^"\\]*)*"?)
    |(?P<quoted>'[^'\\]*(?:\\.[^'\\]*)*'?)
    |(?P<comment>//[^\n]*|\#[^\n]*|/\*(?:.*?\*/|.*))
    |(?P<open>[\[{])
    |(?P<close>[\]}])
    |(?P<comma>,)
    |(?P<number>[-+]?[0-9.][0-9.eE+-]*)
    |(?P<word>[-+]?[^\W\d][\w$]*)
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_BEGINS: Final = re.compile(rb"\s*(?:\{|//|/\*|\#)")
_KEY_ENDS: Final = re.compile(rb"\s*:")
_WORDS: Final = frozenset({b"true", b"false", b"null"})
_PYTHON_WORDS: Final = {b"True": b"true", b"False": b"false", b"None": b"null"}
SEVERAL: Final = "the body holds several objects: send each request as a message of its own"
CUT_SHORT: Final = "the body ends before its object does: it is cut short"
_QUOTES: Final = "JSON has its texts and keys in double quotes"


class NearlyJSON(NamedTuple):
    """What a body is meant to be.

    Args:
        body: an object in JSON, as far as it can be read.
        mistake: the first thing that is wrong; empty where nothing of this kind is.
    """

    body: bytes
    mistake: str


def read(body: bytes) -> NearlyJSON:
    """Reads the first object in a body; it is empty where the body does not begin like one, or is too long."""
    text = body.removeprefix(BYTE_ORDER_MARK)
    if len(text) > LONGEST_BYTES or not _BEGINS.match(text):
        return NearlyJSON(b"", "")
    reader = _Reader()
    for part in _PARTS.finditer(text):
        reader.take(part)
        if reader.closed:
            reader.end(text[part.end() :])
            break
    else:
        reader.cut_short()
    return NearlyJSON(bytes(reader.made), next(iter(reader.mistakes), ""))


class _Reader:
    """Makes JSON of parts of text.

    Attributes:
        made: what was read so far.
        mistakes: what was wrong, in its order.
        closed: whether the object is complete.
    """

    def __init__(self) -> None:
        self.made = bytearray()
        self.mistakes: list[str] = []
        self.closed = False
        self._depth = 0
        self._members = 0  # where the last complete member of the outermost object ends
        self._comma = -1  # where the last part is, if it is a comma

    def take(self, part: "re.Match[bytes]") -> None:
        kind, said = part.lastgroup, part[0]
        if kind == "comment":
            self.mistakes.append("JSON has no comments")
            return
        if said.isspace():
            return
        comma, self._comma = self._comma, -1
        if kind == "comma":
            self._comma = len(self.made)
            self._members = self._comma if self._depth == 1 else self._members
        elif kind == "open":
            self._depth += 1
        elif kind == "close":
            self._depth -= 1
            self.closed = self._depth <= 0
            if comma >= 0:
                self.mistakes.append(f"JSON has no comma before a closing {said.decode()}")
                del self.made[comma:]
        elif kind == "quoted":
            self.mistakes.append(_QUOTES)
            inner = said[1:].removesuffix(b"'").replace(b"\\'", b"'")
            said = b'"' + re.sub(rb'(?<!\\)"', rb'\\"', inner) + b'"'
        elif kind == "word":
            said = self._word(said, is_key=_KEY_ENDS.match(part.string, part.end()) is not None)
        self.made += said

    def _word(self, word: bytes, *, is_key: bool) -> bytes:
        if is_key:
            self.mistakes.append(_QUOTES)
            return b'"' + word + b'"'
        if word in _WORDS:
            return word
        self.mistakes.append(f"JSON has no {word[:40].decode(errors='replace')}: write null, or leave the field out")
        return _PYTHON_WORDS.get(word, b"null")

    def end(self, rest: bytes) -> None:
        """Notes what stands behind the object."""
        behind = [part[0] for part in _PARTS.finditer(rest) if not part[0].isspace()]
        if not behind:
            return
        if all(part.startswith((b"//", b"/*", b"#")) for part in behind):
            self.mistakes.append("JSON has no comments")
        elif behind[0] == b"{":
            self.mistakes.append(SEVERAL)
        else:
            self.mistakes.append(f"the body goes on behind its object, with {_shown(behind)}")

    def cut_short(self) -> None:
        """Keeps the members that are complete of an object that has no end."""
        if self._depth:
            self.mistakes.append(CUT_SHORT)
            del self.made[self._members or 1 :]
            self.made += b"}"


def _shown(parts: list[bytes]) -> str:
    return repr(b"".join(parts)[:20].decode(errors="replace"))
