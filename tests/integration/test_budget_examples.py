"""The examples in docs/budgets.md come from the code that grants."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from schemas.runtime.store import connect
from workers.budget.budget import Budget
from workers.budget.grants import Grant
from workers.budget.ledger import Ledger
from workers.budget.rules import PARTS
from workers.budget.share import Share, TooSmall
from workers.limits.costs import Charge, load
from workers.limits.wire import NOTHING, read

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "budgets.md").read_text(encoding="utf-8")
NOW_KEY: Final = "test:now"
TEST_CLOCK: Final = f"local function clock() return tonumber(redis.call('GET', '{NOW_KEY}') or 0) end\n"
# A minute's start, far enough ahead that Redis, by its own clock, drops nothing.
START_US: Final = 4_000_000_000_000_000 // 60_000_000 * 60_000_000
TICKERS: Final = load("okx", 110).charges(("public",), "GET", "market/ticker", NOTHING, 1.0)
ONE_A_SECOND: Final = load("kraken", 1000).charges(("public",), "GET", "Ticker", NOTHING, 1.0)
WEIGHT_2: Final = load("binance", 50).charges(
    ("public",), "GET", "ticker/24hr", read("ticker/24hr", {"url": "https://x/ticker/24hr?symbol=BTCUSDT"}), 0.4
)


class Clocked:
    """Budgets on a clock of the test's own."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def at(self, now_s: float) -> None:
        await self.client.set(NOW_KEY, START_US + round(now_s * 1e6))

    def budget(self, *, measured: bool = True) -> Budget:
        budget = Budget(Ledger(self.client, "x:1", clock=TEST_CLOCK))
        for number in range(300 if measured else 0):
            budget.spread.answered(100 + number * 0.1, "e", 0.05)
        return budget


@pytest_asyncio.fixture(loop_scope="function")
async def clocked(redis_url: str) -> AsyncIterator[Clocked]:
    client: Any = connect(redis_url, timeout_s=5)
    clocked = Clocked(client)
    await clocked.at(0)
    yield clocked
    await client.aclose()


async def granted(budget: Budget, charges: Sequence[Charge], max_wait_s: float = 2.4) -> Grant:
    answer = await budget.reserve(charges, max_wait_s=max_wait_s)
    assert isinstance(answer, Grant)
    return answer


async def at_once(budget: Budget, charges: Sequence[Charge], *, bulk: bool = False) -> list[Grant]:
    """All that is granted without a wait."""
    grants: list[Grant] = []
    while isinstance(answer := await budget.reserve(charges, max_wait_s=0, bulk=bulk), Grant):
        grants.append(answer)
    return grants


def leaves_s(grant: Grant) -> float:
    return (grant.at_us - START_US) / 1e6


@pytest.mark.parametrize(("measured", "row"), [(True, "leaves at"), (False, "before the jitter was measured (50 ms)")])
async def test_26_calls_at_once(clocked: Clocked, measured: bool, row: str) -> None:
    budget = clocked.budget(measured=measured)
    instants_s = [leaves_s(await granted(budget, TICKERS)) for _ in range(26)]
    assert instants_s[:20] == [0] * 20
    assert f"| {row} | 0 | {' | '.join(f'{instant_s:.3f} s' for instant_s in instants_s[20:])} |" in PAGE


async def test_bulk_leaves_a_fifth(clocked: Clocked) -> None:
    budget = clocked.budget()
    counts = len(await at_once(budget, TICKERS, bulk=True)), len(await at_once(budget, TICKERS))
    assert counts == (16, 4)
    assert "bulk calls get 16 of the 20 (`live_reserve = 0.2`). Live calls still find 4." in PAGE


async def test_a_late_call(clocked: Clocked) -> None:
    budget = clocked.budget()
    one, other = await granted(budget, ONE_A_SECOND), await granted(budget, ONE_A_SECOND)
    assert f"B at {leaves_s(other):.3f} s" in PAGE
    await clocked.at(0.25)
    await budget.arrived(ONE_A_SECOND, one, 40_000)
    await clocked.at(0.99)
    moved = await budget.again(ONE_A_SECOND, other, max_wait_s=1)
    assert isinstance(moved, Grant)
    assert f"moved to {leaves_s(moved):.3f} s" in PAGE


