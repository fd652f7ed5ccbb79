"""What calls picked by hand are charged, in words: ``<weight> of <limit> in <seconds> s``, and what is counted alone.

A call is a ccxt method with its arguments, of which only the first HTTP call counts (``fetch_ticker BTC/USDT``), or an
endpoint as the tables have it, with parameters (``sapi GET account``).
"""

import json
from collections.abc import Iterable
from typing import Any, Final

import pytest

from workers.limits.costs import Charge, load

from .unsent import Endpoint, Unsent, described, recording

KEYS: Final = {"apiKey": "k", "secret": "c2VjcmV0", "password": "p", "uid": "1", "walletAddress": f"0x{1:040x}"}


async def charged(exchange: str, calls: Iterable[str]) -> dict[str, str]:
    """Each call and its charges.

    Args:
        exchange: the ccxt id.
        calls: the calls.
    """
    costs = load(exchange, 100)
    ccxt_costs = {str(endpoint): cost for endpoint, cost in described(exchange)}
    ccxt, sent = recording(exchange, KEYS)
    found: dict[str, str] = {}
    try:
        for call in calls:
            head, *words = call.split(" ")
            if words[:1] == ["GET"]:
                endpoint = Endpoint(tuple(head.split(".")), "GET", words[1])
                given = {name.lower(): [value] for name, _, value in (word.partition("=") for word in words[2:])}
                charges = costs.charges(*endpoint, given, ccxt_costs[str(endpoint)])
            else:
                before = len(sent)
                with pytest.raises(Unsent):
                    await getattr(ccxt, head)(**_arguments(words))
                first = sent[before]
                charges = costs.charges(*first.endpoint, first.sent, first.ccxt_cost)
            found[call] = " + ".join(map(_text, charges))
    finally:
        await ccxt.close()
    return found


def _arguments(words: list[str]) -> dict[str, Any]:
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


def _text(charge: Charge) -> str:
    bucket = charge.bucket
    counted = ["account"] * (bucket.scope == "account") + ["endpoint"] * bucket.per_endpoint + [*bucket.per]
    return " ".join([f"{charge.cost:g} of {bucket.amount:g} in {bucket.window_s:g} s", *counted])
