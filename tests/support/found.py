"""How a check of ``make check`` ends."""

import sys
from collections.abc import Callable, Sequence


def told(find: Callable[[], Sequence[str]]) -> int:
    """Prints what a check finds, or that its program is missing (FileNotFoundError); the exit code."""
    try:
        found = find()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    for line in found:
        print(line)
    return 1 if found else 0
