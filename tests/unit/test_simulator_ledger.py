"""The simulator's limits: exact windows, costs, bans and counters."""

from __future__ import annotations

import itertools
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.clock import NS, Clock
from deploy.simulator.faults import Faults
from deploy.simulator.ledger import Ledger, Verdict
from deploy.simulator.limits import (
    BINANCE,
    KRAKEN,
    LIMITS,
    OKX,
    BanPolicy,
    Bucket,
    Charge,
    Limits,
    binance_day_ticker,
    binance_depth,
    binance_window_ticker,
)

# Hypothesis fails an example that takes over 200 ms, which a busy machine alone can cause.
untimed = settings(deadline=None)


class HandClock(Clock):
    """A clock that only the test moves."""

    def __init__(self, at_s: float = 0) -> None:
        super().__init__()
        self.at_ns = round(at_s * NS)

    def now_ns(self) -> int:
        return self.at_ns


def asked_cost(query: dict[str, str]) -> int:
    return int(query["cost"])


def ask(ledger: Ledger, endpoint: str = "/x", address: str = "127.0.0.1", **query: str) -> Verdict:
    return ledger.charge(address, endpoint, True, query)


@untimed
@given(
    st.lists(st.tuples(st.integers(0, 700), st.integers(1, 4)), max_size=200),
    st.integers(4, 10),
    st.integers(1, 1500),
)
def test_a_rolling_window_is_exact(steps: list[tuple[int, int]], amount: int, window_ns: int) -> None:
    """Held against the definition: a request passes where it and all that passed less than a window ago fit.

    A window of any length up to that and the least spare time would have been kept too, and a longer one not.
    """
    bucket = Bucket("b", amount, window_ns / NS)
    ledger = Ledger(Limits({"/x": (Charge(bucket, asked_cost),)}, {}), clock := HandClock())
    passed: list[tuple[int, int]] = []
    spare_ns: list[int] = []

    def within(length_ns: int) -> int:
        return sum(spent for at_ns, spent in passed if clock.at_ns - at_ns < length_ns)

    for step, cost in steps:
        clock.at_ns += step
        used = within(window_ns) + cost
        verdict = ask(ledger, cost=str(cost))
        assert (verdict.refusal is None) == (used <= amount)
        if verdict.refusal is None:
            ages_ns = (clock.at_ns - at_ns for at_ns, _ in passed)
            spare_ns += [age_ns - window_ns for age_ns in ages_ns if within(age_ns + 1) + cost > amount]
            passed.append((clock.at_ns, cost))
            assert verdict.usages[0].used == used
    told_ms = ledger.counts.buckets["b"].spare_ms if steps else None
    assert told_ms == (min(spare_ns) / 1e6 if spare_ns else None)


def test_a_fixed_window_begins_at_the_minute_and_charges_refusals() -> None:
    clock = HandClock(59.999)
    ledger = Ledger(BINANCE, clock)
    for _ in range(300):
        assert ask(ledger, "/api/v3/exchangeInfo").refusal is None
    refused = ask(ledger, "/api/v3/ping")
    assert refused.refusal == "limit"
    assert refused.usages[0].used == 6001
    assert refused.retry_s == pytest.approx(0.001)  # pyright: ignore[reportUnknownMemberType]
    clock.at_ns += NS // 1000
    assert ask(ledger, "/api/v3/ping").usages[0].used == 1


def test_addresses_and_parameters_have_windows_of_their_own() -> None:
    ledger = Ledger(KRAKEN, HandClock())
    assert ask(ledger, "/0/public/OHLC", pair="A").refusal is None
    assert ask(ledger, "/0/public/OHLC", pair="B").refusal is None
    assert ask(ledger, "/0/public/OHLC", pair="A").refusal == "limit"
    assert ask(ledger, "/0/public/OHLC", "127.0.0.2", pair="A").refusal is None
    assert ask(ledger, "/0/public/Ticker").refusal is None
    assert ask(ledger, "/0/public/Depth").refusal == "limit"


def test_bans_follow_stubborn_clients_and_double() -> None:
    clock = HandClock()
    policy = BanPolicy(strikes=2, base_s=10, longest_s=35)
    ledger = Ledger(Limits({"/x": (Charge(Bucket("b", 1, 1)),)}, {}, policy), clock)
    lengths: list[float] = []
    for _ in range(4):
        answers = [ask(ledger) for _ in range(4)]
        assert [answer.refusal for answer in answers] == [None, "limit", "limit", "ban"]
        lengths.append(answers[-1].retry_s)
        clock.at_ns += round((answers[-1].retry_s - 1) * NS)
        assert ask(ledger).refusal == "ban"
        assert ask(ledger, address="127.0.0.2").refusal is None
        clock.at_ns += NS
    assert lengths == [10, 20, 35, 35]
    assert ledger.counts.bans == 4
    assert ledger.counts.violations == ledger.counts.refused_over_limit + ledger.counts.refused_while_banned == 16


