"""Makes the modules that stand for ccxt's: all that is in those, with classes whose calls the fleet makes."""

from types import ModuleType
from typing import Any, Final

from . import awaited, blocking

# What a module has of its own.
_OWN: Final = frozenset({"__builtins__", "__cached__", "__file__", "__loader__", "__name__", "__package__", "__path__"})
# Modules of ccxt that become others: whoever asks for one of these gets ours.
OURS: Final = {"async_support": "ccxt_async", "pro": "ccxt_pro"}
_made: Final = dict[type[Any], type[Any]]()


def contents(theirs: ModuleType) -> dict[str, Any]:
    """All names of a module of ccxt, with classes of ours in place of its `Exchange` and exchanges.

    Ours have the same relations: each is a subclass of ccxt's own, and of ours where that is one of another exchange's.
    """
    found = {name: value for name, value in vars(theirs).items() if name not in {*_OWN, *OURS, "__spec__", "__doc__"}}
    for name in ("Exchange", *theirs.exchanges):
        found[name] = _of_the_fleet(getattr(theirs, name))
    return found


def _of_the_fleet(kind: type[Any]) -> type[Any]:
    if kind not in _made:
        name = kind.__name__
        below = [base for base in kind.__bases__ if hasattr(base, "fetch2") and base.__name__ != "BaseExchange"]
        bases = [_of_the_fleet(base) for base in below] if name != "Exchange" else [calls(kind)]
        where = {"__module__": f"{__package__}.{_module(kind)}", "__doc__": kind.__doc__}
        _made[kind] = type(name, (*bases, kind), where)
    return _made[kind]


def calls(kind: type[Any]) -> type[Any]:
    """What is mixed into a class of ccxt."""
    return blocking.FleetCalls if kind.synchronous else awaited.FleetCalls


def _module(kind: type[Any]) -> str:
    return OURS.get(kind.__module__.split(".")[1], "ccxt")
