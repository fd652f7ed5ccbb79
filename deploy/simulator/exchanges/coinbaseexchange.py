"""Coinbase Exchange's public market endpoints. Formats: docs.cdp.coinbase.com (Exchange), as ccxt 4.5 reads them.

It is here for its limit, a token bucket: the other exchanges count windows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from ..board import COINS, Level, Listing
from ..frames import FRAMES
from ..ledger import Verdict
from ..limits import Query
from ..venue import Answer, BadParameter, Endpoint, Json, Venue, iso, plain, reply, whole

_PRODUCTS = "/products"
_GRANULARITIES = {"60": "1m", "300": "5m", "900": "15m", "3600": "1h", "21600": "6h", "86400": "1d"}
_CANDLES_MOST = 300
_LEVELS = {"1": 1, "2": 50}
_HOURS_OF_SPARK_LINES = 24


class CoinbaseExchange(Venue):
    """Coinbase Exchange."""

    name = "coinbaseexchange"
    quotes = ("USDT", "USD")

    def pair_id(self, coin: str, quote: str) -> str:
        """`BTC-USD`."""
        return f"{coin}-{quote}"

    def endpoints(self) -> list[Endpoint]:
        """Public endpoints; those of one product are counted under `{id}`."""
        return [
            Endpoint("/time", self._time, "never"),
            Endpoint("/currencies", self._currencies, "start"),
            Endpoint(_PRODUCTS, self._products, "start"),
            Endpoint(_PRODUCTS + "/spark-lines", self._spark_lines),
            Endpoint(_PRODUCTS + "/{id}", lambda query: _product(self.pair(query, "id")), "start"),
            Endpoint(_PRODUCTS + "/{id}/book", self._book),
            Endpoint(_PRODUCTS + "/{id}/candles", self._candles),
            Endpoint(_PRODUCTS + "/{id}/stats", self._stats),
            Endpoint(_PRODUCTS + "/{id}/ticker", self._ticker),
            Endpoint(_PRODUCTS + "/{id}/trades", self._trades),
        ]

    def resolve(self, path: str, query: Query) -> Endpoint | None:
        """Also the paths that hold a product's id."""
        found = self.routes.get(path)
        if found is not None or not path.startswith(_PRODUCTS + "/"):
            return found
        query["id"], slash, rest = path[len(_PRODUCTS) + 1 :].partition("/")
        return self.routes.get(f"{_PRODUCTS}/{{id}}{slash}{rest}")

    def _time(self, _: Query) -> Json:
        now_ms = self.clock.now_ms()
        return {"iso": iso(now_ms)[:23] + "Z", "epoch": now_ms / 1000}

    def _currencies(self, _: Query) -> list[Json]:
        codes = [(coin.code, coin.name, "crypto") for coin in COINS]
        return [_currency(*each) for each in (*codes, ("USDT", "Tether", "crypto"), ("USD", "US Dollar", "fiat"))]

    def _products(self, _: Query) -> list[Json]:
        return [_product(listing) for listing in self.board.listings.values()]

    def _spark_lines(self, _: Query) -> Json:
        # The newest hour first: opening second, low, high, open, close.
        lines: Json = {}
        for listing in self.board.listings.values():
            candles = self.board.candles(listing, FRAMES["1h"], None, None, _HOURS_OF_SPARK_LINES)
            lines[listing.id] = [
                [
                    candle.start_s,
                    *(listing.number(price) for price in (candle.low, candle.high, candle.open, candle.close)),
                ]
                for candle in reversed(candles)
            ]
        return lines

    def _book(self, query: Query) -> Json:
        listing = self.pair(query, "id")
        depth = _LEVELS.get(query.get("level", "1"))
        if depth is None:
            raise BadParameter("level")
        bids, asks = self.board.book(listing, depth)
        quote = self.board.quote(listing)
        return {
            "bids": _side(listing, bids),
            "asks": _side(listing, asks),
            "sequence": quote.number,
            "auction_mode": False,
            "auction": None,
            "time": iso(quote.at_ms),
        }

    def _candles(self, query: Query) -> list[list[float]]:
        listing = self.pair(query, "id")
        frame = _GRANULARITIES.get(query.get("granularity", "60"))
        if frame is None:
            raise BadParameter("granularity")
        start_s, end_s = _second(query, "start"), _second(query, "end")
        candles = self.board.candles(listing, FRAMES[frame], start_s, end_s, _CANDLES_MOST)
        return [
            [
                candle.start_s,
                *(listing.number(price) for price in (candle.low, candle.high, candle.open, candle.close)),
                round(candle.volume, 8),
            ]
            for candle in reversed(candles)
        ]

    def _stats(self, query: Query) -> Json:
        listing = self.pair(query, "id")
        quote = self.board.quote(listing)
        day = quote.day
        return {
            "open": listing.text(day.open),
            "high": listing.text(day.high),
            "low": listing.text(day.low),
            "last": listing.text(quote.last),
            "volume": f"{day.volume:.8f}",
            "volume_30day": f"{day.volume * 30:.8f}",
        }

    def _ticker(self, query: Query) -> Json:
        listing = self.pair(query, "id")
        quote = self.board.quote(listing)
        return {
            "ask": listing.text(quote.ask),
            "bid": listing.text(quote.bid),
            "volume": f"{quote.day.volume:.8f}",
            "trade_id": quote.number,
            "price": listing.text(quote.last),
            "size": f"{quote.amount:.8f}",
            "time": iso(quote.at_ms),
        }

    def _trades(self, query: Query) -> list[Json]:
        listing = self.pair(query, "id")
        trades = self.board.trades(listing, None, None, whole(query, "limit", 1000, 1000))
        return [
            {
                "trade_id": trade.number,
                "side": "sell" if trade.buy else "buy",  # the maker's
                "size": f"{trade.amount:.8f}",
                "price": listing.text(trade.price),
                "time": iso(trade.at_ms),
            }
            for trade in reversed(trades)
        ]

    def usage_headers(self, endpoint: str, verdict: Verdict) -> dict[str, str]:
        """None."""
        return {}

    def refuse(self, verdict: Verdict) -> Answer:
        """429."""
        return reply({"message": "Public rate limit exceeded"}, 429)

    def unknown_symbol(self, pair_id: str) -> Answer:
        """404 `NotFound`."""
        return reply({"message": "NotFound"}, 404)

    def bad_parameter(self, name: str) -> Answer:
        """400."""
        return reply({"message": f"Invalid {name}"}, 400)

    def unknown_path(self) -> Answer:
        """404."""
        return reply({"message": "Route not found"}, 404)

    def error(self, status: Literal[500, 503]) -> Answer:
        """An internal error, or the proxy's plain text."""
        if status == 500:
            return reply({"message": "Internal server error"}, 500)
        return plain("upstream connect error or disconnect/reset before headers. reset reason: overflow", 503)

    def maintenance(self, endpoint: str) -> Answer:
        """A 503: there is no status endpoint."""
        return reply({"message": "Exchange is currently under maintenance"}, 503)