def test_a_success_forgives_refusals() -> None:
    clock = HandClock()
    ledger = Ledger(Limits({"/x": (Charge(Bucket("b", 1, 1)),)}, {}, BanPolicy(1, 10, 10)), clock)
    for _ in range(5):
        assert [ask(ledger).refusal, ask(ledger).refusal] == [None, "limit"]
        clock.at_ns += NS


def test_an_injected_ban_holds_for_all_and_is_lifted() -> None:
    clock = HandClock()
    ledger = Ledger(OKX, clock)
    ledger.ban_everyone(5)
    verdict = ask(ledger, "/api/v5/public/time")
    assert (verdict.refusal, verdict.retry_s) == ("ban", 5)
    assert ledger.counts.refused_while_banned == 1
    # Asked for, so answered even where limits are only counted.
    ledger.enforced = False
    assert ask(ledger, "/api/v5/public/time").refusal == "ban"
    ledger.ban_everyone(0)
    assert ask(ledger, "/api/v5/public/time").refusal is None


def test_an_account_is_counted_over_all_addresses() -> None:
    ledger = Ledger(OKX, HandClock())
    for number in range(10):
        address = f"127.0.0.{number % 2 + 1}"
        assert ledger.charge(address, "/api/v5/account/balance", True, {}, "anna").refusal is None
    assert ledger.charge("127.0.0.3", "/api/v5/account/balance", True, {}, "anna").refusal == "limit"
    assert ledger.charge("127.0.0.1", "/api/v5/account/balance", True, {}, "boris").refusal is None


def test_a_decaying_counter_falls_steadily() -> None:
    clock = HandClock()
    ledger = Ledger(KRAKEN, clock)

    def ask_as(account: str) -> str | None:
        return ledger.charge("127.0.0.1", "/0/private/Ledgers", True, {}, account).refusal

    assert [ask_as("anna") for _ in range(8)] == [None] * 7 + ["limit"]
    clock.at_ns += 3 * NS  # 14 less 0.99 is 13.01
    assert ask_as("anna") == "limit"
    clock.at_ns += NS // 10
    assert ask_as("anna") is None
    assert ask_as("boris") is None


def test_counters_tell_the_peak_and_limits_can_be_counted_only() -> None:
    ledger = Ledger(OKX, HandClock())
    ledger.enforced = False
    for _ in range(12):
        assert ask(ledger, "/api/v5/public/time").refusal is None
    bucket = ledger.counts.buckets["public/time"]
    assert (bucket.amount, bucket.weight, bucket.highest, bucket.peak, bucket.violations) == (10, 10, 11, 1.1, 2)
    assert (ledger.counts.requests, ledger.counts.violations) == (12, 2)
    ledger.reset_counts()
    assert ledger.counts.requests == 0


@pytest.mark.parametrize(
    ("cost", "query", "weight"),
    [
        *((binance_depth, {"limit": str(limit)}, weight) for limit, weight in [(5, 5), (100, 5), (101, 25), (500, 25)]),
        *((binance_depth, {"limit": str(limit)}, weight) for limit, weight in [(1000, 50), (1001, 250), (5000, 250)]),
        (binance_depth, {}, 5),
        (binance_day_ticker, {"symbol": "BTCUSDT"}, 2),
        (binance_day_ticker, {}, 80),
        *(
            (binance_day_ticker, {"symbols": msgspec.json.encode(["X"] * count).decode()}, weight)
            for count, weight in [(1, 2), (20, 2), (21, 40), (100, 40), (101, 80)]
        ),
        (binance_window_ticker, {"symbol": "BTCUSDT"}, 4),
        (binance_window_ticker, {"symbols": msgspec.json.encode(["X"] * 60).decode()}, 200),
    ],
)
def test_binance_weights(cost: object, query: dict[str, str], weight: int) -> None:
    assert callable(cost)
    assert cost(query) == weight


def test_every_cost_fits_its_bucket_and_names_are_unique() -> None:
    for limits in LIMITS.values():
        charges = itertools.chain(*limits.endpoints.values(), *limits.prefixes.values())
        buckets: dict[str, Bucket] = {}
        for charge in charges:
            assert buckets.setdefault(charge.bucket.name, charge.bucket) == charge.bucket
            assert not isinstance(charge.cost, int) or charge.cost <= charge.bucket.amount


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"downn":"refused"}', "unknown field `downn`"),
        ('{"down":"gone"}', r"\$\.down"),
        ('{"error_rate":1.5}', r"\$\.error_rate"),
        ('{"latency_ms":-1}', r"\$\.latency_ms"),
        ('{"hang":"yes"}', r"\$\.hang"),
    ],
)
def test_bad_faults_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.json.decode(text, type=Faults)


def test_the_ccxt_configuration_is_light() -> None:
    code = (
        "import sys; from deploy.simulator.ccxt_config import ccxt_config; ccxt_config('htx', 'http://127.0.0.1:1');"
        "sys.exit('ccxt' in sys.modules or 'aiohttp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(ValueError, match="no exchange 'mtgox'"):
        ccxt_config("mtgox", "http://127.0.0.1:1")
