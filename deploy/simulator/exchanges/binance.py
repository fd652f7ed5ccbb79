"""Binance spot (`/api/v3`), its system status, and empty futures lists for ccxt's default `load_markets`.

Formats: the Binance spot API's `rest-api.md`, as ccxt 4.5 reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from urllib.parse import parse_qsl

import msgspec

from ..accounts import ACCOUNTS, Account, Signed, digest, same
from ..board import Listing, Trade
from ..frames import FRAMES
from ..ledger import Verdict
from ..limits import Query
from ..prices import TICK_MS
from ..venue import Answer, BadParameter, Endpoint, Json, Venue, moment, reply, whole

_ADVICE = "Please use WebSocket Streams for live updates to avoid"
_FRAMES = {name: frame for name, frame in FRAMES.items() if name not in {"3M", "1y"}}


_RECEIVE_WINDOW_MS = 10_000


def _account(query: Query) -> Json:
    account = ACCOUNTS[query["account"]]
    balances = (("BTC", account.btc), ("USDT", account.usdt))
    return {
        "makerCommission": 10,
        "takerCommission": 10,
        "canTrade": False,
        "updateTime": 1,
        "accountType": "SPOT",
        "balances": [{"asset": asset, "free": free, "locked": "0.00000000"} for asset, free in balances],
        "permissions": ["SPOT"],
    }


def _amount(number: float) -> str:
    return f"{number:.8f}"


class Binance(Venue):
    """Binance."""

    name = "binance"
    status_endpoint = "/sapi/v1/system/status"
    _orders = 0

    def pair_id(self, coin: str, quote: str) -> str:
        """`BTCUSDT`."""
        return coin + quote

    def endpoints(self) -> list[Endpoint]:
        """Public spot endpoints, and what load_markets asks of the others."""
        api = "/api/v3/"
        return [
            Endpoint(api + "ping", _nothing, "start"),
            Endpoint(api + "time", self._time, "never"),
            Endpoint(api + "exchangeInfo", self._exchange_info, "start"),
            Endpoint(api + "depth", self._depth),
            Endpoint(api + "trades", self._trades),
            Endpoint(api + "historicalTrades", self._trades),
            Endpoint(api + "aggTrades", self._agg_trades),
            Endpoint(api + "klines", self._klines),
            Endpoint(api + "uiKlines", self._klines),
            Endpoint(api + "avgPrice", self._average),
            Endpoint(api + "ticker/24hr", lambda query: self._each(query, self._ticker)),
            Endpoint(api + "ticker/price", lambda query: self._each(query, self._price)),
            Endpoint(api + "ticker/bookTicker", lambda query: self._each(query, self._best)),
            Endpoint(api + "ticker", lambda query: self._each(query, self._window)),
            Endpoint(api + "ticker/tradingDay", lambda query: self._each(query, self._window)),
            Endpoint(api + "account", _account, signed=True),
            Endpoint(api + "openOrders", lambda _: [], signed=True),
            Endpoint(api + "myTrades", lambda _: [], signed=True),
            Endpoint(api + "order", self._order, "never", signed=True),
            Endpoint(self.status_endpoint, lambda _: {"status": 0, "msg": "normal"}, "start"),
            *(
                endpoint
                for futures in ("/fapi/v1/", "/dapi/v1/")
                for endpoint in (
                    Endpoint(futures + "ping", _nothing, "start"),
                    Endpoint(futures + "time", self._time, "never"),
                    Endpoint(futures + "exchangeInfo", self._no_futures, "start"),
                )
            ),
        ]

    def _time(self, _: Query) -> Json:
        return {"serverTime": self.clock.now_ms()}

    def _order(self, _: Query) -> Json:
        now_ms, nothing = self.clock.now_ms(), _amount(0)
        self._orders += 1
        return {
            "symbol": "BTCUSDT",
            "orderId": self._orders,
            "clientOrderId": f"order-{self._orders}",
            "transactTime": now_ms,
            "price": nothing,
            "origQty": nothing,
            "executedQty": nothing,
            "cummulativeQuoteQty": nothing,
            "status": "NEW",
            "timeInForce": "GTC",
            "type": "LIMIT",
            "side": "BUY",
        }

    def _exchange_info(self, _: Query) -> Json:
        return {
            "timezone": "UTC",
            "serverTime": self.clock.now_ms(),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300000},
            ],
            "exchangeFilters": [],
            "symbols": [_symbol(listing) for listing in self.board.listings.values()],
        }

    def _no_futures(self, _: Query) -> Json:
        return {
            "timezone": "UTC",
            "serverTime": self.clock.now_ms(),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400},
            ],
            "exchangeFilters": [],
            "assets": [],
            "symbols": [],
        }

    def _depth(self, query: Query) -> Json:
        listing = self.pair(query, "symbol")
        bids, asks = self.board.book(listing, whole(query, "limit", 100, 5000))
        unit, decimals = 10.0**-listing.decimals, listing.lot_decimals
        sides = [
            [[f"{level.price * unit:.8f}", f"{round(level.amount, decimals):.8f}"] for level in side]
            for side in (bids, asks)
        ]
        return {"lastUpdateId": self.board.quote(listing).number, "bids": sides[0], "asks": sides[1]}

    def _past_trades(self, query: Query) -> tuple[Listing, list[Trade]]:
        listing = self.pair(query, "symbol")
        start, end = moment(query, "startTime"), moment(query, "endTime")
        trades = self.board.trades(
            listing,
            None if start is None else int(start),
            None if end is None else int(end),
            whole(query, "limit", 500, 1000),
        )
        return listing, trades

    def _agg_trades(self, query: Query) -> list[Json]:
        listing, trades = self._past_trades(query)
        return [
            {
                "a": trade.number,
                "p": _price(listing, trade.price),
                "q": _lot(listing, trade.amount),
                "f": trade.number,
                "l": trade.number,
                "T": trade.at_ms,
                "m": not trade.buy,
                "M": True,
            }
            for trade in trades
        ]

    def _trades(self, query: Query) -> list[Json]:
        listing, trades = self._past_trades(query)
        return [
            {
                "id": trade.number,
                "price": _price(listing, trade.price),
                "qty": _lot(listing, trade.amount),
                "quoteQty": _amount(listing.number(trade.price) * round(trade.amount, listing.lot_decimals)),
                "time": trade.at_ms,
                "isBuyerMaker": not trade.buy,
                "isBestMatch": True,
            }
            for trade in trades
        ]

    def _klines(self, query: Query) -> list[list[object]]:
        listing = self.pair(query, "symbol")
        frame = _FRAMES.get(query.get("interval", ""))
        if frame is None:
            raise BadParameter("interval")
        start_ms, end_ms = moment(query, "startTime"), moment(query, "endTime")
        candles = self.board.candles(
            listing,
            frame,
            None if start_ms is None else start_ms / 1000,
            None if end_ms is None else end_ms / 1000,
            whole(query, "limit", 500, 1000),
        )
        return [
            [
                candle.start_s * 1000,
                *(_price(listing, price) for price in candle[1:5]),
                _amount(candle.volume),
                frame.following(candle.start_s) * 1000 - 1,
                _amount(candle.turnover),
                int(frame.length_s * 1000 / TICK_MS),
                _amount(candle.volume / 2),
                _amount(candle.turnover / 2),
                "0",
            ]
            for candle in candles
        ]

    def _average(self, query: Query) -> Json:
        listing = self.pair(query, "symbol")
        quote = self.board.quote(listing)
        return {"mins": 5, "price": _price(listing, quote.last), "closeTime": quote.at_ms}

    def _each(self, query: Query, show: Callable[[Listing], Json]) -> Json | list[Json]:
        if "symbol" in query:
            return show(self.pair(query, "symbol"))
        if "symbols" in query:
            try:
                ids = msgspec.json.decode(query["symbols"], type=list[str])
            except msgspec.MsgspecError:
                raise BadParameter("symbols") from None
            return [show(self.listing(pair_id)) for pair_id in ids]
        return [show(listing) for listing in self.board.listings.values()]

    def _price(self, listing: Listing) -> Json:
        return {"symbol": listing.id, "price": _price(listing, self.board.quote(listing).last)}

    def _best(self, listing: Listing) -> Json:
        quote = self.board.quote(listing)
        return {
            "symbol": listing.id,
            "bidPrice": _price(listing, quote.bid),
            "bidQty": _lot(listing, quote.bid_size),
            "askPrice": _price(listing, quote.ask),
            "askQty": _lot(listing, quote.ask_size),
        }

    def _window(self, listing: Listing) -> Json:
        quote = self.board.quote(listing)
        day = quote.day
        return {
            "symbol": listing.id,
            "priceChange": _price(listing, quote.last - day.open),
            "priceChangePercent": f"{(quote.last - day.open) / day.open * 100:.3f}",
            "weightedAvgPrice": _price(listing, quote.day_average),
            "openPrice": _price(listing, day.open),
            "highPrice": _price(listing, day.high),
            "lowPrice": _price(listing, day.low),
            "lastPrice": _price(listing, quote.last),
            "volume": _amount(day.volume),
            "quoteVolume": _amount(day.turnover),
            "openTime": quote.opened_ms,
            "closeTime": quote.at_ms,
            "firstId": quote.number - (quote.at_ms - quote.opened_ms) // TICK_MS,
            "lastId": quote.number,
            "count": (quote.at_ms - quote.opened_ms) // TICK_MS + 1,
        }

    def _ticker(self, listing: Listing) -> Json:
        quote = self.board.quote(listing)
        return {
            **self._window(listing),
            **self._best(listing),
            "prevClosePrice": _price(listing, quote.day.open),
            "lastQty": _lot(listing, quote.amount),
        }

    def authenticate(self, signed: Signed) -> Account | Answer:
        """The key in a header, an HMAC in hex of the query or of a POST's body in its last parameter, a timestamp."""
        account = ACCOUNTS.get(signed.headers.get("X-MBX-APIKEY", ""))
        if account is None:
            text = "Invalid API-key, IP, or permissions for action."
            return reply({"code": -2015, "msg": text}, 401)
        query, _, signature = (signed.query or signed.body).rpartition("&signature=")
        if not same(signature, digest(account.secret, query).hex()):
            return reply({"code": -1022, "msg": "Signature for this request is not valid."}, 400)
        sent_ms = dict(parse_qsl(query)).get("timestamp", "")
        if not sent_ms.isdecimal() or abs(self.clock.now_ms() - int(sent_ms)) > _RECEIVE_WINDOW_MS:
            return reply({"code": -1021, "msg": "Timestamp for this request is outside of the recvWindow."}, 400)
        return account

    def usage_headers(self, endpoint: str, verdict: Verdict) -> dict[str, str]:
        """`X-MBX-USED-WEIGHT-1M` on every answer, past the limit `Retry-After` in seconds too."""
        headers: dict[str, str] = {}
        if verdict.usages:
            used = str(verdict.usages[0].used)
            if endpoint.startswith("/sapi/"):
                headers["X-SAPI-USED-IP-WEIGHT-1M"] = used
            else:
                headers["X-MBX-USED-WEIGHT"] = headers["X-MBX-USED-WEIGHT-1M"] = used
        if verdict.refusal is not None:
            headers["Retry-After"] = str(max(1, -int(-verdict.retry_s // 1)))
        return headers

    def refuse(self, verdict: Verdict) -> Answer:
        """429 and -1003, or 418 with the end of the ban in milliseconds."""
        if verdict.refusal == "ban":
            until_ms = self.clock.now_ms() + round(verdict.retry_s * 1000)
            text = f"Way too much request weight used; IP banned until {until_ms}. {_ADVICE} bans."
            return reply({"code": -1003, "msg": text}, 418)
        usage = verdict.fullest()
        amount = 0 if usage is None else usage.bucket.amount
        text = (
            f"Too much request weight used; current limit is {amount} request weight per 1 MINUTE. {_ADVICE} polling."
        )
        return reply({"code": -1003, "msg": text}, 429)

    def unknown_symbol(self, pair_id: str) -> Answer:
        """-1121."""
        return reply({"code": -1121, "msg": "Invalid symbol."}, 400)

    def bad_parameter(self, name: str) -> Answer:
        """-1100."""
        return reply({"code": -1100, "msg": f"Illegal characters found in parameter '{name}'."}, 400)

    def unknown_path(self) -> Answer:
        """A bare 404 page."""
        return Answer(404, b"<html><head><title>404 Not Found</title></head></html>", "text/html")

    def error(self, status: Literal[500, 503]) -> Answer:
        """-1000 or -1008."""
        if status == 500:
            return reply({"code": -1000, "msg": "An unknown error occurred while processing the request."}, 500)
        return reply({"code": -1008, "msg": "Server is currently overloaded with other requests."}, 503)

    def maintenance(self, endpoint: str) -> Answer:
        """Status 1, and 503 for all else."""
        if endpoint == self.status_endpoint:
            return reply({"status": 1, "msg": "system_maintenance"})
        return reply({"code": 1, "msg": "System is under maintenance."}, 503)


def _price(listing: Listing, steps: float) -> str:
    return f"{steps * 10.0**-listing.decimals:.8f}"


def _lot(listing: Listing, amount: float) -> str:
    return f"{round(amount, listing.lot_decimals):.8f}"


def _nothing(_: Query) -> Json:
    return {}


def _symbol(listing: Listing) -> Json:
    tick, lot = f"{10.0**-listing.decimals:.8f}", f"{10.0**-listing.lot_decimals:.8f}"
    return {
        "symbol": listing.id,
        "status": "TRADING",
        "baseAsset": listing.coin.code,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "90000000.00000000", "stepSize": lot},
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": "0.00000000",
                "maxQty": "100.00000000",
                "stepSize": "0.00000000",
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }
