"""What one HTTP call to an exchange costs: which buckets it is charged to, and how much of each.

The facts are tables, ``limits/<exchange>.toml``: buckets (an amount per window), and endpoints with their cost in
them. A table is keyed by ccxt's ``(api, method, path)``, because a path alone is ambiguous: Binance has an
``exchangeInfo`` in each of its APIs. Where a table is silent its ``default`` rules apply; an exchange without a table
gets one bucket that paces calls as ccxt's own ``rateLimit`` would. Pure: nothing is read after `load`.
"""

import datetime
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from schemas.config import LimitsConfig
from schemas.errors import ConfigError

LIMITS: Final = Path(__file__).parent / "limits"

# The exchange counts arrivals, we count departures: two calls a window apart may arrive so much closer together.
JITTER_MS: Final = 50.0
# It is part of keys in Redis, where a colon begins something else.
_BUCKET_NAME: Final = re.compile(r"[a-z0-9_]+")
# A call that ccxt counts as free is still a call.
LEAST_CCXT_COST: Final = 0.1

# ccxt's other names for the same hosts, or for hosts with the same limits.
SAME_LIMITS: Final[Mapping[str, str]] = {
    "binanceusdm": "binance",
    "binancecoinm": "binance",
    "bybiteu": "bybit",
    "bybitid": "bybit",
    "gateeu": "gate",
    "kucoinfutures": "kucoin",
    "myokx": "okx",
    "okxus": "okx",
}

Kind: TypeAlias = Literal["rolling", "fixed", "decaying", "paced"]
Scope: TypeAlias = Literal["egress", "account"]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]


