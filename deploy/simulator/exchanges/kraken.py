"""Kraken's public spot endpoints. All errors come with HTTP 200. Formats: docs.kraken.com, as ccxt 4.5 reads them."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qsl

from ..accounts import ACCOUNTS, Account, Signed, digest, same
from ..board import COINS, Coin, Level, Listing
from ..clock import Clock
from ..frames import FRAMES, Frame
from ..ledger import Verdict
from ..limits import Query
from ..prices import MINUTE_S, Tape
from ..venue import Answer, BadParameter, Endpoint, Json, Venue, moment, plain, reply, whole

# All count from the epoch, weeks and fortnights too, so these open on Thursdays.
_INTERVALS = {str(minutes): Frame(minutes * MINUTE_S) for minutes in (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)}
_OHLC_MOST = 720
# Kraken's own codes, and its old assets whose ids carry an X.
_ALTNAMES = {"BTC": "XBT", "DOGE": "XDG"}
_OLD = {"BTC", "ETH", "LTC", "XRP", "XLM", "ETC", "DOGE"}
_NS_FROM = 1e14
"""A `since` above this is in nanoseconds, below in seconds."""


def _altname(code: str) -> str:
    return _ALTNAMES.get(code, code)


def _asset(code: str) -> str:
    if code == "USD":
        return "ZUSD"
    return "X" + _altname(code) if code in _OLD else _altname(code)


def _ok(result: object) -> Json:
    return {"error": [], "result": result}


def _error(text: str) -> Answer:
    return reply({"error": [text]})


class Kraken(Venue):
    """Kraken."""

    name = "kraken"
    quotes = ("USDT", "USD")
    status_endpoint = "/0/public/SystemStatus"

    def __init__(self, clock: Clock, tapes: dict[str, Tape]) -> None:
        super().__init__(clock, tapes)
        # It takes a pair by its id, by either code of its coin, with or without a slash, in any case.
        self._by_name = {
            name: listing
            for listing in self.board.listings.values()
            for base in (listing.coin.code, _altname(listing.coin.code))
            for name in (listing.id, base + listing.quote, f"{base}/{listing.quote}")
        }

    def pair_id(self, coin: str, quote: str) -> str:
        """`XBTUSDT`, but `XXBTZUSD`."""
        if quote == "USD" and coin in _OLD and coin != "DOGE":
            return _asset(coin) + "ZUSD"
        return _altname(coin) + quote

    def decimals(self, coin: Coin) -> int:
        """One decimal for BTC."""
        return 1 if coin.code == "BTC" else coin.decimals

    def endpoints(self) -> list[Endpoint]:
        """Public endpoints."""
        api = "/0/public/"
        return [
            Endpoint(api + "Time", self._time, "never"),
            Endpoint(self.status_endpoint, lambda _: _ok(self._status("online")), "never"),
            Endpoint(api + "Assets", self._assets, "start"),
            Endpoint(api + "AssetPairs", self._pairs, "start"),
            Endpoint(api + "Ticker", self._ticker),
            Endpoint(api + "OHLC", self._ohlc),
            Endpoint(api + "Depth", self._depth),
            Endpoint(api + "Trades", self._trades),
            Endpoint("/0/private/BalanceEx", _balances, signed=True),
            Endpoint("/0/private/OpenOrders", lambda _: _ok({"open": {}}), signed=True),
            Endpoint("/0/private/Ledgers", lambda _: _ok({"ledger": {}, "count": 0}), signed=True),
        ]

    def listing(self, pair_id: str) -> Listing:
        """The pair with this id or another name."""
        found = self._by_name.get(pair_id.upper())
        return super().listing(pair_id if found is None else found.id)

    def _time(self, _: Query) -> Json:
        now_s = self.clock.now_ms() // 1000
        rfc = datetime.fromtimestamp(now_s, UTC).strftime("%a, %d %b %y %H:%M:%S +0000")
        return _ok({"unixtime": now_s, "rfc1123": rfc})

    def _status(self, status: str) -> Json:
        now = datetime.fromtimestamp(self.clock.now_ms() // 1000, UTC)
        return {"status": status, "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _assets(self, _: Query) -> Json:
        codes = [coin.code for coin in COINS] + ["USDT", "USD"]
        return _ok(
            {
                _asset(code): {
                    "aclass": "currency",
                    "altname": _altname(code),
                    "decimals": 4 if code == "USD" else 8 if code == "USDT" else 10,
                    "display_decimals": 5,
                    "status": "enabled",
                }
                for code in codes
            }
        )

    def _pairs(self, _: Query) -> Json:
        return _ok({listing.id: _pair(listing) for listing in self.board.listings.values()})

    def _ticker(self, query: Query) -> Json:
        if "pair" in query:
            listings = [self.listing(pair_id) for pair_id in query["pair"].split(",")]
        else:
            listings = list(self.board.listings.values())
        return _ok({listing.id: self._one_ticker(listing) for listing in listings})

    def _one_ticker(self, listing: Listing) -> Json:
        quote = self.board.quote(listing)
        day = quote.day
        today = self.board.candles(listing, FRAMES["1d"], None, None, 1)[0]
        return {
            "a": [_price(listing, quote.ask), "1", f"{quote.ask_size:.3f}"],
            "b": [_price(listing, quote.bid), "1", f"{quote.bid_size:.3f}"],
            "c": [_price(listing, quote.last), f"{quote.amount:.8f}"],
            "v": [f"{today.volume:.8f}", f"{day.volume:.8f}"],
            "p": [_price(listing, sum(today[1:5]) / 4), _price(listing, quote.day_average)],
            "t": [len(listing.id) * 1000, len(listing.id) * 4000],
            "l": [_price(listing, today.low), _price(listing, day.low)],
            "h": [_price(listing, today.high), _price(listing, day.high)],
            "o": _price(listing, today.open),
        }

    def _ohlc(self, query: Query) -> Json:
        listing = self.pair(query, "pair")
        frame = _INTERVALS.get(query.get("interval", "1"))
        if frame is None:
            raise BadParameter("interval")
        since = moment(query, "since")
        # The newest 720 and no older ones, whatever `since` asks.
        candles = self.board.candles(listing, frame, None, None, _OHLC_MOST)
        text = listing.text
        rows = [
            [
                candle.start_s,
                *(text(price) for price in candle[1:5]),
                text(round(sum(candle[1:5]) / 4)),
                f"{candle.volume:.8f}",
                100,
            ]
            for candle in candles
            if since is None or candle.start_s > since
        ]
        closed = [candle.start_s for candle in candles if candle.closed]
        return _ok({listing.id: rows, "last": closed[-1] if closed else 0})

    def _depth(self, query: Query) -> Json:
        listing = self.pair(query, "pair")
        bids, asks = self.board.book(listing, whole(query, "count", 100, 500))
        at_s = self.board.quote(listing).at_ms // 1000
        return _ok({listing.id: {"asks": _side(listing, asks, at_s), "bids": _side(listing, bids, at_s)}})

    def _trades(self, query: Query) -> Json:
        listing = self.pair(query, "pair")
        since = moment(query, "since")
        start_ms = None if since is None else int(since / 1e6 if since > _NS_FROM else since * 1000)
        trades = self.board.trades(listing, start_ms, None, whole(query, "count", 1000, 1000))
        rows = [
            [
                _price(listing, trade.price),
                f"{trade.amount:.8f}",
                trade.at_ms / 1000,
                "b" if trade.buy else "s",
                "m" if trade.number & 1 else "l",
                "",
                trade.number,
            ]
            for trade in trades
        ]
        return _ok({listing.id: rows, "last": str(trades[-1].at_ms * 1_000_000) if trades else "0"})

    def authenticate(self, signed: Signed) -> Account | Answer:
        """The key in a header, in another the HMAC of path and body in base64. Any nonce will do (a nonce window)."""
        account = ACCOUNTS.get(signed.headers.get("API-Key", ""))
        if account is None:
            return _error("EAPI:Invalid key")
        nonce = dict(parse_qsl(signed.body)).get("nonce", "")
        if not nonce.isdecimal():
            return _error("EAPI:Invalid nonce")
        text = signed.path.encode() + hashlib.sha256((nonce + signed.body).encode()).digest()
        made = digest(base64.b64decode(account.secret), text, hashlib.sha512)
        if not same(signed.headers.get("API-Sign", ""), base64.b64encode(made).decode()):
            return _error("EAPI:Invalid signature")
        return account

    def usage_headers(self, endpoint: str, verdict: Verdict) -> dict[str, str]:
        """None."""
        return {}

    def refuse(self, verdict: Verdict) -> Answer:
        """`EGeneral:Too many requests`, of an account `EAPI:Rate limit exceeded`, and during a ban a lockout."""
        if verdict.refusal == "limit" and any(usage.bucket.by_account for usage in verdict.usages):
            return _error("EAPI:Rate limit exceeded")
        return _error("EGeneral:Temporary lockout" if verdict.refusal == "ban" else "EGeneral:Too many requests")

    def unknown_symbol(self, pair_id: str) -> Answer:
        """`EQuery:Unknown asset pair`."""
        return _error("EQuery:Unknown asset pair")

    def bad_parameter(self, name: str) -> Answer:
        """`EGeneral:Invalid arguments`."""
        return _error(f"EGeneral:Invalid arguments:{name}")

    def unknown_path(self) -> Answer:
        """`EGeneral:Unknown method`."""
        return reply({"error": ["EGeneral:Unknown method"]}, 404)

    def error(self, status: Literal[500, 503]) -> Answer:
        """`EGeneral:Internal error`, or the proxy's own 503."""
        if status == 500:
            return reply({"error": ["EGeneral:Internal error"]}, 500)
        return plain("Service Unavailable", 503)

    def maintenance(self, endpoint: str) -> Answer:
        """`maintenance` in the status, and `EService:Unavailable` for all else."""
        if endpoint == self.status_endpoint:
            return reply(_ok(self._status("maintenance")))
        return _error("EService:Unavailable")


