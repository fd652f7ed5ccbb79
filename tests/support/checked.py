"""The rows of `docs/checked.md`, as the tests that hold them read them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "checked.md"
LIMITS: Final = ["exchange", "call", "published", "before", "charged now", "source"]
REFUSALS: Final = ["exchange", "answer", "before", "now", "next", "pause", "learned"]


class Limit(NamedTuple):
    """A call, and what it is charged."""

    exchange: str
    call: str
    charged: str


class Refusal(NamedTuple):
    """An answer, and what it comes to: a code, who gets the request next, a pause, whether a limit is learned."""

    exchange: str
    status: int
    body: str
    code: str
    move: str
    pause_s: float
    learned: bool


def limits() -> list[Limit]:
    """The rows of limits."""
    return [Limit(exchange, call.strip("`"), charged) for exchange, call, _, _, charged, _ in _rows(LIMITS)]


def refusals() -> Iterator[Refusal]:
    """The rows of refusals."""
    for exchange, answer, _, code, move, pause, learned in _rows(REFUSALS):
        status, _, body = answer.strip("`").partition(" ")
        pause_s = 0.0 if pause == "none" else float(pause.removesuffix(" s"))
        yield Refusal(exchange, int(status), body, code.strip("`"), move.strip("`"), pause_s, learned == "yes")


def _rows(head: list[str]) -> Iterator[list[str]]:
    """The rows of all tables with this head."""
    inside = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if inside and cells and cells[0] != "---":
            yield cells
        inside = bool(cells) and (inside or cells == head)
