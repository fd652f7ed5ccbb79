"""The examples in docs/health.md come from the code that judges lanes."""

from pathlib import Path
from typing import Final

import pytest

from dispatcher.circuit import State
from dispatcher.evidence import Failures
from dispatcher.health import LaneHealth
from schemas.config import DispatcherConfig
from schemas.messages import ErrorCode
from schemas.reports import LaneReport
from tests.support.virtual_fleet import TICKER, Limit, VirtualFleet

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "health.md").read_text(encoding="utf-8")
CONFIG: Final = DispatcherConfig()
EVERY_S: Final = 0.2


def report(ok: int = 0, bad: int = 0, *, latency_ms: float = 40.0, slowness: float = 1.0) -> LaneReport:
    return LaneReport(
        "okx",
        ok=ok,
        trials_ok=ok,
        failed={ErrorCode.EXCHANGE_UNAVAILABLE: bad} if bad else {},
        failures_in_a_row=bad,
        exchange_ms=latency_ms,
        slowness=slowness,
        methods=["fetch_ticker", "fetch_time"],
    )


def lane(**reports: float) -> tuple[LaneHealth, float]:
    """A lane that has had these reports for a while, and the clock by then."""
    health, now_s = LaneHealth("okx", 1.0, CONFIG), 100.0
    for _ in range(100):
        health.observe("w", report(**reports), now_s)  # type: ignore[arg-type]
        now_s += EVERY_S
    return health, now_s


def test_one_outage() -> None:
    """Ten calls a second, which fail from 0 s to 20 s; a report every 200 ms."""
    health, began_s = lane(ok=2)
    states: list[tuple[float, State]] = []
    trials: list[float] = []
    trial_s: float | None = None
    shares: dict[float, float] = {}
    for step in range(140):
        at_s = step * EVERY_S
        down = at_s < 20
        if health.serving:
            said = report(bad=2) if down else report(ok=2)
        elif trial_s is not None:
            said, trial_s = report(bad=1) if trial_s < 20 else report(ok=1), None
        else:
            said = report()
        health.observe("w", said, began_s + at_s)
        state = health.state(began_s + at_s)
        if not states or states[-1][1] is not state:
            states.append((round(at_s, 1), state))
        if states[-1][0] > 20:
            shares[round(at_s - states[-1][0], 1)] = round(health.share, 2)
        for late_s in (0.0, 0.1):
            if trial_s is None and health.due(began_s + at_s + late_s):
                trial_s = at_s + late_s
                assert health.sent(began_s + trial_s)
                trials.append(round(trial_s, 1))
    assert states == [(0.0, State.HEALTHY), (0.2, State.DEGRADED), (1.4, State.OFFLINE), (23.4, State.HEALTHY)]
    assert trials == [1.2, 3.4, 7.6, 12.8, 18.0, 23.2]
    assert "| 3.4 s, 7.6 s, 12.8 s, 18.0 s | more trials fail" in PAGE
    assert "| 23.2 s | the next trial succeeds" in PAGE
    assert [shares[after_s] for after_s in (0.0, 1.0, 2.0, 3.0)] == [0.1, 0.11, 0.44, 1.0]
    assert "| 10 % | 11 % | 25 % | 44 % | 69 % | 100 % |" in PAGE


@pytest.mark.parametrize(
    ("every", "words"),
    [(1, "all"), (2, "every second"), (3, "every third"), (4, "every fourth"), (5, "every fifth"), (10, "every tenth")],
)
def test_how_soon_failures_are_noticed(every: int, words: str) -> None:
    calls = _calls(every)
    assert f"| {words} | {f'{calls} calls' if calls else 'never; its share is halved'} |" in PAGE


def _calls(every: int) -> int | None:
    """How many calls it takes, the good ones first."""
    failures = Failures()
    for number in range(1, 10_000):
        bad = int(number % every == 0)
        failures.observe(report(ok=1 - bad, bad=bad), bad, CONFIG.error_rate, number * 0.1)
        if failures.too_many:
            return number
    return None


@pytest.mark.parametrize(("percent", "left"), [(0, 100), (5, 75), (10, 50), (15, 25)])
def test_share_by_errors(percent: int, left: int) -> None:
    health, _ = lane(ok=20 - percent // 5, bad=percent // 5)
    assert round(health.share * 100) == left
    rows = [line for line in PAGE.splitlines() if line.startswith(("| error rate", "| share left"))]
    assert rows[0].split("|").index(f" {percent} % ") == rows[1].split("|").index(f" {left} % ")


@pytest.mark.parametrize(("times", "left"), [(2, 100), (3, 44), (4, 25), (4.9, 17)])
def test_share_by_latency(times: float, left: int) -> None:
    health, _ = lane(ok=10, latency_ms=200.0, slowness=times)
    assert round(health.share * 100) == left
    assert f"{left} %" in PAGE


@pytest.mark.parametrize(("latency_ms", "after_s"), [(40.0, 0.4), (300.0, 1.2)])
def test_no_answers(latency_ms: float, after_s: float) -> None:
    health, now_s = lane(ok=2, latency_ms=latency_ms)
    answered_s = now_s - EVERY_S
    while health.serving:
        now_s += 0.01
        silent_ms = (now_s - answered_s) * 1000
        health.observe("w", LaneReport("okx", exchange_ms=latency_ms, unanswered=3, silent_ms=silent_ms), now_s)
    assert round(now_s - answered_s, 1) == after_s
    assert f"in {latency_ms:.0f} ms" in PAGE
    assert f"after {after_s} s" in PAGE


def crowd(callers: int) -> tuple[float, float, float]:
    """A crowd of one caller beside others: their mean and their longest wait, and when the crowd is over, seconds."""
    fleet = VirtualFleet({"kucoin": Limit(2_000, 30.0, {TICKER: 15})})
    many = [fleet.ask(0.0, 600.0, "kucoin", caller="crowd") for _ in range(1_500)]
    others = [
        fleet.ask(30.0 + number / 2, 20.0, "kucoin", caller=f"caller {number % callers}")
        for number in range(250 if callers else 0)
    ]
    fleet.run(700.0)
    assert all(each.ok for each in (*many, *others))
    waits_s = [each.ended_s - each.at_s for each in others] or [0.0]
    return sum(waits_s) / len(waits_s), max(waits_s), max(each.ended_s for each in many)


def test_a_crowd_of_one_caller() -> None:
    text = " ".join(PAGE.split())
    *_, alone_s = crowd(0)
    for callers in (1, 5):
        mean_s, most_s, over_s = crowd(callers)
        assert f"These wait for {mean_s:.1f} s on average, and none for 2 s" in text
        assert most_s < 2
        assert f"the last of the 1,500 after {over_s:.0f} s in place of {alone_s:.0f} s" in text