def _balances(query: Query) -> Json:
    account = ACCOUNTS[query["account"]]
    amounts = ((_asset("BTC"), account.btc), ("USDT", account.usdt))
    return _ok({asset: {"balance": amount, "hold_trade": "0.0000"} for asset, amount in amounts})


def _price(listing: Listing, steps: float) -> str:
    return f"{steps * 10.0**-listing.decimals:.{max(5, listing.decimals)}f}"


def _side(listing: Listing, levels: list[Level], at_s: int) -> list[list[object]]:
    return [[_price(listing, level.price), f"{level.amount:.3f}", at_s] for level in levels]


def _pair(listing: Listing) -> Json:
    code = _altname(listing.coin.code)
    return {
        "altname": code + listing.quote,
        "wsname": f"{code}/{listing.quote}",
        "aclass_base": "currency",
        "base": _asset(listing.coin.code),
        "aclass_quote": "currency",
        "quote": _asset(listing.quote),
        "lot": "unit",
        "cost_decimals": 5,
        "pair_decimals": listing.decimals,
        "lot_decimals": 8,
        "lot_multiplier": 1,
        "leverage_buy": [2, 3],
        "leverage_sell": [2, 3],
        "fees": [[0, 0.26], [50000, 0.24], [100000, 0.22]],
        "fees_maker": [[0, 0.16], [50000, 0.14], [100000, 0.12]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": "0.0001",
        "costmin": "0.5",
        "tick_size": listing.text(1),
        "status": "online",
        "long_position_limit": 47,
        "short_position_limit": 28,
    }
