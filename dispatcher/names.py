"""Which lanes the names in a request stand for: a lane's own name, an exchange's, or a group's. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from schemas import old_names
from schemas.config import Config
from schemas.messages import ErrorCode, Request

from . import slips
from .health import LaneHealth
from .listings import Lack

# The most answers of `Names.able` that are cached.
CHOICES_KEPT: Final = 1_000


class Able(NamedTuple):
    """The lanes that a request names and that have its method."""

    lanes: Sequence[LaneHealth]
    names: Sequence[str]


class Names:
    """The names of one configuration.

    Args:
        config: the lanes and groups.
        health: the lanes, by name.
    """

    def __init__(self, config: Config, health: Mapping[str, LaneHealth]) -> None:
        self._lanes, self._groups, self._health = config.lanes, config.groups, health
        self._by_exchange: dict[str, list[str]] = {}
        for name, lane in config.lanes.items():
            self._by_exchange.setdefault(lane.known_as, []).append(name)
        self._able: dict[tuple[str, ...], Able] = {}

    def forget(self) -> None:
        """A lane's methods have changed."""
        self._able.clear()

    def able(self, request: Request) -> Able | Lack:
        """The lanes that a request names and that have its method, in its order."""
        key = request.method, request.account or "", *request.exchanges
        if known := self._able.get(key):
            return known
        able = self._find(request)
        # Only bounded keys are cached. Unknown names could be any, and a list with repetitions of any length.
        if isinstance(able, Able) and len(request.exchanges) <= len(self._health):
            if len(self._able) >= CHOICES_KEPT:
                self._able.clear()
            self._able[key] = able
        return able

    def lanes(self, name: str) -> Sequence[str]:
        """The lanes that a name stands for; empty where it is unknown."""
        name = self.today(name)
        if name in self._health:
            return [name]
        if name in self._groups:
            return [lane for each in self.members(name) for lane in self.lanes(each)]
        return self._by_exchange.get(name, [])

    def today(self, name: str) -> str:
        """A name, or today's where it is the old one of an exchange, and no lane or group has it."""
        return name if name in self._health or name in self._groups else old_names.today(name)

    def members(self, name: str) -> Sequence[str]:
        """The exchanges of a group; of any other name, itself."""
        return self._groups[name].exchanges if name in self._groups else [name]

    def _find(self, request: Request) -> Able | Lack:
        # A request that names no exchange gets no data of a testnet, unless the fleet has nothing else.
        names = [name for name in self._health if not self._lanes[name].sandbox] or list(self._health)
        if request.exchanges:
            names.clear()
            for named in request.exchanges:
                wanted = self.today(named)
                found = self.lanes(wanted)
                if request.account is not None:  # a lane may bear its exchange's name: all lanes of that are meant
                    found = [*found, *self._by_exchange.get(wanted, [])]
                if not found:
                    return Lack(ErrorCode.UNKNOWN_EXCHANGE, self._unknown(named))
                names += [name for name in found if name not in names]
        if request.account is not None:
            having = [name for name in names if self._lanes[name].account == request.account]
            if not having:
                text = f"none of {', '.join(names)} has the account {request.account!r}"
                return Lack(ErrorCode.UNKNOWN_EXCHANGE, text)
            names = having
        able = [lane for lane in map(self._health.__getitem__, names) if _has(lane, request.method)]
        if not able:
            return Lack(ErrorCode.NOT_SUPPORTED, f"none of {', '.join(names)} has {request.method!r} in ccxt")
        return Able(able, [lane.name for lane in able])

    def _unknown(self, name: str) -> str:
        known = sorted({*self._health, *self._by_exchange, *self._groups})
        remark = f" ({said})" if (said := old_names.remark(name)) else slips.exchange(name, known)
        goes_on = " This" if remark.endswith("?") else "; this"
        return f"no lane reaches {name!r}{remark}{goes_on} fleet has {', '.join(known)}"


def _has(lane: LaneHealth, method: str) -> bool:
    return lane.methods is None or method in lane.methods
