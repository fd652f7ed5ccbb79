"""A Binance that lists what a test wants, on the HTTP server with given answers."""

from typing import Any

from tests.support.exchange_lanes import Answers, Lanes
from workers.exchange.lane_exchange import LaneExchange

MARKET = (
    '{"symbol":"%sUSDT","status":"TRADING","baseAsset":"%s","quoteAsset":"USDT","filters":[],'
    '"permissions":["SPOT"],"isSpotTradingAllowed":true}'
)
TICKER = '{"symbol":"BTCUSDT","lastPrice":"5","bidPrice":"4","askPrice":"6"}'


def lists(server: Answers, *coins: str) -> None:
    """Has it list these coins from now on."""
    server.by_path["exchangeInfo"] = f'{{"symbols":[{",".join(MARKET % (coin, coin) for coin in coins)}]}}'


def binance(lanes: Lanes, server: Answers, **more: Any) -> LaneExchange:
    """A lane to it."""
    settings = server.settings("binance")
    del settings["markets"]
    settings |= {"options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False}}
    settings |= {"has": {"fetchCurrencies": False}}
    return lanes.lane("binance", settings, **more)[0]
