"""What each lane of a configuration keeps to, as a text to read: tables with their dates, guesses as such."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from schemas.config import Config
from schemas.errors import ConfigError

from .costs import Bucket, Costs, load
from .paced import BY_CCXT
from .tables import shipped


class ShownBucket(Struct, frozen=True):
    """One limit.

    Args:
        bucket: its name.
        amount: how much it allows.
        window_s: in which time.
        kind: how the exchange counts: `rolling`, `fixed`, `decaying`, `paced`.
        per: what is counted apart: addresses or accounts, endpoints, parameters.
        certain: whether the exchange publishes it.
        note: where it is not certain, why.
    """

    bucket: str
    amount: float
    window_s: float
    kind: str
    per: list[str]
    certain: bool
    note: str


class ShownLane(Struct, frozen=True):
    """What a lane keeps to.

    Args:
        lane: its name.
        source: which table that is, with its date; or that it is a guess.
        guess: whether no limits of the exchange are known.
        buckets: its limits.
    """

    lane: str
    source: str
    guess: bool
    buckets: list[ShownBucket]


def rendered(shown: Iterable[ShownLane]) -> Iterator[str]:
    """One line for each lane, and one for each of its limits."""
    for lane in shown:
        yield f"{lane.lane}: {lane.source}"
        for bucket in lane.buckets:
            certain = "" if bucket.certain else f"; not certain: {bucket.note}"
            amount, per = f"{bucket.amount:,.10g} in {bucket.window_s:g} s", ", ".join(bucket.per)
            yield f"    {bucket.bucket}: {amount}, {bucket.kind}, per {per}{certain}"


def lanes(config: Config, paces_ms: dict[str, float], exchanges: Sequence[str] = ()) -> Iterator[ShownLane]:
    """What each lane keeps to.

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
        known = tables.of(of)
        unused = BY_CCXT if (known is None or not known.buckets) and costs.guess is None else ""
        buckets = [_bucket(bucket) for bucket in costs.buckets.values() if bucket.source != unused]
        yield ShownLane(name, f"{_from(of, costs)}{changed}", costs.guess is not None, buckets)


def _from(of: str, costs: Costs) -> str:
    if (guess := costs.guess) is not None:
        pace_ms = guess.window_s / guess.amount * 1000
        return (
            f"a guess: no limits of {of} are known here, so ccxt's rateLimit paces its calls, one each {pace_ms:g} ms"
        )
    table = shipped().of(of)
    return f"the table of {of}, checked on {table.checked}" if table is not None and table.buckets else f"{of}"


def _bucket(bucket: Bucket) -> ShownBucket:
    per = ["address" if bucket.scope == "egress" else "account", *["endpoint"] * bucket.per_endpoint, *bucket.per]
    note = "" if bucket.certain else bucket.note or bucket.source
    return ShownBucket(bucket.name, bucket.amount, bucket.window_s, bucket.kind, per, bucket.certain, note)
