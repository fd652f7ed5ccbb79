"""Stands for ``import ccxt.async_support``: the same names, and classes whose public calls the fleet makes."""

from typing import TYPE_CHECKING, Any

import ccxt.async_support as _theirs  # pyright: ignore[reportMissingTypeStubs]

from .classes import contents

globals().update(contents(_theirs))

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
