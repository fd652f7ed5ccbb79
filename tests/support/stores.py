"""What keeps the budgets: Redis as this machine has it, and Valkey from a wheel.

A module marked `both_stores` runs on both.
"""

from pathlib import Path
from typing import Final

from deploy.servers import REDIS_PROGRAMS, find_program, packed_valkey

# Their programs; None where the machine has none: `Redis` takes Docker's then.
STORES: Final[dict[str, Path | None]] = {"redis": find_program(*REDIS_PROGRAMS), "valkey": packed_valkey()}