class Bucket(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One published limit of an exchange.

    Args:
        name: its key in the table.
        amount: what may be spent per window.
        window_s: the window.
        kind: ``rolling``: any stretch of a window's length. ``fixed``: windows that start at multiples of their length
            on the exchange's clock. ``decaying``: a counter that falls by amount/window_s a second and may not pass
            amount. ``paced``: the same, but a call above the amount is let in at zero and the next ones wait for it.
        scope: what the exchange counts: the address the calls come from, or the account.
        source: where the limit is published.
        per: parameters of the call whose values each have a count of their own (a pair, an instrument).
        per_endpoint: every endpoint has a count of its own.
        margin_ms: how much closer together two calls may arrive than they left; `fixed` windows keep this far from
            their boundaries on both sides.
        certain: False where sources disagree or are silent: the value is then the safe one.
        note: what one should know about it.
    """

    name: str
    amount: Positive
    window_s: Positive
    kind: Kind
    source: str
    scope: Scope = "egress"
    per: tuple[str, ...] = ()
    per_endpoint: bool = False
    margin_ms: Annotated[float, Meta(ge=0)] = JITTER_MS
    certain: bool = True
    note: str = ""


class Case(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A cost that holds when the call has a parameter, and the parameter is at most so big.

    Args:
        param: the parameter.
        cost: the cost then.
        at_most: a number's value, or a list's length, up to which the case holds; any when None.
        each: the cost counts once per item, up to the rule's own cost.
    """

    param: str
    cost: Positive
    at_most: float | None = None
    each: bool = False


class Rule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a call takes from one bucket: the first of `cases` that holds, else `cost`.

    Args:
        bucket: the bucket's name.
        cost: the cost when no case holds.
        cases: costs that depend on a parameter, in the order they are tried.
        per_ccxt_cost: where the table does not know the endpoint: so much per unit of ccxt's own cost.
    """

    bucket: str
    cost: Positive = 1.0
    cases: tuple[Case, ...] = ()
    per_ccxt_cost: Positive | None = None


class Charge(Struct, frozen=True):
    """One call's share of one bucket. `key` names the count: the bucket, and what it is kept per."""

    bucket: Bucket
    cost: float
    key: str


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    exchange: str
    checked: datetime.date
    buckets: dict[str, dict[str, Any]]
    default: list[dict[str, Any]]
    endpoints: dict[str, list[dict[str, Any]]]
    # Endpoints whose answers say something else than what the exchange has counted.
    misreported: tuple[str, ...] = ()


class _Share:
    """A rule with its bucket and the endpoint's part of the key."""

    __slots__ = ("bucket", "key", "rule")

    def __init__(self, rule: Rule, bucket: Bucket, endpoint: str) -> None:
        self.rule = rule
        self.bucket = bucket
        self.key = f"{bucket.name}:{endpoint}" if bucket.per_endpoint else bucket.name

    @property
    def static(self) -> bool:
        return not (self.rule.cases or self.bucket.per or self.rule.per_ccxt_cost)

    def charge(self, params: Mapping[str, Any], ccxt_cost: float) -> Charge:
        bucket, rule = self.bucket, self.rule
        if rule.per_ccxt_cost is not None:
            cost = max(ccxt_cost, LEAST_CCXT_COST) * rule.per_ccxt_cost
            if bucket.kind != "paced":
                cost = min(cost, bucket.amount)
        else:
            cost = _cost(rule, params)
        key = self.key
        if bucket.per:
            # Kraken takes a pair in any case; the length is bounded because a caller may put anything here.
            key += ":" + ",".join(str(params.get(name) or "") for name in bucket.per).upper()[:64]
        return Charge(bucket, cost, key)


class Costs:
    """What calls to one exchange cost."""

    def __init__(
        self,
        exchange: str,
        buckets: Mapping[str, Bucket],
        endpoints: Mapping[str, list[Rule]],
        default: list[Rule],
        misreported: Iterable[str] = (),
    ) -> None:
        self.exchange = exchange
        self.buckets = buckets
        self._endpoints = endpoints
        self._default = default
        self._misreported = frozenset(misreported)
        self._known: dict[tuple[tuple[str, ...], str, str], list[_Share] | list[Charge]] = {}

    def charges(
        self, api: tuple[str, ...], method: str, path: str, params: Mapping[str, Any], ccxt_cost: float
    ) -> list[Charge]:
        """Return what a call must be charged before it is sent.

        Args:
            api: ccxt's api, as in ``("spot", "public")``.
            method: the HTTP verb.
            path: ccxt's path, with its placeholders.
            params: the call's parameters.
            ccxt_cost: what ccxt would charge; used where the table is silent.
        """
        shares = self._known.get((api, method, path))
        if shares is None:
            shares = self._known[api, method, path] = self._shares(api, method, path)
        return [share if isinstance(share, Charge) else share.charge(params, ccxt_cost) for share in shares]

    def knows(self, api: tuple[str, ...], method: str, path: str) -> bool:
        """Whether the table says itself what this call costs: for its path, or for all paths of its api alike."""
        rules = self._rules(api, method, path)
        return rules is not self._default and all(rule.per_ccxt_cost is None for rule in rules)

    def reports(self, api: tuple[str, ...], method: str, path: str) -> bool:
        """Whether what the answer says of the exchange's count can be believed."""
        return f"{'.'.join(api)} {method} {path}" not in self._misreported

    def _rules(self, api: tuple[str, ...], method: str, path: str) -> list[Rule]:
        family = f"{'.'.join(api)} {method}"
        return self._endpoints.get(f"{family} {path}") or self._endpoints.get(f"{family} *") or self._default

    def _shares(self, api: tuple[str, ...], method: str, path: str) -> Any:
        rules = self._rules(api, method, path)
        shares = [_Share(rule, self.buckets[rule.bucket], f"{'.'.join(api)}.{path}") for rule in rules]
        return [share.charge({}, 1.0) if share.static else share for share in shares]


def load(exchange: str, rate_limit_ms: float, folder: Path = LIMITS, own: LimitsConfig | None = None) -> Costs:
    """Read an exchange's table, or derive one bucket from ccxt's `rateLimit` where there is none.

    Args:
        exchange: its ccxt id; some ids share a table (`SAME_LIMITS`).
        rate_limit_ms: ccxt's `rateLimit`: milliseconds per unit of ccxt's cost.
        folder: where the tables are.
        own: what the configuration says instead: keys of buckets, whole endpoints, the whole default.

    Raises:
        ConfigError: the table is wrong; says the file, the key's path and what was expected.
    """
    exchange = SAME_LIMITS.get(exchange, exchange)
    file = folder / f"{exchange}.toml"
    table = _read(file, exchange) if file.exists() else _of_ccxt(exchange, rate_limit_ms)
    own = own or LimitsConfig()
    default = (f"{file}: default", table.default)
    if own.default is not None:
        default = (f"limits.{exchange}.default", own.default)

    def where(section: str, key: str) -> str:
        """Where a part of the table comes from, for who has to mend it."""
        mine = key in own.buckets if section == "buckets" else key in own.endpoints
        path = f"{section}.{key}" if section == "buckets" else f'{section}."{key}"'
        return f"limits.{exchange}.{path}" if mine else f"{file}: {path}"

    buckets: dict[str, Bucket] = {}
    for name in {**table.buckets, **own.buckets}:
        raw = {"source": "configuration", **table.buckets.get(name, {}), **own.buckets.get(name, {})}
        buckets[name] = _bucket(where("buckets", name), name, raw)
    endpoints = {
        key: _rules(where("endpoints", key), rules, buckets)
        for key, rules in {**table.endpoints, **own.endpoints}.items()
        if _endpoint(where("endpoints", key), key)
    }
    for number, key in enumerate(table.misreported):
        if key not in endpoints:
            raise ConfigError(f"{file}: misreported[{number}]: expected an endpoint of the table, not {key!r}")
    return Costs(exchange, buckets, endpoints, _rules(*default, buckets), table.misreported)


def check_limits(limits: Mapping[str, LimitsConfig], exchanges: Iterable[str]) -> None:
    """Refuse limits that would never be heeded.

    Args:
        limits: the configuration's.
        exchanges: ccxt ids of all lanes.

    Raises:
        ConfigError: they are of no lane's exchange, or of one that shares another's table.
    """
    known = {SAME_LIMITS.get(exchange, exchange) for exchange in exchanges}
    for exchange in limits:
        if exchange in SAME_LIMITS:
            raise ConfigError(f"limits.{exchange}: expected {SAME_LIMITS[exchange]}, whose limits {exchange} shares")
        if exchange not in known:
            raise ConfigError(f"limits.{exchange}: expected the exchange of a lane: one of {', '.join(sorted(known))}")


def _read(file: Path, exchange: str) -> _Table:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    table = _convert(f"{file}: ", raw, _Table)
    if table.exchange != exchange:
        raise ConfigError(f"{file}: exchange: expected {exchange!r}, the file's name")
    return table


def _of_ccxt(exchange: str, rate_limit_ms: float) -> _Table:
    bucket = {
        "amount": 1,
        "window_s": max(rate_limit_ms, 1.0) / 1000,
        "kind": "paced",
        "source": "ccxt rateLimit",
        "margin_ms": 0,
        "certain": False,
    }
    return _Table(exchange, datetime.date.min, {"all": bucket}, [{"bucket": "all", "per_ccxt_cost": 1}], {})


def _bucket(where: str, name: str, raw: Mapping[str, Any]) -> Bucket:
    bucket = _convert(where, {**raw, "name": name}, Bucket)
    if not _BUCKET_NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of lower case letters, digits and _")
    if bucket.kind == "fixed" and bucket.margin_ms * 2 >= bucket.window_s * 1000:
        raise ConfigError(f"{where}.margin_ms: expected less than half of window_s")
    return bucket


def _rules(where: str, raw: list[dict[str, Any]], buckets: Mapping[str, Bucket]) -> list[Rule]:
    if not raw:
        raise ConfigError(f"{where}: expected at least one rule: a call that costs nothing has no limit")
    rules = [_convert(f"{where}[{number}]", rule, Rule) for number, rule in enumerate(raw)]
    if len({rule.bucket for rule in rules}) < len(rules):
        raise ConfigError(f"{where}: expected each bucket once")
    if sum(rule.bucket in buckets and buckets[rule.bucket].kind == "fixed" for rule in rules) > 1:
        # What the exchange says it has counted (`Budget.observe`) is taken over for all fixed buckets of a call.
        raise ConfigError(f"{where}: expected at most one bucket of kind fixed")
    for number, rule in enumerate(rules):
        bucket = buckets.get(rule.bucket)
        if bucket is None:
            raise ConfigError(f"{where}[{number}].bucket: expected one of {', '.join(buckets)}")
        dearest = max(rule.cost, *(case.cost for case in rule.cases)) if rule.cases else rule.cost
        if bucket.kind != "paced" and dearest > bucket.amount:
            raise ConfigError(
                f"{where}[{number}].cost: {dearest:g} can never be spent; expected at most {bucket.amount:g}, "
                f"the amount of bucket {bucket.name}"
            )
    return rules


def _endpoint(where: str, key: str) -> bool:
    if len(key.split(" ")) != 3:
        raise ConfigError(f'{where}: expected "<api> <METHOD> <path>", or * as the path for the rest')
    return True


def _cost(rule: Rule, params: Mapping[str, Any]) -> float:
    for case in rule.cases:
        value = params.get(case.param)
        if value is None:
            continue
        if case.each:
            return min(rule.cost, case.cost * max(1.0, _size(value)))
        if case.at_most is None or _size(value) <= case.at_most:
            return case.cost
    return rule.cost


def _size(value: Any) -> float:
    """A number's value or a list's length, also where it is text (ccxt sends lists to Binance as JSON)."""
    if isinstance(value, str):
        if value.startswith("["):
            return value.count(",") + 1
        try:
            size = float(value)
        except ValueError:
            return math.inf
        return size if size == size else math.inf  # noqa: PLR0124 (not a number counts as the dearest)
    if isinstance(value, (list, tuple)):
        return len(value)  # pyright: ignore[reportUnknownArgumentType]
    return float(value) if isinstance(value, (int, float)) else math.inf


S = TypeVar("S", bound=Struct)


def _convert(where: str, raw: Any, kind: type[S]) -> S:
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        what, _, inner = str(error).partition(" - at `$")
        inner = inner.rstrip("`")
        path = (f"{where}{inner.lstrip('.')}" if where.endswith(": ") else f"{where}{inner}").removesuffix(": ")
        if "unknown field" in what:
            fields = msgspec.structs.fields(Case if inner.startswith(".cases") else kind)
            what += f"; expected one of {', '.join(field.encode_name for field in fields)}"
        raise ConfigError(f"{path}: {what}") from error
