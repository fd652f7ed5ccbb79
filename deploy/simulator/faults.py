"""Faults that a simulated exchange can have, set over the control port."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Span = Annotated[float, msgspec.Meta(ge=0)]


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer word for word."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 200
    body: str = ""
    content_type: str = "application/json"
    headers: dict[str, str] = {}


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wrong with an exchange; all at their defaults mean nothing is. Unknown keys are refused."""

    down: Literal["refused", "reset"] | None = None
    """`refused`: nothing listens; `reset`: connections are accepted and cut off."""
    latency_ms: Span = 0
    """Every answer is this late, by the machine's own time."""
    latency_jitter_ms: Span = 0
    """Up to this much more, evenly drawn from the seed."""
    error_rate: Share = 0.0
    """The share of requests answered 500 or 503 in the exchange's way, drawn from the seed."""
    garbage: Literal["html", "truncated", "empty", "redirect"] | None = None
    """HTTP 200 with an HTML page, a body cut short, or none; or a 302 to such a page."""
    maintenance: bool = False
    """The exchange's own way to say so; its status endpoint still answers."""
    ban_s: Span = 0
    """Every address is banned for so long, from the moment this is set."""
    hang: bool = False
    """Requests are read and never answered."""
    held: bool = False
    """Answers wait until this is off again."""
    hangs_up: bool = False
    """A connection's second request is not answered, but ends it: so it looks where an exchange took it for idle."""
    unlisted: tuple[str, ...] = ()
    """Coins it does not list for now, `("SOL",)`; without this they are new listings."""
    said: dict[str, Said] = {}
    """What is answered to requests whose target holds this text, `{"books?instId=SOL-": Said(status=404)}`. Others are
    answered as usual: so it is a fault of one symbol, endpoint or parameter."""


HEALTHY = Faults()
HTML = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body><h1>Attention</h1></body></html>"
REDIRECT_TO = "/error.html"
