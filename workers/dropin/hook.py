"""Puts the fleet below ccxt's own classes, as their modules are loaded: for programs that ``ccxt-fleet run`` starts."""

from types import ModuleType
from typing import Any

from . import awaited, blocking


def lead(module: ModuleType) -> None:
    """Replaces the class that all exchanges of a module of ccxt are made of, before any is.

    Args:
        module: ``ccxt.base.exchange`` or ``ccxt.async_support.base.exchange``.
    """
    theirs: Any = vars(module)["Exchange"]
    calls = blocking.FleetCalls if theirs.synchronous else awaited.FleetCalls
    vars(module)["Exchange"] = type("Exchange", (calls, theirs), {"__module__": module.__name__})
