"""Which lanes can't meet a request's deadline, and so which requests are refused at once. Pure."""

from collections.abc import Sequence
from typing import TypeVar

from .strategies import Choice

C = TypeVar("C", bound=Choice)


def in_time(lanes: Sequence[C], left_ms: float) -> list[C]:
    """The lanes that may answer one more before its deadline.

    A lane whose backlog is not known (see `Choice.backlog_ms`) may do it. A request that is refused at once can be
    asked elsewhere; one that waits in vain until its deadline makes those after it wait too.

    Args:
        lanes: all that could answer it.
        left_ms: until its deadline.
    """
    return [lane for lane in lanes if lane.backlog_ms <= left_ms]
