"""What one bad client may send: each kind is a request, or a way to ask for it, that harms a careless fleet.

All of it is legal: the broker takes it from any client that may publish requests. Some of its symbols are ones about
which an exchange has little to say (`SAID`). The good clients ask for other symbols, so that only the
fleet can keep them waiting.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from deploy.simulator.faults import HTML, Said
from schemas import topology
from schemas.messages import Attempt, Outcome, Request, Result, Try
from schemas.reports import Report
from schemas.runtime.results import now_ms

HOUR_MS: Final = 3_600_000
# Coins that no good client asks for.
COINS: Final = ("ALGO", "FIL", "ETC", "NEAR", "ICP", "APT", "ARB", "OP", "SUI", "UNI")
# Kraken takes one call a second. More than a few of the bad client's requests would simply spend the budget, which is
# everybody's to spend.
WEIGHTS: Final[Mapping[str, float]] = {"kraken": 0.05}
_EMPTY_BOOK: Final = '{"code":"0","msg":"","data":[{"asks":[],"bids":[],"ts":"1795904222000","seqId":1}]}'
_NO_PRICE: Final = '{"code":"0","msg":"","data":[{"instId":"X","last":"","askPx":"","bidPx":"","ts":"1795904222000"}]}'
# What exchanges answer where a request's target holds such a text, word for word.
SAID: Final[Mapping[str, Mapping[str, Said]]] = {
    "okx": {
        "books?instId=ALGO-": Said(body=_EMPTY_BOOK),
        "ticker?instId=FIL-": Said(body=_NO_PRICE),
        "trades?instId=ETC-": Said(body=""),
        "candles?instId=NEAR-": Said(body='{"code":"0","msg":"","data":[]}'),
        "instId=ICP-": Said(404, HTML.decode(), "text/html"),
        "instId=APT-": Said(body='{"code":"59999","msg":"words that nobody knows","data":[]}'),
    },
    "binance": {
        "symbol=ARBUSDT": Said(400, "Bad Request", "text/plain"),
        "symbol=OPUSDT": Said(414, HTML.decode(), "text/html"),
        "symbol=SUIUSDT": Said(451, '{"code":0,"msg":"Service unavailable from a restricted location"}'),
    },
}
SPELLINGS: Final = ("XXBTZUSD", "XBTUSD", "XBT/USD", "BTC/USD", "BTCUSD", "xbtusd", "XBTUSD,ETHUSD")


class Message(Struct, frozen=True):
    """One message of the bad client.

    Args:
        body: its body.
        properties: AMQP properties; `reply_to` may name one of `Traps`.
        queue: where it goes, by the default exchange.
    """

    body: bytes
    properties: Mapping[str, Any] = {}
    queue: str = topology.REQUESTS


class Traps(Struct, frozen=True):
    """Queues that the bad client wants its results in: one that is full and refuses, one that is gone."""

    full: str
    gone: str


class Mischief:
    """The bad client's messages, drawn from a seed.

    Args:
        seed: all but times follows from it.
        lanes: the fleet's lanes.
        traps: its queues.
    """

    def __init__(self, seed: int, lanes: Sequence[str], traps: Traps) -> None:
        self._rng = random.Random(f"mischief {seed}")
        self._lanes = list(lanes)
        self._traps = traps
        self.kinds: Final[dict[str, Callable[[], Message]]] = {
            "symbols with little to say": self._little_to_say,
            "nothing that the method can answer": self._out_of_place,
            "arguments that no exchange takes": self._bad_arguments,
            "params of another call": self._foreign_params,
            "invented pairs": self._invented_pairs,
            "20 KB of params": self._long_params,
            "a symbol that nobody lists": self._unknown_symbol,
            "a reply queue that is full": lambda: self._replied_to(self._traps.full),
            "a reply queue that is gone": lambda: self._replied_to(self._traps.gone),
            "a direct reply to nobody": self._direct_reply,
            "a reply queue of the fleet's": lambda: self._replied_to(self._rng.choice(self._fleet_queues())),
            "one id, one deadline": self._constant_id,
            "a hedge of an hour": lambda: self._plain(hedge_ms=HOUR_MS, deadline_ms=now_ms() + HOUR_MS),
            "messages of the fleet": self._own_message,
            "an account that is not his": lambda: self._plain(method="fetch_balance", args={}, account="main"),
            "not a request": lambda: Message(self._rng.randbytes(self._rng.randint(0, 300)), {"reply_to": "nobody"}),
        }

    def draw(self) -> tuple[str, Message]:
        """The next message, and its kind."""
        kind = self._rng.choice(list(self.kinds))
        return kind, self.kinds[kind]()

    def _plain(self, **fields: Any) -> Message:
        request: dict[str, Any] = {
            "method": "fetch_ticker",
            "args": {"symbol": f"{self._rng.choice(COINS)}/USDT"},
            "exchanges": self._rng.choices(self._lanes, [WEIGHTS.get(lane, 1.0) for lane in self._lanes]),
            "deadline_ms": now_ms() + self._rng.randint(2_000, 20_000),
        }
        return Message(json.dumps(request | fields).encode(), {"content_type": "application/json"})

    def _of(self, method: str, **args: Any) -> Message:
        return self._plain(method=method, args=args)

    def _replied_to(self, reply_to: str) -> Message:
        plain = self._plain()
        return msgspec.structs.replace(plain, properties={**plain.properties, "reply_to": reply_to})

    def _out_of_place(self) -> Message:
        symbol = f"{self._rng.choice(COINS)}/USDT"
        method = self._rng.choice(
            ("fetch_funding_rate", "fetch_open_interest", "fetch_mark_price", "fetch_greeks", "fetch_leverage_tiers")
        )
        return self._of(method, **({"symbols": [symbol]} if method == "fetch_leverage_tiers" else {"symbol": symbol}))

    def _little_to_say(self) -> Message:
        method = self._rng.choice(("fetch_ticker", "fetch_order_book", "fetch_trades", "fetch_ohlcv"))
        args = {"symbol": f"{self._rng.choice(COINS)}/USDT"}
        return self._plain(method=method, args=args, exchanges=[self._rng.choice(list(SAID))])

    def _bad_arguments(self) -> Message:
        symbol = f"{self._rng.choice(COINS)}/USDT"
        calls: tuple[tuple[str, dict[str, Any]], ...] = (
            ("fetch_tickers", {"symbols": []}),
            ("fetch_order_book", {"symbol": symbol, "limit": 7}),
            ("fetch_order_book", {"symbol": symbol, "limit": 10**9}),
            ("fetch_ohlcv", {"symbol": symbol, "timeframe": "1m", "since": 1, "limit": 10**12}),
            ("fetch_ohlcv", {"symbol": symbol, "timeframe": "1m", "since": 2**62}),
            ("fetch_trades", {"symbol": symbol, "since": now_ms() + HOUR_MS}),
            ("fetch_tickers", {"symbols": [symbol] * 400}),
            ("fetch_tickers", {"symbols": [symbol, "BTC/USDT:USDT"]}),
        )
        method, args = self._rng.choice(calls)
        return self._of(method, **args)

    def _foreign_params(self) -> Message:
        keys = ("symbol", "pair", "instId", "product_id", "type", "subType", "category", "instType", "limit", "sz")
        params: dict[str, Any] = {
            key: self._rng.choice((*SPELLINGS, "", 0, -1, True, "swap", "option")) for key in keys[:5]
        }
        params |= {self._rng.choice(keys): self._rng.choice(("ETHUSDT", "swap", 10**9, ["A", "B"]))}
        method = self._rng.choice(("fetch_ticker", "fetch_trades", "fetch_ohlcv", "fetch_order_book"))
        return self._of(method, symbol=f"{self._rng.choice(COINS)}/USDT", params=params)

    def _invented_pairs(self) -> Message:
        key = self._rng.choice(("pair", "symbol", "instId", "product_id"))
        name = self._rng.choice((*SPELLINGS, f"A{self._rng.randint(0, 10**6)}"))
        method = self._rng.choice(("fetch_ohlcv", "fetch_trades"))
        return self._of(method, symbol=f"{self._rng.choice(COINS)}/USDT", params={key: name})

    def _long_params(self) -> Message:
        return self._of("fetch_ticker", symbol=f"{self._rng.choice(COINS)}/USDT", params={"x": "y" * 20_000})

    def _unknown_symbol(self) -> Message:
        return self._of("fetch_ticker", symbol=f"NO{self._rng.randint(0, 10**6)}/USDT")

    def _direct_reply(self) -> Message:
        key = self._rng.choice(
            (
                "amq.rabbitmq.reply-to.",
                "amq.rabbitmq.reply-to.x",
                "amq.rabbitmq.reply-to.g2dkABByYWJiaXRAbm93aGVyZQAAAAAAAAAAAAAAAA==.AAAA",
                "amq.rabbitmq.reply-to." + "x" * 200,
                "amq.rabbitmq.reply-to.é.é",
            )
        )
        return self._replied_to(key)

    def _fleet_queues(self) -> list[str]:
        return [queue.name for queue in topology.queues(self._lanes)]

    def _constant_id(self) -> Message:
        return self._plain(id="the same", deadline_ms=(now_ms() // 60_000 + 1) * 60_000)

    def _own_message(self) -> Message:
        request = Request("fetch_ticker", {"symbol": "ALGO/USDT"}, id="mine")
        item = Try(self._rng.choice(self._lanes), Outcome.FAILED, None, "why")
        message = self._rng.choice(
            (
                Result(
                    "mine", ok=True, method="fetch_ticker", exchange="okx", lane="okx", data={"symbol": "ALGO/USDT"}
                ),
                Attempt(request, "okx", 1, now_ms(), tries=[item]),
                Report("stranger", now_ms(), []),
            )
        )
        encode, kind = self._rng.choice(((msgspec.json.encode, "json"), (msgspec.msgpack.encode, "msgpack")))
        return Message(encode(message), {"content_type": f"application/{kind}"})
