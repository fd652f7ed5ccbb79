"""Which way a call goes: to the fleet, out of this program and charged, or not at all."""

import logging
import os
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from ccxt.base.errors import NotSupported  # pyright: ignore[reportMissingTypeStubs]

from schemas.errors import ConfigError

from . import settings

log = logging.getLogger(__name__)

if TYPE_CHECKING:

    class _Ccxt:
        id: str

        def check_required_credentials(self, error: bool) -> bool: ...

else:
    _Ccxt = object

# The instance whose HTTP call is being made for it by the fleet; None for a call that this program sends itself.
CALLER: Final[ContextVar[Any]] = ContextVar("caller", default=None)
# Why the call that is being made is not sent; empty where it is.
REFUSED: Final[ContextVar[str]] = ContextVar("refused", default="")
# Whether markets are being loaded that the instance has not, for which an older answer will do.
LOADING: Final[ContextVar[bool]] = ContextVar("loading", default=False)
# Whether the call that is being made is sent by this program, and charged.
DIRECT: Final[ContextVar[bool]] = ContextVar("direct", default=False)

_paced: Final = list[str]()
_making: Final = [threading.Lock()]
_twins: Final["weakref.WeakKeyDictionary[Any, Any]"] = weakref.WeakKeyDictionary()


def _of_a_fork() -> None:
    _making[0] = threading.Lock()  # somebody may have held it


os.register_at_fork(after_in_child=_of_a_fork)


def refusal(exchange: Any) -> str:
    """Why a call of an instance that is no public read is not sent, and what to do; empty where it is, and charged."""
    if settings.of(exchange).private == "direct":
        return ""
    return (
        "not sent: it is none of the public reads that the fleet makes. With FLEET_PRIVATE=direct in the environment, "
        'or {"fleet": {"private": "direct"}} in the class\'s configuration, this program sends such calls itself, with '
        "its own keys, charged to the fleet's budgets"
    )


def refuse(exchange: Any, method: str, url: str) -> None:
    """Raises NotSupported where the call that is being made is refused. What is signed stays out of the text."""
    if why := REFUSED.get():
        raise NotSupported(f"{exchange.id} {method} {str(url).partition('?')[0]} {why}")


def twin_of(exchange: Any) -> Any:
    """The instance's twin, if it has one."""
    return _twins.get(exchange)


def twin(exchange: Any) -> Any:
    """The same instance with every call charged: its state is the instance's own, its class is `direct`'s.

    Raises:
        ConfigError: it can't be charged: see `direct.charged`.
    """
    try:
        from ..direct import charged  # noqa: PLC0415 (needs what public calls do not)
    except ImportError as error:
        text = f"{exchange.id}: private calls by this program itself need more: pip install 'ccxt-fleet[services]'"
        raise ConfigError(f"{text} ({error})") from error
    with _making[0]:
        if exchange not in _twins:
            said = settings.of(exchange)
            whole: Any = object.__new__(exchange.__class__)
            whole.__dict__ = exchange.__dict__
            before = {name: whole.__dict__.get(name) for name in ("session", "own_session")}
            whole.session, whole.own_session = None, True  # charged calls have connections of their own
            whole.__dict__.pop("egress", None)  # of a twin that was closed
            try:
                whole = charged(whole, said.redis, local_addr=said.local_addr)
            except Exception:
                whole.__dict__.update(before)
                raise
            kind: Any = whole.__class__  # nobody else has it: copies of the instance begin without a purse
            kind.purse = whole.__dict__.pop("purse")
            _twins[exchange] = whole
    return _twins[exchange]


def forget_twin(exchange: Any) -> Any:
    """The instance's twin, if it has one, which it has no longer."""
    return _twins.pop(exchange, None)


class Session:
    """Stands for an instance's session: what ccxt sends with it goes to the fleet. All else is the session's own.

    Args:
        own: the session.
    """

    def __init__(self, own: Any) -> None:
        self.own = own

    def __getattr__(self, name: str) -> Any:
        if name == "own":  # while it is copied
            raise AttributeError(name)
        return getattr(self.own, name)


class Fleets(_Ccxt):
    """What async classes and blocking ones share of those whose public calls the fleet makes."""

    def check_required_credentials(self, error: bool = True) -> bool:
        """Called by ccxt where it chooses between a public call and a private one, too: keys are of use if they are."""
        return super().check_required_credentials(error) and (error or not refusal(self))

    def paced(self) -> None:
        """Called before each call where `enableRateLimit` says so: the fleet paces calls, for all programs together."""
        if not _paced:
            _paced.append(self.id)
            log.info("ccxt-fleet paces the calls to %s and all others: enableRateLimit is ignored", self.id)
