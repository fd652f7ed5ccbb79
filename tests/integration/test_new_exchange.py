"""Adding an exchange touches one file: the table written in CONTRIBUTING.md is opened, charged and heeded as said."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from schemas.messages import ErrorCode
from tests.support.exchange_lanes import Answers, Lanes, call
from workers.exchange.errors import NoBudget, judge
from workers.limits import tables

GUIDE: Final = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
BTC: Final[dict[str, Any]] = {"symbol": "BTC/USD"}
MARKET: Final = (
    '{"name":"BTC/USD","market_symbol":"btcusd","base_currency":"BTC","base_decimals":8,"counter_currency":"USD",'
    '"counter_decimals":0,"minimum_order_value":"10","trading":"Enabled",'
    '"description":"Bitcoin / U.S. dollar","market_type":"SPOT"}'
)
TICKER: Final = '{"pair":"BTC/USD","last":"5","timestamp":"1"}'


@pytest.fixture
def bitstamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A checkout with one more file in it."""
    (table,) = re.findall(
        r"```toml\n# workers/limits/bitstamp.toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL
    )
    folder = shutil.copytree(tables.LIMITS, tmp_path / "limits", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "bitstamp.toml").write_text(table, encoding="utf-8")
    monkeypatch.setattr(tables, "LIMITS", folder)
    tables.shipped.cache_clear()
    yield
    tables.shipped.cache_clear()


def settings(server: Answers) -> dict[str, Any]:
    found = server.settings("bitstamp")
    del found["markets"]
    return found


@pytest.mark.usefixtures("bitstamp")
async def test_a_table_alone_makes_an_exchange_ours(server: Answers, lanes: Lanes) -> None:
    server.by_path = {"markets/": f"[{MARKET}]", "currencies/": "[]", "ticker/": TICKER}
    lane, budget = lanes.lane("bitstamp", settings(server))
    await lane.open()
    assert lane.markets_known == 1
    assert (await lane.call("fetch_ticker", BTC, call("bitstamp")))["last"] == 5

    assert len(budget.granted) == len(server.hits) >= 2
    for charges in budget.granted:
        assert [(charge.key, charge.cost) for charge in charges] == [("second", 1), ("minute", 1)]

    # Its own words for one call too many, at status 200, where ccxt knows nothing of them.
    server.by_path = {"ticker/": '{"status":"error","reason":"Request rate limit exceeded","code":"400.002"}'}
    attempt = call("bitstamp")
    with pytest.raises(Exception) as raised:
        await lane.call("fetch_ticker", BTC, attempt)
    verdict = judge(raised.value, attempt)
    assert (verdict.code, verdict.pause_s) == (ErrorCode.RATE_LIMITED, 60)
    with pytest.raises(NoBudget) as paused:
        await lane.call("fetch_order_book", BTC, call("bitstamp", max_wait_s=1))
    assert paused.value.reason == "paused"


async def test_without_the_table_it_is_paced_by_ccxt(server: Answers, lanes: Lanes) -> None:
    server.by_path = {"markets/": f"[{MARKET}]", "currencies/": "[]", "ticker/": TICKER}
    lane, budget = lanes.lane("bitstamp", settings(server))
    await lane.open()
    assert {charge.bucket.kind for charges in budget.granted for charge in charges} == {"paced"}
