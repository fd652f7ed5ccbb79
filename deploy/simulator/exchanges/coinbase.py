"""Coinbase Advanced Trade's public market endpoints and the v2 data that ccxt asks. Formats: as ccxt 4.5 reads them."""

from __future__ import annotations

from typing import Literal

from ..board import COINS, Listing
from ..frames import FRAMES
from ..ledger import Verdict
from ..limits import Query
from ..venue import Answer, BadParameter, Endpoint, Json, Venue, iso, moment, plain, reply, whole

_GRANULARITIES = {
    "ONE_MINUTE": "1m", "FIVE_MINUTE": "5m", "FIFTEEN_MINUTE": "15m", "THIRTY_MINUTE": "30m", "ONE_HOUR": "1h",
    "TWO_HOUR": "2h", "FOUR_HOUR": "4h", "SIX_HOUR": "6h", "ONE_DAY": "1d",
}  # fmt: skip
_PRODUCTS = "/api/v3/brokerage/market/products"
_FIAT = {"USD": "US Dollar", "EUR": "Euro", "GBP": "British Pound"}


class Coinbase(Venue):
    """Coinbase."""

    name = "coinbase"
    quotes = ("USDT", "USD", "USDC")

    def pair_id(self, coin: str, quote: str) -> str:
        """`BTC-USD`."""
        return f"{coin}-{quote}"

    def endpoints(self) -> list[Endpoint]:
        """Public endpoints; those of one product are counted under `{product_id}`."""
        return [
            Endpoint("/v2/time", self._time_v2, "never"),
            Endpoint("/v2/currencies", self._fiat, "start"),
            Endpoint("/v2/currencies/crypto", self._crypto, "start"),
            Endpoint("/v2/exchange-rates", self._rates),
            Endpoint("/api/v3/brokerage/time", self._time, "never"),
            Endpoint("/api/v3/brokerage/market/product_book", self._book),
            Endpoint(_PRODUCTS, self._products),
            Endpoint(_PRODUCTS + "/{product_id}", lambda query: self._product(self.pair(query, "product_id"))),
            Endpoint(_PRODUCTS + "/{product_id}/candles", self._candles),
            Endpoint(_PRODUCTS + "/{product_id}/ticker", self._ticker),
        ]

    def resolve(self, path: str, query: Query) -> Endpoint | None:
        """Also the paths that hold a product's id."""
        found = self.routes.get(path)
        if found is not None or not path.startswith(_PRODUCTS + "/"):
            return found
        product_id, slash, rest = path[len(_PRODUCTS) + 1 :].partition("/")
        query["product_id"] = product_id
        return self.routes.get(f"{_PRODUCTS}/{{product_id}}{slash}{rest}")

    def _time_v2(self, _: Query) -> Json:
        now_ms = self.clock.now_ms()
        return {"data": {"iso": iso(now_ms)[:19] + "Z", "epoch": now_ms // 1000}}

    def _time(self, _: Query) -> Json:
        now_ms = self.clock.now_ms()
        at = iso(now_ms)[:19] + "Z"
        return {"iso": at, "epochSeconds": str(now_ms // 1000), "epochMillis": str(now_ms)}

    def _fiat(self, _: Query) -> Json:
        return {"data": [{"id": code, "name": name, "min_size": "0.01"} for code, name in _FIAT.items()]}

    def _crypto(self, _: Query) -> Json:
        codes = [(coin.code, coin.name) for coin in COINS] + [("USDT", "Tether"), ("USDC", "USDC")]
        return {
            "data": [
                {
                    "asset_id": f"00000000-0000-5000-8000-{place:012d}",
                    "code": code,
                    "name": name,
                    "color": "#0033AD",
                    "sort_index": 100 + place,
                    "exponent": 8,
                    "type": "crypto",
                    "address_regex": "^.+$",
                }
                for place, (code, name) in enumerate(codes)
            ]
        }

    def _rates(self, _: Query) -> Json:
        rates: dict[str, str] = dict.fromkeys(("USD", "USDT", "USDC"), "1.0")
        for coin in COINS:
            if listing := self.board.listings.get(self.pair_id(coin.code, "USD")):
                rates[coin.code] = f"{1 / listing.number(self.board.quote(listing).last):.16f}"
        return {"data": {"currency": "USD", "rates": rates}}

    def _products(self, query: Query) -> Json:
        # Futures: valid and empty.
        if query.get("product_type", "SPOT") != "SPOT":
            return {"products": [], "num_products": 0}
        listings = list(self.board.listings.values())
        if "product_ids" in query:
            # The API answers with those it knows; the server joined repeated parameters by commas.
            wanted = set(query["product_ids"].split(","))
            listings = [listing for listing in listings if listing.id in wanted]
        products = [self._product(listing) for listing in listings]
        return {"products": products, "num_products": len(products)}

    def _product(self, listing: Listing) -> Json:
        quote = self.board.quote(listing)
        day = quote.day
        return {
            "product_id": listing.id,
            "price": listing.text(quote.last),
            "price_percentage_change_24h": f"{(quote.last - day.open) / day.open * 100:.14f}",
            "volume_24h": f"{day.volume:.8f}",
            "volume_percentage_change_24h": "1.5",
            "base_increment": "0.00000001",
            "quote_increment": listing.text(1),
            "quote_min_size": "1",
            "quote_max_size": "150000000",
            "base_min_size": "0.00000001",
            "base_max_size": "3400",
            "base_name": listing.coin.name,
            "quote_name": "US Dollar" if listing.quote == "USD" else listing.quote,
            "watched": False,
            "is_disabled": False,
            "new": False,
            "status": "online",
            "cancel_only": False,
            "limit_only": False,
            "post_only": False,
            "trading_disabled": False,
            "auction_mode": False,
            "product_type": "SPOT",
            "quote_currency_id": listing.quote,
            "base_currency_id": listing.coin.code,
            "fcm_trading_session_details": None,
            "mid_market_price": "",
            "alias": "",
            "alias_to": [],
            "base_display_symbol": listing.coin.code,
            "quote_display_symbol": listing.quote,
            "view_only": False,
            "price_increment": listing.text(1),
            "display_name": listing.id,
            "product_venue": "CBE",
            "approximate_quote_24h_volume": f"{day.turnover:.2f}",
            "new_at": "2023-01-01T00:00:00Z",
        }

    def _candles(self, query: Query) -> Json:
        listing = self.pair(query, "product_id")
        frame = _GRANULARITIES.get(query.get("granularity", ""))
        if frame is None:
            raise BadParameter("granularity")
        start, end = moment(query, "start"), moment(query, "end")
        if start is None or end is None:
            raise BadParameter("start" if start is None else "end")
        candles = self.board.candles(listing, FRAMES[frame], start, end, whole(query, "limit", 350, 350))
        text = listing.text
        return {
            "candles": [
                {
                    "start": str(candle.start_s),
                    "low": text(candle.low),
                    "high": text(candle.high),
                    "open": text(candle.open),
                    "close": text(candle.close),
                    "volume": f"{candle.volume:.8f}",
                }
                for candle in reversed(candles)
            ]
        }

    def _ticker(self, query: Query) -> Json:
        listing = self.pair(query, "product_id")
        start, end = moment(query, "start"), moment(query, "end")
        trades = self.board.trades(
            listing,
            None if start is None else int(start * 1000),
            None if end is None else int(end * 1000),
            whole(query, "limit", 100, 1000),
        )
        quote = self.board.quote(listing)
        return {
            "trades": [
                {
                    "trade_id": str(trade.number),
                    "product_id": listing.id,
                    "price": listing.text(trade.price),
                    "size": f"{trade.amount:.8f}",
                    "time": iso(trade.at_ms),
                    "side": "BUY" if trade.buy else "SELL",
                    "bid": "",
                    "ask": "",
                }
                for trade in reversed(trades)
            ],
            "best_bid": listing.text(quote.bid),
            "best_ask": listing.text(quote.ask),
        }

    def _book(self, query: Query) -> Json:
        listing = self.pair(query, "product_id")
        sides = self.board.book(listing, whole(query, "limit", 500, 1000))
        bids, asks = (
            [{"price": listing.text(level.price), "size": f"{level.amount:.8f}"} for level in side] for side in sides
        )
        quote = self.board.quote(listing)
        book = {"product_id": listing.id, "bids": bids, "asks": asks, "time": iso(quote.at_ms)}
        return {
            "pricebook": book,
            "last": listing.text(quote.last),
            "mid_market": listing.text((quote.bid + quote.ask) // 2),
            "spread_bps": f"{(quote.ask - quote.bid) / quote.last * 1e4:.4f}",
            "spread_absolute": listing.text(quote.ask - quote.bid),
        }

    def usage_headers(self, endpoint: str, verdict: Verdict) -> dict[str, str]:
        """`CB-RATELIMIT-*`; the reset is in seconds since the epoch."""
        usage = verdict.fullest()
        if usage is None:
            return {}
        return {
            "CB-RATELIMIT-LIMIT": str(usage.bucket.amount),
            "CB-RATELIMIT-REMAINING": str(max(0, usage.bucket.amount - usage.used)),
            "CB-RATELIMIT-RESET": str(-(-usage.resets_ns // 1_000_000_000)),
        }

    def refuse(self, verdict: Verdict) -> Answer:
        """429 `rate_limit_exceeded`."""
        text = "Too many requests"
        return reply({"error": "rate_limit_exceeded", "error_details": text, "message": text}, 429)

    def unknown_symbol(self, pair_id: str) -> Answer:
        """404."""
        text = "valid product_id is required" if not pair_id else f"product {pair_id} not found"
        return reply({"error": "NOT_FOUND", "error_details": text, "message": text}, 404)

    def bad_parameter(self, name: str) -> Answer:
        """400."""
        text = f"{name} argument is invalid"
        return reply({"error": "INVALID_ARGUMENT", "error_details": text, "message": text}, 400)

    def unknown_path(self) -> Answer:
        """404."""
        return reply({"error": "unknown", "error_details": "Not Found", "message": "Not Found"}, 404)

    def error(self, status: Literal[500, 503]) -> Answer:
        """The proxy's plain text, or an internal error."""
        if status == 500:
            return plain("Internal Server Error", 500)
        return plain("upstream connect error or disconnect/reset before headers. reset reason: overflow", 503)

    def maintenance(self, endpoint: str) -> Answer:
        """A plain 503: there is no status endpoint."""
        return plain("Service Unavailable: Coinbase is undergoing scheduled maintenance", 503)
