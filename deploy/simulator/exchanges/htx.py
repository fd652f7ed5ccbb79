"""HTX spot, and one contract of each kind, for ccxt refuses an empty list.

Formats: the HTX docs, as ccxt 4.5 reads them. Daily and longer candles open on UTC boundaries here, at HTX on
those of Singapore.
"""

from __future__ import annotations

from typing import Literal

from ..board import Candle, Listing
from ..frames import FRAMES
from ..ledger import Verdict
from ..limits import Query
from ..venue import Answer, BadParameter, Endpoint, Json, Venue, moment, reply, whole

_PERIODS = {
    "1min": "1m", "5min": "5m", "15min": "15m", "30min": "30m", "60min": "1h", "4hour": "4h", "1day": "1d",
    "1week": "1w", "1mon": "1M", "1year": "1y",
}  # fmt: skip
_DEPTHS = {5, 10, 20}


class Htx(Venue):
    """HTX."""

    name = "htx"
    status_endpoint = "/v2/market-status"

    def pair_id(self, coin: str, quote: str) -> str:
        """`btcusdt`."""
        return (coin + quote).lower()

    def endpoints(self) -> list[Endpoint]:
        """Public spot endpoints, and what load_markets asks of the contracts."""
        return [
            Endpoint("/v1/common/timestamp", lambda _: self._ok(self.clock.now_ms()), "never"),
            Endpoint("/v1/common/symbols", self._symbols, "start"),
            Endpoint("/v2/reference/currencies", self._currencies, "start"),
            Endpoint("/v2/market-status", lambda _: _ok2({"marketStatus": 1}), "start"),
            Endpoint("/market/detail/merged", self._merged),
            Endpoint("/market/tickers", self._tickers),
            Endpoint("/market/history/kline", lambda query: self._candles(query, 2000)),
            Endpoint("/market/history/candles", lambda query: self._candles(query, 1000)),
            Endpoint("/market/depth", self._depth),
            Endpoint("/market/trade", self._last_trade),
            Endpoint("/market/history/trade", self._trades),
            Endpoint("/linear-swap-api/v1/swap_contract_info", lambda _: self._ok([_linear_swap()]), "start"),
            Endpoint("/swap-api/v1/swap_contract_info", lambda _: self._ok([_inverse_swap()]), "start"),
            Endpoint("/api/v1/contract_contract_info", lambda _: self._ok([_inverse_future()]), "start"),
        ]

    def _ok(self, data: object) -> Json:
        return {"status": "ok", "data": data, "ts": self.clock.now_ms()}

    def _symbols(self, _: Query) -> Json:
        return self._ok([_symbol(listing) for listing in self.board.listings.values()])

    def _currencies(self, _: Query) -> Json:
        codes = ["usdt", *(listing.coin.code.lower() for listing in self.board.listings.values())]
        return {"code": 200, "data": [_currency(code) for code in codes]}

    def _merged(self, query: Query) -> Json:
        listing = self.pair(query, "symbol")
        quote = self.board.quote(listing)
        tick: Json = {
            "id": quote.number,
            "version": quote.number,
            **_day(listing, quote.day),
            "bid": [listing.number(quote.bid), round(quote.bid_size, 6)],
            "ask": [listing.number(quote.ask), round(quote.ask_size, 6)],
        }
        return {"ch": f"market.{listing.id}.detail.merged", "status": "ok", "ts": quote.at_ms, "tick": tick}

    def _tickers(self, _: Query) -> Json:
        data: list[Json] = []
        for listing in self.board.listings.values():
            quote = self.board.quote(listing)
            data.append(
                {
                    "symbol": listing.id,
                    **_day(listing, quote.day),
                    "bid": listing.number(quote.bid),
                    "bidSize": round(quote.bid_size, 6),
                    "ask": listing.number(quote.ask),
                    "askSize": round(quote.ask_size, 6),
                }
            )
        return {"status": "ok", "ts": self.clock.now_ms(), "data": data}

    def _candles(self, query: Query, most: int) -> Json:
        listing = self.pair(query, "symbol")
        period = _PERIODS.get(query.get("period", ""))
        if period is None:
            raise BadParameter("period")
        candles = self.board.candles(
            listing, FRAMES[period], moment(query, "from"), moment(query, "to"), whole(query, "size", 150, most)
        )
        data = [{"id": candle.start_s, **_day(listing, candle)} for candle in reversed(candles)]
        return {
            "ch": f"market.{listing.id}.kline.{query['period']}",
            "status": "ok",
            "ts": self.clock.now_ms(),
            "data": data,
        }

    def _depth(self, query: Query) -> Json:
        listing = self.pair(query, "symbol")
        depth = whole(query, "depth", 150, 150)
        if depth != 150 and depth not in _DEPTHS:
            raise BadParameter("depth")
        bids, asks = self.board.book(listing, depth)
        quote = self.board.quote(listing)
        return {
            "ch": f"market.{listing.id}.depth.{query.get('type', 'step0')}",
            "status": "ok",
            "ts": quote.at_ms,
            "tick": {
                "ts": quote.at_ms,
                "version": quote.number,
                "bids": [[listing.number(level.price), round(level.amount, 6)] for level in bids],
                "asks": [[listing.number(level.price), round(level.amount, 6)] for level in asks],
            },
        }

    def _groups(self, listing: Listing, size: int) -> list[Json]:
        return [
            {
                "id": trade.number,
                "ts": trade.at_ms,
                "data": [
                    {
                        "id": trade.number,
                        "ts": trade.at_ms,
                        "trade-id": trade.number,
                        "amount": round(trade.amount, 6),
                        "price": listing.number(trade.price),
                        "direction": "buy" if trade.buy else "sell",
                    }
                ],
            }
            for trade in reversed(self.board.trades(listing, None, None, size))
        ]

    def _last_trade(self, query: Query) -> Json:
        listing = self.pair(query, "symbol")
        group = self._groups(listing, 1)[0]
        return {"ch": f"market.{listing.id}.trade.detail", "status": "ok", "ts": group["ts"], "tick": group}

    def _trades(self, query: Query) -> Json:
        listing = self.pair(query, "symbol")
        groups = self._groups(listing, whole(query, "size", 1, 2000))
        return {
            "ch": f"market.{listing.id}.trade.detail",
            "status": "ok",
            "ts": self.clock.now_ms(),
            "data": groups,
        }

    def usage_headers(self, endpoint: str, verdict: Verdict) -> dict[str, str]:
        """What is left of the fullest window, and when it has room again (ms since the epoch)."""
        usage = verdict.fullest()
        if usage is None:
            return {}
        return {
            "X-HB-RateLimit-Requests-Remain": str(max(0, usage.bucket.amount - usage.used)),
            "X-HB-RateLimit-Requests-Expire": str(usage.resets_ns // 1_000_000),
        }

    def refuse(self, verdict: Verdict) -> Answer:
        """429 `too-many-requests`."""
        return _error("too-many-requests", "Too many requests, please try again later", 429)

    def unknown_symbol(self, pair_id: str) -> Answer:
        """`invalid symbol`, with HTTP 200."""
        return self._invalid("invalid symbol")

    def bad_parameter(self, name: str) -> Answer:
        """`invalid-parameter`, with HTTP 200."""
        return self._invalid(f"invalid {name}")

    def _invalid(self, text: str) -> Answer:
        error = {"status": "error", "err-code": "invalid-parameter", "err-msg": text}
        return reply({"ts": self.clock.now_ms(), **error})

    def unknown_path(self) -> Answer:
        """404."""
        return _error("not-found", "Not Found", 404)

    def error(self, status: Literal[500, 503]) -> Answer:
        """`gateway-internal-error`."""
        return _error("gateway-internal-error", "Failed to load data. Try again later.", status)

    def maintenance(self, endpoint: str) -> Answer:
        """A halted market, and `system-maintenance` with 503 for all else."""
        if endpoint == self.status_endpoint:
            now_ms = self.clock.now_ms()
            halt = {"haltStartTime": now_ms - 60_000, "haltEndTime": now_ms + 3_600_000, "haltReason": 2}
            return reply(_ok2({"marketStatus": 2, **halt, "affectedSymbols": "all"}))
        return _error("system-maintenance", "System is in maintenance!", 503)


def _ok2(data: object) -> Json:
    return {"code": 200, "message": "success", "data": data}


def _error(code: str, text: str, status: int) -> Answer:
    return reply({"status": "error", "err-code": code, "err-msg": text, "data": None}, status)


def _day(listing: Listing, candle: Candle) -> Json:
    number = listing.number
    return {
        "open": number(candle.open),
        "high": number(candle.high),
        "low": number(candle.low),
        "close": number(candle.close),
        "amount": round(candle.volume, 8),
        "vol": round(candle.turnover, 8),
        "count": 1000,
    }


def _symbol(listing: Listing) -> Json:
    return {
        "base-currency": listing.coin.code.lower(),
        "quote-currency": listing.quote.lower(),
        "price-precision": listing.decimals,
        "amount-precision": listing.lot_decimals,
        "symbol-partition": "main",
        "symbol": listing.id,
        "state": "online",
        "value-precision": 8,
        "min-order-amt": 0.00001,
        "max-order-amt": 1000,
        "min-order-value": 1,
        "limit-order-min-order-amt": 0.00001,
        "limit-order-max-order-amt": 1000,
        "limit-order-max-buy-amt": 1000,
        "limit-order-max-sell-amt": 1000,
        "buy-limit-must-less-than": 1.1,
        "sell-limit-must-greater-than": 0.9,
        "sell-market-min-order-amt": 0.00001,
        "sell-market-max-order-amt": 20,
        "buy-market-max-order-value": 1500000,
        "market-sell-order-rate-must-less-than": 0.01,
        "market-buy-order-rate-must-less-than": 0.01,
        "leverage-ratio": 5,
        "super-margin-leverage-ratio": 3,
        "funding-leverage-ratio": 3,
        "api-trading": "enabled",
        "tags": "",
    }


def _currency(code: str) -> Json:
    chain: Json = {
        "chain": code,
        "displayName": code.upper(),
        "fullName": code.upper(),
        "baseChain": code.upper(),
        "baseChainProtocol": code.upper(),
        "contractAddress": "",
        "chainType": "1",
        "isDynamic": False,
        "numOfConfirmations": 12,
        "numOfFastConfirmations": 6,
        "depositStatus": "allowed",
        "minDepositAmt": "0.001",
        "withdrawStatus": "allowed",
        "minWithdrawAmt": "0.01",
        "withdrawPrecision": 6,
        "maxWithdrawAmt": "1000000.000000000000000000",
        "withdrawQuotaPerDay": "1000000.000000000000000000",
        "withdrawQuotaPerYear": None,
        "withdrawQuotaTotal": None,
        "withdrawFeeType": "fixed",
        "withdrawFeeExpandType": "fixed",
        "withdrawFeeExpandData": None,
        "transactFeeWithdraw": "0.001",
        "addrWithTag": False,
        "addrDepositTag": False,
    }
    return {"currency": code, "assetType": 1, "chains": [chain], "instStatus": "normal"}


def _contract(code: str) -> Json:
    return {
        "symbol": "BTC",
        "contract_code": code,
        "contract_size": 100.0,
        "price_tick": 0.1,
        "settlement_date": "",
        "create_date": "20200325",
        "delivery_time": "",
        "contract_status": 1,
    }


def _linear_swap() -> Json:
    return {
        **_contract("BTC-USDT"),
        "contract_size": 0.001,
        "support_margin_mode": "all",
        "business_type": "swap",
        "pair": "BTC-USDT",
        "contract_type": "swap",
    }


def _inverse_swap() -> Json:
    return _contract("BTC-USD")


def _inverse_future() -> Json:
    # 2030-12-27 08:00 UTC, a Friday like every delivery.
    dated = {"contract_type": "quarter", "delivery_date": "20301227", "delivery_time": 1_924_588_800_000}
    return {**_contract("BTC301227"), **dated}
