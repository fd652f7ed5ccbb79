"""What real calls are charged, beside what the exchanges publish: calls picked by hand, in `tests/support/published/`.

A file has an exchange's calls with their published costs, written from its pages and not from our table. A call is a
ccxt method with its arguments, of which only the first HTTP call counts; a cost is ``<weight> of <limit> in <seconds>
s``, and what the limit counts alone beside the address: ``account``, ``endpoint``, or a parameter's name.
"""

import json
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.unsent import Unsent, recording
from workers.limits.costs import Charge, load
from workers.limits.tables import shipped

PUBLISHED: Final = Path(__file__).resolve().parents[1] / "support" / "published"
TABLES: Final = shipped().limited
KEYS: Final = {"apiKey": "k", "secret": "c2VjcmV0", "password": "p", "uid": "1", "walletAddress": f"0x{1:040x}"}


def calls(exchange: str) -> dict[str, str]:
    """An exchange's calls and their costs, as its file has them."""
    found: dict[str, str] = tomllib.loads((PUBLISHED / f"{exchange}.toml").read_text(encoding="utf-8"))["calls"]
    return found


def arguments(words: list[str]) -> dict[str, Any]:
    """What `timeframe=1h limit=5 params={"a":1}` says; the word without a name is the symbol."""
    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            given["symbol"] = name
        elif name == "symbols":
            given[name] = value.split(",")
        else:
            given[name] = json.loads(value) if value[0] in "{0123456789" and name != "timeframe" else value
    return given


def text(charge: Charge) -> str:
    """A charge in the words of the files."""
    bucket = charge.bucket
    counted = ["account"] * (bucket.scope == "account") + ["endpoint"] * bucket.per_endpoint + [*bucket.per]
    return " ".join([f"{charge.cost:g} of {bucket.amount:g} in {bucket.window_s:g} s", *counted])


@pytest.mark.parametrize("exchange", TABLES)
async def test_a_call_is_charged_what_the_exchange_publishes(exchange: str) -> None:
    costs = load(exchange, 100)
    ccxt, sent = recording(exchange, KEYS)
    charged: dict[str, str] = {}
    try:
        for call in calls(exchange):
            before, (method, *words) = len(sent), call.split(" ")
            with pytest.raises(Unsent):
                await getattr(ccxt, method)(**arguments(words))
            first = sent[before]
            charged[call] = " + ".join(
                text(each) for each in costs.charges(*first.endpoint, first.sent, first.ccxt_cost)
            )
    finally:
        await ccxt.close()
    assert charged == calls(exchange)


@pytest.mark.parametrize("exchange", TABLES)
def test_about_twenty_calls_are_compared(exchange: str) -> None:
    assert len(calls(exchange)) >= 15
