"""What one HTTP call to an exchange costs: which buckets it is charged to, and how much of each.

The facts are in the tables: buckets (an amount per window), and endpoints with their cost in them. They are keyed by
ccxt's ``(api, method, path)``, because a path alone is ambiguous: Binance has an ``exchangeInfo`` in each of its APIs.
Where a table does not name an endpoint its ``default`` rules apply; an exchange without limits of ours gets one bucket
that paces calls as ccxt's own ``rateLimit`` would. Pure: nothing is read after `load`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from schemas.config import LimitsConfig
from schemas.errors import ConfigError

from . import wire
from .answers import Positive
from .cases import Case
from .names import NO_NAMES, Names
from .paced import BY_CCXT, paced_by_ccxt
from .tables import Table, Tables, convert, shipped
from .wire import Sent

# An exchange counts arrivals, we count departures: two calls that leave a window apart may arrive this much closer.
JITTER_MS: Final = 50.0
# The name is part of keys in Redis, where a colon begins something else.
_BUCKET_NAME: Final = re.compile(r"[a-z0-9_]+")
# A call that ccxt counts as free is still a call.
LEAST_CCXT_COST: Final = 0.1

Kind: TypeAlias = Literal["rolling", "fixed", "decaying", "paced"]
Scope: TypeAlias = Literal["egress", "account"]


class Bucket(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One published limit of an exchange.

    Args:
        name: its key in the table.
        amount: what may be spent per window.
        window_s: the window.
        kind: ``rolling``: any stretch of a window's length. ``fixed``: windows that start at multiples of their length
            on the exchange's clock. ``decaying``: a counter that falls by amount/window_s a second and may not pass
            amount. ``paced``: the same, but a call above the amount may be sent at zero, and the next ones wait for it.
        scope: what the exchange counts: the address the calls come from, or the account.
        source: where the limit is published.
        per: parameters of the call that name a pair or an instrument; each pair has a count of its own. All names that
            the exchange does not list share one count.
        per_endpoint: every endpoint has a count of its own.
        margin_ms: the least allowance for jitter: how much closer together two calls may arrive than they left. Calls
            keep this far from the boundaries of `fixed` windows, on both sides.
        certain: False where sources disagree or say nothing, or only third parties or ccxt tell it: the value is then
            the safest of those told.
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


class Rule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a call takes from one bucket: the first of `cases` that holds, else `cost`.

    Args:
        bucket: the bucket's name.
        cost: the cost when no case holds.
        cases: costs that depend on a parameter, in the order in which they are tried.
        per_ccxt_cost: the cost is this times ccxt's own cost; for endpoints whose cost the table does not know.
    """

    bucket: str
    cost: Positive = 1.0
    cases: tuple[Case, ...] = ()
    per_ccxt_cost: Positive | None = None

    @property
    def wrong(self) -> str:
        """What of it would never hold, and what is expected instead; empty if all has an effect."""
        if self.per_ccxt_cost is not None and (self.cases or self.cost != 1.0):
            return "per_ccxt_cost: expected nothing beside it: `cost` and `cases` would not be read"
        for number, case in enumerate(self.cases):
            if any(before.covers(case) for before in self.cases[:number]):
                return f"cases[{number}]: expected before the case that holds for all of its calls"
            if case.each and case.cost >= self.cost:
                return (
                    f"cases[{number}].each: expected a `cost` of the rule above {case.cost:g}: "
                    "it bounds what all items cost together"
                )
        if self.cases and self.cases[-1].cost == self.cost and not self.cases[-1].bars:
            return f"cases[{len(self.cases) - 1}]: expected nothing: without it the call costs {self.cost:g} too"
        return ""

    @property
    def reads(self) -> frozenset[str]:
        """The parameters that it depends on."""
        return frozenset(name for case in self.cases for name in case.reads)

    @property
    def dearest(self) -> float:
        """The most that a call can cost."""
        return max(self.cost, *(case.dearest for case in self.cases)) if self.cases else self.cost

    def cost_of(self, sent: Sent) -> float:
        """What a call with these parameters costs."""
        for case in self.cases:
            if case.param.casefold() not in sent:
                continue
            value = wire.one(sent, case.param)
            cost = self.dearest if value is None else case.cost_of(sent, value, self.dearest)
            if cost is not None:
                return cost
        return self.cost


class Charge(Struct, frozen=True):
    """What one call takes from one bucket. `key` names the count: the bucket, then its endpoint and pair, if any."""

    bucket: Bucket
    cost: float
    key: str


