"""Whatever a producer's `params` hold: the simulator, which counts as the exchange does, counts what was paid."""

import asyncio
import contextlib
from typing import Any

import pytest

from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.errors import InvalidMessage
from tests.support.exchange_lanes import Lanes, call
from workers.exchange.lane_exchange import LaneExchange

ALIASES = ("XXBTZUSD", "XBTUSD", "XBT/USD", "BTC/USD", "BTCUSD", "xbtusd")


async def tried(lane: LaneExchange, method: str, params: dict[str, Any], max_wait_s: float) -> None:
    """Asks; "no budget in time" and "no such pair" are answers too."""
    args = {"symbol": "BTC/USDT", "params": params}
    with contextlib.suppress(Exception):
        await lane.call(method, args, call(lane.exchange, max_wait_s=max_wait_s))


async def test_no_pair_s_names_and_no_invented_ones_break_kraken_s_limits(lanes: Lanes) -> None:
    async with Simulator(exchanges=["kraken"]) as simulator:
        lane, _ = lanes.lane("kraken", ccxt_config("kraken", simulator.urls["kraken"]))
        await lane.open()
        pairs = [*ALIASES, *(f"A{number}" for number in range(60))]
        methods = ("fetch_ohlcv", "fetch_trades")
        await asyncio.gather(*(tried(lane, method, {"pair": pair}, 2) for pair in pairs for method in methods))
        counters = (await simulator.counters())["exchanges"]["kraken"]
        assert counters["violations"] == 0, counters["broken"]
        assert counters["buckets"]["OHLC"]["weight"] > 1


@pytest.mark.parametrize(
    "params", [{"pair": ["A1"]}, {"pair": True}, {"pair": None}, {"Pair": "XBTUSD"}, {"PAIR ": "X"}]
)
async def test_what_is_no_text_where_a_text_belongs_is_refused(lanes: Lanes, params: dict[str, Any]) -> None:
    lane, budget = lanes.lane("kraken", ccxt_config("kraken", "http://127.0.0.1:9"))
    with pytest.raises(InvalidMessage, match=f"params.{next(iter(params))}"):
        await lane.call("fetch_ohlcv", {"symbol": "BTC/USDT", "params": params}, call("kraken"))
    assert not budget.asked


async def test_what_binance_weighs_is_paid(lanes: Lanes) -> None:
    async with Simulator(exchanges=["binance"]) as simulator:
        lane, budget = lanes.lane("binance", ccxt_config("binance", simulator.urls["binance"]))
        await lane.open()
        books = ["5", 5, "5000", 5000, "05000", "0", 0, -1, 5e3, "5e3", "many", "", " 5000"]
        tickers = ['["BTCUSDT"]', "[]", "x", '["BTCUSDT","ETHUSDT"]']
        asked: list[tuple[str, dict[str, Any]]] = [
            *(("fetch_order_book", {"limit": limit}) for limit in books),
            *(("fetch_ticker", {"symbols": symbols}) for symbols in tickers),
            *(("fetch_ticker", {"symbol": symbol}) for symbol in ("", "ETHUSDT")),
        ]
        for method, params in asked:
            before = (await simulator.counters())["exchanges"]["binance"]["buckets"]["weight"]["weight"]
            known = len(budget.granted)
            await tried(lane, method, params, 20)
            counted = (await simulator.counters())["exchanges"]["binance"]["buckets"]["weight"]["weight"] - before
            paid = sum(charge.cost for charges in budget.granted[known:] for charge in charges)
            assert paid >= counted > 0, (method, params)
