"""The verdict on a chaos run, request by request, from the producer's own record."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from deploy.simulator.prices import TICK_MS
from schemas.messages import Result
from tests.faults.load import Load
from tests.faults.schedule import KINDS, Fault

# An answer that says that the deadline has passed needs a moment itself.
LATE_AFTER_MS = 1_000
# The longest that an exchange takes for an answer here: a call ends after 1.5 s, and may be sent once more.
SLOWEST_MS = 4_000
BAR_MS = {"1m": 60_000, "1h": 3_600_000}
# A ticker of these tells the tick that it was made of: a witness of its own, whatever Redis's clock or a worker says.
TELLS_ITS_TICK = ("binance", "okx", "htx", "coinbaseexchange")
# So old it may be then: a call of 1.5 s may have been under way, and clocks are read a moment apart.
UNDER_WAY_MS = 1_500
MOMENT_MS = 300
# What was hit may deliver again until its connections are up again and its queues have run dry.
AFTERMATH_MS = 20_000


class Happened(Struct, frozen=True):
    """A fault as it came: when it began, and when all was mended again, in Unix milliseconds."""

    fault: Fault
    began_ms: int
    ended_ms: int


class Verdict(Struct, frozen=True):
    """What became of the requests, and what broke.

    Args:
        requests: how many the broker took.
        data: answered with data.
        errors: answered with an error, by code.
        twice: requests answered more than once, by the faults that explain it.
        shared: requests that took another one's answer.
        wrong: answers that are not to their own question, or older than it allows.
        late: requests whose first answer came over a second after their deadline, by the faults meanwhile.
        lost: requests without an answer.
        unexplained: requests answered more than once with no crash to explain it.
        violations: how often a limit was broken, as the exchanges counted.
        spare_ms: by how little rolling windows could have been longer without being broken, least first, by limit.
        unburied: bad messages that are not in `fleet.dead`.
        left_over: messages still in a queue at the end.
        bad_exits: services that were stopped and did not end with 0.
        faults: how often each kind happened.
    """

    requests: int
    data: int
    errors: dict[str, int]
    twice: dict[str, int]
    shared: int
    wrong: list[str]
    late: dict[str, int]
    lost: list[str]
    unexplained: list[str]
    violations: int
    spare_ms: dict[str, float]
    unburied: list[str]
    left_over: dict[str, int]
    bad_exits: list[str]
    faults: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether the promise was kept."""
        broken = (
            self.lost,
            self.wrong,
            self.unexplained,
            self.violations,
            self.unburied,
            self.left_over,
            self.bad_exits,
        )
        return not any(broken)

    def lines(self) -> list[str]:
        """The verdict for people."""
        answered = self.requests - len(self.lost)
        return [
            f"requests             {self.requests}",
            f"answered             {answered}",
            f"  with data          {self.data}",
            f"  with an error      {answered - self.data}{_of(self.errors)}",
            f"  of another one     {self.shared}",
            f"  wrong, or too old  {len(self.wrong)}{_names(self.wrong)}",
            f"answered twice       {sum(self.twice.values())}{_of(self.twice)}",
            f"  with no crash      {len(self.unexplained)}{_names(self.unexplained)}",
            f"late                 {sum(self.late.values())}{_of(self.late)}",
            f"lost                 {len(self.lost)}{_names(self.lost)}",
            f"limits broken        {self.violations}",
            f"  room to spare      {least(self.spare_ms)}",
            f"bad ones unburied    {len(self.unburied)}{_names(self.unburied)}",
            f"left in queues       {sum(self.left_over.values())}{_of(self.left_over)}",
            f"bad ends             {len(self.bad_exits)}{_names(self.bad_exits)}",
            f"faults               {sum(self.faults.values())}{_of(self.faults)}",
            "kept" if self.ok else "BROKEN",
        ]


