"""OKX v5 public and market endpoints, spot only. Formats: the OKX v5 docs, as ccxt 4.5 reads them."""

from __future__ import annotations

import base64
from typing import Literal

from ..accounts import ACCOUNTS, Account, Signed, digest, same
from ..board import Coin, Level, Listing
from ..frames import FRAMES, Frame
from ..ledger import Verdict
from ..limits import Query
from ..prices import LISTED_S
from ..venue import Answer, BadParameter, Endpoint, Json, Venue, moment, reply, whole

# `1H`, and from six hours up `6Hutc`: bars that open on UTC boundaries, the only ones here.
_FRAMES: dict[str, Frame] = {}
for _name, _frame in FRAMES.items():
    if _name in {"1s", "8h", "1y"}:
        continue
    _bar = _name if _name.endswith(("m", "M")) else _name.upper()
    _FRAMES[_bar] = _FRAMES[_bar + "utc"] = _frame

_TYPES = {"SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION"}


def _ok(data: object) -> Json:
    return {"code": "0", "msg": "", "data": data}


class Okx(Venue):
    """OKX."""

    name = "okx"
    status_endpoint = "/api/v5/system/status"
    _orders = 0

    def pair_id(self, coin: str, quote: str) -> str:
        """`BTC-USDT`."""
        return f"{coin}-{quote}"

    def decimals(self, coin: Coin) -> int:
        """One decimal for BTC."""
        return 1 if coin.code == "BTC" else coin.decimals

    def endpoints(self) -> list[Endpoint]:
        """Public spot endpoints."""
        api = "/api/v5/"
        return [
            Endpoint(api + "public/time", lambda _: _ok([{"ts": str(self.clock.now_ms())}]), "never"),
            Endpoint(self.status_endpoint, lambda _: _ok([]), "start"),
            Endpoint(api + "public/instruments", self._instruments, "start"),
            Endpoint(api + "market/ticker", self._one_ticker),
            Endpoint(api + "market/tickers", self._tickers),
            Endpoint(api + "market/candles", lambda query: self._candles(query, 300)),
            Endpoint(api + "market/history-candles", lambda query: self._candles(query, 300)),
            Endpoint(api + "market/books", lambda query: self._book(query, 400)),
            Endpoint(api + "market/books-full", lambda query: self._book(query, 5000)),
            Endpoint(api + "market/trades", lambda query: self._trades(query, 500)),
            Endpoint(api + "market/history-trades", lambda query: self._trades(query, 100)),
            Endpoint(api + "asset/currencies", lambda _: _ok([]), signed=True),  # ccxt asks for it where it has keys
            Endpoint(api + "account/balance", self._balance, signed=True),
            Endpoint(api + "trade/orders-pending", lambda _: _ok([]), signed=True),
            Endpoint(api + "trade/batch-orders", self._order, "never", signed=True),
        ]

    def counted_as(self, name: str, value: str) -> str:
        """Instrument types are counted, and no pair."""
        return value if value in _TYPES else ""

    def _balance(self, query: Query) -> Json:
        account, now = ACCOUNTS[query["account"]], str(self.clock.now_ms())
        details = [
            {"ccy": ccy, "cashBal": amount, "availBal": amount, "eq": amount, "frozenBal": "0", "uTime": now}
            for ccy, amount in (("BTC", account.btc), ("USDT", account.usdt))
        ]
        return _ok([{"uTime": now, "totalEq": account.usdt, "details": details}])

    def _order(self, _: Query) -> Json:
        self._orders += 1
        return _ok([{"ordId": str(self._orders), "clOrdId": "", "tag": "", "sCode": "0", "sMsg": ""}])

    def authenticate(self, signed: Signed) -> Account | Answer:
        """Four headers; the HMAC in base64 is over time, verb, path with query, and body."""

        def header(name: str) -> str:
            return signed.headers.get(f"OK-ACCESS-{name}", "")

        account = ACCOUNTS.get(header("KEY"))
        if account is None:
            return reply({"code": "50111", "msg": "Invalid OK-ACCESS-KEY", "data": []}, 401)
        if header("PASSPHRASE") != account.passphrase:
            text = "Request header OK-ACCESS-PASSPHRASE incorrect."
            return reply({"code": "50105", "msg": text, "data": []}, 401)
        target = f"{signed.path}?{signed.query}" if signed.query else signed.path
        text = header("TIMESTAMP") + signed.method + target + signed.body
        if not same(header("SIGN"), base64.b64encode(digest(account.secret, text)).decode()):
            return reply({"code": "50113", "msg": "Invalid Sign", "data": []}, 401)
        return account

    def _instruments(self, query: Query) -> Json:
        # Futures, swaps and options: valid and empty.
        if query.get("instType") != "SPOT":
            return _ok([])
        return _ok([_instrument(listing) for listing in self.board.listings.values()])

    def _one_ticker(self, query: Query) -> Json:
        return _ok([self._ticker(self.pair(query, "instId"))])

    def _tickers(self, query: Query) -> Json:
        if query.get("instType") != "SPOT":
            return _ok([])
        return _ok([self._ticker(listing) for listing in self.board.listings.values()])

    def _ticker(self, listing: Listing) -> Json:
        quote, text = self.board.quote(listing), listing.text
        day = quote.day
        return {
            "instType": "SPOT",
            "instId": listing.id,
            "last": text(quote.last),
            "lastSz": f"{quote.amount:.8f}",
            "askPx": text(quote.ask),
            "askSz": f"{quote.ask_size:.8f}",
            "bidPx": text(quote.bid),
            "bidSz": f"{quote.bid_size:.8f}",
            "open24h": text(day.open),
            "high24h": text(day.high),
            "low24h": text(day.low),
            "volCcy24h": f"{day.turnover:.9f}",
            "vol24h": f"{day.volume:.8f}",
            "ts": str(quote.at_ms),
            "sodUtc0": text(day.open),
            "sodUtc8": text(day.open),
        }

    def _candles(self, query: Query, most: int) -> Json:
        listing = self.pair(query, "instId")
        frame = _FRAMES.get(query.get("bar", "1m"))
        if frame is None:
            raise BadParameter("bar")
        # `before` asks for newer than, `after` for older than, both without the moment itself.
        before, after = moment(query, "before"), moment(query, "after")
        limit = whole(query, "limit", 100, most)
        end_s = None if after is None else (after - 1) / 1000
        candles = self.board.candles(listing, frame, None, end_s, limit)
        if before is not None:
            candles = [candle for candle in candles if candle.start_s * 1000 > before]
        text = listing.text
        return _ok(
            [
                [
                    str(candle.start_s * 1000),
                    *(text(price) for price in candle[1:5]),
                    f"{candle.volume:.8f}",
                    f"{candle.turnover:.9f}",
                    f"{candle.turnover:.9f}",
                    "1" if candle.closed else "0",
                ]
                for candle in reversed(candles)
            ]
        )

    def _book(self, query: Query, most: int) -> Json:
        listing = self.pair(query, "instId")
        bids, asks = self.board.book(listing, whole(query, "sz", 1, most))
        at_ms = self.board.quote(listing).at_ms
        return _ok([{"asks": _side(listing, asks), "bids": _side(listing, bids), "ts": str(at_ms)}])

    def _trades(self, query: Query, most: int) -> Json:
        listing = self.pair(query, "instId")
        trades = self.board.trades(listing, None, None, whole(query, "limit", 100, most))
        return _ok(
            [
                {
                    "instId": listing.id,
                    "side": "buy" if trade.buy else "sell",
                    "sz": f"{trade.amount:.8f}",
                    "px": listing.text(trade.price),
                    "tradeId": str(trade.number),
                    "ts": str(trade.at_ms),
                }
                for trade in reversed(trades)
            ]
        )

    def usage_headers(self, endpoint: str, verdict: Verdict) -> dict[str, str]:
        """None: OKX sends no such headers."""
        return {}

    def refuse(self, verdict: Verdict) -> Answer:
        """429 and 50011; OKX publishes no bans."""
        return reply({"code": "50011", "msg": "Too Many Requests", "data": []}, 429)

    def unknown_symbol(self, pair_id: str) -> Answer:
        """51001, with HTTP 200."""
        return reply({"code": "51001", "msg": "Instrument ID doesn't exist.", "data": []})

    def bad_parameter(self, name: str) -> Answer:
        """51000."""
        return reply({"code": "51000", "msg": f"Parameter {name} error", "data": []}, 400)

    def unknown_path(self) -> Answer:
        """404."""
        return reply({"msg": "Not Found", "code": "404", "data": []}, 404)

    def error(self, status: Literal[500, 503]) -> Answer:
        """50026, or 50013 where it is busy."""
        if status == 500:
            return reply({"code": "50026", "msg": "System error. Try again later.", "data": []}, 500)
        return reply({"code": "50013", "msg": "System is busy, please try again later.", "data": []}, 503)

    def maintenance(self, endpoint: str) -> Answer:
        """An ongoing event in the status, and 50001 with 503 for all else."""
        if endpoint == self.status_endpoint:
            now_ms = self.clock.now_ms()
            event = {
                "title": "Spot system upgrade",
                "state": "ongoing",
                "begin": str(now_ms - 60_000),
                "end": str(now_ms + 3_600_000),
                "href": "",
                "serviceType": "0",
                "system": "unified",
                "scheDesc": "",
                "maintType": "1",
                "env": "1",
            }
            return reply(_ok([event]))
        return reply({"code": "50001", "msg": "Service temporarily unavailable. Try again later.", "data": []}, 503)


def _side(listing: Listing, levels: list[Level]) -> list[list[str]]:
    return [[listing.text(level.price), f"{level.amount:.8f}", "0", "1"] for level in levels]


def _instrument(listing: Listing) -> Json:
    coin, quote = listing.coin.code, listing.quote
    blank = ("alias", "ctMult", "ctType", "ctVal", "ctValCcy", "expTime", "instFamily", "optType", "settleCcy", "stk")
    return {
        **dict.fromkeys(blank, ""),
        "uly": "",
        "baseCcy": coin,
        "quoteCcy": quote,
        "category": "1",
        "instId": listing.id,
        "instType": "SPOT",
        "lever": "10",
        "listTime": str(LISTED_S * 1000),
        "lotSz": "0.00000001",
        "maxIcebergSz": "9999999999.0000000000000000",
        "maxLmtAmt": "20000000",
        "maxLmtSz": "9999999999",
        "maxMktAmt": "1000000",
        "maxMktSz": "1000000",
        "maxStopSz": "1000000",
        "maxTriggerSz": "9999999999.0000000000000000",
        "maxTwapSz": "9999999999.0000000000000000",
        "minSz": "0.00001",
        "ruleType": "normal",
        "state": "live",
        "tickSz": listing.text(1),
    }
