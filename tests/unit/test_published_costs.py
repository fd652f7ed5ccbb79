"""What real calls are charged, beside what the exchanges publish: calls picked by hand, in `tests/support/published/`.

A file has an exchange's calls with their published costs, written from its pages and not from our table, in the words
of `tests/support/charges.py`: the limit, and what it counts alone beside the address: ``account``, ``endpoint``, or a
parameter's name.
"""

import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.support.charges import charged
from workers.limits.tables import shipped

PUBLISHED: Final = Path(__file__).resolve().parents[1] / "support" / "published"
TABLES: Final = shipped().limited


def calls(exchange: str) -> dict[str, str]:
    """An exchange's calls and their costs, as its file has them."""
    found: dict[str, str] = tomllib.loads((PUBLISHED / f"{exchange}.toml").read_text(encoding="utf-8"))["calls"]
    return found


@pytest.mark.parametrize("exchange", TABLES)
async def test_a_call_is_charged_what_the_exchange_publishes(exchange: str) -> None:
    assert await charged(exchange, calls(exchange)) == calls(exchange)


@pytest.mark.parametrize("exchange", TABLES)
def test_about_twenty_calls_are_compared(exchange: str) -> None:
    assert len(calls(exchange)) >= 15
