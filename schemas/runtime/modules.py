"""Our modules by name: their own in the checkout, below `ccxt_fleet` where the package is installed.

Imports are renamed as the wheel is made (`deploy/wheel.py`). Where a string has to name a module, as for ``python -m``,
it is the name in the checkout, and goes through here.
"""

import sys
from pathlib import Path
from typing import Final

_TOP: Final = (__package__ or "").partition(".")[0]
INSTALLED: Final = _TOP != "schemas"
# Where the checkout is, which child processes start in to find our modules; None where they are installed.
CHECKOUT: Final = None if INSTALLED else Path(__file__).resolve().parents[2]
# The configuration that is shipped, which services read where none is named.
_FOLDERS: Final = Path(__file__).resolve().parents[1 if INSTALLED else 2]
FLEET_TOML: Final = _FOLDERS / "deploy" / "fleet.toml"
# The folder that leads a program's ccxt through the fleet where Python finds it first (`workers.dropin.hook`).
HOOK: Final = _FOLDERS / "workers" / "dropin" / "site"


def module(name: str) -> str:
    """A module's name here: of ``workers.limits`` it is ``ccxt_fleet.workers.limits`` where it is installed."""
    if not INSTALLED:
        return name
    folder, _, rest = name.partition(".")
    return ".".join(part for part in (_TOP, "" if folder == "schemas" else folder, rest) if part)


def command(name: str, *words: str) -> list[str]:
    """The words that run a module in a process of its own; from the folder `CHECKOUT`, where there is one.

    Where it is installed the folder that it is started in is no place to find modules (``-P``): a user may have a
    ``redis.py`` there.
    """
    return [sys.executable, *(["-P"] if INSTALLED else []), "-m", module(name), *words]
