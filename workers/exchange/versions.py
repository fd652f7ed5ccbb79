"""Whether ccxt is one that this fleet was tested with: new ones come daily, and may read the same answers otherwise."""

import logging
import re
from typing import Final

log = logging.getLogger(__name__)

# The oldest and the newest that the tests run with: `make test LOWEST=1` and `make test`.
TESTED: Final = ("4.5.90", "4.5.90")


def check(version: str) -> bool:
    """Says in the log where a version was not tested; the worker runs all the same.

    Returns:
        Whether it was.
    """
    first, last = map(_numbers, TESTED)
    tested = first <= _numbers(version) <= last
    if not tested:
        log.warning("ccxt_untested", extra={"version": version, "tested": " to ".join(dict.fromkeys(TESTED))})
    return tested


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
