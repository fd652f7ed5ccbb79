"""A fleet whose file and whose users say Huobi: its exchange is `htx` today."""

from pathlib import Path
from typing import Any

from deploy.local import Services
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from tests.support.fleet import Client

BTC: dict[str, Any] = {"symbol": "BTC/USDT"}


async def test_huobi_is_a_lane_and_a_name_in_requests(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with Simulator(exchanges=["htx"]) as simulator:
        lane = {"ccxt": ccxt_config("htx", simulator.urls["htx"])}
        config = {"lanes": {"huobi": lane}, "groups": {"chinese": {"exchanges": ["huobipro"]}}}
        fleet = Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1)
        async with fleet, Client.on(vhost) as client:
            for name in ("huobi", "huobipro", "htx", "chinese"):
                answer = await client.ask("fetch_ticker", BTC, exchanges=[name])
                assert (answer.result.exchange, answer.result.lane) == ("htx", "huobi")
            gone = await client.ask("fetch_ticker", BTC, exchanges=["bitmex"])
            assert gone.code == "unknown_exchange"
            assert gone.result.error is not None
            assert "ccxt gave bitmex up" in gone.result.error.message
        counted = await simulator.counters()
        assert counted["violations"] == 0
        assert counted["exchanges"]["htx"]["requests"] >= 4