def _second(query: Query, key: str) -> float | None:
    """A moment in ISO 8601 or in Unix seconds, in Unix seconds.

    Raises:
        BadParameter: it is neither.
    """
    text = query.get(key)
    if text is None:
        return None
    if text.isdecimal():
        return float(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadParameter(key) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _side(listing: Listing, levels: list[Level]) -> list[list[object]]:
    return [[listing.text(level.price), f"{level.amount:.8f}", 1] for level in levels]


def _currency(code: str, name: str, kind: str) -> Json:
    network = {"crypto": [{"id": name.lower(), "name": name, "status": "online", "contract_address": ""}], "fiat": []}
    return {
        "id": code,
        "name": name,
        "min_size": "0.00000001",
        "status": "online",
        "message": "",
        "max_precision": "0.00000001",
        "convertible_to": [],
        "details": {"type": kind, "symbol": None, "sort_order": 0, "min_withdrawal_amount": 0.0001},
        "default_network": name.lower() if kind == "crypto" else "",
        "supported_networks": network[kind],
        "display_name": code,
    }


def _product(listing: Listing) -> Json:
    return {
        "id": listing.id,
        "base_currency": listing.coin.code,
        "quote_currency": listing.quote,
        "quote_increment": listing.text(1),
        "base_increment": "0.00000001",
        "display_name": listing.id,
        "min_market_funds": "1",
        "margin_enabled": False,
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
        "status": "online",
        "status_message": "",
        "trading_disabled": False,
        "fx_stablecoin": False,
        "max_slippage_percentage": "0.02000000",
        "auction_mode": False,
        "high_bid_limit_percentage": "",
    }
