"""Stands for ``import ccxt``: the same names, and classes whose public calls the fleet makes."""

import importlib
from typing import Any

import ccxt as _theirs  # pyright: ignore[reportMissingTypeStubs]

from .classes import OURS, contents

globals().update(contents(_theirs))


def __getattr__(name: str) -> Any:
    """Ours in place of ccxt's `async_support` and `pro`, once a program asks for them; else what ccxt has got since."""
    if name in OURS:
        return importlib.import_module(f".{OURS[name]}", __package__)
    return getattr(_theirs, name)
