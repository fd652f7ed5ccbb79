"""The pace of calls to an exchange whose limits nobody wrote down: ccxt's `rateLimit`, which is a guess. Pure."""

import datetime
from typing import Final

from .tables import Table

# The source of such a pace.
BY_CCXT: Final = "ccxt rateLimit"


def paced_by_ccxt(exchange: str, rate_limit_ms: float) -> Table:
    """A table that says no more than ccxt: one unit of ccxt's cost each `rate_limit_ms`."""
    bucket = {
        "amount": 1,
        "window_s": max(rate_limit_ms, 1.0) / 1000,
        "kind": "paced",
        "source": BY_CCXT,
        "margin_ms": 0,
        "certain": False,
    }
    rules = [{"bucket": "all", "per_ccxt_cost": 1}]
    return Table(exchange=exchange, checked=datetime.date.min, buckets={"all": bucket}, default=rules)