def judge(
    load: Load,
    happened: Sequence[Happened],
    *,
    counters: Mapping[str, Any],
    unburied: list[str],
    left_over: dict[str, int],
    bad_exits: list[str],
) -> Verdict:
    """Holds the producer's record, and what the exchanges counted, against what happened."""
    data = 0
    errors: Counter[str] = Counter()
    twice: Counter[str] = Counter()
    late: Counter[str] = Counter()
    unexplained: list[str] = []
    shared, wrong = 0, list[str]()
    for name in load.sent:
        if not (results := load.results.get(name)):
            continue
        first = results[0]
        data += first.ok
        shared += first.age_ms is not None
        for one in results:
            if why := wrong_answer(load.asked[name], one) or _too_old(load.asked[name], one, happened):
                wrong.append(f"{name}: {why}")
        if first.error:
            errors[first.error.code] += 1
        arrived_ms = load.arrived_ms[name]
        if len(results) > 1:
            crashes = [one for one in happened if KINDS[one.fault.kind].twice]
            if crash := _cause(crashes, load.sent_ms[name], arrived_ms[-1]):
                twice[crash] += 1
            else:
                unexplained.append(name)
        if arrived_ms[0] > load.deadline_ms[name] + LATE_AFTER_MS:
            late[_cause(happened, load.sent_ms[name], arrived_ms[0]) or "no fault"] += 1
    return Verdict(
        len(load.sent),
        data,
        dict(errors.most_common()),
        dict(twice.most_common()),
        shared,
        wrong,
        dict(late.most_common()),
        load.unanswered,
        unexplained,
        counters["violations"],
        spare_by_limit(counters["exchanges"]),
        unburied,
        left_over,
        bad_exits,
        dict(Counter(one.fault.kind for one in happened).most_common()),
    )


def wrong_answer(asked: Mapping[str, Any], result: Result) -> str:
    """Why a result with data is not the answer to what was asked, or too old for it; empty if it is right.

    An answer ages while it is handed over, and one that was under way when it was asked for may be as old as the
    exchange was slow.
    """
    if not result.ok:
        return ""
    wanted_ms, age_ms = asked.get("max_age_ms"), result.age_ms
    if age_ms is not None:
        if wanted_ms is None:
            return "it did not ask for another one's answer"
        most_ms = wanted_ms if isinstance(wanted_ms, int) else BAR_MS[asked["args"]["timeframe"]]
        if age_ms > most_ms + SLOWEST_MS + result.completed_ms - result.received_ms:
            return f"{age_ms} ms old"
    args, data = asked["args"], result.data
    if isinstance(data, dict):
        return "" if data.get("symbol") in (args["symbol"], None) else f"of {data['symbol']}"  # pyright: ignore
    if asked["method"] == "fetch_ohlcv" and "timeframe" in args:
        opens = [row[0] for row in data]
        steps = {later - sooner for sooner, later in itertools.pairwise(opens)}
        if len(opens) != args["limit"] or steps != {BAR_MS[args["timeframe"]]}:
            return f"{len(opens)} bars of {steps} ms"
    return ""


def _too_old(asked: Mapping[str, Any], result: Result, happened: Sequence[Happened]) -> str:
    """By how much a ticker was made too early, as the exchange itself says; empty if it was not.

    What lies in the socket of a worker that stands still is as old as that takes, and nobody can know it.
    """
    if not (result.ok and asked["method"] == "fetch_ticker" and result.exchange in TELLS_ITS_TICK):
        return ""
    made_ms = result.data["timestamp"]
    oldest_ms = result.received_ms - TICK_MS - MOMENT_MS
    if result.age_ms is not None:
        oldest_ms -= asked["max_age_ms"] + UNDER_WAY_MS
        frozen = [one for one in happened if one.fault.kind == "worker_frozen"]
        during = [one for one in frozen if one.began_ms < result.completed_ms and one.ended_ms > made_ms]
        oldest_ms -= sum(one.ended_ms - one.began_ms for one in during)
    return f"made {oldest_ms - made_ms} ms too early" if made_ms < oldest_ms else ""


def _cause(happened: Sequence[Happened], from_ms: int, to_ms: int) -> str | None:
    """The kind of fault that hit a request longest between these times, its aftermath included; None if none did."""
    longest_ms, cause = 0, None
    for one in happened:
        overlap_ms = min(to_ms, one.ended_ms + AFTERMATH_MS) - max(from_ms, one.began_ms)
        if overlap_ms > longest_ms:
            longest_ms, cause = overlap_ms, one.fault.kind
    return cause


def spare_by_limit(exchanges: Mapping[str, Any]) -> dict[str, float]:
    """By how little rolling windows could have been longer without being broken, least first, in ms by limit."""
    found = {
        f"{exchange} {name}": bucket["spare_ms"]
        for exchange, count in exchanges.items()
        for name, bucket in count["buckets"].items()
        if bucket["spare_ms"] is not None
    }
    return dict(sorted(found.items(), key=lambda each: each[1]))


def least(spare_ms: dict[str, float]) -> str:
    """The three limits that calls came nearest to, for people."""
    return ", ".join(f"{spare:.1f} ms {name}" for name, spare in list(spare_ms.items())[:3]) or "far from all"


def _of(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{count} {name}' for name, count in counts.items())})" if counts else ""


def _names(names: list[str]) -> str:
    return f" ({', '.join(names[:10])}{', …' if len(names) > 10 else ''})" if names else ""
