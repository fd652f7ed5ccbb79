"""What each lane of a configuration keeps to, as a text to read: tables with their dates, guesses as such."""

from collections.abc import Iterator, Sequence

from schemas.config import Config
from schemas.errors import ConfigError

from .costs import Bucket, Costs, load
from .paced import BY_CCXT
from .tables import shipped


def lines(config: Config, paces_ms: dict[str, float], exchanges: Sequence[str] = ()) -> Iterator[str]:
    """One line for each lane, and one for each of its limits.

    Args:
        config: the configuration.
        paces_ms: ccxt's `rateLimit`, milliseconds, of each lane's exchange.
        exchanges: only lanes of these, or with these names; all when empty.

    Raises:
        ConfigError: the configuration's own limits are wrong, or it has no such lane.
    """
    tables = shipped()
    names_of = {name: {name, lane.exchange, lane.known_as} for name, lane in config.lanes.items()}
    there = {each for names in names_of.values() for each in names}
    for wanted in exchanges:
        if wanted not in there:
            raise ConfigError(f"{wanted}: expected one of {', '.join(sorted(there))}")
    for name, lane in config.lanes.items():
        if exchanges and names_of[name].isdisjoint(exchanges):
            continue
        of = tables.limits_of(lane.exchange)
        costs = load(lane.exchange, paces_ms[lane.exchange], config.limits.get(of))
        changed = f", changed by [limits.{of}]" if of in config.limits else ""
        yield f"{name}: {_from(of, costs)}{changed}"
        known = tables.of(of)
        unused = BY_CCXT if (known is None or not known.buckets) and costs.guess is None else ""
        for bucket in (bucket for bucket in costs.buckets.values() if bucket.source != unused):
            yield f"    {_bucket(bucket)}"


def _from(of: str, costs: Costs) -> str:
    if (guess := costs.guess) is not None:
        pace_ms = guess.window_s / guess.amount * 1000
        return (
            f"a guess: no limits of {of} are known here, so ccxt's rateLimit paces its calls, one each {pace_ms:g} ms"
        )
    table = shipped().of(of)
    return f"the table of {of}, checked on {table.checked}" if table is not None and table.buckets else f"{of}"


def _bucket(bucket: Bucket) -> str:
    per = ["address" if bucket.scope == "egress" else "account", *["endpoint"] * bucket.per_endpoint, *bucket.per]
    certain = "" if bucket.certain else f"; not certain: {bucket.note or bucket.source}"
    return (
        f"{bucket.name}: {bucket.amount:,.10g} in {bucket.window_s:g} s, {bucket.kind}, per {', '.join(per)}{certain}"
    )
