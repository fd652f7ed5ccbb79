"""Whether this ccxt was tested: new versions come daily, and may read the same answers differently."""

import logging
import re
from typing import Final

log = logging.getLogger(__name__)

# The oldest and the newest version that the tests run with: `make test LOWEST=1` and `make test`.
TESTED: Final = ("4.5.90", "4.5.90")


def check(version: str) -> bool:
    """Logs a warning for a version that was not tested; the worker runs all the same.

    Returns:
        Whether it was tested.
    """
    first, last = map(_numbers, TESTED)
    tested = first <= _numbers(version) <= last
    if not tested:
        log.warning("ccxt_untested", extra={"version": version, "tested": " to ".join(dict.fromkeys(TESTED))})
    return tested


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
