"""What dispatchers tell each other of the lines for budget, so that all of them know the same lines. Pure.

Each changes its own line and tells the others what it did (`Change`), who do the same to theirs some milliseconds
later. Nothing else is needed: a change that is lost, or comes late, makes a line a little longer or shorter.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from msgspec import Struct, msgpack

from schemas.messages import Bound, Real, decode_with

# A dispatcher that has nothing to tell says so once a second.
SILENT_S: Final = 3.0

Kind: TypeAlias = Literal["room", "book", "again", "come", "back"]


class Change(Struct, frozen=True, array_like=True):
    """What was done to one line.

    Args:
        key: the bucket's, as in `Bound`.
        kind: ``room``: a worker said when there is room. ``book``: a request got a turn, ``again``: another one,
            ``come``: it came for its turn, ``back``: it went elsewhere.
        step_ms: how long its call takes of the bucket.
        caller: the request's reply address; of ``book``, ``again`` and ``come``.
        at_ms: of ``again``, when there is room; of ``come``, its turn; of ``book``, its turn where it overtakes others,
            else 0; Unix milliseconds.
        latest_ms: of ``come``, the latest turn that it has time for.
        bound: of ``room``, what the worker said.
        of_kind: of ``room``, the request's kind (`Request.kind`).
        of_subject: of ``room``, the request's subject (`Request.subject_digest`) where pairs are counted apart.
    """

    key: str
    kind: Kind
    step_ms: Real = 0.0
    caller: str = ""
    at_ms: Real = 0.0
    latest_ms: Real = 0.0
    bound: Bound | None = None
    of_kind: str = ""
    of_subject: str = ""


class Told(Struct, frozen=True):
    """One message in the channel.

    Args:
        dispatcher: whose.
        changes: each with its lane's name, in the order in which they were made.
    """

    dispatcher: str
    changes: list[tuple[str, Change]] = []


_TOLD: Final = msgpack.Decoder(Told)


def decode_told(body: bytes) -> Told:
    """Reads a message; raises msgspec.DecodeError if it is none."""
    return decode_with(_TOLD, body)


class Tellers:
    """The other dispatchers that tell what they do.

    Args:
        name: this dispatcher's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._at_s: dict[str, float] = {}

    def take(self, told: Told, now_s: float) -> Sequence[tuple[str, Change]]:
        """A message came; returns what another dispatcher did."""
        if told.dispatcher == self._name:
            return ()
        self._at_s[told.dispatcher] = now_s
        return told.changes

    def count(self, now_s: float) -> int:
        """How many there are. One that says nothing for `SILENT_S` is gone, or of a version that tells nothing."""
        self._at_s = {name: at_s for name, at_s in self._at_s.items() if now_s - at_s <= SILENT_S}
        return len(self._at_s)