class _EndpointRule:
    """A rule with its bucket and the endpoint's part of the key."""

    __slots__ = ("bucket", "key", "rule")

    def __init__(self, rule: Rule, bucket: Bucket, endpoint: str) -> None:
        self.rule = rule
        self.bucket = bucket
        self.key = f"{bucket.name}:{endpoint}" if bucket.per_endpoint else bucket.name

    @property
    def reads(self) -> frozenset[str]:
        """The parameters that it depends on."""
        return frozenset((*self.bucket.per, *self.rule.reads))

    @property
    def static(self) -> bool:
        return not (self.reads or self.rule.per_ccxt_cost)

    def charge(self, sent: Sent, ccxt_cost: float, names: Names) -> Charge:
        bucket, rule = self.bucket, self.rule
        if rule.per_ccxt_cost is not None:
            cost = max(ccxt_cost, LEAST_CCXT_COST) * rule.per_ccxt_cost
            if bucket.kind != "paced":
                cost = min(cost, bucket.amount)
        else:
            cost = rule.cost_of(sent)
        key = self.key
        if bucket.per:
            key += ":" + ",".join(names.of(sent.get(name.casefold(), ())) for name in bucket.per)
        return Charge(bucket, cost, key)


class Costs:
    """What calls to one exchange cost.

    Attributes:
        exchange: the ccxt id of its table.
        buckets: its limits, by name.
        rules: what calls take from them, by ``<api> <METHOD> <path>``.
        default: what a call takes that no rule names.
        written: the spelling of the parameters that costs depend on, by their names in lower case.
        names_matter: some bucket has a count for each pair or instrument.
    """

    def __init__(
        self, table: Table, buckets: Mapping[str, Bucket], endpoints: Mapping[str, list[Rule]], default: list[Rule]
    ) -> None:
        self.exchange = table.exchange
        self._table = table
        self.buckets = buckets
        self.rules = endpoints
        self.default = default
        self._misreported = frozenset(table.misreported)
        self._known: dict[tuple[tuple[str, ...], str, str], tuple[list[_EndpointRule | Charge], bool]] = {}
        rules = [rule for each in (default, *endpoints.values()) for rule in each]
        per = {name for rule in rules for name in buckets[rule.bucket].per}
        read = per.union(*(rule.reads for rule in rules))
        self.written = {name.casefold(): name for name in read}
        self.names_matter = bool(per)

    def charges(
        self, api: tuple[str, ...], method: str, path: str, sent: Sent, ccxt_cost: float, names: Names = NO_NAMES
    ) -> list[Charge]:
        """Return what a call must be charged before it is sent.

        Args:
            api: ccxt's api, as in ``("spot", "public")``.
            method: the HTTP verb.
            path: ccxt's path, with its placeholders.
            sent: the parameters that the call sends; only read where `depends`.
            ccxt_cost: what ccxt would charge; used where the table does not know the cost.
            names: what the exchange lists.
        """
        rules, _ = self._of(api, method, path)
        return [rule if isinstance(rule, Charge) else rule.charge(sent, ccxt_cost, names) for rule in rules]

    @property
    def most_per_s(self) -> float:
        """How many calls a second the limits allow at most, of those that an address has for all pairs together.

        A call of each kind at the pace of the tightest of its buckets; all kinds that take from the same buckets, and
        from none that counts each endpoint for itself, have that pace together.
        """
        together: dict[tuple[str, ...], float] = {}
        apart_per_s, common = 0.0, [{rule.bucket for rule in self.default}]
        for rules in (self.default, *self.rules.values()):
            counted = [rule for rule in rules if not self.buckets[rule.bucket].per]
            common.append({rule.bucket for rule in rules})
            if not counted:
                continue
            per_s = min(self._per_s(rule) for rule in counted)
            if any(self.buckets[rule.bucket].per_endpoint for rule in counted):
                apart_per_s += per_s
            else:
                names = tuple(sorted(rule.bucket for rule in counted))
                together[names] = max(per_s, together.get(names, 0.0))
        for_all = [self.buckets[name] for name in set[str].intersection(*common)]
        bound_per_s = min(
            (each.amount / each.window_s for each in for_all if not (each.per or each.per_endpoint)), default=math.inf
        )
        return min(bound_per_s, apart_per_s + sum(together.values()))

    def _per_s(self, rule: Rule) -> float:
        bucket = self.buckets[rule.bucket]
        least = rule.per_ccxt_cost or min([rule.cost, *(case.cost for case in rule.cases)])
        return bucket.amount / bucket.window_s / least

    @property
    def guess(self) -> Bucket | None:
        """The pace of calls that no rule names, where nothing but ccxt's `rateLimit` is known; else None."""
        buckets = (self.buckets[rule.bucket] for rule in self.default)
        return next((bucket for bucket in buckets if bucket.source == BY_CCXT), None)

    def names(self, markets: Iterable[Mapping[str, Any]]) -> Names:
        """All names of the exchange's markets, which ccxt gives."""
        return Names(markets, self._table.market_aliases, self._table.market_families)

    def depends(self, api: tuple[str, ...], method: str, path: str) -> bool:
        """Whether the cost of such a call depends on its parameters."""
        return self._of(api, method, path)[1]

    def knows(self, api: tuple[str, ...], method: str, path: str) -> bool:
        """Whether the table itself says what this call costs, for its path or for all paths of its api."""
        rules = self._rules(api, method, path)
        return rules is not self.default and all(rule.per_ccxt_cost is None for rule in rules)

    def serves(self, api: tuple[str, ...]) -> bool:
        """Whether the exchange has this api; its ccxt class may have others from another exchange's class."""
        return self._api(api) not in self._table.not_served

    def reports(self, api: tuple[str, ...], method: str, path: str) -> bool:
        """Whether the exchange's count in the answer is right."""
        return f"{self._api(api)} {method} {path}" not in self._misreported

    def _api(self, api: tuple[str, ...]) -> str:
        """An api's name in the table."""
        name = ".".join(api)
        return self._table.same_apis.get(name, name)

    def _rules(self, api: tuple[str, ...], method: str, path: str) -> list[Rule]:
        family = f"{self._api(api)} {method}"
        return self.rules.get(f"{family} {path}") or self.rules.get(f"{family} *") or self.default

    def _of(self, api: tuple[str, ...], method: str, path: str) -> tuple[list[_EndpointRule | Charge], bool]:
        known = self._known.get((api, method, path))
        if known is None:
            endpoint = f"{self._api(api)}.{path}"
            found = self._rules(api, method, path)
            rules = [_EndpointRule(rule, self.buckets[rule.bucket], endpoint) for rule in found]
            ready = [rule.charge(wire.NOTHING, 1.0, NO_NAMES) if rule.static else rule for rule in rules]
            known = self._known[api, method, path] = ready, any(rule.reads for rule in rules)
        return known


