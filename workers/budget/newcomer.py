"""When a worker that is new to a Redis may believe what that says of the others.

By Redis's clock the others look present or away, and what they were granted looks long past or not. Who has just met
Redis can't know whether its clock was set before: a step back makes those that are on their shares look present, a step
ahead makes what was granted look past. Those that were there before it know. Redis runs nothing by a clock that they
rule out, and they renew their leases with every answer. So a newcomer is granted nothing until

- the lease of another one has moved since its own first answer;
- or no other one looks present any more, and each that can be reached has had time to say that it is there;
- or nobody is known, but for those that are dead and look it, and others that Redis may have forgotten have had time
  to come back.

Its own lease begins then: it vouches for nobody before. Pure: the clock is an argument, seconds.
"""

from collections.abc import Iterable

from msgspec import Struct

from .rules import IS_PRESENT, PRESENT_S


class Other(Struct, frozen=True):
    """Another worker, as the answer to a beat has it.

    Args:
        id: its name.
        lease_us: its lease, by Redis's clock; 0 where it has none yet.
        is_present: it does not count as away.
    """

    id: str
    lease_us: int
    is_present: bool


def read(said: bytes) -> Other:
    """Reads ``<id> <lease> <IS_PRESENT, or when its part is given back>``."""
    name, lease, drops = said.decode().split()
    return Other(name, int(lease), drops == IS_PRESENT)


class Newcomer:
    """A worker from its first answer on; it stays sure once it is."""

    def __init__(self) -> None:
        self.is_sure = False
        self._met_s: float | None = None
        # The leases of the others at our first answer.
        self._leases: dict[str, int] = {}

    def told(self, others: Iterable[Other], now_s: float, *, closed: bool) -> None:
        """Takes in the answer to a beat.

        Args:
            others: those that are not known to be dead.
            now_s: when it came.
            closed: others that Redis may have forgotten have time to come back: they know the clock.
        """
        others = list(others)
        if self._met_s is None:
            self._met_s = now_s
            self._leases = {other.id: other.lease_us for other in others}
        had_time = now_s >= self._met_s + PRESENT_S
        self.is_sure = not closed and (
            not others
            or any(other.lease_us > self._leases.get(other.id, 0) for other in others)
            or (had_time and not any(other.is_present for other in others))
        )