async def test_the_end_of_a_minute(clocked: Clocked) -> None:
    await clocked.budget().set_clock(0.3, 0.02)
    told: list[str] = []
    for asked_s in (59.59, 59.61):
        await clocked.at(asked_s)
        told.append(f"{leaves_s(await granted(clocked.budget(), WEIGHT_2)):.2f} s")
    assert told == ["59.59 s", "59.80 s"]
    assert all(instant in PAGE for instant in told)


async def test_a_stranger(clocked: Clocked) -> None:
    await clocked.at(10)
    budget = clocked.budget()
    grants = [await granted(budget, WEIGHT_2, 0) for _ in range(600)]
    await clocked.at(10.05)
    for number, grant in enumerate(grants, 1):
        counted = 2 * number + number // 2
        await budget.observe(WEIGHT_2[0], grant.ranks[0], grant, counted, late_us=0, span_s=60)
    await clocked.at(10.1)
    left = 2 * len(await at_once(budget, WEIGHT_2))
    assert f"6,000 − 1,500 − {6000 - 1500 - left:,} = {left:,}" in PAGE


async def test_too_many(clocked: Clocked) -> None:
    budget = clocked.budget()
    held: list[float] = []
    for began_s, looks_s in ((0, (300, 600)), (900, (300, 600, 1200))):
        await clocked.at(began_s)
        met = (await at_once(budget, TICKERS))[-1]
        learned = await budget.limited(TICKERS, met)
        assert learned is not None
        held.append(learned.effective)
        for after_s in looks_s:
            await clocked.at(began_s + after_s)
            (use,) = (await budget.usage()).values()
            held.append(20 * use.effective)
    assert held == [18, 19, 20, 18, 18.5, 19, 20]
    assert "holds 18 from then on. After 5 minutes it is 19 and after 10\nminutes 20 again." in PAGE
    assert "18.5 after 5 minutes, 19 after 10, 20\nafter 20." in PAGE


async def test_after_a_pause(clocked: Clocked) -> None:
    holds: list[int] = []
    for after_s in (0, 2, 4, 6, 8):
        await clocked.client.flushdb()
        await clocked.at(0)
        await clocked.budget().pause(30, "429")
        await clocked.at(30 + after_s)
        holds.append(len(await at_once(clocked.budget(), TICKERS)))
    assert holds == [10, 12, 15, 17, 20]
    assert "starts with 10. After 2 s it holds 12, after 4 s 15, after 6 s 17, after 8 s 20." in PAGE


async def test_guesses_grow(clocked: Clocked) -> None:
    budget, now_s = clocked.budget(), 0.0
    pauses_s: list[float] = []
    for _ in range(8):
        await clocked.at(now_s)
        met = await granted(budget, TICKERS, 0)
        pauses_s.append(await budget.pause(2.0, "429", told=False, grant=met))
        now_s += pauses_s[-1] + 0.001
    assert pauses_s == [2, 4, 8, 16, 32, 64, 128, 128]
    assert "The pause is 2 s." in PAGE
    assert "4, 8, 16, 32, 64, 128 s, and then it stays" in PAGE


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_shares(workers: int) -> None:
    cells = [str(workers)]
    for charges in (TICKERS, WEIGHT_2, ONE_A_SECOND):
        share = Share(
            PARTS // workers, lasts_us=300_000_000, since_us=0, offset_us=0, far_us=10_000, reserve=0.2, effective={}
        )
        keyed = [(charge.key, charge) for charge in charges]
        try:
            first = at_us = share.plan(keyed, 0, error_us=0, bulk=False)
        except TooSmall:
            cells.append("none")
            continue
        count = 0
        while at_us == first:
            share.take(keyed, at_us)
            count += 1
            at_us = share.plan(keyed, 0, error_us=0, bulk=False)
        whole = f"{count * round(charges[0].cost):,}"
        cells.append(whole if workers == 1 else f"{whole} each")
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {workers} |"))
    assert row.replace(" (`share_too_small`)", "") == f"| {' | '.join(cells)} |"
