"""Costs that depend on a parameter of the call: its value, its size, or the stretch of time it asks for. Pure."""

import math

from msgspec import Struct

from . import wire
from .answers import Positive
from .wire import Sent


class Bars(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a call costs on top, for the candles (bars) in a stretch of time: the exchange charges for what it returns.

    What is returned is not known before, but what may be returned is. A parameter within an object is named
    ``object.parameter``.

    Args:
        since: the parameter with the start, in Unix milliseconds.
        until: the parameter with the end, likewise.
        bar: the parameter with the length of a bar, as in ``15m``.
        most: the most bars that are returned, and so the number where a parameter can't be read.
        per: for how many bars one is added.
    """

    since: str
    until: str
    bar: str
    most: Positive
    per: Positive

    @property
    def reads(self) -> tuple[str, ...]:
        """The parameters that it depends on."""
        return (self.since, self.until, self.bar)

    def cost_of(self, sent: Sent) -> float:
        """What a call with these parameters costs on top."""
        stretch_ms = wire.stretch_ms(sent, self.since, self.until)
        bar_ms = wire.bar_ms(sent, self.bar)
        # Both ends may be bars.
        bars = self.most if stretch_ms is None or bar_ms is None else min(stretch_ms / bar_ms + 1, self.most)
        return math.ceil(bars / self.per)


class Case(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A cost for calls that have a parameter: any value of it, some values, or values up to some size.

    A parameter may be unreadable: empty, there twice, or no number or list though one is expected. It may mean anything
    then, so the rule's dearest cost holds.

    Args:
        param: the parameter.
        cost: the cost of such a call.
        equals: the values for which the case holds.
        at_most: the largest number, or length of a list, for which the case holds; any when None.
        each: the cost is for each item, up to the rule's own cost.
        bars: what the call costs on top for what it returns.
        from_params: ccxt never sends the parameter there; producers name it in their `params`. Otherwise a name that
            ccxt does not send is taken for a slip (`effect`).
    """

    param: str
    cost: Positive
    equals: tuple[str, ...] = ()
    at_most: float | None = None
    each: bool = False
    bars: Bars | None = None
    from_params: bool = False

    @property
    def wrong(self) -> str:
        """What contradicts itself, and what is expected instead; empty if nothing does."""
        if self.equals and (self.each or self.at_most is not None):
            return "equals: expected neither `at_most` nor `each` beside it"
        if self.each and self.at_most is not None:
            return "at_most: expected no `each` beside it"
        if self.at_most is not None and self.at_most < 1:
            return "at_most: expected at least 1, which is the least number, and the shortest list"
        return "bars: expected no `each` beside it" if self.bars and self.each else ""

    def covers(self, other: "Case") -> bool:
        """Whether it holds wherever another one would."""
        if self.param.casefold() != other.param.casefold():
            return False
        if self.equals:
            return bool(other.equals) and set(other.equals) <= set(self.equals)
        if self.at_most is None:
            return True
        return other.at_most is not None and other.at_most <= self.at_most

    @property
    def reads(self) -> tuple[str, ...]:
        """The parameters that it depends on."""
        return (self.param, *self.bars.reads) if self.bars else (self.param,)

    @property
    def dearest(self) -> float:
        """The most that a call can cost in this case."""
        return self.cost + (self.bars.cost_of(wire.NOTHING) if self.bars else 0.0)

    def cost_of(self, sent: Sent, value: str, most: float) -> float | None:
        """What a call with this value of the parameter costs, `most` at the most; None if the case does not hold."""
        if self.equals:
            if value not in self.equals:
                return None
        elif self.each or self.at_most is not None:
            size = wire.size(value)
            if size is None:
                return most
            if self.each:
                return min(most, self.cost * size)
            if self.at_most is not None and size > self.at_most:
                return None
        return self.cost + (self.bars.cost_of(sent) if self.bars else 0.0)
