"""The check of systemd's units in ``make check``: what `systemd-analyze verify` says of those in ``deploy/systemd/``.

It warns of a misspelt key and ends with 0 all the same, so every word of it counts. It wants the program that a unit
starts to be there; a file of that name stands in for it. `systemd-analyze security` gives points for what a service
might do to the machine; more than ours have today is an error.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.support.found import told

PROGRAM: Final = "systemd-analyze"
MISSING: Final = f"{PROGRAM} is not installed: run `apt-get install systemd`"
FOLDER: Final = Path(__file__).parents[2] / "deploy" / "systemd"
# Where the units look for the program.
PLACE: Final = "/opt/ccxt-fleet/bin"
# Of 100; 16 is 1.6 as it is shown (systemd 252).
MOST_EXPOSED: Final = 16


def lint(units: Iterable[Path]) -> list[str]:
    """What is wrong with these units.

    Raises:
        FileNotFoundError: there is no systemd-analyze; it names the command to install it.
    """
    if not shutil.which(PROGRAM):
        raise FileNotFoundError(MISSING)
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-units-") as name:
        folder = Path(name)
        program = folder / "ccxt-fleet"
        program.write_text("#!/bin/sh\n", encoding="ascii")
        program.chmod(0o755)
        for unit in units:
            # A template is checked as one of its instances.
            copy = folder / unit.name.replace("@.", "@9101.")
            copy.write_text(unit.read_text(encoding="utf-8").replace(PLACE, name), encoding="utf-8")
            found += _said("verify", "--man=no", str(copy), name=name)
            most = f"--threshold={MOST_EXPOSED}"
            found += [
                f"{unit.name}: {line}"
                for line in _said("security", "--offline=true", "--no-pager", most, str(copy), name=name, failed=True)
                if "Overall exposure" in line
            ]
    return found


def _said(*words: str, name: str, failed: bool = False) -> list[str]:
    """What it says on standard error; with `failed` all that it says, if it ended with an error."""
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)
    text = (done.stdout + done.stderr if done.returncode else "") if failed else done.stderr
    return [re.sub(re.escape(f"{name}/"), "", line) for line in text.splitlines() if line.strip()]


def main() -> int:
    """Prints what is found; the exit code."""
    return told(lambda: lint(sorted(FOLDER.glob("*.service"))))


if __name__ == "__main__":
    sys.exit(main())