def load(exchange: str, rate_limit_ms: float, own: LimitsConfig | None = None, tables: Tables | None = None) -> Costs:
    """What calls to an exchange cost, by its table; paced by ccxt's `rateLimit` where it has none.

    Args:
        exchange: its ccxt id; some ids share a table (`Tables.limits_of`).
        rate_limit_ms: ccxt's `rateLimit`: milliseconds per unit of ccxt's cost.
        own: what the configuration says instead: keys of buckets, whole endpoints, the whole default.
        tables: the tables; the project's own when None.

    Raises:
        ConfigError: the table or the configuration is wrong; says where, and what was expected.
    """
    tables = tables or shipped()
    exchange = tables.limits_of(exchange)
    file = tables.file(exchange)
    table = tables.of(exchange)
    if table is None or not table.buckets:
        table = paced_by_ccxt(exchange, rate_limit_ms)
    own = own or LimitsConfig()
    default = (f"{file}: default", table.default)
    if own.default is not None:
        default = (f"limits.{exchange}.default", own.default)

    def where(section: str, key: str) -> str:
        """Where a part of the limits comes from: the configuration, or the file."""
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
    return Costs(table, buckets, endpoints, _rules(*default, buckets))


def _bucket(where: str, name: str, raw: Mapping[str, Any]) -> Bucket:
    bucket = convert(where, {**raw, "name": name}, Bucket)
    if not _BUCKET_NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of lower case letters, digits and _")
    if bucket.kind == "fixed" and bucket.margin_ms * 2 >= bucket.window_s * 1000:
        raise ConfigError(f"{where}.margin_ms: expected less than half of window_s")
    return bucket


def _rules(where: str, raw: list[dict[str, Any]], buckets: Mapping[str, Bucket]) -> list[Rule]:
    if not raw:
        raise ConfigError(f"{where}: expected at least one rule: a call that costs nothing has no limit")
    rules = [convert(f"{where}[{number}]", rule, Rule, {".cases": Case}) for number, rule in enumerate(raw)]
    for number, rule in enumerate(rules):
        for case, wrong in ((case, each.wrong) for case, each in enumerate(rule.cases)):
            if wrong:
                raise ConfigError(f"{where}[{number}].cases[{case}].{wrong}")
    if len({rule.bucket for rule in rules}) < len(rules):
        raise ConfigError(f"{where}: expected each bucket once")
    if sum(rule.bucket in buckets and buckets[rule.bucket].kind == "fixed" for rule in rules) > 1:
        # What the exchange says it has counted (`Budget.observe`) is taken over for all fixed buckets of a call.
        raise ConfigError(f"{where}: expected at most one bucket of kind fixed")
    for number, rule in enumerate(rules):
        if rule.wrong:
            raise ConfigError(f"{where}[{number}].{rule.wrong}")
        bucket = buckets.get(rule.bucket)
        if bucket is None:
            raise ConfigError(f"{where}[{number}].bucket: expected one of {', '.join(buckets)}")
        if bucket.per and all(buckets[other.bucket].per for other in rules if other.bucket in buckets):
            raise ConfigError(
                f"{where}[{number}].bucket: expected a second rule beside it: bucket {bucket.name} has a count for each"
                f" {', '.join(bucket.per)}, and a bucket without `per` has to bound them all together"
            )
        if bucket.kind != "paced" and rule.dearest > bucket.amount:
            raise ConfigError(
                f"{where}[{number}].cost: {rule.dearest:g} can never be spent; expected at most {bucket.amount:g}, "
                f"the amount of bucket {bucket.name}"
            )
    return rules


def _endpoint(where: str, key: str) -> bool:
    if len(key.split(" ")) != 3:
        raise ConfigError(f'{where}: expected "<api> <METHOD> <path>", or * as the path for the rest')
    return True
