"""Health probes for lanes whose requests do not show how they are. Pure.

Mostly requests show it: by their outcomes, and as trials of a lane that is set aside. So a probe goes to a lane that
has been idle for a while, whose trial is due while no suitable request comes, or whose requests all fail by their own
fault.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from schemas.messages import Attempt, Request

from .circuit import State
from .health import QUESTIONS, LaneHealth

# A probe that only has to find out whether an exchange answers asks for the time, if it can. A status may have next to
# no budget (OKX allows one in 5 s), and a trial without budget delays the lane's return.
_SHORT_QUESTIONS: Final = QUESTIONS[::-1]
# A probe that finds no budget within this time is not needed: requests use up the lane's budget.
MAX_WAIT_MS: Final = 500.0


class Probe(Struct, frozen=True):
    """A probe that is due.

    Args:
        lane: where it goes.
        method: the ccxt method that it calls.
        every_s: no other dispatcher sends one to this lane for so long.
    """

    lane: str
    method: str
    every_s: float


def due(lanes: Mapping[str, LaneHealth], now_s: float, now_ms: int) -> list[Probe]:
    """The probes that are due."""
    probes: list[Probe] = []
    for name, lane in lanes.items():
        if lane.silent(now_s) or lane.paused_until_ms > now_ms or lane.methods is None:
            continue
        every_s = lane.probe_every_s(now_s)
        answers = (lane.serving and not lane.unproven(now_s)) or lane.state(now_s) is State.MAINTENANCE
        questions = QUESTIONS if answers else _SHORT_QUESTIONS
        method = next((method for method in questions if method in lane.methods), None)
        if every_s is not None and method is not None:
            probes.append(Probe(name, method, every_s))
    return probes


def attempt(probe: Probe, now_ms: int, timeout_s: float, *, trial: bool) -> Attempt:
    """A probe as an attempt. It gets no result; only reports show how it ended."""
    deadline_ms = now_ms + int(timeout_s * 1000)
    request = Request(probe.method, id=f"probe-{probe.lane}-{now_ms}", exchanges=[probe.lane], deadline_ms=deadline_ms)
    return Attempt(request, probe.lane, 1, now_ms, max_wait_ms=MAX_WAIT_MS, trial=trial, probe=True)
